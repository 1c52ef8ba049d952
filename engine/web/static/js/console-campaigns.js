/**
 * Campaigns on the console: schedule a sale, send a red packet, adjust, end, audit.
 *
 * Decides ids of new campaigns and turns "in 30 s" into a moment of the store's clock. Whether a campaign may be, and
 * whether the engine knows campaigns at all, is the server's answer, shown under the form.
 */

import { $, el } from "./dom.js";
import { countdown, parseCents, yuan } from "./format.js";
import { errorText, t } from "./i18n.js";
import { packetStateAt, saleStateAt } from "./room-state.js";

const STARTS_S = ["now", 10, 30, 60, 300];

export class ConsoleCampaigns {
  /** @param desk what the page lends: `client`, `state()`, `run(cmd, fields, about)`, `ask(text)` */
  constructor(desk) {
    this.desk = desk;
    for (const select of document.querySelectorAll("[data-starts]")) {
      select.append(...STARTS_S.map((s) => el("option", { value: s === "now" ? 0 : s }, t(`camp.start.${s}`))));
    }
    const tabs = ["seckill", "packet"];
    for (const name of tabs) {
      $(`tab-${name}`).addEventListener("click", () => tabs.forEach((other) => {
        $(`tab-${other}`).setAttribute("aria-selected", String(other === name));
        $(`${other}-form`).hidden = other !== name;
      }));
    }
    this.onSubmit("seckill", (form) => this.schedule(form));
    this.onSubmit("packet", (form) => this.send(form));
    $("audit").addEventListener("click", () => this.audit());
  }

  /** Run a form's command; what the server says against it stands under the form. */
  onSubmit(name, run) {
    $(`${name}-form`).addEventListener("submit", async (event) => {
      event.preventDefault();
      $(`${name}-error`).textContent = "";
      try {
        await run(event.target.elements);
      } catch (err) {
        $(`${name}-error`).textContent = err.code ? errorText(err) : err.message;
      }
    });
  }

  schedule({ item_id: item, price, stock, per_viewer: per, start, minutes, hold_s: hold }) {
    const cents = parseCents(price.value);
    if (!item.value) throw new Error(t("camp.needitem"));
    if (cents === null) throw new Error(t("form.price"));
    const starts = this.desk.client.now() + Number(start.value) * 1000;
    return this.desk.run("seckill.schedule", {
      sale: newId("s"), item: item.value, price_cents: cents, stock: Number(stock.value), per_viewer: Number(per.value),
      starts_at: starts, ends_at: starts + Number(minutes.value) * 60_000, hold_s: Number(hold.value),
    }, item.selectedOptions[0].textContent);
  }

  send({ total, shares, split, min_cents: min, start, expires_s: expires }) {
    const cents = parseCents(total.value);
    if (cents === null) throw new Error(t("form.price"));
    const later = Number(start.value);
    return this.desk.run("redpacket.send", {
      packet: newId("p"), total_cents: cents, shares: Number(shares.value), split: split.value, min_cents: Number(min.value),
      expires_s: Number(expires.value), ...(later && { opens_at: this.desk.client.now() + later * 1000 }),
    }, `¥${yuan(cents)} / ${shares.value}`);
  }

  /** Offer the shelf's items for a sale, keeping the choice. */
  drawItems(items) {
    const select = $("seckill-item");
    const chosen = select.value;
    select.replaceChildren(...items.map((item) => el("option", { value: item.item }, `${item.title} · ¥${yuan(item.price_cents)}`)));
    if (items.some((item) => item.item === chosen)) select.value = chosen;
  }

  /** Show what runs. Called once a second and after every change. */
  tick() {
    const { room, gauges } = this.desk.state();
    const now = this.desk.client.now();
    const sales = room.sales.filter((sale) => now < sale.ends_at).map((sale) => {
      const state = saleStateAt(sale, now);
      const { left = sale.stock, held = 0, sold = 0 } = gauges.stock[sale.sale] || {};
      const title = room.items.find((item) => item.item === sale.item)?.title || sale.item;
      const clock = countdown((state === "scheduled" ? sale.starts_at : sale.ends_at) - now);
      return {
        id: sale.sale, title: `${title} · ¥${yuan(sale.price_cents)}`, state, words: `${t(`sale.state.${state}`)} ${clock}`,
        done: 1 - left / Math.max(1, sale.stock), line: t("camp.stock.now", { left, held, sold, stock: sale.stock }),
        acts: [["+10", () => this.adjust(sale, 10)], ["−10", () => this.adjust(sale, -10)], [t("camp.end"), () => this.endSale(sale)]],
      };
    });
    const packets = room.packets.filter((packet) => now < packet.expires_at).map((packet) => {
      const gauge = gauges.packets[packet.packet];
      const state = packetStateAt(packet, gauge, now);
      const grabbed = gauge?.grabbed || 0;
      const clock = countdown((state === "scheduled" ? packet.opens_at : packet.expires_at) - now);
      return {
        id: packet.packet, title: `${t("packet.label")} ¥${yuan(packet.total_cents)} · ${t(`camp.${packet.split}`)}`, state,
        words: `${t(`packet.state.${state}`)} ${clock}`, done: grabbed / packet.shares,
        line: t("camp.packet.now", { grabbed, shares: packet.shares, yuan: yuan(packet.total_cents) }),
        acts: [[t("camp.cancel"), () => this.cancelPacket(packet)]],
      };
    });
    this.drawRunning([...sales, ...packets]);
  }

  /** Rows stay where they are and only their words change, so that a button does not vanish under the pointer. */
  drawRunning(campaigns) {
    const ids = campaigns.map(({ id }) => id).join(" ");
    if (this.shown !== ids) {
      this.shown = ids;
      $("running").replaceChildren(...campaigns.map(({ acts }) => el("div", { class: "campaign" },
        el("div", { class: "row" }, el("b"), el("span", { class: "state" })),
        el("div", { class: "meter" }, el("i")),
        el("div", { class: "row" }, el("span", { class: "quiet grow" }),
          ...acts.map(([words]) => el("button", { class: "small", type: "button" }, words))))));
    }
    campaigns.forEach((campaign, i) => {
      const row = $("running").children[i];
      row.querySelector("b").textContent = campaign.title;
      row.querySelector(".state").textContent = campaign.words;
      row.querySelector(".state").className = `state ${campaign.state}`;
      row.querySelector(".meter i").style.setProperty("transform", `scaleX(${Math.min(1, Math.max(0, campaign.done)).toFixed(3)})`);
      row.querySelector(".quiet").textContent = campaign.line;
      row.querySelectorAll("button").forEach((button, at) => { [, button.onclick] = campaign.acts[at]; });
    });
  }

  adjust(sale, delta) {
    return this.desk.attempt("seckill.adjust", { sale: sale.sale, delta }, `${delta > 0 ? "+" : ""}${delta}`);
  }

  async endSale(sale) {
    if (await this.desk.ask(t("console.end.ask"))) this.desk.attempt("seckill.end", { sale: sale.sale }, sale.sale);
  }

  async cancelPacket(packet) {
    if (await this.desk.ask(t("console.cancel.ask"))) this.desk.attempt("redpacket.cancel", { packet: packet.packet }, packet.packet);
  }

  async audit() {
    const result = $("audit-result");
    try {
      const { holds, sales = {}, packets = {} } = await this.desk.run("audit.get", {});
      const lines = [
        ...Object.entries(sales).map(([id, sale]) => t("camp.audit.sale", { id, ...sale })),
        ...Object.entries(packets).map(([id, packet]) => t("camp.audit.packet", {
          id, total: packet.total_cents, granted: packet.granted_cents, left: packet.left_cents, refunded: packet.refunded_cents,
        })),
      ];
      result.replaceChildren(
        lines.length ? el("p", { class: holds ? "good" : "bad" }, t(holds ? "camp.holds" : "camp.broken")) : el("p", {}, t("camp.audit.empty")),
        ...lines.map((line) => el("p", {}, line)));
    } catch (err) {
      result.replaceChildren(el("p", { class: "bad" }, errorText(err)));
    }
  }
}

/** A new campaign's id: unique enough for one room, and it sorts by time. */
function newId(prefix) {
  return `${prefix}_${Date.now().toString(36)}${Math.floor(Math.random() * 1296).toString(36).padStart(2, "0")}`;
}
