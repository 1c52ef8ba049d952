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
from typing import Any, Final

import orjson
import structlog

from engine.clock import StoreClock
from engine.errors import CommandRejected, ConfigError, LiveroomError, Overloaded, StoreUnavailable, rejected
from engine.rooms.fragments import audit_body, fingerprint
from engine.rooms.recovery import RoomRead, read_view
from engine.store import keys
from engine.store.batch import Done, Word
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
#: Rank of the merchant's back end: above every role of a token.
MERCHANT_RANK: Final = int(Role.OWNER) + 1
#: Actor of the merchant's back end; not an id, so no viewer can have it.
MERCHANT_ACTOR: Final = "~merchant"


class Store:
    """Everything that rooms share, on one Redis or Valkey server."""

    def __init__(self, url: str, clock: StoreClock) -> None:
        self._clock = clock
        self._link = Link(url, library(), on_connected=self._on_connected)
        self.url = url
        #: Whether a restart of the store cannot lose anything it acknowledged.
        self.durable = False
        self._fallback_epoch = ""

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Connect and look at the store's configuration.

        Raises:
            StoreUnavailable: If it cannot be reached.
            ConfigError: If it is too old or may evict keys.
        """
        await self._link.start()
        info = _info(await self._link.command("INFO"))
        version = info.get("valkey_version") or info.get("redis_version", "0")
        if int(version.split(".")[0]) < 7:
            raise ConfigError(f"the store is version {version}; Redis 7.0 or Valkey is needed for functions")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(f"the store evicts keys (maxmemory-policy {policy}); set it to noeviction")
        try:
            reply = await self._link.command("CONFIG", "GET", "appendfsync")
            always = bytes(reply[1]) == b"always"
        except (StoreUnavailable, IndexError):
            always = False
        self.durable = info.get("aof_enabled") == "1" and always and info.get("role") == "master"
        self._renew_fallback_epoch()
        if not self.durable:
            log.warning(
                "store.not_durable", hint="appendonly yes and appendfsync always keep what was acknowledged"
            )

    async def stop(self) -> None:
        """Finish what is under way and disconnect."""
        await self._link.stop()

    async def _on_connected(self, link: Link) -> None:
        # Another store process may answer now; a fallback epoch is used for one loss only.
        self._renew_fallback_epoch()

    def _renew_fallback_epoch(self) -> None:
        self._fallback_epoch = "" if self.durable else new_epoch()

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

    async def put_room(self, room: RoomKey, body: bytes, *, slow_ms: int, facts_kept_ms: int) -> str:
        """
        Create a room or change its description.

        The tenant's index is written first: a room that is in it but was never created is skipped when listing.

        Returns:
            "created", "updated" or "unchanged".
        """
        names = RoomKeys(room)
        await self._call("index_add", (keys.tenant_rooms(room.tenant),), (room.room,))
        args = (self._fallback_epoch, new_epoch(), body, slow_ms, facts_kept_ms)
        reply = await self._call("room_put", (names.meta, names.log, names.bus), args)
        if reply[0] == b"room_not_live":
            raise rejected(ErrorCode.ROOM_NOT_LIVE, "the room is over", _extra(reply[1]))
        return str(reply[0], "ascii")

    async def list_rooms(self, tenant: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` room ids of a tenant after `after`, in order of id."""
        reply = await self._call("index_page", (keys.tenant_rooms(tenant),), (after, limit))
        return [entry.decode() for entry in reply]

    async def read_room(self, room: RoomKey) -> RoomRead | None:
        """Read everything a snapshot needs, at one moment. None when there is no such room."""
        names = RoomKeys(room)
        read_keys = (names.meta, names.log, names.items, names.shelf, names.comments, names.present)
        reply = await self._call("room_read", read_keys, (SNAPSHOT_COMMENTS_MAX, RECENT_FACTS))
        if not reply:
            return None
        now, fields, items, comments, facts, online = reply
        self._clock.observe(int(now))
        meta = dict(zip(fields[::2], fields[1::2], strict=True))
        return RoomRead(
            now_ms=int(now),
            epoch=meta[b"epoch"].decode(),
            seq=int(meta[b"seq"]),
            view=read_view(room.room, meta, items),
            comments=[(int(number), json) for number, json in _pairs(comments)],
            facts=[(int(seq), json) for seq, json in _pairs(facts)],
            likes=int(meta[b"likes"]),
            online=online,
            peak=max(online, int(meta[b"peak"])),
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
        return {
            "online": reply[0],
            "peak": max(reply[0], reply[1]),
            "viewers": reply[2],
            "likes": int(reply[3]),
            "comments": reply[4],
            "shares": 0,
            "orders": {"held": 0, "paid": 0, "cancelled": 0, "expired": 0, "refunded": 0},
            "sold_cents": 0,
            "entries": {entry.decode(): int(count) for entry, count in _pairs(reply[5:])},
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

    async def settle(self, room: RoomKey) -> str:
        """Leave `closing` if nothing is open any more. Returns what became of it."""
        names = RoomKeys(room)
        reply = await self._call("room_settle", (names.meta, names.log, names.bus), (self._fallback_epoch,))
        return str(reply[0], "ascii")

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
            self._fallback_epoch,
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
            (self._fallback_epoch, cost_ms, burst_ms),
            (names.idempotency(viewer, "comment.send", key),),
            (viewer, rank, digest, body),
            _answer(answered),
        )

    def add_likes(self, names: RoomKeys, worker: str, flush: int, likes: int, answered: Answered) -> None:
        """Add what a worker gathered. Answers with the total. A flush counts once, however often it is sent."""
        self._link.call(
            "likes_add",
            (names.meta, names.log, names.bus, names.like_flushes),
            (self._fallback_epoch, worker, flush, likes),
            _answer(answered),
        )

    # --- presence ---------------------------------------------------------------------------------------

    def join(
        self,
        names: RoomKeys,
        worker: str,
        viewer: str,
        connection: int,
        rank: int,
        entry: str,
        sender: bytes,
        done: Done,
    ) -> None:
        """Let a viewer in. The header is (now, epoch, seq, online, peak, likes), the reply (code, muted until)."""
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
            ),
            (self._fallback_epoch, worker, CONNECTIONS_PER_VIEWER_MAX),
            (),
            (viewer, connection, rank, entry, sender),
            done,
        )

    def leave(self, names: RoomKeys, worker: str, viewer: str, connection: int, done: Done) -> None:
        """Let a connection go."""
        self._link.merge(
            "room_leave",
            (names.meta, names.log, names.bus, names.present, names.present_on(worker)),
            (self._fallback_epoch, worker),
            (),
            (viewer, connection),
            done,
        )

    async def beat(self, names: RoomKeys, worker: str) -> tuple[str, int, list[str]] | None:
        """
        Renew a worker's lease in a room.

        Returns:
            (epoch, seq, workers whose lease ran out), or None when there is no such room.
        """
        shared = (names.meta, names.log, names.bus, names.present, names.leases)
        reply = await self._call("presence_beat", shared, (self._fallback_epoch, worker))
        if not reply:
            return None
        self._clock.observe(int(reply[0]))
        return reply[1].decode(), int(reply[2]), [dead.decode() for dead in reply[7:]]

    async def purge(self, names: RoomKeys, dead: str) -> None:
        """Forget every viewer of a worker that stopped renewing its lease."""
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.present_on(dead))
        while True:
            reply = await self._call("presence_purge", shared, (self._fallback_epoch, dead))
            if reply[0] != b"ok" or reply[1] == 0:
                return

    async def check_host(self, room: RoomKey, *, grace_ms: int, patience_ms: int) -> tuple[str, int]:
        """Pause a room whose streamer is gone, close one that stays so. Returns (what happened, next look in ms)."""
        names = RoomKeys(room)
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.staff)
        reply = await self._call("host_check", shared, (self._fallback_epoch, grace_ms, patience_ms))
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


def _partition(member: str) -> int:
    return sum(member.encode()) % keys.DUE_PARTITIONS


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
        if isinstance(error, LiveroomError):
            return error
        raise error
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
