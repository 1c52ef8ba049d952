"""`loadtest/compare.py`: what got worse is named, noise is not, and different things are not compared in silence."""

import sys
from pathlib import Path

import pytest

from loadtest import cli, compare, folder
from loadtest.findings import Findings
from loadtest.report import Exit, Result
from tests.unit.loadtest.a_result import a_result


@pytest.mark.parametrize(
    ("metric", "old", "new", "expected"),
    [
        ("delivery_p99_ms", 100, 119, ""),
        ("delivery_p99_ms", 100, 121, "worse"),
        ("delivery_p99_ms", 100, 79, "better"),
        # Twice as long, and still nothing: a turn of an event loop.
        ("delivery_p50_ms", 1, 2, ""),
        ("lost_viewers", 0, 1, "worse"),
        ("lost_viewers", 2, 0, "better"),
        ("comments_per_s", 40, 30, "worse"),
        ("comments_per_s", 40, 50, "better"),
        ("server_cores", 0.5, 0.55, ""),
        ("server_cores", 0.5, 0.7, "worse"),
    ],
)
def test_change_is_more_than_the_tolerance_and_more_than_noise(
    metric: str, old: float, new: float, expected: str
) -> None:
    assert compare.change(metric, old, new, 0.2) == expected


def test_same_result_twice_is_not_worse() -> None:
    found = compare.compare(a_result(), a_result())

    assert (found.worse, found.cautions) == ([], [])
    assert {line.ratio for line in found.lines} <= {1.0, None}


def test_slower_result_is_worse_and_names_the_figures() -> None:
    found = compare.compare(a_result(), a_result(scale=3))

    assert any(reason.startswith("claim_p99_ms went from") for reason in found.worse)
    assert any(reason.startswith("server_cores") for reason in found.worse)
    assert compare.compare(a_result(scale=3), a_result()).worse == []


def test_broken_promise_and_lost_threshold_are_worse() -> None:
    broken = Findings()
    broken.add("I4 facts", "fact 3 never arrived", "v1")
    slow = a_result(overrides={"thresholds.reply_max_ms": "< 1"})
    fast = a_result(overrides={"thresholds.reply_max_ms": "< 1"}, scale=0.01)

    assert (
        compare.compare(a_result(), a_result(findings=broken)).worse[0].startswith("a promise is broken: I4")
    )
    assert compare.compare(fast, slow).worse[0].startswith("reply_max_ms < 1 held, and is")


def test_what_differs_besides_the_server_is_said() -> None:
    other = a_result(overrides={"comments.per_s": 2}, late=500)
    other.machine = {**other.machine, "cpu": "another"}
    other.versions = {**other.versions, "websockets": "0.1"}

    found = compare.cautions(a_result(), other)

    assert len(found) == 4
    assert found[0].startswith("the new result is invalid")
    assert "different plans" in found[1]
    assert "another" in found[2]
    assert found[3].endswith("and 0.1")


def saved(where: Path, result: Result) -> str:
    where.mkdir()
    (where / folder.SUMMARY).write_bytes(result.to_bytes())
    return str(where)


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["liveroom-loadtest", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_command_ends_with_0_or_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = saved(tmp_path / "old", a_result()), saved(tmp_path / "new", a_result(scale=3))

    assert ended(monkeypatch, "compare", old, old) == Exit.PASS
    assert "nothing got worse" in capsys.readouterr().out
    assert ended(monkeypatch, "compare", old, new) == Exit.MISSED
    assert "worse      claim_p" in capsys.readouterr().out
    assert ended(monkeypatch, "compare", old, new, "--tolerance", "50") == Exit.PASS


def test_results_that_measured_nothing_are_not_called_as_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lost = a_result()
    lost.latency = {subject: delays | {"count": 0} for subject, delays in lost.latency.items()}
    old, new = saved(tmp_path / "old", lost), saved(tmp_path / "new", lost)

    assert ended(monkeypatch, "compare", old, new) == Exit.USAGE
    said = capsys.readouterr().out
    assert "nothing can be said" in said
    assert "the old result measured nothing" in said
    assert "nothing got worse" not in said


def test_folder_without_a_summary_is_said_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = saved(tmp_path / "good", a_result())
    old = tmp_path / "older"
    old.mkdir()

    assert ended(monkeypatch, "compare", str(old), good) == Exit.USAGE
    assert "summary.json" in capsys.readouterr().err
    (old / folder.SUMMARY).write_text('{"version": 1}', encoding="utf-8")
    assert ended(monkeypatch, "compare", str(old), good) == Exit.USAGE
    assert "version 1" in capsys.readouterr().err
    (old / folder.SUMMARY).write_text("[]", encoding="utf-8")
    assert ended(monkeypatch, "compare", good, str(old)) == Exit.USAGE
