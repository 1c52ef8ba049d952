"""
`liveroom-loadtest plan` and `liveroom-loadtest new`: files made before a run.

Decides what is written where and what is said about it. A plan is what `run --plan` plays; a new scenario is a
commented file with every number of a crowd and one of each moment, ready to be changed.
"""

import secrets
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtest import options, planners
from loadtest import scenario as scenarios
from loadtest.arrivals import US_PER_S
from loadtest.plan import Plan
from loadtest.scenario import ScenarioError
from loadtest.template import commented


def overrides_of(override: list[str] | None, threshold: list[str] | None) -> dict[str, Any]:
    """
    Return dotted names and values of `--set` and `--threshold`.

    Raises:
        ScenarioError: If one of them cannot be read.
    """
    found = dict(scenarios.parse_override(text) for text in override or [])
    for text in threshold or []:
        metric, _, rule = text.strip().partition(" ")
        found[f"thresholds.{metric}"] = rule
    return found


def made(scenario: str, overrides: dict[str, Any], seed: int | None) -> Plan:
    """
    Return the plan of a scenario with other numbers; without a seed, of a new one.

    Raises:
        ScenarioError: If there is no such scenario, or it has no such number.
    """
    chosen = scenarios.load(scenario, overrides)
    for section in {name.partition(".")[0] for name in overrides} & {"seckill", "redpacket"}:
        if chosen.plays != section:
            raise ScenarioError(f"{section}: the scenario {chosen.name} has none")
    return planners.make(chosen, secrets.randbelow(1_000_000) if seed is None else seed)


def plan(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or a .toml file.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file, such as plan.json.gz.")],
    viewers: options.Viewers = None,
    seconds: options.Seconds = None,
    ramp: options.Ramp = None,
    comments_per_s: options.CommentsPerS = None,
    likes_per_s: options.LikesPerS = None,
    facts_per_s: options.FactsPerS = None,
    stock: options.Stock = None,
    claims: options.Claims = None,
    hold_s: options.HoldS = None,
    pay_ratio: options.PayRatio = None,
    packets: options.Packets = None,
    shares: options.Shares = None,
    grabbers: options.Grabbers = None,
    expire_one: options.ExpireOne = None,
    override: Annotated[list[str] | None, typer.Option("--set", help="Any number: viewers.count=500")] = None,
    threshold: Annotated[list[str] | None, typer.Option(help='A bound: "delivery_p99_ms < 200"')] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Same seed, same bytes. Default: a new one.")
    ] = None,
) -> int:
    """Write the plan of SCENARIO to a file that `run --plan` plays: same seed, same bytes."""
    written = made(scenario, options.given(locals()) | overrides_of(override, threshold), seed)
    try:
        out.write_bytes(written.to_bytes())
    except OSError as error:
        raise ScenarioError(f"cannot write {out}: {error.strerror}") from None
    Console().print(described(written), highlight=False, markup=False, soft_wrap=True)
    return 0


def new(
    file: Annotated[Path | None, typer.Argument(help="Where to. Default: standard output.")] = None,
) -> int:
    """Write a commented scenario that shows every number, to be changed."""
    text = commented("my_evening")
    if file is None:
        Console().print(text, end="", highlight=False, markup=False, soft_wrap=True)
        return 0
    try:
        # "x": a scenario somebody has worked on is not to be lost.
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise ScenarioError(f"{file} is there already; choose another name or remove it") from None
    except OSError as error:
        raise ScenarioError(f"cannot write {file}: {error.strerror}") from None
    Console().print(f"run it: liveroom-loadtest run {file}", highlight=False, markup=False, soft_wrap=True)
    return 0


def read(path: Path) -> Plan:
    """
    Return the plan in a file.

    Raises:
        ScenarioError: If there is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"cannot read {path}: {error.strerror}") from None
    try:
        return Plan.from_bytes(data)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def described(plan: Plan) -> str:
    """Return what a plan will do, in words: one line, then one per moment."""
    does = Counter(step.command["cmd"] if step.verb == "send" else step.verb for step in plan.steps)
    viewers = sum(actor.role == "viewer" for actor in plan.actors)
    rooms = "" if plan.rooms == 1 else f" in {plan.rooms} rooms"
    lines = [
        f"{plan.scenario.name}: {viewers:,} viewers{rooms}, at most {plan.connections_max():,} connections, "
        f"{plan.end_us / US_PER_S:g} s, seed {plan.seed}, plan {plan.digest()}",
        "           " + ", ".join(f"{name} × {count:,}" for name, count in does.most_common()),
    ]
    lines += [f"{mark.at_us / US_PER_S:8.1f} s {mark.name.replace('_', ' ')}" for mark in plan.moments]
    return "\n".join(lines)
