"""
Timers: what must happen later even if nobody is connected.

Decides when a worker looks for due work and what each kind of member does. A member is taken with a lease and dropped
once done, so a worker that dies with it only delays it; every transition is harmless the second time. Correctness
never waits for a timer: what depends on time compares with the store's clock when it is asked.

Bounds: 50 members per look and partition.

Source: docs/architecture.md, "Timers".
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from engine.errors import LiveroomError, StoreUnavailable
from engine.store.keys import DUE_PARTITIONS, RoomKey
from engine.store.store import Store

log = structlog.stdlib.get_logger(__name__)

_TAKEN_MAX = 50
_LOOK_S_MAX = 1.0
_LOOK_S_MIN = 0.05
_HOST = "host"
_SETTLE = "settle"
_SALE = "sale"
_PACKET = "packet"
#: Longest time from a streamer's join to the first look at their presence; a shorter grace looks sooner.
_HOST_CHECK_MS = 15_000
#: A close is settled at once; this is when another worker would do it instead.
_SETTLE_BACKUP_MS = 3_000
#: Next look at a room that the store did not answer for.
_UNREACHABLE_MS = 1_000
#: First look at a campaign, which then says when the next one is due.
_CAMPAIGN_LOOK_MS = 1_000


def _member(kind: str, room: RoomKey, part: str = "") -> str:
    return f"{kind}|{room.tenant}|{room.room}|{part}"


class Note:
    """A note on its way to the store. A step that must not be forgotten is not answered before its note is there."""

    __slots__ = ("_known", "_outcome", "_waiting")

    def __init__(self) -> None:
        self._known = False
        self._outcome: LiveroomError | None = None
        self._waiting: list[Callable[[LiveroomError | None], None]] = []

    def then(self, go_on: Callable[[LiveroomError | None], None]) -> None:
        """Call `go_on` once: with None when the store holds the note, with the error when it may not."""
        if self._known:
            go_on(self._outcome)
        else:
            self._waiting.append(go_on)

    def settle(self, outcome: LiveroomError | None) -> None:
        """Say how the first try ended."""
        self._known, self._outcome = True, outcome
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on(outcome)


class Timers:
    """Looks for due work in every partition."""

    def __init__(self, store: Store, *, streamer_grace_ms: int, paused_close_ms: int) -> None:
        self._store = store
        self._grace_ms = streamer_grace_ms
        self._patience_ms = paused_close_ms
        self._looking: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to look."""
        # One each: in a cluster they are on several nodes, and one that is gone must not hold up the others.
        self._looking = [
            asyncio.create_task(self._look(partition), name=f"timers-{partition}")
            for partition in range(DUE_PARTITIONS)
        ]

    async def stop(self) -> None:
        """Stop looking. What was taken comes due again when its lease ends."""
        tasks = [*self._looking, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch_host(self, room: RoomKey) -> Note:
        """A streamer is about to join: notice when they are gone."""
        if not self._grace_ms:
            note = Note()
            note.settle(None)
            return note
        return self._note(_member(_HOST, room), min(_HOST_CHECK_MS, self._grace_ms))

    def expect_close(self, room: RoomKey) -> Note:
        """A room is about to be closed: have any worker settle it should this one die in between."""
        return self._note(_member(_SETTLE, room), _SETTLE_BACKUP_MS)

    def watch_sale(self, room: RoomKey, sale: str) -> Note:
        """A sale is about to be scheduled: announce its end and give overdue holds back."""
        return self._note(_member(_SALE, room, sale), _CAMPAIGN_LOOK_MS)

    def watch_packet(self, room: RoomKey, packet: str) -> Note:
        """A red packet is about to be sent: settle it when it expires."""
        return self._note(_member(_PACKET, room, packet), _CAMPAIGN_LOOK_MS)

    def settle(self, room: RoomKey) -> None:
        """A room is closing: settle it now."""
        self._spawn(self._settle_now(room))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("timers.task_failed", exc_info=error)

    def _note(self, member: str, in_ms: int) -> Note:
        """
        Note that a member is due.

        The note leaves before whatever the caller asks of the store next, but on a cluster it may go to another node,
        so the caller also waits for it. It is tried until the store has it; twice is harmless.
        """
        note = Note()

        def done(error: Exception | None) -> None:
            if error is None:
                note.settle(None)
                return
            # The step itself may well have been taken.
            note.settle(StoreUnavailable(f"not noted: {error}", definite=False))
            asyncio.get_running_loop().call_later(_LOOK_S_MAX, self._note, member, in_ms)

        self._store.due_add(member, in_ms, done)
        return note

    async def _settle_now(self, room: RoomKey) -> None:
        try:
            await self._store.settle(room)
        except StoreUnavailable:
            pass  # The member noted before the close is due soon.

    async def _look(self, partition: int) -> None:
        while True:
            pause_s = _LOOK_S_MAX
            try:
                next_ms, taken = await self._store.due_claim(partition, _TAKEN_MAX)
                if next_ms >= 0:
                    pause_s = min(pause_s, next_ms / 1000)
                for member, lease in taken:
                    again_in_ms = await self._do_if_reachable(member)
                    await self._store.due_done(member, lease, again_in_ms)
                    if again_in_ms is not None:
                        pause_s = min(pause_s, again_in_ms / 1000)
            except StoreUnavailable:
                pass  # Leases end; the work comes due again.
            except Exception:
                # A bug in one kind of work must not stop the others.
                log.exception("timers.look_failed")
            await asyncio.sleep(max(pause_s, _LOOK_S_MIN))

    async def _do_if_reachable(self, member: str) -> int | None:
        try:
            return await self._do(member)
        except StoreUnavailable:
            return _UNREACHABLE_MS  # The room is on another node than this note, and the rest must not wait for it.

    async def _do(self, member: str) -> int | None:
        """Do what a member stands for. Returns milliseconds until it is due again, or None when it is done."""
        kind, tenant, room, part = member.split("|")
        key = RoomKey(tenant, room)
        if kind == _HOST:
            happened, again_in_ms = await self._store.check_host(
                key, grace_ms=self._grace_ms, patience_ms=self._patience_ms
            )
            if happened != "watch":
                log.info("room.host", room=str(key), happened=happened)
            if happened in ("watch", "paused"):
                return again_in_ms
            # Over. A worker that died right after the close left it to this one to settle.
            kind = _SETTLE
        if kind == _SETTLE:
            happened, again_in_ms = await self._store.settle(key)
            return again_in_ms if happened == "open" else None
        if kind == _SALE:
            return await self._store.seckill_tick(key, part)
        if kind == _PACKET:
            return await self._store.packet_tick(key, part)
        log.error("timers.unknown_member", kind=kind)
        return None
