/**
 * What a room looks like: join reply + events → state.
 *
 * Decides what every fact, gauge and personal message changes, so that a snapshot and the facts after it give the
 * same `state.room` as a later snapshot. Pure: no DOM, no clock, no socket; states are never changed in place, so
 * `before.room.items !== after.room.items` tells whether the shelf changed. Moments are derived by `saleStateAt` and
 * `packetStateAt` from a time the caller passes, because campaigns start and end by the clock, without a message.
 *
 * Campaigns that are over leave `room` as they leave snapshots, and stay in `past` for the screen.
 * Source: docs/protocol.md, "Objects and events".
 */

export const COMMENTS_MAX = 50; // as many as a snapshot holds
const PAST_MAX = 20; // finished campaigns remembered, of each kind
const ORDERS_MAX = 50;
const REMOVED_MAX = 200;

const EMPTY_ROOM = {
  room: "", title: "", state: "scheduled", notice: null, items: [], explaining: null, sales: [], packets: [],
  pinned: null, comments: [], muted_all: false,
};
const EMPTY_GAUGES = { likes: 0, online: { now: 0, peak: 0 }, stock: {}, packets: {}, rank: [] };
const EMPTY_YOU = { viewer: "", name: "", role: "viewer", muted_until: null, orders: [], grabs: {}, share: null };

/** Return the state before anything is known. */
export function emptyState() {
  return {
    joined: false, room: EMPTY_ROOM, gauges: EMPTY_GAUGES, you: EMPTY_YOU,
    past: { sales: [], packets: [] }, removed: [], dropped: 0,
  };
}

/** Return the state after a join reply `ok`. Facts in `ok.missed` are applied after it, through `applyEvent`. */
export function applyJoin(state, ok) {
  const you = { ...EMPTY_YOU, ...ok.you };
  you.orders = Object.values(you.orders || {});
  const kept = state.you.orders.filter((old) => old.status !== "held" && !you.orders.some((o) => o.order === old.order));
  you.orders = [...kept, ...you.orders].slice(-ORDERS_MAX);
  you.grabs = { ...state.you.grabs, ...you.grabs };
  const gauges = { ...EMPTY_GAUGES, ...ok.gauges };
  gauges.likes = Math.max(gauges.likes, state.gauges.likes);
  const next = { ...state, joined: true, you, gauges };
  return ok.room ? { ...next, ...fromSnapshot(state, ok.room) } : next;
}

/** Return the state after one event. Unknown events change nothing. */
export function applyEvent(state, event) {
  const change = Object.hasOwn(CHANGES, event.ev) ? CHANGES[event.ev] : null;
  return change ? change(state, event) : state;
}

/** Return a sale's state at `now` (milliseconds, store clock), counting the moments nobody announces. */
export function saleStateAt(sale, now) {
  if (sale.state === "ended" || now >= sale.ends_at) return "ended";
  if (now < sale.starts_at) return "scheduled";
  return sale.state === "scheduled" ? "open" : sale.state;
}

/** Return a packet's state at `now`; `gauge` is `{left, grabbed}` or undefined. */
export function packetStateAt(packet, gauge, now) {
  if (packet.state === "closed" || now >= packet.expires_at) return "closed";
  if (now < packet.opens_at) return "scheduled";
  if (packet.state === "empty" || (gauge && gauge.left === 0)) return "empty";
  return "open";
}

/** Tell whether a mute holds at `now`: no value or a past moment means no, 0 means for ever. */
export function isMutedAt(mutedUntil, now) {
  return mutedUntil === 0 || (typeof mutedUntil === "number" && mutedUntil > now);
}

function fromSnapshot(state, snapshot) {
  const room = { ...EMPTY_ROOM, ...snapshot };
  room.items = sorted(Object.values(room.items));
  const sales = Object.values(room.sales);
  const packets = Object.values(room.packets);
  room.sales = sales.filter((sale) => sale.state !== "ended");
  room.packets = packets.filter((packet) => packet.state !== "closed");
  room.comments = room.comments.slice(-COMMENTS_MAX);
  const past = {
    sales: remember(state.past.sales, "sale", sales.filter((sale) => sale.state === "ended")),
    packets: remember(state.past.packets, "packet", packets.filter((packet) => packet.state === "closed")),
  };
  return { room, past };
}

/** The object of a flat event: its fields without the envelope's. */
function objectOf({ ev, seq, at, ...object }) {
  return object;
}

/** Shelf order: `sort` ascending, ties by item id. */
function sorted(items) {
  return [...items].sort((a, b) => a.sort - b.sort || (a.item < b.item ? -1 : 1));
}

/** Put `object` in the place of the one with its id, in the order of `moment`, ties by id. */
function scheduled(list, id, object, moment) {
  return [...without(list, id, object[id]), object]
    .sort((a, b) => a[moment] - b[moment] || (a[id] < b[id] ? -1 : 1));
}

function without(list, id, value) {
  return list.some((object) => object[id] === value) ? list.filter((object) => object[id] !== value) : list;
}

function remember(list, id, objects) {
  return objects.reduce((all, object) => [...without(all, id, object[id]), object], list).slice(-PAST_MAX);
}

const inRoom = (state, change) => ({ ...state, room: { ...state.room, ...change } });
const inGauges = (state, change) => ({ ...state, gauges: { ...state.gauges, ...change } });
const inYou = (state, change) => ({ ...state, you: { ...state.you, ...change } });

function putSale(state, event) {
  const past = { ...state.past, sales: without(state.past.sales, "sale", event.sale) };
  return { ...inRoom(state, { sales: scheduled(state.room.sales, "sale", objectOf(event), "starts_at") }), past };
}

function setSaleState(state, sale, value) {
  const sales = state.room.sales.map((other) => (other.sale === sale ? { ...other, state: value } : other));
  return inRoom(state, { sales });
}

function endSale(state, event) {
  const known = state.room.sales.find((sale) => sale.sale === event.sale);
  const ended = { ...known, ...objectOf(event), state: "ended" };
  const past = { ...state.past, sales: remember(state.past.sales, "sale", [ended]) };
  return { ...inRoom(state, { sales: without(state.room.sales, "sale", event.sale) }), past };
}

function closePacket(state, event) {
  const known = state.room.packets.find((packet) => packet.packet === event.packet);
  const closed = { ...known, ...objectOf(event), state: "closed" };
  const past = { ...state.past, packets: remember(state.past.packets, "packet", [closed]) };
  return { ...inRoom(state, { packets: without(state.room.packets, "packet", event.packet) }), past };
}

function addComment(state, event) {
  const { comments } = state.room;
  // Chat carries no `seq`: one that comes around the snapshot may be in it already. Numbers rise.
  if (comments.length && event.comment <= comments.at(-1).comment) return state;
  const { ev, ...comment } = event;
  return inRoom(state, { comments: [...comments, comment].slice(-COMMENTS_MAX) });
}

function deleteComment(state, { comment }) {
  const { comments, pinned } = state.room;
  return inRoom(state, {
    comments: without(comments, "comment", comment),
    pinned: pinned && pinned.comment === comment ? null : pinned,
  });
}

/** Title, cover, playback and planned start: a field that is absent has no value now. */
function updateRoom(state, { title, cover, playback, starts_at: startsAt }) {
  const { cover: _, playback: __, starts_at: ___, ...room } = state.room;
  const given = Object.entries({ title, cover, playback, starts_at: startsAt }).filter(([, value]) => value !== undefined);
  return { ...state, room: { ...room, ...Object.fromEntries(given) } };
}

const CHANGES = {
  "room.state": (state, { state: value }) => inRoom(state, { state: value }),
  "room.updated": updateRoom,
  notice: (state, event) => inRoom(state, { notice: event.text ? objectOf(event) : null }),
  "item.put": (state, event) => inRoom(state, {
    items: sorted([...without(state.room.items, "item", event.item), objectOf(event)]),
  }),
  "item.removed": (state, { item }) => inRoom(state, {
    items: without(state.room.items, "item", item),
    explaining: state.room.explaining === item ? null : state.room.explaining,
  }),
  "item.explaining": (state, { item }) => inRoom(state, { explaining: item ?? null }),
  "seckill.scheduled": putSale,
  "seckill.adjusted": putSale,
  "seckill.ended": endSale,
  "seckill.sold_out": (state, { sale }) => setSaleState(state, sale, "sold_out"),
  "seckill.back": (state, { sale }) => setSaleState(state, sale, "open"),
  "redpacket.opened": (state, event) => inRoom(state, {
    packets: scheduled(state.room.packets, "packet", objectOf(event), "opens_at"),
  }),
  "redpacket.closed": closePacket,
  "room.muted_all": (state, { on }) => inRoom(state, { muted_all: on }),
  "comment.deleted": deleteComment,
  "comment.pinned": (state, { comment }) => inRoom(state, { pinned: comment }),
  "viewer.removed": (state, { viewer, how }) => ({
    ...state, removed: [...without(state.removed, "viewer", viewer), { viewer, how }].slice(-REMOVED_MAX),
  }),

  comment: addComment,
  thinned: (state, { dropped }) => ({ ...state, dropped: state.dropped + dropped }),

  likes: (state, { total }) => (total > state.gauges.likes ? inGauges(state, { likes: total }) : state),
  online: (state, { now, peak }) => inGauges(state, { online: { now, peak } }),
  stock: (state, { sale, left, held, sold }) => inGauges(state, {
    stock: { ...state.gauges.stock, [sale]: { left, held, sold } },
  }),
  packet: (state, { packet, left, grabbed }) => inGauges(state, {
    packets: { ...state.gauges.packets, [packet]: { left, grabbed } },
  }),
  rank: (state, { top }) => inGauges(state, { rank: top }),

  "you.order": (state, event) => inYou(state, {
    orders: [...without(state.you.orders, "order", event.order), objectOf(event)].slice(-ORDERS_MAX),
  }),
  "you.muted": (state, { until }) => inYou(state, { muted_until: until }),
  "you.grab": (state, { packet, amount_cents: cents }) => inYou(state, {
    grabs: { ...state.you.grabs, [packet]: cents },
  }),
};
