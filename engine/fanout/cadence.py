"""
When a room speaks next.

Decides the moment of the next flush: an idle room at once, a busy one after a pause that grows with what the last flush
cost. At least half as much again, so that a huge room spends at most two fifths of the loop on fan-out; up to six times
while the pause stays below 100 ms, since a pause nobody notices makes fewer and fuller frames. Facts do not wait for
it; gauges alone, which the next ones replace, and what else nobody waits for (arrivals) wait longest. Pure: the caller
passes the time.

Source: docs/decisions/0008-coalescing-cadence.md, docs/decisions/0014-what-a-flush-costs.md.
"""

from typing import Final

PAUSE_S_MIN: Final = 0.020
PAUSE_S_MAX: Final = 0.500
#: The least pause, in costs of the last flush.
PAUSE_PER_COST: Final = 1.5
#: The pause a room takes while it is shorter than `EASY_PAUSE_S_MAX` (in costs; seconds).
EASY_PAUSE_PER_COST: Final = 6.0
EASY_PAUSE_S_MAX: Final = 0.100
#: Least time between two flushes that carry the same gauge (seconds).
GAUGE_PERIOD_S: Final = 0.200
#: The pause before a flush that carries nothing but gauges: at most a tenth of the loop (in costs; seconds).
GAUGES_PAUSE_PER_COST: Final = 9.0
GAUGES_PAUSE_S_MAX: Final = 1.0


class Cadence:
    """The rhythm of one room on one worker."""

    __slots__ = ("_gauges_alone_at", "_gauges_at", "_ready_at")

    def __init__(self) -> None:
        self._ready_at = 0.0
        self._gauges_at = 0.0
        self._gauges_alone_at = 0.0

    def flushed(self, started_s: float, ended_s: float, *, with_gauges: bool) -> None:
        """Note a flush, from its first write to the end of its last."""
        cost = ended_s - started_s
        easy = min(cost * EASY_PAUSE_PER_COST, EASY_PAUSE_S_MAX)
        pause = min(max(cost * PAUSE_PER_COST, easy, PAUSE_S_MIN), PAUSE_S_MAX)
        self._ready_at = ended_s + pause
        self._gauges_alone_at = ended_s + min(cost * GAUGES_PAUSE_PER_COST, GAUGES_PAUSE_S_MAX)
        if with_gauges:
            self._gauges_at = started_s + max(GAUGE_PERIOD_S, pause)

    def next_flush_at(self, now_s: float, *, facts: bool, chat: bool, gauges: bool) -> float | None:
        """Return when to flush what is pending, never in the past, or None if nothing is."""
        if facts:
            return now_s
        if chat:
            return max(now_s, self._ready_at)
        if gauges:
            return max(now_s, self._ready_at, self._gauges_at, self._gauges_alone_at)
        return None

    def gauges_due(self, now_s: float) -> bool:
        """Tell whether a flush now may carry gauges."""
        return now_s >= self._gauges_at
