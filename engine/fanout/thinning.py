"""
Which chat events a busy room shows.

Decides, against a cap of events per second, which of the waiting chat events are sent: evenly spread ones, in order.
What is left out is counted, so that the room can say so. Pure: the caller passes the time.

Source: docs/protocol.md, "Three classes of event".
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Thinner:
    """A budget of `per_s` chat events a second, of which one second's worth may be saved up. 0 is no cap."""

    __slots__ = ("_budget", "_per_s", "_refilled_at")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._budget = per_s
        self._refilled_at = 0.0

    def thin(self, events: Sequence[T], now_s: float) -> Sequence[T]:
        """Return the events to show, in order, evenly chosen."""
        if self._per_s == 0:
            return events
        self._budget = min(self._per_s, self._budget + (now_s - self._refilled_at) * self._per_s)
        self._refilled_at = now_s
        room = int(self._budget)
        if len(events) <= room:
            self._budget -= len(events)
            return events
        self._budget -= room
        # The i-th shown of n is the event at the middle of the i-th of n equal parts.
        return [events[(2 * i + 1) * len(events) // (2 * room)] for i in range(room)]
