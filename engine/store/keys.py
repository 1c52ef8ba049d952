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
        "board",
        "bus",
        "comments",
        "dwelling",
        "entries",
        "grants",
        "invited",
        "inviters",
        "items",
        "leases",
        "like_flushes",
        "like_rates",
        "log",
        "meta",
        "mutes",
        "names",
        "orders",
        "outbox",
        "packets",
        "payments",
        "prefix",
        "present",
        "rates",
        "reached",
        "sales",
        "shares",
        "shelf",
        "staff",
        "viewer_grabs",
        "viewer_orders",
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
        #: HASH viewer → when they were banned (milliseconds).
        self.bans = self.prefix + "bans"
        #: HASH viewer → rank above viewer.
        self.staff = self.prefix + "staff"
        #: HASH viewer → connections, oldest first, as `worker.connection`.
        self.present = self.prefix + "present"
        #: ZSET worker → end of its lease.
        self.leases = self.prefix + "leases"
        #: HASH viewer → `entry|moment` of the first join; its length is the number of distinct viewers.
        self.viewers = self.prefix + "viewers"
        #: HASH entry → distinct viewers.
        self.entries = self.prefix + "entries"
        #: HASH worker → number of its last flush of likes, and whom it refused.
        self.like_flushes = self.prefix + "likes"
        #: HASH viewer → earliest moment of the next `like.send` (GCRA).
        self.like_rates = self.prefix + "like_rates"

        #: SET of sale ids, and of packet ids.
        self.sales = self.prefix + "sales"
        self.packets = self.prefix + "packets"
        #: HASH order → its fields; HASH viewer → their orders; HASH payment → order.
        self.orders = self.prefix + "orders"
        self.viewer_orders = self.prefix + "viewer_orders"
        self.payments = self.prefix + "payments"
        #: HASH viewer → what they grabbed, as the inside of a JSON object.
        self.viewer_grabs = self.prefix + "viewer_grabs"
        #: STREAM of order changes, ids `<change>-0`: the outbox of the shop. Never trimmed.
        self.outbox = self.prefix + "outbox"
        #: STREAM of granted and refunded cents, apart from any payout. Never trimmed.
        self.grants = self.prefix + "grants"
        #: STREAM of arrivals through share links. Never trimmed.
        self.shares = self.prefix + "shares"
        #: HASH invitee → inviter; ZSET inviter → score; HASH `inviter|count` → when it was reached.
        self.inviters = self.prefix + "inviters"
        self.board = self.prefix + "board"
        self.reached = self.prefix + "reached"
        #: HASH viewer → name as JSON; HASH inviter → viewers they brought.
        self.names = self.prefix + "names"
        self.invited = self.prefix + "invited"
        #: ZSET invitee → when they have been here long enough.
        self.dwelling = self.prefix + "dwelling"

    @property
    def board_keys(self) -> tuple[str, ...]:
        """The keys of the share board, in the order of `lua/shares.lua`."""
        return (
            self.inviters,
            self.board,
            self.names,
            self.invited,
            self.reached,
            self.dwelling,
            self.shares,
        )

    def sale(self, sale: str) -> str:
        """HASH fields and units of one sale."""
        return f"{self.prefix}sale:{sale}"

    def sale_buyers(self, sale: str) -> str:
        """HASH viewer → units that count against the limit, and their order."""
        return f"{self.prefix}sale:{sale}:buyers"

    def sale_holds(self, sale: str) -> str:
        """ZSET order → end of its hold (milliseconds)."""
        return f"{self.prefix}sale:{sale}:holds"

    def packet(self, packet: str) -> str:
        """HASH fields and sums of one red packet."""
        return f"{self.prefix}packet:{packet}"

    def packet_parts(self, packet: str) -> str:
        """LIST of the shares that are left (cents)."""
        return f"{self.prefix}packet:{packet}:parts"

    def packet_grabs(self, packet: str) -> str:
        """HASH viewer → cents."""
        return f"{self.prefix}packet:{packet}:grabs"

    def idempotency(self, viewer: str, command: str, key: str) -> str:
        """STRING fingerprint and reply of a done command, with a time to live."""
        return f"{self.prefix}key:{viewer}:{command}:{key}"

    def present_on(self, worker: str) -> str:
        """SET of the viewers that hold a connection to one worker."""
        return f"{self.prefix}present:{worker}"


def tenant_rooms(tenant: str) -> str:
    """ZSET of room ids, all scores 0; the index behind `GET /v1/rooms`."""
    return f"lr:{{{tenant}}}:rooms"


def tenant_codes(tenant: str) -> str:
    """HASH code → room: the first part of an order's id names its room."""
    return f"lr:{{{tenant}}}:codes"


def mark(key: str) -> str:
    """STRING written to wait for the replicas of a key's slot, with a time to live."""
    return key[: key.index("}") + 1] + ":mark"


def due(partition: int) -> str:
    """ZSET member → due time (milliseconds) of one partition of the timers."""
    return f"lr:{{due.{partition}}}:due"
