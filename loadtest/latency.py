"""
Histograms of delays.

Decides how delays are counted: in High Dynamic Range histograms of microseconds, three digits exact, from the
*intended* moment of what caused them, so that a server that stands still for five seconds shows five seconds to
everything that was due in them. Histograms of several processes add up without loss.

Source: Gil Tene, HdrHistogram; the `hdrhistogram` package is its Python port.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from loadtest.history import TICK_US, CommentSeen, Frame

LOWEST_US: Final = 1
#: Ten minutes; longer delays count as ten minutes.
HIGHEST_US: Final = 600_000_000
DIGITS: Final = 3

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


class Delays:
    """One histogram of delays in microseconds."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)

    def record(self, delay_us: int, count: int = 1) -> None:
        """Count `count` delays; below the range they are its lowest value, above it its highest."""
        self._histogram.record_value(min(max(delay_us, LOWEST_US), HIGHEST_US), count)

    def add(self, other: "Delays") -> None:
        """Count everything `other` has counted."""
        self._histogram.add(other._histogram)

    @property
    def count(self) -> int:
        """Return how many delays were counted."""
        return int(self._histogram.get_total_count())

    def percentile_us(self, percentile: float) -> int:
        """Return the delay that `percentile` percent do not exceed, 0 if nothing was counted."""
        return int(self._histogram.get_value_at_percentile(percentile)) if self.count else 0

    def max_us(self) -> int:
        """Return the longest delay, 0 if nothing was counted."""
        return int(self._histogram.get_max_value()) if self.count else 0

    def figures(self) -> dict[str, float]:
        """Return count, mean, percentiles and maximum; milliseconds."""
        if not self.count:
            return {"count": 0}
        figures: dict[str, float] = {
            "count": self.count,
            "mean_ms": round(float(self._histogram.get_mean_value()) / 1000, 3),
        }
        for name, percentile in PERCENTILES.items():
            figures[f"{name}_ms"] = round(self.percentile_us(percentile) / 1000, 3)
        figures["max_ms"] = round(self.max_us() / 1000, 3)
        return figures

    def spectrum(self) -> list[tuple[float, float]]:
        """
        Return percentiles and their delays in milliseconds, from 0 ever closer to 100.

        Each step halves the rest half as often again as HdrHistogram's own tables, and ends where one delay is left.
        """
        points: list[tuple[float, float]] = []
        rest = 1.0
        while self.count and rest * self.count >= 1:
            percentile = 100 * (1 - rest)
            points.append((round(percentile, 6), self.percentile_us(percentile) / 1000))
            rest *= 0.5**0.25
        if points:
            points.append((100.0, self.max_us() / 1000))
        return points

    def encoded(self) -> str:
        """Return the histogram in the compressed form all HdrHistogram tools read."""
        encoded: Any = self._histogram.encode()
        return str(encoded.decode("ascii"))


def delivery_counts(frames: Iterable[Frame], intended_us: Mapping[int, int]) -> dict[int, int]:
    """
    Return delay in ticks → deliveries, for every comment of ours in `frames`.

    Args:
        frames: Frames with the moments at which viewers read them.
        intended_us: Step → intended moment, for every step.
    """
    counts: dict[int, int] = {}
    for frame in frames:
        for mark in frame.marks:
            if not isinstance(mark, CommentSeen) or mark.step not in intended_us:
                continue
            intended_tick = intended_us[mark.step] // TICK_US
            for tick, viewers in frame.ticks.items():
                delay = max(0, tick - intended_tick)
                counts[delay] = counts.get(delay, 0) + viewers
    return counts


def from_ticks(counts: Mapping[int, int]) -> Delays:
    """Return a histogram of counted delays in ticks."""
    delays = Delays()
    for delay, count in counts.items():
        delays.record(delay * TICK_US, count)
    return delays
