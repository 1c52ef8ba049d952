/**
 * The shelf on the console: the table, and the form that puts an item on it.
 *
 * Decides the `sort` numbers when an item moves up or down. What is on the shelf is the room's state.
 */

import { $, cover, el, icon } from "./dom.js";
import { parseCents, yuan } from "./format.js";
import { errorText, t } from "./i18n.js";

const SORT_STEP = 10; // room to put an item between two others

export class Shelf {
  /** @param desk what the page lends: `state()`, `run` (rejects), `attempt` (does not), `ask(text)` */
  constructor(desk) {
    this.desk = desk;
    $("shelf-add").addEventListener("click", () => this.edit(null));
    $("item-cancel").addEventListener("click", () => { $("item-form").hidden = true; });
    $("item-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  draw({ items, explaining }) {
    const rows = items.map((item, i) => {
      const now = item.item === explaining;
      return el("tr", { class: now ? "now" : "" },
        el("td", {}, el("span", { class: "order-buttons" },
          this.tiny("up", "shelf.up", () => this.move(i, -1), i === 0),
          this.tiny("down", "shelf.down", () => this.move(i, 1), i === items.length - 1))),
        el("td", {}, el("div", { class: "goods" }, cover(item), el("div", {},
          el("p", {}, item.title), el("small", {}, item.item, item.sold_out ? el("span", { class: "flag" }, t("shelf.soldout")) : null)))),
        el("td", { class: "num" }, el("span", { class: "money" }, yuan(item.price_cents))),
        el("td", { class: "acts" },
          el("button", {
            class: `small${now ? " on" : ""}`, type: "button", attrs: { "aria-pressed": String(now) },
            onclick: () => this.desk.attempt(now ? "item.unexplain" : "item.explain", { item: item.item }, item.title),
          }, t(now ? "shelf.unexplain" : "shelf.explain")),
          this.tiny("edit", "shelf.edit", () => this.edit(item)),
          this.tiny("trash", "shelf.remove", () => this.remove(item))));
    });
    $("items").replaceChildren(...(rows.length ? rows : [el("tr", {}, el("td", { class: "empty", colSpan: 4 }, t("shelf.empty")))]));
  }

  tiny(name, words, onclick, disabled = false) {
    return el("button", { class: "tiny", type: "button", title: t(words), disabled, onclick, attrs: { "aria-label": t(words) } }, icon(name));
  }

  edit(item) {
    const form = $("item-form");
    const { items } = this.desk.state().room;
    const last = items.at(-1);
    const free = items.reduce((most, other) => Math.max(most, Number(/\d+$/.exec(other.item)?.[0] || 0)), 0) + 1;
    this.editing = item || { item: `item_${free}`, sort: (last ? last.sort : 0) + SORT_STEP };
    const { elements } = form;
    elements.item_id.value = this.editing.item;
    elements.item_id.readOnly = Boolean(item);
    elements.title.value = item?.title || "";
    elements.price.value = item ? yuan(item.price_cents) : "";
    elements.cover.value = item?.cover || "";
    elements.url.value = item?.url || "";
    $("item-error").textContent = "";
    form.hidden = false;
    elements.title.focus();
  }

  async save() {
    const { elements } = $("item-form");
    const cents = parseCents(elements.price.value);
    if (cents === null) {
      $("item-error").textContent = t("form.price");
      return;
    }
    const fields = { item: elements.item_id.value, title: elements.title.value.trim(), price_cents: cents, sort: this.editing.sort };
    for (const name of ["cover", "url"]) if (elements[name].value) fields[name] = elements[name].value;
    try {
      await this.desk.run("item.put", fields, fields.title);
      $("item-form").hidden = true;
      $("shelf-add").focus();
    } catch (err) {
      $("item-error").textContent = errorText(err);
    }
  }

  async remove(item) {
    if (await this.desk.ask(t("console.remove.ask", { title: item.title }))) {
      this.desk.attempt("item.remove", { item: item.item }, item.title);
    }
  }

  /** Move one place: neighbours trade their `sort` numbers; where those are equal, the whole shelf is numbered anew. */
  move(from, by) {
    const items = [...this.desk.state().room.items];
    const [one, other] = [items[from], items[from + by]];
    if (one.sort !== other.sort) {
      this.place(one, other.sort);
      this.place(other, one.sort);
      return;
    }
    items.splice(from, 1);
    items.splice(from + by, 0, one);
    items.forEach((item, i) => item.sort !== (i + 1) * SORT_STEP && this.place(item, (i + 1) * SORT_STEP));
  }

  place({ sold_out: _, ...fields }, sort) {
    this.desk.attempt("item.put", { ...fields, sort }, `${fields.title} ↕`);
  }
}
