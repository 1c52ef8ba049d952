"""
Two results side by side: `compare OLD NEW`.

Decides which figures are comparable, what counts as worse, and what may be concluded: a threshold that held and no
longer does, a promise broken that was kept, and a figure that is worse by more than the tolerance, unless the
difference is so small that it is noise. Results of different plans or machines are compared all the same, and it is
said that they differ, because then a ratio may not be about the server. An invalid result (exit 4) is never called
better.

Exit codes: 0 nothing is worse, 1 usage or nothing to compare, 3 something is worse.
"""

from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from loadtest import folder
from loadtest.report import Exit, Result

#: A delay below this is as good as any other: one turn of an event loop.
NOISE_MS: Final = 2.0
TOLERANCE: Final = 0.2
#: Figures that are worse when they are higher, besides delays, and the difference that is noise.
HIGHER_IS_WORSE: Final = {
    "lost_viewers": 0.0,
    "unanswered": 0.0,
    "claims_unanswered": 0.0,
    "grabs_unanswered": 0.0,
    "early_wins": 0.0,
    "refused": 5.0,
    "thinned_share": 0.01,
    "server_cores": 0.05,
    "server_rss_mib": 8.0,
}
#: Those that are worse when they are lower.
LOWER_IS_WORSE: Final = {"comments_per_s": 0.5}
#: Percentiles compared; a maximum is one event, and p99.9 of a short run a handful.
_PERCENTILES: Final = ("p50", "p90", "p99")
_SUBJECTS: Final = ("delivery", "fact", "join", "reply", "claim", "grab")


class Line(Struct, frozen=True):
    """One figure in both results."""

    metric: str
    old: float
    new: float
    #: "worse", "better" or "".
    change: str

    @property
    def ratio(self) -> float | None:
        """Return new over old, None if there was nothing."""
        return self.new / self.old if self.old else None


class Comparison(Struct, frozen=True):
    """What two results say together."""

    lines: list[Line]
    #: What got worse, in words; empty if nothing did.
    worse: list[str]
    #: What should be known before believing the ratios.
    cautions: list[str]
    #: Whether both results have a delay in common: without one nothing is known, whatever the other figures say.
    measured: bool = True


def figures(result: Result) -> dict[str, float]:
    """Return the comparable figures of a result: the metrics that were measured, and the server's processes."""
    found: dict[str, float] = {}
    for subject in _SUBJECTS:
        if result.latency.get(subject, {}).get("count"):
            for percentile in _PERCENTILES:
                found[f"{subject}_{percentile}_ms"] = result.metrics[f"{subject}_{percentile}_ms"]
    for metric in (*HIGHER_IS_WORSE, *LOWER_IS_WORSE):
        if metric in result.metrics:
            found[metric] = result.metrics[metric]
    server = [usage for usage in result.timeline.usage if usage.group == "server"]
    if server:
        found["server_cores"] = round(sum(usage.cores for usage in server) / len(server), 4)
        found["server_rss_mib"] = round(max(usage.rss_bytes for usage in server) / (1 << 20), 1)
    return found


def change(metric: str, old: float, new: float, tolerance: float) -> str:
    """Return "worse" or "better" if a figure moved by more than `tolerance` of its old value and more than noise."""
    if metric in LOWER_IS_WORSE:
        noise, old, new = LOWER_IS_WORSE[metric], -old, -new
    else:
        noise = HIGHER_IS_WORSE.get(metric, NOISE_MS)
    if abs(new - old) <= max(noise, tolerance * abs(old)):
        return ""
    return "worse" if new > old else "better"


def compare(old: Result, new: Result, tolerance: float = TOLERANCE) -> Comparison:
    """Return what two results say together. `tolerance` is a share of the old value."""
    before, after = figures(old), figures(new)
    lines = [
        Line(metric, before[metric], after[metric], change(metric, before[metric], after[metric], tolerance))
        for metric in before
        if metric in after
    ]
    worse = []
    if new.exit_code == Exit.VIOLATED and old.exit_code != Exit.VIOLATED:
        worse.append(f"a promise is broken: {new.reasons[0]}")
    if new.exit_code == Exit.SATURATED and old.exit_code != Exit.SATURATED:
        worse.append("the new result is invalid: its generator could not keep up")
    held = {check.threshold for check in old.thresholds if check.holds}
    worse += [
        f"{check.threshold} held, and is {check.value:g} now"
        for check in new.thresholds
        if not check.holds and check.threshold in held
    ]
    for line in lines:
        if line.change == "worse":
            ratio = "" if line.ratio is None else f", {line.ratio:.2f} times"
            worse.append(f"{line.metric} went from {line.old:g} to {line.new:g}{ratio}")
    subjects = [
        {subject for subject in _SUBJECTS if result.latency.get(subject, {}).get("count")}
        for result in (old, new)
    ]
    return Comparison(lines, worse, cautions(old, new), measured=bool(subjects[0] & subjects[1]))


def cautions(old: Result, new: Result) -> list[str]:
    """Return what should be known before the ratios are believed."""
    found = []
    for which, result in (("old", old), ("new", new)):
        if not any(result.latency.get(subject, {}).get("count") for subject in _SUBJECTS):
            found.append(f"the {which} result measured nothing: no delivery and no answer")
        if result.exit_code == Exit.SATURATED:
            found.append(f"the {which} result is invalid: {'; '.join(result.reasons)}")
    if old.plan != new.plan:
        found.append(
            f"different plans: {old.scenario['name']}, seed {old.seed} ({old.plan}) and "
            f"{new.scenario['name']}, seed {new.seed} ({new.plan})"
        )
    if old.machine != new.machine:
        found.append(
            f"different machines: {old.machine['cpu']} × {old.machine['cores']} and "
            f"{new.machine['cpu']} × {new.machine['cores']}"
        )
    found += [
        f"{name} {old.versions[name]} and {new.versions[name]}"
        for name in sorted(old.versions.keys() & new.versions.keys())
        if old.versions[name] != new.versions[name]
    ]
    return found


def command(
    old: Annotated[Path, typer.Argument(help="Folder of the older result.", exists=True, file_okay=False)],
    new: Annotated[Path, typer.Argument(help="Folder of the newer result.", exists=True, file_okay=False)],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Share of the old value by which a figure may get worse.")
    ] = TOLERANCE,
) -> int:
    """Compare two results; 0 if nothing got worse, 3 if something did, 1 if there is nothing to compare."""
    before, after = folder.read_summary(old), folder.read_summary(new)
    found = compare(before, after, tolerance)
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(("metric", "old", "new", "ratio", "")):
        table.add_column(head, justify="right" if 0 < place < 4 else "left")
    styles = {"worse": "bold red", "better": "green", "": ""}
    for line in found.lines:
        ratio = "–" if line.ratio is None else f"{line.ratio:.2f}"
        row = (line.metric, f"{line.old:g}", f"{line.new:g}", ratio, line.change)
        table.add_row(*row, style=styles[line.change])
    console.print(table)
    said = [f"caution    {caution}" for caution in found.cautions]
    said += [f"commits    {before.commit or 'unknown'} → {after.commit or 'unknown'}"]
    said += [
        f"verdicts   {before.verdict} (exit {before.exit_code}) → {after.verdict} (exit {after.exit_code})"
    ]
    said += [f"worse      {reason}" for reason in found.worse]
    if not found.measured:
        said.append("nothing can be said: there is no delay that both results measured")
    elif not found.worse:
        said.append(f"nothing got worse by more than {tolerance:.0%}")
    console.print("\n".join(said), highlight=False, markup=False, soft_wrap=True)
    if found.worse:
        return Exit.MISSED
    return Exit.PASS if found.measured else Exit.USAGE
