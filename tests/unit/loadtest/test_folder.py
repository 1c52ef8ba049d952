"""`loadtest/folder.py` and `verdicts.py`: what a run leaves behind is enough to judge and to show it again."""

import sys
from array import array
from pathlib import Path

import pytest

from loadtest import cli, folder, rooms, timeline
from loadtest.findings import Findings
from loadtest.history import Dump, FactSeen, History
from loadtest.plan import Plan
from loadtest.report import Exit
from tests.unit.loadtest.a_result import a_result
from tests.unit.loadtest.a_run import ARun


def evidence(run: ARun) -> folder.Evidence:
    """Return what the oracle is given of a small run."""
    seen: list[folder.Evidence] = []

    def catch(plan: Plan, history: History, dump: Dump) -> Findings:
        seen.append(folder.Evidence(plan, history, [dump]))
        return Findings()

    run.judged(catch)
    return seen[0]


def a_folder(where: Path, run: ARun) -> Path:
    kept = evidence(run)
    folder.write(where, a_result(), kept, timeline.counts(kept.plan, kept.history))
    return where


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["liveroom-loadtest", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_everything_is_written_and_read_again(tmp_path: Path) -> None:
    run = ARun()
    where = a_folder(tmp_path / "out", run)

    names = {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()}
    assert {"summary.json", "report.html", "plan.json.gz", "history.msgpack.gz", "dumps.json.gz"} < names
    assert {name for name in names if name.startswith("latency/")} == {
        "latency/delivery.hlog",
        "latency/fact.hlog",
        "latency/join.hlog",
        "latency/reply.hlog",
    }
    again, kept = folder.read_evidence(where), evidence(run)
    assert (again.plan, again.dumps) == (kept.plan, kept.dumps)
    assert again.history == kept.history
    assert isinstance(again.history.processes[0].viewers[0].frames, array)
    assert folder.read_summary(where).metrics == a_result().metrics


def test_same_findings_come_out_of_the_folder(tmp_path: Path) -> None:
    run = ARun()
    run.seen[2][3] = [mark for mark in run.seen[2][3] if not isinstance(mark, FactSeen)]
    where = a_folder(tmp_path / "out", run)

    found = rooms.judge(*folder.read_evidence(where))

    assert [str(violation) for violation in found.violations] == [
        str(violation) for violation in run.judged().violations
    ]
    assert found.total == 1


def test_judging_again_ends_with_0_or_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clean, broken = ARun(), ARun()
    broken.stats["likes"] = 11

    assert ended(monkeypatch, "judge", str(a_folder(tmp_path / "clean", clean))) == Exit.PASS
    assert "every promise kept: 4 viewers" in capsys.readouterr().out
    assert ended(monkeypatch, "judge", str(a_folder(tmp_path / "broken", broken))) == Exit.VIOLATED
    assert "I5 likes" in capsys.readouterr().out


def test_page_is_drawn_again_from_the_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = a_folder(tmp_path / "out", ARun())
    first = (where / folder.REPORT).read_text(encoding="utf-8")
    (where / folder.REPORT).unlink()

    assert ended(monkeypatch, "report", str(where)) == Exit.PASS
    assert (where / folder.REPORT).read_text(encoding="utf-8") == first


@pytest.mark.parametrize("depth", ["out", "several/levels/out"])
def test_reserved_folder_is_left_behind_only_with_something_in_it(tmp_path: Path, depth: str) -> None:
    with folder.reserved(tmp_path / depth):
        assert list((tmp_path / depth).iterdir()) == []
    assert list(tmp_path.iterdir()) == []

    with folder.reserved(tmp_path / depth):
        (tmp_path / depth / folder.SUMMARY).write_text("{}")
    assert (tmp_path / depth / folder.SUMMARY).exists()


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with folder.reserved(tmp_path):
        pass
    assert tmp_path.exists()
    (tmp_path / "notes").write_text("precious")

    with pytest.raises(folder.FolderError, match="not empty"), folder.reserved(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_failure_half_way_keeps_the_result(tmp_path: Path) -> None:
    kept = evidence(ARun())
    # Where a file belongs there is a folder, as unwritable as a full disk.
    (tmp_path / folder.REPORT).mkdir()

    with pytest.raises(folder.NotWritten, match=folder.REPORT) as failed:
        folder.write(tmp_path, a_result(), kept, timeline.counts(kept.plan, kept.history))

    assert failed.value.result.verdict == a_result().verdict


@pytest.mark.parametrize("name", [folder.PLAN, folder.HISTORY, folder.DUMP])
@pytest.mark.parametrize("damage", [b"", b"not what it should be", None])
def test_damaged_recording_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    damage: bytes | None,
) -> None:
    where = a_folder(tmp_path / "out", ARun())
    if damage is None:
        (where / name).unlink()
    else:
        (where / name).write_bytes(damage)

    assert ended(monkeypatch, "judge", str(where)) == Exit.USAGE
    assert "no complete recording" in capsys.readouterr().err
