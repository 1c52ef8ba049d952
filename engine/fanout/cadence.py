"""
When a room speaks next.

Decides the moment of the next flush: an idle room at once, a busy one after a pause of twice what the last flush cost,
between 20 and 500 ms, so that a small room feels instant and a huge one spends at most a third of the loop on fan-out.
Facts do not wait for the pause; gauges alone wait longer. Pure: the caller passes the time.

Source: docs/architecture.md, "Fan-out".
"""

from typing import Final

PAUSE_S_MIN: Final = 0.020
PAUSE_S_MAX: Final = 0.500
PAUSE_PER_COST: Final = 2.0
#: Least time between two flushes that carry the same gauge (seconds).
GAUGE_PERIOD_S: Final = 0.200


class Cadence:
    """The rhythm of one room on one worker."""

    __slots__ = ("_gauges_at", "_ready_at")

    def __init__(self) -> None:
        self._ready_at = 0.0
        self._gauges_at = 0.0

    def flushed(self, started_s: float, ended_s: float, *, with_gauges: bool) -> None:
        """Note a flush, from its first write to the end of its last."""
        pause = min(max((ended_s - started_s) * PAUSE_PER_COST, PAUSE_S_MIN), PAUSE_S_MAX)
        self._ready_at = ended_s + pause
        if with_gauges:
            self._gauges_at = started_s + max(GAUGE_PERIOD_S, pause)

    def next_flush_at(self, now_s: float, *, facts: bool, chat: bool, gauges: bool) -> float | None:
        """Return when to flush what is pending, never in the past, or None if nothing is."""
        if facts:
            return now_s
        if chat:
            return max(now_s, self._ready_at)
        if gauges:
            return max(now_s, self._ready_at, self._gauges_at)
        return None

    def gauges_due(self, now_s: float) -> bool:
        """Tell whether a flush now may carry gauges."""
        return now_s >= self._gauges_at
