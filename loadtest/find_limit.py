"""
`liveroom-loadtest find-limit`: steps over one number of a scenario until something gives out.

Decides how a step is run, what is said meanwhile, and what is written down. Which values are tried, and what gave out,
is decided in `limit.py`.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec import Struct
from rich.console import Console

from loadtest import interrupts, planners
from loadtest import scenario as scenarios
from loadtest.api import ws_url
from loadtest.limit import Culprit, Search, culprit
from loadtest.plan_file import overrides_of
from loadtest.report import Exit, Result
from loadtest.run import Settings, play
from loadtest.scenario import Scenario, ScenarioError
from loadtest.spawn import DEV_MERCHANT_KEY, DEV_SIGNING_KEY, DEV_TENANT, dev_server
from loadtest.swarm import GeneratorDied
from loadtest.tokens import SigningKey
from loadtest.watch import Usage, Watch

#: What may be searched over: numbers that make more work when they grow.
SEARCHABLE: Final = (
    *(
        "viewers.count",
        "comments.per_s",
        "likes.per_s",
        "facts.per_s",
        "seckill.claims",
        "redpacket.grabbers",
    ),
)
#: Bounds for a scenario without any of its own on these.
BOUNDS: Final = {"delivery_p99_ms": "< 1000", "join_p99_ms": "< 5000", "lost_viewers": "== 0"}
#: Joins per second of a step; a storm of joins is another question.
JOINS_PER_S: Final = 500


class Tried(Struct, kw_only=True):
    """One step of the search."""

    value: float
    verdict: str
    reasons: list[str]
    metrics: dict[str, float]
    usage: Usage
    generator: dict[str, Any]


class Limit(Struct, kw_only=True):
    """What was found."""

    scenario: str
    over: str
    #: The highest value that held; 0 if none did.
    holds: float
    #: The lowest that did not; None if everything held.
    fails: float | None
    gave_out: Culprit | None
    steps: list[Tried]


def command(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or a .toml file.")],
    over: Annotated[
        str, typer.Option(help=f"What grows: {', '.join(SEARCHABLE)}, or moments.<name>.<number>.")
    ] = "viewers.count",
    first: Annotated[float, typer.Option("--from", min=0.001, help="The first value.")] = 250,
    highest: Annotated[float, typer.Option("--to", min=0.001, help="The last value.")] = 20_000,
    precision: Annotated[
        float, typer.Option(min=0.01, max=1, help="Stop when the gap is this part of the value.")
    ] = 0.1,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the steady phase of a step.")] = 15,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Any other number: comments.per_s=20")
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help='What has to hold: "delivery_p99_ms < 200"')
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every step. Default: a new one.")] = None,
    target: Annotated[
        str, typer.Option(envvar="LIVEROOM_TARGET", help="Where the server listens.")
    ] = "ws://127.0.0.1:8080",
    merchant_key: Annotated[
        str, typer.Option(envvar="LIVEROOM_MERCHANT_KEY", show_default=False, help="Default: the dev one.")
    ] = DEV_MERCHANT_KEY,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help=f"File with an HS256 key. Default: {DEV_SIGNING_KEY} if there, else POST /v1/tokens."
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the signed tokens.")] = DEV_TENANT,
    spawn: Annotated[bool, typer.Option("--spawn", help="A dev server of its own for every step.")] = False,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Generator processes.")] = 1,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the result as JSON.")] = None,
) -> int:
    """Find how much a server holds, and what gives out first."""
    overrides = overrides_of(override, threshold)
    try:
        target = ws_url(target)
    except ValueError as error:
        raise ScenarioError(f"--target: {error}") from None
    if over not in SEARCHABLE and not over.startswith("moments."):
        raise ScenarioError(
            f"--over: {over!r} is not one of {', '.join(SEARCHABLE)}, or a number of a moment"
        )
    if first > highest:
        raise ScenarioError("--from: more than --to")
    if signing_key is None and not spawn and DEV_SIGNING_KEY.exists():
        signing_key = DEV_SIGNING_KEY
    key = SigningKey.read(signing_key, tenant) if signing_key is not None else None
    settings = Settings(
        target=target,
        merchant_key=merchant_key,
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        processes=processes,
        signing_key=key,
    )
    base = scenarios.load(scenario, overrides | {"seconds": seconds})
    # Said before the first step: a misspelt number is not a limit.
    _scenario_at(scenario, overrides, base, over, first, seconds)
    console = Console()
    found = interrupts.run(
        _find(
            scenario, overrides, base, over, Search(first, highest, precision, whole=_whole(over)), settings,
            seconds, spawn, console,
        )
    )  # fmt: skip
    console.print(text(found), highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return Exit.VIOLATED if any(step.verdict == "violated" for step in found.steps) else Exit.PASS


def _whole(over: str) -> bool:
    return not over.endswith(("_s", "share", "ratio"))


def _scenario_at(
    name: str, overrides: dict[str, Any], base: Scenario, over: str, value: float, seconds: float
) -> Scenario:
    """Return the scenario of one step."""
    numbers = dict(overrides) | {"seconds": seconds, over: int(value) if _whole(over) else value}
    count = int(value) if over == "viewers.count" else base.viewers.count
    if "viewers.ramp_s" not in overrides:
        numbers["viewers.ramp_s"] = max(base.ramp_s, count / JOINS_PER_S)
    for metric, rule in BOUNDS.items():
        if metric not in base.thresholds:
            numbers[f"thresholds.{metric}"] = rule
    return scenarios.load(name, numbers)


async def _find(
    name: str,
    overrides: dict[str, Any],
    base: Scenario,
    over: str,
    search: Search,
    settings: Settings,
    seconds: float,
    spawn: bool,
    console: Console,
) -> Limit:
    quiet = Console(quiet=True)
    found = Limit(scenario=name, over=over, holds=0, fails=None, gave_out=None, steps=[])
    for value in search.values():
        chosen = _scenario_at(name, overrides, base, over, value, seconds)
        plan = planners.make(chosen, settings.seed)
        async with _server(settings, spawn) as (own, pids):
            async with Watch(
                own.target,
                [pids["server"]] if "server" in pids else None,
                [pids["store"]] if "store" in pids else None,
            ) as watch:
                try:
                    result: Result | None = await play(plan, own, quiet)
                except GeneratorDied as error:
                    result, why = None, str(error)
            usage = watch.usage()
        if result is None:
            tried = Tried(
                value=value, verdict="saturated: result invalid", reasons=[why], metrics={}, usage=usage,
                generator={},
            )  # fmt: skip
            gave_out = Culprit("generator", why)
        else:
            tried = Tried(
                value=value, verdict=result.verdict, reasons=result.reasons[:5], metrics=result.metrics,
                usage=usage, generator=result.generator,
            )  # fmt: skip
            gave_out = culprit(result, usage)
        found.steps.append(tried)
        console.print(_line(over, tried), highlight=False, markup=False, soft_wrap=True)
        if tried.verdict == "violated":
            break
        holds = result is not None and result.exit_code == Exit.PASS
        search.held(holds)
        if not holds:
            found.gave_out = gave_out
    found.holds, found.fails = search.best, search.failed
    return found


@contextlib.asynccontextmanager
async def _server(settings: Settings, spawn: bool) -> AsyncIterator[tuple[Settings, dict[str, int]]]:
    """Yield where the step's server is, and which processes it consists of, if that is known."""
    if not spawn:
        yield settings, {}
        return
    async with dev_server() as server:
        key = SigningKey.read(server.signing_key, DEV_TENANT)
        own = replace(settings, target=server.target, merchant_key=DEV_MERCHANT_KEY, signing_key=key)
        yield own, server.pids()


def _share(share: float | None) -> str:
    return "?" if share is None else f"{share:.0%}"


def _line(over: str, tried: Tried) -> str:
    metrics, usage = tried.metrics, tried.usage
    return (
        f"{over} = {tried.value:<8g} {tried.verdict:<26} delivery p99 {metrics.get('delivery_p99_ms', 0):8.1f} ms   "
        f"join p99 {metrics.get('join_p99_ms', 0):8.1f} ms   server {_share(usage.server_share)}   "
        f"store {_share(usage.store_share)}   generator {tried.generator.get('cpu_share_max', 0):.0%}   "
        f"loop {usage.probe_p50_ms:.0f} ms   idle {usage.idle_share:.0%}"
    )


def text(found: Limit) -> str:
    """Return what was found, in words."""
    last = found.steps[-1] if found.steps else None
    if last is not None and last.verdict == "violated":
        reasons = "\n".join(f"           {reason}" for reason in last.reasons)
        return f"\nverdict    VIOLATED at {found.over} = {last.value:g} (exit 2)\n{reasons}"
    if found.fails is None:
        return f"\nverdict    {found.over} = {found.holds:g} holds; nothing gave out up to there (exit 0)"
    holds = f"{found.holds:g} holds, " if found.holds else ""
    assert found.gave_out is not None
    return (
        f"\nverdict    {found.over}: {holds}{found.fails:g} does not (exit 0)\n"
        f"gave out   {found.gave_out.part}: {found.gave_out.why}"
    )
