"""
Numbers out of raw counts: percentiles, medians, ratios, tables.

Decides how histograms of the crowd are read, how rounds are summed up (medians; ratios within one round, then their
median, because a shared machine differs more between rounds than within one), and how tables look. Pure.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

#: Buckets between two powers of two, as in crowd.c.
_PARTS: Final = 64
#: Values below this have a bucket of their own.
_EXACT_BELOW: Final = 2 * _PARTS

#: Bucket → count.
Histogram = Mapping[int, int]


def bucket_of(us: int) -> int:
    """Return the bucket of a value in microseconds."""
    if us < _EXACT_BELOW:
        return max(us, 0)
    shift = us.bit_length() - 7
    return shift * _PARTS + (us >> shift)


def bucket_top_us(bucket: int) -> int:
    """Return the highest value that a bucket counts, in microseconds: at most 1.6 % above the lowest."""
    if bucket < _EXACT_BELOW:
        return bucket
    shift = bucket // _PARTS - 1
    return ((bucket - shift * _PARTS + 1) << shift) - 1


def percentile_ms(histogram: Histogram, percent: float) -> float:
    """Return the value that `percent` percent of the counted do not exceed, in milliseconds; 0 if none is counted."""
    total = sum(histogram.values())
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen * 100 >= total * percent:
            return bucket_top_us(bucket) / 1000
    return 0.0


def median(values: Iterable[float]) -> float | None:
    """Return the median, None of nothing."""
    held = list(values)
    return statistics.median(held) if held else None


def ratio_within_rounds(above: Mapping[int, float | None], below: Mapping[int, float | None]) -> float | None:
    """Return the median over the rounds, by number, that have both of the ratio within the round; None if none has."""
    ratios = []
    for number, value in above.items():
        other = below.get(number)
        if value is not None and other:
            ratios.append(value / other)
    return median(ratios)


def shown(value: float | None, digits: int = 2) -> str:
    """Return a number for a table: a dash for none, thousands separated."""
    return "–" if value is None else f"{value:,.{digits}f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Return a Markdown table whose first `left` columns are aligned left, the others right."""
    rules = ["---" if at < left else "---:" for at in range(len(columns))]
    lines = [columns, rules, *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def verdict(
    what: str, value: float | None, limit: float, unit: str = "", *, least: bool = False, digits: int = 2
) -> tuple[str, str, str, str]:
    """Return a line of a verdict: what was asked, its limit, what was measured, and met, missed or not measured."""
    sign = "≥" if least else "≤"
    bound = f"{sign} {limit:g}{unit}"
    if value is None:
        return what, bound, "–", "not measured"
    met = value >= limit if least else value <= limit
    return what, bound, shown(value, digits) + unit, "met" if met else "**missed**"
