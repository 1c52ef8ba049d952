"""`loadtest/timeline.py`: everything falls into its second, percentiles are exact, moments have names."""

from collections import Counter

from loadtest import timeline
from loadtest.history import CommentSeen, FactSeen, Frame, History, Outcome, ProcessHistory
from loadtest.plan import Actor, Plan, Step
from loadtest.planners import make
from loadtest.scenario import load
from loadtest.timeline import Moment, counts, moments, second_of


def a_plan(steps: list[Step]) -> Plan:
    plan = make(load("crowd", {"viewers.count": 1, "seconds": 4, "comments.per_s": 0, "likes.per_s": 0}), 1)
    return Plan(plan.scenario, 1, plan.actors, steps, plan.end_us)


def a_history(frames: list[Frame], outcomes: list[Outcome], faults: list[str] | None = None) -> History:
    return History("s", "r", 1, [ProcessHistory(0, frames, [], outcomes)], faults=faults or [])


def test_second_has_exact_ranks() -> None:
    second = second_of(3, Counter({1000: 50, 2000: 48, 9000: 1, 40_000: 1}))

    assert (second.at_s, second.count) == (3, 100)
    assert (second.p50_ms, second.p99_ms, second.max_ms) == (1.0, 9.0, 40.0)


def test_one_delay_is_every_percentile() -> None:
    assert second_of(0, Counter({700: 1})) == timeline.Second(0, 1, 0.7, 0.7, 0.7)


def test_delivery_falls_into_the_second_in_which_it_was_due() -> None:
    """A server that stands still shows in the second that waited, not in the one in which it went on."""
    comment = Step(1_500_000, 1, "send", {"cmd": "comment.send", "text": "x"})
    frame = Frame(0, [CommentSeen(1, 1, "s-v1", 0, 1)], {15_100: 1, 65_000: 2}, False)

    found = counts(a_plan([comment]), a_history([frame], []))

    assert found["delivery"] == {1: Counter({10_000: 1, 5_000_000: 2})}


def test_fact_counts_from_its_first_sight() -> None:
    frames = [
        Frame(number, [FactSeen(1, 1, "notice")], {20_000 + 10 * number: 1}, False) for number in (0, 3)
    ]

    assert counts(a_plan([]), a_history(frames, []))["fact"] == {2: Counter({0: 1, 3000: 1})}


def test_answers_are_counted_by_the_second_of_the_answer() -> None:
    say = Step(0, 1, "send", {"cmd": "comment.send", "text": "x"})
    outcomes = [
        Outcome(0, "comment.send", "ok", 900_000, 900_000, 1_100_000, 1),
        Outcome(1, "comment.send", "rate_limited", 900_000, 900_000, 2_100_000),
    ]
    plan, history = a_plan([say, say]), a_history([], outcomes)
    found = counts(plan, history)

    line = timeline.build(plan, history, found, [], [])

    assert line.accepted == {"comment.send": {1: 1}}
    assert line.refused == {"comment.send rate_limited": {2: 1}}
    assert [second.at_s for second in line.delays["reply"]] == [0]
    assert "claim" not in line.delays


def test_sales_packets_and_faults_have_names() -> None:
    plan = make(load("seckill", {"viewers.count": 9, "seckill.claims": 20}), 1)

    found = moments(plan, ["at 9.25 s: killed the server, process 7, which was back after 1.0 s"])

    assert [moment.name for moment in found] == ["start of the sale", "killed the server", "sale ends"]
    assert found[0].at_s == plan.peak_us / 1e6
    assert found[1] == Moment(9.25, "killed the server", "fault")


def test_packets_open_and_expire() -> None:
    overrides = {
        "viewers.count": 40,
        "redpacket.shares": 8,
        "redpacket.grabbers": 20,
        "redpacket.packets": 1,
    }
    plan = make(load("redpacket", overrides), 1)

    assert [moment.name for moment in moments(plan, [])] == [
        "first packet opens",
        "packet opens",
        "packet expires",
    ]


def test_planned_returns_are_not_joins_and_slow_readers_do_not_count() -> None:
    steps = [Step(0, 1, "join", {}), Step(1, 1, "away", {}), Step(2, 1, "join", {}), Step(3, 2, "join", {})]
    outcomes = [Outcome(number, "room.join", "ok", 0, 0, 1000 * (number + 1)) for number in (0, 2, 3)]
    plan = a_plan(steps)
    plan.actors.append(Actor("v2", "慢慢来", "viewer", 0, 1000))

    found = counts(plan, a_history([], outcomes))

    assert found["join"] == {0: Counter({1000: 1})}
    assert found["resume"] == {0: Counter({3000: 1})}
