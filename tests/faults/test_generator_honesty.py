"""
The load test is honest about itself: whatever stops its generator or its server shows.

Each test runs the real program against a server that it starts itself, and signals only that run's own processes.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hdrh.histogram import HdrHistogram

from loadtest.report import Exit, Result

#: A run ends by itself well within this, on a slow machine too.
RUN_TIMEOUT_S = 100


class Run:
    """One `liveroom-loadtest run --spawn`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def until(self, text: str) -> None:
        """Read what the run says until it has said `text`."""
        assert self.process.stdout is not None
        while text not in self.said:
            line = await self.process.stdout.readline()
            assert line, self.said
            self.said += line.decode()

    async def end(self) -> int:
        """Return the exit code, when there is one."""
        assert self.process.stdout is not None
        self.said += (await self.process.stdout.read()).decode()
        return await self.process.wait()

    def generators(self) -> list[int]:
        """Return the ids of the run's generator processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = (stat.parent / "cmdline").read_text()
            except OSError:
                continue
            if parent == self.process.pid and "spawn_main" in command:
                found.append(int(stat.parent.name))
        return found


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[list[Run]]:
    """Keep the runs of one test; end those that are left."""
    kept: list[Run] = []
    yield kept
    for run in kept:
        if run.process.returncode is None:
            for pid in run.generators():
                os.kill(pid, signal.SIGCONT)
            run.process.send_signal(signal.SIGINT)
            await run.process.wait()


async def begin(runs: list[Run], folder: Path, *arguments: str) -> Run:
    program = [sys.executable, "-m", "loadtest", "run", "crowd", "--spawn", "--out", str(folder / "out")]
    small = ["--viewers", "30", "--comments-per-s", "5", "--likes-per-s", "10", "--ramp", "1", "--seed", "1"]
    process = await asyncio.create_subprocess_exec(
        *program,
        *small,
        *arguments,
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    runs.append(Run(process))
    return runs[-1]


def result(folder: Path) -> Result:
    return msgspec.json.decode((folder / "out" / "summary.json").read_bytes(), type=Result)


@pytest.mark.slow
async def test_stopped_generator_is_never_a_pass(runs: list[Run], tmp_path: Path) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        run = await begin(runs, tmp_path, "--seconds", "60", "--set", "honesty.silent_s=3")
        await run.until("playing")
        [generator] = run.generators()
        os.kill(generator, signal.SIGSTOP)

        assert await run.end() == Exit.SATURATED
    assert "said nothing" in run.said
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.slow
async def test_generator_that_stood_still_for_a_while_is_never_a_pass(
    runs: list[Run], tmp_path: Path
) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        run = await begin(runs, tmp_path, "--seconds", "12", "--set", "honesty.stall_ms_max=1500")
        await run.until("viewers 31")
        [generator] = run.generators()
        os.kill(generator, signal.SIGSTOP)
        await asyncio.sleep(3)
        os.kill(generator, signal.SIGCONT)

        assert await run.end() == Exit.SATURATED
    assert re.search(r"stood still for \d+\.\d s", run.said)
    assert "PASS" not in run.said


def percentile_ms(result: Result, subject: str, percentile: float) -> float:
    return float(HdrHistogram.decode(result.histograms[subject]).get_value_at_percentile(percentile)) / 1000


async def frozen(runs: list[Run], folder: Path, *arguments: str) -> Result:
    """Return the result of a run whose server was stopped with SIGSTOP for a twelfth of it."""
    run = await begin(runs, folder, *arguments)
    code = await run.end()
    found = result(folder)
    # A noisy machine may stop the generator too; then it has to say so.
    assert code in (Exit.PASS, Exit.SATURATED), run.said
    assert any("stopped the server" in struck for struck in found.struck)
    return found


@pytest.mark.slow
async def test_server_that_stands_still_shows_at_its_full_length(runs: list[Run], tmp_path: Path) -> None:
    """A quarter of the real thing: 1.25 s of 15. What was due meanwhile counts from when it was due."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        numbers = ("--seconds", "14", "--freeze", "1.25", "--freeze-at", "5")
        found = await frozen(runs, tmp_path, *numbers, "--set", "comments.arrivals=uniform")

    assert percentile_ms(found, "delivery", 95) >= 250
    assert found.latency["delivery"]["max_ms"] >= 1000
    assert found.latency["delivery"]["p50_ms"] < percentile_ms(found, "delivery", 95)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_five_seconds_of_sixty_show_in_percentiles_and_maximum(runs: list[Run], tmp_path: Path) -> None:
    """No coordinated omission: 8 % of a minute stood still, so the 95th percentile and the maximum must say so."""
    found = await frozen(
        runs, tmp_path, "--viewers", "200", "--comments-per-s", "8", "--seconds", "59", "--freeze", "5",
        "--freeze-at", "20",
    )  # fmt: skip

    assert percentile_ms(found, "delivery", 95) >= 1000
    assert found.latency["delivery"]["max_ms"] >= 4500
