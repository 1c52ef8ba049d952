"""
Snapshot + missed facts → what a joining viewer is told.

Decides how a room read from the store becomes a snapshot, and whether a returning viewer is brought up to date with
facts or with a snapshot. Pure; the hub keeps the state, the store reads it.

Source: docs/protocol.md, "Joining, leaving, coming back".
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from protocol.limits import FACTS_KEPT_MIN, RESUME_BYTES_MAX
from protocol.view import Map, packet_order, sale_order

#: Facts a worker holds per room; older ones are read from the log. About 300 bytes each.
RING_FACTS_MAX: Final = 2 * FACTS_KEPT_MIN
#: Bytes a worker holds per room, so that a few huge facts cannot fill its memory.
RING_BYTES_MAX: Final = 2 * RESUME_BYTES_MAX


@dataclass(slots=True)
class RoomRead:
    """A room as the store has it at one moment."""

    now_ms: int
    epoch: str
    seq: int
    #: The snapshot without its comments.
    view: Map
    #: The newest comments as JSON objects, oldest first, with their numbers.
    comments: list[tuple[int, bytes]]
    #: The newest facts as JSON, oldest first, with their seq.
    facts: list[tuple[int, bytes]]
    likes: int
    online: int
    peak: int
    #: Latest gauges by name, as JSON events: stock, packet and rank.
    gauges: dict[str, bytes]
    #: Conservation of every sale and packet, in the shape of `Audit`.
    audit: Map
    #: Number of the last order change.
    change: int
    #: Units ever taken and bought of each sale.
    sold: dict[str, tuple[int, int]]


def read_view(
    room: str,
    meta: dict[bytes, bytes],
    items: Iterable[bytes],
    sales: Iterable[bytes],
    packets: Iterable[bytes],
) -> Map:
    """Build a snapshot, without comments, from the fields of the room."""
    view: Map = {"room": room}
    view.update(orjson.loads(b"{" + meta[b"body"] + b"}"))
    notice = meta.get(b"notice")
    pinned = meta.get(b"pinned_json")
    explaining = meta.get(b"explaining")
    view.update(
        state=meta[b"state"].decode(),
        notice=orjson.loads(notice) if notice else None,
        items=[orjson.loads(item) for item in items],
        explaining=explaining.decode() if explaining else None,
        sales=sorted(map(orjson.loads, sales), key=sale_order),
        packets=sorted(map(orjson.loads, packets), key=packet_order),
        pinned=orjson.loads(pinned) if pinned else None,
        comments=[],
        muted_all=meta.get(b"muted_all") == b"1",
    )
    return view


class FactRing:
    """The newest facts of a room, gap-free. When full, the oldest leave; a resume from before them asks the log."""

    __slots__ = ("_bytes", "_facts", "first")

    def __init__(self) -> None:
        self._facts: deque[bytes] = deque()
        self._bytes = 0
        #: `seq` of the oldest fact held; one past the newest when empty.
        self.first = 1

    def reset(self, facts: list[tuple[int, bytes]], seq: int) -> None:
        """Start over with the facts that end at `seq`."""
        self._facts.clear()
        self._bytes = 0
        self.first = seq + 1
        for number, fact in facts:
            if not self._facts:
                self.first = number
            self.append(fact)

    def append(self, fact: bytes) -> None:
        """Hold the next fact."""
        self._facts.append(fact)
        self._bytes += len(fact)
        while len(self._facts) > RING_FACTS_MAX or self._bytes > RING_BYTES_MAX:
            self._bytes -= len(self._facts.popleft())
            self.first += 1

    def since(self, seq: int) -> list[bytes] | None:
        """Return the facts after `seq`, or None if some of them are not held."""
        skip = seq + 1 - self.first
        if skip < 0:
            return None
        return list(self._facts)[skip:]


def fits_resume(facts: list[bytes]) -> bool:
    """Tell whether missed facts are small enough to be sent instead of a snapshot."""
    return sum(map(len, facts)) + len(facts) <= RESUME_BYTES_MAX


def decode(fact: bytes) -> Map:
    """Return a fact of ours as a map."""
    value: Any = orjson.loads(fact)
    assert isinstance(value, dict)
    return value
