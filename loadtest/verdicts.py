"""
Results looked at again: `judge FOLDER` and `report FOLDER`.

Decides what can be done with a finished run without a server: its recording is judged once more, and its page is drawn
once more from the summary. Both read what the run wrote and nothing else, so anybody who is given the folder can check
the verdict.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtest import folder, page, rooms
from loadtest.report import Exit

Folder = Annotated[Path, typer.Argument(help="Folder of a result.", exists=True, file_okay=False)]


def judge(results: Folder) -> int:
    """Judge the recording in FOLDER again; 0 if every promise was kept, 2 if not."""
    console = Console()
    evidence = folder.read_evidence(results)
    found = rooms.judge(evidence.plan, evidence.history, evidence.dumps)
    lines = [str(violation) for violation in found.violations]
    lines.append(
        f"{found.total} violation(s)"
        if found.total
        else f"every promise kept: {found.viewers_checked:,} viewers, {found.facts_delivered:,} facts, "
        f"{found.comments_delivered:,} comments"
    )
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return Exit.VIOLATED if found.total else Exit.PASS


def report(results: Folder) -> int:
    """Draw `report.html` in FOLDER again, from its `summary.json`."""
    summary = folder.read_summary(results)
    (results / folder.REPORT).write_text(page.render(summary), encoding="utf-8")
    Console().print(str(results / folder.REPORT), highlight=False, markup=False, soft_wrap=True)
    return Exit.PASS
