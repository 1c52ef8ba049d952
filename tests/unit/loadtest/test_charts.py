"""`loadtest/charts.py`: scales hold everything, units suit, names do not overlap, text is escaped."""

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from loadtest.charts import (
    LEFT,
    POINTS_MAX,
    Chart,
    Mark,
    Series,
    decades,
    figure,
    mebibytes,
    milliseconds,
    plain,
    round_ticks,
    svg,
    thinned,
)


def a_chart(*series: Series, log: bool = False, marks: tuple[Mark, ...] = ()) -> Chart:
    return Chart(
        title="A <title>",
        hint="how & why",
        series=series,
        x_max=10,
        y_format=milliseconds,
        log=log,
        marks=marks,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "250 µs"), (1, "1 ms"), (12.345, "12.3 ms"), (999, "999 ms"), (1000, "1 s"), (5012, "5.01 s")],
)
def test_delays_have_the_unit_that_suits(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_sizes_and_counts_have_thousands_apart() -> None:
    assert mebibytes(512) == "512 MiB"
    assert mebibytes(2048) == "2 GiB"
    assert plain(1_234_567) == "1,234,567"
    assert plain(0.25) == "0.25"


@pytest.mark.parametrize("top", [0, 0.3, 1, 7, 99, 101, 1234, 5e6])
def test_ticks_are_round_and_reach_the_top(top: float) -> None:
    ticks = round_ticks(top, 4)

    assert ticks[0] == 0
    assert ticks[-1] >= top
    assert 2 <= len(ticks) <= 6
    steps = {round(later - earlier, 9) for earlier, later in pairwise(ticks)}
    assert len(steps) == 1


def test_decades_enclose_and_are_never_one() -> None:
    assert decades(3, 700) == (1, 1000)
    assert decades(1, 1) == (1, 10)


def test_thinning_keeps_the_highest_peak_and_the_order() -> None:
    points = [(float(place), 1.0) for place in range(10 * POINTS_MAX)]
    points[1234] = (1234.0, 99.0)

    kept = thinned(points)

    assert len(kept) <= POINTS_MAX
    assert (1234.0, 99.0) in kept
    assert kept == sorted(kept)


def test_drawing_is_well_formed_and_inside_its_box() -> None:
    line = Series("p99", "c2", [(0, 0.0), (5, 1234.5), (10, 3.0)])
    drawing = svg(a_chart(line, log=True))

    root = ET.fromstring(drawing)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    numbers = re.findall(r"([\d.]+) ([\d.]+)", root.find("path").attrib["d"])  # type: ignore[union-attr]
    assert len(numbers) == 3
    assert all(LEFT <= float(x) <= width and 0 <= float(y) <= height for x, y in numbers)


def test_line_stops_where_nothing_is_known() -> None:
    points = [(0.0, 1.0), (1.0, 1.0), (5.0, 1.0), (6.0, 1.0)]

    assert svg(a_chart(Series("x", "c1", points, gap=1.5))).count('class="line"') == 2
    assert svg(a_chart(Series("x", "c1", points))).count('class="line"') == 1


def test_bars_of_one_second_stand_on_each_other() -> None:
    low, high = (Series(name, "c1", [(2.0, 10.0)], "bars") for name in ("a", "b"))
    chart = Chart(title="t", hint="h", series=(low, high), x_max=10, y_format=plain, y_least=20, width=512)
    bars = ET.fromstring(svg(chart)).findall("rect")

    first, second = ({name: float(bar.attrib[name]) for name in ("y", "height")} for bar in bars)
    assert second["y"] + second["height"] == pytest.approx(first["y"], abs=0.2)


def test_names_close_together_get_rows_of_their_own() -> None:
    marks = (Mark(5, "the sale starts"), Mark(5.1, "killed the server", "fault"), Mark(5.2, ""))
    root = ET.fromstring(svg(a_chart(Series("x", "c1", [(0, 1.0)]), marks=marks)))

    names = [text for text in root.findall("text") if "moment" in text.attrib["class"]]
    assert [name.text for name in names] == ["the sale starts", "killed the server"]
    assert len({name.attrib["y"] for name in names}) == 2
    assert len([line for line in root.findall("line") if "moment" in line.attrib["class"]]) == 3


def test_no_text_can_become_markup() -> None:
    page = figure(a_chart(Series("</script><b>", "c1", [(0, 1.0)])))

    assert "<title>" not in page
    assert page.count("</script>") == 1
    data = json.loads(page.partition('json">')[2].partition("</script>")[0])
    assert data["series"][0]["name"] == "</script><b>"


def test_nothing_at_all_can_be_drawn() -> None:
    for log in (False, True):
        assert svg(a_chart(log=log)).startswith("<svg")
