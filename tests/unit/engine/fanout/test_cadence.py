"""When a room speaks next: idle at once, busy after a pause, facts always, gauges seldom."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fanout.cadence import (
    EASY_PAUSE_S_MAX,
    GAUGE_PERIOD_S,
    GAUGES_PAUSE_S_MAX,
    PAUSE_PER_COST,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    Cadence,
)

NOW = 1_000.0


def test_idle_room_sends_at_once() -> None:
    cadence = Cadence()

    assert cadence.next_flush_at(NOW, facts=False, chat=True, gauges=False) == NOW
    assert cadence.next_flush_at(NOW, facts=False, chat=False, gauges=True) == NOW


def test_nothing_pending_needs_no_flush() -> None:
    assert Cadence().next_flush_at(NOW, facts=False, chat=False, gauges=False) is None


@pytest.mark.parametrize(
    ("cost_s", "pause_s"),
    [
        (0.0, PAUSE_S_MIN),
        (0.003, PAUSE_S_MIN),
        (0.010, 0.060),  # Six times, while nobody notices.
        (0.020, EASY_PAUSE_S_MAX),
        (0.050, EASY_PAUSE_S_MAX),
        (0.1, 0.150),  # Half as much again, since the loop belongs to others too.
        (0.4, PAUSE_S_MAX),
        (3.0, 0.5),
    ],
)
def test_chat_waits_in_proportion_to_what_the_last_flush_cost_within_bounds(
    cost_s: float, pause_s: float
) -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + cost_s, with_gauges=False)

    at = cadence.next_flush_at(NOW + cost_s, facts=False, chat=True, gauges=False)

    assert at == pytest.approx(NOW + cost_s + pause_s)


def test_facts_do_not_wait() -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + 0.2, with_gauges=True)

    assert cadence.next_flush_at(NOW + 0.2, facts=True, chat=True, gauges=True) == NOW + 0.2


def test_gauges_alone_go_out_at_most_every_200_ms() -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + 0.001, with_gauges=True)

    assert not cadence.gauges_due(NOW + 0.199)
    at = cadence.next_flush_at(NOW + 0.05, facts=False, chat=False, gauges=True)
    assert at == pytest.approx(NOW + GAUGE_PERIOD_S)
    assert cadence.gauges_due(NOW + GAUGE_PERIOD_S)


@pytest.mark.parametrize(("cost_s", "pause_s"), [(0.05, 0.45), (0.1, 0.9), (0.4, GAUGES_PAUSE_S_MAX)])
def test_gauges_alone_take_a_tenth_of_the_loop_at_most_and_wait_a_second_at_most(
    cost_s: float, pause_s: float
) -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + cost_s, with_gauges=True)

    at = cadence.next_flush_at(NOW + cost_s, facts=False, chat=False, gauges=True)

    assert at == pytest.approx(NOW + cost_s + pause_s)


def test_gauges_ride_along_with_chat_before_they_would_go_alone() -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + 0.1, with_gauges=True)

    at = cadence.next_flush_at(NOW + 0.1, facts=False, chat=True, gauges=True)

    assert at == pytest.approx(NOW + 0.1 + 0.15)
    assert not cadence.gauges_due(NOW + 0.199)
    assert cadence.gauges_due(at)


def test_flush_without_gauges_does_not_put_them_off() -> None:
    cadence = Cadence()
    cadence.flushed(NOW, NOW + 0.001, with_gauges=False)

    assert cadence.gauges_due(NOW + 0.001)
    assert cadence.next_flush_at(NOW + 0.5, facts=False, chat=False, gauges=True) == NOW + 0.5


@given(costs_s=st.lists(st.floats(0.0001, 2.0), min_size=1, max_size=50))
def test_room_that_always_has_chat_spends_at_most_two_fifths_of_its_time_on_it(costs_s: list[float]) -> None:
    """Above the longest pause only; a flush that costs more than that pause can make up for is capped by it."""
    cadence = Cadence()
    now, starts = NOW, []
    for cost_s in costs_s:
        at = cadence.next_flush_at(now, facts=False, chat=True, gauges=False)
        assert at is not None
        assert at >= now
        starts.append(at)
        now = at + cost_s
        cadence.flushed(at, now, with_gauges=False)

    for (start, following), cost_s in zip(pairwise(starts), costs_s, strict=False):
        pause_s = following - start - cost_s
        assert pause_s >= min(PAUSE_PER_COST * cost_s, PAUSE_S_MAX) - 1e-6
        assert PAUSE_S_MIN - 1e-6 <= pause_s <= PAUSE_S_MAX + 1e-6
