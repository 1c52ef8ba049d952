"""`loadtest/meter.py`: who is measured, and that work and memory show."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from loadtest.meter import Meter, is_local, server_processes


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("ws://127.0.0.1:8080", True),
        ("ws://localhost:8080", True),
        ("ws://[::1]:8080", True),
        ("wss://live.example.com", False),
        ("ws://192.0.2.7:8080", False),
    ],
)
def test_only_this_machine_is_local(target: str, local: bool) -> None:
    assert is_local(target) is local


def test_whoever_listens_at_the_port_is_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        found = server_processes(f"ws://127.0.0.1:{place.getsockname()[1]}")

    # Or whoever started us, if that is called like a server.
    assert os.getpid() in {child.pid for top in found for child in (top, *top.children(recursive=True))}


def test_nobody_is_behind_a_port_elsewhere() -> None:
    assert server_processes("wss://live.example.com:443") == []


def test_work_and_memory_of_a_process_show() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        meter = Meter("wss://live.example.com")
        meter.look(0.0, [worker.pid])
        assert meter.samples == []
        spent = sum(psutil.Process(worker.pid).cpu_times()[:2])
        while sum(psutil.Process(worker.pid).cpu_times()[:2]) < spent + 0.2:
            time.sleep(0.01)
        meter.look(1.0, [worker.pid])
        worker.kill()

    [usage] = meter.samples
    assert (usage.group, usage.at_s, usage.processes) == ("generator", 1.0, 1)
    assert usage.cores >= 0.15
    assert usage.rss_bytes > 1 << 20


def test_process_that_is_gone_has_no_figures() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as worker:
        worker.wait()
    meter = Meter("wss://live.example.com")
    meter.look(0.0, [worker.pid])
    meter.look(1.0, [worker.pid])

    assert meter.samples == []
    assert meter.latest == {}
