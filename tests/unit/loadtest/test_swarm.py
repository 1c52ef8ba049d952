"""`loadtest/swarm.py`: a plan cut into shares is the whole plan, each step exactly once."""

import pytest

from loadtest.plan import CONSOLE
from loadtest.planners import make
from loadtest.scenario import load
from loadtest.swarm import SAMPLE_MIN, sample, shares


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_are_the_plan(processes: int) -> None:
    plan = make(load("crowd", {"viewers.count": 50, "seconds": 10, "comments.per_s": 10}), 4)
    tokens = [f"token-{index}" for index in range(len(plan.actors))]

    parts = shares(
        plan, run="s", rooms=["r"], target="ws://x", codec="json", tokens=tokens, processes=processes
    )

    steps = {number: step for part in parts for number, step in part.steps.items()}
    assert sum(len(part.steps) for part in parts) == len(plan.steps)
    assert [steps[number] for number in range(len(plan.steps))] == plan.steps
    assert sorted(index for part in parts for index in part.actors) == list(range(51))
    for part in parts:
        assert all(step.actor in part.actors for step in part.steps.values())
        assert all(part.tokens[index] == f"token-{index}" for index in part.actors)
        assert list(part.steps) == sorted(part.steps)
        # Deliveries are timed wherever they arrive, so everybody knows every comment's moment.
        assert len(part.comments_us) > 80
    assert len({frozenset(part.comments_us.items()) for part in parts}) == 1


@pytest.mark.parametrize(("actors", "least"), [(1, 1), (5, 5), (201, SAMPLE_MIN), (10_001, 100)])
def test_sample_is_spread_and_has_the_console(actors: int, least: int) -> None:
    chosen = sample(actors)

    assert CONSOLE in chosen
    assert least <= len(chosen) <= least + 1
    assert all(0 <= index < actors for index in chosen)
    assert max(chosen) >= actors * 0.9 - 1
