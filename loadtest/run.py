"""
One run from beginning to end.

Decides the order: make the plan, create the room, get tokens, start the generators, play, close with one last fact,
wait until everybody holds it, leave, read the room back, judge, write down. Each part is decided elsewhere.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadtest import door, folder, planners, report, timeline
from loadtest import meter as meters
from loadtest import swarm as swarms
from loadtest.api import MerchantApi
from loadtest.live import LiveView
from loadtest.meter import Meter
from loadtest.neighbours import NextDoor
from loadtest.plan import MAIN_ROOM, Plan
from loadtest.report import Result
from loadtest.rooms import Rooms, judge
from loadtest.scenario import Scenario, ScenarioError
from loadtest.shop import Shop
from loadtest.sources import processes_for
from loadtest.swarm import Swarm
from loadtest.timeline import Pulse
from loadtest.tokens import SigningKey

#: Tokens outlive the run by this much.
TOKEN_SPARE_S: Final = 900
#: Most tokens asked for by HTTP; more take a signing key.
HTTP_TOKENS_MAX: Final = 20_000

#: How long payments under way may take after the end.
PAYMENTS_TIMEOUT_S: Final = 20.0
#: How long the rooms of a run that is broken off may take to close.
CLOSING_TIMEOUT_S: Final = 3.0
#: Moments noted: a day of them.
PULSES_MAX: Final = 86_400
#: If nobody says when to strike: this long after the moment everything is about.
STRIKE_AFTER_PEAK_S: Final = 0.03

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """Something done to the server on purpose while it runs."""

    #: Does it, and returns what was done when everything is up again.
    blow: Callable[[], Awaitable[str]]
    #: Seconds after the start of the run; None: just after the plan's peak.
    at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything about a run that is not in the scenario."""

    target: str
    merchant_key: str = field(repr=False)
    seed: int
    codec: str = "json"
    processes: int = 1
    #: Signs tokens here; without it they are asked for over HTTP.
    signing_key: SigningKey | None = None
    #: A key of another tenant, whose viewers live next door; empty for none.
    neighbour_key: str = field(default="", repr=False)
    out: Path | None = None
    strike: Strike | None = None
    #: The command line as it may be shown: without secrets.
    command: Sequence[str] = ()


def run_tag(seed: int, now_ms: int) -> str:
    """Return a tag no other run has: the seed and the moment. At most 24 letters and digits."""
    return f"s{_base36(seed)}t{_base36(now_ms)}"[:24]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


async def run(scenario: Scenario, settings: Settings, console: Console) -> Result:
    """
    Play `scenario` and return its result.

    Raises:
        ScenarioError: If the scenario asks for something impossible.
        ApiError: If the server is not there, refuses to set the room up, or does not accept the tokens.
        GeneratorDied: If a generator process ended by itself.
        SpawnError: If the server was killed on purpose and did not come back.

    Cancelling this is safe: the generators are ended, and the rooms closed if the server is still there.
    """
    return await play(planners.make(scenario, settings.seed), settings, console)


async def play(plan: Plan, settings: Settings, console: Console) -> Result:
    """Play a plan that is made already, and return its result. Raises and is cancelled as `run` is."""
    scenario = plan.scenario
    tag = run_tag(plan.seed, time.time_ns() // 1_000_000)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    await door.knock(settings.target, f"load-{tag}", f"{tag}-knock", settings.signing_key)
    async with (
        MerchantApi(settings.target, settings.merchant_key) as api,
        MerchantApi(settings.target, settings.neighbour_key) as other,
        _closing(Rooms(api, plan, tag), Rooms(other, plan, tag)) as rooms,
    ):
        await rooms.open()
        tokens = await _tokens(api, plan, settings, tag, rooms.ids)
        parts = swarms.shares(
            plan,
            run=tag,
            rooms=rooms.ids,
            target=settings.target,
            codec=settings.codec,
            tokens=tokens,
            processes=processes_for(plan.connections_max(), settings.processes),
        )
        neighbours = NextDoor(other, run=tag, room=rooms.main, target=settings.target, seed=settings.seed)
        async with neighbours as next_door, Swarm(parts, scenario.honesty.silent_s) as swarm:
            beside = bool(settings.neighbour_key) and await next_door.open(_ttl_s(plan))
            meter, pulses = Meter(settings.target), list[Pulse]()
            with LiveView(console, plan, swarm, meter) as view:
                swarm.on_progress = view.show
                view.phase("playing")
                shop = Shop(api, plan, tag, rooms.main)
                async with _watching(swarm, meter, pulses):
                    faults = await _play(plan, settings, swarm, shop, next_door)
                view.phase("draining")
                places = await rooms.close_with_a_fact()
                await swarm.drain(places, scenario.drain.deadline_s)
                view.phase("leaving")
                recorded = rooms.history(places, await swarm.leave(), shop.payments, faults)
            seconds = time.monotonic() - swarm.started_s
            dumps = await rooms.dump()
            await rooms.end()
            if beside:
                recorded.neighbours, dumps[MAIN_ROOM].neighbour_events = await next_door.close()

            def conclude() -> Result:
                findings = judge(plan, recorded, dumps)
                counts = timeline.counts(plan, recorded)
                result = report.build(
                    plan=plan,
                    swarm=swarm,
                    history=recorded,
                    findings=findings,
                    target=settings.target,
                    command=settings.command,
                    started_at=started_at,
                    seconds=seconds,
                    counts=counts,
                    pulses=pulses,
                    usage=meter.samples,
                )
                if settings.out is not None:
                    folder.write(settings.out, result, folder.Evidence(plan, recorded, dumps), counts)
                return result

            # Judging a large run takes seconds; whatever else lives in this loop goes on meanwhile.
            result = await asyncio.to_thread(conclude)
    return result


@contextlib.asynccontextmanager
async def _closing(rooms: Rooms, next_door: Rooms) -> AsyncIterator[Rooms]:
    """Close the rooms of a run that is broken off, as far as that goes; a run that ends well has done it itself."""
    try:
        yield rooms
    except BaseException:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_TIMEOUT_S):
                await asyncio.gather(rooms.abandon(), next_door.abandon())
        raise


async def _play(plan: Plan, settings: Settings, swarm: Swarm, shop: Shop, next_door: NextDoor) -> list[str]:
    """Play the plan, with the shop open and the server struck if that is asked for; return what was done to it."""
    striking: asyncio.Task[str] | None = None

    def begun() -> None:
        nonlocal striking
        shop.open(swarm.started_s)
        next_door.begin(swarm.started_s)
        if settings.strike is not None:
            striking = asyncio.create_task(_strike(plan, settings.strike, swarm.started_s))

    try:
        await swarm.play(plan.end_us, plan.scenario.drain.deadline_s, begun)
        faults = [] if striking is None else [await striking]
        await shop.close(PAYMENTS_TIMEOUT_S)
    finally:
        if striking is not None and not striking.done():
            striking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await striking
    return faults


@contextlib.asynccontextmanager
async def _watching(swarm: Swarm, meter: Meter, pulses: list[Pulse]) -> AsyncIterator[None]:
    """Note once a second how things stand, while the block lasts."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(meters.PERIOD_S)
            at_s = time.monotonic() - swarm.started_s if swarm.started_s else 0.0
            await asyncio.to_thread(meter.look, at_s, swarm.pids())
            if swarm.started_s and len(pulses) < PULSES_MAX:
                lag_us = max((progress.lag_us for progress in swarm.progress.values()), default=0)
                joined, left = swarm.total("joined"), swarm.stock_left()
                pulses.append(Pulse(round(at_s, 2), joined, round(lag_us / 1000, 1), left))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _strike(plan: Plan, strike: Strike, started_s: float) -> str:
    at_s = plan.peak_us / 1e6 + STRIKE_AFTER_PEAK_S if strike.at_s is None else strike.at_s
    await asyncio.sleep(started_s + at_s - time.monotonic())
    struck_s = time.monotonic() - started_s
    return f"at {struck_s:.2f} s: {await strike.blow()}"


def _ttl_s(plan: Plan) -> int:
    return int(plan.end_us / 1e6) + TOKEN_SPARE_S


async def _tokens(api: MerchantApi, plan: Plan, settings: Settings, tag: str, rooms: list[str]) -> list[str]:
    ttl_s = _ttl_s(plan)
    if settings.signing_key is not None:
        key = settings.signing_key
        return [
            key.sign(rooms[actor.room], f"{tag}-{actor.id}", actor.role, actor.name, ttl_s)
            for actor in plan.actors
        ]
    if len(plan.actors) > HTTP_TOKENS_MAX:
        raise ScenarioError(f"more than {HTTP_TOKENS_MAX} viewers take a --signing-key")
    wanted: list[dict[str, Any]] = [
        {
            "room": rooms[actor.room],
            "viewer": f"{tag}-{actor.id}",
            "role": actor.role,
            "name": actor.name,
            "ttl_s": ttl_s,
        }
        for actor in plan.actors
    ]
    return await api.tokens(wanted)


def default_out(now: datetime, scenario: str) -> Path:
    """Return where results go if nobody says: a folder of their own under `loadtest-out`."""
    return Path("loadtest-out") / f"{now:%Y%m%d-%H%M%S}-{scenario}-{os.getpid()}"
