"""
What the processes of a run use: processor time and memory, once a second.

Decides which processes are meant: the generators, and, when the target is this machine, the server that listens at its
port and the store that it runs. Processes are only read, by what the system says about them. A server elsewhere, or
one of another user, has no figures, and nothing is made up for it.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

PERIOD_S: Final = 1.0
#: Samples kept: a day of four groups.
SAMPLES_MAX: Final = 4 * 86_400

_STORES: Final = ("valkey", "redis")


class Usage(Struct, frozen=True, array_like=True):
    """What one group of processes used in the last period."""

    #: Seconds since the start of the run.
    at_s: float
    #: "generator", "server" or "store".
    group: str
    #: Cores' worth of processor time.
    cores: float
    #: Resident memory of all its processes.
    rss_bytes: int
    processes: int


def is_local(target: str) -> bool:
    """Tell whether a target such as ws://127.0.0.1:8080 is this machine, by its loopback address or name."""
    host = urlsplit(target).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == socket.gethostname()


def server_processes(target: str) -> list[psutil.Process]:
    """Return the processes that listen at a local target's port, or rather who started them: workers share a port."""
    port = urlsplit(target).port
    if port is None or not is_local(target):
        return []
    listening = {
        entry.pid
        for entry in psutil.net_connections(kind="tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port and entry.pid
    }
    found: dict[int, psutil.Process] = {}
    for pid in listening:
        try:
            top = psutil.Process(pid)
            while (above := top.parent()) is not None and "serve" in above.cmdline():
                top = above
            found[top.pid] = top
        except psutil.Error:
            # Gone, or not ours to look at.
            continue
    return list(found.values())


class Meter:
    """The figures of one run. `samples` holds all of them, `latest` those of the last look by group."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: list[psutil.Process] = []
        #: Everything that was ever found to belong to it and still runs.
        self._known: dict[int, psutil.Process] = {}
        #: (process id, its start) → processor seconds so far.
        self._spent: dict[tuple[int, float], float] = {}
        self._then_s: float | None = None
        self.samples: list[Usage] = []
        self.latest: dict[str, Usage] = {}

    def look(self, at_s: float, generators: Iterable[int]) -> None:
        """
        Take one sample, `at_s` seconds after the start of the run; the first one only sets the mark.

        Asking the system about all processes may take a tenth of a second: call this in a thread, one at a time.
        """
        if not any(process.is_running() for process in self._server):
            self._server = server_processes(self._target)
        groups: dict[str, list[psutil.Process]] = {"generator": [], "server": [], "store": []}
        for pid in generators:
            try:
                groups["generator"].append(psutil.Process(pid))
            except psutil.Error:
                continue
        for top in self._server:
            try:
                # Asked anew each time: a store or a worker that died was started again.
                self._known |= {process.pid: process for process in (top, *top.children(recursive=True))}
            except psutil.Error:
                continue
        # A store outlives a killed server, and is nobody's child from then on.
        self._known = {pid: process for pid, process in self._known.items() if process.is_running()}
        for process in self._known.values():
            try:
                groups["store" if process.name().startswith(_STORES) else "server"].append(process)
            except psutil.Error:
                continue
        spent: dict[tuple[int, float], float] = {}
        latest: dict[str, Usage] = {}
        for group, processes in groups.items():
            seconds, rss_bytes, alive = 0.0, 0, 0
            for process in processes:
                try:
                    with process.oneshot():
                        times, key = process.cpu_times(), (process.pid, process.create_time())
                        rss_bytes += process.memory_info().rss
                except psutil.Error:
                    continue
                alive += 1
                spent[key] = times.user + times.system
                # A process seen for the first time has spent nothing in this period that we know of.
                seconds += spent[key] - self._spent.get(key, spent[key])
            if alive and self._then_s is not None and at_s > self._then_s:
                cores = round(seconds / (at_s - self._then_s), 4)
                latest[group] = Usage(round(at_s, 2), group, cores, rss_bytes, alive)
        self._spent, self._then_s, self.latest = spent, at_s, latest
        if len(self.samples) + len(latest) <= SAMPLES_MAX:
            self.samples.extend(latest.values())
