"""
Every key and channel name of the store.

Decides spelling and nothing else; no other module writes a key name. All keys of a room share the hash tag
`{tenant/room}`, so a room is one slot and the same code runs on one server and on a cluster. Ids may not contain
braces or slashes (`protocol/ids.py`), so names cannot collide. `engine/store/lua/README.md` says what each holds.
"""

from typing import Final, NamedTuple

#: Partitions of the due times, so that a cluster spreads them over its slots.
DUE_PARTITIONS: Final = 4


class RoomKey(NamedTuple):
    """A room of a tenant: the unit of everything that is decided together."""

    tenant: str
    room: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.room}"


class RoomKeys:
    """The key names of one room. Built once per room and worker."""

    __slots__ = (
        "audit",
        "bans",
        "bus",
        "comments",
        "entries",
        "items",
        "leases",
        "like_flushes",
        "log",
        "meta",
        "mutes",
        "prefix",
        "present",
        "rates",
        "shelf",
        "staff",
        "viewers",
    )

    def __init__(self, room: RoomKey) -> None:
        self.prefix = f"lr:{{{room.tenant}/{room.room}}}:"
        #: HASH state of the room, epoch, seq and counters.
        self.meta = self.prefix + "meta"
        #: STREAM of facts, ids `<seq>-0`.
        self.log = self.prefix + "log"
        #: Sharded pub/sub channel.
        self.bus = self.prefix + "bus"
        #: STREAM of console commands.
        self.audit = self.prefix + "audit"
        #: STREAM of accepted comments, ids `<comment>-0`.
        self.comments = self.prefix + "comments"
        #: HASH viewer → earliest moment of the next comment (GCRA).
        self.rates = self.prefix + "rates"
        #: HASH item → JSON, and ZSET item → sort.
        self.items = self.prefix + "items"
        self.shelf = self.prefix + "shelf"
        #: HASH viewer → end of the mute.
        self.mutes = self.prefix + "mutes"
        #: HASH viewer → when and by whom.
        self.bans = self.prefix + "bans"
        #: HASH viewer → rank above viewer.
        self.staff = self.prefix + "staff"
        #: HASH viewer → connections, oldest first, as `worker.connection`.
        self.present = self.prefix + "present"
        #: ZSET worker → end of its lease.
        self.leases = self.prefix + "leases"
        #: HASH viewer → entry of the first join; its length is the number of distinct viewers.
        self.viewers = self.prefix + "viewers"
        #: HASH entry → distinct viewers.
        self.entries = self.prefix + "entries"
        #: HASH worker → number of its last flush of likes.
        self.like_flushes = self.prefix + "likes"

    def idempotency(self, viewer: str, command: str, key: str) -> str:
        """STRING fingerprint and reply of a done command, with a time to live."""
        return f"{self.prefix}key:{viewer}:{command}:{key}"

    def present_on(self, worker: str) -> str:
        """SET of the viewers that hold a connection to one worker."""
        return f"{self.prefix}present:{worker}"


def tenant_rooms(tenant: str) -> str:
    """ZSET of room ids, all scores 0; the index behind `GET /v1/rooms`."""
    return f"lr:{{{tenant}}}:rooms"


def due(partition: int) -> str:
    """ZSET member → due time (milliseconds) of one partition of the timers."""
    return f"lr:{{due.{partition}}}:due"
