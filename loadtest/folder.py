"""
The folder of a result.

Decides what is in it and how it is read again: `summary.json` for programs, `report.html` for people, the plan, the
whole history and the dumps so that the judging can be done again, and the histogram logs. All of it is written by one
run; nothing is added later, and nobody's earlier result is written over.
"""

import contextlib
import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from loadtest import history, hlog, page
from loadtest.history import Dump, History
from loadtest.plan import Plan
from loadtest.report import SUMMARY_VERSION, Result
from loadtest.scenario import ScenarioError
from loadtest.timeline import Counts

SUMMARY: Final = "summary.json"
REPORT: Final = "report.html"
PLAN: Final = "plan.json.gz"
HISTORY: Final = "history.msgpack.gz"
DUMP: Final = "dumps.json.gz"
LATENCY: Final = "latency"


class FolderError(Exception):
    """A folder that holds no result, one of another version, or that no result can be written to. Exit code 1."""


class NotWritten(FolderError):
    """The run has its result, but its folder could not be written."""

    def __init__(self, out: Path, error: OSError, result: Result) -> None:
        super().__init__(f"the result could not be written: {error.filename or out}: {error.strerror}")
        self.result = result


class Evidence(NamedTuple):
    """What the judge needs."""

    plan: Plan
    history: History
    #: By room.
    dumps: list[Dump]


@contextlib.contextmanager
def reserved(out: Path) -> Iterator[None]:
    """
    Make the folder `out` and write to it once, so that a run does not find out at its end that it cannot.

    What was made is taken away again if the block leaves it empty.

    Raises:
        FolderError: If it cannot be made or written, or holds anything already.
    """
    made: list[Path] = []
    try:
        try:
            made = [folder for folder in (out, *out.parents) if not folder.exists()]
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise FolderError(f"{out} is not empty; choose another folder or remove it")
            with tempfile.TemporaryFile(dir=out) as probe:
                probe.write(b"liveroom")
        except OSError as error:
            raise FolderError(f"cannot write to {out}: {error.strerror}") from None
        yield
    finally:
        # The innermost first; the first one that is in use ends it.
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def write(out: Path, result: Result, evidence: Evidence, counts: Counts) -> None:
    """
    Write everything about a run into `out`, which is made if it is not there.

    Raises:
        NotWritten: If that fails half way, for instance because the disk is full.
    """
    try:
        _write(out, result, evidence, counts)
    except OSError as error:
        raise NotWritten(out, error, result) from None


def _write(out: Path, result: Result, evidence: Evidence, counts: Counts) -> None:
    (out / LATENCY).mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).write_bytes(result.to_bytes() + b"\n")
    (out / REPORT).write_text(page.render(result), encoding="utf-8")
    (out / PLAN).write_bytes(evidence.plan.to_bytes())
    (out / HISTORY).write_bytes(history.to_bytes(evidence.history))
    dumps = msgspec.json.encode(evidence.dumps)
    (out / DUMP).write_bytes(gzip.compress(dumps, compresslevel=6, mtime=0))
    clock = evidence.history.clock()
    for subject, seconds in counts.items():
        if seconds:
            text = hlog.log(subject, seconds, clock.store_us(0) // 1000)
            (out / LATENCY / f"{subject}{hlog.SUFFIX}").write_text(text, encoding="utf-8")


def read_summary(folder: Path) -> Result:
    """
    Return the summary of a result.

    Raises:
        FolderError: If there is none, or this version does not read it.
    """
    try:
        data = (folder / SUMMARY).read_bytes()
        version = msgspec.json.decode(data).get("version")
        if version != SUMMARY_VERSION:
            raise FolderError(
                f"{folder / SUMMARY} is of version {version}, this program reads {SUMMARY_VERSION}"
            )
        return msgspec.json.decode(data, type=Result)
    except OSError as error:
        raise FolderError(f"cannot read {folder / SUMMARY}: {error.strerror}") from None
    except (msgspec.MsgspecError, AttributeError) as error:
        raise FolderError(f"{folder / SUMMARY} is no summary: {error}") from None


def read_evidence(folder: Path) -> Evidence:
    """
    Return plan, history and dumps of a result.

    Raises:
        FolderError: If one of them is missing or damaged.
    """
    try:
        return Evidence(
            Plan.from_bytes((folder / PLAN).read_bytes()),
            history.from_bytes((folder / HISTORY).read_bytes()),
            msgspec.json.decode(gzip.decompress((folder / DUMP).read_bytes()), type=list[Dump]),
        )
    except (OSError, EOFError, ValueError, ScenarioError, msgspec.MsgspecError) as error:
        raise FolderError(f"{folder} holds no complete recording: {error}") from None
