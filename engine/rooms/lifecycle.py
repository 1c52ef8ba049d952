"""
Life of a room: scheduled → live ⇄ paused → closing → closed.

Decides which steps exist and which command asks for which. The store takes the step atomically
(`store/lua/rooms.lua`) and is told here where it may start from. Does not decide who may ask.

Source: docs/protocol.md, "Life of a room".
"""

from typing import Final, NamedTuple

from protocol.codes import RoomState

#: Every step there is. `closing` is left by settling, not by a command.
ROOM_TRANSITIONS: Final[dict[RoomState, frozenset[RoomState]]] = {
    RoomState.SCHEDULED: frozenset({RoomState.LIVE, RoomState.CLOSING}),
    RoomState.LIVE: frozenset({RoomState.PAUSED, RoomState.CLOSING}),
    RoomState.PAUSED: frozenset({RoomState.LIVE, RoomState.CLOSING}),
    RoomState.CLOSING: frozenset({RoomState.CLOSED}),
    RoomState.CLOSED: frozenset(),
}


class Step(NamedTuple):
    """A step asked by a command."""

    origins: tuple[RoomState, ...]
    target: RoomState


STEPS: Final[dict[str, Step]] = {
    "room.open": Step((RoomState.SCHEDULED,), RoomState.LIVE),
    "room.pause": Step((RoomState.LIVE,), RoomState.PAUSED),
    "room.resume": Step((RoomState.PAUSED,), RoomState.LIVE),
    "room.close": Step((RoomState.SCHEDULED, RoomState.LIVE, RoomState.PAUSED), RoomState.CLOSING),
}
