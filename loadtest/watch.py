"""
What server, store and machine use while a step runs.

Decides how that is measured: processor time from /proc, the network's own counters, and a request now and then that
the server answers without its store, which takes as long as its event loop is behind. Processes are only read. What
cannot be read, because the server is elsewhere or not Linux, is None or 0. Judges nothing (`limit.py`).
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from loadtest.api import http_url

PERIOD_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 10.0
#: Samples kept of each kind: an hour.
SAMPLES_MAX: Final = 3600
#: The busiest stretch is this many samples long: one busy second is nothing.
STRETCH: Final = 3
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_STORES: Final = ("valkey-server", "redis-server")


class Usage(Struct, kw_only=True):
    """What was used during one step; shares are of one core, of the busiest process over `STRETCH` seconds."""

    server_share: float | None = None
    store_share: float | None = None
    #: Of the whole machine, half of the time.
    idle_share: float = 1.0
    #: Answers to a request that needs only the loop.
    probe_p50_ms: float = 0.0
    probe_max_ms: float = 0.0
    listen_drops: int = 0
    retransmitted_share: float = 0.0


class Watch:
    """Watches while the block lasts. `server` and `store` are ids of processes; without, those on this machine."""

    def __init__(self, target: str, server: list[int] | None = None, store: list[int] | None = None) -> None:
        self._target = target
        self._server = listeners(urlsplit(target).port or 0) if server is None else server
        self._store = named(_STORES) if store is None else store
        self._cpu: dict[int, list[tuple[float, float]]] = {}
        self._idle: list[tuple[float, float]] = []
        self._probes: list[float] = []
        self._tcp = (0, 0, 0)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tcp = _tcp()
        self._tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._probe())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _sample(self) -> None:
        while len(self._idle) < SAMPLES_MAX:
            now_s = time.monotonic()
            for pid in (*self._server, *self._store):
                if (cpu_s := _cpu_s(pid)) is not None:
                    self._cpu.setdefault(pid, []).append((now_s, cpu_s))
            self._idle.append((now_s, _idle_s()))
            await asyncio.sleep(PERIOD_S)

    async def _probe(self) -> None:
        # Without a key: refused before the store is asked.
        url = http_url(self._target) + "/v1/rooms/probe"
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while len(self._probes) < SAMPLES_MAX:
                began_s = time.monotonic()
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as response:
                        await response.read()
                self._probes.append(time.monotonic() - began_s)
                await asyncio.sleep(PERIOD_S / 2)

    def usage(self) -> Usage:
        """Return what was used so far."""
        drops, sent, again = (now - then for now, then in zip(_tcp(), self._tcp, strict=True))
        probes = sorted(self._probes)
        cores = len(os.sched_getaffinity(0))
        stretches = sorted(_shares(self._idle))
        return Usage(
            server_share=self._busiest(self._server),
            store_share=self._busiest(self._store),
            # Half of the time there was less: starting processes and judging are not what is asked about.
            idle_share=round(stretches[len(stretches) // 2] / cores, 3) if stretches else 1.0,
            probe_p50_ms=round(probes[len(probes) // 2] * 1000, 1) if probes else 0.0,
            probe_max_ms=round(probes[-1] * 1000, 1) if probes else 0.0,
            listen_drops=drops,
            retransmitted_share=again / sent if sent else 0.0,
        )

    def _busiest(self, pids: list[int]) -> float | None:
        shares = [share for pid in pids for share in _shares(self._cpu.get(pid, []))]
        return round(max(shares), 3) if shares else None


def _shares(samples: list[tuple[float, float]]) -> list[float]:
    """Return used seconds per second, over every stretch of the samples."""
    return [
        (used - used_before) / (at_s - before_s)
        for (before_s, used_before), (at_s, used) in zip(samples, samples[STRETCH:], strict=False)
        if at_s > before_s
    ]


def _cpu_s(pid: int) -> float | None:
    """Return the seconds of processor time a process has used, None if it is gone."""
    try:
        # The name, in parentheses, may hold anything.
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None


def _idle_s() -> float:
    """Return the seconds all cores together have been idle."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(fields[4]) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


def _tcp() -> tuple[int, int, int]:
    """Return connections dropped while listening, segments sent, and segments sent again."""
    found: dict[str, int] = {}
    for name in ("/proc/net/netstat", "/proc/net/snmp"):
        with contextlib.suppress(OSError, ValueError):
            lines = Path(name).read_text(encoding="ascii").splitlines()
            for heads, values in zip(lines[::2], lines[1::2], strict=False):
                found |= dict(zip(heads.split()[1:], map(int, values.split()[1:]), strict=False))
    return found.get("ListenDrops", 0), found.get("OutSegs", 0), found.get("RetransSegs", 0)


def listeners(port: int) -> list[int]:
    """Return the ids of processes of ours that listen on a TCP port of this machine."""
    inodes = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                # State 0A listens.
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            for link in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{link}") in inodes:
                    found.append(pid)
                    break
    return found


def named(names: tuple[str, ...]) -> list[int]:
    """Return the ids of processes with one of these names."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() in names:
                found.append(pid)
    return found


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
