"""
Steps of rooms: creating, reading, commanding, comments, likes.

Decides how each step is called, line by line beside its header in `lua/`. What can race is decided there.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from engine.errors import Overloaded, rejected
from engine.rooms.fragments import audit_body, fingerprint
from engine.rooms.recovery import RoomRead, read_view
from engine.store import keys
from engine.store.batch import Word
from engine.store.keys import RoomKey, RoomKeys
from engine.store.link import WAITING_CALLS_MAX
from engine.store.presence import PresenceSteps
from engine.store.replies import Answered, LikesAnswer, answer, extra, pairs, rows, to_answer
from protocol.codes import ErrorCode, Role
from protocol.commands import KeyedCommand
from protocol.limits import SNAPSHOT_COMMENTS_MAX

RECENT_FACTS: Final = 1_000
FACTS_PAGE: Final = 1_000
#: 40 bits tell the rooms of a tenant apart.
_CODE_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CODE_CHARS: Final = 8
#: Rank of the merchant's back end: above every role of a token.
MERCHANT_RANK: Final = int(Role.OWNER) + 1
#: Actor of the merchant's back end; not an id, so no viewer can have it.
MERCHANT_ACTOR: Final = "~merchant"


class RoomSteps(PresenceSteps):
    """What is done to and read from a room."""

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
            raise rejected(ErrorCode.ROOM_NOT_LIVE, "the room is over", extra(reply[1]))
        return str(reply[0], "ascii")

    async def list_rooms(self, tenant: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` room ids of a tenant after `after`, in order of id."""
        reply = await self._call("index_page", (keys.tenant_rooms(tenant),), (after, limit))
        return [entry.decode() for entry in reply]

    async def brief(self, room: RoomKey) -> dict[str, Any] | None:
        """Return what a list of rooms shows of one, or None when there is no such room."""
        names = RoomKeys(room)
        reply = await self._counted("room_brief", names, (names.meta, names.present, names.leases), 3)
        if not reply:
            return None
        description = orjson.loads(b"{" + reply[1] + b"}")
        return {"room": room.room, **description, "state": reply[0].decode(), "online": reply[2]}

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
        for sale, (json, ended, *units) in zip(sales, rows(sold, 8), strict=True):
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
        for packet, (json, closed, *parts) in zip(packets, rows(granted, 7), strict=True):
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
            comments=[(int(number), json) for number, json in pairs(comments)],
            facts=[(int(seq), json) for seq, json in pairs(facts)],
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
        facts = [(int(number), json) for number, json in pairs(reply[3:])]
        return reply[0].decode(), int(reply[1]), int(reply[2]), facts

    async def stats(self, room: RoomKey) -> dict[str, Any] | None:
        """Return the live totals of a room in the shape of `Stats`, or None when there is no such room."""
        names = RoomKeys(room)
        read_keys = (names.meta, names.present, names.viewers, names.entries, names.leases)
        reply = await self._counted("room_stats", names, read_keys, 12)
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
            "entries": {entry.decode(): int(count) for entry, count in pairs(reply[13:])},
        }

    async def _counted(self, function: str, names: RoomKeys, read_keys: tuple[Word, ...], at: int) -> Any:
        """
        Read a count of viewers after those of dead workers are gone from it.

        Workers that hold the room see to that every 2 s; a room that nobody holds any more is left to those who ask.

        Args:
            at: Place in the reply where workers stand whose lease ran out.
        """
        while True:
            reply = await self._call(function, read_keys, ())
            if not reply or not reply[at]:
                return reply
            for worker in reply[at]:
                await self.purge(names, worker.decode())

    async def audit_trail(self, room: RoomKey, after: str, limit: int) -> list[dict[str, Any]] | None:
        """Return console commands after a place in the trail, oldest first, or None when there is no such room."""
        names = RoomKeys(room)
        reply = await self._call("audit_page", (names.meta, names.audit), (after, limit))
        if not reply:
            return None
        entries = []
        for place, fields in reply[1:]:
            entry = {name.decode(): value for name, value in pairs(fields)}
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
        self._link.call(function, shared + names, who + args, answer(answered))

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
            answer(answered),
        )

    def add_likes(
        self,
        names: RoomKeys,
        worker: str,
        flush: int,
        exempt: int,
        rated: Sequence[tuple[str, int]],
        cost_ms: int,
        burst_ms: int,
        done: Callable[[LikesAnswer], None],
    ) -> None:
        """
        Add what a worker gathered. A flush counts once, however often it is sent.

        Args:
            exempt: Likes of those whom no rate holds back.
            rated: Viewer and likes of each command of the others; at most 500.
            cost_ms: What a command costs, in milliseconds until its viewer's bucket is full again.
            burst_ms: What a bucket holds besides.
            done: Called with the total and the refused commands, place in `rated` → milliseconds to wait; or with why
                none was counted.
        """

        def answered(header: Any, own: Any, error: Exception | None) -> None:
            if error is None and own[0] == b"ok":
                refused = {int(place) - 1: int(wait_ms) for place, wait_ms in pairs(own[2:])}
                done((int(own[1]), refused))
                return
            answer = to_answer(own, error)
            assert not isinstance(answer, bytes)
            done(answer)

        self._link.call(
            "likes_add",
            (names.meta, names.log, names.bus, names.like_flushes, names.like_rates),
            (
                self._vouch(names),
                worker,
                flush,
                exempt,
                cost_ms,
                burst_ms,
                *(word for command in rated for word in command),
            ),
            answered,
        )


def new_epoch() -> str:
    """Return a name for a new line of facts."""
    return secrets.token_hex(6)


def new_code() -> str:
    """Return a name for a room that no other has: the first part of the ids of its orders."""
    return "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_CHARS))
