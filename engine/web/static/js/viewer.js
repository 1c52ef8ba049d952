/**
 * The viewer page.
 *
 * Puts the client's events into the room's state and the state onto the screen: at most one paint per animation frame,
 * chat rows written in batches. Decides words and places only; what is true comes from `room-state.js`, campaigns are
 * drawn by `viewer-campaigns.js`.
 */

import { $, avatar, el, fillIcons, hashOf, icon, isHttps, perFrame, setText, cover } from "./dom.js";
import { clockTime, codePoints, count, countdown, yuan, yuanExact } from "./format.js";
import { Hearts } from "./hearts.js";
import { errorText, setUpLanguage, t } from "./i18n.js";
import { LiveList } from "./live-list.js";
import { LiveroomClient, browserSocket } from "./liveroom-client.js";
import { applyEvent, applyJoin, emptyState, isMutedAt, saleStateAt } from "./room-state.js";
import { NoToken, forgetToken, openSession, socketUrl } from "./session.js";
import { Sheets } from "./sheets.js";
import { Campaigns, bars, buyLink } from "./viewer-campaigns.js";

const COMMENT_CHARS_MAX = 200;
const HINT_MS = 3_500;
const OWN_COMMENT_MS = 1_500; // thinned away by then: the sender sees it all the same
const BANNER_AFTER_MS = 600; // a shorter break is not worth a word
const HEARTS_PER_GAUGE_MAX = 6;
const STAFF = ["agent", "moderator", "streamer", "owner"];

setUpLanguage();
fillIcons();

let state = emptyState();
let painted = emptyState();
let client;
let session;
let campaigns;
let replyTo = null;
let blockedUntil = 0; // local moment until which the server does not want another comment
let myLikes = 0; // taps of ours that the next likes gauge will contain
const known = new Map(); // comment id → name, for "reply to"; bounded by KNOWN_MAX
const KNOWN_MAX = 400;
const recent = []; // last faces seen
const FACES_MAX = 3;

const hearts = new Hearts($("hearts"));
const sheets = new Sheets($("face"), $("curtain"));
const comments = new LiveList($("comments"), commentRow, (unseen) => {
  $("newer").hidden = unseen === 0;
  setText($("newer-text"), t("viewer.newer", { n: unseen }));
});

// --- what comes in ------------------------------------------------------------------------------------------

function onJoin(ok) {
  change(applyJoin(state, ok));
  if (!ok.room) return;
  for (const comment of state.room.comments) remember(comment);
  comments.reset([{ welcome: true }, ...state.room.comments]);
}

const CHAT = {
  comment(event) {
    if (known.has(event.comment)) return; // already on the screen
    remember(event);
    sawFace(event.from);
    comments.push(event);
  },
  arrived(event) {
    sawFace(event.from);
    showArrival(event);
  },
  grabbed: (event) => comments.push(event),
  thinned: (event) => comments.push(event),
  "comment.deleted": ({ comment: id }) => comments.remove(id, (value) => value.comment === id),
  likes({ total }) {
    const others = total - state.gauges.likes - myLikes;
    myLikes = Math.max(0, myLikes - Math.max(0, total - state.gauges.likes));
    if (others > 0) flyFromButton(Math.min(HEARTS_PER_GAUGE_MAX, Math.ceil(Math.sqrt(others))), 700);
  },
  "you.order": (event) => campaigns.onOrder(event),
  "you.muted": ({ until }) => say(isMutedAt(until, client.now()) ? mutedText(until) : t("viewer.unmuted")),
};

function onEvent(event) {
  if (Object.hasOwn(CHAT, event.ev)) CHAT[event.ev](event);
  change(applyEvent(state, event));
}

function onStatus({ state: status, code }) {
  clearTimeout(onStatus.timer);
  if (status === "online") $("banner").hidden = true;
  else if (status === "closed") showEnd(code);
  else {
    onStatus.timer = setTimeout(() => {
      setText($("banner"), t(`conn.${state.joined ? "waiting" : "connecting"}`));
      $("banner").hidden = false;
    }, BANNER_AFTER_MS);
  }
  paint();
}

function change(next) {
  if (next === state) return;
  state = next;
  paint();
}

function remember({ comment, from }) {
  known.set(comment, from.name);
  if (known.size > KNOWN_MAX) known.delete(known.keys().next().value);
}

// --- painting -----------------------------------------------------------------------------------------------

const paint = perFrame(() => {
  const before = painted;
  painted = state;
  const { room, gauges } = state;
  setText($("online"), t("viewer.online", { n: count(gauges.online.now) }));
  const likes = count(gauges.likes + client.likesPending);
  setText($("likes-sub"), t("viewer.likes", { n: likes }));
  setText($("like-count"), likes);
  paintComposer();
  if (room !== before.room) paintRoom(room, before.room);
  campaigns.tick();
});

function paintRoom(room, before) {
  setText($("title"), room.title);
  document.title = t("app.viewer", { room: room.title || room.room });
  if (room.state !== before.state || !$("state").hasChildNodes()) {
    $("state").className = `badge ${room.state}`;
    $("state").replaceChildren(...(room.state === "live" ? [bars()] : []), t(`state.${room.state}`));
  }
  if (room.cover !== before.cover) {
    $("scene").classList.toggle("has-cover", isHttps(room.cover));
    $("scene").firstElementChild.replaceChildren(isHttps(room.cover) ? cover({ cover: room.cover }) : "");
  }
  paintStage(room);
  if (room.notice !== before.notice) paintNotice(room.notice);
  if (room.pinned !== before.pinned) paintPinned(room.pinned);
  if (room.items !== before.items || room.explaining !== before.explaining || room.sales !== before.sales) paintShelf(room);
}

function paintStage(room) {
  const still = room.state !== "live";
  $("scene").classList.toggle("still", still);
  $("stage").hidden = !still;
  if (!still) return;
  const ahead = room.starts_at ? room.starts_at - client.now() : 0;
  setText($("stage-title"), t(`scene.${room.state}`));
  setText($("stage-sub"), {
    scheduled: ahead > 3_600_000 ? t("scene.scheduled.at", { time: clockTime(room.starts_at) }) : ahead > 0 ? countdown(ahead) : "",
    closed: t("scene.closed.sum", { likes: count(state.gauges.likes), peak: count(state.gauges.online.peak) }),
  }[room.state] || "");
}

function paintNotice(notice) {
  const text = notice?.text || "";
  $("ticker").hidden = !text;
  if (!text) return;
  setText($("ticker-text"), text.replace(/\s+/g, " "));
  setText($("notice-text"), text);
  const tooLong = $("ticker-text").scrollWidth - $("ticker-text").parentElement.clientWidth;
  $("ticker").classList.toggle("runs", tooLong > 0);
  $("ticker").style.setProperty("--by", `${-tooLong - 20}px`);
  $("ticker").style.setProperty("--run", `${Math.max(6, tooLong / 28)}s`);
}

function paintPinned(pinned) {
  $("pinned").hidden = !pinned;
  if (pinned) $("pinned").replaceChildren(icon("pin"), el("span", {}, ...author(pinned.from), `：${pinned.text}`));
}

function paintShelf(room) {
  $("bag-count").hidden = room.items.length === 0;
  setText($("bag-count"), String(room.items.length));
  setText($("shelf-title"), t("viewer.shelf.n", { n: room.items.length }));
  const rows = room.items.map((item, i) => {
    const sale = room.sales.find((other) => other.item === item.item && saleStateAt(other, client.now()) !== "ended");
    const now = room.explaining === item.item;
    return el("li", { class: now ? "now" : "" },
      el("div", { class: "cover-box" }, cover(item), el("span", { class: "number" }, String(i + 1)),
        item.sold_out ? el("span", { class: "gone" }, t("viewer.soldout")) : null),
      el("div", { class: "item-words" },
        el("p", { class: "item-title" }, item.title),
        el("p", { class: "item-flags" },
          now ? el("span", { class: "flag" }, bars(), t("viewer.explaining")) : null,
          sale ? el("span", { class: "flag" }, t("sale.title")) : null),
        el("div", { class: "item-foot" },
          el("span", {}, el("span", { class: "money" }, yuan(sale ? sale.price_cents : item.price_cents)),
            sale ? el("span", { class: "money old" }, yuan(item.price_cents)) : null),
          sale ? el("button", { class: "pill", type: "button", onclick: () => campaigns.goTo(sale.sale) }, t("sale.claim"))
            : item.sold_out ? el("span", { class: "pill plain" }, t("viewer.soldout")) : buyLink(item))));
  });
  $("shelf").replaceChildren(...(rows.length ? rows : [el("li", { class: "empty" }, t("viewer.shelf.empty"))]));
}

// --- comments -----------------------------------------------------------------------------------------------

function author(from) {
  const tag = STAFF.includes(from.role) ? el("span", { class: `tag ${from.role}` }, t(`role.${from.role}`)) : null;
  return [tag, from.name].filter(Boolean);
}

function commentRow(value) {
  if (value.welcome) return el("p", { class: "row welcome" }, t("viewer.welcome"));
  if (value.ev === "thinned") return el("p", { class: "row note" }, t("viewer.thinned", { n: value.dropped }));
  if (value.ev === "grabbed") {
    return el("p", { class: "row luck" }, `${value.from.name} ${t("viewer.grabbed", { yuan: yuanExact(value.amount_cents) })}`);
  }
  const { comment, from, text } = value;
  const mine = from.id === state.you.viewer;
  const host = from.role === "streamer" || from.role === "owner";
  const who = el("button", { class: "who", type: "button", onclick: () => startReply(comment, from) }, from.name);
  who.setAttribute("aria-label", t("viewer.reply", { name: from.name }));
  const asked = known.get(value.reply_to);
  const to = asked ? el("span", { class: "to" }, `@${asked} `) : null;
  return el("div", { class: `row said name-${hashOf(from.id) % 8}${mine ? " mine" : ""}${host ? " from-host" : ""}`, data: { id: comment } },
    STAFF.includes(from.role) ? el("span", { class: `tag ${from.role}` }, t(`role.${from.role}`)) : null, who, to, text);
}

function startReply(comment, from) {
  replyTo = comment;
  setText($("replying-to"), t("viewer.reply", { name: from.name }));
  $("replying").hidden = false;
  $("say").focus();
}

function endReply() {
  replyTo = null;
  $("replying").hidden = true;
}

/** Say why nothing may be written now, or null. The server decides; this only spares a useless try. */
function silence() {
  if (client.status.state !== "online") return "offline";
  if (state.room.state === "closed") return "closed";
  if (isMutedAt(state.you.muted_until, client.now())) return "muted";
  return state.room.muted_all && state.you.role === "viewer" ? "muted_all" : null;
}

function paintComposer() {
  const why = silence();
  const placeholder = why === "muted" ? mutedText(state.you.muted_until) : t(`viewer.placeholder${why ? `.${why}` : ""}`);
  $("say").placeholder = placeholder;
  // Losing the connection for a moment keeps the text and the focus.
  $("say").disabled = why !== null && why !== "offline";
  const length = codePoints($("say").value);
  $("say-count").hidden = length <= COMMENT_CHARS_MAX - 40;
  setText($("say-count"), `${length}/${COMMENT_CHARS_MAX}`);
  $("say").parentElement.classList.toggle("filled", length > 0);
  $("send").disabled = why !== null || length === 0 || Date.now() < blockedUntil;
}

function mutedText(until) {
  return until === 0 ? t("viewer.muted.forever") : t("viewer.muted.until", { time: clockTime(until) });
}

async function sendComment() {
  const text = $("say").value.trim();
  if (!text || Date.now() < blockedUntil) return;
  if (silence()) {
    say(errorText({ code: silence() === "offline" ? "disconnected" : "muted" }));
    return; // the text stays where it is
  }
  if (codePoints(text) > COMMENT_CHARS_MAX) {
    say(errorText({ code: "too_long" }));
    return;
  }
  const fields = { text, ...(replyTo && { reply_to: replyTo }) };
  $("say").value = "";
  endReply();
  paint();
  try {
    const { comment } = await client.command("comment.send", fields);
    comments.toEnd();
    setTimeout(() => onEvent({ ev: "comment", comment, at: client.now(), ...fields, from: { id: state.you.viewer, ...state.you } }), OWN_COMMENT_MS);
  } catch (err) {
    // What was typed is not lost, unless something new was typed meanwhile.
    if (!$("say").value) $("say").value = text;
    if (err.code === "rate_limited") {
      blockedUntil = Date.now() + (err.retry_ms || 1_000);
      setTimeout(paint, (err.retry_ms || 1_000) + 50);
    }
    const muted = err.code === "muted" && !err.all;
    say(muted && err.until !== undefined ? mutedText(err.until) : errorText(err), err.retry_ms);
    paint();
  }
}

function say(text, forMs = HINT_MS) {
  clearTimeout(say.timer);
  setText($("hint"), text);
  $("hint").hidden = false;
  say.timer = setTimeout(() => { $("hint").hidden = true; }, Math.max(forMs, HINT_MS));
}

// --- people -------------------------------------------------------------------------------------------------

function sawFace(person) {
  if (recent.some((other) => other.id === person.id)) return;
  recent.push(person);
  if (recent.length > FACES_MAX) recent.shift();
  paintFaces();
}

const paintFaces = perFrame(() => $("faces").replaceChildren(...recent.map(avatar)));

function showArrival(event) {
  const node = el("span", {}, `${event.from.name} ${t(event.via ? "viewer.arrived.via" : "viewer.arrived")}`);
  $("arrived").replaceChildren(node);
  setTimeout(() => node.classList.add("gone"), 2_600);
}

// --- likes --------------------------------------------------------------------------------------------------

function flyFromButton(n, spreadMs) {
  const button = $("like").getBoundingClientRect();
  const stage = $("phone").getBoundingClientRect();
  hearts.fly(button.left - stage.left + button.width / 2, button.top - stage.top, n, spreadMs);
}

function likeAt(x, y) {
  client.like();
  myLikes += 1;
  if (x === undefined) flyFromButton(1, 0);
  else hearts.fly(x, y, 1);
  paint();
}

// --- the end ------------------------------------------------------------------------------------------------

const CAN_RETURN = [4410, 4429];

function showEnd(code) {
  if ([4401, 4402].includes(code)) forgetToken("viewer", session.room);
  const key = [4400, 4401, 4402, 4403, 4404, 4410, 4411, 4429].includes(code) ? code : "other";
  setText($("end-title"), t(`end.${key}.t`));
  setText($("end-text"), t(`end.${key}`, { code }));
  $("end-retry").hidden = !CAN_RETURN.includes(code) && key !== "other";
  $("banner").hidden = true;
  sheets.hide();
  $("face").inert = true;
  $("end").hidden = false;
}

$("end-retry").addEventListener("click", () => {
  $("end").hidden = true;
  $("face").inert = false;
  client.start();
});

// --- start --------------------------------------------------------------------------------------------------

function wire() {
  $("bar").addEventListener("submit", (event) => {
    event.preventDefault();
    sendComment();
  });
  // At once, not with the next frame: a disabled button would swallow an Enter that follows quickly.
  $("say").addEventListener("input", paintComposer);
  $("replying-cancel").addEventListener("click", endReply);
  $("newer").addEventListener("click", () => comments.toEnd());
  $("bag").addEventListener("click", () => sheets.show("sheet-shelf"));
  $("ticker").addEventListener("click", () => sheets.show("sheet-notice"));
  $("like").addEventListener("click", () => likeAt());
  $("face").addEventListener("dblclick", (event) => {
    if (event.target.closest("button, a, input, .row, .card")) return;
    const stage = $("phone").getBoundingClientRect();
    likeAt(event.clientX - stage.left, event.clientY - stage.top);
  });
  // Mini-programs and phones sleep all the time: coming back is the normal path.
  document.addEventListener("visibilitychange", () => !document.hidden && client.wake());
  addEventListener("online", () => client.wake());
  setInterval(() => {
    campaigns.tick();
    if (state.joined && state.room.state === "scheduled") paintStage(state.room);
    if (state.you.muted_until) paintComposer();
  }, 250);
}

async function start() {
  try {
    session = await openSession("viewer");
  } catch (err) {
    const key = err instanceof NoToken ? "token" : "other";
    setText($("end-title"), t(`end.${key}.t`));
    setText($("end-text"), t(`end.${key}`, { code: err.message }));
    $("end-retry").hidden = true;
    $("end").hidden = false;
    return;
  }
  const { room, token, renew, via, entry } = session;
  client = new LiveroomClient({
    connect: () => browserSocket(socketUrl()), room, token, renew, onJoin, onEvent, onStatus,
    join: { ...(via && { via }), ...(entry && { entry }) },
  });
  campaigns = new Campaigns({
    client, session, sheets, say, state: () => state, local: onEvent, openShelf: () => sheets.show("sheet-shelf"),
  });
  wire();
  client.start();
}

start();
