"""`loadtest/hlog.py`: the reader of the `hdrhistogram` package gets everything back."""

from collections import Counter
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from loadtest.hlog import log
from loadtest.latency import DIGITS, HIGHEST_US, LOWEST_US


def test_every_second_is_an_interval_and_the_sum_is_the_whole(tmp_path: Path) -> None:
    seconds = {0: Counter({1000: 3}), 2: Counter({5_000_000: 1, 2000: 6})}
    path = tmp_path / "delivery.hlog"
    path.write_text(log("delivery", seconds, 1_795_000_000_500), encoding="utf-8")
    reference = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)

    reader = HistogramLogReader(str(path), reference)
    intervals = []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        intervals.append(histogram)
    reader.close()

    assert reader.get_start_time_sec() == pytest.approx(1_795_000_000.5)
    assert [histogram.get_total_count() for histogram in intervals] == [3, 7]
    assert intervals[1].get_max_value() == pytest.approx(5_000_000, rel=0.001)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "HIST" in line]
    starts, lengths, maxima, _ = zip(*(line.split(",") for line in lines), strict=True)
    assert [float(value) for value in (*starts, *lengths)] == [0, 2, 1, 1]
    assert [float(value) for value in maxima] == pytest.approx([1, 5000], rel=0.001)
