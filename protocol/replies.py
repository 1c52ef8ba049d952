"""
What a command is answered with.

Decides the body of `ok` for every command, and the map of a refusal. The engine composes hot replies by hand; these
types are what its output is tested against and the source of the schemas. Source: docs/protocol.md.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from protocol.codes import ErrorCode
from protocol.objects import (
    Audit,
    Cents,
    Count,
    Gauges,
    Item,
    Order,
    OrderStatusName,
    OwnRank,
    Packet,
    PositiveCount,
    RankEntry,
    RoomSnapshot,
    RoomStateName,
    Sale,
    Seq,
    Stats,
    TimeMs,
    WireObject,
    You,
)


class Done(WireObject, kw_only=True):
    """Nothing more to say."""


class Joined(WireObject, kw_only=True, omit_defaults=False):
    """Where the viewer stands now. `room` is null exactly when `resumed`."""

    now: TimeMs
    epoch: str
    seq: Seq
    resumed: bool
    you: You
    gauges: Gauges
    room: RoomSnapshot | None
    #: The facts after the `seq` of `resume`, in order.
    missed: list[dict[str, Any]]
    ping_ms: PositiveCount


class Pong(WireObject, kw_only=True):
    """The store's clock, for the client's offset."""

    now: TimeMs


class CommentAccepted(WireObject, kw_only=True):
    """The number of the comment; the event carries the same one."""

    comment: PositiveCount


class LikesTotal(WireObject, kw_only=True):
    """The room's likes as last known here."""

    total: Count


class ShareToken(WireObject, kw_only=True):
    """A signed token to put into a link."""

    token: str


class ShareRank(WireObject, kw_only=True, omit_defaults=False):
    """The head of the board and the asker's own line."""

    top: list[RankEntry]
    me: OwnRank


class UnitsHeld(WireObject, kw_only=True):
    """Units are held until `pay_by`. `again`: this is an earlier hold, not a new one."""

    order: str
    status: Literal["held", "paid", "cancelled", "expired", "refunded"]
    pay_by: TimeMs
    stock_left: Count
    again: bool | UnsetType = UNSET


class ShareGrabbed(WireObject, kw_only=True):
    """A share of a packet; `again` when it was granted before."""

    amount_cents: Cents
    again: bool


class StateNow(WireObject, kw_only=True):
    """The room's state after the command; `again` when it was in it already."""

    state: RoomStateName
    again: bool | UnsetType = UNSET


class NoticeVersion(WireObject, kw_only=True):
    """The version to pass with the next compare-and-set."""

    version: Count


class MutedUntil(WireObject, kw_only=True):
    """End of the mute; 0 is for ever."""

    until: TimeMs


#: `ok` of each command.
REPLIES: Final[dict[str, type[WireObject]]] = {
    "room.join": Joined,
    "room.leave": Done,
    "ping": Pong,
    "comment.send": CommentAccepted,
    "like.send": LikesTotal,
    "share.token": ShareToken,
    "share.rank": ShareRank,
    "seckill.claim": UnitsHeld,
    "order.get": Order,
    "order.cancel": Order,
    "redpacket.grab": ShareGrabbed,
    "room.open": StateNow,
    "room.pause": StateNow,
    "room.resume": StateNow,
    "room.close": StateNow,
    "notice.set": NoticeVersion,
    "item.put": Item,
    "item.remove": Done,
    "item.explain": Done,
    "item.unexplain": Done,
    "seckill.schedule": Sale,
    "seckill.adjust": Sale,
    "seckill.end": Sale,
    "redpacket.send": Packet,
    "redpacket.cancel": Packet,
    "viewer.mute": MutedUntil,
    "viewer.unmute": Done,
    "viewer.kick": Done,
    "viewer.ban": Done,
    "viewer.unban": Done,
    "room.mute_all": Done,
    "comment.delete": Done,
    "comment.pin": Done,
    "comment.unpin": Done,
    "stats.get": Stats,
    "audit.get": Audit,
}


class ErrorBody(WireObject, kw_only=True):
    """Why a command was refused. The fields after `definite` belong to the codes named beside them."""

    code: Annotated[str, Meta(description="one of the error codes")]
    message: str
    definite: bool
    #: `rate_limited`, `overloaded`, `unavailable`: not before this long.
    retry_ms: Count | UnsetType = UNSET
    #: `not_started`: when it starts, and the store's clock.
    starts_at: TimeMs | UnsetType = UNSET
    now: TimeMs | UnsetType = UNSET
    #: `sold_out`: false while unpaid holds may return.
    final: bool | UnsetType = UNSET
    #: `limit_reached`: what may still be taken. `sold_out`: units left, fewer than asked.
    left: Count | UnsetType = UNSET
    #: `conflict` of a step in the room's life, `room_not_live`: the room's state.
    state: RoomStateName | UnsetType = UNSET
    #: `conflict` of a notice: its current version.
    version: Count | UnsetType = UNSET
    #: `conflict` of an order: its status, or the amount it costs.
    status: OrderStatusName | UnsetType = UNSET
    amount_cents: Cents | UnsetType = UNSET
    #: `muted`: the end of the mute, 0 for ever; and whether everybody below moderator is muted.
    until: TimeMs | UnsetType = UNSET
    all: bool | UnsetType = UNSET


def error_body(code: ErrorCode, message: str = "", **extra: Any) -> dict[str, Any]:
    """Return the `err` map of a refusal; `extra` holds the fields the code adds, such as `retry_ms`."""
    return {"code": code.value, "message": message or code.value, "definite": code.definite, **extra}


def error_reply(command_id: int, code: ErrorCode, message: str = "", **extra: Any) -> dict[str, Any]:
    """Return the whole reply of a refused command."""
    return {"re": command_id, "err": error_body(code, message, **extra)}


__all__ = ["REPLIES", "ErrorBody", "Joined", "error_body", "error_reply"]
