"""
Several generator processes as one.

Decides how a plan is cut into shares, and brings the shares' progress and histories together. Does not decide what
is in them. Each viewer lives in one process from beginning to end; actor n goes to process n modulo the count, so
that every process gets its part of the ramp.
"""

import asyncio
import contextlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from loadtest import generator
from loadtest.generator import Drain, Drained, Failed, Go, Histories, Leave, Progress, Ready, Share
from loadtest.history import ProcessHistory
from loadtest.latency import Delays, from_ticks
from loadtest.plan import CONSOLE, Plan

#: Viewers that read like a real client: one in a hundred, and at least this many.
SAMPLE_MIN: Final = 20
SAMPLE_ONE_IN: Final = 100

READY_TIMEOUT_S: Final = 120.0
#: Between the order and the first step, so that no process starts late.
START_DELAY_S: Final = 0.3
HISTORY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 5.0
#: How often the processes are looked at.
LOOK_PERIOD_S: Final = 0.5


class GeneratorDied(Exception):
    """A generator process ended by itself, or said nothing for too long. The run has no result: exit code 4."""


def shares(
    plan: Plan, *, run: str, rooms: list[str], target: str, codec: str, tokens: list[str], processes: int
) -> list[Share]:
    """Return what each of `processes` processes has to do."""
    # Who stays to the end has a view of the room to compare.
    gone = {step.actor for step in plan.steps if step.verb == "leave"}
    stay = [index for index in range(len(plan.actors)) if index not in gone]
    sampled = {stay[place] for place in sample(len(stay))}
    comments_us = {
        number: step.at_us
        for number, step in enumerate(plan.steps)
        if step.command.get("cmd") == "comment.send"
    }
    parts, connections = [], plan.connections_max()
    for process in range(processes):
        actors = {index: actor for index, actor in enumerate(plan.actors) if index % processes == process}
        parts.append(
            Share(
                process=process,
                run=run,
                rooms=rooms,
                target=target,
                codec=codec,
                connections=connections,
                actors=actors,
                tokens={index: tokens[index] for index in actors},
                steps={number: step for number, step in enumerate(plan.steps) if step.actor in actors},
                comments_us=comments_us,
                sampled=sampled & actors.keys(),
                late_us=plan.scenario.honesty.late_ms * 1000,
            )
        )
    return parts


def sample(actors: int) -> list[int]:
    """Return the actors that read like a real client: evenly spread, the console among them."""
    wanted = min(actors, max(SAMPLE_MIN, actors // SAMPLE_ONE_IN))
    return sorted({CONSOLE, *(place * actors // wanted for place in range(wanted))})


class Swarm:
    """
    The generator processes of one run. Use as an async context manager: leaving it ends them.

    `progress` holds the latest word of each process.
    """

    def __init__(self, parts: list[Share], silent_s: float = 60.0) -> None:
        self._parts = parts
        self._silent_s = silent_s
        #: Process → when it last said anything, on `time.monotonic()`.
        self._heard_s: dict[int, float] = {}
        self._orders: list[Connection] = []
        self._reports: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._inbox: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.started_s = 0.0
        self.progress: dict[int, Progress] = {}
        #: Every step's delay so far.
        self.lags = Delays()
        #: Every comment delivery so far, for the live view; the report counts again from the history.
        self.deliveries = Delays()
        #: Every answer to a claim or grab so far.
        self.claims = Delays()
        #: Longest time any process stood still.
        self.stall_us = 0
        #: Every accepted join so far.
        self.joins = Delays()
        #: (seconds since the start, process, share of a core).
        self.cpu: list[tuple[float, int, float]] = []
        self.on_progress: Callable[[], None] = lambda: None

    async def __aenter__(self) -> "Swarm":
        # Processes are started afresh: a copy of this one would inherit its event loop's threads and sockets.
        context = multiprocessing.get_context("spawn")
        loop = asyncio.get_running_loop()
        for part in self._parts:
            their_orders, orders = context.Pipe(duplex=False)
            reports, their_reports = context.Pipe(duplex=False)
            arguments = (part, their_orders, their_reports)
            process = context.Process(target=generator.main, args=arguments, daemon=True)
            process.start()
            their_orders.close()
            their_reports.close()
            self._orders.append(orders)
            self._reports.append(reports)
            self._processes.append(process)
            loop.add_reader(reports.fileno(), self._told, part.process)
        try:
            await self._each(Ready, READY_TIMEOUT_S)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        loop = asyncio.get_running_loop()
        for reports, orders in zip(self._reports, self._orders, strict=True):
            loop.remove_reader(reports.fileno())
            reports.close()
            orders.close()
        for process in self._processes:
            await asyncio.to_thread(process.join, STOP_TIMEOUT_S)
            if process.is_alive():
                process.kill()
            process.join()
            process.close()

    def _told(self, process: int) -> None:
        try:
            message = self._reports[process].recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._reports[process].fileno())
            message = EOFError()
        self._heard_s[process] = time.monotonic()
        if isinstance(message, Progress):
            self.progress[process] = message
            self.stall_us = max(self.stall_us, message.stall_us)
            self.lags.add(from_ticks(message.lags))
            self.deliveries.add(from_ticks(message.deliveries))
            self.claims.add(from_ticks(message.claims))
            self.joins.add(from_ticks(message.joins))
            self.cpu.append((time.monotonic() - self.started_s, process, message.cpu_share))
            self.on_progress()
        else:
            self._inbox.put_nowait((process, message))

    def _tell(self, message: object) -> None:
        for pipe in self._orders:
            with contextlib.suppress(OSError):
                pipe.send(message)

    async def _each(self, kind: type[Any], timeout_s: float, *, talking: bool = False) -> list[Any]:
        """Return one message of `kind` from every process, by process; `talking` ones report progress meanwhile."""
        answers: dict[int, Any] = {}
        deadline_s = time.monotonic() + timeout_s
        while len(answers) < len(self._parts):
            if time.monotonic() > deadline_s:
                raise GeneratorDied(f"no {kind.__name__} from a generator within {timeout_s:g} s")
            if talking:
                self._check_heard()
            try:
                process, message = await asyncio.wait_for(self._inbox.get(), LOOK_PERIOD_S)
            except TimeoutError:
                continue
            _check(process, message)
            if isinstance(message, kind):
                answers[process] = message
        return [answers[part.process] for part in self._parts]

    async def play(
        self, end_us: int, answers_deadline_s: float, begun: Callable[[], None] = lambda: None
    ) -> None:
        """
        Play the plan until its end and until every command is answered, or for `answers_deadline_s` longer.

        `begun` is called as soon as the moment of the start is known.

        Raises:
            GeneratorDied: If a process ended by itself.
        """
        self.started_s = time.monotonic() + START_DELAY_S
        self._tell(Go(self.started_s))
        begun()
        end_s = self.started_s + end_us / 1e6
        while True:
            self._check_alive()
            now_s = time.monotonic()
            if now_s > end_s + answers_deadline_s:
                return
            words = [self.progress.get(part.process) for part in self._parts]
            if now_s > end_s + generator.PROGRESS_PERIOD_S and all(
                word is not None and not word.steps_left and not word.pending for word in words
            ):
                return
            await asyncio.sleep(0.1)

    def _check_alive(self) -> None:
        if not self._inbox.empty():
            _check(*self._inbox.get_nowait())
        self._check_heard()

    def _check_heard(self) -> None:
        now_s = time.monotonic()
        for part in self._parts:
            silent_s = now_s - max(self.started_s, self._heard_s.get(part.process, self.started_s))
            if silent_s > self._silent_s:
                raise GeneratorDied(
                    f"generator process {part.process} has said nothing for {silent_s:.0f} s: stopped or starved"
                )

    async def drain(self, places: list[tuple[int, int]], deadline_s: float) -> int:
        """
        Wait until every viewer holds the last fact and comment of their room; return how many did not in time.

        Args:
            places: (seq, comment) by room.
            deadline_s: Seconds that may take.
        """
        self._tell(Drain(places, deadline_s))
        answers: list[Drained] = await self._each(Drained, deadline_s + HISTORY_TIMEOUT_S, talking=True)
        return sum(answer.behind for answer in answers)

    async def leave(self) -> list[ProcessHistory]:
        """Make every viewer leave and return everything that was recorded, by process and room."""
        self._tell(Leave())
        answers: list[Histories] = await self._each(Histories, HISTORY_TIMEOUT_S)
        return [history for answer in answers for history in answer.rooms]

    # --- sums over the processes --------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Return the sum of one figure of `Progress` over the processes."""
        return sum(int(getattr(progress, name)) for progress in self.progress.values())

    def counts(self, name: str) -> Counter[str]:
        """Return the sum of one table of `Progress` over the processes."""
        total: Counter[str] = Counter()
        for progress in self.progress.values():
            total.update(getattr(progress, name))
        return total

    def stock_left(self) -> int | None:
        """Return the units left of all sales as the gauges last said, None without a sale."""
        left: dict[str, int] = {}
        for progress in self.progress.values():
            left.update(progress.stock)
        return sum(left.values()) if left else None

    def pids(self) -> list[int]:
        """Return the process ids of the generators."""
        return [process.pid for process in self._processes if process.pid is not None]


def _check(process: int, message: Any) -> None:
    if isinstance(message, EOFError):
        raise GeneratorDied(f"generator process {process} ended unexpectedly")
    if isinstance(message, Failed):
        raise GeneratorDied(f"generator process {process} failed: {message.why}")
