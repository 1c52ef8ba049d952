"""`loadtest/plan.py`: one seed, one plan, byte for byte; and every step is lawful for the one who takes it."""

from collections import Counter

import pytest

from loadtest.audience import INVITER_APART
from loadtest.plan import CONSOLE, FORGED, Plan, Step, fill
from loadtest.planners import PLANNERS, make
from loadtest.scenario import Scenario, ScenarioError, load
from protocol import commands
from protocol.codes import ROLE_BY_NAME

RUN = "s42tmwqwvvlj"


def a_crowd(**overrides: float) -> Scenario:
    numbers = {
        "viewers.count": 100,
        "seconds": 30,
        "comments.per_s": 20,
        "likes.per_s": 100,
        "facts.per_s": 2,
    }
    return load("crowd", numbers | {name.replace("__", "."): value for name, value in overrides.items()})


def test_same_seed_gives_the_same_bytes() -> None:
    assert make(a_crowd(), 42).to_bytes() == make(a_crowd(), 42).to_bytes()
    assert make(a_crowd(), 42).digest() == make(a_crowd(), 42).digest()


def test_plan_of_a_known_seed_stays_what_it_was() -> None:
    """A plan is a file people keep: if this changes on purpose, say so in the changelog."""
    assert make(a_crowd(), 42).digest() == "246cb901b4e15ed6"


def test_other_seed_gives_another_plan() -> None:
    assert make(a_crowd(), 42).steps != make(a_crowd(), 43).steps


def test_plan_survives_its_file() -> None:
    plan = make(a_crowd(), 42)

    again = Plan.from_bytes(plan.to_bytes())

    assert again == plan
    assert (again.digest(), again.to_bytes()) == (plan.digest(), plan.to_bytes())


def test_rates_are_those_asked_for_once_everybody_is_there() -> None:
    plan = make(a_crowd(seconds=200, viewers__ramp_s=5), 1)
    steady = [step for step in plan.steps if step.at_us >= 5_000_000]
    counts = Counter(step.command.get("cmd") for step in steady)
    taps = sum(step.command["n"] for step in steady if step.command.get("cmd") == "like.send")

    assert abs(counts["comment.send"] - 4000) < 316
    # 2,000 batches of 10 on average; sizes are exponential and capped, so the sum is within 15 %.
    assert abs(taps / 20_000 - 1) < 0.15
    assert len([step for step in steady if step.actor == CONSOLE]) == pytest.approx(400, abs=1)


def test_more_likes_leave_the_comments_as_they_were() -> None:
    quiet, loud = make(a_crowd(), 5), make(a_crowd(likes__per_s=200), 5)

    def comments(plan: Plan) -> list[tuple[int, int, str]]:
        return [
            (step.at_us, step.actor, step.command["text"])
            for step in plan.steps
            if step.command.get("cmd") == "comment.send"
        ]

    assert comments(quiet) == comments(loud)
    assert len(comments(quiet)) > 300


def test_steps_are_in_order_and_nobody_acts_before_joining() -> None:
    plan = make(a_crowd(), 9)
    joined: set[int] = set()
    for step in plan.steps:
        if step.verb == "join":
            assert step.actor not in joined
            joined.add(step.actor)
        else:
            assert step.actor in joined

    assert [step.at_us for step in plan.steps] == sorted(step.at_us for step in plan.steps)
    assert joined == set(range(101))


def test_every_command_is_one_the_protocol_knows_for_that_role() -> None:
    plan = make(a_crowd(facts__per_s=20), 9)
    seen = set()
    for number, step in enumerate(plan.steps):
        if step.verb != "send":
            continue
        filled = fill(step.command, RUN, number, lambda moment_us: 1_795_000_000_000 + moment_us // 1000)
        filled.setdefault("key", f"s1t2-{number:06}")
        command = commands.parse({"id": 1, "batch": number, **filled})
        assert ROLE_BY_NAME[plan.actors[step.actor].role] >= command.role
        # Cleaning must change nothing, or what viewers see could not be compared with what was sent.
        assert all(
            getattr(command, field) == value for field, value in filled.items() if field not in ("cmd", "key")
        )
        seen.add(command.name())

    assert seen == {
        "comment.send", "like.send", "notice.set", "item.put", "item.remove", "item.explain", "item.unexplain",
    }  # fmt: skip


def test_nobody_is_planned_beyond_one_comment_per_second() -> None:
    plan = make(a_crowd(viewers__count=25, comments__per_s=20, seconds=60), 3)
    per_viewer: dict[int, list[int]] = {}
    for step in plan.steps:
        if step.command.get("cmd") == "comment.send":
            per_viewer.setdefault(step.actor, []).append(step.at_us)

    for moments in per_viewer.values():
        for place, begin in enumerate(moments):
            for count, end in enumerate(moments[place:], start=1):
                # The server allows a burst of 5 and 1 per second.
                assert count <= 5 + (end - begin) / 1e6


def test_more_than_viewers_may_say_is_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"comments\.per_s"):
        make(a_crowd(viewers__count=5, comments__per_s=20), 1)


def test_unknown_planner_is_an_error() -> None:
    scenario = load("crowd", {"plays": "opera"})

    with pytest.raises(ScenarioError, match="opera"):
        make(scenario, 1)
    assert "crowd" in PLANNERS


# --- campaigns ------------------------------------------------------------------------------------------------


def a_stampede(**overrides: float) -> Scenario:
    numbers = {"viewers.count": 200, "seckill.claims": 2000, "seckill.stock": 20}
    return load("seckill", numbers | {name.replace("__", "."): value for name, value in overrides.items()})


def packets(**overrides: float) -> Scenario:
    numbers = {"viewers.count": 100, "redpacket.grabbers": 100, "redpacket.shares": 20}
    return load("redpacket", numbers | {name.replace("__", "."): value for name, value in overrides.items()})


def sent(plan: Plan, cmd: str) -> list[Step]:
    return [step for step in plan.steps if step.command.get("cmd") == cmd]


def test_campaign_plans_are_the_same_for_the_same_seed() -> None:
    assert make(a_stampede(), 7).to_bytes() == make(a_stampede(), 7).to_bytes()
    assert make(a_stampede(), 7).digest() != make(a_stampede(), 8).digest()
    assert make(packets(), 7).to_bytes() == make(packets(), 7).to_bytes()


def test_every_campaign_command_is_lawful() -> None:
    for plan in (make(a_stampede(), 3), make(packets(), 3)):
        for number, step in enumerate(plan.steps):
            if step.verb == "send":
                filled = fill(
                    step.command, RUN, number, lambda moment_us: 1_795_000_000_000 + moment_us // 1000
                )
                command = commands.parse({"id": 1, "batch": number, **filled})
                assert ROLE_BY_NAME[plan.actors[step.actor].role] >= command.role


def test_sale_is_scheduled_ahead_for_the_moment_the_claims_wait_for() -> None:
    plan = make(a_stampede(), 3)
    [schedule] = sent(plan, "seckill.schedule")
    filled = fill(schedule.command, "s1t2", 0, lambda moment_us: moment_us)

    assert filled["starts_at"] == plan.peak_us == schedule.at_us + 3_000_000
    assert filled["ends_at"] == plan.end_us - 1_500_000
    claims = sent(plan, "seckill.claim")
    early = [step for step in claims if step.at_us < plan.peak_us]
    burst = [step for step in claims if plan.peak_us <= step.at_us < plan.peak_us + 2_000_000]
    assert len(claims) == 2000
    assert len(early) == 40
    assert max(step.at_us for step in early) < plan.peak_us - 90_000
    assert len(burst) == pytest.approx(1800, abs=30)
    assert max(step.at_us for step in claims) > filled["ends_at"]


def test_claims_repeat_keys_and_make_new_ones() -> None:
    claims = sent(make(a_stampede(), 3), "seckill.claim")
    keys = Counter(step.command["key"] for step in claims)

    assert {step.actor for step in claims} == set(range(1, 201))
    assert all(key.startswith(f"{{run}}-c{step.actor}-") for step in claims for key in [step.command["key"]])
    assert 300 < sum(count - 1 for count in keys.values()) < 900


def test_cut_follows_a_claim_of_the_same_viewer_at_once() -> None:
    plan = make(a_stampede(), 3)
    cuts = [place for place, step in enumerate(plan.steps) if step.verb == "cut"]

    assert len(cuts) > 3
    for place in cuts:
        before = [step for step in plan.steps[:place] if step.actor == plan.steps[place].actor]
        assert before[-1].command["cmd"] == "seckill.claim"
        assert plan.steps[place].at_us - before[-1].at_us <= 20_000


def test_more_claims_than_connections_may_send_is_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"seckill\.claims"):
        make(a_stampede(viewers__count=5), 1)


def test_run_too_short_for_its_sale_is_an_error() -> None:
    with pytest.raises(ScenarioError, match="seconds"):
        make(a_stampede(seconds=5), 1)


def test_three_packets_are_for_everybody_and_one_expires() -> None:
    plan = make(packets(), 3)
    sends, grabs = sent(plan, "redpacket.send"), sent(plan, "redpacket.grab")
    first = Counter(step.command["packet"] for step in grabs if step.command["key"].endswith("-1"))

    assert [step.command["packet"] for step in sends] == [f"{{run}}-p{number}" for number in (1, 2, 3, 4)]
    assert {step.command["split"] for step in sends} == {"lucky", "even"}
    assert all(
        len({step.actor for step in grabs if step.command["packet"] == f"{{run}}-p{n}"}) == 100
        for n in (1, 2, 3)
    )
    assert first["{run}-p4"] < 40
    last = fill(sends[-1].command, "s", 0, lambda moment_us: moment_us)
    assert plan.end_us >= last["opens_at"] + last["expires_s"] * 1_000_000 + 2_000_000
    assert len(sent(make(packets(redpacket__expire_one=False), 3), "redpacket.send")) == 3


def test_more_grabbers_than_viewers_is_an_error() -> None:
    with pytest.raises(ScenarioError, match="grabbers"):
        make(packets(redpacket__grabbers=101), 1)


def test_links_are_of_those_who_are_there_and_share_a_process() -> None:
    plan = make(a_stampede(viewers__count=1000), 3)
    joins = {step.actor: step for step in plan.steps if step.verb == "join"}
    via = {actor: step.command["via"] for actor, step in joins.items() if "via" in step.command}
    real = {actor: inviter for actor, inviter in via.items() if inviter != FORGED}

    assert len(real) > 100
    assert 0 < len(via) - len(real) < 50
    for actor, inviter in real.items():
        assert (actor - inviter) % INVITER_APART == 0
        assert joins[inviter].at_us < joins[actor].at_us - 900_000


def test_moment_of_a_plan_becomes_one_of_the_stores_clock() -> None:
    filled = fill(
        {"cmd": "x", "at": "{at:1500000}", "n": 3, "id": "{run}-{step}"}, "s1", 9, lambda us: us // 1000
    )

    assert filled == {"cmd": "x", "at": 1500, "n": 3, "id": "s1-9", "key": "s1-9"}
    assert "key" not in fill({"cmd": "like.send", "n": 3}, "s1", 9, lambda us: us)
