"""
The command line of the load test.

Decides options, their environment variables and the exit codes: 0 pass, 1 usage, 2 invariant violated, 3 threshold
missed, 4 generator saturated, 130 and 143 interrupted by SIGINT and SIGTERM. The only `sys.exit` of this package.
"""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast, get_args

import typer
from rich.console import Console

from loadtest import compare, find_limit, interrupts, options, plan_file, report, verdicts
from loadtest import folder as folders
from loadtest import scenario as scenarios
from loadtest.api import ApiError, ws_url
from loadtest.folder import FolderError, NotWritten
from loadtest.interrupts import Interrupted
from loadtest.plan import Plan
from loadtest.report import Exit, Result
from loadtest.run import Settings, Strike, default_out, play
from loadtest.scenario import ScenarioError
from loadtest.spawn import (
    DEV_MERCHANT_KEY,
    DEV_SIGNING_KEY,
    DEV_TENANT,
    DevServer,
    SpawnError,
    Victim,
    dev_server,
)
from loadtest.swarm import GeneratorDied
from loadtest.tokens import SigningKey, TokenError
from protocol.codec import CODECS

DEV_NEIGHBOUR_KEY: Final = "dev-key-other"
PROCESSES_MAX: Final = 64

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


app.command("plan")(plan_file.plan)
app.command("new")(plan_file.new)
app.command("find-limit")(find_limit.command)
app.command("compare")(compare.command)
app.command("judge")(verdicts.judge)
app.command("report")(verdicts.report)


@app.callback()
def _program() -> None:
    """Play thousands of viewers against a room and prove what they were promised."""


@app.command("scenarios")
def _scenarios() -> None:
    """List the scenarios that come with the program."""
    console = Console()
    for name in scenarios.available():
        console.print(f"{name:<16}{scenarios.load(name, {}).description}", highlight=False)


@app.command("run")
def _run(
    scenario: Annotated[
        str | None, typer.Argument(help="Name of a scenario, or a .toml file; none with --plan.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Play this plan, as `plan` wrote it, instead of a scenario.")
    ] = None,
    target: Annotated[
        str, typer.Option(envvar="LIVEROOM_TARGET", help="Where the server listens.")
    ] = "ws://127.0.0.1:8080",
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
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Any other number: likes.batch_mean=5")
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help='Another bound: "delivery_p99_ms < 200"')
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same plan. Default: a new one.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the results. Default: under loadtest-out."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=PROCESSES_MAX, help="Generator processes.")] = 1,
    codec: Annotated[str, typer.Option(help="json or msgpack")] = "json",
    merchant_key: Annotated[
        str, typer.Option(envvar="LIVEROOM_MERCHANT_KEY", show_default=False, help="Default: the dev one.")
    ] = DEV_MERCHANT_KEY,
    neighbour_key: Annotated[
        str,
        typer.Option(
            envvar="LIVEROOM_NEIGHBOUR_KEY",
            show_default=False,
            help="Key of another tenant, whose viewers must see nothing of this. Default: the dev one; '' for none.",
        ),
    ] = DEV_NEIGHBOUR_KEY,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help=f"File with an HS256 key. Default: {DEV_SIGNING_KEY} if there, else POST /v1/tokens."
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the signed tokens.")] = DEV_TENANT,
    spawn: Annotated[
        bool, typer.Option("--spawn", help="Start a dev server for this run, with data of its own.")
    ] = False,
    kill: Annotated[
        str | None,
        typer.Option(help="With --spawn: `server` or `store` gets a kill -9 in the middle of the run."),
    ] = None,
    kill_at: Annotated[
        float | None,
        typer.Option(
            "--kill-at", min=0, help="Seconds after the start. Default: just after the sale starts."
        ),
    ] = None,
    freeze: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=600, help="With --spawn: the server stands still for so many seconds, once."
        ),
    ] = None,
    freeze_at: Annotated[
        float | None,
        typer.Option("--freeze-at", min=0, help="Seconds after the start. Default: a third into the run."),
    ] = None,
) -> int:
    """Play SCENARIO, or a plan made from one, against a server and judge what it did."""
    overrides = options.given(locals())
    overrides |= plan_file.overrides_of(override, threshold)
    made = _chosen(scenario, plan, overrides, seed)
    if kill is not None and freeze is not None:
        raise ScenarioError("--kill and --freeze: one blow per run")
    if (freeze is not None and not spawn) or (freeze_at is not None and freeze is None):
        raise ScenarioError(
            "--freeze takes --spawn, and --freeze-at takes --freeze: only our own server is stopped"
        )
    if kill is not None and kill not in get_args(Victim):
        raise ScenarioError(f"--kill: {kill!r} is not one of {', '.join(get_args(Victim))}")
    if (kill is not None and not spawn) or (kill_at is not None and kill is None):
        raise ScenarioError(
            "--kill takes --spawn, and --kill-at takes --kill: only a server of our own is killed"
        )
    if codec not in CODECS:
        raise ScenarioError(f"--codec: {codec!r} is not one of {', '.join(CODECS)}")
    try:
        target = ws_url(target)
    except ValueError as error:
        raise ScenarioError(f"--target: {error}") from None
    if signing_key is None and not spawn and DEV_SIGNING_KEY.exists():
        signing_key = DEV_SIGNING_KEY
    key = SigningKey.read(signing_key, tenant) if signing_key is not None else None
    folder = out if out is not None else default_out(datetime.now(UTC), made.scenario.name)
    settings = Settings(
        target=target,
        merchant_key=merchant_key,
        neighbour_key=neighbour_key,
        seed=made.seed,
        codec=codec,
        processes=processes,
        signing_key=key,
        out=folder,
        command=_shown(sys.argv),
    )
    console = Console()
    blow: Blow | None = None
    if kill is not None:
        victim = cast(Victim, kill)
        blow = Blow(lambda server: server.kill(victim), kill_at)
    elif freeze is not None:
        standing_s, third_s = freeze, made.end_us / 3e6
        blow = Blow(lambda server: server.freeze(standing_s), third_s if freeze_at is None else freeze_at)
    if made.moments:
        console.print(plan_file.described(made), highlight=False, markup=False, soft_wrap=True)
    with folders.reserved(folder):
        try:
            result = interrupts.run(
                _against_own_server(made, settings, console, blow) if spawn else play(made, settings, console)
            )
        except NotWritten as error:
            # Whoever waited for the run is owed its verdict, if not its files.
            console.print(report.text(error.result), highlight=False, markup=False, soft_wrap=True)
            raise
    console.print(report.text(result), highlight=False, markup=False, soft_wrap=True)
    console.print(f"results    {folder / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    return result.exit_code


class Blow(NamedTuple):
    """What is done to a server of our own, and when; None: just after the plan's peak."""

    to: Callable[[DevServer], Awaitable[str]]
    at_s: float | None


def _chosen(scenario: str | None, plan: Path | None, overrides: dict[str, Any], seed: int | None) -> Plan:
    """
    Return the plan to play: from a file, or made from a scenario.

    Raises:
        ScenarioError: If it is not clear which, or there is none.
    """
    if (scenario is None) == (plan is None):
        raise ScenarioError(
            "a scenario or --plan: one of them; `liveroom-loadtest scenarios` lists scenarios"
        )
    if plan is not None:
        if overrides or seed is not None:
            raise ScenarioError("--plan: a plan is made already; change its numbers and seed with `plan`")
        return plan_file.read(plan)
    assert scenario is not None
    return plan_file.made(scenario, overrides, seed)


async def _against_own_server(plan: Plan, settings: Settings, console: Console, blow: Blow | None) -> Result:
    async with dev_server() as server:
        strike = None
        if blow is not None:
            strike = Strike(blow=lambda: blow.to(server), at_s=blow.at_s)
        key = SigningKey.read(server.signing_key, DEV_TENANT)
        own = replace(
            settings,
            target=server.target,
            merchant_key=DEV_MERCHANT_KEY,
            neighbour_key=DEV_NEIGHBOUR_KEY if settings.neighbour_key else "",
            signing_key=key,
            strike=strike,
        )
        result = await play(plan, own, console)
        if settings.out is not None and (said := server.log()):
            try:
                (settings.out / "server.log").write_text(said, encoding="utf-8")
            except OSError as error:
                raise NotWritten(settings.out, error, result) from None
        return result


_SECRET: Final = ("--merchant-key", "--neighbour-key")


def _shown(arguments: list[str]) -> list[str]:
    """Return the command line without its secrets."""
    shown = [Path(arguments[0]).name]
    hide = False
    for argument in arguments[1:]:
        if hide:
            argument, hide = "…", False
        elif argument in _SECRET:
            hide = True
        elif argument.startswith(tuple(f"{option}=" for option in _SECRET)):
            argument = argument.partition("=")[0] + "=…"
        shown.append(argument)
    return shown


def main() -> None:
    """Run the command line and end the process."""
    complaint = Console(stderr=True)
    try:
        code = app(standalone_mode=False)
    except (ScenarioError, TokenError, ApiError, SpawnError, FolderError) as error:
        complaint.print(f"liveroom-loadtest: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(Exit.USAGE)
    except GeneratorDied as error:
        # Whatever the server did, nobody watched it to the end.
        complaint.print(
            f"liveroom-loadtest: no result: {error}", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(Exit.SATURATED)
    except Interrupted as interrupted:
        complaint.print("liveroom-loadtest: interrupted", highlight=False)
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:
        # Before or after a run, when there is nothing to stop.
        complaint.print("liveroom-loadtest: interrupted", highlight=False)
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:
        # Errors in the arguments come from typer's parser, which shows them itself and exits with 2; here 2 means
        # a broken promise of the server.
        if not hasattr(error, "format_message"):
            raise
        complaint.print(
            f"liveroom-loadtest: {error.format_message()}", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(Exit.USAGE)
    sys.exit(code if isinstance(code, int) else Exit.PASS)
