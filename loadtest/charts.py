"""
Charts as inline SVG.

Decides scales, ticks, units and how lines, areas, bars and named moments are drawn. Everything is drawn here, so that a
page can be read without scripts; what a pointer should show is put beside each chart as data, and `web/report.js` reads
it. Colours are names of CSS variables: the page decides them, for light and dark.

Pure: numbers in, text out.
"""

import html
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

LEFT: Final = 64
RIGHT: Final = 16
TOP: Final = 12
BOTTOM: Final = 34
#: A row of names of moments above the drawing.
MOMENT_ROW: Final = 15
MOMENT_ROWS_MAX: Final = 3
#: Roughly the width of a letter of the small font, for keeping names apart.
LETTER: Final = 6.1
#: Points drawn of one series; more are thinned by keeping the highest of neighbours.
POINTS_MAX: Final = 600

#: Lines of more points have no dots.
DOTS_MAX: Final = 40

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, area or row of bars."""

    name: str
    #: Name of a CSS variable without its dashes, such as "c1".
    colour: str
    points: Sequence[Point]
    kind: Literal["line", "area", "bars"] = "line"
    #: A line is not drawn across more than this much without a point.
    gap: float = math.inf


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the x axis, with a name or without."""

    x: float
    name: str
    kind: str = "plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart: what it shows, and on which scales."""

    title: str
    #: What it means and how to read it, one sentence.
    hint: str
    series: Sequence[Series]
    x_max: float
    y_format: Format
    width: int = 1040
    height: int = 260
    log: bool = False
    #: Smallest value at the top of the y axis.
    y_least: float = 1.0
    #: Smallest value at the bottom of a logarithmic y axis; what is below is drawn there.
    y_floor: float = 0.1
    marks: Sequence[Mark] = ()
    x_format: Format = field(default=lambda value: f"{value:g} s")
    #: Explicit ticks of the x axis: value and label; else round numbers.
    x_ticks: Sequence[tuple[float, str]] = ()
    #: What the pointer shows as x, if not `x_format`: a label for every point of the first series.
    x_labels: Sequence[str] = ()


def milliseconds(value: float) -> str:
    """Return a delay given in milliseconds with the unit that suits it."""
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    if value < 1:
        return f"{value * 1000:.3g} µs"
    return f"{value:.3g} ms"


def plain(value: float) -> str:
    """Return a number with thousands apart."""
    if value and abs(value) < 10 and value != int(value):
        return f"{value:.2g}"
    return f"{value:,.0f}"


def mebibytes(value: float) -> str:
    """Return a size given in MiB."""
    return (
        f"{value / 1024:.3g} GiB"
        if value >= 1024
        else f"{value:,.3g} MiB"
        if value < 10
        else f"{value:,.0f} MiB"
    )


def round_ticks(top: float, about: int) -> list[float]:
    """Return about `about` round numbers from 0 to at least `top`."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if raw <= power * factor * 1.0000001)
    count = math.ceil(top / step - 1e-9)
    return [round(step * place, 10) for place in range(count + 1)]


def decades(low: float, high: float) -> tuple[float, float]:
    """Return powers of ten around two positive numbers, at least one decade apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** max(last, first + 1)


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most about `POINTS_MAX` points: of each run of neighbours the highest, so that no peak is lost."""
    if len(points) <= POINTS_MAX:
        return list(points)
    size = -(-len(points) // POINTS_MAX)
    groups = (points[place : place + size] for place in range(0, len(points), size))
    return [max(group, key=lambda point: point[1]) for group in groups]


class _Drawing:
    """The scales of one chart, and its SVG as it grows."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.rows = _rows(chart)
        self.top = TOP + MOMENT_ROW * (max(self.rows, default=-1) + 1)
        self.bottom = chart.height - BOTTOM
        self.right = chart.width - RIGHT
        values = [y for series in chart.series for _, y in series.points]
        if chart.log:
            positive = [max(value, chart.y_floor) for value in values]
            self.low, self.high = decades(min(positive, default=1.0), max([chart.y_least, *positive]))
            self.ticks = [
                10.0**power for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            ]
        else:
            self.ticks = round_ticks(max([chart.y_least, *values]), 4)
            self.low, self.high = 0.0, self.ticks[-1]
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        return round(LEFT + (self.right - LEFT) * value / max(self.chart.x_max, 1e-9), 1)

    def y(self, value: float) -> float:
        if self.chart.log:
            value = max(value, self.low)
            share = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.bottom - (self.bottom - self.top) * share, 1)

    def add(self, text: str) -> None:
        self.parts.append(text)


def _rows(chart: Chart) -> list[int]:
    """Return the row of each mark's name, so that none overlap; -1 for no name, and for one without any room."""
    ends = [-1e9] * MOMENT_ROWS_MAX
    rows = []
    for mark in chart.marks:
        if not mark.name:
            rows.append(-1)
            continue
        place = LEFT + (chart.width - RIGHT - LEFT) * mark.x / max(chart.x_max, 1e-9)
        half = len(mark.name) * LETTER / 2
        row = next((row for row, end in enumerate(ends) if place - half > end + 6), -1)
        if row >= 0:
            ends[row] = place + half
        rows.append(row)
    return rows


def svg(chart: Chart) -> str:
    """Return one chart: an `svg` element with axes, series and marks."""
    drawing = _Drawing(chart)
    _axes(drawing)
    bars = [series for series in chart.series if series.kind == "bars"]
    if bars:
        _bars(drawing, bars)
    for series in chart.series:
        if series.kind != "bars":
            _line(drawing, series)
    _marks(drawing)
    label = html.escape(f"{chart.title}. {chart.hint}", quote=True)
    return (
        f'<svg viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{label}">'
        f"{''.join(drawing.parts)}"
        f'<line class="cross" y1="{drawing.top}" y2="{drawing.bottom}" x1="-9" x2="-9"/></svg>'
    )


def _axes(drawing: _Drawing) -> None:
    chart = drawing.chart
    for tick in drawing.ticks:
        y = drawing.y(tick)
        drawing.add(f'<line class="grid" x1="{LEFT}" x2="{drawing.right}" y1="{y}" y2="{y}"/>')
        text = html.escape(chart.y_format(tick))
        drawing.add(f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{text}</text>')
    ticks = list(chart.x_ticks)
    if not ticks:
        about = max(4, chart.width // 110)
        ticks = [(value, chart.x_format(value)) for value in round_ticks(chart.x_max, about)]
    for value, label in ticks:
        if value > chart.x_max * 1.0001:
            continue
        x = drawing.x(value)
        drawing.add(f'<line class="axis" x1="{x}" x2="{x}" y1="{drawing.bottom}" y2="{drawing.bottom + 4}"/>')
        anchor = "end" if x > drawing.right - 14 else "middle"
        drawing.add(
            f'<text class="tick" x="{x}" y="{drawing.bottom + 19}" text-anchor="{anchor}">'
            f"{html.escape(label)}</text>"
        )
    drawing.add(
        f'<line class="axis" x1="{LEFT}" x2="{drawing.right}" y1="{drawing.bottom}" y2="{drawing.bottom}"/>'
    )


def _line(drawing: _Drawing, series: Series) -> None:
    points = thinned(series.points)
    if not points:
        return
    colour = f"var(--{series.colour})"
    for stretch in _stretches(points, series.gap):
        places = [(drawing.x(x), drawing.y(y)) for x, y in stretch]
        path = "M" + "L".join(f"{x} {y}" for x, y in places)
        if series.kind == "area":
            base = drawing.bottom
            drawing.add(
                f'<path class="area" fill="{colour}" d="{path}L{places[-1][0]} {base}L{places[0][0]} {base}Z"/>'
            )
        if len(places) > 1:
            drawing.add(f'<path class="line" stroke="{colour}" d="{path}"/>')
        if len(places) == 1 or len(points) <= DOTS_MAX:
            for x, y in places:
                drawing.add(f'<circle class="dot" cx="{x}" cy="{y}" r="2.2" fill="{colour}"/>')


def _stretches(points: Sequence[Point], gap: float) -> list[list[Point]]:
    """Cut a line where nothing is known for longer than `gap`."""
    stretches = [[points[0]]]
    for before, point in pairwise(points):
        if point[0] - before[0] > gap:
            stretches.append([])
        stretches[-1].append(point)
    return stretches


def _bars(drawing: _Drawing, rows: Sequence[Series]) -> None:
    """Draw bars one second wide; what falls into one second stands on top of each other."""
    width = max(1.0, drawing.x(1) - drawing.x(0) - 1)
    heights: dict[float, float] = {}
    for series in rows:
        for x, y in series.points:
            below = heights.get(x, 0.0)
            heights[x] = below + y
            high, low = drawing.y(below + y), drawing.y(below)
            drawing.add(
                f'<rect x="{drawing.x(x)}" y="{high}" width="{width:.1f}" height="{max(0.5, low - high):.1f}" '
                f'fill="var(--{series.colour})"/>'
            )


def _marks(drawing: _Drawing) -> None:
    for mark, row in zip(drawing.chart.marks, drawing.rows, strict=True):
        x = drawing.x(mark.x)
        top = TOP + MOMENT_ROW * max(row, 0)
        drawing.add(
            f'<line class="moment {mark.kind}" x1="{x}" x2="{x}" y1="{top + 4}" y2="{drawing.bottom}"/>'
        )
        if row < 0:
            continue
        half = len(mark.name) * LETTER / 2
        anchor = "start" if x - half < LEFT else "end" if x + half > drawing.right else "middle"
        drawing.add(
            f'<text class="moment {mark.kind}" x="{x}" y="{top}" text-anchor="{anchor}">'
            f"{html.escape(mark.name)}</text>"
        )


def figure(chart: Chart) -> str:
    """Return a `figure` element: title, hint, legend, chart, and the data that the pointer shows."""
    legend = "".join(
        f'<span><i style="background:var(--{series.colour})"></i>{html.escape(series.name)}</span>'
        for series in chart.series
    )
    data = {
        "left": LEFT,
        "right": chart.width - RIGHT,
        "width": chart.width,
        "max": chart.x_max,
        "labels": list(chart.x_labels),
        "series": [
            {
                "name": series.name,
                "colour": series.colour,
                "points": [[x, chart.y_format(y)] for x, y in thinned(series.points)],
            }
            for series in chart.series
        ],
    }
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    wide = "wide" if chart.width > 700 else "half"
    return (
        f'<figure class="chart {wide}"><figcaption><h3>{html.escape(chart.title)}</h3>'
        f"<p>{html.escape(chart.hint)}</p></figcaption>"
        f'<div class="legend">{legend}</div><div class="plot">{svg(chart)}<div class="tip" hidden></div></div>'
        f'<script type="application/json">{packed}</script></figure>'
    )
