"""Which chat a busy room shows: a budget, evenly spread, in order, and counted."""

from hypothesis import given
from hypothesis import strategies as st

from engine.fanout.thinning import Thinner

NOW = 1_000.0


def test_below_the_cap_everything_is_shown() -> None:
    thinner = Thinner(40)

    assert list(thinner.thin(range(40), NOW)) == list(range(40))


def test_no_cap_shows_everything() -> None:
    assert list(Thinner(0).thin(range(10_000), NOW)) == list(range(10_000))


def test_above_the_cap_the_shown_are_evenly_spread() -> None:
    assert list(Thinner(4).thin(range(12), NOW)) == [1, 4, 7, 10]


def test_spent_budget_shows_nothing_until_it_comes_back() -> None:
    thinner = Thinner(10)
    thinner.thin(range(10), NOW)

    assert list(thinner.thin(range(5), NOW)) == []
    assert list(thinner.thin(range(5), NOW + 0.1)) == [2]
    assert len(thinner.thin(range(50), NOW + 1.1)) == 10


def test_saved_budget_is_one_second_at_most() -> None:
    thinner = Thinner(10)

    assert len(thinner.thin(range(100), NOW + 3_600)) == 10


@given(
    per_s=st.integers(1, 100),
    flushes=st.lists(st.tuples(st.integers(0, 300), st.floats(0.0, 2.0)), min_size=1, max_size=30),
)
def test_any_traffic_keeps_order_and_cap(per_s: int, flushes: list[tuple[int, float]]) -> None:
    thinner = Thinner(per_s)
    now = NOW
    shown_total, first = 0, 0
    for count, pause_s in flushes:
        now += pause_s
        events = range(first, first + count)
        first += count
        shown = list(thinner.thin(events, now))
        assert shown == sorted(set(shown))
        assert set(shown) <= set(events)
        shown_total += len(shown)
        # What was saved up, and what came in since.
        assert shown_total <= per_s + (now - NOW) * per_s + 1e-6


@given(pauses_ms=st.lists(st.integers(20, 600), min_size=1, max_size=60))
def test_chat_evenly_paced_at_the_cap_is_all_shown(pauses_ms: list[int]) -> None:
    """40 events a second under a cap of 40, however the flushes fall."""
    thinner = Thinner(40)
    now_ms = arrived = 0
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        waiting = range(arrived, now_ms // 25)
        arrived = now_ms // 25

        assert len(thinner.thin(waiting, NOW + now_ms / 1000)) == len(waiting)


@given(pauses_ms=st.lists(st.integers(20, 600), min_size=1, max_size=60))
def test_after_a_burst_chat_at_the_cap_loses_next_to_nothing(pauses_ms: list[int]) -> None:
    thinner = Thinner(40)
    thinner.thin(range(1_000), NOW)
    now_ms = arrived = shown = 0
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        waiting = range(arrived, now_ms // 25)
        arrived = now_ms // 25
        shown += len(thinner.thin(waiting, NOW + now_ms / 1000))

    assert arrived - 2 <= shown <= arrived
