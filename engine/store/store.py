"""
The store: one method per atomic step.

Decides how each step is called, line by line beside its header in `lua/`, and how its reply becomes a type. What can
race is decided there, not here. Hot steps (joins, leaves, likes, comments) take a callback and travel in batches;
the others are awaited.

Every step may fail with `StoreUnavailable`; repeating it is always safe. Cancelling an await does not cancel the step.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog

from engine.clock import StoreClock
from engine.errors import CommandRejected, ConfigError, LiveroomError, Overloaded, StoreUnavailable, rejected
from engine.rooms.fragments import audit_body, fingerprint
from engine.rooms.recovery import RoomRead, read_view
from engine.store import keys
from engine.store.batch import Done, LateWord, Word
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys
from engine.store.link import WAITING_CALLS_MAX, Link
from protocol.codes import ErrorCode, Role
from protocol.commands import KeyedCommand
from protocol.limits import CONNECTIONS_PER_VIEWER_MAX, SNAPSHOT_COMMENTS_MAX

log = structlog.stdlib.get_logger(__name__)

#: JSON of `ok`, or why there is none.
Answer = bytes | LiveroomError
Answered = Callable[[Answer], None]

RECENT_FACTS: Final = 1_000
FACTS_PAGE: Final = 1_000
DUE_LEASE_MS: Final = 5_000
#: A closing room is looked at again after this long, unless something is due sooner.
SETTLE_AGAIN_MS: Final = 3_000
#: 40 bits tell the rooms of a tenant apart.
_CODE_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CODE_CHARS: Final = 8
#: Rank of the merchant's back end: above every role of a token.
MERCHANT_RANK: Final = int(Role.OWNER) + 1
#: Actor of the merchant's back end; not an id, so no viewer can have it.
MERCHANT_ACTOR: Final = "~merchant"


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a worker has seen a room: the least a store must hold that has lost nothing."""

    epoch: str
    seq: int
    #: Number of the last order change.
    change: int
    #: Units ever taken and bought of each sale.
    sold: dict[str, tuple[int, int]] = field(default_factory=dict)


class Store:
    """Everything that rooms share, on one Redis or Valkey server."""

    def __init__(self, url: str, clock: StoreClock) -> None:
        self._clock = clock
        self._link = Link(url, library(), on_connected=self._on_connected)
        self.url = url
        #: Whether a restart of the store cannot lose anything it acknowledged.
        self.durable = False
        #: Replication id of the server that answers.
        self.replid = ""
        #: What this worker has seen of each room it holds; set by the hub.
        self.seen: Callable[[], list[tuple[RoomKeys, Seen]]] = list
        self._suspects: set[str] = set()

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect and look at the store's configuration.

        Raises:
            StoreUnavailable: If it cannot be reached.
            ConfigError: If it is too old or may evict keys.
        """
        # Asked before the library is loaded: an older server does not even know the command.
        info = _info(await self._link.command("INFO"))
        version = info.get("valkey_version") or info.get("redis_version", "0")
        if int(version.split(".")[0]) < 7:
            raise ConfigError(f"the store is version {version}; Redis 7.0 or Valkey is needed for functions")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(f"the store evicts keys (maxmemory-policy {policy}); set it to noeviction")
        await self._link.start()
        if not self.durable:
            log.warning(
                "store.not_durable", hint="appendonly yes and appendfsync always keep what was acknowledged"
            )

    async def stop(self) -> None:
        """Finish what is under way and disconnect."""
        await self._link.stop()

    async def _on_connected(self, link: Link) -> None:
        """
        Vouch for the server that answers now, or not.

        A server that restarted has a new replication id. If its configuration keeps all it acknowledged, the engine
        vouches for the new id, except in rooms where it has seen more than the server has: those are from an older
        copy. Rooms compare the id with the one they know before they write facts or sell (`lua/prelude.lua`).
        What was seen of the sales of such a room is told before anything else is asked, so that arming them again
        cannot sell it twice, whichever worker is asked to.
        """
        info = _info(await link.ask("INFO"))
        try:
            reply = await link.ask("CONFIG", "GET", "appendfsync")
            always = bytes(reply[1]) == b"always"
        except (StoreUnavailable, IndexError):
            always = False
        self.durable = info.get("aof_enabled") == "1" and always and info.get("role") == "master"
        replid = info.get("master_replid", "")
        if self.replid and replid != self.replid:
            self._suspects = set()
            for names, seen in self.seen():
                holds = await self._holds_what_was_seen(link, names, seen)
                if not holds:
                    self._suspects.add(names.meta)
                if not holds or (seen.sold and not self.durable):
                    await self._distrust(link, names, seen)
            log.warning("store.restarted", durable=self.durable, rooms_behind=len(self._suspects))
        self.replid = replid

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

    def _vouched(self, meta: str) -> str:
        return self.replid if self.durable and meta not in self._suspects else ""

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
        """Ask the store for nothing. Raises StoreUnavailable."""
        await self._call("due_claim", (keys.due(0),), (0, 0))

    # --- rooms ------------------------------------------------------------------------------------------

    async def put_room(
        self, room: RoomKey, body: bytes, *, slow_ms: int, facts_kept_ms: int, dwell_ms: int = 0
    ) -> str:
        """
        Create a room or change its description.

        The tenant's index is written first: a room that is in it but was never created is skipped when listing.

        Returns:
            "created", "updated" or "unchanged".
        """
        names = RoomKeys(room)
        index = (keys.tenant_rooms(room.tenant), keys.tenant_codes(room.tenant))
        indexed = await self._call("index_add", index, (room.room, new_code()))
        args = (self._vouch(names), new_epoch(), body, slow_ms, facts_kept_ms, indexed[1], dwell_ms)
        reply = await self._call("room_put", (names.meta, names.log, names.bus), args)
        if reply[0] == b"room_not_live":
            raise rejected(ErrorCode.ROOM_NOT_LIVE, "the room is over", _extra(reply[1]))
        return str(reply[0], "ascii")

    async def list_rooms(self, tenant: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` room ids of a tenant after `after`, in order of id."""
        reply = await self._call("index_page", (keys.tenant_rooms(tenant),), (after, limit))
        return [entry.decode() for entry in reply]

    async def room_of_order(self, tenant: str, order: str) -> RoomKey | None:
        """Return the room that an order's id names, or None."""
        reply = await self._call("code_room", (keys.tenant_codes(tenant),), (order.partition("-")[0],))
        return RoomKey(tenant, reply[1].decode()) if reply[0] == b"ok" else None

    async def campaigns(self, room: RoomKey) -> tuple[list[str], list[str]]:
        """Return the ids of the sales and of the packets of a room."""
        names = RoomKeys(room)
        sales, packets = await self._call("campaigns_list", (names.sales, names.packets), ())
        return [sale.decode() for sale in sales], [packet.decode() for packet in packets]

    async def read_room(self, room: RoomKey) -> RoomRead | None:
        """Read everything a snapshot needs, at one moment. None when there is no such room."""
        names = RoomKeys(room)
        while True:
            sales, packets = await self.campaigns(room)
            read_keys: tuple[Word, ...] = (
                names.meta,
                names.log,
                names.bus,
                names.items,
                names.shelf,
                names.comments,
                names.present,
                names.sales,
                names.packets,
                names.board,
                names.names,
                *map(names.sale, sales),
                *map(names.packet, packets),
            )
            args: tuple[Word, ...] = (
                self._vouch(names),
                SNAPSHOT_COMMENTS_MAX,
                RECENT_FACTS,
                len(sales),
                *sales,
                *packets,
            )
            reply = await self._call("room_read", read_keys, args)
            if not reply:
                return None
            if reply[0] != b"stale":  # Else a campaign began between the two calls.
                return self._room_read(room, reply, sales, packets)

    def _room_read(self, room: RoomKey, reply: Any, sales: list[str], packets: list[str]) -> RoomRead:
        now, fields, items, comments, facts, online, sold, granted, top = reply
        self._clock.observe(int(now))
        meta = dict(zip(fields[::2], fields[1::2], strict=True))
        gauges: dict[str, bytes] = {}
        audit: dict[str, Any] = {"holds": True, "sales": {}, "packets": {}}
        running: list[bytes] = []
        seen: dict[str, tuple[int, int]] = {}
        for sale, (json, ended, *units) in zip(sales, _rows(sold, 8), strict=True):
            stock, left, held, paid, taken, bought = map(int, units)
            seen[sale] = taken, bought
            if ended == b"0":
                running.append(json)
                gauge = {"ev": "stock", "sale": sale, "left": left, "held": held, "sold": paid}
                gauges[f"stock:{sale}"] = orjson.dumps(gauge)
            holds = stock == left + held + paid and min(stock, left, held, paid) >= 0
            audit["sales"][sale] = {
                "stock": stock,
                "left": left,
                "held": held,
                "sold": paid,
                "holds": holds,
            }
        open_packets: list[bytes] = []
        for packet, (json, closed, *parts) in zip(packets, _rows(granted, 7), strict=True):
            total, paid, refunded, shares, grabbed = map(int, parts)
            if closed == b"0":
                open_packets.append(json)
                gauge = {"ev": "packet", "packet": packet, "left": shares - grabbed, "grabbed": grabbed}
                gauges[f"packet:{packet}"] = orjson.dumps(gauge)
            left = 0 if closed == b"1" else total - paid
            audit["packets"][packet] = {
                "total_cents": total,
                "granted_cents": paid,
                "left_cents": left,
                "refunded_cents": refunded,
                "shares": shares,
                "grabbed": grabbed,
                "holds": total == paid + left + refunded
                and grabbed <= shares
                and min(paid, left, refunded) >= 0,
            }
        audit["holds"] = all(part["holds"] for kind in ("sales", "packets") for part in audit[kind].values())
        if top != b"[]":
            gauges["rank"] = b'{"ev":"rank","top":%s}' % top
        return RoomRead(
            now_ms=int(now),
            epoch=meta[b"epoch"].decode(),
            seq=int(meta[b"seq"]),
            view=read_view(room.room, meta, items, running, open_packets),
            comments=[(int(number), json) for number, json in _pairs(comments)],
            facts=[(int(seq), json) for seq, json in _pairs(facts)],
            likes=int(meta[b"likes"]),
            online=online,
            peak=max(online, int(meta[b"peak"])),
            gauges=gauges,
            audit=audit,
            change=int(meta.get(b"change", 0)),
            sold=seen,
        )

    async def facts_since(
        self, room: RoomKey, seq: int, limit: int = FACTS_PAGE
    ) -> tuple[str, int, int, list[tuple[int, bytes]]] | None:
        """Return (epoch, seq of the room, first seq held, facts after `seq`), or None when there is no such room."""
        names = RoomKeys(room)
        reply = await self._call("facts_since", (names.meta, names.log), (seq, limit))
        if not reply:
            return None
        facts = [(int(number), json) for number, json in _pairs(reply[3:])]
        return reply[0].decode(), int(reply[1]), int(reply[2]), facts

    async def stats(self, room: RoomKey) -> dict[str, Any] | None:
        """Return the live totals of a room in the shape of `Stats`, or None when there is no such room."""
        names = RoomKeys(room)
        reply = await self._call("room_stats", (names.meta, names.present, names.viewers, names.entries), ())
        if not reply:
            return None
        shares, held, paid, cancelled, expired, refunded, sold_cents = map(int, reply[5:12])
        return {
            "online": reply[0],
            "peak": max(reply[0], reply[1]),
            "viewers": reply[2],
            "likes": int(reply[3]),
            "comments": reply[4],
            "shares": shares,
            "orders": {
                "held": held,
                "paid": paid,
                "cancelled": cancelled,
                "expired": expired,
                "refunded": refunded,
            },
            "sold_cents": sold_cents,
            "entries": {entry.decode(): int(count) for entry, count in _pairs(reply[12:])},
        }

    async def audit_trail(self, room: RoomKey, after: str, limit: int) -> list[dict[str, Any]] | None:
        """Return console commands after a place in the trail, oldest first, or None when there is no such room."""
        names = RoomKeys(room)
        reply = await self._call("audit_page", (names.meta, names.audit), (after, limit))
        if not reply:
            return None
        entries = []
        for place, fields in reply[1:]:
            entry = {name.decode(): value for name, value in _pairs(fields)}
            entries.append(
                {
                    "place": place.decode(),
                    "at": int(entry["at"]),
                    "actor": entry["actor"].decode(),
                    "cmd": entry["cmd"].decode(),
                    "key": entry["key"].decode(),
                    "before": orjson.loads(entry["before"]),
                    "after": orjson.loads(entry["after"]),
                }
            )
        return entries

    async def settle(self, room: RoomKey) -> tuple[str, int]:
        """
        Settle what is open in a closing room, and leave `closing` once nothing is.

        Returns:
            What became of it ("closed", "open", "not_closing", "room_not_found"), and when to look again
            (milliseconds).
        """
        names = RoomKeys(room)
        sales, packets = await self.campaigns(room)
        again_ms = SETTLE_AGAIN_MS
        for packet in packets:
            await self.packet_tick(room, packet)
        for sale in sales:
            wait_ms = await self.seckill_tick(room, sale)
            if wait_ms is not None:
                again_ms = min(again_ms, wait_ms)
        settle_keys: tuple[Word, ...] = (
            names.meta,
            names.log,
            names.bus,
            names.sales,
            names.packets,
            *map(names.sale, sales),
            *map(names.packet, packets),
        )
        reply = await self._call(
            "room_settle", settle_keys, (self._vouch(names), len(sales), *sales, *packets)
        )
        happened = str(reply[0], "ascii")
        return ("open", 1) if happened == "stale" else (happened, again_ms)

    # --- console commands -------------------------------------------------------------------------------

    def console(
        self,
        function: str,
        room: RoomKey,
        command: KeyedCommand,
        actor: str,
        rank: int,
        names: tuple[Word, ...],
        args: tuple[Word, ...],
        answered: Answered,
    ) -> None:
        """
        Run a console command: once per key, audited.

        Args:
            names: The function's own keys, after the five that all console commands share.
            args: Its own arguments, after the seven that all share.
        """
        room_keys = RoomKeys(room)
        shared = (
            room_keys.meta,
            room_keys.log,
            room_keys.bus,
            room_keys.audit,
            room_keys.idempotency(actor, command.name(), command.key),
        )
        who = (
            self._vouch(room_keys),
            fingerprint(command),
            actor,
            rank,
            command.name(),
            command.key,
            audit_body(command),
        )
        self._link.call(function, shared + names, who + args, _answer(answered))

    # --- comments and likes -----------------------------------------------------------------------------

    def post_comment(
        self,
        names: RoomKeys,
        viewer: str,
        rank: int,
        key: str,
        digest: str,
        body: bytes,
        cost_ms: int,
        burst_ms: int,
        answered: Answered,
    ) -> None:
        """Accept a comment. Answers with its number."""
        if self._link.waiting >= WAITING_CALLS_MAX:
            answered(Overloaded())
            return
        self._link.merge(
            "comment_post",
            (names.meta, names.log, names.bus, names.comments, names.mutes, names.rates),
            (self._vouch(names), cost_ms, burst_ms),
            (names.idempotency(viewer, "comment.send", key),),
            (viewer, rank, digest, body),
            _answer(answered),
        )

    def add_likes(self, names: RoomKeys, worker: str, flush: int, likes: int, answered: Answered) -> None:
        """Add what a worker gathered. Answers with the total. A flush counts once, however often it is sent."""
        self._link.call(
            "likes_add",
            (names.meta, names.log, names.bus, names.like_flushes),
            (self._vouch(names), worker, flush, likes),
            _answer(answered),
        )

    # --- seckill and orders -----------------------------------------------------------------------------

    def claim(
        self,
        names: RoomKeys,
        sale: str,
        viewer: str,
        qty: int,
        key: str,
        digest: str,
        level: int,
        tags: str,
        done: Done,
    ) -> None:
        """Hold units. The header is (now, last order change); the reply is coded, `ok` with `UnitsHeld`."""
        if self._link.waiting >= WAITING_CALLS_MAX:
            done(None, None, Overloaded())
            return
        self._link.merge(
            "seckill_claim",
            (
                names.meta,
                names.log,
                names.bus,
                names.sale(sale),
                names.sale_buyers(sale),
                names.sale_holds(sale),
                names.orders,
                names.outbox,
                names.items,
                names.viewer_orders,
                names.inviters,
                names.viewers,
                names.invited,
                names.bans,
            ),
            (self._vouch(names),),
            (names.idempotency(viewer, "seckill.claim", key),),
            (viewer, qty, digest, level, tags),
            done,
            group=sale,
        )

    async def seckill_tick(self, room: RoomKey, sale: str) -> int | None:
        """Give overdue holds back, announce the end. Returns milliseconds until the next look, None when done."""
        names = RoomKeys(room)
        reply = await self._call("seckill_tick", self._order_keys(names, sale), (self._vouch(names),))
        return int(reply[1]) if reply[0] == b"again" else None

    @staticmethod
    def _order_keys(names: RoomKeys, sale: str) -> tuple[Word, ...]:
        return (
            names.meta,
            names.log,
            names.bus,
            names.sale(sale),
            names.sale_buyers(sale),
            names.sale_holds(sale),
            names.orders,
            names.outbox,
            names.items,
        )

    async def read_order(self, room: RoomKey, order: str) -> tuple[bytes, str, str]:
        """
        Return an order as JSON, its sale and its viewer.

        Raises:
            CommandRejected: With `not_found` or `room_not_found`.
        """
        names = RoomKeys(room)
        reply = await self._call("order_read", (names.meta, names.orders), (order,))
        if reply[0] != b"ok":
            raise to_rejection(reply)
        return reply[1], reply[2].decode(), reply[3].decode()

    async def cancel_order(self, room: RoomKey, order: str, viewer: str, key: str, digest: str) -> bytes:
        """Give held units back. Returns the order as JSON. Raises CommandRejected."""
        _, sale, _ = await self.read_order(room, order)
        names = RoomKeys(room)
        order_keys = (*self._order_keys(names, sale), names.idempotency(viewer, "order.cancel", key))
        return _body(
            await self._call("order_cancel", order_keys, (self._vouch(names), order, viewer, digest))
        )

    async def pay_order(
        self, room: RoomKey, order: str, payment: str, amount_cents: int
    ) -> tuple[bytes, bool]:
        """
        Record a payment.

        Returns:
            The order as JSON, and whether this payment must be given back.

        Raises:
            CommandRejected: With `conflict`, `not_found` or `room_not_found`.
        """
        _, sale, _ = await self.read_order(room, order)
        names = RoomKeys(room)
        order_keys = (*self._order_keys(names, sale), names.payments)
        reply = await self._call("order_paid", order_keys, (self._vouch(names), order, payment, amount_cents))
        if reply[0] == b"refund":
            return reply[1], True
        return _body(reply), False

    async def refund_order(self, room: RoomKey, order: str, payment: str, *, restock: bool) -> bytes:
        """Record that a payment was given back. Returns the order as JSON. Raises CommandRejected."""
        _, sale, _ = await self.read_order(room, order)
        names = RoomKeys(room)
        order_keys = (*self._order_keys(names, sale), names.payments)
        return _body(
            await self._call("order_refunded", order_keys, (self._vouch(names), order, payment, int(restock)))
        )

    async def order_changes(
        self, room: RoomKey, after: int, limit: int
    ) -> tuple[int, list[tuple[int, bytes]]] | None:
        """Return (last change of the room, changes after `after`), or None when there is no such room."""
        names = RoomKeys(room)
        return _page(await self._call("orders_page", (names.meta, names.outbox), (after, limit)))

    # --- red packets ------------------------------------------------------------------------------------

    def grab(
        self,
        names: RoomKeys,
        packet: str,
        viewer: str,
        key: str,
        digest: str,
        level: int,
        tags: str,
        name: bytes,
        sender: bytes,
        answered: Answered,
    ) -> None:
        """Take a share. Answers with `ShareGrabbed`."""
        if self._link.waiting >= WAITING_CALLS_MAX:
            answered(Overloaded())
            return
        self._link.merge(
            "packet_grab",
            (
                names.meta,
                names.log,
                names.bus,
                names.packet(packet),
                names.packet_parts(packet),
                names.packet_grabs(packet),
                names.grants,
                names.viewers,
                names.viewer_orders,
                names.invited,
                names.bans,
                names.viewer_grabs,
            ),
            (self._vouch(names),),
            (names.idempotency(viewer, "redpacket.grab", key),),
            (viewer, digest, level, tags, name, sender),
            _answer(answered),
            group=packet,
        )

    async def packet_tick(self, room: RoomKey, packet: str) -> int | None:
        """Settle a packet that is due. Returns milliseconds until it is, or None when done."""
        names = RoomKeys(room)
        packet_keys = (
            names.meta,
            names.log,
            names.bus,
            names.packet(packet),
            names.packet_parts(packet),
            names.grants,
        )
        reply = await self._call("packet_tick", packet_keys, (self._vouch(names),))
        return int(reply[1]) if reply[0] == b"again" else None

    # --- the share board --------------------------------------------------------------------------------

    @staticmethod
    def board_keys(names: RoomKeys) -> tuple[Word, ...]:
        """Return the keys of the board, in the order of `lua/shares.lua`."""
        return (
            names.inviters,
            names.board,
            names.names,
            names.invited,
            names.reached,
            names.dwelling,
            names.shares,
        )

    async def share_rank(self, room: RoomKey, viewer: str) -> dict[str, Any]:
        """Return the head of the board and the viewer's own line, in the shape of `ShareRank`."""
        names = RoomKeys(room)
        top, rank, count = await self._call(
            "share_rank", (names.board, names.names, names.invited), (viewer,)
        )
        return {"top": orjson.loads(top), "me": {"rank": rank or None, "count": count}}

    async def mature_shares(self, names: RoomKeys) -> None:
        """Count the arrivals that have stayed long enough."""
        board = self.board_keys(names)
        mature_keys = (names.meta, names.log, names.bus, names.present, *board, names.bans)
        await self._call("shares_mature", mature_keys, (self._vouch(names),))

    async def share_records(
        self, room: RoomKey, after: int, limit: int
    ) -> tuple[int, list[tuple[int, bytes]]] | None:
        """Return (last record of the room, records after `after`), or None when there is no such room."""
        names = RoomKeys(room)
        return _page(await self._call("shares_page", (names.meta, names.shares), (after, limit)))

    # --- presence ---------------------------------------------------------------------------------------

    def join(
        self,
        names: RoomKeys,
        worker: str,
        viewer: str,
        connection: int,
        rank: int,
        entry: str,
        name: bytes,
        sender: bytes,
        inviter: str,
        channel: str,
        link: str,
        done: Done,
    ) -> None:
        """
        Let a viewer in.

        Args:
            name: Of the viewer, as JSON.
            inviter: Of the share token they came with, or ''.
            channel: Of that token, or ''.
            link: '-' without one, '' when it is good, 'forged' or 'expired'.
            done: The header is (now, epoch, seq, online, peak, likes), the reply (code, muted until, open orders as
                JSON, grabs as JSON, rank or 0, viewers brought).
        """
        if self._link.waiting >= WAITING_CALLS_MAX:
            done(None, None, Overloaded())
            return
        self._link.merge(
            "room_join",
            (
                names.meta,
                names.log,
                names.bus,
                names.present,
                names.leases,
                names.present_on(worker),
                names.viewers,
                names.entries,
                names.bans,
                names.mutes,
                names.staff,
                *self.board_keys(names),
                names.viewer_orders,
                names.orders,
                names.viewer_grabs,
            ),
            (self._vouch(names), worker, CONNECTIONS_PER_VIEWER_MAX),
            (),
            (viewer, connection, rank, entry, name, sender, inviter, channel, link),
            done,
        )

    def leave(self, names: RoomKeys, worker: str, viewer: str, connection: int, done: Done) -> None:
        """Let a connection go."""
        self._link.merge(
            "room_leave",
            (names.meta, names.log, names.bus, names.present, names.present_on(worker)),
            (self._vouch(names), worker),
            (),
            (viewer, connection),
            done,
        )

    async def beat(self, names: RoomKeys, worker: str) -> tuple[str, int, list[str]] | None:
        """
        Renew a worker's lease in a room.

        Returns:
            (epoch, seq, workers whose lease ran out, this one included), or None when there is no such room.
        """
        shared = (names.meta, names.log, names.bus, names.present, names.leases)
        reply = await self._call("presence_beat", shared, (self._vouch(names), worker))
        if not reply:
            return None
        self._clock.observe(int(reply[0]))
        return reply[1].decode(), int(reply[2]), [dead.decode() for dead in reply[7:]]

    async def purge(self, names: RoomKeys, dead: str) -> None:
        """Forget every viewer of a worker that stopped renewing its lease."""
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.present_on(dead))
        while True:
            reply = await self._call("presence_purge", shared, (self._vouch(names), dead))
            if reply[0] != b"ok" or reply[1] == 0:
                return

    async def check_host(self, room: RoomKey, *, grace_ms: int, patience_ms: int) -> tuple[str, int]:
        """Pause a room whose streamer is gone, close one that stays so. Returns (what happened, next look in ms)."""
        names = RoomKeys(room)
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.staff)
        reply = await self._call("host_check", shared, (self._vouch(names), grace_ms, patience_ms))
        return str(reply[0], "ascii"), int(reply[1]) if len(reply) > 1 else 0

    # --- timers -----------------------------------------------------------------------------------------

    def due_add(self, member: str, in_ms: int) -> asyncio.Future[Any]:
        """
        Note that something is due; an earlier time already noted wins.

        Not `async`: the call is queued before this returns, ahead of whatever the caller asks next.
        """
        return self._call("due_add", (keys.due(_partition(member)),), (member, in_ms))

    async def due_claim(self, partition: int, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Take what is due for a while. Returns (milliseconds until the next or -1, [(member, lease)])."""
        reply = await self._call("due_claim", (keys.due(partition),), (limit, DUE_LEASE_MS))
        return int(reply[0]), [(member.decode(), lease.decode()) for member, lease in _pairs(reply[1:])]

    async def due_done(self, member: str, lease: str, again_in_ms: int | None) -> None:
        """Drop a member, or move it, unless another worker has taken it meanwhile."""
        again = "" if again_in_ms is None else again_in_ms
        await self._call("due_done", (keys.due(_partition(member)),), (member, lease, again))


def new_epoch() -> str:
    """Return a name for a new line of facts."""
    return secrets.token_hex(6)


def new_code() -> str:
    """Return a name for a room that no other has: the first part of the ids of its orders."""
    return "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_CHARS))


def _partition(member: str) -> int:
    return sum(member.encode()) % keys.DUE_PARTITIONS


def _rows(flat: list[Any], width: int) -> list[list[Any]]:
    return [flat[at : at + width] for at in range(0, len(flat), width)]


def _page(reply: Any) -> tuple[int, list[tuple[int, bytes]]] | None:
    if not reply:
        return None
    return int(reply[0]), [(int(number), json) for number, json in _pairs(reply[1:])]


def _body(reply: Any) -> bytes:
    if reply[0] != b"ok":
        raise to_rejection(reply)
    body: bytes = reply[1]
    return body


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _extra(fragment: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(b"{" + fragment + b"}")
    return fields


def _info(reply: bytes) -> dict[str, str]:
    lines = bytes(reply).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def to_answer(own: Any, error: Exception | None) -> Answer:
    """Turn a coded reply, or a failure, into the JSON of `ok` or the error to send."""
    if error is not None:
        assert isinstance(error, LiveroomError), error
        return error
    if own[0] == b"ok":
        json: bytes = own[1]
        return json
    return to_rejection(own)


def to_rejection(own: Any) -> CommandRejected:
    """Turn the coded reply of a refusal into the error to send."""
    return rejected(ErrorCode(own[0].decode()), None, _extra(own[1]) if len(own) > 1 else {})


def _answer(answered: Answered) -> Done:
    def done(header: Any, own: Any, error: Exception | None) -> None:
        answered(to_answer(own, error))

    return done
