"""Rates: a bucket that is one number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rooms.limits import Bucket


def test_burst_passes_at_once_and_the_next_waits_for_one_period() -> None:
    bucket = Bucket(per_s=2, burst=3)

    assert [bucket.take(10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(10.0) == pytest.approx(0.5)


def test_waiting_as_long_as_told_is_enough() -> None:
    bucket = Bucket(per_s=3, burst=2)
    bucket.take(0.0)
    bucket.take(0.0)
    wait_s = bucket.take(0.0)

    assert bucket.take(wait_s) == 0.0


def test_refused_attempts_cost_nothing() -> None:
    bucket = Bucket(per_s=1, burst=1)
    bucket.take(0.0)
    for _ in range(100):
        assert bucket.take(0.5) > 0

    assert bucket.take(1.0) == 0.0


def test_bucket_fills_no_further_than_its_burst() -> None:
    bucket = Bucket(per_s=1, burst=2)

    assert [bucket.take(1_000.0) > 0 for _ in range(3)] == [False, False, True]


def test_bucket_is_full_again_after_its_time() -> None:
    bucket = Bucket(per_s=2, burst=2)

    assert bucket.is_full(0.0)
    bucket.take(0.0)
    assert not bucket.is_full(0.49)
    assert bucket.is_full(0.5)


@given(
    per_s=st.sampled_from([0.5, 1.0, 5.0, 50.0]),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_no_window_holds_more_than_the_rate_and_one_burst(
    per_s: float, burst: int, gaps: list[float]
) -> None:
    bucket = Bucket(per_s, burst)
    now, allowed = 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now) == 0.0:
            allowed.append(now)

    for first, begin in enumerate(allowed):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + (allowed[last] - begin) * per_s + 1e-6
