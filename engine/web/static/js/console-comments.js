/**
 * Comments and people on the console: the live list with its actions, the pinned comment, who is muted or removed.
 *
 * The protocol has no command that lists muted viewers, so the list of people is what this console did and saw, kept in
 * this tab's storage. Decides nothing about who may do what: the server answers `forbidden`.
 */

import { $, avatar, el, icon } from "./dom.js";
import { clockTime } from "./format.js";
import { errorText, t } from "./i18n.js";
import { LiveList } from "./live-list.js";
import { isMutedAt } from "./room-state.js";

const PEOPLE_MAX = 200; // the oldest entry is forgotten
const NAMES_MAX = 400;
const STAFF = ["agent", "moderator", "streamer", "owner"];

export class Comments {
  /** @param desk what the page lends: `client`, `room`, `attempt`, `ask` */
  constructor(desk) {
    this.desk = desk;
    this.names = new Map(); // comment id → author
    this.kept = `liveroom.people.${desk.room}`;
    this.people = new Map(JSON.parse(sessionStorage.getItem(this.kept) || "[]"));
    this.list = new LiveList($("comments"), (value) => this.row(value), (unseen) => {
      $("newer").hidden = unseen === 0;
      $("newer").textContent = t("viewer.newer", { n: unseen });
    });
    $("newer").addEventListener("click", () => this.list.toEnd());
    $("say-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("mute-all").addEventListener("change", (event) => this.muteAll(event.target));
    document.addEventListener("click", (event) => event.target.closest("#menu, .acts") || this.closeMenu());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.closeMenu());
    this.drawPeople();
  }

  reset(comments) {
    for (const comment of comments) this.remember(comment);
    this.list.reset(comments);
  }

  onEvent(event) {
    if (event.ev === "comment") {
      if (this.names.has(event.comment)) return;
      this.remember(event);
      this.list.push(event);
    } else if (event.ev === "thinned") this.list.push(event);
    else if (event.ev === "comment.deleted") this.list.remove(event.comment, (value) => value.comment === event.comment);
    else if (event.ev === "viewer.removed") this.note(event.viewer, { how: event.how });
  }

  remember({ comment, from }) {
    this.names.set(comment, from);
    if (this.names.size > NAMES_MAX) this.names.delete(this.names.keys().next().value);
  }

  nameOf(viewer) {
    const from = [...this.names.values()].findLast((other) => other.id === viewer);
    return from?.name || this.people.get(viewer)?.name || viewer;
  }

  row(value) {
    if (value.ev === "thinned") return el("p", { class: "note-row" }, t("live.thinned", { n: value.dropped }));
    const { comment, from, text, at } = value;
    const asked = this.names.get(value.reply_to);
    const act = (name, words, onclick) => el("button", {
      class: "tiny", type: "button", title: t(words), onclick, attrs: { "aria-label": `${t(words)} ${from.name}` },
    }, icon(name));
    const { attempt } = this.desk;
    const staff = STAFF.includes(from.role);
    return el("div", { class: "said", data: { id: comment } },
      avatar(from),
      el("div", { class: "meta" },
        staff ? el("span", { class: `tag ${from.role}` }, t(`role.${from.role}`)) : null,
        el("b", {}, from.name), el("time", {}, clockTime(at, true))),
      el("p", { class: "text" }, asked ? el("span", { class: "to" }, `@${asked.name} `) : null, text),
      el("div", { class: "acts" },
        act("pin", "live.pin", () => attempt("comment.pin", { comment }, text)),
        act("trash", "live.delete", () => attempt("comment.delete", { comment }, text)),
        staff ? null : act("mute", "live.mute", (event) => this.openMenu(event.currentTarget, from, true)),
        staff ? null : act("kick", "live.more", (event) => this.openMenu(event.currentTarget, from, false))));
  }

  // --- actions on people ----------------------------------------------------------------------------------

  openMenu(anchor, person, mutes) {
    const choice = (name, words, run, danger = "") => el("button", {
      class: danger, type: "button", attrs: { role: "menuitem" }, onclick: () => { this.closeMenu(); run(); },
    }, icon(name), words);
    const menu = $("menu");
    menu.replaceChildren(...(mutes
      ? [60, 600, 0].map((seconds) => choice("mute", t(`live.mute.${seconds}`), () => this.mute(person, seconds)))
      : [choice("kick", t("live.kick"), () => this.desk.attempt("viewer.kick", { viewer: person.id }, person.name)),
        choice("ban", t("live.ban"), () => this.ban(person), "danger")]));
    menu.hidden = false;
    const place = anchor.getBoundingClientRect();
    menu.style.setProperty("left", `${Math.min(place.left, innerWidth - menu.offsetWidth - 8)}px`);
    menu.style.setProperty("top", `${Math.min(place.bottom + 4, innerHeight - menu.offsetHeight - 8)}px`);
    this.menuAnchor = anchor;
    menu.firstElementChild.focus();
  }

  closeMenu() {
    if ($("menu").hidden) return;
    $("menu").hidden = true;
    if (this.menuAnchor?.isConnected) this.menuAnchor.focus();
  }

  async mute(person, seconds) {
    const done = await this.desk.attempt("viewer.mute", { viewer: person.id, seconds }, `${person.name} · ${t(`live.mute.${seconds}`)}`);
    if (done) this.note(person.id, { name: person.name, until: seconds ? this.desk.client.now() + seconds * 1000 : 0 });
  }

  async ban(person) {
    if (!await this.desk.ask(t("console.ban.ask", { name: person.name }))) return;
    const done = await this.desk.attempt("viewer.ban", { viewer: person.id }, person.name);
    if (done) this.note(person.id, { name: person.name, how: "ban" });
  }

  note(viewer, change) {
    const known = this.people.get(viewer);
    this.people.delete(viewer);
    this.people.set(viewer, { name: this.nameOf(viewer), ...known, ...change });
    if (this.people.size > PEOPLE_MAX) this.people.delete(this.people.keys().next().value);
    this.drawPeople();
  }

  drawPeople() {
    const now = this.desk.client ? this.desk.client.now() : Date.now();
    for (const [viewer, person] of this.people) {
      if (person.until !== undefined && !isMutedAt(person.until, now)) delete person.until;
      if (person.until === undefined && !person.how) this.people.delete(viewer);
    }
    // Called every second for the mutes that run out: rows are built only when something changed.
    const drawn = JSON.stringify([...this.people]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    sessionStorage.setItem(this.kept, drawn);
    const rows = [...this.people].reverse().map(([viewer, person]) => {
      const words = [
        person.how === "ban" ? t("people.banned") : person.how === "kick" ? t("people.kicked") : null,
        person.until === undefined ? null : person.until === 0 ? t("people.muted.forever") : t("people.muted", { time: clockTime(person.until, true) }),
      ].filter(Boolean).join(" · ");
      const undo = (cmd, label, forget) => el("button", {
        class: "small", type: "button", onclick: async () => {
          if (!await this.desk.attempt(cmd, { viewer }, person.name)) return;
          delete person[forget];
          this.drawPeople();
        },
      }, t(label));
      return el("li", {}, avatar({ id: viewer, name: person.name }), el("b", {}, person.name), el("span", { class: "quiet" }, words),
        person.until === undefined ? null : undo("viewer.unmute", "people.unmute", "until"),
        person.how === "ban" ? undo("viewer.unban", "people.unban", "how") : null,
        person.how === "kick" && person.until === undefined ? this.forgetButton(viewer) : null);
    });
    $("people").replaceChildren(...(rows.length ? rows : [el("li", { class: "none" }, t("people.empty"))]));
  }

  /** A kicked viewer may come back: there is nothing to undo, only the entry to take off the list. */
  forgetButton(viewer) {
    return el("button", {
      class: "tiny", type: "button", title: t("people.forget"), attrs: { "aria-label": t("people.forget") }, onclick: () => {
        this.people.delete(viewer);
        this.drawPeople();
      },
    }, icon("close"));
  }

  // --- the room's voice -----------------------------------------------------------------------------------

  draw(room) {
    $("mute-all").checked = room.muted_all;
    $("mute-all-note").hidden = !room.muted_all;
    const { pinned } = room;
    $("pinned").hidden = !pinned;
    if (!pinned) return;
    $("pinned").replaceChildren(icon("pin"), el("p", {}, el("b", {}, `${pinned.from.name}：`), pinned.text),
      el("button", {
        class: "small", type: "button", onclick: () => this.desk.attempt("comment.unpin", { comment: pinned.comment }, pinned.text),
      }, t("live.unpin")));
  }

  async muteAll(box) {
    const on = box.checked;
    box.checked = !on; // the fact that comes back moves it
    await this.desk.attempt("room.mute_all", { on });
  }

  async send() {
    const text = $("say").value.trim();
    if (!text) return;
    $("say-error").textContent = "";
    try {
      await this.desk.client.command("comment.send", { text });
      $("say").value = "";
      this.list.toEnd();
    } catch (err) {
      $("say-error").textContent = errorText(err);
    }
  }
}
