/**
 * The console page.
 *
 * Connects as the streamer, shows the room's state and live numbers, and runs console commands; every command and its
 * result stands in the activity log. The shelf, comments and campaigns have their own modules. Nothing is shown as done
 * before the room's own facts say so.
 */

import { $, el, fillIcons, perFrame, setText } from "./dom.js";
import { clockTime, count, utf8Bytes, yuan } from "./format.js";
import { errorText, setUpLanguage, t } from "./i18n.js";
import { ConsoleCampaigns } from "./console-campaigns.js";
import { Comments } from "./console-comments.js";
import { Shelf } from "./console-shelf.js";
import { LiveroomClient, browserSocket } from "./liveroom-client.js";
import { applyEvent, applyJoin, emptyState } from "./room-state.js";
import { NoToken, forgetToken, openSession, socketUrl } from "./session.js";
import { Sparkline } from "./sparkline.js";
import { bars } from "./viewer-campaigns.js";

const NOTICE_BYTES_MAX = 300;
const STATS_EVERY_MS = 2_000;
const LOG_MAX = 100;
const RATE_WINDOW = 30; // samples of two seconds: one minute

setUpLanguage();
fillIcons();

let state = emptyState();
let painted = emptyState();
let session;
let client;
let stats = {};
let shelf;
let comments;
let campaigns;
let noticeVersion; // the current one, if known: a cleared notice keeps counting, but is null in a snapshot
let noticeBase; // the version that the editor's text was written against
let noticeTouched = false;

// --- commands -----------------------------------------------------------------------------------------------

/** Run a command, write it down, and hand its outcome on. */
async function run(cmd, fields = {}, about = "") {
  const began = performance.now();
  const how = el("span", { class: "how" }, t("log.pending"));
  const what = el("span", { class: "what", title: `${cmd} ${about}` }, `${cmd} ${about}`);
  const line = el("li", {}, el("time", {}, clockTime(client.now(), true)), what, how);
  $("log").querySelector(".none")?.remove();
  $("log").prepend(line);
  while ($("log").childElementCount > LOG_MAX) $("log").lastElementChild.remove();
  try {
    const ok = await client.command(cmd, fields);
    line.className = "good";
    how.textContent = `${t("log.ok")} ${Math.round(performance.now() - began)} ms`;
    return ok;
  } catch (err) {
    line.className = "bad";
    how.textContent = errorText(err);
    throw err;
  }
}

/** Run a command whose refusal the log alone tells. */
const attempt = (cmd, fields, about) => run(cmd, fields, about).catch(() => {});

/** Ask before something that cannot be undone. */
function ask(text) {
  const dialog = $("ask");
  $("ask-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  $("ask-yes").onclick = () => dialog.close("yes");
  $("ask-no").onclick = () => dialog.close("");
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// --- what comes in ------------------------------------------------------------------------------------------

function onJoin(ok) {
  state = applyJoin(state, ok);
  if (ok.room) {
    comments.reset(state.room.comments);
    noticeVersion = ok.room.notice?.version;
  }
  setText($("me"), `${state.you.name} · ${t(`role.${state.you.role}`)}`);
  paint();
}

function onEvent(event) {
  comments.onEvent(event);
  if (event.ev === "notice") noticeVersion = event.version;
  state = applyEvent(state, event);
  paint();
}

function onStatus({ state: status, code }) {
  $("link").className = `link ${status}`;
  setText($("link"), t(`conn.${status}`));
  if (status !== "closed") return;
  if ([4401, 4402].includes(code)) forgetToken("streamer", session.room);
  showEnded(code);
}

function showEnded(code) {
  const key = `end.${code}`;
  $("ended").hidden = false;
  setText($("ended"), t(key) === key ? t("end.other", { code }) : `${t(`${key}.t`)} · ${t(key)}`);
}

// --- painting -----------------------------------------------------------------------------------------------

const LIFECYCLE = {
  scheduled: ["open", "close"], live: ["pause", "close"], paused: ["resume", "close"], closing: [], closed: [],
};

const paint = perFrame(() => {
  const before = painted;
  painted = state;
  const { room } = state;
  paintNumbers();
  campaigns.tick();
  if (room === before.room) return;
  setText($("title"), room.title || room.room);
  document.title = t("app.console", { room: room.title || room.room });
  $("state").className = `badge ${room.state}`;
  if (room.state !== before.state || room.state !== before.room.state || !$("state").hasChildNodes()) {
    $("state").replaceChildren(...(room.state === "live" ? [bars()] : []), t(`state.${room.state}`));
    for (const name of ["open", "pause", "resume", "close"]) $(`do-${name}`).hidden = !LIFECYCLE[room.state].includes(name);
  }
  if (room.notice !== before.room.notice || !before.joined) paintNotice();
  if (room.items !== before.room.items || room.explaining !== before.room.explaining || !before.joined) shelf.draw(room);
  if (room.items !== before.room.items) campaigns.drawItems(room.items);
  comments.draw(room);
});

// --- numbers ------------------------------------------------------------------------------------------------

const KPIS = [
  { name: "online", value: () => state.gauges.online.now, spark: true },
  { name: "peak", value: () => state.gauges.online.peak },
  { name: "viewers", value: () => stats.viewers },
  { name: "likes", value: () => Math.max(state.gauges.likes, stats.likes || 0), rate: true },
  { name: "comments", value: () => stats.comments, rate: true },
  { name: "shares", value: () => stats.shares },
  { name: "sold", value: () => stats.sold_cents, show: (cents) => `¥${yuan(cents)}`,
    note: () => stats.orders && t("kpi.orders", { held: stats.orders.held, paid: stats.orders.paid }) },
];

function buildNumbers() {
  for (const kpi of KPIS) {
    kpi.shown = el("dd", {}, "–");
    kpi.small = el("small");
    kpi.samples = [];
    kpi.line = kpi.spark || kpi.rate ? new Sparkline() : null;
    const box = el("dl", { class: kpi.name === "online" ? "kpi first" : "kpi" }, el("dt", {}, t(`kpi.${kpi.name}`)), kpi.shown, kpi.small);
    if (kpi.line) box.append(kpi.line.svg);
    $("kpis").append(box);
  }
}

function paintNumbers() {
  for (const kpi of KPIS) {
    const value = kpi.value();
    setText(kpi.shown, value === undefined ? "–" : (kpi.show || count)(value));
    setText(kpi.small, (kpi.note && kpi.note()) || "");
    if (kpi.rate && kpi.samples.length > 1) setText(kpi.small, t("kpi.permin", { n: count(kpi.perMinute) }));
  }
}

/** Every two seconds: ask for totals, and take a sample of each number for its curve. */
async function sampleNumbers() {
  if (client.status.state !== "online") return;
  try {
    stats = await client.command("stats.get");
  } catch {
    // The gauges alone then; a broken connection is shown at the top.
  }
  for (const kpi of KPIS) {
    const value = kpi.value();
    if (value === undefined || !kpi.line) continue;
    kpi.samples = [...kpi.samples, value].slice(-RATE_WINDOW);
    const minutes = ((kpi.samples.length - 1) * STATS_EVERY_MS) / 60_000;
    kpi.perMinute = minutes ? Math.round((value - kpi.samples[0]) / minutes) : 0;
    kpi.line.push(kpi.rate ? value - (kpi.samples.at(-2) ?? value) : value);
  }
  paintNumbers();
}

// --- notice -------------------------------------------------------------------------------------------------

function paintNotice() {
  const { notice } = state.room;
  setText($("notice-version"), notice ? t("notice.version", { v: notice.version }) : t("notice.none"));
  // A notice set elsewhere does not overwrite what is being typed here: publishing then meets `conflict`.
  if (!noticeTouched) adoptNotice();
}

function adoptNotice() {
  const { notice } = state.room;
  $("notice-text").value = notice?.text || "";
  noticeBase = noticeVersion;
  noticeTouched = false;
  $("notice-conflict").hidden = true;
  $("notice-error").textContent = "";
  countNotice();
}

function countNotice() {
  const bytes = utf8Bytes($("notice-text").value);
  setText($("notice-bytes"), t("notice.bytes", { n: bytes }));
  $("notice-bytes").classList.toggle("error", bytes > NOTICE_BYTES_MAX);
  $("notice-save").disabled = bytes > NOTICE_BYTES_MAX;
}

async function publishNotice(text, version) {
  $("notice-error").textContent = "";
  // With the version this text was written against, somebody else's change is not overwritten unseen.
  const { notice } = state.room;
  const fields = { text, ...(version !== undefined && { version }), ...(text && notice?.card && { card: notice.card }) };
  try {
    noticeBase = (await run("notice.set", fields, text.slice(0, 40))).version;
    noticeTouched = false;
    $("notice-text").value = text;
    $("notice-conflict").hidden = true;
    countNotice();
  } catch (err) {
    if (err.code === "conflict" && err.version !== undefined) {
      noticeVersion = err.version;
      $("notice-conflict").hidden = false;
      $("notice-conflict-text").textContent = t("notice.conflict", { v: err.version });
      $("notice-theirs").textContent = state.room.notice?.text || "—";
    } else $("notice-error").textContent = errorText(err);
  }
}

// --- start --------------------------------------------------------------------------------------------------

function wire() {
  for (const name of ["open", "pause", "resume"]) $(`do-${name}`).addEventListener("click", () => attempt(`room.${name}`));
  $("do-close").addEventListener("click", async () => await ask(t("console.close.ask")) && attempt("room.close"));
  $("notice-text").addEventListener("input", () => {
    noticeTouched = true;
    countNotice();
  });
  $("notice-form").addEventListener("submit", (event) => {
    event.preventDefault();
    publishNotice($("notice-text").value.trim(), noticeBase);
  });
  $("notice-clear").addEventListener("click", () => publishNotice("", noticeBase));
  $("notice-take").addEventListener("click", adoptNotice);
  $("notice-force").addEventListener("click", () => publishNotice($("notice-text").value.trim(), noticeVersion));
  document.addEventListener("visibilitychange", () => !document.hidden && client.wake());
  addEventListener("online", () => client.wake());
  setInterval(sampleNumbers, STATS_EVERY_MS);
  setInterval(() => {
    campaigns.tick();
    comments.drawPeople();
  }, 1_000);
}

async function start() {
  $("log").append(el("li", { class: "none" }, t("log.empty")));
  buildNumbers();
  countNotice();
  try {
    session = await openSession("streamer");
  } catch (err) {
    showEnded(err instanceof NoToken ? "token" : err.message);
    return;
  }
  const { room, token, renew } = session;
  client = new LiveroomClient({ connect: () => browserSocket(socketUrl()), room, token, renew, onJoin, onEvent, onStatus });
  const desk = { client, room, run, attempt, ask, state: () => state };
  shelf = new Shelf(desk);
  comments = new Comments(desk);
  campaigns = new ConsoleCampaigns(desk);
  const there = new URL(`/r/${encodeURIComponent(room)}`, location.href);
  there.search = location.search;
  $("viewer-link").href = there.pathname + there.search;
  wire();
  client.start();
}

start();
