"""A crowd with moments: each happens when it should, and every step of it is lawful."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from loadtest.arrivals import US_PER_S
from loadtest.plan import CONSOLE, MAIN_ROOM, Plan, Step, fill
from loadtest.planners import make
from loadtest.scenario import ScenarioError, available, load
from loadtest.talk import COMMENT_BURST
from protocol import commands
from protocol.codes import ROLE_BY_NAME

RUN = "s42tmwqwvvlj"


def evening(**numbers: Any) -> Plan:
    return make(load("evening", {name.replace("__", "."): value for name, value in numbers.items()}), 11)


def sent(plan: Plan, cmd: str) -> list[Step]:
    return [step for step in plan.steps if step.command.get("cmd") == cmd]


@pytest.mark.parametrize("name", available())
def test_every_scenario_makes_the_same_plan_twice(name: str) -> None:
    scenario = load(
        name, {"viewers.count": 200} | ({"redpacket.grabbers": 200} if name == "redpacket" else {})
    )

    assert make(scenario, 42).to_bytes() == make(scenario, 42).to_bytes()


def test_plan_does_not_depend_on_how_python_hashes() -> None:
    code = "from loadtest import planners, scenario; print(planners.make(scenario.load('evening', {}), 7).digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert digests == {make(load("evening", {}), 7).digest() + "\n"}


def test_every_step_of_an_evening_is_lawful_for_one_who_is_there() -> None:
    plan = evening()
    there: set[int] = set()
    gone: set[int] = set()
    kinds = Counter[str]()
    for number, step in enumerate(plan.steps):
        kinds[step.verb] += 1
        if step.verb == "join":
            assert step.actor not in there | gone
            there.add(step.actor)
            continue
        assert step.actor in there, (number, step)
        if step.verb == "away":
            there.discard(step.actor)
        elif step.verb == "leave":
            there.discard(step.actor)
            gone.add(step.actor)
        elif step.verb == "send":
            filled = fill(step.command, RUN, number, lambda moment_us: 1_795_000_000_000 + moment_us // 1000)
            filled.setdefault("key", f"s1t2-{number:06}")
            command = commands.parse({"id": 1, "batch": number, **filled})
            assert ROLE_BY_NAME[plan.actors[step.actor].role] >= command.role

    assert plan.rooms == 2
    assert min(kinds[verb] for verb in ("join", "send", "cut", "away", "leave")) > 50
    assert [step.at_us for step in plan.steps] == sorted(step.at_us for step in plan.steps)


def test_evening_has_its_moments_in_order() -> None:
    marks = evening().moments

    assert [mark.name for mark in marks if not mark.name.endswith("announced")] == [
        "doors_open", "warm_up", "explain_items", "seckill_one", "red_packet_rain", "notice", "seckill_two",
        "quiz", "goodbye",
    ]  # fmt: skip
    assert [mark.at_us for mark in marks] == sorted(mark.at_us for mark in marks)


def test_sales_of_one_evening_share_no_key() -> None:
    plan = evening()
    keys: dict[tuple[int, str], str] = {}
    for step in sent(plan, "seckill.claim"):
        assert (
            keys.setdefault((step.actor, step.command["key"]), step.command["sale"]) == step.command["sale"]
        )
        assert plan.actors[step.actor].room == MAIN_ROOM

    assert {step.command["sale"] for step in sent(plan, "seckill.schedule")} == set(keys.values())
    assert len(sent(plan, "redpacket.send")) == 4
    assert {step.actor for step in sent(plan, "seckill.schedule")} == {CONSOLE}


def test_numbers_of_a_moment_are_overridden_by_its_name() -> None:
    plan = evening(moments__seckill_one__stock=7, moments__seckill_one__claims=300)
    stocks = [step.command["stock"] for step in sent(plan, "seckill.schedule")]

    assert stocks == [7, 30]
    assert len(sent(plan, "seckill.claim")) == 2300


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"moments.seckill_one.stok": 7}, r"moments\.seckill_one\.stock"),
        ({"moments.seckill_three.stock": 7}, r"seckill_three\.does"),
        ({"moments.quiz.does": "riddle"}, "riddle"),
        ({"moments.quiz.share": 1.5}, "1.0"),
        ({"moments.Quiz.does": "quiz"}, "a-z"),
        ({"seconds": 60}, "too short"),
        ({"moments.seckill_one.lasts_s": 1}, "lasts_s"),
    ],
)
def test_wrong_moment_is_an_error_that_says_which(numbers: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        make(load("evening", numbers), 1)


@pytest.mark.parametrize(
    "numbers",
    [
        {"rooms.count": 2},
        {"viewers.dwell_s": 30},
        {"habits.flapper_share": 0.1},
        {"moments.push.does": "arrive", "moments.push.at_s": 3},
    ],
)
def test_campaign_alone_does_not_pretend_to_know_a_crowds_numbers(numbers: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match="crowd"):
        make(load("seckill", numbers), 1)


def test_larger_rooms_say_less_per_viewer() -> None:
    scenario = load(
        "crowd",
        {"rooms.count": 2, "rooms.zipf": 2, "viewers.count": 1000, "seconds": 300, "viewers.ramp_s": 2},
    )
    plan = make(scenario, 5)
    sizes = Counter(actor.room for actor in plan.actors if actor.role == "viewer")
    said = Counter(plan.actors[step.actor].room for step in sent(plan, "comment.send"))

    assert said[0] + said[1] == pytest.approx(300 * 40, rel=0.05)
    per_viewer = [said[room] / sizes[room] for room in (0, 1)]
    # n to the power 0.6 in all, so n to the power -0.4 each.
    assert per_viewer[0] / per_viewer[1] == pytest.approx((sizes[0] / sizes[1]) ** -0.4, rel=0.1)


def test_talk_can_follow_the_size_of_the_room() -> None:
    def said(viewers: int) -> int:
        numbers = {"viewers.count": viewers, "comments.at_viewers": 100, "comments.per_s": 5, "seconds": 200}
        return len(sent(make(load("crowd", numbers), 5), "comment.send"))

    assert said(1600) / said(100) == pytest.approx(16**0.6, rel=0.15)


def test_rush_and_quiz_add_to_what_is_said_within_the_limits() -> None:
    plan = evening(comments__per_s=0)
    rush = [step for step in sent(plan, "comment.send") if step.at_us < 30 * US_PER_S]
    quiz = [step for step in sent(plan, "comment.send") if step.at_us > 100 * US_PER_S]

    assert len(rush) == pytest.approx(80, abs=30)
    assert all(16 * US_PER_S <= step.at_us <= 26 * US_PER_S for step in rush)
    assert len(quiz) == pytest.approx(0.4 * 330, abs=30)
    assert Counter(step.actor for step in quiz).most_common(1)[0][1] <= COMMENT_BURST + 6


def test_push_message_brings_as_many_as_it_says() -> None:
    plan = make(load("join_storm", {"moments.push.viewers": 300}), 2)
    joins = [step.at_us for step in plan.steps if step.verb == "join"]

    assert len(plan.actors) == 1 + 200 + 300
    assert sum(10 * US_PER_S <= at_us < 12 * US_PER_S for at_us in joins) == 300
    assert plan.connections_max() == 501


def test_connections_of_a_storm_are_not_counted_twice() -> None:
    plan = make(load("reconnect_storm", {"viewers.count": 100}), 2)

    assert plan.connections_max() == 101


@pytest.mark.parametrize(
    "data",
    [b"", b"no plan", Plan.to_bytes(make(load("crowd", {"viewers.count": 50, "comments.per_s": 1}), 1))[:-9]],
)
def test_file_that_is_no_plan_is_an_error(data: bytes) -> None:
    with pytest.raises(ScenarioError, match="not a plan"):
        Plan.from_bytes(data)


def test_plan_whose_steps_are_nobodys_is_an_error() -> None:
    plan = make(load("crowd", {"viewers.count": 50, "comments.per_s": 1}), 1)
    plan.actors.pop()

    with pytest.raises(ScenarioError, match="nobody"):
        Plan.from_bytes(plan.to_bytes())
