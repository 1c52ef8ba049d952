"""
Planted bugs: a real server behind a proxy that lies in one way, and the load test in front of it.

Every bug must be named by the invariant it breaks, with exit code 2; a proxy that does not lie must raise nothing. The
seed of a run is printed; `SABOTAGE_SEED` repeats it. The short version plays each bug once in small runs, several at a
time; `make sabotage` plays them larger, with more seeds, one at a time, and twenty clean runs.
"""

import asyncio
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from loadtest import folder, rooms
from loadtest.report import Exit, Result
from loadtest.run import Settings, run
from loadtest.scenario import load
from loadtest.tokens import SigningKey
from tests.sabotage.bugs import BUGS, Bug, DroppedFact
from tests.sabotage.proxy import lying
from tests.support.service import DEMO_KEY, OTHER_KEY, Service, running_service

#: Runs at the same time in the short version.
AT_ONCE = 4
#: A bug waits for an occasion, which a busy machine may not give it in one short run.
OCCASIONS_MAX = 3

#: What makes a run short and still has everything in it.
_SMALL: dict[str, dict[str, object]] = {
    "crowd": {
        "viewers.count": 20,
        "viewers.ramp_s": 0.5,
        "seconds": 4,
        "facts.per_s": 4,
        "comments.per_s": 8,
    },
    "seckill": {
        "viewers.count": 24,
        "viewers.ramp_s": 0.5,
        "seconds": 9,
        "seckill.stock": 8,
        "seckill.claims": 150,
        "seckill.notice_s": 3,
        "seckill.burst_s": 0.6,
        "seckill.over_s": 0.5,
        "seckill.early_share": 0.2,
        "seckill.burst_share": 0.7,
    },
    "redpacket": {
        "viewers.count": 24,
        "viewers.ramp_s": 0.5,
        "seconds": 4,
        "redpacket.packets": 2,
        "redpacket.shares": 12,
        "redpacket.grabbers": 24,
        "redpacket.notice_s": 0.5,
        "redpacket.every_s": 0.7,
        "redpacket.burst_s": 0.4,
        "redpacket.expire_one": False,
    },
}
#: The generator shares a noisy machine with everything else, so it is given time: its honesty is tested elsewhere.
_PATIENT: dict[str, object] = {
    "honesty.late_ms": 5000,
    "honesty.cpu_share_max": 100,
    "drain.deadline_s": 6,
    "likes.per_s": 60,
    "likes.batch_mean": 3,
}
_LARGE: dict[str, dict[str, object]] = {
    "crowd": {**_SMALL["crowd"], "viewers.count": 150, "viewers.ramp_s": 2, "seconds": 14, "facts.per_s": 5},
    "seckill": {**_SMALL["seckill"], "viewers.count": 80, "seckill.stock": 30, "seckill.claims": 600},
    "redpacket": {
        **_SMALL["redpacket"],
        "viewers.count": 80,
        "redpacket.shares": 50,
        "redpacket.grabbers": 80,
    },
}


def a_seed() -> int:
    """Return the seed asked for, or one by chance."""
    return int(os.environ.get("SABOTAGE_SEED", random.randrange(1_000_000)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("sabotaged"), "--dev") as service:
        yield service


async def played(
    service: Service, bug: Bug, seed: int, sizes: dict[str, dict[str, object]], out: Path | None = None
) -> Result:
    """Play the scenario of a bug against the server behind a liar."""
    scenario = load(bug.scenario, sizes[bug.scenario] | _PATIENT)
    data = service.log_file.parent / "data"
    async with lying(service.url, bug) as proxy:
        settings = Settings(
            target=proxy.target,
            merchant_key=DEMO_KEY,
            neighbour_key=OTHER_KEY,
            seed=seed,
            signing_key=SigningKey.read(data / "dev-key.json", "demo"),
            out=out,
            command=("liveroom-loadtest", "run", bug.scenario),
        )
        with Path(os.devnull).open("w") as nowhere:
            return await run(scenario, settings, Console(file=nowhere))


def a_bug(kind: type[Bug], seed: int, one_in: int) -> Bug:
    rng = random.Random(f"{kind.__name__}.{seed}")
    return DroppedFact(rng, one_in) if kind is DroppedFact else kind(rng)


async def named(
    service: Service, kind: type[Bug], seed: int, sizes: dict[str, dict[str, object]], one_in: int
) -> str:
    """Play a bug until it has shown; return what is wrong with the verdict on it."""
    for again in range(OCCASIONS_MAX):
        bug = a_bug(kind, seed + 1000 * again, one_in)
        result = await played(service, bug, seed + 1000 * again, sizes)
        if bug.struck:
            break
    return is_named(bug, result)


def is_named(bug: Bug, result: Result) -> str:
    """Return what is wrong with the verdict on a bug; empty if it is right."""
    named = {violation["invariant"] for violation in result.violations}
    where = f"{bug.title} (SABOTAGE_SEED={result.seed})"
    said = [f"{violation['invariant']}: {violation['message']}" for violation in result.violations]
    if not bug.struck:
        return f"{where}: never showed"
    if result.exit_code != Exit.VIOLATED:
        return f"{where}: exit {result.exit_code}, {result.reasons}"
    if not any(line.startswith(f"{bug.invariant}: ") and bug.words in line for line in said):
        return f"{where}: {bug.invariant} does not name it: {said}"
    if named - {bug.invariant} - bug.also:
        return f"{where}: also blamed {sorted(named - {bug.invariant} - bug.also)}: {said}"
    if f"--seed {result.seed}" not in result.replay:
        return f"{where}: {result.replay!r} does not repeat it"
    return ""


@pytest.mark.timeout(600)
async def test_every_planted_bug_is_named_by_its_invariant(service: Service) -> None:
    seed = a_seed()
    print(f"SABOTAGE_SEED={seed}")
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(place: int, kind: type[Bug]) -> str:
        async with gate:
            return await named(service, kind, seed + place, _SMALL, one_in=200)

    found = await asyncio.gather(*(one(place, kind) for place, kind in enumerate(BUGS)))

    assert [wrong for wrong in found if wrong] == []


class _Honest(Bug):
    """Changes nothing."""


def _honest(scenario: str, seed: int) -> Bug:
    bug = _Honest(random.Random(seed))
    bug.scenario = scenario  # type: ignore[misc]
    return bug


@pytest.mark.timeout(600)
async def test_truth_raises_nothing(service: Service, tmp_path: Path) -> None:
    seed = a_seed()
    print(f"SABOTAGE_SEED={seed}")

    async def one(scenario: str) -> Result:
        return await played(service, _honest(scenario, seed), seed, _SMALL, tmp_path / scenario)

    results = await asyncio.gather(*map(one, _SMALL))

    for scenario, result in zip(_SMALL, results, strict=True):
        assert (result.exit_code, result.reasons) == (Exit.PASS, [])
        assert result.counts["neighbours_checked"] > 0
        # What was written down is enough to come to the same verdict again.
        evidence = folder.read_evidence(tmp_path / scenario)
        again = rooms.judge(evidence.plan, evidence.history, evidence.dumps)
        assert (again.total, again.facts_delivered) == (0, result.counts["facts_delivered"])


@pytest.mark.soak
@pytest.mark.parametrize("kind", BUGS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("attempt", range(3))
async def test_planted_bug_is_named_in_a_larger_run(service: Service, kind: type[Bug], attempt: int) -> None:
    assert await named(service, kind, a_seed() + attempt, _LARGE, one_in=10_000) == ""


@pytest.mark.soak
@pytest.mark.parametrize("attempt", range(20))
async def test_twenty_clean_runs_raise_nothing(service: Service, attempt: int) -> None:
    seed = a_seed() + attempt
    scenario = list(_LARGE)[attempt % len(_LARGE)]

    result = await played(service, _honest(scenario, seed), seed, _LARGE)

    assert (result.exit_code, result.reasons) == (Exit.PASS, []), f"SABOTAGE_SEED={seed}"


@pytest.mark.parametrize("kind", BUGS, ids=lambda kind: kind.__name__)
def test_bug_says_what_it_is(kind: type[Bug]) -> None:
    assert kind.title != Bug.title
    assert re.fullmatch(r"I[1-8] .+|wire", kind.invariant)
    assert kind.words
    assert json.dumps(kind.title)
