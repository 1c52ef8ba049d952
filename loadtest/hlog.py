"""
Histogram logs: the delays of a run as the tools of HdrHistogram read them.

Decides what is written: for every subject one file, and in it one line for every second with something in it, each a
complete histogram of microseconds. Adding the lines up gives the histogram of `summary.json`; any stretch of them gives
that of the stretch. Writes text, opens no file.

Source: the log format 1.2 of HdrHistogram, written by the `hdrhistogram` package.
"""

import io
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from loadtest.latency import DIGITS, HIGHEST_US, LOWEST_US

SUFFIX: Final = ".hlog"
#: The maximum of a line is in milliseconds, the histogram itself in microseconds.
_US_PER_MS: Final = 1000.0


def log(subject: str, seconds: Mapping[int, Counter[int]], started_ms: int) -> str:
    """
    Return the log of one subject.

    Args:
        subject: Such as "delivery"; stands in a comment.
        seconds: Second of the run → delay in microseconds → how many.
        started_ms: The start of the run, milliseconds since 1970.
    """
    text = io.StringIO()
    writer = HistogramLogWriter(text)
    writer.output_comment(f"[{subject}: delays in microseconds, one line a second]")
    writer.output_log_format_version()
    started = datetime.fromtimestamp(started_ms / 1000, UTC).isoformat()
    writer.output_comment(f"[StartTime: {started_ms / 1000:.3f} (seconds since epoch), {started}]")
    writer.output_legend()
    for second in sorted(seconds):
        histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        for delay_us, count in seconds[second].items():
            histogram.record_value(min(max(delay_us, LOWEST_US), HIGHEST_US), count)
        # The writer takes a start of zero for none given, and then asks the histogram.
        histogram.set_start_time_stamp(second * 1000)
        histogram.set_end_time_stamp((second + 1) * 1000)
        writer.output_interval_histogram(histogram, max_value_unit_ratio=_US_PER_MS)
    return text.getvalue()
