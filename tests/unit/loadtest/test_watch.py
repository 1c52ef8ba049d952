"""`loadtest/watch.py`: what the system says about processes, read from processes we know."""

import asyncio
import os
import socket
import sys

import pytest

from loadtest import watch
from loadtest.watch import Watch, listeners, named


def test_listener_of_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert os.getpid() in listeners(server.getsockname()[1])
        port = server.getsockname()[1]

    assert os.getpid() not in listeners(port)


def test_process_is_found_by_its_name() -> None:
    with open("/proc/self/comm", encoding="utf-8") as comm:
        name = comm.read().strip()

    assert os.getpid() in named((name,))
    assert named(("no-such-program",)) == []


async def test_busy_process_and_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PERIOD_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()[1]
    busy = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    # Starting it costs next to nothing, unlike another Python.
    idle = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        async with Watch(f"ws://127.0.0.1:{gone}", [busy.pid], [idle.pid]) as watching:
            async with asyncio.timeout(60):
                # The system's counters tell nobody when they move.
                while (watching.usage().server_share or 0) < 0.2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            usage = watching.usage()
    finally:
        for process in (busy, idle):
            process.kill()
            await process.wait()

    assert usage.server_share is not None
    assert usage.store_share is not None
    assert usage.server_share > usage.store_share
    assert 0 <= usage.idle_share <= 1.01
    assert Watch("ws://127.0.0.1:1", [2**22 + 1], []).usage().server_share is None
