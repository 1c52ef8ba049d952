"""`loadtest/cli.py`: what is wrong on the command line is said, and ends with 1, never with a verdict's code."""

import socket
import sys
from pathlib import Path

import pytest

from loadtest import cli, run
from loadtest.api import http_url, ws_url
from loadtest.folder import NotWritten
from loadtest.plan import Plan
from loadtest.report import Exit
from loadtest.swarm import GeneratorDied
from tests.unit.loadtest.a_result import a_result


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line and return the exit code."""
    monkeypatch.setattr(sys, "argv", ["liveroom-loadtest", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "scenario"),
        (["run", "crwod"], "crwod"),
        (["run", "crowd", "--viewers", "many"], "--viewers"),
        (["run", "crowd", "--viewers", "0"], "viewers"),
        (["run", "crowd", "--veiwers", "5"], "veiwers"),
        (["run", "crowd", "--set", "comments.pers=5"], "pers"),
        (["run", "crowd", "--threshold", "delivery_p98_ms < 5"], "delivery_p98_ms"),
        (["run", "crowd", "--codec", "xml"], "xml"),
        (["run", "crowd", "--target", "127.0.0.1:8080"], "127.0.0.1:8080"),
        (["run", "crowd", "--target", "ws://127.0.0.1:8080/rooms"], "more than a host and a port"),
        (["run", "crowd", "--target", "ws://127.0.0.1:99999"], "--target"),
        (["find-limit", "crowd", "--target", "ws://127.0.0.1:8080/rooms"], "more than a host and a port"),
        (["run", "crowd", "--signing-key", "absent.json"], "absent.json"),
        (["run", "crowd", "--viewers", "2", "--comments-per-s", "40"], "comments.per_s"),
        (["run", "crowd", "--stock", "5"], "seckill"),
        (["run", "seckill", "--packets", "5"], "redpacket"),
        (["run", "seckill", "--stock", "0"], "stock"),
        (["run", "seckill", "--kill", "server"], "--spawn"),
        (["run", "seckill", "--spawn", "--kill-at", "3"], "--kill"),
        (["run", "seckill", "--spawn", "--kill", "everything"], "everything"),
        (["run", "crowd", "--plan", "plan.gz"], "--plan"),
        (["run", "--plan", "absent.gz"], "absent.gz"),
        (["run", "--plan", "absent.gz", "--seed", "3"], "--plan"),
        (["run", "evening", "--set", "moments.quiz.shares=1"], "moments.quiz.share"),
        (["run", "crowd", "--freeze", "3"], "--freeze"),
        (["run", "crowd", "--spawn", "--freeze-at", "3"], "--freeze"),
        (["run", "seckill", "--spawn", "--freeze", "3", "--kill", "store"], "one blow"),
        (["plan", "crowd"], "--out"),
        (["plan", "crowd", "--out", "absent/plan.gz"], "absent/plan.gz"),
        (["new", "absent/mine.toml"], "absent/mine.toml"),
        (["find-limit", "crowd", "--over", "seconds"], "--over"),
        (["find-limit", "crowd", "--over", "moments.quiz.share"], "moments.quiz"),
        (["find-limit", "crowd", "--from", "30", "--to", "20"], "--from"),
        (["find-limit", "crowd", "--threshold", "delivery_p98_ms < 5"], "delivery_p98_ms"),
        (["walk"], "walk"),
    ],
)
def test_wrong_usage_is_said_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert ended(monkeypatch, *arguments) == Exit.USAGE
    assert complaint in capsys.readouterr().err.replace("\n", " ")


def test_absent_server_is_said_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    code = ended(monkeypatch, "run", "crowd", "--target", f"ws://127.0.0.1:{port}", "--viewers", "50")

    assert code == Exit.USAGE
    assert f"no server answers at http://127.0.0.1:{port}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_said_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def play(*arguments: object) -> None:
        raise AssertionError("played")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "play", play)
    Path("file").write_text("no folder")
    Path("older").mkdir()
    (Path("older") / "summary.json").write_text("precious")

    for out, complaint in (("file/out", "cannot write to file/out"), ("older", "older is not empty")):
        assert ended(monkeypatch, "run", "crowd", "--viewers", "50", "--out", out) == Exit.USAGE
        said = capsys.readouterr().err
        assert complaint in said
        assert said.count("\n") == 1


def test_result_that_cannot_be_written_is_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def play(*arguments: object) -> None:
        raise NotWritten(Path("out"), OSError(28, "No space left on device"), a_result())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "play", play)

    assert ended(monkeypatch, "run", "crowd", "--viewers", "50", "--out", "out") == Exit.USAGE
    said = capsys.readouterr()
    assert "verdict" in said.out
    assert "could not be written: out: No space left on device" in said.err


def test_scenarios_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, "scenarios") == Exit.PASS
    assert "crowd" in capsys.readouterr().out


def test_plan_is_written_and_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    for name in ("one.gz", "two.gz"):
        numbers = ("--set", "viewers.count=50", "--threshold", "delivery_p99_ms < 200", "--seed", "4")
        assert ended(monkeypatch, "plan", "evening", *numbers, "--out", name) == Exit.PASS

    plan = Plan.from_bytes(Path("one.gz").read_bytes())
    assert Path("one.gz").read_bytes() == Path("two.gz").read_bytes()
    assert plan.scenario.thresholds["delivery_p99_ms"] == "< 200"
    said = capsys.readouterr().out
    assert f"plan {plan.digest()}" in said
    assert "93.0 s seckill two" in said


def test_plan_takes_the_numbers_that_run_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = ("--viewers", "50", "--seconds", "9", "--stock", "4", "--claims", "60", "--comments-per-s", "3")

    assert ended(monkeypatch, "plan", "seckill", *numbers, "--seed", "4", "--out", "one.gz") == Exit.PASS

    scenario = Plan.from_bytes(Path("one.gz").read_bytes()).scenario
    assert (scenario.viewers.count, scenario.seckill.stock, scenario.seckill.claims) == (50, 4, 60)
    assert (scenario.seconds, scenario.comments.per_s) == (9, 3)
    assert ended(monkeypatch, "plan", "crowd", "--stock", "4", "--out", "two.gz") == Exit.USAGE


def test_new_scenario_is_written_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert ended(monkeypatch, "new") == Exit.PASS
    shown = capsys.readouterr().out
    assert ended(monkeypatch, "new", "mine.toml") == Exit.PASS
    assert Path("mine.toml").read_text(encoding="utf-8") == shown
    Path("mine.toml").write_text("precious")
    assert ended(monkeypatch, "new", "mine.toml") == Exit.USAGE
    assert Path("mine.toml").read_text() == "precious"


def test_generator_that_died_is_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def die(*arguments: object) -> None:
        raise GeneratorDied("generator process 0 ended unexpectedly")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "play", die)

    assert ended(monkeypatch, "run", "crowd", "--viewers", "50") == Exit.SATURATED
    assert "no result: generator process 0" in capsys.readouterr().err


def test_recorded_command_line_has_no_secret() -> None:
    shown = cli._shown(
        ["/somewhere/liveroom-loadtest", "run", "crowd", "--merchant-key", "s3cret", "--merchant-key=s3cret"]
    )

    assert shown[:3] == ["liveroom-loadtest", "run", "crowd"]
    assert "s3cret" not in " ".join(shown)


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("wss://live.example.com/", "https://live.example.com"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
    ],
)
def test_http_origin_of_a_target(target: str, origin: str) -> None:
    assert http_url(target) == origin


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("ws://127.0.0.1:8080/", "ws://127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("https://live.example.com/", "wss://live.example.com"),
    ],
)
def test_websocket_origin_of_a_target(target: str, origin: str) -> None:
    assert ws_url(target) == origin


def test_run_tag_is_short_and_never_the_same() -> None:
    assert run.run_tag(0, 0) == "s0t0"
    assert run.run_tag(1, 1_795_000_000_000) != run.run_tag(1, 1_795_000_000_001)
    tag = run.run_tag(999_999, 1_795_000_000_000)
    assert tag.isalnum()
    assert len(f"load-{tag}") <= 64


def test_settings_do_not_show_the_key() -> None:
    assert "s3cret" not in repr(run.Settings(target="ws://x", merchant_key="s3cret", seed=1))
