"""Splitting money into shares."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CommandRejected
from engine.rooms.red_packets import SHARES_MAX, check, split_even, split_lucky
from protocol.codes import ErrorCode

BIG = 2**53 - 1


@st.composite
def packets(draw: st.DrawFn) -> tuple[int, int, int]:
    """Money, shares and least cents of a packet that can be split."""
    shares = draw(st.integers(1, 300))
    least = draw(st.integers(1, 1_000))
    spare = draw(st.one_of(st.integers(0, 5), st.integers(0, 10**6), st.just(BIG - shares * least)))
    return shares * least + spare, shares, least


@given(packets(), st.integers(0, 2**32))
def test_lucky_shares_are_the_money_and_each_is_large_enough(packet: tuple[int, int, int], seed: int) -> None:
    total, shares, least = packet

    parts = split_lucky(total, shares, least, random.Random(seed))

    assert (len(parts), sum(parts)) == (shares, total)
    assert min(parts) >= least
    assert {type(part) for part in parts} == {int}


@given(packets())
def test_even_shares_differ_by_a_cent_at_most_and_the_first_get_it(packet: tuple[int, int, int]) -> None:
    total, shares, least = packet

    parts = split_even(total, shares)

    assert (len(parts), sum(parts)) == (shares, total)
    assert min(parts) >= least
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)


@given(packets(), st.integers(0, 2**32))
def test_no_lucky_share_is_above_twice_the_mean_of_what_was_left(
    packet: tuple[int, int, int], seed: int
) -> None:
    total, shares, least = packet

    parts = split_lucky(total, shares, least, random.Random(seed))

    left = total
    for still, part in zip(range(shares, 1, -1), parts, strict=False):
        assert part <= max(least, 2 * (left // still) - least)
        left -= part


def test_late_grabbers_expect_as_much_as_early_ones() -> None:
    """The mean of every place is the mean of the packet, within five standard errors of the sample."""
    rounds, shares, total = 4_000, 10, 10_000
    rng = random.Random(20)
    sums = [0.0] * shares
    squares = [0.0] * shares
    for _ in range(rounds):
        for place, part in enumerate(split_lucky(total, shares, 1, rng)):
            sums[place] += part
            squares[place] += part * part
    for place in range(shares):
        mean = sums[place] / rounds
        deviation = (squares[place] / rounds - mean**2) ** 0.5
        assert abs(mean - total / shares) < 5 * deviation / rounds**0.5 + 1, place


def test_one_share_is_the_whole_packet() -> None:
    assert split_lucky(BIG, 1, 1, random.Random(0)) == [BIG]
    assert split_even(BIG, 1) == [BIG]


def test_two_cents_for_two_are_one_each() -> None:
    assert Counter(map(tuple, (split_lucky(2, 2, 1, random.Random(seed)) for seed in range(50)))) == {
        (1, 1): 50
    }


@pytest.mark.parametrize(
    ("total", "shares", "least"), [(1, 1, 1), (10, 10, 1), (BIG, SHARES_MAX, 1), (200, 2, 100)]
)
def test_packet_that_can_be_split_is_accepted(total: int, shares: int, least: int) -> None:
    check(total, shares, least)


@pytest.mark.parametrize(
    ("total", "shares", "least"),
    [(9, 10, 1), (199, 2, 100), (BIG, SHARES_MAX + 1, 1), (BIG, 2, BIG), (1, BIG, 1)],
)
def test_packet_that_cannot_be_split_is_refused(total: int, shares: int, least: int) -> None:
    with pytest.raises(CommandRejected) as refused:
        check(total, shares, least)

    assert refused.value.code is ErrorCode.BAD_QUANTITY
