"""
Rooms → connections in this process.

Decides what each viewer of a room is sent and when: pending events are joined into one array, one frame is built per
codec, and its bytes are written to every viewer in slices. Facts are followed by `seq`: a gap is read from the log
before anything later is shown. The room's view is folded as events are sent, so a join is answered from memory with
exactly what everybody else has seen.

Does not decide events (the store), read sockets (`engine/gateway/`) or encode events twice: they travel as the bytes
the store published.

Bounds: pending chat 10,000 events per room, beyond which the oldest are counted as thinned; facts that arrive ahead of
a gap 10,000, beyond which the room is read anew; slow viewers as in `write_queue.py`.

Source: docs/architecture.md, "Fan-out", "Recovery".
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Protocol

import orjson
import structlog

from engine.errors import LiveroomError, RoomNotFound, StoreUnavailable
from engine.fanout.bus import Bus
from engine.fanout.cadence import Cadence
from engine.fanout.thinning import Thinner
from engine.fanout.write_queue import SlowViewer, Verdict
from engine.rooms.recovery import FactRing, RoomRead, decode, fits_resume
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Store
from protocol.codec import transcode
from protocol.codes import CloseCode, RoomState
from protocol.limits import SNAPSHOT_COMMENTS_MAX
from protocol.view import Map, apply_event

log = structlog.stdlib.get_logger(__name__)

#: Writes per turn of the loop, so that commands are never stuck behind a whole room.
SLICE_WRITES: Final = 500
PENDING_CHAT_MAX: Final = 10_000
AHEAD_MAX: Final = 10_000
#: A room without viewers is let go after this long (seconds).
LINGER_S: Final = 10.0
#: How long a join waits for the bus to catch up before the log is asked (seconds).
CATCH_UP_S: Final = 0.25
BEAT_S: Final = 2.0

_COMMENT_PREFIX: Final = b'{"ev":"comment",'


class Member(Protocol):
    """A viewer's connection, as the hub needs it."""

    viewer: str
    connection: int
    #: "json" or "msgpack".
    codec_name: str

    def write(self, frame: bytes) -> None:
        """Send a ready-made frame."""
        ...

    def send(self, payload: bytes) -> None:
        """Send a JSON payload of ours, in the member's codec."""
        ...

    def unsent_bytes(self) -> int:
        """Return how much the peer has not taken yet."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection."""
        ...


class Kind(Enum):
    """What stands in the pending list."""

    FACT = "fact"
    CHAT = "chat"


class Pending:
    """An event that waits for the next flush."""

    __slots__ = ("kind", "number", "payload")

    def __init__(self, kind: Kind, number: int, payload: bytes) -> None:
        self.kind = kind
        #: `seq` of a fact, number of a comment, 0 of other chat.
        self.number = number
        self.payload = payload


class HubMetrics(Protocol):
    """What the hub counts."""

    def flushed(self, events: int, viewers: int, cost_s: float) -> None:
        """A flush of `events` went to `viewers`."""
        ...

    def thinned(self, events: int) -> None:
        """Chat events were left out."""
        ...

    def recovered(self, how: str) -> None:
        """A gap was closed, by "log" or "snapshot"."""
        ...


class Room:
    """One room on this worker. Made and dropped by the hub."""

    def __init__(self, hub: "Hub", key: RoomKey) -> None:
        self._hub = hub
        self._loop = hub.loop
        self.key = key
        self.names = RoomKeys(key)
        self.ready = False
        #: Called once the room is ready, or cannot be.
        self.waiting: list[Callable[[Room | LiveroomError], None]] = []
        self._early: list[bytes] = []

        self.epoch = ""
        #: The last fact received, and the last one sent to viewers.
        self.received_seq = 0
        self.flushed_seq = 0
        self._view: Map = {}
        self._ring = FactRing()
        self._comments: deque[tuple[int, bytes]] = deque(maxlen=SNAPSHOT_COMMENTS_MAX)
        self._gauges: dict[str, bytes] = {}
        self._snapshot: bytes | None = None

        self._pending: list[Pending] = []
        self._pending_chat = 0
        self._pending_facts = 0
        self._overflowed = 0
        self._pending_gauges: dict[str, bytes] = {}
        self._ahead: dict[int, bytes] = {}
        self._cadence = Cadence()
        self._thinner = Thinner(hub.chat_per_s_max)
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._flushing = False

        self._members: dict[str, dict[Member, Callable[[bytes], None]]] = {"json": {}, "msgpack": {}}
        self._slow: dict[Member, SlowViewer] = {}
        #: Every connection of a viewer, also while it is joining.
        self.by_viewer: dict[str, list[Member]] = {}
        #: Joins that wait for a fact they must not miss.
        self._parked: list[tuple[int, Callable[[], None]]] = []
        self._catch_up: asyncio.TimerHandle | None = None
        self._older: list[tuple[int, Callable[[list[bytes] | None], None]]] = []
        self._older_task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self.empty_since = self._loop.time()

    # --- what a join is told ----------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The room's state as last sent."""
        state: str = self._view["state"]
        return state

    def snapshot(self) -> bytes:
        """Return the room as everybody has seen it, as JSON."""
        if self._snapshot is None:
            self._snapshot = orjson.dumps(
                {name: value for name, value in self._view.items() if name != "comments"}
            )
        comments = b",".join(json for _, json in self._comments)
        return self._snapshot[:-1] + b',"comments":[' + comments + b"]}"

    def gauges(self) -> Map:
        """Return the latest gauges in the shape of a join reply."""
        gauges: Map = {"likes": 0, "online": {"now": 0, "peak": 0}, "stock": {}, "packets": {}, "rank": []}
        for json in self._gauges.values():
            event = orjson.loads(json)
            name = event.pop("ev")
            if name == "likes":
                gauges["likes"] = event["total"]
            elif name == "online":
                gauges["online"] = event
            elif name == "stock":
                gauges["stock"][event.pop("sale")] = event
            elif name == "packet":
                gauges["packets"][event.pop("packet")] = event
            elif name == "rank":
                gauges["rank"] = event["top"]
        return gauges

    def observe(self, online: int, peak: int, likes: int) -> None:
        """Take gauges that came with a join, ahead of the bus, so that its reply counts the joining viewer."""
        self._gauges["online"] = b'{"ev":"online","now":%d,"peak":%d}' % (online, peak)
        self._gauges["likes"] = b'{"ev":"likes","total":%d}' % likes

    def missed(self, epoch: str, seq: int, told: Callable[[list[bytes] | None], None]) -> None:
        """
        Tell the facts after `seq`, or None when only a snapshot helps.

        Answered at once from memory, or after one read of the log that all who wait share.
        """
        if epoch != self.epoch or seq > self.flushed_seq:
            told(None)
            return
        facts = self._ring.since(seq)
        if facts is not None:
            told(facts if fits_resume(facts) else None)
            return
        self._older.append((seq, told))
        if self._older_task is None:
            self._older_task = self._hub.spawn(self._read_older())

    async def _read_older(self) -> None:
        try:
            while self._older:
                waiting, self._older = self._older, []
                facts = await self._read_log(min(seq for seq, _ in waiting))
                for seq, told in waiting:
                    told(self._join_log(facts, seq))
        finally:
            self._older_task = None

    async def _read_log(self, seq: int) -> list[tuple[int, bytes]] | None:
        """Return the facts after `seq` as far as a resume may need, or None if they are not held."""
        facts: list[tuple[int, bytes]] = []
        size = 0
        while True:
            try:
                page = await self._hub.store.facts_since(self.key, seq)
            except StoreUnavailable:
                return None
            if page is None or page[0] != self.epoch or page[2] > seq + 1:
                return None
            facts.extend(page[3])
            size += sum(len(json) for _, json in page[3])
            if not page[3] or page[3][-1][0] >= page[1] or not fits_resume([b"x" * size]):
                return facts
            seq = page[3][-1][0]

    def _join_log(self, facts: list[tuple[int, bytes]] | None, seq: int) -> list[bytes] | None:
        if facts is None:
            return None
        kept = [json for number, json in facts if seq < number <= self.flushed_seq]
        last = facts[-1][0] if facts else seq
        if last < self.flushed_seq:
            rest = self._ring.since(max(last, seq))
            if rest is None:
                return None
            kept.extend(rest)
        return kept if fits_resume(kept) else None

    # --- members ----------------------------------------------------------------------------------------

    def expect(self, member: Member) -> None:
        """Note a connection that is joining, so that a kick or a ban meanwhile finds it."""
        self.by_viewer.setdefault(member.viewer, []).append(member)

    def when_caught_up(self, seq: int, go_on: Callable[[], None]) -> None:
        """Call `go_on` once everybody has been sent the facts up to `seq`."""
        if self.flushed_seq >= seq:
            go_on()
            return
        self._parked.append((seq, go_on))
        if self._catch_up is None:
            self._catch_up = self._loop.call_later(CATCH_UP_S, self._catch_up_late)

    def _catch_up_late(self) -> None:
        self._catch_up = None
        if not self._parked:
            return
        if self.received_seq < max(seq for seq, _ in self._parked):
            self.recover()
        self._catch_up = self._loop.call_later(CATCH_UP_S, self._catch_up_late)

    def attach(self, member: Member) -> None:
        """Send a member everything from now on. Its join reply, sent just before, holds everything until now."""
        self._members[member.codec_name][member] = member.write

    def detach(self, member: Member) -> None:
        """Forget a connection."""
        self._members[member.codec_name].pop(member, None)
        self._slow.pop(member, None)
        others = self.by_viewer.get(member.viewer)
        if others is not None and member in others:
            others.remove(member)
            if not others:
                del self.by_viewer[member.viewer]
        if not self.by_viewer:
            self.empty_since = self._loop.time()

    def writable(self, member: Member, writable: bool) -> None:
        """A member's unsent bytes crossed the mark: it gets facts only until they are gone."""
        if not writable:
            if self._members[member.codec_name].pop(member, None) is not None:
                self._slow[member] = SlowViewer(since_s=self._loop.time())
            return
        slow = self._slow.pop(member, None)
        if slow is not None:
            self._members[member.codec_name][member] = member.write
            if slow.dropped:
                member.send(_thinned(slow.dropped))

    @property
    def viewers_here(self) -> int:
        """Connections to this worker."""
        return sum(map(len, self._members.values())) + len(self._slow)

    def all_members(self) -> list[Member]:
        """Return every connection of the room on this worker, also joining ones."""
        return [member for members in self.by_viewer.values() for member in members]

    # --- from the bus -----------------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """Take one message of the room's channel."""
        if not self.ready:
            if len(self._early) < AHEAD_MAX:  # What is dropped here, the position check finds missing.
                self._early.append(message)
            return
        head, _, payload = message.partition(b"\n")
        kind, _, header = head.partition(b" ")
        if kind == b"f":
            epoch, seq, _name = header.split(b" ")
            self._receive_fact(epoch.decode(), int(seq), payload)
        elif kind == b"c":
            self._receive_chat(int(header), payload)
        elif kind == b"g":
            name = header.decode()
            self._pending_gauges[name] = payload
            self._gauges[name] = payload
            self._schedule()
        elif kind == b"p":
            for member in self.by_viewer.get(header.decode(), ()):
                member.send(b"[" + payload + b"]")
        elif kind == b"x":
            worker, connection = header.split(b" ")
            if worker.decode() == self._hub.worker:
                self._hub.evict(self, int(connection))

    def _receive_fact(self, epoch: str, seq: int, payload: bytes) -> None:
        if epoch != self.epoch:
            self._hub.spawn(self._lose_state("another epoch"))
        elif seq == self.received_seq + 1:
            self._take_fact(payload)
            while self._ahead and (following := self._ahead.pop(self.received_seq + 1, None)) is not None:
                self._take_fact(following)
        elif seq > self.received_seq:
            self._ahead[seq] = payload
            if len(self._ahead) > AHEAD_MAX:
                self._hub.spawn(self._lose_state("too far ahead of a gap"))
            else:
                self.recover()

    def _take_fact(self, payload: bytes) -> None:
        self.received_seq += 1
        self._pending.append(Pending(Kind.FACT, self.received_seq, payload))
        self._pending_facts += 1
        self._schedule()

    def _receive_chat(self, first: int, payload: bytes) -> None:
        for offset, json in enumerate(payload.split(b"\n")):
            self._pending.append(Pending(Kind.CHAT, first + offset if first else 0, json))
            self._pending_chat += 1
        if self._pending_chat > PENDING_CHAT_MAX:
            self._overflow()
        self._schedule()

    def _overflow(self) -> None:
        """Leave out the oldest half of the waiting chat."""
        spare = self._pending_chat // 2
        self._overflowed += spare
        self._pending_chat -= spare
        kept = []
        for entry in self._pending:
            if spare and entry.kind is Kind.CHAT:
                spare -= 1
                self._remember_comment(entry)
            else:
                kept.append(entry)
        self._pending = kept

    # --- loading and recovery ---------------------------------------------------------------------------

    def load(self, read: RoomRead) -> None:
        """Begin, or begin anew, from the store's state; then take what arrived meanwhile."""
        self.epoch = read.epoch
        self.received_seq = self.flushed_seq = read.seq
        self._view = read.view
        self._snapshot = None
        self._ring.reset(read.facts, read.seq)
        self._comments.clear()
        self._comments.extend(read.comments)
        self._gauges = {
            "likes": b'{"ev":"likes","total":%d}' % read.likes,
            "online": b'{"ev":"online","now":%d,"peak":%d}' % (read.online, read.peak),
        }
        self._pending.clear()
        self._pending_chat = self._pending_facts = 0
        self._ahead.clear()
        self.ready = True
        early, self._early = self._early, []
        last_comment = read.comments[-1][0] if read.comments else 0
        for message in early:
            if message.startswith(b"c ") and 0 < int(message[2 : message.index(b"\n")]) <= last_comment:
                continue  # The snapshot holds these comments already.
            self.receive(message)

    def recover(self) -> None:
        """Close a gap from the log. One read at a time, however many facts or viewers wait."""
        if self._recovery is None:
            self._recovery = self._hub.spawn(self._close_gap())

    async def _close_gap(self) -> None:
        try:
            page = await self._hub.store.facts_since(self.key, self.received_seq)
            if (
                page is None
                or page[0] != self.epoch
                or page[1] < self.received_seq
                or page[2] > self.received_seq + 1
            ):
                await self._lose_state("the log does not continue")
                return
            self._hub.metrics.recovered("log")
            for seq, json in page[3]:
                self._receive_fact(page[0], seq, json)
        except StoreUnavailable:
            pass  # The next fact, beat or join asks again.
        finally:
            self._recovery = None
        if self._ahead:
            self.recover()

    async def _lose_state(self, why: str) -> None:
        """Read the room anew and send everybody through a snapshot."""
        if not self.ready:
            return
        self.ready = False
        log.warning("room.state_lost", room=str(self.key), why=why)
        self._hub.metrics.recovered("snapshot")
        for member in self.all_members():
            member.close(CloseCode.STATE_LOST, "resume gives a snapshot")
        await self._hub.reload(self)

    # --- flushing ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Arm the timer for the next flush; facts move it to now."""
        if self._flushing:
            return
        now = self._loop.time()
        at = self._cadence.next_flush_at(
            now, facts=self._pending_facts > 0, chat=self._pending_chat > 0, gauges=bool(self._pending_gauges)
        )
        if at is None:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_soon(self._flush) if at <= now else self._loop.call_at(at, self._flush)

    _timer_at = 0.0

    def _flush(self) -> None:
        """Send what is pending to everybody."""
        self._timer = None
        started = self._loop.time()
        pending, self._pending = self._pending, []
        chat = [entry for entry in pending if entry.kind is Kind.CHAT]
        shown = self._thinner.thin(chat, started)
        dropped = len(chat) - len(shown) + self._overflowed
        self._pending_chat = self._pending_facts = self._overflowed = 0

        with_gauges = bool(self._pending_gauges) and self._cadence.gauges_due(started)
        gauges = list(self._pending_gauges.values()) if with_gauges else []
        if with_gauges:
            self._pending_gauges.clear()

        facts = [entry for entry in pending if entry.kind is Kind.FACT]
        kept: Iterable[Pending] = pending
        if len(shown) < len(chat):
            wanted = set(map(id, shown))
            kept = [entry for entry in pending if entry.kind is Kind.FACT or id(entry) in wanted]
        parts = [entry.payload for entry in kept]
        if dropped:
            parts.append(b'{"ev":"thinned","dropped":%d}' % dropped)
            self._hub.metrics.thinned(dropped)
        parts.extend(gauges)
        after = self._fold(pending)
        if parts:
            self._send(parts, [entry.payload for entry in facts], len(chat), started, with_gauges, after)
        elif after:
            after()

    def _fold(self, pending: list[Pending]) -> Callable[[], None] | None:
        """Fold events into the view as they are sent; return what must follow the sending."""
        removed: list[tuple[str, str]] = []
        over = False
        for entry in pending:
            if entry.kind is Kind.CHAT:
                self._remember_comment(entry)
                continue
            fact = decode(entry.payload)
            apply_event(self._view, fact)
            self._ring.append(entry.payload)
            self.flushed_seq = entry.number
            self._snapshot = None
            name = fact["ev"]
            if name == "comment.deleted":
                kept = [pair for pair in self._comments if pair[0] != fact["comment"]]
                self._comments.clear()
                self._comments.extend(kept)
            elif name == "viewer.removed":
                removed.append((fact["viewer"], fact["how"]))
            elif name == "room.state" and fact["state"] == RoomState.CLOSED:
                over = True
        if not removed and not over:
            return None
        return lambda: self._close_members(removed, over)

    def _close_members(self, removed: list[tuple[str, str]], over: bool) -> None:
        for viewer, how in removed:
            code = CloseCode.BANNED if how == "ban" else CloseCode.KICKED
            for member in list(self.by_viewer.get(viewer, ())):
                member.close(code, how)
        if over:
            for member in self.all_members():
                member.close(CloseCode.ROOM_CLOSED, "room closed")

    def _remember_comment(self, entry: Pending) -> None:
        if entry.number:
            self._comments.append((entry.number, b"{" + entry.payload[len(_COMMENT_PREFIX) :]))

    def _send(
        self,
        parts: list[bytes],
        facts: list[bytes],
        chat: int,
        started: float,
        with_gauges: bool,
        after: Callable[[], None] | None,
    ) -> None:
        """Build one frame per codec and write it to everybody, a slice per turn of the loop."""
        payload = b"[" + b",".join(parts) + b"]"
        writes: list[tuple[bytes, list[Callable[[bytes], None]]]] = []
        viewers = 0
        for codec_name, members in self._members.items():
            if members:
                writes.append((self._hub.frame(codec_name, payload), list(members.values())))
                viewers += len(members)
        if self._slow:
            self._send_to_slow(facts, chat, started)
        self._flushing = True
        self._write_slice(writes, len(parts), viewers, started, with_gauges, after)

    def _write_slice(
        self,
        writes: list[tuple[bytes, list[Callable[[bytes], None]]]],
        events: int,
        viewers: int,
        started: float,
        with_gauges: bool,
        after: Callable[[], None] | None,
    ) -> None:
        budget = SLICE_WRITES
        while writes and budget:
            frame, targets = writes[-1]
            for write in targets[-budget:]:
                write(frame)
            taken = min(budget, len(targets))
            del targets[-taken:]
            budget -= taken
            if not targets:
                writes.pop()
        # The loop sends what was written at the end of this turn, so the cost is known at the next.
        if writes:
            self._loop.call_soon(self._write_slice, writes, events, viewers, started, with_gauges, after)
        else:
            self._loop.call_soon(self._flush_done, events, viewers, started, with_gauges, after)

    def _flush_done(
        self, events: int, viewers: int, started: float, with_gauges: bool, after: Callable[[], None] | None
    ) -> None:
        ended = self._loop.time()
        self._cadence.flushed(started, ended, with_gauges=with_gauges)
        self._hub.metrics.flushed(events, viewers, ended - started)
        self._flushing = False
        if after is not None:
            after()
        if self._parked:
            parked, self._parked = self._parked, []
            for seq, go_on in parked:
                if self.flushed_seq >= seq:
                    go_on()
                else:
                    self._parked.append((seq, go_on))
        self._schedule()

    def _send_to_slow(self, facts: list[bytes], chat: int, now: float) -> None:
        """Send facts only to those who do not keep up, and cut off those who fall too far behind."""
        frames: dict[str, bytes] = {}
        for member, slow in list(self._slow.items()):
            slow.dropped += chat
            if slow.judge(member.unsent_bytes(), now) is Verdict.CLOSE:
                member.close(CloseCode.TOO_SLOW, "too slow")
            elif facts:
                frame = frames.get(member.codec_name)
                if frame is None:
                    frame = self._hub.frame(member.codec_name, b"[" + b",".join(facts) + b"]")
                    frames[member.codec_name] = frame
                member.write(frame)

    def sweep(self, now: float) -> None:
        """Cut off viewers that have been slow for too long, also while the room is silent."""
        for member, slow in list(self._slow.items()):
            if slow.judge(member.unsent_bytes(), now) is Verdict.CLOSE:
                member.close(CloseCode.TOO_SLOW, "too slow")

    def stop(self) -> None:
        """Cancel what is scheduled."""
        for handle in (self._timer, self._catch_up):
            if handle is not None:
                handle.cancel()


def _thinned(dropped: int) -> bytes:
    return b'[{"ev":"thinned","dropped":%d}]' % dropped


class Hub:
    """All rooms of this worker."""

    def __init__(
        self,
        store: Store,
        *,
        worker: str,
        build_frame: Callable[..., bytes],
        metrics: HubMetrics,
        chat_per_s_max: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store
        self.worker = worker
        self.metrics = metrics
        self.chat_per_s_max = chat_per_s_max
        self._build_frame = build_frame
        self._bus = Bus(store.url, self._on_message, self._on_reset)
        self._rooms: dict[RoomKey, Room] = {}
        self._by_channel: dict[str, Room] = {}
        self._connections: dict[int, Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect the bus and begin to renew leases."""
        await self._bus.start()
        self._beating = asyncio.create_task(self._beat_forever(), name="beat")

    async def stop(self) -> None:
        """Stop renewing, cancel what is under way, drop the bus."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        for room in self._rooms.values():
            room.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.stop()

    @property
    def rooms(self) -> list[Room]:
        """The rooms held now."""
        return list(self._rooms.values())

    def spawn(self, coroutine: Any) -> asyncio.Task[None]:
        """Run something in the background until it ends or the hub stops; a failure is logged."""
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("hub.task_failed", exc_info=error)

    def frame(self, codec_name: str, payload: bytes) -> bytes:
        """Build the frame of a JSON payload for one codec."""
        if codec_name == "json":
            return self._build_frame(payload, text=True)
        return self._build_frame(transcode(payload), text=False)

    # --- rooms ------------------------------------------------------------------------------------------

    def enter(self, key: RoomKey, go_on: Callable[[Room | LiveroomError], None]) -> None:
        """Call `go_on` with the room once it is held here, or with the reason why it cannot be."""
        room = self._rooms.get(key)
        if room is not None and room.ready:
            go_on(room)
            return
        if room is None:
            room = Room(self, key)
            self._rooms[key] = room
            self._by_channel[room.names.bus] = room
            room.waiting.append(go_on)
            self.spawn(self._hold(room))
        else:
            room.waiting.append(go_on)

    async def _hold(self, room: Room) -> None:
        # Subscribe before reading: a fact published between the two would otherwise be lost. Those that arrive
        # twice are dropped by `seq`.
        outcome: Room | LiveroomError = room
        try:
            await self._bus.subscribe(room.names.bus)
            read = await self.store.read_room(room.key)
            if read is None:
                outcome = RoomNotFound()
            else:
                room.load(read)
        except StoreUnavailable as error:
            outcome = error
        except TimeoutError:
            outcome = StoreUnavailable("the store does not confirm the subscription")
        waiting, room.waiting = room.waiting, []
        if isinstance(outcome, LiveroomError):
            await self._drop(room)
        for go_on in waiting:
            go_on(outcome)

    async def reload(self, room: Room) -> None:
        """Read a room anew after its state was lost."""
        while True:
            try:
                read = await self.store.read_room(room.key)
                break
            except StoreUnavailable:
                await asyncio.sleep(CATCH_UP_S)
        waiting, room.waiting = room.waiting, []
        if read is None:
            await self._drop(room)
            for go_on in waiting:
                go_on(RoomNotFound())
            return
        room.load(read)
        for go_on in waiting:
            go_on(room)

    async def _drop(self, room: Room) -> None:
        room.stop()
        self._rooms.pop(room.key, None)
        self._by_channel.pop(room.names.bus, None)
        await self._bus.unsubscribe(room.names.bus)

    # --- connections ------------------------------------------------------------------------------------

    def register(self, member: Member) -> None:
        """Know a connection by its number, so that another worker's join can evict it."""
        self._connections[member.connection] = member

    def unregister(self, member: Member) -> None:
        """Forget a connection's number."""
        self._connections.pop(member.connection, None)

    def evict(self, room: Room, connection: int) -> None:
        """Close a connection whose viewer has joined too often."""
        member = self._connections.get(connection)
        if member is not None and member in room.by_viewer.get(member.viewer, ()):
            member.close(CloseCode.TOO_MANY_CONNECTIONS, "joined elsewhere")

    # --- bus and beat -----------------------------------------------------------------------------------

    def _on_message(self, channel: str, message: bytes) -> None:
        room = self._by_channel.get(channel)
        if room is not None:
            room.receive(message)

    def _on_reset(self) -> None:
        for room in self._rooms.values():
            if room.ready:
                room.recover()

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            now = self.loop.time()
            held = [room for room in self._rooms.values() if room.ready]
            for room in held:
                room.sweep(now)
            await asyncio.gather(*(self._beat(room) for room in held if room.by_viewer))
            for room in held:
                if not room.by_viewer and not room.waiting and now - room.empty_since > LINGER_S:
                    await self._drop(room)

    async def _beat(self, room: Room) -> None:
        """Renew the lease, notice a dead subscription by the room's position, purge dead workers."""
        before = room.received_seq
        try:
            stands = await self.store.beat(room.names, self.worker)
            if stands is None:
                await room._lose_state("the room is gone")
                return
            epoch, seq, dead = stands
            if room.ready and (epoch != room.epoch or seq > room.received_seq or seq < before):
                room.recover()
            for worker in dead:
                await self.store.purge(room.names, worker)
        except StoreUnavailable:
            pass  # Leases outlive a few missed beats.
