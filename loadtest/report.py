"""
The result of a run: figures, verdict, exit code.

Decides what a run's numbers are, whether its thresholds hold, and whether the generator kept up well enough for them
to mean anything. Does not find violations (`oracle.py`). Numbers travel with their machine, versions, commit and
command, so that somebody else can repeat them.
"""

import os
import platform
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtest import latency, timeline
from loadtest.findings import Findings
from loadtest.history import History, Outcome
from loadtest.latency import Delays
from loadtest.meter import Usage
from loadtest.plan import Plan
from loadtest.scenario import thresholds
from loadtest.sections import Honesty
from loadtest.swarm import Swarm
from loadtest.timeline import Counts, Pulse, Timeline

SUMMARY_VERSION: Final = 2
_PACKAGES: Final = ("liveroom", "websockets", "uvloop", "orjson", "msgspec", "hdrhistogram")


class Exit(IntEnum):
    """What a run's process ends with."""

    PASS = 0
    USAGE = 1
    VIOLATED = 2
    MISSED = 3
    SATURATED = 4
    #: By SIGINT and by SIGTERM, as shells number it.
    INTERRUPTED = 130
    TERMINATED = 143


class Gauges(Struct, kw_only=True):
    """How well the generator itself kept up."""

    steps: int
    late: int
    cpu_share_max: float
    #: Longest unbroken time a process spent above the allowed share of a core, seconds.
    cpu_sustained_s: float
    rss_bytes: int
    processes: int
    #: Longest time a process stood still, milliseconds.
    stall_ms: int = 0

    @property
    def late_share(self) -> float:
        """Return the share of steps taken too late to count."""
        return self.late / self.steps if self.steps else 0.0

    def saturated(self, honesty: Honesty) -> list[str]:
        """Return why the result is invalid; empty if it is not."""
        reasons = []
        if self.late_share > honesty.late_share_max:
            reasons.append(f"{self.late_share:.1%} of the steps were over {honesty.late_ms} ms late")
        if self.cpu_sustained_s >= honesty.cpu_sustained_s:
            reasons.append(
                f"a generator process used over {honesty.cpu_share_max:.0%} of its core "
                f"for {self.cpu_sustained_s:.1f} s"
            )
        if self.stall_ms > honesty.stall_ms_max:
            reasons.append(f"a generator process stood still for {self.stall_ms / 1000:.1f} s")
        return reasons


class Checked(Struct):
    """One threshold and whether it held."""

    threshold: str
    value: float
    holds: bool


class Result(Struct, kw_only=True):
    """Everything `summary.json` holds."""

    version: int = SUMMARY_VERSION
    verdict: str
    exit_code: int
    reasons: list[str]
    scenario: dict[str, Any]
    seed: int
    plan: str
    target: str
    room: str
    command: list[str]
    #: The command line that plays the same plan again.
    replay: str
    started_at: str
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    metrics: dict[str, float]
    latency: dict[str, dict[str, float]]
    counts: dict[str, int]
    outcomes: dict[str, int]
    faults: dict[str, int]
    #: Sales, packets and the share board as the oracle found them.
    campaigns: dict[str, Any]
    #: What was done to the server on purpose.
    struck: list[str]
    generator: dict[str, Any]
    thresholds: list[Checked]
    violations: list[dict[str, Any]]
    violations_total: int
    histograms: dict[str, str]
    #: Subject → percentile and milliseconds, closer and closer to 100.
    spectrum: dict[str, list[tuple[float, float]]]
    timeline: Timeline

    def to_bytes(self) -> bytes:
        """Return the summary as JSON for people and programs."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)


def gauges(swarm: Swarm, honesty: Honesty) -> Gauges:
    """Return the generator's own figures. A process with nothing to do counts too: it is part of the plan."""
    sustained_s = highest = 0.0
    for process in swarm.progress:
        begun: float | None = None
        for at_s, owner, share in swarm.cpu:
            if owner != process:
                continue
            highest = max(highest, share)
            if share <= honesty.cpu_share_max:
                begun = None
            elif begun is None:
                begun = at_s
            else:
                sustained_s = max(sustained_s, at_s - begun)
    return Gauges(
        steps=swarm.total("steps_taken") + swarm.total("steps_left"),
        # Steps that were never taken are as late as can be.
        late=swarm.total("late") + swarm.total("steps_left"),
        cpu_share_max=round(highest, 3),
        cpu_sustained_s=round(sustained_s, 1),
        rss_bytes=swarm.total("rss_bytes"),
        processes=len(swarm.progress),
        stall_ms=swarm.stall_us // 1000,
    )


def delays(counts: Counts) -> dict[str, Delays]:
    """Return the histograms of a run by subject, each from the intended moment."""
    histograms: dict[str, Delays] = {}
    for subject, seconds in counts.items():
        whole: Counter[int] = Counter()
        for delays_us in seconds.values():
            whole.update(delays_us)
        histograms[subject] = Delays()
        for delay_us, count in whole.items():
            histograms[subject].record(delay_us, count)
    return histograms


def build(
    *,
    plan: Plan,
    swarm: Swarm,
    history: History,
    findings: Findings,
    target: str,
    command: Sequence[str],
    started_at: str,
    seconds: float,
    counts: Counts | None = None,
    pulses: Iterable[Pulse] = (),
    usage: Iterable[Usage] = (),
) -> Result:
    """
    Return the result of a run.

    `counts` are the delays as `timeline.counts` finds them, for callers who have them already.
    """
    scenario = plan.scenario
    if counts is None:
        counts = timeline.counts(plan, history)
    histograms = delays(counts) | {"lag": swarm.lags}
    figures = {name: histogram.figures() for name, histogram in histograms.items()}
    outcomes = Counter(f"{outcome.command} {outcome.code}" for outcome in _outcomes(history))
    own = gauges(swarm, scenario.honesty)
    metrics = _metrics(plan, history, findings, figures, own)
    checked = [
        Checked(str(threshold), metrics[threshold.metric], threshold.holds(metrics[threshold.metric]))
        for threshold in thresholds(scenario)
    ]
    code, verdict, reasons = judge_run(findings, checked, own.saturated(scenario.honesty))
    return Result(
        verdict=verdict,
        exit_code=int(code),
        reasons=reasons,
        scenario=msgspec.to_builtins(scenario),
        seed=plan.seed,
        plan=plan.digest(),
        target=target,
        room=history.room,
        command=list(command),
        replay=replay(command, plan.seed),
        started_at=started_at,
        seconds=round(seconds, 3),
        machine=machine(),
        versions=versions(),
        commit=commit(),
        metrics=metrics,
        latency=figures,
        counts={
            "viewers": sum(actor.role == "viewer" for actor in plan.actors),
            "steps": len(plan.steps),
            "viewers_checked": findings.viewers_checked,
            "snapshots_checked": findings.snapshots_checked,
            "views_checked": findings.views_checked,
            "neighbours_checked": findings.neighbours_checked,
            "epochs": findings.epochs,
            "facts": findings.facts,
            "facts_delivered": findings.facts_delivered,
            "comments_accepted": findings.comments_accepted,
            "comments_delivered": findings.comments_delivered,
            "comments_thinned": findings.comments_thinned,
            "likes_acknowledged": findings.likes_acknowledged,
            "likes_unknown": findings.likes_unknown,
            "likes_final": findings.likes_final,
            "frames_distinct": sum(len(process.frames) for process in history.processes),
            "frames_read": sum(
                len(viewer.frames) for process in history.processes for viewer in process.viewers
            ),
        },
        outcomes=dict(sorted(outcomes.items())),
        faults=dict(sorted(swarm.counts("faults").items())),
        campaigns={
            "sales": msgspec.to_builtins(findings.sales),
            "packets": msgspec.to_builtins(findings.packets),
            "board": msgspec.to_builtins(findings.board),
        },
        struck=history.faults,
        generator=msgspec.to_builtins(own) | {"late_share": round(own.late_share, 6)},
        thresholds=checked,
        violations=[msgspec.to_builtins(violation) for violation in findings.violations],
        violations_total=findings.total,
        histograms={name: histogram.encoded() for name, histogram in histograms.items()},
        spectrum={name: histogram.spectrum() for name, histogram in histograms.items() if histogram.count},
        timeline=timeline.build(plan, history, counts, pulses, usage),
    )


def replay(command: Sequence[str], seed: int) -> str:
    """
    Return the command line that plays the same plan again: this one, with the seed said.

    A plan that came from a file has its seed in it; a run that came from no command line has none to repeat.
    """
    words = list(command)
    if words and not any(word.partition("=")[0] in ("--seed", "--plan") for word in words):
        words += ["--seed", str(seed)]
    return shlex.join(words)


def judge_run(
    findings: Findings, checked: list[Checked], saturated: list[str]
) -> tuple[Exit, str, list[str]]:
    """
    Return exit code, verdict and reasons.

    A broken promise is one however busy the generator was. Thresholds mean nothing if it was too busy.
    """
    if findings.total:
        return Exit.VIOLATED, "violated", [str(violation) for violation in findings.violations]
    if saturated:
        return Exit.SATURATED, "saturated: result invalid", saturated
    missed = [f"{check.threshold}: {check.value:g}" for check in checked if not check.holds]
    if missed:
        return Exit.MISSED, "threshold missed", missed
    return Exit.PASS, "pass", []


def _metrics(
    plan: Plan,
    history: History,
    findings: Findings,
    figures: dict[str, dict[str, float]],
    own: Gauges,
) -> dict[str, float]:
    """Return every metric of `scenario.METRICS`."""
    metrics: dict[str, float] = {}
    for subject, values in figures.items():
        for figure in (*latency.PERCENTILES, "max"):
            metrics[f"{subject}_{figure}_ms"] = values.get(f"{figure}_ms", 0.0)
    outcomes = _outcomes(history)
    viewers = [viewer for process in history.processes for viewer in process.viewers]
    unsettled = ("ok", *_OPEN)
    comments = findings.comments_delivered + findings.comments_thinned
    return metrics | {
        "lost_viewers": sum(not viewer.present and not viewer.left for viewer in viewers),
        "unanswered": sum(outcome.code in _OPEN for outcome in outcomes),
        "claims_unanswered": _left_open(outcomes, "seckill.claim"),
        "grabs_unanswered": _left_open(outcomes, "redpacket.grab"),
        "wins": sum(tally.answers.get("won", 0) for tally in findings.sales.values()),
        "early_wins": sum(tally.early for tally in findings.sales.values()),
        "stock_left": sum(tally.left for tally in findings.sales.values()),
        "grab_winners": sum(tally.winners for tally in findings.packets.values()),
        "refused": sum(outcome.code not in unsettled for outcome in outcomes),
        "thinned_share": round(findings.comments_thinned / comments, 6) if comments else 0.0,
        "late_share": round(own.late_share, 6),
        "comments_per_s": round(findings.comments_accepted / (plan.end_us / 1e6), 3),
    }


#: Codes that are no answer.
_OPEN: Final = ("unanswered", "not_connected")


def _left_open(outcomes: list[Outcome], command: str) -> int:
    """Return how many commands of this name never got a definite answer."""
    return sum(
        outcome.command == command and (outcome.code in _OPEN or not outcome.definite) for outcome in outcomes
    )


def _outcomes(history: History) -> list[Outcome]:
    return [outcome for process in history.processes for outcome in process.outcomes]


# --- where the numbers come from ------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def commit() -> str:
    """Return the commit this package was checked out from, with "+" for uncommitted changes; else ""."""
    git = shutil.which("git")
    folder = Path(__file__).resolve().parent
    if git is None:
        return ""
    try:
        head = subprocess.run(
            [git, "-C", str(folder), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            [git, "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


# --- for people -----------------------------------------------------------------------------------------------


def text(result: Result) -> str:
    """Return the verdict in words."""
    counts, lines = result.counts, [""]
    lines.append(
        f"{result.scenario['name']}: {counts['viewers']} viewers, seed {result.seed}, plan {result.plan}, "
        f"{result.seconds:.0f} s, {result.target}"
    )
    lines.append("")
    lines.append(f"{'milliseconds':<22}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'max':>9}{'count':>12}")
    names = {
        "delivery": "comment delivery",
        "fact": "fact, after first",
        "join": "join",
        "resume": "return with resume",
        "claim": "claim, any answer",
        "grab": "grab, any answer",
        "cut": "either, after a cut",
        "reply": "reply to the rest",
        "lag": "generator lag",
    }
    for name, label in names.items():
        figures = result.latency[name]
        if name in ("resume", "claim", "grab", "cut") and not figures["count"]:
            continue
        values = "".join(f"{figures.get(f'{key}_ms', 0.0):>9.1f}" for key in (*latency.PERCENTILES, "max"))
        lines.append(f"{label:<22}{values}{int(figures['count']):>12,}")
    lines.append("")
    lines.append(
        f"facts      {counts['facts']:,} in the room, {counts['facts_delivered']:,} deliveries, "
        f"{counts['snapshots_checked']:,} snapshots and {counts['views_checked']:,} full views compared"
    )
    if counts.get("epochs", 1) > 1:
        lines.append(
            f"epochs     {counts['epochs']}: the store lost its newest history; what came before is in snapshots only"
        )
    lines.append(
        f"comments   {counts['comments_accepted']:,} accepted, {counts['comments_delivered']:,} deliveries, "
        f"{counts['comments_thinned']:,} thinned and announced"
    )
    unknown = f" (+ {counts['likes_unknown']:,} unknown)" if counts["likes_unknown"] else ""
    lines.append(
        f"likes      {counts['likes_acknowledged']:,} acknowledged{unknown}, {counts['likes_final']:,} in the room"
    )
    lines.extend(_campaigns(result))
    refused = {
        name: count
        for name, count in result.outcomes.items()
        if not name.endswith(" ok") and not name.startswith(("seckill.claim ", "redpacket.grab "))
    }
    if refused:
        lines.append("refused    " + ", ".join(f"{name} × {count:,}" for name, count in refused.items()))
    if result.faults:
        lines.append(
            "faults     " + ", ".join(f"{name} × {count:,}" for name, count in result.faults.items())
        )
    lines.extend(f"struck     {fault}" for fault in result.struck)
    lines.append(
        f"generator  {result.generator['late']:,} of {result.generator['steps']:,} steps late, "
        f"CPU at most {result.generator['cpu_share_max']:.0%} of a core"
    )
    lines.append("")
    lines.append(f"verdict    {result.verdict.upper()} (exit {result.exit_code})")
    shown = result.reasons[:20]
    lines.extend(f"           {reason}" for reason in shown)
    if len(result.reasons) > len(shown):
        lines.append(f"           and {len(result.reasons) - len(shown)} more in summary.json")
    if result.verdict == "violated":
        lines.append(f"           replay: {result.replay}")
    elif result.verdict == "pass":
        lines.append("           every fact at every viewer once, in one order; likes exact")
        if counts["neighbours_checked"]:
            lines.append(
                "           nothing of this room at another tenant's viewers, and nothing of theirs here"
            )
        if result.campaigns["sales"]:
            lines.append(
                "           no unit sold twice, no acknowledged order lost, none won early; every claim explained"
            )
        if result.campaigns["packets"]:
            lines.append(
                "           one share a viewer; granted, left and refunded are the total to the cent"
            )
    return "\n".join(lines)


def _campaigns(result: Result) -> list[str]:
    """Return what became of sales, packets and the share board, in words."""
    lines = []
    for sale, tally in result.campaigns["sales"].items():
        lines.append(f"claims     {sale}: {tally['claims']:,} asked: {_answers(tally)}")
        units = f"{tally['left']:,} left + {tally['held']:,} held + {tally['sold']:,} sold"
        lines.append(
            f"stock      {tally['stock']:,} = {units}; {tally['early']:,} won early, {tally['returned']:,} came back, "
            f"{tally['untold']:,} whose winner was never told"
        )
        if tally["payments"]:
            lines.append(
                f"payments   {tally['payments']:,} reported, {tally['refunds_required']:,} to be refunded by the shop"
            )
    for packet, tally in result.campaigns["packets"].items():
        lines.append(
            f"packet     {packet}: {tally['winners']:,} of {tally['shares']:,} shares; "
            f"{tally['total_cents']:,} cents = {tally['granted_cents']:,} granted + {tally['left_cents']:,} left + "
            f"{tally['refunded_cents']:,} refunded; {tally['grabs']:,} grabs: {_answers(tally)}"
        )
    board = result.campaigns["board"]
    if board["arrivals"]:
        reasons = f" ({_counts(board['reasons'])})" if board["reasons"] else ""
        lines.append(
            f"shares     {board['arrivals']:,} arrivals through links, {board['counted']:,} counted{reasons}, "
            f"brought by {board['inviters']:,}"
        )
    return lines


def _answers(tally: dict[str, Any]) -> str:
    reasked = f"; {tally['reasked']:,} asked more than once" if tally["reasked"] else ""
    searched = "; searched for every order" if tally["searched"] else ""
    return _counts(tally["answers"]) + reasked + searched


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} × {count:,}" for name, count in counts.items())
