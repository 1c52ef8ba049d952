"""Percentiles from buckets, ratios within rounds, tables and verdicts."""

import random

import pytest

from benchmarks.figures import (
    bucket_of,
    bucket_top_us,
    median,
    percentile_ms,
    ratio_within_rounds,
    shown,
    table,
    verdict,
)


@pytest.mark.parametrize("us", [0, 1, 127, 128, 129, 191, 192, 255, 256, 1_000, 65_535, 65_536, 123_456_789])
def test_bucket_holds_its_value_within_two_percent(us: int) -> None:
    bucket = bucket_of(us)

    assert bucket_of(bucket_top_us(bucket)) == bucket
    assert us <= bucket_top_us(bucket) <= us * 1.016 + 1


def test_buckets_are_in_order_and_without_gaps() -> None:
    tops = [bucket_top_us(bucket) for bucket in range(1_500)]

    assert tops == sorted(set(tops))
    assert all(bucket_of(top + 1) == bucket + 1 for bucket, top in enumerate(tops))


def test_percentile_is_close_to_that_of_the_values() -> None:
    rng = random.Random(7)
    values = sorted(int(rng.expovariate(1 / 20_000)) for _ in range(10_000))
    histogram: dict[int, int] = {}
    for value in values:
        histogram[bucket_of(value)] = histogram.get(bucket_of(value), 0) + 1

    for percent in (1, 50, 90, 99, 100):
        exact = values[max(0, len(values) * percent // 100 - 1)]
        assert percentile_ms(histogram, percent) == pytest.approx(exact / 1000, rel=0.02, abs=0.002)


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile_ms({}, 99) == 0.0


def test_median_of_nothing_is_none() -> None:
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0


def test_ratio_is_taken_within_each_round() -> None:
    """A round in which the whole machine was three times slower does not change it."""
    above = {1: 10.0, 2: 30.0, 3: 11.0}
    below = {1: 5.0, 2: 15.0, 3: 5.0}

    assert ratio_within_rounds(above, below) == 2.0


def test_ratio_leaves_out_rounds_that_one_side_does_not_have() -> None:
    assert ratio_within_rounds({1: 10.0, 2: None, 3: 9.0}, {2: 5.0, 3: 3.0}) == 3.0
    assert ratio_within_rounds({1: 10.0}, {2: 5.0}) is None
    assert ratio_within_rounds({1: 10.0}, {1: 0.0}) is None


def test_numbers_are_shown_for_people() -> None:
    assert shown(None) == "–"
    assert shown(12345.678, 1) == "12,345.7"


def test_table_is_markdown_with_numbers_to_the_right() -> None:
    assert table(["server", "µs"], [["a|b", "1.00"]]) == [
        "| server | µs |",
        "| --- | ---: |",
        "| a\\|b | 1.00 |",
    ]


@pytest.mark.parametrize(
    ("value", "least", "said"),
    [(1.24, False, "met"), (1.26, False, "**missed**"), (1.26, True, "met"), (1.24, True, "**missed**")],
)
def test_verdict_compares_with_its_limit(value: float, least: bool, said: str) -> None:
    assert verdict("x", value, 1.25, least=least)[3] == said


def test_verdict_on_nothing_is_not_a_pass() -> None:
    assert verdict("x", None, 1.25)[2:] == ("–", "not measured")
