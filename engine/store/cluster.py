"""
Calls → the node that owns their slot.

Decides which link carries a call, and what happens when the cluster changes under it: a call that was told MOVED or
ASK, and one whose node is gone, is handed to the link of the slot's present owner with what is left of its deadline.
Every call of ours concerns one slot (`keys.py`), so nothing here splits or joins calls. What one link does is
`link.py`'s.

Bounds: one link per primary. A link whose node owns nothing any more is stopped when it has handed its calls over.

Source: docs/decisions/0022-cluster.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from engine.errors import StoreUnavailable
from engine.store.batch import Done, Group, Word
from engine.store.functions import Library
from engine.store.link import Acknowledged, Link, ask_once
from engine.store.topology import Address, Topology

log = structlog.stdlib.get_logger(__name__)

_HOP_PAUSE_S: Final = 0.03


class Cluster:
    """Links to every primary of a cluster. Looks like one link to whoever calls."""

    def __init__(
        self,
        url: str,
        library: Library,
        *,
        on_connected: Callable[[Link], Awaitable[None]],
        acknowledged: Acknowledged,
    ) -> None:
        """
        Prepare; `start` connects.

        Raises:
            ValueError: If the URL names no cluster.
        """
        self.topology = Topology(url, ask_once)
        self._library = library
        self._on_connected = on_connected
        self._acknowledged = acknowledged
        self._links: dict[Address, Link] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._flights_before = 0
        self._calls_before = 0
        self._stopped = False
        self.topology.on_change.append(self._follow)

    async def prepare(self) -> None:
        """
        Find the primaries.

        Raises:
            StoreUnavailable: If no node of the cluster answers.
        """
        await self.topology.start()

    async def start(self) -> None:
        """
        Connect to each primary and load the library there. May be called again when it failed.

        Raises:
            StoreUnavailable: If one of them cannot be reached.
        """
        # Each to its end: one that is still on its way when `start` is called again would be started twice.
        starting = [link.start() for link in self.links if not link.running]
        for outcome in await asyncio.gather(*starting, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        for link in self.links:  # One that has come meanwhile.
            if not link.running:
                link.begin()

    async def stop(self) -> None:
        """Finish what is under way, then disconnect."""
        self._stopped = True
        await self.topology.stop()
        await asyncio.gather(*(link.stop() for link in self._links.values()), *self._retiring)

    @property
    def links(self) -> list[Link]:
        """The links of now, one per primary."""
        return list(self._links.values())

    @property
    def healthy(self) -> bool:
        """Whether every primary answered the last thing it was asked."""
        return all(link.healthy for link in self._links.values())

    @property
    def waiting(self) -> int:
        """Calls that have not left yet."""
        return sum(link.waiting for link in self._links.values())

    @property
    def flights(self) -> int:
        """Flights done."""
        return self._flights_before + sum(link.flights for link in self._links.values())

    @property
    def calls(self) -> int:
        """Calls done."""
        return self._calls_before + sum(link.calls for link in self._links.values())

    def link_of(self, key: Word) -> Link:
        """Return the link to the owner of a key; to any node while nobody serves its slot."""
        owner = self.topology.owner_of(str(key))
        link = self._links.get(owner) if owner is not None else None
        return link if link is not None else next(iter(self._links.values()))

    def call(self, function: str, keys: tuple[Word, ...], args: tuple[Word, ...], done: Done) -> None:
        """Call a function alone. `done` is called once, later."""
        self.link_of(keys[0]).call(function, keys, args, done)

    def merge(
        self,
        function: str,
        keys: tuple[Word, ...],
        args: tuple[Word, ...],
        item_keys: tuple[Word, ...],
        item_args: tuple[Word, ...],
        done: Done,
        group: Word = "",
    ) -> None:
        """Call a function together with other callers of it. `done` is called once, later."""
        self.link_of(keys[0]).merge(function, keys, args, item_keys, item_args, done, group)

    async def command(self, *words: Word) -> list[Any]:
        """Send one plain command to every primary. Raises StoreUnavailable."""
        return [reply for link in self.links for reply in await link.command(*words)]

    # --- what links ask -----------------------------------------------------------------------------------

    def belongs(self, link: Link, group: Group) -> bool:
        """Tell whether a link is still the one for a group."""
        return group.asking or self.link_of(group.keys[0]) is link

    def hand_over(self, group: Group) -> None:
        """Give a group to the link of its slot's present owner."""
        self._pass_on(group, lambda: self.link_of(group.keys[0]))

    def _pass_on(self, group: Group, find: Callable[[], Link]) -> None:
        """Give a group to another link: at once the first time, then with a pause, since nodes may disagree a while."""
        group.hops += 1
        if group.hops == 1:
            find().take_over(group)
        else:
            asyncio.get_running_loop().call_later(_HOP_PAUSE_S, lambda: find().take_over(group))

    def moved(self, slot: int, host: str, port: int) -> None:
        """A node said that a slot is elsewhere, for good."""
        self.topology.learn(slot, Address(host, port))

    def ask_there(self, group: Group, host: str, port: int) -> None:
        """A node said that one group is to be asked elsewhere, this once: its slot is on its way there."""
        group.asking = True
        self._pass_on(group, lambda: self._link_to(Address(host, port)))

    def failed(self) -> None:
        """A node is out of reach, or says that it may not serve: somebody may have taken its place."""
        self.topology.refresh_soon()

    # --- following ----------------------------------------------------------------------------------------

    def _link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = Link(
                self.topology.url_of(address),
                self._library,
                on_connected=self._on_connected,
                acknowledged=self._acknowledged,
                cluster=self,
            )
            self._links[address] = link
            if not self._stopped and any(other.running for other in self._links.values()):
                link.begin()
        return link

    def _follow(self) -> None:
        """Connect to new primaries, and let go of links to nodes that own nothing any more."""
        primaries = self.topology.slots.primaries
        for address in primaries:
            self._link_to(address)
        for address in [address for address in self._links if address not in primaries]:
            if len(self._links) > 1:
                log.info("cluster.link_retired", node=str(address))
                task = asyncio.get_running_loop().create_task(self._retire(self._links.pop(address)))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def _retire(self, link: Link) -> None:
        try:
            await link.stop()
        except StoreUnavailable:
            pass
        self._flights_before += link.flights
        self._calls_before += link.calls
