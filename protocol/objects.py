"""
The things a room is made of, as they travel: item, sale, packet, comment, order, snapshot.

Decides field names, types and bounds. Optional fields are absent on the wire when they have no value, except
where docs/protocol.md says "or null". Money is integer cents, times are integer milliseconds since 1970-01-01 UTC
on the store's clock. Decoders ignore fields they do not know.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from protocol.ids import Id
from protocol.limits import INTEGER_MAX

Cents = Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="integer cents (分)")]
TimeMs = Annotated[
    int, Meta(ge=0, le=INTEGER_MAX, description="milliseconds since 1970-01-01 UTC, store clock")
]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
PositiveCount = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Seq = Annotated[
    int, Meta(ge=0, le=INTEGER_MAX, description="place in the room's facts: 1, 2, 3 … within an epoch")
]
Sort = Annotated[
    int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX, description="shelf order, ascending; ties by item id")
]

RoleName = Literal["viewer", "agent", "moderator", "streamer", "owner"]
RoomStateName = Literal["scheduled", "live", "paused", "closing", "closed"]
SaleStateName = Literal["scheduled", "open", "sold_out", "paused", "ended"]
PacketStateName = Literal["scheduled", "open", "empty", "closed"]
OrderStatusName = Literal["held", "paid", "cancelled", "expired", "refunded"]
SplitName = Literal["lucky", "even"]


class WireObject(Struct, kw_only=True, omit_defaults=True):
    """Base of every object: keyword-only, unknown fields ignored, unset fields absent."""


class Sender(WireObject, kw_only=True):
    """Who wrote a comment, arrived or grabbed."""

    id: Id
    name: str
    role: RoleName
    avatar: str | UnsetType = UNSET


class Comment(WireObject, kw_only=True, rename={"sender": "from"}):
    """One accepted comment. `comment` rises by one per room."""

    comment: PositiveCount
    at: TimeMs
    sender: Sender
    text: str
    reply_to: PositiveCount | UnsetType = UNSET


class Item(WireObject, kw_only=True):
    """One card of the shelf."""

    item: Id
    title: str
    price_cents: Cents
    sort: Sort
    sold_out: bool
    cover: str | UnsetType = UNSET
    url: str | UnsetType = UNSET


class Eligibility(WireObject, kw_only=True, forbid_unknown_fields=True):
    """
    Who may take part, decided on server state when they try. Every field given must hold.

    `tags`: at least one of them is in the viewer's token. `level_min`: of the token. `dwell_s`: seconds in the
    room so far. `first_order`: the viewer has no order in this room yet. `shared`: viewers they brought here.
    """

    tags: (
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=32)]], Meta(max_length=20)] | UnsetType
    ) = UNSET
    level_min: Count | UnsetType = UNSET
    dwell_s: Annotated[int, Meta(ge=0, le=86_400)] | UnsetType = UNSET
    first_order: bool | UnsetType = UNSET
    shared: Count | UnsetType = UNSET


class Sale(WireObject, kw_only=True):
    """A seckill. `state` is derived from the store's clock when it is read."""

    sale: Id
    item: Id
    price_cents: Cents
    stock: Count
    per_viewer: PositiveCount
    starts_at: TimeMs
    ends_at: TimeMs
    hold_s: PositiveCount
    state: SaleStateName
    eligible: Eligibility | UnsetType = UNSET


class Packet(WireObject, kw_only=True):
    """A red packet. Its amounts per share are never shown before they are grabbed."""

    packet: Id
    total_cents: Cents
    shares: PositiveCount
    split: SplitName
    min_cents: Cents
    opens_at: TimeMs
    expires_at: TimeMs
    state: PacketStateName
    eligible: Eligibility | UnsetType = UNSET


class Order(WireObject, kw_only=True):
    """Units held for, or sold to, one viewer. The price is frozen when the units are held."""

    order: Id
    sale: Id
    item: Id
    viewer: Id
    qty: PositiveCount
    price_cents: Cents
    amount_cents: Cents
    status: OrderStatusName
    held_at: TimeMs
    pay_by: TimeMs
    inviter: Id | UnsetType = UNSET
    payment_id: str | UnsetType = UNSET
    #: Payment ids that the shop must give back.
    refund_required: list[str] | UnsetType = UNSET


class Notice(WireObject, kw_only=True):
    """The one announcement of a room. An empty notice is `null` in a snapshot."""

    text: str
    version: Count
    card: Id | UnsetType = UNSET


class BestGrab(WireObject, kw_only=True):
    """The luckiest share of a packet; the earliest of equals."""

    viewer: Id
    name: str
    amount_cents: Cents


class RankEntry(WireObject, kw_only=True):
    """One line of the share board."""

    viewer: Id
    name: str
    count: Count


class OwnRank(WireObject, kw_only=True):
    """The asking viewer's own line; `rank` is null while they brought nobody."""

    rank: PositiveCount | None
    count: Count


class StockGauge(WireObject, kw_only=True):
    """Units of one sale."""

    left: Count
    held: Count
    sold: Count


class PacketGauge(WireObject, kw_only=True):
    """Shares of one packet."""

    left: Count
    grabbed: Count


class OnlineGauge(WireObject, kw_only=True):
    """Viewers, not connections."""

    now: Count
    peak: Count


class Gauges(WireObject, kw_only=True, omit_defaults=False):
    """Absolute values as of the join."""

    likes: Count = 0
    online: OnlineGauge
    stock: dict[str, StockGauge] = {}
    packets: dict[str, PacketGauge] = {}
    rank: list[RankEntry] = []


class You(WireObject, kw_only=True, omit_defaults=False):
    """What the joining viewer must know about themselves; every `you.*` event is covered here."""

    viewer: Id
    name: str
    role: RoleName
    #: Null when not muted, 0 when muted for ever.
    muted_until: TimeMs | None = None
    orders: list[Order] = []
    grabs: dict[str, Cents] = {}
    rank: OwnRank | None = None
    invited: Count = 0
    share: str | None = None


class RoomSnapshot(WireObject, kw_only=True, omit_defaults=False):
    """Everything a screen needs. Snapshot + the facts after it == a later snapshot."""

    room: Id
    title: str
    state: RoomStateName
    cover: str | UnsetType = UNSET
    playback: str | UnsetType = UNSET
    starts_at: TimeMs | UnsetType = UNSET
    notice: Notice | None = None
    items: list[Item] = []
    explaining: Id | None = None
    sales: list[Sale] = []
    packets: list[Packet] = []
    pinned: Comment | None = None
    #: At most 50, oldest first.
    comments: list[Comment] = []
    muted_all: bool = False


class OrderCounts(WireObject, kw_only=True, omit_defaults=False):
    """Orders of a room by status."""

    held: Count = 0
    paid: Count = 0
    cancelled: Count = 0
    expired: Count = 0
    refunded: Count = 0


class Stats(WireObject, kw_only=True, omit_defaults=False):
    """Live totals of a room."""

    online: Count
    peak: Count
    #: Distinct viewers so far.
    viewers: Count
    likes: Count
    comments: Count
    shares: Count
    orders: OrderCounts
    sold_cents: Cents
    #: Distinct viewers by the entry of their first join.
    entries: dict[str, Count]


class SaleAudit(WireObject, kw_only=True, omit_defaults=False):
    """stock == left + held + sold."""

    stock: Count
    left: Count
    held: Count
    sold: Count
    holds: bool


class PacketAudit(WireObject, kw_only=True, omit_defaults=False):
    """total == granted + left + refunded."""

    total_cents: Cents
    granted_cents: Cents
    left_cents: Cents
    refunded_cents: Cents
    shares: Count
    grabbed: Count
    holds: bool


class Audit(WireObject, kw_only=True, omit_defaults=False):
    """Every conservation identity of a room with its numbers."""

    holds: bool
    sales: dict[str, SaleAudit]
    packets: dict[str, PacketAudit]


class ShareRecord(WireObject, kw_only=True, omit_defaults=False):
    """One arrival through a share link, counted or not, and why not."""

    at: TimeMs
    #: Null when the token was forged.
    inviter: Id | None
    invitee: Id
    counted: bool
    channel: str | UnsetType = UNSET
    reason: (
        Literal["self", "again", "cycle", "forged", "expired", "already_here", "dwell", "banned", "cap"]
        | UnsetType
    ) = UNSET
