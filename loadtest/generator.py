"""
One generator process: plays its share of a plan and notes what comes back.

Decides when each step is taken (at its moment, or as soon after as this process can) and how late it was. Does not
decide what is right (`oracle.py`) nor whether the generator kept up (`report.py`); it only measures both honestly.

Conversation with the parent, over two one-way pipes: it says `Go`, `Drain`, `Leave`; we say `Ready`, `Progress` twice a
second, `Drained`, and at last the history.
"""

import asyncio
import contextlib
import gc
import os
import resource
import ssl
import time
import traceback
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any, Final

import uvloop
from msgspec import Struct
from websockets.uri import parse_uri

from loadtest import history, latency
from loadtest.history import ProcessHistory, Recorder, ThinnedSeen
from loadtest.plan import FORGED, Actor, Step, fill
from loadtest.viewer import FORGED_LINK, Desk, SampledViewer, Viewer
from protocol.codec import CODECS
from protocol.codes import CloseCode
from protocol.limits import PING_PERIOD_MS

PROGRESS_PERIOD_S: Final = 0.5
#: A frame counts as fully delivered, and goes into the live figures, when this old.
SETTLED_TICKS: Final = history.TICKS_PER_S
RECONNECTS_MAX: Final = 6
#: Before the first try to come back, and up to as much again so that not everybody comes at once; doubled each time.
RECONNECT_DELAY_S: Final = 0.5
LEAVE_TIMEOUT_S: Final = 5.0
WAIT_STEP_S: Final = 0.05
#: After the last fact, comments still missing may have been thinned; they are waited for this long.
COMMENTS_GRACE_S: Final = 3.0
PING_PERIOD_S: Final = PING_PERIOD_MS / 1000 * 0.8


class Share(Struct, kw_only=True):
    """What one process has to do."""

    process: int
    run: str
    room: str
    target: str
    codec: str
    #: Index in the plan → actor, for the actors of this process.
    actors: dict[int, Actor]
    #: Index in the plan → token.
    tokens: dict[int, str]
    #: Number in the plan → step, for the steps of this process, in order.
    steps: dict[int, Step]
    #: Step → intended moment, for the comments of all processes.
    comments_us: dict[int, int]
    #: Indexes of the actors that read like a real client.
    sampled: set[int]
    late_us: int


class Go(Struct):
    """Begin; moments count from `started_s` on `time.monotonic()`."""

    started_s: float


class Drain(Struct):
    """Wait until everybody holds fact `seq` and comment `comment`, or until the deadline."""

    seq: int
    comment: int
    deadline_s: float


class Leave(Struct):
    """Leave the room, send the history, end."""


class Ready(Struct):
    """All viewers are made."""


class Drained(Struct):
    """Everybody has everything, or the deadline passed."""

    behind: int


class Failed(Struct):
    """A bug in the generator: whatever it recorded is not to be trusted."""

    why: str


class Progress(Struct, kw_only=True):
    """How it goes."""

    connected: int
    joined: int
    steps_taken: int
    steps_left: int
    pending: int
    late: int
    #: Microseconds by which the latest steps were late: the worst since the last progress.
    lag_us: int
    #: Delay in ticks → steps, since the last progress.
    lags: dict[int, int]
    #: Share of one core used since the last progress.
    cpu_share: float
    rss_bytes: int
    #: Delay in ticks → comment deliveries, since the last progress.
    deliveries: dict[int, int]
    #: Delay in ticks → answers to claims and grabs, since the last progress.
    claims: dict[int, int]
    #: Sale → units left, as this process last heard.
    stock: dict[str, int]
    outcomes: dict[str, int]
    frames: int
    faults: dict[str, int]


class Generator:
    """Plays one share."""

    def __init__(self, share: Share, orders: Connection, reports: Connection) -> None:
        self._share = share
        # Two pipes, because the event loop makes the one it watches non-blocking, and a history has to be written
        # in one go however long that takes.
        self._orders = orders
        self._reports = reports
        self._recorder = Recorder(CODECS[share.codec], share.run)
        uri = parse_uri(f"{share.target.rstrip('/')}/ws")
        self._desk = Desk(self._recorder, share.room, uri)
        self._desk.on_close = self._lost
        self._ssl = ssl.create_default_context() if uri.secure else None
        self._viewers: dict[int, Viewer] = {}
        for index, actor in share.actors.items():
            kind = SampledViewer if index in share.sampled else Viewer
            self._viewers[index] = kind(
                self._desk, index, actor, f"{share.run}-{actor.id}", share.tokens[index]
            )
        self._numbers = list(share.steps)
        self._next = 0
        self._late = 0
        self._lag_us = 0
        self._lags: dict[int, int] = {}
        self._frames_told = 0
        self._cpu = (time.monotonic(), _cpu_s())
        self._outcomes_told = 0
        self._outcome_counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._drain: Drain | None = None
        self._left = asyncio.Event()
        self._ending = False

    async def run(self) -> None:
        """Play until told to leave."""
        loop = asyncio.get_running_loop()
        # What exists now lives until the end; looking through it for garbage only costs time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)
        loop.set_exception_handler(self._failed)
        loop.add_reader(self._orders.fileno(), self._told)
        self._reports.send(Ready())
        await self._left.wait()
        loop.remove_reader(self._orders.fileno())
        for task in self._tasks:
            task.cancel()
        # A parent that has given up does not want to know any more.
        with contextlib.suppress(BrokenPipeError):
            self._reports.send(self._history())

    def _history(self) -> ProcessHistory:
        return ProcessHistory(
            self._share.process,
            self._recorder.frames,
            [viewer.record() for viewer in self._viewers.values()],
            self._desk.outcomes,
            self._desk.clock,
        )

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        self._reports.send(Failed(f"{context['message']}\n{trace}"))
        loop.set_exception_handler(lambda *later: None)
        self._left.set()

    def _told(self) -> None:
        try:
            message = self._orders.recv()
        except EOFError:
            # The parent is gone, and with it whoever wanted to know.
            self._left.set()
            return
        if isinstance(message, Go):
            self._desk.started_s = message.started_s
            self._cpu = (time.monotonic(), _cpu_s())
            self._play()
            self._spawn(self._report())
            self._spawn(self._keep_alive())
        elif isinstance(message, Drain):
            self._spawn(self._wait_for(message))
        elif isinstance(message, Leave):
            self._spawn(self._leave())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a task failed", "exception": error}
            self._failed(asyncio.get_running_loop(), context)

    # --- the plan -----------------------------------------------------------------------------------------

    def _play(self) -> None:
        """Take every step that is due and come back for the next one."""
        numbers, steps = self._numbers, self._share.steps
        now_us = self._desk.now_us()
        while self._next < len(numbers):
            number = numbers[self._next]
            step = steps[number]
            if step.at_us > now_us:
                asyncio.get_running_loop().call_later((step.at_us - now_us) / 1e6, self._play)
                return
            self._next += 1
            self._take(number, step)
            now_us = self._desk.now_us()

    def _take(self, number: int, step: Step) -> None:
        lag_us = self._desk.now_us() - step.at_us
        self._lag_us = max(self._lag_us, lag_us)
        lag_ticks = lag_us // history.TICK_US
        self._lags[lag_ticks] = self._lags.get(lag_ticks, 0) + 1
        if lag_us > self._share.late_us:
            self._late += 1
        viewer = self._viewers[step.actor]
        if step.verb == "join":
            viewer.via = self._link(step)
            self._open(viewer, number, step.at_us)
        elif step.verb == "cut":
            viewer.cut()
        elif step.verb == "leave":
            viewer.leave()
        else:
            command = fill(step.command, self._share.run, number, self._desk.at_ms)
            viewer.send(number, command, step.at_us)

    def _link(self, step: Step) -> tuple[str, str] | None:
        """Return whose link a join comes through, and the token; None if that is not known here or there is none."""
        via = step.command.get("via")
        if via is None:
            return None
        return ("?", FORGED_LINK) if via == FORGED else self._desk.share_tokens.get(via)

    # --- connections --------------------------------------------------------------------------------------

    def _open(self, viewer: Viewer, step: int, intended_us: int) -> None:
        viewer.open(step, intended_us)
        self._spawn(self._connect(viewer))

    async def _connect(self, viewer: Viewer) -> None:
        uri = self._desk.uri
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: viewer, uri.host, uri.port, ssl=self._ssl
            )
        except OSError as error:
            viewer.refused(f"connect_{type(error).__name__}")

    def _lost(self, viewer: Viewer) -> None:
        """Bring a viewer back whose connection ended, unless the server told it to stay away."""
        code = viewer.close_code
        final = 4000 <= code < 4500 or code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_TEXT)
        if self._ending or final or viewer.attempts >= RECONNECTS_MAX:
            return
        if viewer.return_s is not None:
            delay_s = viewer.return_s
        else:
            # The golden ratio spreads neighbours evenly, and the same way in every run.
            spread = 1 + viewer.index * 0.618034 % 1
            delay_s = RECONNECT_DELAY_S * spread * 2**viewer.attempts
        asyncio.get_running_loop().call_later(delay_s, self._come_back, viewer)

    def _come_back(self, viewer: Viewer) -> None:
        if not self._ending:
            self._open(viewer, -1, self._desk.now_us())

    async def _keep_alive(self) -> None:
        """Ping for everybody once a period, spread over it, as clients that only listen have to."""
        viewers = list(self._viewers.values())
        pause_s = max(0.01, PING_PERIOD_S / max(1, len(viewers)))
        per_turn = max(1, round(len(viewers) * pause_s / PING_PERIOD_S))
        place = 0
        while True:
            await asyncio.sleep(pause_s)
            for _ in range(per_turn):
                viewer = viewers[place % len(viewers)]
                place += 1
                if viewer.connected and not viewer.leaving:
                    viewer.send(-1, {"cmd": "ping"}, self._desk.now_us())

    # --- the end ------------------------------------------------------------------------------------------

    def _behind(self, seq: int, comment: int) -> int:
        """Return how many connected viewers lack fact `seq` or comment `comment`."""
        frames = self._recorder.frames
        return sum(
            history.last_seq(frames, viewer.frames) < seq
            or history.last_comment(frames, viewer.frames) < comment
            for viewer in self._viewers.values()
            if viewer.connected or viewer.opening
        )

    async def _wait_for(self, drain: Drain) -> None:
        deadline_s = time.monotonic() + drain.deadline_s
        await _until(lambda: not self._behind(drain.seq, 0), deadline_s)
        if not any(isinstance(mark, ThinnedSeen) for frame in self._recorder.frames for mark in frame.marks):
            # Nothing was left out, so the last comment is worth the whole deadline.
            grace_s = deadline_s
        else:
            grace_s = min(deadline_s, time.monotonic() + COMMENTS_GRACE_S)
        await _until(lambda: not self._behind(drain.seq, drain.comment), grace_s)
        self._reports.send(Drained(self._behind(drain.seq, drain.comment)))

    async def _leave(self) -> None:
        self._ending = True
        viewers = list(self._viewers.values())
        for place, viewer in enumerate(viewers):
            viewer.leave()
            if place % 100 == 99:
                await asyncio.sleep(0)
        deadline_s = time.monotonic() + LEAVE_TIMEOUT_S
        await _until(lambda: all(viewer.transport is None for viewer in viewers), deadline_s)
        for viewer in viewers:
            viewer.hang_up()
        self._left.set()

    # --- telling the parent -------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_PERIOD_S)
            self._reports.send(self._progress())

    def _progress(self) -> Progress:
        desk, frames = self._desk, self._recorder.frames
        settled = desk.now_us() // history.TICK_US - SETTLED_TICKS
        first = last = self._frames_told
        while last < len(frames) and min(frames[last].ticks, default=0) < settled:
            last += 1
        self._frames_told = last
        for outcome in desk.outcomes[self._outcomes_told :]:
            key = f"{outcome.command} {outcome.code}"
            self._outcome_counts[key] = self._outcome_counts.get(key, 0) + 1
        self._outcomes_told = len(desk.outcomes)
        then_s, then_cpu_s = self._cpu
        self._cpu = now_s, now_cpu_s = time.monotonic(), _cpu_s()
        lag_us, lags, claims = self._lag_us, self._lags, desk.claims
        self._lag_us, self._lags, desk.claims = 0, {}, {}
        if self._next < len(self._numbers):
            # A step that is overdue right now counts as late already, or a stopped process would look punctual.
            overdue_us = desk.now_us() - self._share.steps[self._numbers[self._next]].at_us
            lag_us = max(lag_us, overdue_us)
        return Progress(
            connected=sum(viewer.transport is not None for viewer in self._viewers.values()),
            joined=sum(viewer.connected for viewer in self._viewers.values()),
            steps_taken=self._next,
            steps_left=len(self._numbers) - self._next,
            pending=desk.pending + sum(viewer.opening for viewer in self._viewers.values()),
            late=self._late,
            lag_us=lag_us,
            lags=lags,
            cpu_share=(now_cpu_s - then_cpu_s) / max(1e-9, now_s - then_s),
            rss_bytes=_rss_bytes(),
            deliveries=latency.delivery_counts(frames[first:last], self._share.comments_us),
            claims=claims,
            stock=dict(self._recorder.stock),
            outcomes=dict(self._outcome_counts),
            frames=len(frames),
            faults=dict(desk.faults),
        )


async def _until(done: Callable[[], bool], deadline_s: float) -> None:
    """Wait until `done` says so, or until `deadline_s` on `time.monotonic()`."""
    # Asked now and then: telling every viewer's every frame to an event would cost more than the frame itself.
    while not done() and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(WAIT_STEP_S)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def main(share: Share, orders: Connection, reports: Connection) -> None:
    """Play one share; the entry point of the process."""
    try:
        uvloop.run(Generator(share, orders, reports).run())
    except KeyboardInterrupt:
        # The parent got it too and decides what becomes of the run.
        pass
