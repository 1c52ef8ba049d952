/**
 * Campaigns on the viewer page: what is explained, flash sales with orders, red packets, sharing.
 *
 * Decides what a button says at a moment of the store's clock: a sale unlocks here by the clock's offset, without a
 * message, and the server decides. Draws nothing for a kind of campaign the room has none of. Keeps no truth: that is
 * `room-state.js`.
 */

import { $, cover, el, icon, isHttps, setText } from "./dom.js";
import { countdown, yuan, yuanExact } from "./format.js";
import { errorText, t } from "./i18n.js";
import { newKey } from "./liveroom-client.js";
import { packetStateAt, saleStateAt } from "./room-state.js";

const ENDED_SHOWN_MS = 15_000; // a finished sale or packet stays on the screen so long

export class Campaigns {
  /** @param page what the page lends: `client`, `state()`, `session`, `sheets`, `say(text)` */
  constructor(page) {
    this.page = page;
    this.claims = new Map(); // sale → key of a claim under way
    this.cards = new Map(); // what is on the offers column, by sale or item
    this.envelopes = new Map(); // red packet buttons
    this.results = new Map(); // packet → what the last grab said
    this.order = null;
    this.packet = null;
    this.orderError = "";
    $("packet-open").addEventListener("click", () => this.grab());
    $("share").addEventListener("click", () => this.openShare());
    $("share-copy").addEventListener("click", () => this.copyLink());
  }

  /** Bring everything up to the moment. Called four times a second and after every change. */
  tick() {
    const state = this.page.state();
    if (!state.joined) return;
    const now = this.page.client.now();
    this.drawOffers(state, now);
    this.drawPackets(state, now);
    $("share").hidden = !state.you.share;
    if (this.page.sheets.open === "sheet-order") this.drawOrder(state, now);
    if (this.page.sheets.open === "sheet-packet") this.drawEnvelope(state, now);
    if (this.page.sheets.open === "sheet-share") this.drawRank(state);
  }

  /** Tell the viewer how an order went when its sheet is not open. */
  onOrder(order) {
    if (order.status === "held" || this.page.sheets.open === "sheet-order") return;
    this.page.say(t(`order.${order.status}`));
  }

  // --- what is explained, what is on sale -----------------------------------------------------------------

  drawOffers({ room, gauges, you, past }, now) {
    const wanted = new Map();
    const closed = past.sales.filter((sale) => now - Math.min(sale.ends_at, sale.at ?? sale.ends_at) < ENDED_SHOWN_MS);
    for (const sale of [...room.sales, ...closed].filter((sale) => now < sale.ends_at + ENDED_SHOWN_MS).slice(0, 2)) {
      const item = room.items.find((other) => other.item === sale.item) || { item: sale.item, title: sale.item };
      const explained = room.explaining === sale.item;
      wanted.set(`sale ${sale.sale}`, (card) => this.saleCard(card, sale, item, explained, gauges.stock[sale.sale], you, now));
    }
    const explained = room.items.find((item) => item.item === room.explaining);
    const onSale = room.sales.some((sale) => sale.item === room.explaining && now < sale.ends_at);
    if (explained && !onSale) wanted.set(`item ${explained.item}`, (card) => this.itemCard(card, explained));

    for (const [key, card] of this.cards) {
      if (wanted.has(key)) continue;
      card.root.remove();
      this.cards.delete(key);
    }
    for (const [key, draw] of wanted) {
      const card = draw(this.cards.get(key));
      this.cards.set(key, card);
      if (!card.root.isConnected) $("offers").append(card.root);
    }
  }

  itemCard(card, item) {
    if (card?.item === item) return card;
    const buy = item.sold_out
      ? el("span", { class: "pill plain" }, t("viewer.soldout"))
      : buyLink(item) || el("button", { class: "pill", type: "button", onclick: () => this.page.openShelf() }, t("viewer.look"));
    const parts = [
      el("button", { class: "card-cover", type: "button", onclick: () => this.page.openShelf(), attrs: { "aria-label": item.title } },
        cover(item), el("span", { class: "card-flag" }, bars(), t("viewer.explaining"))),
      el("span", { class: "card-body" },
        el("span", { class: "card-title" }, item.title),
        el("span", { class: "card-row" }, el("span", { class: "money" }, yuan(item.price_cents)), buy)),
    ];
    const root = card?.root || el("article", { class: "card" });
    root.replaceChildren(...parts);
    return { root, item };
  }

  saleCard(card, sale, item, explained, stock, you, now) {
    const fresh = card?.item === item && card.explained === explained ? card : buildSaleCard(card?.root, sale, item, explained);
    const state = saleStateAt(sale, now);
    const order = you.orders.findLast((other) => other.sale === sale.sale && (other.status === "held" || other.status === "paid"));
    const left = stock ? stock.left : sale.stock;
    const done = stock ? 1 - left / Math.max(1, sale.stock) : 0;

    setText(fresh.label, t(state === "scheduled" ? "sale.starts" : "sale.title"));
    const until = state === "scheduled" ? sale.starts_at : sale.ends_at;
    setText(fresh.clock, state === "ended" ? "" : countdown(until - now));
    setText(fresh.price, yuan(sale.price_cents));
    fresh.fill.style.setProperty("transform", `scaleX(${Math.min(1, Math.max(0, done)).toFixed(3)})`);
    setText(fresh.left, state === "scheduled" ? t("sale.limit", { n: sale.per_viewer })
      : left > 0 && left <= 20 ? t("sale.left", { n: left }) : t("sale.taken", { p: Math.floor(done * 100) }));

    const button = fresh.button;
    const what = this.claims.has(sale.sale) ? "claiming" : order ? (order.status === "paid" ? "paid" : "pay") : {
      scheduled: "soon", open: left > 0 ? "claim" : "soldout", sold_out: "soldout", paused: "paused", ended: "ended",
    }[state];
    const words = what === "soldout" && stock && stock.held > 0 ? t("sale.maybe")
      : what === "pay" ? `${t("sale.pay")} ${countdown(order.pay_by - now)}` : t(`sale.${what}`);
    setText(button, words);
    button.disabled = !["claim", "pay", "paid"].includes(what);
    button.classList.toggle("ready", what === "claim");
    button.classList.toggle("paid", what === "paid");
    button.onclick = what === "claim" ? () => this.claim(sale) : () => this.openOrder(order.order);
    return fresh;
  }

  /** From the shelf to the card where the sale is. */
  goTo(sale) {
    this.page.sheets.hide();
    this.cards.get(`sale ${sale}`)?.button.focus();
  }

  async claim(sale) {
    if (this.claims.has(sale.sale)) return;
    // One key for this wish to buy: the client repeats it, the server answers it once.
    const key = newKey();
    this.claims.set(sale.sale, key);
    this.tick();
    try {
      const ok = await this.page.client.command("seckill.claim", { sale: sale.sale, qty: 1 }, key);
      if (ok.again) this.page.say(t("order.again"));
      this.openOrder(ok.order);
    } catch (err) {
      this.page.say(errorText(err));
    }
    this.claims.delete(sale.sale);
    this.tick();
  }

  // --- orders ---------------------------------------------------------------------------------------------

  openOrder(order) {
    this.order = order;
    this.orderError = "";
    this.drawn = null;
    this.drawOrder(this.page.state(), this.page.client.now());
    this.page.sheets.show("sheet-order");
  }

  drawOrder({ you, room }, now) {
    const order = you.orders.find((other) => other.order === this.order);
    if (!order) return; // its message is on the way
    const late = order.status === "held" && now >= order.pay_by;
    const status = late ? "expired" : order.status;
    const drawn = `${order.order} ${status} ${this.orderError} ${this.paying}`;
    if (this.drawn === drawn) {
      if (status === "held") setText($("order-left"), countdown(order.pay_by - now));
      return;
    }
    this.drawn = drawn;
    const item = room.items.find((other) => other.item === order.item) || { item: order.item, title: order.item };
    const held = status === "held";
    const lines = el("dl", { class: "order-lines" },
      el("div", {}, el("dt", {}, t("order.amount")), el("dd", { class: "money" }, yuanExact(order.amount_cents))),
      held ? el("div", {}, el("dt", {}, t("order.payby")), el("dd", { id: "order-left" }, countdown(order.pay_by - now))) : null);
    const says = this.orderError || t(`order.${status}`);
    const tone = this.orderError ? "bad" : { held: "good", paid: "good" }[status] || "bad";
    const pay = this.page.session.demo
      ? el("button", { class: "primary", type: "button", disabled: Boolean(this.paying), data: { first: "" }, onclick: () => this.pay(order) }, t("order.pay"))
      : el("p", {}, t("order.pay.elsewhere"));
    $("order").replaceChildren(
      el("div", { class: "order-goods" }, cover(item), el("div", {}, el("p", {}, item.title), el("p", {}, t("order.qty", { n: order.qty })))),
      lines,
      el("p", { class: `order-says ${tone}`, attrs: { role: "status" } }, says),
      held ? el("div", { class: "order-do" },
        el("button", { class: "quiet", type: "button", onclick: () => this.cancel(order) }, t("order.cancel")), pay) : "",
    );
  }

  async pay(order) {
    this.paying = true;
    this.orderError = "";
    this.tick();
    try {
      const response = await fetch("/demo/pay", {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${this.page.client.token}` },
        body: JSON.stringify({ order: order.order }),
      });
      const answer = await response.json().catch(() => ({}));
      if (!response.ok) this.orderError = t("order.failed", { why: errorText({ code: answer.code || String(response.status) }) });
      // The order's own event says `paid`; the page believes nothing else.
    } catch {
      this.orderError = t("order.failed", { why: errorText({ code: "disconnected" }) });
    }
    this.paying = false;
    this.tick();
  }

  async cancel(order) {
    try {
      await this.page.client.command("order.cancel", { order: order.order });
    } catch (err) {
      this.orderError = errorText(err);
      this.tick();
    }
  }

  // --- red packets ----------------------------------------------------------------------------------------

  drawPackets({ room, gauges, you }, now) {
    const shown = room.packets.filter((packet) => now < packet.expires_at + ENDED_SHOWN_MS).slice(0, 3);
    for (const [id, button] of this.envelopes) {
      if (shown.some((packet) => packet.packet === id)) continue;
      button.remove();
      this.envelopes.delete(id);
    }
    for (const { packet: id, ...packet } of shown) {
      if (!this.envelopes.has(id)) {
        const made = el("button", { class: "packet", type: "button", onclick: () => this.openPacket(id) }, el("span"));
        made.setAttribute("aria-label", t("packet.title"));
        this.envelopes.set(id, made);
        $("packets").append(made);
      }
      const button = this.envelopes.get(id);
      const state = packetStateAt(packet, gauges.packets[id], now);
      const got = you.grabs[id];
      setText(button.firstChild, got !== undefined ? t("packet.got", { yuan: yuanExact(got) })
        : state === "scheduled" ? countdown(packet.opens_at - now) : t("packet.label"));
      button.classList.toggle("ready", state === "open" && got === undefined);
      button.classList.toggle("done", got !== undefined || state === "empty" || state === "closed");
    }
  }

  openPacket(id) {
    this.packet = id;
    this.drawEnvelope(this.page.state(), this.page.client.now());
    this.page.sheets.show("sheet-packet");
  }

  drawEnvelope({ room, past, gauges, you }, now) {
    const packet = room.packets.find((other) => other.packet === this.packet)
      || past.packets.find((other) => other.packet === this.packet);
    if (!packet) return;
    const gauge = gauges.packets[this.packet];
    const state = packetStateAt(packet, gauge, now);
    const got = you.grabs[this.packet];
    const coin = $("packet-open");
    setText($("packet-sub"), t("packet.sub", { n: packet.shares, yuan: yuan(packet.total_cents) }));

    const said = this.results.get(this.packet);
    const result = $("packet-result");
    const drawn = `${this.packet} ${got} ${said} ${state}`;
    if (result.dataset.drawn !== drawn) {
      result.dataset.drawn = drawn;
      if (got !== undefined) {
        result.replaceChildren(said || t("packet.won"), el("b", {}, yuanExact(got), el("small", {}, t("packet.unit"))));
      } else result.replaceChildren(said || (state === "empty" || state === "closed" ? t(`packet.${state}`) : ""));
    }
    coin.hidden = got !== undefined || state === "empty" || state === "closed";
    coin.disabled = state !== "open" || this.grabbing;
    coin.classList.toggle("wait", state === "scheduled");
    coin.classList.toggle("spin", Boolean(this.grabbing));
    setText(coin, state === "scheduled" ? countdown(packet.opens_at - now) : t("packet.open"));
    const best = packet.best?.amount_cents !== undefined
      ? t("packet.best", { name: packet.best.name || packet.best.viewer, yuan: yuanExact(packet.best.amount_cents) }) : "";
    setText($("packet-note"), state === "scheduled" ? t("packet.opens")
      : best || (gauge && state === "open" ? t("packet.left", { n: gauge.left }) : ""));
  }

  async grab() {
    const id = this.packet;
    this.grabbing = true;
    this.results.delete(id);
    this.tick();
    try {
      const ok = await this.page.client.command("redpacket.grab", { packet: id });
      this.page.local({ ev: "you.grab", packet: id, amount_cents: ok.amount_cents });
      if (ok.again) this.results.set(id, t("packet.again"));
    } catch (err) {
      this.results.set(id, errorText(err));
    }
    this.grabbing = false;
    this.tick();
  }

  // --- sharing --------------------------------------------------------------------------------------------

  async openShare() {
    const { client, session, sheets } = this.page;
    const link = new URL(location.pathname + location.search, location.origin);
    link.hash = new URLSearchParams({ via: this.page.state().you.share }).toString();
    $("share-link").value = link.href;
    this.drawRank(this.page.state());
    setText($("rank-me"), "");
    sheets.show("sheet-share");
    try {
      // A token of its own for this channel; the one from the join serves when there is none.
      const { token } = await client.command("share.token", { channel: session.entry || "link" });
      link.hash = new URLSearchParams({ via: token }).toString();
      $("share-link").value = link.href;
      const { me } = await client.command("share.rank");
      setText($("rank-me"), me?.count ? t("share.me", { n: me.count, rank: me.rank }) : t("share.me.none"));
    } catch (err) {
      setText($("rank-me"), errorText(err));
    }
  }

  drawRank({ gauges }) {
    if (this.rankDrawn === gauges.rank) return;
    this.rankDrawn = gauges.rank;
    const rows = gauges.rank.map(({ name, viewer, count }, i) => el("li", {},
      el("span", { class: "place" }, String(i + 1)), el("span", { class: "name" }, name || viewer), el("span", {}, t("share.count", { n: count }))));
    $("rank").replaceChildren(...(rows.length ? rows : [el("li", {}, t("share.empty"))]));
  }

  async copyLink() {
    const input = $("share-link");
    input.select();
    try {
      await navigator.clipboard.writeText(input.value);
    } catch {
      return; // not allowed here: the link stays selected for copying by hand
    }
    this.page.say(t("share.copied"));
  }
}

/** A link to the shop's page of an item, or null when it has none. */
export function buyLink(item) {
  if (!isHttps(item.url)) return null;
  return el("a", { class: "pill", href: item.url, target: "_blank", rel: "noopener noreferrer" }, t("viewer.buy"));
}

/** The three dancing bars of what is live. */
export function bars() {
  return el("span", { class: "bars", attrs: { "aria-hidden": "true" } }, el("i"), el("i"), el("i"));
}

function buildSaleCard(root, sale, item, explained) {
  const made = {
    item, explained, label: el("span"), clock: el("span", { class: "sale-clock" }), price: el("span", { class: "money" }),
    fill: el("i", { class: "sale-fill" }), left: el("span"), button: el("button", { class: "sale-do", type: "button" }),
    root: root || el("article", { class: "card sale" }),
  };
  made.root.replaceChildren(
    el("div", { class: "sale-head" }, el("span", {}, icon("bolt"), made.label), made.clock),
    el("div", { class: "card-cover" }, cover(item), explained ? el("span", { class: "card-flag" }, bars(), t("viewer.explaining")) : null),
    el("div", { class: "card-body" },
      el("span", { class: "card-title" }, item.title),
      el("div", { class: "card-row" }, made.price, item.price_cents ? el("span", { class: "money old" }, yuan(item.price_cents)) : null),
      el("div", { class: "sale-bar" }, made.fill, made.left),
      made.button),
  );
  return made;
}
