"""
A run second by second.

Decides into which second everything falls and what is said about a second: delays by the second of the *intended*
moment of what caused them (facts, which no step of a viewer caused, by their first sight), refusals by the second of
their answer. A second in which nothing was due has no delay rather than one of zero. Also decides which moments of a
run deserve a name in a chart: what the plan says about sales and packets, its peak, and what was done to the server on
purpose.

Pure. Percentiles here are exact, by counting; the histograms for other tools are made of the same counts (`hlog.py`).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from loadtest.history import TICK_US, CommentSeen, FactSeen, History
from loadtest.meter import Usage
from loadtest.plan import Plan

US_PER_S: Final = 1_000_000
#: Moments closer than this are one.
SAME_S: Final = 0.05
#: With more moments than this a plan has named what matters.
NAMES_FEW: Final = 2
#: Codes that a busy sale or packet answers by design: worth counting, no sign of trouble.
EXPECTED_CODES: Final = frozenset(
    {"sold_out", "empty", "not_started", "ended", "limit_reached", "rate_limited", "already_joined"}
)
#: Subject of a delay → second → microseconds → how many.
Counts = dict[str, dict[int, Counter[int]]]

_SUBJECTS: Final = {"room.join": "join", "seckill.claim": "claim", "redpacket.grab": "grab"}
_STRUCK_AT: Final = re.compile(r"at ([\d.]+) s: (.*)")
_AT: Final = re.compile(r"\{at:(\d+)\}")


class Moment(Struct, frozen=True):
    """Something worth a line in a chart."""

    at_s: float
    name: str
    #: "plan" or "fault".
    kind: str = "plan"


class Pulse(Struct, frozen=True, array_like=True):
    """How it stood at one moment, as the generators last said."""

    at_s: float
    #: Viewers in the room.
    joined: int
    #: Longest delay of a step since the last word, milliseconds.
    lag_ms: float
    #: Units left of all sales; None without one.
    stock_left: int | None


class Second(Struct, frozen=True, array_like=True):
    """The delays of one second, milliseconds."""

    at_s: int
    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Timeline(Struct, kw_only=True):
    """Everything about a run that changes with time."""

    seconds: int
    #: Subject → seconds in which there was something.
    delays: dict[str, list[Second]]
    #: Command → second → answers that were "ok".
    accepted: dict[str, dict[int, int]]
    #: Code → second → answers with it. Codes are "command code".
    refused: dict[str, dict[int, int]]
    pulses: list[Pulse]
    usage: list[Usage]
    moments: list[Moment]


def counts(plan: Plan, history: History) -> Counts:
    """
    Return every delay of a run: delivery, fact, join, resume, reply, claim, grab, cut.

    A join is somebody's first, the planned returns after it are `resume`. Claims and grabs of viewers whose connection
    the plan cuts wait for their return; they are counted apart, as `cut`. What slow readers waited for is their own
    doing and not counted at all.
    """
    found: defaultdict[str, defaultdict[int, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for subject in ("delivery", "fact", "join", "resume", "reply", "claim", "grab", "cut"):
        found[subject] = defaultdict(Counter)
    _deliveries(plan, history, found["delivery"])
    _facts(history, found["fact"])
    cut = {step.actor for step in plan.steps if step.verb == "cut"}
    came: dict[int, int] = {}
    for number, step in enumerate(plan.steps):
        if step.verb == "join":
            came.setdefault(step.actor, number)
    for process in history.processes:
        for outcome in process.outcomes:
            if plan.actors[plan.steps[outcome.step].actor].reads_bytes_s:
                continue
            subject = _SUBJECTS.get(outcome.command, "reply")
            if subject == "join" and outcome.step != came.get(plan.steps[outcome.step].actor):
                subject = "resume"
            # Who claims wants to know, and a refusal is as good an answer as any: most of them get one.
            claims = subject in ("claim", "grab")
            if claims and plan.steps[outcome.step].actor in cut:
                subject = "cut"
            if outcome.code == "ok" or (claims and outcome.definite and outcome.tries):
                delay_us = outcome.done_us - outcome.intended_us
                found[subject][outcome.intended_us // US_PER_S][delay_us] += 1
    return {subject: dict(seconds) for subject, seconds in found.items()}


def _deliveries(plan: Plan, history: History, found: defaultdict[int, Counter[int]]) -> None:
    """Count every comment of ours at every viewer, from the moment at which it was due."""
    intended_us = {
        number: step.at_us
        for number, step in enumerate(plan.steps)
        if step.command.get("cmd") == "comment.send"
    }
    for process in history.processes:
        for frame in process.frames:
            for mark in frame.marks:
                if not isinstance(mark, CommentSeen) or mark.step not in intended_us:
                    continue
                due_us = intended_us[mark.step]
                due_tick, second = due_us // TICK_US, found[due_us // US_PER_S]
                for tick, viewers in frame.ticks.items():
                    second[max(0, tick - due_tick) * TICK_US] += viewers


def _facts(history: History, found: defaultdict[int, Counter[int]]) -> None:
    """
    Count the delay between the first viewer's reading of a fact and each other's: the skew of the fan-out.

    Facts have no step in them, so their first sight anywhere is the origin.
    """
    ticks: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for process in history.processes:
        room = process.room
        for frame in process.frames:
            for mark in frame.marks:
                if isinstance(mark, FactSeen):
                    ticks[room, mark.seq].update(frame.ticks)
    for seen in ticks.values():
        first = min(seen, default=0)
        second = found[first * TICK_US // US_PER_S]
        for tick, viewers in seen.items():
            second[(tick - first) * TICK_US] += viewers


def second_of(at_s: int, delays_us: Counter[int]) -> Second:
    """Return the figures of one second's delays, of which there is at least one."""
    total = sum(delays_us.values())
    ranks = {name: max(1, -(-total * share // 100)) for name, share in (("p50", 50), ("p99", 99))}
    values: dict[str, int] = {}
    passed = highest = 0
    for delay_us in sorted(delays_us):
        passed += delays_us[delay_us]
        highest = delay_us
        for name, rank in ranks.items():
            if passed >= rank:
                values.setdefault(name, delay_us)
    return Second(at_s, total, values["p50"] / 1000, values["p99"] / 1000, highest / 1000)


def build(
    plan: Plan, history: History, found: Counts, pulses: Iterable[Pulse], usage: Iterable[Usage]
) -> Timeline:
    """Return a run second by second."""
    accepted: defaultdict[str, Counter[int]] = defaultdict(Counter)
    refused: defaultdict[str, Counter[int]] = defaultdict(Counter)
    last_us = plan.end_us
    for process in history.processes:
        for outcome in process.outcomes:
            second = outcome.done_us // US_PER_S
            last_us = max(last_us, outcome.done_us)
            if outcome.code == "ok":
                accepted[outcome.command][second] += 1
            else:
                refused[f"{outcome.command} {outcome.code}"][second] += 1
    return Timeline(
        seconds=-(-last_us // US_PER_S),
        delays={
            subject: [second_of(at_s, seconds[at_s]) for at_s in sorted(seconds)]
            for subject, seconds in found.items()
            if seconds
        },
        accepted={name: dict(sorted(seconds.items())) for name, seconds in sorted(accepted.items())},
        refused={name: dict(sorted(seconds.items())) for name, seconds in sorted(refused.items())},
        pulses=list(pulses),
        usage=list(usage),
        moments=moments(plan, history.faults),
    )


def moments(plan: Plan, faults: Iterable[str]) -> list[Moment]:
    """Return the moments of a run that deserve a name, in order."""
    named = [Moment(mark.at_us / US_PER_S, mark.name.replace("_", " ")) for mark in plan.moments]

    def name(at_us: int, what: str) -> None:
        # What the plan has named itself, or somebody else at the same moment, has its name.
        if at_us <= plan.end_us and not any(abs(moment.at_s - at_us / US_PER_S) < SAME_S for moment in named):
            named.append(Moment(at_us / US_PER_S, what))

    # A show has names enough; a run about one thing gets the rest from its commands.
    for step in plan.steps if len(named) <= NAMES_FEW else ():
        command = step.command
        if command.get("cmd") == "seckill.schedule":
            name(_moment_us(command.get("starts_at"), step.at_us), "sale starts")
            name(_moment_us(command.get("ends_at"), plan.end_us + 1), "sale ends")
        elif command.get("cmd") == "redpacket.send":
            opens_us = _moment_us(command.get("opens_at"), step.at_us)
            name(opens_us, "packet opens")
            name(opens_us + int(command.get("expires_s", 0)) * US_PER_S, "packet expires")
    found = list(named)
    for fault in faults:
        match = _STRUCK_AT.match(fault)
        if match is not None:
            found.append(Moment(float(match[1]), match[2].partition(",")[0], "fault"))
    return sorted(found, key=lambda moment: moment.at_s)


def _moment_us(value: Any, default_us: int) -> int:
    match = _AT.fullmatch(value) if isinstance(value, str) else None
    return default_us if match is None else int(match[1])
