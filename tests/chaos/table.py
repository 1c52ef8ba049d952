"""
The table of a run: one line for each fault.

Decides what is shown and what is written down. Judges nothing; a line has passed when its trial says so.
"""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.trial import Result, as_map

_HEAD = (
    "fault",
    "for",
    "healthy after",
    "back p99",
    "back within 5 s",
    "facts lost",
    "wins / asked again",
    "invariants",
    "verdict",
)


def row(result: Result) -> list[str]:
    """Return the cells of one line."""
    return [
        result.fault,
        f"{result.fault_s:.1f} s" if result.fault_s >= 0.05 else "",
        "never" if result.healthy_s is None else f"{result.healthy_s:.1f} s",
        "" if result.back_p99_s is None else f"{result.back_p99_s:.1f} s",
        "" if result.back_p99_s is None else f"{result.back_within_5_s} of {result.viewers + 1}",
        f"{result.facts_lost}" + (f", {result.snapshots} snapshots" if result.snapshots else ""),
        f"{result.wins} / {result.reasked}",
        result.invariants,
        result.verdict,
    ]


def show(console: Console, results: Sequence[Result]) -> None:
    """Print the table, what went wrong, and how to repeat it."""
    table = Table(*_HEAD, title=f"chaos, seed {results[0].seed}" if results else "chaos")
    for result in results:
        table.add_row(*row(result), style="" if result.passed else "red")
    console.print(table)
    for result in results:
        if not result.passed:
            console.print(f"[red]{result.fault}[/red]: {result.verdict}; repeat with  {result.command}")
            for wrong in [*result.wrongs[:10], *result.missed, *result.saturated]:
                console.print(f"  {wrong}", markup=False)


def markdown(results: Sequence[Result]) -> str:
    """Return the table and its notes as Markdown."""
    seed = results[0].seed if results else 0
    lines = [f"# Chaos, seed {seed}", "", f"{machine()}. Times are seconds.", ""]
    head = [*_HEAD, "moment", "not ready after", "slowest answer", "connections that ended", "load", "notes"]
    lines.append("| " + " | ".join(head) + " |")
    lines.append("| " + " | ".join("---" for _ in head) + " |")
    for result in results:
        ended = ", ".join(f"{count} {name}" for name, count in result.dropped.items())
        unready = "" if result.unready_after_s is None else f"{result.unready_after_s:.1f} s"
        notes = "; ".join(note for note in result.notes if "\n" not in note)
        cells = [*row(result), f"{result.moment_s:.2f} s", unready, f"{result.slowest_answer_s:.2f} s"]
        cells += [ended, f"{result.load:.1f}", notes]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    for result in results:
        if not result.passed:
            lines += ["", f"**{result.fault}**: {result.verdict}; `{result.command}` repeats it.", ""]
            lines += [f"- {wrong}" for wrong in [*result.wrongs[:20], *result.missed, *result.saturated]]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Return where this was measured."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {load} in the end"


def write(results: Sequence[Result], out: Path) -> None:
    """Write `chaos.json` and `chaos.md` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    maps = [as_map(result) for result in results]
    (out / "chaos.json").write_text(json.dumps(maps, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / "chaos.md").write_text(markdown(results), "utf-8")
