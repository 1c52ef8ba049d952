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
from loadtest.sources import Sources, allow_files
from loadtest.viewer import FORGED_LINK, Desk, SampledViewer, SlowViewer, Viewer
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
#: How often a process looks whether it stands still.
BEAT_S: Final = 0.05
#: Whoever leaves waits for their answers: this long for each look, and so many looks.
DEPART_STEP_S: Final = 0.25
DEPART_STEPS_MAX: Final = 40
#: Receive buffer of a slow reader: small, or the kernel would read for them.
SLOW_RECEIVE_BYTES: Final = 4096


class Share(Struct, kw_only=True):
    """What one process has to do."""

    process: int
    run: str
    #: Ids of the rooms, by their number in the plan.
    rooms: list[str]
    target: str
    codec: str
    #: Connections of all processes together, at most.
    connections: int
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
    """Wait until everybody holds the last fact and comment of their room, or until the deadline."""

    #: (seq, comment) by room.
    places: list[tuple[int, int]]
    deadline_s: float


class Leave(Struct):
    """Leave the room, send the history, end."""


class Ready(Struct):
    """All viewers are made."""


class Drained(Struct):
    """Everybody has everything, or the deadline passed."""

    behind: int


class Histories(Struct):
    """Everything this process saw, by room."""

    rooms: list[ProcessHistory]


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
    #: Delay in ticks → accepted joins, since the last progress.
    joins: dict[int, int]
    #: Viewers watching, as the gauge last said to this process.
    online: int
    #: Sale → units left, as this process last heard.
    stock: dict[str, int]
    outcomes: dict[str, int]
    frames: int
    faults: dict[str, int]
    #: Longest time since the last progress in which the event loop did not turn, microseconds.
    stall_us: int = 0


class Generator:
    """Plays one share."""

    def __init__(self, share: Share, orders: Connection, reports: Connection) -> None:
        self._share = share
        # Two pipes, because the event loop makes the one it watches non-blocking, and a history has to be written
        # in one go however long that takes.
        self._orders = orders
        self._reports = reports
        self._uri = parse_uri(f"{share.target.rstrip('/')}/ws")
        #: One per room: frames of two rooms may be the same bytes and not the same frame.
        self._desks = [
            Desk(Recorder(CODECS[share.codec], share.run), room, self._uri) for room in share.rooms
        ]
        for desk in self._desks:
            desk.on_close = self._lost
        self._ssl = ssl.create_default_context() if self._uri.secure else None
        self._viewers: dict[int, Viewer] = {}
        for index, actor in share.actors.items():
            kind: type[Viewer] = SampledViewer if index in share.sampled else Viewer
            if actor.reads_bytes_s:
                kind = SlowViewer
            self._viewers[index] = kind(
                self._desks[actor.room], index, actor, f"{share.run}-{actor.id}", share.tokens[index]
            )
        self._sources = Sources(self._uri.host, self._uri.port, share.connections)
        self._started_s = 0.0
        #: Viewers whose return came before their connection had closed → step and its moment.
        self._returning: dict[int, tuple[int, int]] = {}
        self._stall_us = 0
        self._numbers = list(share.steps)
        self._next = 0
        self._late = 0
        self._lag_us = 0
        self._lags: dict[int, int] = {}
        self._frames_told = [0] * len(self._desks)
        self._cpu = (time.monotonic(), _cpu_s())
        self._outcomes_told = [0] * len(self._desks)
        self._outcome_counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._drain: Drain | None = None
        self._left = asyncio.Event()
        self._ending = False

    async def run(self) -> None:
        """Play until told to leave."""
        loop = asyncio.get_running_loop()
        allow_files()
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
            self._reports.send(Histories([self._history(room) for room in range(len(self._desks))]))

    def _history(self, room: int) -> ProcessHistory:
        desk, share = self._desks[room], self._share
        viewers = [viewer.record() for viewer in self._viewers.values() if viewer.actor.room == room]
        return ProcessHistory(share.process, desk.recorder.frames, viewers, desk.outcomes, desk.clock, room)

    def _now_us(self) -> int:
        return int((time.monotonic() - self._started_s) * 1_000_000)

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
            self._started_s = message.started_s
            for desk in self._desks:
                desk.started_s = message.started_s
            self._cpu = (time.monotonic(), _cpu_s())
            self._play()
            self._spawn(self._report())
            self._spawn(self._keep_alive())
            self._spawn(self._beat())
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
        now_us = self._now_us()
        while self._next < len(numbers):
            number = numbers[self._next]
            step = steps[number]
            if step.at_us > now_us:
                asyncio.get_running_loop().call_later((step.at_us - now_us) / 1e6, self._play)
                return
            self._next += 1
            self._take(number, step)
            now_us = self._now_us()

    def _take(self, number: int, step: Step) -> None:
        lag_us = self._now_us() - step.at_us
        self._lag_us = max(self._lag_us, lag_us)
        lag_ticks = lag_us // history.TICK_US
        self._lags[lag_ticks] = self._lags.get(lag_ticks, 0) + 1
        if lag_us > self._share.late_us:
            self._late += 1
        viewer = self._viewers[step.actor]
        if step.verb == "join":
            if "via" in step.command:
                viewer.via = self._link(step, self._desks[viewer.actor.room])
            self._return(viewer, number, step.at_us)
        elif step.verb == "cut":
            viewer.cut()
        elif step.verb == "away":
            viewer.go_away()
        elif step.verb == "leave":
            self._depart(viewer, DEPART_STEPS_MAX)
        else:
            command = fill(step.command, self._share.run, number, self._desks[viewer.actor.room].at_ms)
            viewer.send(number, command, step.at_us)

    def _link(self, step: Step, desk: Desk) -> tuple[str, str] | None:
        """Return whose link a join comes through, and the token; None if that is not known here."""
        via = step.command["via"]
        return ("?", FORGED_LINK) if via == FORGED else desk.share_tokens.get(via)

    def _depart(self, viewer: Viewer, looks_left: int) -> None:
        """Make a viewer leave as soon as all they asked is answered; after so many looks, anyway."""
        if self._ending:
            return
        if looks_left and (viewer.unanswered() or viewer.opening):
            asyncio.get_running_loop().call_later(DEPART_STEP_S, self._depart, viewer, looks_left - 1)
            return
        viewer.depart()

    async def _beat(self) -> None:
        """Notice when this process stands still, for whatever reason."""
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(BEAT_S)
            stood_us = int((time.monotonic() - before_s - BEAT_S) * 1e6)
            self._stall_us = max(self._stall_us, stood_us)

    # --- connections --------------------------------------------------------------------------------------

    def _return(self, viewer: Viewer, step: int, intended_us: int) -> None:
        """Open a connection for a step of the plan; if the last one is still closing, when it has."""
        if viewer.transport is not None and viewer.cutting:
            self._returning[viewer.index] = (step, intended_us)
        elif viewer.transport is not None or viewer.opening:
            # They never got away: the last connection was still being opened.
            viewer.away = False
        else:
            self._open(viewer, step, intended_us)

    def _open(self, viewer: Viewer, step: int, intended_us: int) -> None:
        viewer.open(step, intended_us)
        self._spawn(self._connect(viewer))

    async def _connect(self, viewer: Viewer) -> None:
        try:
            await self._connected(viewer)
        except OSError as error:
            if not self._sources.ran_out(error):
                viewer.refused(f"connect_{type(error).__name__}")
                return
            try:
                await self._connected(viewer)
            except OSError as again:
                viewer.refused(f"connect_{type(again).__name__}")

    async def _connected(self, viewer: Viewer) -> None:
        uri, loop = self._uri, asyncio.get_running_loop()
        slow = bool(viewer.actor.reads_bytes_s)
        if self._sources.plain(viewer.index) and not slow:
            await loop.create_connection(lambda: viewer, uri.host, uri.port, ssl=self._ssl)
            return
        sock = await self._sources.connect(viewer.index, SLOW_RECEIVE_BYTES if slow else 0)
        name = uri.host if self._ssl is not None else None
        await loop.create_connection(lambda: viewer, sock=sock, ssl=self._ssl, server_hostname=name)

    def _lost(self, viewer: Viewer) -> None:
        """Bring a viewer back whose connection ended, unless the server told it to stay away."""
        if not self._ending and (due := self._returning.pop(viewer.index, None)) is not None:
            self._open(viewer, *due)
            return
        if viewer.away:
            return
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
        # Unless they have gone or come back in the meantime.
        staying = self._ending or viewer.away or viewer.leaving
        if not staying and not viewer.opening and viewer.transport is None:
            self._open(viewer, -1, self._now_us())

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
                    viewer.send(-1, {"cmd": "ping"}, self._now_us())

    # --- the end ------------------------------------------------------------------------------------------

    def _behind(self, places: list[tuple[int, int]], *, comments: bool) -> int:
        """Return how many connected viewers lack the last fact, or, with `comments`, the last comment."""
        behind = 0
        for viewer in self._viewers.values():
            if (viewer.connected or viewer.opening) and not viewer.leaving:
                frames = self._desks[viewer.actor.room].recorder.frames
                seq, comment = places[viewer.actor.room]
                behind += history.last_seq(frames, viewer.frames) < seq or (
                    comments and history.last_comment(frames, viewer.frames) < comment
                )
        return behind

    async def _wait_for(self, drain: Drain) -> None:
        for viewer in self._viewers.values():
            viewer.hurry()
        deadline_s = time.monotonic() + drain.deadline_s
        await _until(lambda: not self._behind(drain.places, comments=False), deadline_s)
        frames = [frame for desk in self._desks for frame in desk.recorder.frames]
        if not any(isinstance(mark, ThinnedSeen) for frame in frames for mark in frame.marks):
            # Nothing was left out, so the last comment is worth the whole deadline.
            grace_s = deadline_s
        else:
            grace_s = min(deadline_s, time.monotonic() + COMMENTS_GRACE_S)
        await _until(lambda: not self._behind(drain.places, comments=True), grace_s)
        self._reports.send(Drained(self._behind(drain.places, comments=True)))

    async def _leave(self) -> None:
        self._ending = True
        viewers = list(self._viewers.values())
        for place, viewer in enumerate(viewers):
            if not viewer.left:
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
        then_s, then_cpu_s = self._cpu
        self._cpu = now_s, now_cpu_s = time.monotonic(), _cpu_s()
        lag_us, lags, stall_us = self._lag_us, self._lags, self._stall_us
        self._lag_us, self._lags, self._stall_us = 0, {}, 0
        if self._next < len(self._numbers):
            # A step that is overdue right now counts as late already, or a stopped process would look punctual.
            overdue_us = self._now_us() - self._share.steps[self._numbers[self._next]].at_us
            lag_us = max(lag_us, overdue_us)
        claims: dict[int, int] = {}
        joins: dict[int, int] = {}
        deliveries: dict[int, int] = {}
        faults: dict[str, int] = {}
        for room, desk in enumerate(self._desks):
            _add(deliveries, self._newly_delivered(room))
            _add(faults, desk.faults)
            _add(claims, desk.claims)
            _add(joins, desk.joins)
            desk.claims, desk.joins = {}, {}
            for outcome in desk.outcomes[self._outcomes_told[room] :]:
                key = f"{outcome.command} {outcome.code}"
                self._outcome_counts[key] = self._outcome_counts.get(key, 0) + 1
            self._outcomes_told[room] = len(desk.outcomes)
        connected = joined = opening = 0
        # One pass: with ten thousand viewers this is the longest thing a process does at once.
        for viewer in self._viewers.values():
            if viewer.transport is not None:
                connected += 1
                joined += viewer.joined
            opening += viewer.opening
        return Progress(
            connected=connected,
            joined=joined,
            steps_taken=self._next,
            steps_left=len(self._numbers) - self._next,
            pending=sum(desk.pending for desk in self._desks) + opening,
            late=self._late,
            lag_us=lag_us,
            stall_us=stall_us,
            lags=lags,
            cpu_share=(now_cpu_s - then_cpu_s) / max(1e-9, now_s - then_s),
            rss_bytes=_rss_bytes(),
            deliveries=deliveries,
            claims=claims,
            joins=joins,
            online=max((desk.recorder.online for desk in self._desks), default=0),
            stock={sale: left for desk in self._desks for sale, left in desk.recorder.stock.items()},
            outcomes=dict(self._outcome_counts),
            frames=sum(len(desk.recorder.frames) for desk in self._desks),
            faults=faults,
        )

    def _newly_delivered(self, room: int) -> dict[int, int]:
        """Return delay in ticks → comment deliveries, of the frames of a room that have settled since last asked."""
        frames = self._desks[room].recorder.frames
        settled = self._now_us() // history.TICK_US - SETTLED_TICKS
        first = last = self._frames_told[room]
        while last < len(frames) and min(frames[last].ticks, default=0) < settled:
            last += 1
        self._frames_told[room] = last
        return latency.delivery_counts(frames[first:last], self._share.comments_us)


def _add(total: dict[Any, int], more: dict[Any, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


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
