"""
What a room says: one class per event, with its class of delivery.

Decides names, fields and classes. The engine composes most events from fragments in the store, so these types are
the contract its output is tested against, the source of the schemas, and what readers decode into. Events are flat:
an object's fields stand beside `ev`. Readers ignore unknown events and unknown fields.

Source: docs/protocol.md, "Events".
"""

from typing import ClassVar, Final, Literal

from msgspec import UNSET, UnsetType

from protocol.codes import EventClass
from protocol.ids import Id
from protocol.objects import (
    BestGrab,
    Cents,
    Comment,
    Count,
    Item,
    Order,
    Packet,
    PositiveCount,
    RankEntry,
    RoomStateName,
    Sale,
    Sender,
    Seq,
    TimeMs,
    WireObject,
)


class Event(WireObject, kw_only=True, tag_field="ev"):
    """Base of every event."""

    delivery: ClassVar[EventClass]

    @classmethod
    def name(cls) -> str:
        """Return the value of `ev`."""
        tag = cls.__struct_config__.tag
        assert isinstance(tag, str)
        return tag


class Fact(Event, kw_only=True):
    """State of the room: in order, gap-free, never dropped."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class Gauge(Event, kw_only=True):
    """An absolute value: the latest wins, any may be skipped."""

    delivery: ClassVar[EventClass] = EventClass.GAUGE


class Personal(Event, kw_only=True):
    """For one viewer's connections; covered by `you` in the next join reply."""

    delivery: ClassVar[EventClass] = EventClass.PERSONAL


class Control(Event, kw_only=True):
    """About the connection itself."""

    delivery: ClassVar[EventClass] = EventClass.CONTROL


# --- facts ------------------------------------------------------------------------------------------------


class RoomStateChanged(Fact, kw_only=True, tag="room.state"):
    """The room took a step of its life."""

    state: RoomStateName
    reason: str | UnsetType = UNSET


class RoomUpdated(Fact, kw_only=True, tag="room.updated"):
    """Title, cover, playback URL or planned start changed. Absent fields have no value now."""

    title: str
    cover: str | UnsetType = UNSET
    playback: str | UnsetType = UNSET
    starts_at: TimeMs | UnsetType = UNSET


class NoticeSet(Fact, kw_only=True, tag="notice"):
    """The announcement changed; empty text means there is none."""

    text: str
    version: Count
    card: Id | UnsetType = UNSET


class ItemPut(Event, Item, kw_only=True, tag="item.put"):
    """A card appeared or changed."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class ItemRemoved(Fact, kw_only=True, tag="item.removed"):
    """A card left the shelf. If it was being explained, that ended just before."""

    item: Id


class ItemExplaining(Fact, kw_only=True, omit_defaults=False, tag="item.explaining"):
    """The item explained now, or null."""

    item: Id | None


class SeckillScheduled(Event, Sale, kw_only=True, tag="seckill.scheduled"):
    """A sale was announced; it begins at `starts_at` with no further message."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class SeckillAdjusted(Event, Sale, kw_only=True, tag="seckill.adjusted"):
    """A sale's stock was changed."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class SeckillEnded(Event, Sale, kw_only=True, tag="seckill.ended"):
    """No new holds in this sale."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class SeckillSoldOut(Fact, kw_only=True, tag="seckill.sold_out"):
    """Nothing left; `final` is false while unpaid holds may return."""

    sale: Id
    final: bool


class SeckillBack(Fact, kw_only=True, tag="seckill.back"):
    """Stock returned to a sold-out sale."""

    sale: Id


class RedPacketOpened(Event, Packet, kw_only=True, tag="redpacket.opened"):
    """A packet can be grabbed, or will open at `opens_at`."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs


class RedPacketClosed(Event, Packet, kw_only=True, tag="redpacket.closed"):
    """A packet is settled: granted + refunded == total."""

    delivery: ClassVar[EventClass] = EventClass.FACT
    seq: Seq
    at: TimeMs
    granted_cents: Cents
    refunded_cents: Cents
    grabbed: Count
    best: BestGrab | UnsetType = UNSET


class RoomMutedAll(Fact, kw_only=True, tag="room.muted_all"):
    """Whether only moderators and higher may comment."""

    on: bool


class CommentDeleted(Fact, kw_only=True, tag="comment.deleted"):
    """Take this comment off the screen."""

    comment: PositiveCount


class CommentPinned(Fact, kw_only=True, omit_defaults=False, tag="comment.pinned"):
    """The comment shown above the others, or null."""

    comment: Comment | None


class ViewerRemoved(Fact, kw_only=True, tag="viewer.removed"):
    """A viewer was kicked or banned."""

    viewer: Id
    how: Literal["kick", "ban"]


# --- chat -------------------------------------------------------------------------------------------------


class CommentPosted(Event, Comment, kw_only=True, rename={"sender": "from"}, tag="comment"):
    """Somebody said something."""

    delivery: ClassVar[EventClass] = EventClass.CHAT


class ViewerArrived(Event, kw_only=True, rename={"sender": "from"}, tag="arrived"):
    """Somebody entered the room for the first time. Sampled."""

    delivery: ClassVar[EventClass] = EventClass.CHAT
    at: TimeMs
    sender: Sender
    #: Name of the viewer whose link they came through.
    via: str | UnsetType = UNSET


class RedPacketGrabbed(Event, kw_only=True, rename={"sender": "from"}, tag="grabbed"):
    """Somebody got a share. Sampled."""

    delivery: ClassVar[EventClass] = EventClass.CHAT
    at: TimeMs
    packet: Id
    sender: Sender
    amount_cents: Cents


# --- gauges -----------------------------------------------------------------------------------------------


class LikesChanged(Gauge, kw_only=True, tag="likes"):
    """All likes of the room; never decreasing."""

    total: Count


class OnlineChanged(Gauge, kw_only=True, tag="online"):
    """Viewers now, and the most there were."""

    now: Count
    peak: Count


class StockChanged(Gauge, kw_only=True, tag="stock"):
    """Units of a sale."""

    sale: Id
    left: Count
    held: Count
    sold: Count


class PacketChanged(Gauge, kw_only=True, tag="packet"):
    """Shares of a packet."""

    packet: Id
    left: Count
    grabbed: Count


class RankChanged(Gauge, kw_only=True, tag="rank"):
    """The head of the share board."""

    top: list[RankEntry]


# --- personal and control ---------------------------------------------------------------------------------


class YourOrder(Event, Order, kw_only=True, tag="you.order"):
    """One of your orders changed."""

    delivery: ClassVar[EventClass] = EventClass.PERSONAL


class YourMute(Personal, kw_only=True, omit_defaults=False, tag="you.muted"):
    """You are muted until then; 0 is for ever, null is no longer."""

    until: TimeMs | None


class YourGrab(Personal, kw_only=True, tag="you.grab"):
    """You got a share, on this or another of your devices."""

    packet: Id
    amount_cents: Cents


class Thinned(Control, kw_only=True, tag="thinned"):
    """This many chat events were left out here."""

    dropped: PositiveCount


class Reconnect(Control, kw_only=True, tag="reconnect"):
    """The server drains: come back after this long, with `resume`."""

    after_ms: Count


def _leaves(base: type[Event]) -> list[type[Event]]:
    found: list[type[Event]] = []
    for sub in base.__subclasses__():
        if sub.__subclasses__():
            found.extend(_leaves(sub))
        else:
            found.append(sub)
    return found


EVENTS: Final[dict[str, type[Event]]] = {event.name(): event for event in _leaves(Event)}
