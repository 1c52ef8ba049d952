"""
The crowd: thousands of WebSocket viewers in one light process, and those who write to them.

Decides how the client side of a measurement is driven and what its answers mean. The client is `crowd.c` where there is
a C compiler, else `crowd_slow.py`, which does the same in Python and is several times heavier; every record says which.
It checks on every connection that every event arrived once and in order (so events have one publisher: only what one
connection says has an order): each event carries a mark, `~`, then its
number in 8 hexadecimal digits, then the moment it was intended in microseconds of CLOCK_MONOTONIC in 12. A delay is
counted from that moment, whenever the event was really sent. The client writes the events itself, over connections of
its own, between two reads if need be, so what it is late with is its own lag, which it reports beside its CPU time. An
event that has not arrived within the grace after the last intended moment counts as not delivered.

It speaks our protocol (token, `room.join`), plain WebSocket (also nchan's subscribers), and Socket.IO's handshake. It
does not check what else a server says, and masks its frames with zeros, which costs servers as much as any mask.

Commands, one a line on its standard input, each answered by one line of JSON:

- `open COUNT PER_S AT_ONCE PATIENCE_S`: open so many connections more, at intended moments if PER_S is not 0, else
  AT_ONCE at a time; answers when all have joined.
- `template TEXT`: what is published; `@` becomes a number that rises by one, `#` the mark padded to `event_bytes N`.
- `run PER_S EVENTS GRACE_S`: publish, watch, and report.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from benchmarks.figures import Histogram, percentile_ms
from benchmarks.machine import OTHER_CPU, starting_on
from benchmarks.native import HERE, NotCompiled, compiled

Mode = Literal["liveroom", "plain", "socketio"]

#: Bytes of an event on the wire, as one server-to-client JSON object.
EVENT_BYTES: Final = 200
#: Share of its CPU, and lag behind the intended moment, above which a client may itself be what was measured.
BUSY_MAX: Final = 0.9
LAG_MS_MAX: Final = 10.0
AT_ONCE: Final = 64
PATIENCE_S: Final = 60.0


class CrowdFailed(Exception):
    """The client ended or said nothing."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Connections that were opened."""

    joined: int
    failed: int
    #: Connections lost meanwhile, of these or of earlier ones, and the close code of the last.
    lost: int
    last_close_code: int
    wall_us: int
    cpu_us: int
    delays: Histogram = field(repr=False)

    def p_ms(self, percent: float) -> float:
        """Return a percentile of the time from when a join was due to its answer."""
        return percentile_ms(self.delays, percent)

    def require_all(self) -> "Opening":
        """
        Return this if every connection joined.

        Raises:
            CrowdFailed: Else, with what is known.
        """
        if self.failed:
            wanted = self.joined + self.failed
            said = f"{self.failed} of {wanted} connections were not made after {self.wall_us / 1e6:.0f} s"
            raise CrowdFailed(f"{said}; {self.lost} lost, last close code {self.last_close_code}")
        return self


@dataclass(frozen=True, slots=True)
class Run:
    """Events published to the connections, and what became of them."""

    events: int
    #: Connections that listened at the end.
    listeners: int
    #: Events that arrived, over all connections, once and in order.
    received: int
    #: Connections that got every event.
    complete: int
    #: Events skipped by a later one, and events that came again.
    gaps: int
    repeats: int
    #: Events of an earlier run.
    late: int
    #: Frames with events, and their payload.
    frames: int
    bytes: int
    replies: int
    #: Commands refused; events that could not be sent.
    errors: int
    blocked: int
    #: Connections lost during the run, and the close code of the last.
    lost: int
    last_close_code: int
    wall_us: int
    cpu_us: int
    delays: Histogram = field(repr=False)
    #: How late the client itself published.
    lags: Histogram = field(repr=False)
    reply_delays: Histogram = field(repr=False)

    @property
    def delivered(self) -> float:
        """Return the share of what was to be delivered that was, 0 to 1."""
        wanted = self.events * (self.listeners + self.lost)
        return self.received / wanted if wanted else 0.0

    @property
    def whole(self) -> bool:
        """Tell whether every event arrived on every connection, once and in order."""
        return self.complete == self.listeners > 0 and not (self.gaps or self.repeats or self.lost)

    @property
    def events_per_frame(self) -> float:
        """Return how many events a frame carried on average."""
        return self.received / self.frames if self.frames else 0.0

    @property
    def busy(self) -> float:
        """Return the share of a CPU that the client used."""
        return self.cpu_us / self.wall_us if self.wall_us else 0.0

    @property
    def saturated(self) -> bool:
        """Tell whether the client may have been the bottleneck."""
        return self.busy > BUSY_MAX or percentile_ms(self.lags, 99) > LAG_MS_MAX

    def p_ms(self, percent: float) -> float:
        """Return a percentile of the delays from the intended moment to the reading of the event."""
        return percentile_ms(self.delays, percent)


def read_opening(answer: dict[str, Any]) -> Opening:
    """Return the answer to `open`."""
    return Opening(**{**answer, "delays": _histogram(answer["delays"])})


def read_run(answer: dict[str, Any]) -> Run:
    """Return the answer to `run`."""
    histograms = {name: _histogram(answer[name]) for name in ("delays", "lags", "reply_delays")}
    return Run(**{**answer, **histograms})


def _histogram(pairs: Sequence[Sequence[int]]) -> Histogram:
    return {int(bucket): int(number) for bucket, number in pairs}


def program() -> tuple[list[str], str]:
    """Return the command of the client, and what it is in words."""
    try:
        return [str(compiled(HERE / "crowd.c"))], "C (crowd.c), one thread, epoll"
    except NotCompiled as reason:
        return [
            sys.executable,
            "-m",
            "benchmarks.crowd_slow",
        ], f"Python with uvloop (crowd_slow.py), because: {reason}"


class Crowd:
    """One client process. Made by `crowd`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def open(
        self, count: int, *, per_s: float = 0.0, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S
    ) -> Opening:
        """Open `count` connections more and wait until they have joined, or not, within the patience."""
        return read_opening(self._ask(f"open {count} {per_s} {at_once} {patience_s}"))

    def begin_open(self, count: int, *, per_s: float, patience_s: float = PATIENCE_S) -> None:
        """Ask for connections at intended moments; `finish_open` waits for the answer."""
        self._say(f"open {count} {per_s} {AT_ONCE} {patience_s}")

    def finish_open(self) -> Opening:
        """Wait for what `begin_open` asked for."""
        return read_opening(self._hear())

    def publish_as(self, template: str, event_bytes: int) -> None:
        """Say what is published; `event_bytes` counts the mark and its padding, at least 21."""
        self._ask(f"template {template}")
        self._ask(f"event_bytes {event_bytes}")

    def run(self, *, per_s: float, events: int, grace_s: float = 1.0) -> Run:
        """Publish `events` at a steady rate, and report once all have arrived or the grace is over."""
        self.begin_run(per_s=per_s, events=events, grace_s=grace_s)
        return self.finish_run()

    def begin_run(self, *, per_s: float, events: int, grace_s: float = 1.0) -> None:
        """Start a run; `finish_run` waits for its end."""
        self._say(f"run {per_s} {events} {grace_s}")

    def finish_run(self) -> Run:
        """Wait for what `begin_run` started."""
        return read_run(self._hear())

    def _ask(self, line: str) -> dict[str, Any]:
        self._say(line)
        return self._hear()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise CrowdFailed(f"the client has ended: {line!r}") from None

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise CrowdFailed(f"the client ended with {self.process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def crowd(
    port: int,
    *,
    mode: Mode,
    viewers: int,
    publishers: int = 1,
    publishers_listen: bool = False,
    path: str = "/",
    publish_path: str = "/publish",
    subprotocol: str = "",
    binary_subprotocol: str = "",
    joins: Sequence[str] = (),
    cpu: int = OTHER_CPU,
) -> Iterator[Crowd]:
    """
    Run a client for as long as the block lasts. The first connections it opens are the publishers.

    Args:
        port: Of the server, on 127.0.0.1.
        mode: What is said after the handshake.
        viewers: Connections that listen.
        publishers: Connections that write.
        publishers_listen: The publishers are among the viewers, because every member of a room hears it.
        path: Of listening connections.
        publish_path: Of connections that only write.
        subprotocol: Offered, if any.
        binary_subprotocol: What all but the publishers offer instead, if any; their joins are MessagePack.
        joins: The `room.join` of every connection, in order of opening; as JSON, or MessagePack in hexadecimal.
        cpu: Where it runs.
    """
    command, _ = program()
    with tempfile.NamedTemporaryFile("w", prefix="crowd-", suffix=".joins") as file:
        file.writelines(f"{join}\n" for join in joins)
        file.flush()
        options = {
            "port": port,
            "mode": mode,
            "viewers": viewers,
            "publishers": publishers,
            "publishers_listen": int(publishers_listen),
            "path": path,
            "publish_path": publish_path,
            "subprotocol": subprotocol,
            "binary_subprotocol": binary_subprotocol,
            "joins": file.name if joins else "",
        }
        with starting_on(cpu):
            process = subprocess.Popen(
                [*command, *(f"{name}={value}" for name, value in options.items())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            )
        try:
            yield Crowd(process)
        finally:
            end(process)


def end(process: "subprocess.Popen[str]") -> None:
    """End a process of ours: by closing what it reads, else by its id."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def client_said() -> str:
    """Return which client this machine uses, in words."""
    return program()[1]
