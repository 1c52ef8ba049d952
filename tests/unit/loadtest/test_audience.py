"""`loadtest/audience.py`: who is where when; seeded, and nobody in two places."""

import math
from collections import Counter
from typing import Any

import pytest

from loadtest.arrivals import US_PER_S
from loadtest.audience import NEVER_US, STAY_MIN_US, Audience, Sweep, Visit, gather, room_sizes
from loadtest.plan import FORGED, MAIN_ROOM
from loadtest.planners import make
from loadtest.scenario import Scenario, ScenarioError, load

END_US = 120 * US_PER_S


def crowd(**numbers: Any) -> Scenario:
    base = {"viewers.count": 400, "seconds": 110, "viewers.ramp_s": 10}
    return load("crowd", base | {name.replace("__", "."): value for name, value in numbers.items()})


def test_rooms_follow_zipf_and_hold_everybody() -> None:
    sizes = room_sizes(crowd(rooms__count=4, viewers__count=1000))

    assert sum(sizes) == 1000
    assert sizes == sorted(sizes, reverse=True)
    # 1 : 1/2 : 1/3 : 1/4.
    assert [size / sizes[0] for size in sizes] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4], abs=0.02)
    assert len(set(room_sizes(crowd(rooms__count=4, rooms__zipf=0)))) == 1
    with pytest.raises(ScenarioError, match=r"rooms\.count"):
        room_sizes(crowd(rooms__count=5, viewers__count=4))


def test_stays_are_log_normal_and_seats_stay_taken() -> None:
    scenario = crowd(viewers__dwell_s=20, viewers__dwell_sigma=0.5, viewers__count=1000)
    audience = gather(scenario, 3, END_US)
    # Of those who come early enough to leave before the end, however long they stay.
    stays = sorted(
        visit.goes_us - visit.comes_us for visit in audience.visits if visit.comes_us < 30 * US_PER_S
    )
    logs = [math.log(stay / US_PER_S) for stay in stays if stay < NEVER_US // 2]

    assert len(logs) == len(stays)
    assert math.exp(logs[len(logs) // 2]) == pytest.approx(20, rel=0.1)
    mean = sum(logs) / len(logs)
    assert math.sqrt(sum((log - mean) ** 2 for log in logs) / len(logs)) == pytest.approx(0.5, abs=0.06)
    for at_us in range(20 * US_PER_S, END_US, 10 * US_PER_S):
        present = sum(visit.here(at_us) for visit in audience.visits)
        assert 950 < present <= 1000


def test_without_dwell_everybody_stays() -> None:
    audience = gather(crowd(), 3, END_US)

    assert len(audience.visits) == 400
    assert {visit.goes_us for visit in audience.visits} == {NEVER_US}
    assert not any(visit.away for visit in audience.visits)


def test_habits_are_had_by_as_many_as_the_scenario_says() -> None:
    audience = gather(
        crowd(
            viewers__count=2000,
            habits__background_share=0.2,
            habits__background_every_s=20,
            habits__flapper_share=0.05,
            habits__slow_share=0.1,
        ),
        3,
        END_US,
    )
    often = sum(len(visit.away) > 8 for visit in audience.visits)
    away = sum(bool(visit.away) for visit in audience.visits)
    slow = sum(visit.reads_bytes_s == 4000 for visit in audience.visits)

    assert away == pytest.approx(500, abs=80)
    assert often == pytest.approx(100, abs=30)
    assert slow == pytest.approx(200, abs=50)


def test_times_away_leave_time_to_act_between_them() -> None:
    audience = gather(
        crowd(habits__flapper_share=1, viewers__dwell_s=20, habits__flapper_every_s=2), 5, END_US
    )

    assert sum(len(visit.away) for visit in audience.visits) > 1000
    for visit in audience.visits:
        moments = [visit.comes_us, *(moment for times in visit.away for moment in times)]
        moments.append(min(visit.goes_us, END_US))
        assert moments == sorted(moments)
        # Present, away, present, away …, present.
        present = [end - begin for begin, end in zip(moments[::2], moments[1::2], strict=True)]
        assert all(length >= STAY_MIN_US for length in present[:-1] or [STAY_MIN_US])


def test_nobody_is_counted_on_near_a_change() -> None:
    visit = Visit(0, 0, 20 * US_PER_S, [(8 * US_PER_S, 10 * US_PER_S)])

    assert list(visit.spans()) == [(1_000_000, 7_000_000), (11_000_000, 19_000_000)]
    assert visit.available(1_000_000)
    assert not visit.available(7_000_000)
    assert not visit.available(10_500_000)
    assert not visit.available(19_000_000)


def test_sweep_agrees_with_asking_each() -> None:
    audience = gather(
        crowd(rooms__count=2, viewers__dwell_s=15, habits__background_share=0.5, viewers__count=60), 7, END_US
    )
    for room in (0, 1):
        sweep = Sweep(audience, room)
        for at_us in range(0, END_US, 777_777):
            expected = {viewer for viewer in audience.of_room(room) if audience.available(viewer, at_us)}
            found = sweep.at(at_us)
            assert set(found) == expected
            assert len(found) == len(expected)


def test_links_branch_as_the_scenario_says_and_stay_in_the_room() -> None:
    plan = make(
        crowd(viewers__count=6000, shares__via_ratio=0.4, shares__forged_ratio=0.01, rooms__count=2), 3
    )
    joins = {step.actor: step for step in reversed(plan.steps) if step.verb == "join"}
    via = {actor: step.command["via"] for actor, step in joins.items() if "via" in step.command}
    brought = Counter(inviter for inviter in via.values() if inviter != FORGED)

    assert sum(brought.values()) / 6000 == pytest.approx(0.4, abs=0.05)
    assert sum(brought.values()) / len(brought) == pytest.approx(1.3, abs=0.05)
    assert max(brought.values()) > 4
    for actor, inviter in via.items():
        if inviter != FORGED:
            assert plan.actors[actor].room == plan.actors[inviter].room
            assert joins[inviter].at_us < joins[actor].at_us


def test_storm_breaks_all_and_brings_them_back() -> None:
    scenario = load(
        "reconnect_storm", {"viewers.count": 200, "habits.background_share": 0, "habits.flapper_share": 0}
    )
    audience = gather(scenario, 3, 40 * US_PER_S)
    first = [times for visit in audience.visits for times in visit.away if times[0] < 13 * US_PER_S]

    assert len(first) > 180
    assert all(12 * US_PER_S <= leaves <= 12.1 * US_PER_S for leaves, _ in first)
    assert all(12.5 * US_PER_S <= back <= 14.6 * US_PER_S for _, back in first)


def test_goodbye_empties_the_main_room_only() -> None:
    scenario = load("evening", {})
    audience = gather(scenario, 3, 145 * US_PER_S)

    def present(room: int, at_s: float) -> int:
        at_us = int(at_s * US_PER_S)
        return sum(visit.room == room and visit.here(at_us) for visit in audience.visits)

    assert present(MAIN_ROOM, 139) < 0.5 * present(MAIN_ROOM, 127)
    assert present(1, 139) > 0.9 * present(1, 127)


def test_stays_too_short_for_a_plan_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.audience.VISITS_MAX", 1000)

    with pytest.raises(ScenarioError, match="dwell_s"):
        gather(crowd(viewers__dwell_s=3), 3, END_US)


def test_consoles_of_other_rooms_come_behind_the_viewers() -> None:
    audience = Audience([Visit(0, 0), Visit(1, 0)], [1, 1])
    actors = audience.actors(1)

    assert [(actor.id, actor.room) for actor in actors] == [
        ("console", 0), ("v1", 0), ("v2", 1), ("console1", 1),
    ]  # fmt: skip
    assert actors[audience.console(1)].role == "streamer"
