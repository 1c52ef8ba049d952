"""
Error codes, close codes and roles: the words both sides switch on.

Decides names and numbers, and which of them are final. Does not decide when one is used. Source:
docs/protocol.md, "Codes"; close codes from the private range of RFC 6455 §7.4.2.
"""

from enum import Enum, IntEnum, StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """`err.code` of a refused command."""

    BAD_FRAME = "bad_frame"
    BAD_COMMAND = "bad_command"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_JOINED = "not_joined"
    ALREADY_JOINED = "already_joined"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    ROOM_NOT_FOUND = "room_not_found"
    ROOM_NOT_LIVE = "room_not_live"
    RATE_LIMITED = "rate_limited"
    TOO_LONG = "too_long"
    BLOCKED_TEXT = "blocked_text"
    MUTED = "muted"
    NOT_FOUND = "not_found"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    SOLD_OUT = "sold_out"
    LIMIT_REACHED = "limit_reached"
    NOT_ELIGIBLE = "not_eligible"
    EMPTY = "empty"
    BAD_QUANTITY = "bad_quantity"
    CONFLICT = "conflict"
    PAUSED = "paused"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    #: The only code whose `definite` is false: ask again with the same key.
    OUTCOME_UNKNOWN = "outcome_unknown"

    @property
    def definite(self) -> bool:
        """Tell whether the command certainly had no effect."""
        return self is not ErrorCode.OUTCOME_UNKNOWN


class CloseCode(IntEnum):
    """Why a connection was closed. 4000–4499: do not reconnect by yourself. 4500–4999: reconnect and resume."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    FRAME_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    PROTOCOL_VIOLATION = 4400
    UNAUTHORIZED = 4401
    TOKEN_EXPIRED = 4402
    BANNED = 4403
    ROOM_NOT_FOUND = 4404
    KICKED = 4410
    ROOM_CLOSED = 4411
    TOO_MANY_CONNECTIONS = 4429
    DRAINING = 4500
    TOO_SLOW = 4501
    STATE_LOST = 4502
    IDLE = 4503

    @property
    def may_reconnect(self) -> bool:
        """Tell whether a client should come back by itself, with `resume`."""
        return 4500 <= self <= 4999


class Role(IntEnum):
    """What a token's bearer may do. Ordered: nobody acts on an equal or higher role."""

    VIEWER = 0
    AGENT = 1
    MODERATOR = 2
    STREAMER = 3
    OWNER = 4

    @property
    def wire(self) -> str:
        """Return the name used on the wire."""
        return self.name.lower()


ROLE_BY_NAME: Final[dict[str, Role]] = {role.wire: role for role in Role}


class RoomState(StrEnum):
    """Life of a room. `ROOM_TRANSITIONS` lists every step there is."""

    SCHEDULED = "scheduled"
    LIVE = "live"
    PAUSED = "paused"
    CLOSING = "closing"
    CLOSED = "closed"


class EventClass(Enum):
    """What must give first under load. See docs/protocol.md, "Three classes of event"."""

    FACT = "fact"
    CHAT = "chat"
    GAUGE = "gauge"
    PERSONAL = "personal"
    CONTROL = "control"


#: The subprotocols of version 1, by codec name.
SUBPROTOCOLS: Final[dict[str, str]] = {"json": "liveroom.v1.json", "msgpack": "liveroom.v1.msgpack"}
