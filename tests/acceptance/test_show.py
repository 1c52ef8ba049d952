"""A short evening with everything in it, played from a plan file by the real program against a real server."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from loadtest.find_limit import Limit
from loadtest.plan import Plan
from loadtest.report import Exit, Result
from tests.support.client import Merchant
from tests.support.service import DEMO_KEY, OTHER_KEY, Service

SHOW = """
name = "short_show"
plays = "crowd"
seconds = 17

[viewers]
count = 60
ramp_s = 2
dwell_s = 12

[rooms]
count = 3

[comments]
per_s = 6

[likes]
per_s = 20

[shares]
via_ratio = 0.4
forged_ratio = 0.05

[habits]
slow_share = 0.1
background_share = 0.2
background_every_s = 5
background_s = 2
flapper_share = 0.1
flapper_every_s = 3

[moments.opening]
does = "explain"
at_s = 3
items = 2
every_s = 1

[moments.seckill]
does = "sale"
at_s = 4
stock = 8
claims = 200
notice_s = 1.5
burst_s = 1
lasts_s = 3
hold_s = 1
pay_ratio = 0.5

[moments.rain]
does = "packets"
at_s = 8
packets = 2
shares = 10
grabbers = 25
every_s = 1
expires_s = 3

[moments.quiz]
does = "quiz"
at_s = 9
lasts_s = 2

[moments.push]
does = "arrive"
at_s = 10
viewers = 20

[moments.break]
does = "storm"
at_s = 12
away_s = 0.3
spread_s = 0.5

[moments.goodbye]
does = "goodbye"
at_s = 15
over_s = 1

# A slow machine is no reason to doubt what is judged here.
[honesty]
late_ms = 5000
cpu_sustained_s = 60
stall_ms_max = 20000
silent_s = 60

[drain]
deadline_s = 60
"""


async def loadtest(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the program in `folder`; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtest",
        *arguments,
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def playing(folder: Path, *arguments: str, temporary: Path) -> asyncio.subprocess.Process:
    """Start a run that goes on for minutes, and wait until it plays."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", "run", "crowd", "--viewers", "20", "--seconds", "300"),
        *("--comments-per-s", "2", *arguments),
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    while b"playing" not in said:
        line = await process.stdout.readline()
        assert line, said.decode()
        said += line
    return process


def left_in(folder: Path) -> list[Path]:
    """Return everything in a folder and below."""
    return sorted(folder.rglob("*"))


@pytest.mark.slow
async def test_limit_is_searched_with_real_servers(tmp_path: Path) -> None:
    patient = [
        f"honesty.{number}" for number in ("late_ms=20000", "cpu_sustained_s=60", "stall_ms_max=60000")
    ]
    numbers = ["comments.per_s=1", "likes.per_s=5", "viewers.ramp_s=1", *patient]
    code, said = await loadtest(
        tmp_path, "find-limit", "crowd", "--spawn", "--from", "10", "--to", "20", "--seconds", "2", "--out",
        "limit.json", "--threshold", "delivery_p99_ms < 60000", "--threshold", "join_p99_ms < 60000",
        *(part for number in numbers for part in ("--set", number)),
    )  # fmt: skip

    assert code == Exit.PASS, said
    assert "viewers.count = 20 holds; nothing gave out up to there" in said
    found = msgspec.json.decode((tmp_path / "limit.json").read_bytes(), type=Limit)
    assert [step.value for step in found.steps] == [10, 20]
    assert found.gave_out is None
    for step in found.steps:
        assert step.verdict == "pass"
        # A server and a store of our own, and a loop that answered.
        assert step.usage.server_share is not None
        assert step.usage.store_share is not None
        assert step.usage.probe_max_ms > 0


@pytest.mark.slow
async def test_show_of_several_rooms_keeps_every_promise(tmp_path: Path) -> None:
    (tmp_path / "show.toml").write_text(SHOW, encoding="utf-8")
    for name in ("plan.gz", "again.gz"):
        code, said = await loadtest(tmp_path, "plan", "show.toml", "--seed", "5", "--out", name)
        assert code == Exit.PASS, said
    assert (tmp_path / "plan.gz").read_bytes() == (tmp_path / "again.gz").read_bytes()
    plan = Plan.from_bytes((tmp_path / "plan.gz").read_bytes())

    code, said = await loadtest(
        tmp_path, "run", "--plan", "plan.gz", "--spawn", "--processes", "2", "--out", "out"
    )

    assert code == Exit.PASS, said
    found = msgspec.json.decode((tmp_path / "out" / "summary.json").read_bytes(), type=Result)
    assert found.plan == plan.digest()
    assert found.violations_total == 0
    assert found.metrics["lost_viewers"] == 0
    # One notice at the end of each room, and everything else of the show in the main one.
    assert found.counts["facts"] > 3 * 2
    assert found.counts["viewers"] > 80
    # Some planned changes find a viewer of a slow machine still busy with the one before.
    assert found.faults["away"] > 10
    assert found.latency["resume"]["count"] > 5
    [sale] = found.campaigns["sales"].values()
    assert sale["claims"] == 200
    assert sale["stock"] == sale["left"] + sale["held"] + sale["sold"] == 8
    assert len(found.campaigns["packets"]) == 2
    assert found.campaigns["board"]["counted"] > 10


async def test_tokens_that_a_server_does_not_accept_end_a_run_before_it_begins(
    service: Service, tmp_path: Path
) -> None:
    key = {"kid": "other", "alg": "HS256", "key": "b3RoZXI" * 8}
    (tmp_path / "other.json").write_text(json.dumps(key), encoding="utf-8")

    code, said = await loadtest(
        tmp_path,
        "run",
        "crowd",
        "--target",
        service.url,
        "--merchant-key",
        DEMO_KEY,
        "--signing-key",
        "other.json",
    )

    assert code == Exit.USAGE, said
    assert said.strip() == "liveroom-loadtest: the server does not accept tokens signed with other.json"


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)]
)
async def test_interrupted_run_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals, expected: Exit
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = await playing(tmp_path, "--spawn", temporary=temporary)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("valkey" in " ".join(child.cmdline()) for child in children)

    process.send_signal(number)
    rest, _ = await process.communicate()

    assert process.returncode == expected
    assert rest.decode().splitlines()[-1] == "liveroom-loadtest: interrupted"
    assert b"Traceback" not in rest
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert left_in(tmp_path) == [temporary]


async def test_interrupted_run_closes_its_rooms(service: Service, merchant: Merchant, tmp_path: Path) -> None:
    keys = ("--merchant-key", DEMO_KEY, "--neighbour-key", OTHER_KEY)
    process = await playing(tmp_path, "--seed", "3", "--target", service.url, *keys, temporary=tmp_path)
    process.terminate()
    await process.communicate()

    assert process.returncode == Exit.TERMINATED
    listed = await merchant.ok("GET", "/v1/rooms?after=load-s3&limit=100")
    assert [room["state"] for room in listed["data"] if room["room"].startswith("load-s3t")] == ["closed"]
