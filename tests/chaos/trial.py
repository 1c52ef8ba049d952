"""
One trial: a running service, a crowd, one fault, and the verdict.

Decides the order: start the site, write the script, play it with shop, cancellers and probe, let the fault happen at
its moment, wait until the room is still, read it back, judge. What is done to the site is decided in `faults.py`, what
the crowd does in `script.py`.
"""

import asyncio
import contextlib
import dataclasses
import os
import random
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from loadtest import oracle, report
from loadtest import swarm as swarms
from loadtest.api import ApiError, MerchantApi
from loadtest.arrivals import US_PER_S, stream
from loadtest.history import Dump, History, Outcome
from loadtest.plan import Plan, Step
from loadtest.run import run_tag
from loadtest.shop import Shop
from loadtest.swarm import Swarm
from tests.chaos import script, verdict
from tests.chaos.customers import Cancellers, Room
from tests.chaos.probe import Probe
from tests.chaos.script import Script, Shape
from tests.chaos.site import Layout, Site, a_site
from tests.support.service import DEMO_KEY

#: Killed by SIGKILL, this share of the viewers must be back within this time (seconds).
BACK_SHARE: Final = 0.99
BACK_S_MAX: Final = 5.0
#: No fault may keep the service unhealthy for longer than this after it is over (seconds).
HEALTHY_S_MAX: Final = 20.0
#: What the merchant's back end waits between two tries (seconds).
RETRY_S: Final = 0.3
SETTLE_TIMEOUT_S: Final = 30.0
COMMENTS_GRACE_S: Final = 2.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Trial:
    """What a fault is given: the site, chance, and where to note what it did."""

    site: Site
    api: MerchantApi
    rng: random.Random
    script: Script
    room: Room
    seed: int
    sale: str
    swarm: Swarm | None = None
    started_s: float = 0.0
    #: How long it took until all was well, where only the fault itself can tell (seconds).
    healthy_s: float | None = None
    #: The moment of the blow, and when nothing was done any more, on `time.monotonic()`.
    blow_s: float = 0.0
    relief_s: float = 0.0
    #: What was done and seen, in words.
    notes: list[str] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    #: Outcomes and steps of people who are not of the plan.
    outcomes: list[Outcome] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    #: Called with the history when the viewers have left.
    afterwards: list[Callable[[History], list[str]]] = field(default_factory=list)

    def begins(self) -> None:
        """Note the moment of the blow."""
        self.blow_s = self.relief_s = time.monotonic()

    def ends(self) -> None:
        """Note that nothing is done any more: from here on the service has to recover."""
        self.relief_s = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that can go wrong."""

    name: str
    #: What is done, for the table.
    what: str
    #: Does it. It is called at the moment of the script and returns when nothing is done any more.
    strike: Callable[[Trial], Awaitable[None]]
    layout: Layout = field(default_factory=Layout)
    shape: Shape = field(default_factory=Shape)
    #: Whether the store keeps all it acknowledged. If not, `verdict.judge_broken_line` takes the oracle's place.
    keeps: bool = True
    #: Where the store does not: whether acknowledged claims, payments and cancellations are kept all the same.
    claims_kept: bool = False
    #: Whether the room outlives the fault.
    room_lives: bool = True
    #: Whether `BACK_SHARE` of the viewers must be back within `BACK_S_MAX`.
    back_in_time: bool = False
    #: Whether viewers' connections may end.
    drops: bool = True
    #: Whether the merchant's back end gives back what it has ordered, which a broken line could not explain.
    cancels: bool = True
    #: How long the service may stay unhealthy after the fault (seconds).
    healthy_s_max: float = HEALTHY_S_MAX
    #: Within which time of the blow the service must say that it is not ready, if it must (seconds).
    unready_s_max: float | None = None
    #: Within which time every command must be answered, if only with "not now" (seconds).
    answer_s_max: float | None = None


class Result(msgspec.Struct, kw_only=True):
    """One line of the table."""

    fault: str
    what: str
    seed: int
    passed: bool
    viewers: int
    plan: str = ""
    #: The moment of the fault as planned, and how long it lasted (seconds).
    moment_s: float = 0.0
    fault_s: float = 0.0
    #: Seconds from the end of the fault until the service was healthy for good; None: it was not.
    healthy_s: float | None = None
    #: Of a kill, counted from the blow; else from the end of the fault.
    back_p50_s: float | None = None
    back_p99_s: float | None = None
    back_within_5_s: int = 0
    snapshots: int = 0
    dropped: dict[str, int] = {}
    facts: int = 0
    facts_lost: int = 0
    wins: int = 0
    reasked: int = 0
    payments: int = 0
    cancelled: int = 0
    unready_after_s: float | None = None
    slowest_answer_s: float = 0.0
    #: What the probe saw since the blow that was not well, and how often.
    troubles: dict[str, int] = {}
    #: Whether everything below was judged and found right.
    invariants: str = ""
    wrongs: list[str] = []
    #: Bounds on time that were missed, and why the generator was too slow for that to say anything, if it was.
    missed: list[str] = []
    saturated: list[str] = []
    notes: list[str] = []
    took_s: float = 0.0
    #: Processes that wanted to run, on average over the last minute: what else this machine was doing.
    load: float = 0.0
    #: Repeats this line alone.
    command: str = ""

    @property
    def verdict(self) -> str:
        """
        What became of it, in a word.

        A missed bound on time says nothing about the service when the generator itself was too slow, as in the load
        test; a broken promise does, however busy the machine.
        """
        if self.passed:
            return "survived"
        if self.wrongs:
            return "BROKEN"
        return "too busy to tell" if self.saturated else "TOO SLOW"


async def play(fault: Fault, seed: int, viewers: int | None, keep: Path | None = None) -> Result:
    """
    Play one fault and return its line. A trial that cannot be played to its end is a failed one.

    Args:
        fault: What goes wrong.
        seed: Decides plan and moment.
        viewers: How many come; None takes the fault's own number.
        keep: A folder where the logs of a failed trial go.
    """
    shape = fault.shape
    if viewers is not None:
        shape = dataclasses.replace(shape, viewers=viewers)
    written = script.write(shape, seed, fault.name)
    result = Result(
        fault=fault.name,
        what=fault.what,
        seed=seed,
        passed=False,
        viewers=shape.viewers,
        plan=written.plan.digest(),
        moment_s=round(written.moment_s, 3),
        command=f"python -m tests.chaos --seed {seed} --only {fault.name} --viewers {shape.viewers}",
    )
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="liveroom-chaos-") as name:
        folder = Path(name)
        try:
            async with a_site(fault.layout, folder) as site:
                try:
                    await _play(fault, written, seed, site, result)
                except Exception as error:
                    result.wrongs.append(f"the trial broke off: {type(error).__name__}: {error}")
                    result.notes.append(traceback.format_exc())
        except Exception as error:
            result.wrongs.append(f"the site: {type(error).__name__}: {error}")
        result.passed = not result.wrongs and not result.missed
        if keep is not None and not result.passed:
            _keep_logs(folder, keep)
    result.load = round(os.getloadavg()[0], 1)
    result.took_s = round(time.monotonic() - began_s, 1)
    return result


def _keep_logs(folder: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    for log in (*folder.glob("*.log"), *folder.glob("*/*.log")):
        (keep / log.name).write_bytes(log.read_bytes())


async def _play(fault: Fault, written: Script, seed: int, site: Site, result: Result) -> None:
    plan = written.plan
    tag = run_tag(seed, time.time_ns() // 1_000_000)
    room_id = f"chaos-{tag}"
    key = site.signing_key
    targets = [node.target for node in site.nodes]
    room = Room(targets, room_id, key, tag, plan)
    async with MerchantApi(targets[0], DEMO_KEY) as api:
        await api.create_room(room_id, f"{fault.name} {tag}")
        ttl_s = 3 * 3600
        tokens = [key.sign(room_id, f"{tag}-{each.id}", each.role, each.name, ttl_s) for each in plan.actors]
        parts = swarms.shares(
            plan,
            run=tag,
            rooms=[room_id],
            target=targets[0],
            codec="json",
            tokens=tokens,
            processes=len(targets),
        )
        # One generator for each node, so half of the viewers are on either.
        parts = [
            msgspec.structs.replace(part, target=target) for part, target in zip(parts, targets, strict=True)
        ]
        rng = stream(seed, f"chaos.{fault.name}.how")
        trial = Trial(site, api, rng, written, room, seed, f"{tag}-sale")
        shop = Shop(api, plan, tag, room_id)
        cancellers = Cancellers(room, api, seed)
        probe = Probe(site, tag, room_id)
        # What runs already is the site's; whatever comes now must not outlive a trial that breaks off.
        before = asyncio.all_tasks()
        async with Swarm(parts) as swarm:
            striking: asyncio.Task[None] | None = None

            def begun() -> None:
                nonlocal striking
                trial.started_s, trial.swarm = swarm.started_s, swarm
                shop.open(swarm.started_s)
                probe.open(swarm.started_s)
                if fault.cancels:
                    cancellers.open()
                striking = asyncio.create_task(_strike(fault, trial))

            try:
                await swarm.play(plan.end_us, plan.scenario.drain.deadline_s, begun)
                assert striking is not None
                await striking
                await shop.close(SETTLE_TIMEOUT_S)
                await cancellers.close()
                # Where a fault ends the room, nothing is made there any more, and nobody waits for it.
                await probe.close()
            except BaseException:
                begun_since = asyncio.all_tasks() - before
                for task in begun_since:
                    task.cancel()
                await asyncio.gather(*begun_since, return_exceptions=True)
                raise
            await _finish(fault, trial, swarm, api, shop, cancellers, probe, result)


async def _strike(fault: Fault, trial: Trial) -> None:
    await asyncio.sleep(max(0.0, trial.started_s + trial.script.moment_s - time.monotonic()))
    trial.begins()
    await fault.strike(trial)


async def _finish(
    fault: Fault,
    trial: Trial,
    swarm: Swarm,
    api: MerchantApi,
    shop: Shop,
    cancellers: Cancellers,
    probe: Probe,
    result: Result,
) -> None:
    """Let the room come to rest, read it back and judge."""
    room, tag, plan = trial.room.room, trial.room.run, trial.script.plan
    if not fault.room_lives:
        history = History(tag, room, 0, await swarm.leave(), shop.payments, trial.notes)
        _describe(fault, trial, swarm, shop, cancellers, probe, history, None, result)
        return
    text = f"散场 #{tag}.{oracle.CLOSING_STEP}"
    await _patiently(lambda: api.command(room, {"cmd": "notice.set", "key": f"close-{tag}", "text": text}))
    seq = max(event["seq"] for event in await _patiently(lambda: api.events(room)))
    comments = int((await api.stats(room))["comments"])
    await swarm.drain([(seq, 0)], plan.scenario.drain.deadline_s)
    # Who came back after the last comment waits for one in vain; who lacks one that others have is judged later.
    await swarm.drain([(seq, comments)], COMMENTS_GRACE_S)
    processes = await swarm.leave()
    history = History(tag, room, seq, processes, shop.payments, trial.notes)
    dump = await api.dump(room)
    for check in trial.afterwards:
        trial.wrongs += check(history)
    processes[0].outcomes += probe.outcomes + trial.outcomes
    seen_plan = msgspec.structs.replace(plan, steps=[*plan.steps, *trial.steps])
    trial.wrongs += _judge(fault, seen_plan, history, dump, trial, result)
    trial.wrongs += cancellers.wrongs(dump)
    missing = sum(not viewer.present for process in processes for viewer in process.viewers)
    if missing:
        trial.wrongs.append(f"{missing} viewers were not in the room in the end")
    _describe(fault, trial, swarm, shop, cancellers, probe, history, dump, result)


def _judge(fault: Fault, plan: Plan, history: History, dump: Dump, trial: Trial, result: Result) -> list[str]:
    result.facts = len(dump.events)
    if fault.keeps:
        findings = oracle.judge(plan, history, dump)
        sale = findings.sales.get(trial.sale)
        if sale is not None:
            result.wins = sale.answers.get("won", 0)
            result.reasked = sale.reasked
        result.facts_lost = verdict.facts_lost(history)
        wrongs = [str(violation) for violation in findings.violations]
        if findings.epochs > 1:
            wrongs.append(f"the room was in {findings.epochs} epochs, though its store kept everything")
        return wrongs
    stock = {trial.sale: plan.scenario.seckill.stock}
    won = {
        outcome.said.get("order")
        for process in history.processes
        for outcome in process.outcomes
        if outcome.command == "seckill.claim" and outcome.code == "ok"
    }
    result.wins = len(won)
    result.reasked = sum(
        outcome.tries > 1
        for process in history.processes
        for outcome in process.outcomes
        if outcome.command == "seckill.claim"
    )
    wrongs = verdict.judge_broken_line(history, dump, stock)
    return wrongs + (verdict.judge_kept_claims(history, dump) if fault.claims_kept else [])


def _describe(
    fault: Fault,
    trial: Trial,
    swarm: Swarm,
    shop: Shop,
    cancellers: Cancellers,
    probe: Probe,
    history: History,
    dump: Dump | None,
    result: Result,
) -> None:
    """Fill in the figures, and judge those that have a bound."""
    started_s = trial.started_s
    result.fault_s = round(trial.relief_s - trial.blow_s, 2)
    result.unready_after_s = probe.unready_after_s(trial.blow_s)
    result.slowest_answer_s = round(probe.slowest_answer_s(trial.blow_s), 3)
    honesty = trial.script.plan.scenario.honesty
    result.saturated = report.gauges(swarm, honesty).saturated(honesty)
    result.troubles = probe.troubles(trial.blow_s)
    result.payments = len(shop.payments)
    result.cancelled = sum(told == "cancelled" for told in cancellers.told.values())
    result.dropped = {
        name: count for name, count in sorted(swarm.counts("faults").items()) if name != "cut_on_purpose"
    }
    result.healthy_s = trial.healthy_s
    if fault.room_lives:
        result.healthy_s = probe.healthy_s(trial.relief_s)
        if result.healthy_s is None:
            trial.wrongs.append("the service was not healthy in the end")
        elif result.healthy_s > fault.healthy_s_max:
            result.missed.append(f"healthy again only after {result.healthy_s:.1f} s")
    unready_s = result.unready_after_s
    if fault.unready_s_max is not None and (unready_s is None or unready_s > fault.unready_s_max):
        result.missed.append(f"not ready only after {unready_s} s, the bound is {fault.unready_s_max:g} s")
    if fault.answer_s_max is not None:
        silent = sum(count for said, count in result.troubles.items() if said.startswith("no answer"))
        if silent or result.slowest_answer_s > fault.answer_s_max:
            result.missed.append(f"answers took up to {result.slowest_answer_s} s, {silent} never came")
    since_s = trial.blow_s if fault.back_in_time else trial.relief_s
    if dump is not None:
        first = _first_fact_since(probe, dump, history.run, since_s)
        back = verdict.returns(history, since_s - started_s, first)
        result.back_p50_s, result.back_p99_s = back.share_s(0.5), back.share_s(BACK_SHARE)
        result.back_within_5_s = back.within(BACK_S_MAX)
        result.snapshots = back.snapshots
        if fault.back_in_time and back.within(BACK_S_MAX) < BACK_SHARE * back.viewers:
            result.missed.append(
                f"{back.within(BACK_S_MAX)} of {back.viewers} viewers were back within {BACK_S_MAX:g} s"
            )
    if not fault.drops and result.dropped:
        trial.wrongs.append(f"connections ended: {result.dropped}")
    result.notes += trial.notes
    result.wrongs += trial.wrongs
    result.invariants = (
        "broken" if trial.wrongs else "I1-I8 hold" if fault.keeps else "audit, stock, facts hold"
    )


def _first_fact_since(probe: Probe, dump: Dump, run: str, since_s: float) -> int | None:
    """Return the place of the first fact of the probe that was asked for since then, None if there is none."""
    since_us = int((since_s - probe.started_s) * US_PER_S)
    made = [each for each in probe.outcomes if each.code == "ok"]
    # One that was under way may have been made before.
    ends = tuple(f"#{run}.{each.step}" for each in made if each.sent_us >= since_us)
    places = [
        event["seq"] for event in dump.events if event["ev"] == "notice" and event["text"].endswith(ends)
    ]
    return min(places, default=None)


async def _patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    """Make a call until it is answered."""
    give_up = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        try:
            return await call()
        except ApiError:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(RETRY_S)


async def until(what: Callable[[], Awaitable[bool]], seconds: float = SETTLE_TIMEOUT_S) -> float:
    """Look until `what` holds; a question that is not answered does not. Returns how long it took (seconds)."""
    began_s = time.monotonic()
    while True:
        with contextlib.suppress(ApiError):
            if await what():
                return time.monotonic() - began_s
        if time.monotonic() - began_s > seconds:
            raise AssertionError(f"not so within {seconds:g} s")
        await asyncio.sleep(0.02)


def as_map(result: Result) -> dict[str, Any]:
    """Return a line as it is written down."""
    return dict(msgspec.to_builtins(result))
