"""What a slow viewer loses: chat above 64 KiB, the connection above 1 MiB or after 10 s, facts never."""

import pytest

from engine.fanout.write_queue import SLOW_S_MAX, UNSENT_BYTES_MAX, UNSENT_BYTES_SLOW, SlowViewer, Verdict
from engine.gateway.transport import WRITE_BUFFER_BYTES_HIGH


def test_limits_are_the_documented_ones() -> None:
    """docs/protocol.md: facts only above 64 KiB; 4501 above 1 MiB or 10 s."""
    assert (UNSENT_BYTES_SLOW, UNSENT_BYTES_MAX, SLOW_S_MAX) == (64 * 1024, 1024 * 1024, 10.0)
    # The transport tells the hub at the same mark.
    assert WRITE_BUFFER_BYTES_HIGH == UNSENT_BYTES_SLOW


@pytest.mark.parametrize(
    ("unsent_bytes", "after_s", "verdict"),
    [
        (UNSENT_BYTES_SLOW + 1, 0.0, Verdict.FACTS_ONLY),
        (UNSENT_BYTES_MAX, SLOW_S_MAX, Verdict.FACTS_ONLY),
        (UNSENT_BYTES_MAX + 1, 0.0, Verdict.CLOSE),
        (UNSENT_BYTES_SLOW + 1, SLOW_S_MAX + 0.001, Verdict.CLOSE),
    ],
)
def test_verdict_follows_from_bytes_and_time(unsent_bytes: int, after_s: float, verdict: Verdict) -> None:
    assert SlowViewer(since_s=100.0).judge(unsent_bytes, 100.0 + after_s) is verdict
