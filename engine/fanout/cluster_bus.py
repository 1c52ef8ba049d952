"""
Room channels of a cluster → this worker: one plain connection for each primary.

Decides at which node a channel is subscribed and moves it when its slot has moved: the node says so (`sunsubscribe`,
MOVED), or is gone, or the slots are read anew. A room whose channel has moved is told, since messages may have passed
by between the two. What one connection does is `bus.py`'s.

Bounds: one task for each channel on its way.

Source: docs/decisions/0022-cluster.md.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from engine.fanout.bus import SUBSCRIBE_S_MAX, Bus
from engine.store.topology import Address, Topology

log = structlog.stdlib.get_logger(__name__)

#: Pause before a channel is tried again: the slots may be known better by then (seconds).
_PAUSE_S = 0.1


class _Channel:
    """One channel that is wanted."""

    __slots__ = ("bus", "confirmed", "placing")

    def __init__(self) -> None:
        #: Where it is subscribed, or being subscribed.
        self.bus: Bus | None = None
        #: Done once it was confirmed somewhere; stays so.
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.placing: asyncio.Task[None] | None = None


class ClusterBus:
    """Subscriptions of one worker on a cluster. Looks like one bus to whoever subscribes."""

    def __init__(
        self,
        topology: Topology,
        on_message: Callable[[str, bytes], None],
        on_reset: Callable[[Collection[str]], None],
    ) -> None:
        """Prepare; see `Bus` for the callbacks."""
        self._topology = topology
        self._on_message = on_message
        self._on_reset = on_reset
        self._buses: dict[Address, Bus] = {}
        self._channels: dict[str, _Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    async def start(self) -> None:
        """Begin to connect to every primary, and to follow the cluster."""
        self._running = True
        self._topology.on_change.append(self._follow)
        self._follow()

    async def stop(self) -> None:
        """Drop every connection."""
        self._running = False
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(bus.stop() for bus in self._buses.values()))

    async def subscribe(self, channel: str) -> None:
        """
        Receive what is published on `channel` from now on. Returns once a node has confirmed it.

        Raises:
            TimeoutError: If none confirms within 0.9 s. The subscription stays wanted.
        """
        wanted = self._channels.get(channel)
        if wanted is None:
            wanted = self._channels[channel] = _Channel()
            self._place(channel, wanted)
        async with asyncio.timeout(SUBSCRIBE_S_MAX):
            await asyncio.shield(wanted.confirmed)

    async def unsubscribe(self, channel: str) -> None:
        """Stop receiving `channel`."""
        wanted = self._channels.pop(channel, None)
        if wanted is not None:
            if wanted.placing is not None:
                wanted.placing.cancel()
            if wanted.bus is not None:
                await wanted.bus.unsubscribe(channel)

    # --- placing ------------------------------------------------------------------------------------------

    def _place(self, channel: str, wanted: _Channel) -> None:
        """Subscribe a channel at its owner, for as long as it takes; one task at a time."""
        if wanted.placing is None or wanted.placing.done():
            wanted.placing = self._spawn(self._seek(channel, wanted))

    async def _seek(self, channel: str, wanted: _Channel) -> None:
        while True:
            owner = self._topology.owner_of(channel)
            if owner is None:
                self._topology.refresh_soon()
                await asyncio.sleep(_PAUSE_S)
                continue
            bus = self._bus_at(owner)
            if wanted.bus is not None and wanted.bus is not bus:
                await wanted.bus.unsubscribe(channel)
            wanted.bus = bus
            try:
                await bus.subscribe(channel)
            except TimeoutError:
                self._topology.refresh_soon()
                await asyncio.sleep(_PAUSE_S)
                continue
            if wanted.bus is bus and self._topology.owner_of(channel) == owner:
                break
        if wanted.confirmed.done():
            log.info("bus.channel_moved", node=str(owner))
            self._on_reset([channel])
        else:
            wanted.confirmed.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("bus.task_failed", exc_info=error)

    # --- following ----------------------------------------------------------------------------------------

    def _bus_at(self, address: Address) -> Bus:
        bus = self._buses.get(address)
        if bus is None:
            bus = self._buses[address] = Bus(
                self._topology.url_of(address),
                self._on_message,
                self._on_reset,
                on_moved=self._on_moved,
                on_lost=self._topology.refresh_soon,
            )
            self._spawn(bus.start())
        return bus

    def _on_moved(self, channel: str) -> None:
        """A node gave a channel away: ask who has it now, and look there."""
        self._topology.refresh_soon()
        wanted = self._channels.get(channel)
        if wanted is not None:
            wanted.bus = None
            self._place(channel, wanted)

    def _follow(self) -> None:
        """Move every channel whose slot has another owner; let go of nodes that own nothing any more."""
        if not self._running:
            return
        primaries = self._topology.slots.primaries
        for address in primaries:
            self._bus_at(address)
        for channel, wanted in self._channels.items():
            owner = self._topology.owner_of(channel)
            if owner is not None and wanted.bus is not self._bus_at(owner):
                self._place(channel, wanted)
        for address in [address for address in self._buses if address not in primaries]:
            self._spawn(self._buses.pop(address).stop())
