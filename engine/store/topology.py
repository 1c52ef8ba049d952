"""
Which node of a cluster owns which slot.

Decides how a cluster is described by its URL, when its nodes are asked for the slots, and who is told of a change. Any
node that answers will do: during a fail-over they agree within a moment, and a call that went to the wrong one is told
where to go (`cluster.py`). Carries no calls.

Bounds: one question under way at a time, and at most one every 100 ms; every 30 s without a reason.

Source: "Redis cluster specification", "Client first connection and handling of redirections".
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

import structlog
from redis.crc import key_slot

from engine.errors import StoreUnavailable

log = structlog.stdlib.get_logger(__name__)

SLOTS: Final = 16_384
SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_ASK_S_MAX: Final = 0.4
_ASK_AGAIN_S: Final = 0.1
_LOOK_S: Final = 30.0


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=65_536)
def slot_of(key: str) -> int:
    """Return the slot of a key or of a sharded channel."""
    return int(key_slot(key.encode()))


def is_cluster(url: str) -> bool:
    """Tell whether a store's URL names a cluster."""
    return urlsplit(url).scheme in SCHEMES


def own_slots(nodes: str) -> list[range]:
    """Return the slots of the node that gave this reply of CLUSTER NODES; those on their way are where they were."""
    for line in nodes.splitlines():
        words = line.split()
        if len(words) >= 8 and "myself" in words[2].split(","):
            bounds = (word.partition("-") for word in words[8:] if not word.startswith("["))
            return [range(int(first), int(last or first) + 1) for first, _, last in bounds]
    return []


class ClusterUrl:
    """`redis+cluster://[user:password@]host:port[,host:port…]`, or `rediss+cluster://` for TLS."""

    def __init__(self, url: str) -> None:
        """
        Take a URL apart.

        Raises:
            ValueError: If it names no node, one without a port, or a database; nothing of it is quoted, since it may
                be a part of the password.
        """
        try:
            self._parts = urlsplit(url)
        except ValueError:
            raise ValueError("it is not a URL of a cluster's nodes") from None
        if self._parts.path not in ("", "/") or "db" in parse_qs(self._parts.query):
            raise ValueError("a cluster has no numbered databases: its URL ends after the last node's port")
        login, at, places = self._parts.netloc.rpartition("@")
        self._login = login + at
        self.seeds = [_address(place) for place in places.split(",") if place]
        if not self.seeds:
            raise ValueError("a cluster's URL names at least one node")

    def of(self, address: Address) -> str:
        """Return the URL of one node."""
        scheme = SCHEMES[self._parts.scheme]
        return urlunsplit(self._parts._replace(scheme=scheme, netloc=self._login + str(address)))


def _address(place: str) -> Address:
    host, colon, port = place.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") and host.endswith("]") else host
    if not colon or not digits or not 0 < int(port) < 65_536 or not bare or set(bare) & set("[]"):
        raise ValueError("each node of a cluster must be host:port, with a port from 1 to 65535")
    return Address(bare, int(port))


class SlotMap:
    """Slot → primary. Pure."""

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * SLOTS
        self.primaries: frozenset[Address] = frozenset()
        self.replicas: frozenset[Address] = frozenset()
        #: Fewest replicas that any primary with slots has.
        self.replicas_min = 0

    def owner(self, slot: int) -> Address | None:
        """Return the primary of a slot; None while nobody serves it."""
        return self._owners[slot]

    def learn(self, slot: int, address: Address) -> bool:
        """Take the word of a node that answered MOVED. Returns whether that is news."""
        if self._owners[slot] == address:
            return False
        self._owners[slot] = address
        self.primaries |= {address}
        return True

    def load(self, reply: Iterable[Any], asked: Address) -> bool:
        """
        Take the reply of CLUSTER SLOTS, given by `asked`.

        Returns:
            Whether a slot has another owner than before.
        """
        owners: list[Address | None] = [None] * SLOTS
        replicas: set[Address] = set()
        counts: list[int] = []
        for first, last, primary, *others in reply:
            owner = _node(primary, asked)
            owners[first : last + 1] = [owner] * (last + 1 - first)
            replicas.update(_node(other, asked) for other in others)
            counts.append(len(others))
        changed = owners != self._owners
        self._owners = owners
        self.primaries = frozenset(owner for owner in owners if owner is not None)
        self.replicas = frozenset(replicas)
        self.replicas_min = min(counts, default=0)
        return changed


def _node(described: Any, asked: Address) -> Address:
    # A node that does not know its own address leaves it empty: it is the one we reached.
    host = bytes(described[0] or b"").decode()
    return Address(asked.host if host in ("", "?") else host, int(described[1]))


#: Sends one command to the node at a URL and returns its reply. Raises StoreUnavailable.
AskNode = Callable[..., Awaitable[Any]]


class Topology:
    """The slots of one cluster, kept up to date."""

    def __init__(self, url: str, ask: AskNode) -> None:
        """
        Prepare; `start` asks.

        Raises:
            ValueError: If the URL names no cluster.
        """
        self._url = ClusterUrl(url)
        self._ask = ask
        self.slots = SlotMap()
        #: Called after every change of owners.
        self.on_change: list[Callable[[], None]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._asked_at = -_ASK_AGAIN_S

    def url_of(self, address: Address) -> str:
        """Return the URL of one node."""
        return self._url.of(address)

    def owner_of(self, key: str) -> Address | None:
        """Return the primary of a key or sharded channel; None while nobody serves it."""
        return self.slots.owner(slot_of(key))

    async def start(self) -> None:
        """
        Ask for the slots, and keep asking now and then.

        Raises:
            StoreUnavailable: If no node answers.
        """
        await self._load()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="topology")

    async def stop(self) -> None:
        """Ask no more."""
        tasks = [task for task in (self._watching, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, slot: int, address: Address) -> None:
        """A node said that a slot is at `address`: go there, and ask what else has changed."""
        if self.slots.learn(slot, address):
            self._changed()
            self.refresh_soon()

    def refresh_soon(self) -> None:
        """Ask for the slots again, soon; asking for it often is harmless."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(), name="slots")

    async def _refresh(self) -> None:
        await asyncio.sleep(self._asked_at + _ASK_AGAIN_S - asyncio.get_running_loop().time())
        try:
            await self._load()
        except StoreUnavailable:
            pass  # Whoever needs a slot asks again.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.refresh_soon()

    async def _load(self) -> None:
        known = [*self.slots.primaries, *self.slots.replicas]
        random.shuffle(known)
        # Seeds last: once the cluster is known, those of the URL may be gone for good.
        places = list(dict.fromkeys([*known, *self._url.seeds]))
        self._asked_at = asyncio.get_running_loop().time()
        failure: StoreUnavailable | None = None
        for place in places:
            try:
                reply = await self._ask(self._url.of(place), "CLUSTER", "SLOTS", timeout_s=_ASK_S_MAX)
            except StoreUnavailable as error:
                failure = error
                continue
            if not reply:
                failure = StoreUnavailable(f"{place} serves no slots")
                continue
            if self.slots.load(reply, place):
                log.info("cluster.slots", primaries=sorted(map(str, self.slots.primaries)))
                self._changed()
            return
        assert failure is not None
        raise failure

    def _changed(self) -> None:
        for tell in self.on_change:
            tell()
