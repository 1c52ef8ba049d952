/**
 * Client of the Liveroom wire protocol, version 1, JSON frames.
 *
 * Decides when to connect, join, resume, repeat and give up; numbers commands and makes their idempotency keys;
 * keeps the offset to the store's clock; checks that facts arrive without a gap. Does not touch the DOM, keeps no
 * room state (`room-state.js` does) and does not know where a token comes from: the caller brings both the socket
 * and the token. The same file runs in browsers, in Node and in mini-programs.
 *
 *     const client = new LiveroomClient({
 *       connect: () => browserSocket("wss://example.com/ws"),      // or () => wxSocket(wx, "wss://example.com/ws")
 *       room: "r_88", token, renew: async () => newToken,
 *       onJoin: (ok) => …, onEvent: (event) => …, onStatus: (status) => …,
 *     });
 *     client.start();
 *     await client.command("comment.send", { text: "多少钱?" });   // → {comment: 901}, or throws CommandError
 *
 * Source: docs/protocol.md.
 */

/** Commands whose effect must not happen twice: they carry a key and are repeated with it. */
export const KEYED = new Set((
  "comment.send seckill.claim order.cancel redpacket.grab room.open room.pause room.resume room.close notice.set "
  + "item.put item.remove item.explain item.unexplain seckill.schedule seckill.adjust seckill.end redpacket.send "
  + "redpacket.cancel viewer.mute viewer.unmute viewer.kick viewer.ban viewer.unban room.mute_all comment.delete "
  + "comment.pin comment.unpin").split(" "));

const PENDING_MAX = 64; // commands waiting for a reply; the next one is refused as `overloaded`
const COMMAND_TIMEOUT_MS = 20_000; // then the caller hears `outcome_unknown` (keyed) or `disconnected`
const REPLY_TIMEOUT_MS = 10_000; // join or ping unanswered for so long: the connection is dead
const BACKOFF_MS = { first: 500, most: 15_000 };
const STABLE_MS = 5_000; // a connection that lived so long forgives earlier failures
const RENEWALS_MAX = 3; // tokens refused as expired in a row before giving up
const RTT_SAMPLES_MAX = 8;
const LIKES_FLUSH_MS = 340; // at most 3 sends a second
const LIKES_PER_COMMAND_MAX = 50;
const LIKES_PENDING_MAX = 500; // taps beyond this, while offline or limited, are forgotten

/** A refused or unfinished command: the protocol's `err` fields; `code` may also be the local `disconnected`. */
export class CommandError extends Error {
  constructor(err) {
    super(err.message || err.code);
    this.name = "CommandError";
    Object.assign(this, { definite: true }, err);
  }
}

/** Return a key for one intention of the user: 22 characters of `A-Za-z0-9_-`. */
export function newKey() {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  const bytes = new Uint8Array(22);
  const { crypto } = globalThis;
  if (crypto && crypto.getRandomValues) crypto.getRandomValues(bytes);
  else for (let i = 0; i < bytes.length; i += 1) bytes[i] = Math.floor(Math.random() * 256);
  return Array.from(bytes, (byte) => alphabet[byte & 63]).join("");
}

/**
 * Adapter for the WebSocket of browsers and Node. An adapter has `send(text)` and `close(code)`, and calls its own
 * `onopen()`, `onmessage(text)` and, once, `onclose(code)`, which the client sets.
 */
export function browserSocket(url, WebSocketClass = globalThis.WebSocket) {
  const raw = new WebSocketClass(url, ["liveroom.v1.json"]);
  const socket = { send: (text) => raw.send(text), close: (code) => raw.close(code) };
  raw.onopen = () => socket.onopen();
  raw.onmessage = (message) => socket.onmessage(message.data);
  raw.onclose = (close) => socket.onclose(close.code);
  return socket;
}

/** Adapter for `wx.connectSocket` of mini-programs. */
export function wxSocket(wx, url) {
  const task = wx.connectSocket({ url, protocols: ["liveroom.v1.json"] });
  const socket = { send: (text) => task.send({ data: text }), close: (code) => task.close({ code }) };
  task.onOpen(() => socket.onopen());
  task.onMessage((message) => socket.onmessage(message.data));
  task.onClose((close) => socket.onclose(close.code || 1006));
  task.onError(() => socket.onclose(1006));
  return socket;
}

/** One viewer's or console's place in one room. */
export class LiveroomClient {
  /**
   * @param connect  () => adapter, see `browserSocket`
   * @param room     room id
   * @param token    JWT, sent in the join only
   * @param renew    async () => JWT, asked after close code 4402; without it an expired token is final
   * @param join     further fields of `room.join`: `via`, `entry`
   * @param onJoin   (ok) after every join; `ok.room` is the snapshot, or null when facts in `onEvent` follow
   * @param onEvent  (event) facts gap-free and in order, chat, gauges and personal messages as they come
   * @param onStatus ({state, code?, retry_ms?}) state: connecting, online, waiting, closed (final; code says why)
   * @param clock    () => local milliseconds
   */
  constructor({ connect, room, token, renew, join = {}, onJoin, onEvent, onStatus, clock = Date.now }) {
    Object.assign(this, { connect, room, token, renew, joinFields: join, onJoin, onEvent, onStatus, clock });
    this.status = { state: "closed" };
    this.offset = 0; // store clock minus local clock, milliseconds
    this.samples = [];
    this.epoch = null;
    this.seq = 0;
    this.nextId = 1;
    this.pending = new Map(); // id → waiting command
    this.attempts = 0;
    this.renewals = 0;
    this.likesPending = 0;
    this.timers = {};
  }

  /** Return the store's time now, milliseconds since 1970-01-01 UTC. Countdowns compare with this. */
  now() {
    return this.clock() + this.offset;
  }

  /** Connect, also after a final close (for example when a kicked viewer chooses to come back). */
  start() {
    if (this.status.state !== "closed") return;
    this.attempts = 0;
    this.renewals = 0;
    this._open();
  }

  /** Leave politely and for good. */
  stop() {
    if (this.joined) this._transmit({ cmd: "room.leave", id: this._takeId() });
    this._end(1000);
  }

  /** Skip the wait before the next attempt: the page is visible or the network is back. */
  wake() {
    if (this.status.state === "waiting") this._open();
  }

  /**
   * Send one command. A keyed one is kept until it is answered: it is repeated with the same key after a lost
   * connection and after `outcome_unknown`. Pass `key` to repeat an intention of your own.
   *
   * @returns promise of the reply's `ok`; rejects with `CommandError`
   */
  command(cmd, fields = {}, key = KEYED.has(cmd) ? newKey() : undefined) {
    return new Promise((resolve, reject) => {
      const failed = (code) => reject(new CommandError({ code, definite: true }));
      if (this.status.state === "closed" || (!key && !this.joined)) failed("disconnected");
      else if (this.pending.size >= PENDING_MAX) failed("overloaded");
      else {
        const entry = { frame: { cmd, ...(key && { key }), ...fields }, resolve, reject, tries: 0 };
        entry.timer = setTimeout(() => {
          this.pending.delete(entry.frame.id);
          reject(new CommandError({ code: key ? "outcome_unknown" : "disconnected", definite: !key }));
        }, COMMAND_TIMEOUT_MS);
        this._dispatch(entry);
      }
    });
  }

  /** Count `n` taps. They leave in batches; the total comes back as a `likes` event. */
  like(n = 1) {
    this.likesPending = Math.min(this.likesPending + n, LIKES_PENDING_MAX);
    if (!this.timers.likes) this._after("likes", LIKES_FLUSH_MS, () => this._flushLikes());
  }

  // --- connection -----------------------------------------------------------------------------------------

  _open() {
    this._clearTimers();
    this._closeSocket();
    this._setStatus({ state: "connecting" });
    this.joined = false;
    this.reconnectAt = null;
    this.likesBatch = 0; // batches rise per connection
    const socket = this.connect();
    this.socket = socket;
    // A socket that was replaced may still speak: it is no longer heard.
    socket.onopen = () => socket === this.socket && this._join();
    socket.onmessage = (text) => socket === this.socket && this._receive(text);
    socket.onclose = (code) => socket === this.socket && this._closed(code);
    this._after("reply", REPLY_TIMEOUT_MS, () => this._drop());
  }

  _join() {
    const frame = { cmd: "room.join", room: this.room, token: this.token, ...this.joinFields };
    if (this.epoch !== null) frame.resume = { epoch: this.epoch, seq: this.seq };
    // A refusal for good is followed by a close code that says so; a passing one is tried again.
    const passing = ["unavailable", "overloaded", "outcome_unknown"];
    this._ask(frame, (ok) => this._onJoined(ok), (err) => passing.includes(err.code) && this._drop(err.retry_ms));
  }

  _onJoined(ok) {
    this.joined = true;
    this.joinedAt = this.clock();
    this.renewals = 0;
    if (ok.room) {
      this.epoch = ok.epoch;
      this.seq = ok.seq;
    }
    this.onJoin(ok);
    for (const fact of ok.missed || []) if (this.joined) this._event(fact);
    if (!this.joined) {
      this.epoch = null; // the answer to a resume had a gap itself: ask for a snapshot next time
      return;
    }
    this._setStatus({ state: "online" });
    this._ping(ok.ping_ms || 25_000);
    // Commands that were waiting go out again with the keys they had.
    for (const [id, entry] of [...this.pending]) if (this.pending.delete(id)) this._dispatch(entry);
    if (this.likesPending) this.like(0);
  }

  _ping(every) {
    this._after("ping", every, () => {
      this._ask({ cmd: "ping" }, () => {}, () => {});
      this._ping(every);
    });
  }

  /** Send what the connection itself needs: never repeated, and without an answer the connection is dead. */
  _ask(frame, resolve, reject) {
    const id = this._takeId();
    const sentAt = this.clock();
    const settle = (then) => (answer) => {
      clearTimeout(this.timers.reply);
      if (answer.now !== undefined) this._sampleClock(answer.now, sentAt);
      then(answer);
    };
    this.pending.set(id, { frame, resolve: settle(resolve), reject: settle(reject), direct: true });
    this._after("reply", REPLY_TIMEOUT_MS, () => this._drop());
    this._transmit({ ...frame, id });
  }

  /** Close our side without a close code from the server, and come back after `delay` or the usual back-off. */
  _drop(delay) {
    this._closeSocket();
    this._closed(1006, delay);
  }

  _closeSocket() {
    const { socket } = this;
    this.socket = null; // from here on it is not heard
    if (socket) socket.close(1000);
  }

  _closed(code, delay) {
    this._clearTimers();
    const lived = this.joined && this.clock() - this.joinedAt >= STABLE_MS;
    this.joined = false;
    this.socket = null;
    if (lived) this.attempts = 0;
    for (const [id, entry] of this.pending) {
      if (entry.frame.key) continue; // repeated after the next join
      this.pending.delete(id);
      clearTimeout(entry.timer);
      if (!entry.direct) entry.reject(new CommandError({ code: "disconnected" }));
    }
    if (code === 4402 && this.renew && this.renewals < RENEWALS_MAX) this._renew();
    else if (code >= 4000 && code < 4500) this._end(code);
    else {
      const wait = delay ?? this._backoff();
      this._setStatus({ state: "waiting", retry_ms: wait });
      this._after("open", wait, () => this._open());
    }
  }

  _backoff() {
    if (this.reconnectAt !== null) return Math.max(0, this.reconnectAt - this.clock()); // the server has spread us
    const ceiling = Math.min(BACKOFF_MS.first * 2 ** this.attempts, BACKOFF_MS.most);
    this.attempts += 1;
    // Half fixed, half random, so that viewers cut off together do not come back together.
    return Math.round(ceiling * (0.5 + Math.random() / 2));
  }

  async _renew() {
    this.renewals += 1;
    this._setStatus({ state: "connecting" });
    try {
      this.token = await this.renew();
      if (this.status.state === "connecting") this._open();
    } catch {
      if (this.status.state === "closed") return; // stopped meanwhile
      if (this.renewals < RENEWALS_MAX) this._after("open", this._backoff(), () => this._renew());
      else this._end(4402);
    }
  }

  _end(code) {
    this._closeSocket();
    this.joined = false;
    this._clearTimers();
    const waiting = [...this.pending.values()];
    this.pending.clear();
    this._setStatus({ state: "closed", code });
    for (const entry of waiting) {
      clearTimeout(entry.timer);
      const definite = !(entry.frame.key && entry.tries);
      entry.reject(new CommandError({ code: definite ? "disconnected" : "outcome_unknown", definite }));
    }
  }

  // --- frames ---------------------------------------------------------------------------------------------

  _receive(text) {
    const { socket } = this;
    let messages;
    try {
      messages = JSON.parse(text);
    } catch {
      this._drop(); // not our protocol, or cut on the way
      return;
    }
    for (const message of messages) {
      if (this.socket !== socket) return; // a message before this one ended the connection
      if (message.re !== undefined) this._reply(message);
      else if (this.joined) this._event(message); // what comes before the snapshot is in the snapshot
    }
  }

  _reply({ re, ok, err }) {
    const entry = this.pending.get(re);
    if (!entry) return;
    this.pending.delete(re);
    if (err && err.definite === false && entry.frame.key) {
      this.pending.set(re, entry); // unknown outcome: ask again, same key; the entry's timer bounds it
      setTimeout(() => {
        if (this.joined && this.pending.get(re) === entry && this.pending.delete(re)) this._dispatch(entry);
      }, err.retry_ms || BACKOFF_MS.first * 2 ** entry.tries);
      return;
    }
    clearTimeout(entry.timer);
    if (err) entry.reject(new CommandError(err));
    else entry.resolve(ok);
  }

  _event(event) {
    if (event.seq !== undefined) {
      if (event.seq <= this.seq) return; // already seen, or covered by the snapshot
      if (event.seq !== this.seq + 1) {
        // A gap: come back with `resume`, at once unless this keeps happening.
        this._drop(this.clock() - this.joinedAt >= STABLE_MS ? 0 : undefined);
        return;
      }
      this.seq = event.seq;
    } else if (event.ev === "reconnect") {
      this.reconnectAt = this.clock() + event.after_ms;
      this._after("open", event.after_ms, () => this._drop(0));
    }
    this.onEvent(event);
  }

  _dispatch(entry) {
    entry.frame.id = this._takeId();
    this.pending.set(entry.frame.id, entry);
    if (!this.joined) return; // sent after the next join
    entry.tries += 1;
    this._transmit(entry.frame);
  }

  _transmit(frame) {
    try {
      this.socket.send(JSON.stringify(frame));
    } catch {
      // The socket is closing; its close event follows, and keyed commands are repeated after it.
    }
  }

  _takeId() {
    const id = this.nextId;
    this.nextId = id >= 0xffffffff ? 1 : id + 1;
    return id;
  }

  _flushLikes() {
    this.timers.likes = 0;
    if (!this.joined || !this.likesPending) return; // kept; the next join flushes
    const n = Math.min(this.likesPending, LIKES_PER_COMMAND_MAX);
    this.likesPending -= n;
    this.likesBatch += 1;
    // Taps in flight when a connection breaks are not sent again: they may have been counted.
    this.command("like.send", { n, batch: this.likesBatch })
      .then((ok) => this.onEvent({ ev: "likes", total: ok.total }), (err) => {
        if (err.code !== "rate_limited") return;
        this.likesPending = Math.min(this.likesPending + n, LIKES_PENDING_MAX);
        this._after("likes", err.retry_ms || 1_000, () => this._flushLikes());
      });
    if (this.likesPending) this._after("likes", LIKES_FLUSH_MS, () => this._flushLikes());
  }

  /** Keep the offset of the quickest of the last samples: the shorter the trip, the smaller the error. */
  _sampleClock(serverNow, sentAt) {
    const rtt = this.clock() - sentAt;
    const sample = { rtt, offset: Math.round(serverNow + rtt / 2 - this.clock()) };
    this.samples = [...this.samples, sample].slice(-RTT_SAMPLES_MAX);
    this.offset = this.samples.reduce((a, b) => (b.rtt <= a.rtt ? b : a)).offset;
  }

  _setStatus(status) {
    this.status = status;
    this.onStatus(status);
  }

  _after(name, ms, run) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(run, ms);
  }

  _clearTimers() {
    for (const name of Object.keys(this.timers)) clearTimeout(this.timers[name]);
    this.timers = {};
  }
}
