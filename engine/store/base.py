"""
The connection to the store, and how far it is trusted.

Decides whether the store may be used at all, and whether the engine vouches for the server that answers: what came back
after a restart may hold less than was seen of it. The steps themselves are in `rooms.py`, `campaigns.py` and
`presence.py`.

Source: docs/decisions/0012-fence.md.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import structlog

from engine.clock import StoreClock
from engine.errors import ConfigError, StoreUnavailable
from engine.store import keys
from engine.store.batch import LateWord, Word
from engine.store.cluster import Cluster
from engine.store.functions import library
from engine.store.keys import RoomKeys
from engine.store.link import REPLICAS_ASK_MS, Acknowledged, Link
from engine.store.replies import info
from engine.store.topology import Topology, is_cluster, own_slots, slot_of

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a worker has seen a room: the least a store must hold that has lost nothing."""

    epoch: str
    seq: int
    #: Number of the last order change.
    change: int
    #: Units ever taken and bought of each sale.
    sold: dict[str, tuple[int, int]] = field(default_factory=dict)


class StoreBase:
    """A server or a cluster, and how its functions are called."""

    #: Functions that are answered only when `replicas` replicas hold what they wrote.
    ACKNOWLEDGED: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, url: str, clock: StoreClock, *, replicas: int = 0) -> None:
        """
        Prepare; `start` connects.

        Args:
            url: redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://.
            clock: Told the store's time whenever it is learnt.
            replicas: How many replicas must hold what money or stock depends on before it is answered.

        Raises:
            ValueError: If the URL is not one of a store.
        """
        self._clock = clock
        acknowledged = Acknowledged(self.ACKNOWLEDGED, replicas)
        self._cluster: Cluster | None = None
        self._link: Link | Cluster
        if is_cluster(url):
            self._cluster = self._link = Cluster(
                url, library(), on_connected=self._on_connected, acknowledged=acknowledged
            )
        else:
            self._link = Link(url, library(), on_connected=self._on_connected, acknowledged=acknowledged)
        self.url = url
        self._replicas = replicas
        #: What this worker has seen of each room it holds; set by the hub.
        self.seen: Callable[[], list[tuple[RoomKeys, Seen]]] = list
        self._suspects: set[str] = set()

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect and look at the store's configuration. May be called again when it failed.

        Raises:
            StoreUnavailable: If it cannot be reached.
            ConfigError: If it is too old or may evict keys.
        """
        await self._link.prepare()
        connected: list[int] = []
        # Asked before the library is loaded: an older server does not even know the command.
        for reply in await self._link.command("INFO"):
            facts = info(reply)
            version = facts.get("valkey_version") or facts.get("redis_version", "0")
            if int(version.split(".")[0]) < 7:
                raise ConfigError(
                    f"the store is version {version}; Redis 7.0 or Valkey is needed for functions"
                )
            policy = facts.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                raise ConfigError(f"the store evicts keys (maxmemory-policy {policy}); set it to noeviction")
            connected.append(int(facts.get("connected_slaves", "0")))
        await self._link.start()
        if not self.durable:
            log.warning(
                "store.not_durable", hint="appendonly yes and appendfsync always keep what was acknowledged"
            )
        if connected and min(connected) < self._replicas:
            log.warning(
                "store.too_few_replicas",
                connected=min(connected),
                wanted=self._replicas,
                primaries=sum(count < self._replicas for count in connected),
                hint="claims, grabs, orders and payments are not acknowledged until each primary has as many",
            )
        if self.topology is not None and self.topology.slots.replicas_min > self._replicas:
            log.warning(
                "store.replicas_not_awaited",
                replicas=self.topology.slots.replicas_min,
                awaited=self._replicas,
                hint="set store_replicas to the number of replicas of each primary",
            )

    async def stop(self) -> None:
        """Finish what is under way and disconnect."""
        await self._link.stop()

    @property
    def topology(self) -> Topology | None:
        """Who owns which slot, when the store is a cluster."""
        return None if self._cluster is None else self._cluster.topology

    @property
    def durable(self) -> bool:
        """Whether a restart of the store cannot lose anything it acknowledged."""
        return all(link.durable for link in self._link.links)

    async def _on_connected(self, link: Link) -> None:
        """
        Vouch for the server that answers now, or not.

        A server that restarted has a new replication id. If its configuration keeps all it acknowledged, the engine
        vouches for the new id, except in rooms where it has seen more than the server has: those are from an older
        copy. Rooms compare the id with the one they know before they write facts or sell (`lua/prelude.lua`).
        What was seen of the sales of such a room is told before anything else is asked, so that arming them again
        cannot sell it twice, whichever worker is asked to.

        A promoted replica holds what was acknowledged if replicas are waited for, and perhaps not what viewers saw
        beyond that: its sales go on, and its rooms begin another epoch.
        """
        facts = info(await link.ask("INFO"))
        try:
            reply = await link.ask("CONFIG", "GET", "appendfsync")
            always = bytes(reply[1]) == b"always"
        except (StoreUnavailable, IndexError):
            always = False
        link.durable = facts.get("aof_enabled") == "1" and always and facts.get("role") == "master"
        link.wait = _wait_words(facts, self._replicas)
        replid = facts.get("master_replid", "")
        promoted = bool(facts.get("master_replid2", "").strip("0"))
        if replid != link.replid:
            is_here = await self._what_is_at(link)
            rooms = [(names, seen) for names, seen in self.seen() if is_here(names.meta)]
            behind = set()
            for names, seen in rooms:
                holds = await self._holds_what_was_seen(link, names, seen)
                if not holds:
                    behind.add(names.meta)
                if not holds or (seen.sold and not link.durable):
                    await self._distrust(link, names, seen)
            # What is known of rooms that are elsewhere stays.
            here = set(filter(is_here, self._suspects))
            self._suspects = (self._suspects - here) | behind
            if link.replid or rooms:
                log.warning(
                    "store.restarted", durable=link.durable, promoted=promoted, rooms_behind=len(behind)
                )
        link.replid = replid
        if not link.durable or (promoted and not self._replicas):
            link.vouched = ""
        else:
            link.vouched = replid + "+" if promoted else replid

    async def _what_is_at(self, link: Link) -> Callable[[str], bool]:
        """
        Return what tells whether a key is at the node of `link`.

        By the node's own word: of the slots that a promoted replica has taken over, perhaps only the one is known here
        that somebody was told MOVED for, and it is asked about its rooms only once.
        """
        if self._cluster is not None:
            try:
                slots = own_slots(bytes(await link.ask("CLUSTER", "NODES")).decode())
            except StoreUnavailable:
                log.warning("cluster.nodes_refused", hint="let this user call CLUSTER NODES")
            else:
                return lambda key: any(slot_of(key) in run for run in slots)
        return lambda key: self._link.link_of(key) is link

    async def _holds_what_was_seen(self, link: Link, names: RoomKeys, seen: "Seen") -> bool:
        function = library().function("room_position")
        reply = await link.ask("FCALL", function, 2, names.meta, names.outbox)
        if not reply:
            return False
        epoch, seq, change = reply[0].decode(), int(reply[1]), int(reply[2])
        return epoch == seen.epoch and seq >= seen.seq and change >= seen.change

    async def _distrust(self, link: Link, names: RoomKeys, seen: "Seen") -> None:
        sales = await link.ask("FCALL", library().function("campaigns_list"), 2, names.sales, names.packets)
        ids = [sale.decode() for sale in sales[0]]
        function = library().function("seckill_distrust")
        shared = (names.meta, names.log, names.bus, *map(names.sale, ids))
        units = [number for sale in ids for number in seen.sold.get(sale, (0, 0))]
        await link.ask("FCALL", function, len(shared), *shared, *units)

    def _vouch(self, names: RoomKeys) -> LateWord:
        # Looked up when the call leaves: one that waited for a restart must vouch for the server it reaches.
        return LateWord(names.meta, self._vouched)

    def _vouched(self, meta: str, vouched: str) -> str:
        return "" if meta in self._suspects else vouched

    @property
    def healthy(self) -> bool:
        """Whether the last thing asked of the store was answered."""
        return self._link.healthy

    @property
    def waiting(self) -> int:
        """Calls that have not left for the store yet."""
        return self._link.waiting

    @property
    def calls(self) -> int:
        """Calls answered so far."""
        return self._link.calls

    @property
    def flights(self) -> int:
        """Pipelines sent so far."""
        return self._link.flights

    def _call(self, function: str, names: tuple[Word, ...], args: tuple[Word, ...]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(header: Any, own: Any, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(own)
            else:
                future.set_exception(error)

        self._link.call(function, names, args, done)
        return future

    async def ping(self) -> None:
        """
        Ask the store for nothing. A cluster answers when any of its nodes does: the others' rooms are theirs alone.

        Raises:
            StoreUnavailable: If nobody answers.
        """
        asked = [
            self._call("due_claim", (keys.due(number),), (0, 0)) for number in range(keys.DUE_PARTITIONS)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(failures) == len(answers):
            raise failures[0]


def _wait_words(facts: dict[str, str], replicas: int) -> tuple[str | int, ...]:
    """Return the command that waits for replicas on a server of these facts, or nothing."""
    if not replicas:
        return ()
    # Redis before 7.2 can wait for memory only; a server without a log of its own cannot promise its disk.
    version = tuple(int(part) for part in facts.get("redis_version", "0").split(".")[:2])
    if facts.get("aof_enabled") == "1" and version >= (7, 2):
        return ("WAITAOF", 1, replicas, REPLICAS_ASK_MS)
    return ("WAIT", replicas, REPLICAS_ASK_MS)
