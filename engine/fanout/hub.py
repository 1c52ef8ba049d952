"""
All rooms of this worker.

Decides which rooms are held here: the first viewer brings one in, and it is let go a while after the last. Renews
this worker's leases, notices subscriptions that died silently by a room's position, and purges workers that died.
What a room does is `room.py`'s.

Source: docs/architecture.md, "Fan-out", "Recovery".
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import structlog

from engine.clock import StoreClock
from engine.errors import LiveroomError, RoomNotFound, StoreUnavailable
from engine.fanout.audience import Member
from engine.fanout.bus import Bus
from engine.fanout.cluster_bus import ClusterBus
from engine.fanout.room import CATCH_UP_S, HubMetrics, Room
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Seen, Store
from protocol.codes import CloseCode

log = structlog.stdlib.get_logger(__name__)

#: A room without viewers is let go after this long (seconds).
LINGER_S: Final = 10.0
BEAT_S: Final = 2.0
#: Without a beat for this long another worker may have purged ours: the lease of `store/lua/presence.lua` (seconds).
LEASE_S: Final = 6.0


def _answer_all(waiting: list[Callable[[Room | LiveroomError], None]], outcome: Room | LiveroomError) -> None:
    for go_on in waiting:
        try:
            go_on(outcome)
        except Exception:  # A bug in one of them must not leave the others waiting.
            log.exception("hub.join_failed")


class Hub:
    """All rooms of this worker."""

    def __init__(
        self,
        store: Store,
        *,
        clock: StoreClock,
        worker: str,
        build_frame: Callable[..., bytes],
        metrics: HubMetrics,
        chat_per_s_max: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store
        self.clock = clock
        self.worker = worker
        self.metrics = metrics
        self.chat_per_s_max = chat_per_s_max
        self.build_frame = build_frame
        self._bus = (
            Bus(store.url, self._on_message, self._on_reset)
            if store.topology is None
            else ClusterBus(store.topology, self._on_message, self._on_reset)
        )
        self._rooms: dict[RoomKey, Room] = {}
        self._by_channel: dict[str, Room] = {}
        self._connections: dict[int, Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        store.seen = self._seen

    def _seen(self) -> list[tuple[RoomKeys, Seen]]:
        # Also rooms that are being read anew: what was seen of them before still counts.
        known = (room for room in self._rooms.values() if room.epoch)
        return [
            (room.names, Seen(room.epoch, room.received_seq, room.memory.change, dict(room.memory.sold)))
            for room in known
        ]

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

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background until it ends or the hub stops; a failure is logged."""
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("hub.task_failed", exc_info=error)

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
        except LiveroomError as error:
            outcome = error
        except TimeoutError:
            outcome = StoreUnavailable("the store does not confirm the subscription")
        waiting, room.waiting = room.waiting, []
        if isinstance(outcome, LiveroomError):
            await self._drop(room)
        _answer_all(waiting, outcome)

    async def reload(self, room: Room) -> None:
        """Read a room anew after its state was lost."""
        while True:
            try:
                read = await self.store.read_room(room.key)
                break
            except LiveroomError as error:
                waiting, room.waiting = room.waiting, []
                _answer_all(waiting, error)
                await asyncio.sleep(CATCH_UP_S)
        waiting, room.waiting = room.waiting, []
        if read is None:
            await self._drop(room)
            _answer_all(waiting, RoomNotFound())
            return
        room.load(read)
        _answer_all(waiting, room)

    async def _drop(self, room: Room) -> None:
        room.stop()
        if self._rooms.get(room.key) is not room:
            return  # Gone already, and perhaps another one holds its place.
        del self._rooms[room.key]
        self._by_channel.pop(room.names.bus, None)
        await self._bus.unsubscribe(room.names.bus)

    # --- connections ------------------------------------------------------------------------------------

    def register(self, member: Member) -> None:
        """Know a connection by its number, so that another worker's join can evict it."""
        self._connections[member.connection] = member

    def unregister(self, member: Member) -> None:
        """Forget a connection's number."""
        self._connections.pop(member.connection, None)

    def evict(self, room: Room, worker: str, connection: int) -> None:
        """Close a connection whose viewer has joined too often, if it is one of this worker."""
        if worker != self.worker:
            return
        member = self._connections.get(connection)
        if member is not None and member in room.audience.by_viewer.get(member.viewer, ()):
            member.close(CloseCode.TOO_MANY_CONNECTIONS, "joined elsewhere")

    # --- bus and beat -----------------------------------------------------------------------------------

    def _on_message(self, channel: str, message: bytes) -> None:
        room = self._by_channel.get(channel)
        if room is None:
            return
        try:
            room.receive(message)
        except Exception:
            # A bug in one room must not end the bus's reader, which would make the worker deaf to all of them.
            log.exception("hub.message_failed", room=str(room.key))
            self.spawn(room.lose_state("a message could not be read"))

    def _on_reset(self, channels: Collection[str]) -> None:
        for channel in channels:
            room = self._by_channel.get(channel)
            if room is not None and room.ready:
                room.recover()
                self.spawn(room.refresh_gauges())

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._beat_all()
            except Exception:
                # A bug in one room must not let the leases of all the others run out.
                log.exception("hub.beat_failed")

    async def _beat_all(self) -> None:
        now = self.loop.time()
        held = [room for room in self._rooms.values() if room.ready]
        for room in held:
            room.audience.sweep(now)
        beats = [self._beat(room) for room in held if room.audience.by_viewer]
        for outcome in await asyncio.gather(*beats, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("hub.beat_failed", exc_info=outcome)
        for room in held:
            if not room.audience.by_viewer:
                room.leased_at = now  # Nobody is here whose place could be lost.
            if (
                not room.audience.by_viewer
                and not room.waiting
                and now - room.audience.empty_since > LINGER_S
            ):
                await self._drop(room)

    def _take_places_again(self, room: Room) -> None:
        """The store was out of reach for longer than the lease: another worker may have given our places away."""
        members = room.audience.attached()
        if members:
            log.warning("room.lease_lapsed", room=str(room.key), connections=len(members))
        for member in members:
            member.rejoin()

    async def _beat(self, room: Room) -> None:
        """Renew the lease, notice a dead subscription by the room's position, purge dead workers."""
        before = room.received_seq
        asked_at = self.loop.time()
        try:
            stands = await self.store.beat(room.names, self.worker)
            if stands is None:
                await room.lose_state("the room is gone")
                return
            epoch, seq, lapsed = stands
            if room.ready and (epoch != room.epoch or seq > room.received_seq or seq < before):
                room.recover()
            # A join renews the lease too, so a lapse may be hidden from the store; our own clock knows it.
            if self.worker in lapsed or asked_at - room.leased_at > LEASE_S:
                self._take_places_again(room)
            room.leased_at = asked_at
            for worker in lapsed:
                if worker != self.worker:
                    await self.store.purge(room.names, worker)
            await self.store.mature_shares(room.names)
        except StoreUnavailable:
            pass  # Leases outlive a few missed beats.
