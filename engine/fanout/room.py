"""
One room on one worker: from the bus to everybody.

Decides what is pending, when it is flushed, and how a gap in the facts is closed: facts are followed by `seq`, and what
is missing is read from the log before anything later is shown. What has been sent is kept in `memory.py`, who is sent
it in `audience.py`.

Bounds: pending chat 10,000 events, beyond which the oldest are counted as thinned; facts that arrive ahead of a gap
10,000, beyond which the room is read anew.

Source: docs/architecture.md, "Fan-out", "Recovery".
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Final, Protocol

import structlog

from engine.clock import StoreClock
from engine.errors import LiveroomError, StoreUnavailable
from engine.fanout.audience import Audience
from engine.fanout.cadence import Cadence
from engine.fanout.memory import RoomMemory
from engine.fanout.thinning import Thinner
from engine.rooms.recovery import RoomRead, fits_resume
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Store
from protocol.codes import CloseCode, RoomState

log = structlog.stdlib.get_logger(__name__)

PENDING_CHAT_MAX: Final = 10_000
AHEAD_MAX: Final = 10_000
#: How long a join waits for the bus to catch up before the log is asked (seconds).
CATCH_UP_S: Final = 0.25


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


class Host(Protocol):
    """What a room needs of the hub that holds it."""

    loop: asyncio.AbstractEventLoop
    store: Store
    clock: StoreClock
    metrics: HubMetrics
    chat_per_s_max: float
    build_frame: Callable[..., bytes]

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background."""
        ...

    def evict(self, room: "Room", worker: str, connection: int) -> None:
        """Close a connection, if it is one of this worker."""
        ...

    async def reload(self, room: "Room") -> None:
        """Read a room anew after its state was lost."""
        ...


class Room:
    """One room on this worker. Made and dropped by the hub."""

    def __init__(self, hub: Host, key: RoomKey) -> None:
        self._hub = hub
        self._loop = hub.loop
        self.key = key
        self.names = RoomKeys(key)
        self.memory = RoomMemory()
        self.audience = Audience(hub.loop, hub.build_frame)
        self.ready = False
        #: Loop time of the last beat that renewed this worker's lease; set by the hub.
        self.leased_at = hub.loop.time()
        #: Called once the room is ready, or cannot be.
        self.waiting: list[Callable[[Room | LiveroomError], None]] = []
        self._early: list[bytes] = []

        self.epoch = ""
        #: The last fact received; `memory.seq` is the last one sent to viewers.
        self.received_seq = 0
        #: The last comment received, 0 before the first.
        self._last_comment = 0
        self._pending: list[Pending] = []
        self._pending_chat = 0
        #: Of those, how many somebody wrote; arrivals and the like, which nobody waits for, are not among them.
        self._pending_comments = 0
        self._pending_facts = 0
        self._overflowed = 0
        self._pending_gauges: dict[str, bytes] = {}
        self._ahead: dict[int, bytes] = {}
        self._cadence = Cadence()
        self._thinner = Thinner(hub.chat_per_s_max)
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._timer_at = 0.0
        self._flushing = False

        #: Joins that wait for a fact they must not miss.
        self._parked: list[tuple[int, Callable[[], None]]] = []
        self._catch_up: asyncio.TimerHandle | None = None
        self._older: list[tuple[int, Callable[[list[bytes] | None], None]]] = []
        self._older_task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None

    # --- what a join is told ----------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the room as everybody has seen it, as JSON."""
        return self.memory.snapshot(self._hub.clock.now_ms())

    def missed(self, epoch: str, seq: int, told: Callable[[list[bytes] | None], None]) -> None:
        """
        Tell the facts after `seq`, or None when only a snapshot helps.

        Answered at once from memory, or after one read of the log that all who wait share.
        """
        if epoch != self.epoch or seq > self.memory.seq:
            told(None)
            return
        facts = self.memory.ring.since(seq)
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
            except LiveroomError:
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
        kept = [json for number, json in facts if seq < number <= self.memory.seq]
        last = facts[-1][0] if facts else seq
        if last < self.memory.seq:
            rest = self.memory.ring.since(max(last, seq))
            if rest is None:
                return None
            kept.extend(rest)
        return kept if fits_resume(kept) else None

    def when_caught_up(self, seq: int, go_on: Callable[[], None]) -> None:
        """Call `go_on` once everybody has been sent the facts up to `seq`."""
        if self.memory.seq >= seq:
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
            label, *seen = header.split(b" ")
            name = label.decode()
            if seen:
                change, taken, bought = map(int, seen)
                self.memory.note_sold(name.removeprefix("stock:"), change=change, taken=taken, bought=bought)
            self._pending_gauges[name] = payload
            self.memory.fold_gauge(name, payload)
            self._schedule()
        elif kind == b"p":
            for viewer, json in zip(header.decode().split(" "), payload.split(b"\n"), strict=True):
                self.audience.tell(viewer, json)
        elif kind == b"x":
            worker, connection = header.split(b" ")
            self._hub.evict(self, worker.decode(), int(connection))

    def _receive_fact(self, epoch: str, seq: int, payload: bytes) -> None:
        if epoch != self.epoch:
            self._hub.spawn(self.lose_state("another epoch"))
        elif seq == self.received_seq + 1:
            self._take_fact(payload)
            while self._ahead and (following := self._ahead.pop(self.received_seq + 1, None)) is not None:
                self._take_fact(following)
        elif seq > self.received_seq:
            self._ahead[seq] = payload
            if len(self._ahead) > AHEAD_MAX:
                self._hub.spawn(self.lose_state("too far ahead of a gap"))
            else:
                self.recover()

    def _take_fact(self, payload: bytes) -> None:
        self.received_seq += 1
        self._pending.append(Pending(Kind.FACT, self.received_seq, payload))
        self._pending_facts += 1
        self._schedule()

    def _receive_chat(self, first: int, payload: bytes) -> None:
        events = payload.split(b"\n")
        if first:
            # A comment that was stored as the store died was published to nobody: it is left out, and that is said.
            if 0 < self._last_comment < first - 1:
                self._overflowed += first - 1 - self._last_comment
            self._last_comment = first + len(events) - 1
        for offset, json in enumerate(events):
            self._pending.append(Pending(Kind.CHAT, first + offset if first else 0, json))
            self._pending_chat += 1
        if first:
            self._pending_comments += len(events)
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
                self.memory.fold_chat(entry.number, entry.payload)
            else:
                kept.append(entry)
        self._pending = kept

    # --- loading and recovery ---------------------------------------------------------------------------

    def load(self, read: RoomRead) -> None:
        """Begin, or begin anew, from the store's state; then take what arrived meanwhile."""
        self.epoch = read.epoch
        self.received_seq = read.seq
        self.memory.load(read)
        self._forget_pending()
        self.ready = True
        early, self._early = self._early, []
        last_comment = self._last_comment = read.comments[-1][0] if read.comments else 0
        for message in early:
            if message.startswith(b"c ") and 0 < int(message[2 : message.index(b"\n")]) <= last_comment:
                continue  # The snapshot holds these comments already.
            self.receive(message)

    def _forget_pending(self) -> None:
        """Drop what belongs to a state that is left behind."""
        self._pending.clear()
        self._pending_chat = self._pending_comments = self._pending_facts = self._overflowed = 0
        self._pending_gauges.clear()
        self._ahead.clear()
        # Those who wait are being closed, and the facts they wait for may never come.
        self._parked.clear()

    def recover(self) -> None:
        """Close a gap from the log. One read at a time, however many facts or viewers wait."""
        if self._recovery is None:
            self._recovery = self._hub.spawn(self._close_gap())

    async def _close_gap(self) -> None:
        # Facts may arrive over the bus while the log is read, so what the log must hold is noted before.
        began = self.received_seq
        known = max(began, max(self._ahead, default=0))
        more = False
        try:
            page = await self._hub.store.facts_since(self.key, self.received_seq)
            if not self.ready:
                return  # Read anew meanwhile.
            if page is None or page[0] != self.epoch or page[1] < known or page[2] > self.received_seq + 1:
                await self.lose_state("the log does not continue")
                return
            self._hub.metrics.recovered("log")
            for seq, json in page[3]:
                self._receive_fact(page[0], seq, json)
            more = self.received_seq < page[1]
            if more and self.received_seq == began:
                await self.lose_state("the log has a hole")
                return
        except StoreUnavailable:
            more = bool(self._ahead)  # Else the next fact, beat or join asks again.
        finally:
            self._recovery = None
        if more or self._ahead:
            self.recover()

    async def refresh_gauges(self) -> None:
        """Read the gauges that may have been missed; nobody would repeat them in a silent room."""
        self.memory.expect_gauges()
        try:
            read = await self._hub.store.read_room(self.key)
        except LiveroomError:
            return  # The bus is about to break again, or a beat finds out.
        if read is None or not self.ready or read.epoch != self.epoch:
            return
        self._pending_gauges.update(self.memory.refresh_gauges(read))
        self._schedule()

    async def lose_state(self, why: str) -> None:
        """Read the room anew and send everybody through a snapshot."""
        if not self.ready:
            return
        self.ready = False
        log.warning("room.state_lost", room=str(self.key), why=why)
        self._hub.metrics.recovered("snapshot")
        self._forget_pending()
        for member in self.audience.all_members():
            member.close(CloseCode.STATE_LOST, "resume gives a snapshot")
        await self._hub.reload(self)

    # --- flushing ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Arm the timer for the next flush; facts move it to now."""
        if self._flushing:
            return
        now = self._loop.time()
        at = self._cadence.next_flush_at(
            now,
            facts=self._pending_facts > 0,
            chat=self._pending_comments > 0,
            gauges=self._pending_chat > 0 or bool(self._pending_gauges),
        )
        if at is None:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_soon(self._flush) if at <= now else self._loop.call_at(at, self._flush)

    def _flush(self) -> None:
        """Send what is pending to everybody."""
        self._timer = None
        started = self._loop.time()
        pending, self._pending = self._pending, []
        chat = [entry for entry in pending if entry.kind is Kind.CHAT]
        shown = self._thinner.thin(chat, started)
        missed = len(chat) + self._overflowed
        dropped = missed - len(shown)
        self._pending_chat = self._pending_comments = self._pending_facts = self._overflowed = 0

        with_gauges = bool(self._pending_gauges) and self._cadence.gauges_due(started)
        # As known now: somebody may have joined since and been told a newer value.
        gauges = [self.memory.gauge(name) for name in self._pending_gauges] if with_gauges else []
        if with_gauges:
            self._pending_gauges.clear()

        kept = pending
        if len(shown) < len(chat):
            wanted = set(map(id, shown))
            kept = [entry for entry in pending if entry.kind is Kind.FACT or id(entry) in wanted]
        parts = [entry.payload for entry in kept]
        if dropped:
            parts.append(b'{"ev":"thinned","dropped":%d}' % dropped)
            self._hub.metrics.thinned(dropped)
        parts.extend(gauges)
        after = self._fold(pending)
        if not parts:
            after()
            self._schedule()  # A timer may fire a little early, when the gauges it was for are not quite due.
            return

        def sent(viewers: int) -> None:
            ended = self._loop.time()
            self._cadence.flushed(started, ended, with_gauges=with_gauges)
            self._hub.metrics.flushed(len(parts), viewers, ended - started)
            self._flushing = False
            after()
            self._release_parked()
            self._schedule()

        self._flushing = True
        facts = [entry.payload for entry in pending if entry.kind is Kind.FACT]
        self.audience.send(parts, facts, missed, sent)

    def _fold(self, pending: list[Pending]) -> Callable[[], None]:
        """Fold events into memory as they are sent; return what must follow the sending."""
        removed: list[tuple[int, str, str]] = []
        over = False
        for entry in pending:
            if entry.kind is Kind.CHAT:
                self.memory.fold_chat(entry.number, entry.payload)
                continue
            fact = self.memory.fold_fact(entry.number, entry.payload)
            if fact["ev"] == "viewer.removed":
                removed.append((entry.number, fact["viewer"], fact["how"]))
            elif fact["ev"] == "room.state" and fact["state"] == RoomState.CLOSED:
                over = True

        def after() -> None:
            for seq, viewer, how in removed:
                code = CloseCode.BANNED if how == "ban" else CloseCode.KICKED
                for member in list(self.audience.by_viewer.get(viewer, ())):
                    member.removed(seq, code, how)
            if over:
                for member in self.audience.all_members():
                    member.close(CloseCode.ROOM_CLOSED, "room closed")

        return after

    def _release_parked(self) -> None:
        parked, self._parked = self._parked, []
        for seq, go_on in parked:
            if self.memory.seq >= seq:
                go_on()
            else:
                self._parked.append((seq, go_on))

    def stop(self) -> None:
        """Cancel what is scheduled."""
        for handle in (self._timer, self._catch_up):
            if handle is not None:
                handle.cancel()
