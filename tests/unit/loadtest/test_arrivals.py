"""`loadtest/arrivals.py`: moments are seeded, in order, at the rate asked for, and within the server's limits."""

from itertools import pairwise

import pytest

from loadtest.arrivals import US_PER_S, Allowances, ArrivalProcess, arrivals, ramp, stream


@pytest.mark.parametrize("process", ["poisson", "uniform"])
def test_arrivals_have_the_rate_and_the_order_asked_for(process: ArrivalProcess) -> None:
    moments = list(arrivals(stream(7, "x"), process, 40, 5, 105))

    assert moments == sorted(moments)
    assert all(5 * US_PER_S <= moment < 105 * US_PER_S for moment in moments)
    # 4,000 expected; five standard deviations of a Poisson count are 316.
    assert abs(len(moments) - 4000) <= (316 if process == "poisson" else 1)


def test_poisson_arrivals_are_as_irregular_as_independent_people() -> None:
    moments = list(arrivals(stream(7, "x"), "poisson", 100, 0, 100))
    per_second = [0] * 100
    for moment in moments:
        per_second[moment // US_PER_S] += 1

    mean = sum(per_second) / 100
    variance = sum((count - mean) ** 2 for count in per_second) / 99
    # The index of dispersion of a Poisson process is 1; its standard error over 100 windows is 0.14.
    assert 0.5 < variance / mean < 1.5


def test_uniform_arrivals_keep_their_distance() -> None:
    moments = list(arrivals(stream(7, "x"), "uniform", 50, 0, 10))
    gaps = [after - before for before, after in pairwise(moments)]

    assert all(abs(gap - 20_000) <= 1 for gap in gaps)


def test_rate_of_zero_yields_nothing() -> None:
    assert list(arrivals(stream(1, "x"), "poisson", 0, 0, 100)) == []


def test_streams_of_one_seed_are_independent_and_repeatable() -> None:
    assert stream(1, "likes").random() == stream(1, "likes").random()
    assert stream(1, "likes").random() != stream(1, "comments").random()
    assert stream(1, "likes").random() != stream(2, "likes").random()


def test_ramp_gives_every_slot_one_viewer() -> None:
    moments = ramp(stream(3, "joins"), 2000, 10)

    assert moments == sorted(moments)
    assert [moment // 5_000 for moment in moments] == list(range(2000))


def test_ramp_of_no_length_is_a_storm() -> None:
    assert ramp(stream(3, "joins"), 5, 0) == [0] * 5


def test_allowance_is_a_token_bucket_per_actor() -> None:
    allowed = Allowances(per_s=1, burst=2)

    assert [allowed.take(1, 0), allowed.take(1, 0), allowed.take(1, 0)] == [True, True, False]
    assert allowed.take(2, 0)
    assert not allowed.take(1, 900_000)
    assert allowed.take(1, 1_000_000)
    assert not allowed.take(1, 1_000_000)
