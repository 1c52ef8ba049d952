"""
Several workers on one port.

Decides how worker processes are started, watched, replaced and stopped: each is a `liveroom serve` of its own on the
same port and store. One that dies is started again, its viewers resume on the others. A rolling restart (SIGHUP)
replaces them one by one, each only once its successor is ready. The private store belongs to this process, so it
outlives every worker and is stopped last. So does the internal port, which speaks for all workers together.

Each worker has a place: a number, and a listening socket that this process keeps and hands on. A successor accepts from
the same queue as the one before it, so a connection that waits to be accepted is not reset when a worker goes.

Processes are spawned, never forked: a fork would keep the store's lock after our crash. Each holds the other end of a
pipe of ours and stops when that closes (`engine/app.py`), so that no worker outlives a supervisor that was killed.

Source: docs/decisions/0020-workers-and-places.md.
"""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final

import aiohttp
import structlog
from aiohttp import web

from engine.config import Config, split_address
from engine.errors import EXIT_CONFIG, ConfigError
from engine.http.internal import Internal
from engine.store.embedded import EmbeddedStore
from engine.telemetry import SupervisorMetrics, merge_metrics

log = structlog.stdlib.get_logger(__name__)

#: Delay before a worker is started again after its first, second … death in a row (seconds).
_RESTART_S: Final = (0.0, 0.2, 1.0, 5.0)
#: A worker that lived this long starts the row anew (seconds).
_HEALTHY_S: Final = 30.0
#: Deaths before a worker has ever listened after which the start is given up.
_FIRST_DEATHS_MAX: Final = 3
#: How long a successor may take until it is ready; then the rolling restart stops (seconds).
_READY_S_MAX: Final = 30.0
#: How long a worker may take to drain before it is killed (seconds).
_DRAIN_S_MAX: Final = 20.0
#: How long a failed successor may take to end before it is killed (seconds).
_GIVE_UP_S: Final = 5.0
#: How long a worker may take to answer on its internal port (seconds).
_ASK_S: Final = 0.7
_ASK_AGAIN_S: Final = 0.1

_LISTENING: Final = re.compile(rb"liveroom listening on \S+ internal (http://\S+)\n")


class _Worker:
    """One worker process and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.started_at = loop.time()
        #: Its internal port, known once it listens.
        self.internal_url = ""
        #: Done once it listens (True) or has ended without (False).
        self.listening: asyncio.Future[bool] = loop.create_future()
        #: Returns its exit code.
        self.ended = loop.create_task(self._follow(), name="worker")

    async def _follow(self) -> int:
        stdout = self.process.stdout
        assert stdout is not None
        # To its end: a pipe that nobody reads would stop whoever writes into it.
        while line := await stdout.readline():
            said = _LISTENING.fullmatch(line)
            if said is not None and not self.listening.done():
                self.internal_url = said[1].decode()
                self.listening.set_result(True)
        code = await self.process.wait()
        if not self.listening.done():
            self.listening.set_result(False)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.returncode is None:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                pass  # Ended, and not noticed yet.

    async def end(self, patience_s: float) -> None:
        """Ask it to drain, and return when it has ended; after `patience_s` it is killed."""
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self.ended], timeout=patience_s)
        if not done:
            log.error("worker.killed", pid=self.process.pid, after_s=patience_s)
            self.signal(signal.SIGKILL)
            await asyncio.wait([self.ended])


class _Place:
    """One of the N: its number, its share of the port, and the worker that holds it now."""

    def __init__(self, number: int, shared: socket.socket) -> None:
        self.number = number
        #: In listening state from its first worker on; several sockets of one port share what arrives (SO_REUSEPORT).
        self.socket = shared
        self.worker: _Worker | None = None
        #: Deaths in a row.
        self.deaths = 0
        #: Held while a worker is given the place.
        self.lock = asyncio.Lock()
        #: Done when its first worker listens; fails when none can.
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Workers:
    """The supervisor of `serve --workers N`."""

    def __init__(self, config: Config, arguments: list[str], environment: Mapping[str, str]) -> None:
        """
        Prepare.

        Args:
            config: Of the whole service.
            arguments: Of one worker, without the store, ports and number of workers.
            environment: Of the workers, whole.
        """
        self._config = config
        self._arguments = arguments
        self._environment = dict(environment)
        self._embedded: EmbeddedStore | None = None
        self._url = config.store
        self._metrics = SupervisorMetrics()
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self._places: list[_Place] = []
        self._keepers: list[asyncio.Task[None]] = []
        #: Every worker that has not ended, also those on their way in or out.
        self._alive: set[_Worker] = set()
        self._starting: set[asyncio.Task[_Worker]] = set()
        self._rolling: asyncio.Task[None] | None = None
        self._roll_again = False
        self._started = False
        self._stopping = False
        #: Bound addresses, known once started.
        self.address: tuple[str, int] = ("", 0)
        self.internal_address: tuple[str, int] = ("", 0)

    async def start(self) -> None:
        """
        Start the store, then every worker; return when all of them listen.

        Raises:
            ConfigError: If the operator has to act.
        """
        await self._start_internal()
        if not self._url:
            self._embedded = EmbeddedStore(self._config.data_dir, appendfsync=self._config.appendfsync)
            self._url = await self._embedded.start()
        self.address = split_address("listen", self._config.listen)
        for number in range(self._config.workers):
            shared = _bind(self.address)
            # Port 0 is the kernel's choice, once for all.
            self.address = shared.getsockname()[:2]
            self._places.append(_Place(number, shared))
        self._keepers = [asyncio.create_task(self._keep(place)) for place in self._places]
        await asyncio.gather(*(place.first for place in self._places))
        self._started = True

    async def stop(self) -> None:
        """Drain every worker, also those of a rolling restart under way, then stop the store."""
        self._stopping = True
        helpers = [*self._keepers, *([self._rolling] if self._rolling else [])]
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        for place in self._places:
            place.first.cancel()
            # From here on nobody takes the place over: what the worker does not accept is refused.
            place.socket.close()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.end(_DRAIN_S_MAX) for worker in self._alive))
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._embedded is not None:
            await self._embedded.stop()

    # --- workers ------------------------------------------------------------------------------------------

    async def _start_worker(self, place: _Place, reason: str) -> _Worker | None:
        """
        Start a process that accepts from the place's socket. None when the machine has none to give.

        Cancelling this is safe: `stop` waits for the start and ends the process.
        """
        task = asyncio.create_task(self._spawn(place, reason), name="worker-start")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        try:
            # Interrupted half-way it would be a process that nobody knows of.
            return await asyncio.shield(task)
        except OSError as error:
            log.error("worker.not_started", number=place.number, error=str(error))
            return None

    async def _spawn(self, place: _Place, reason: str) -> _Worker:
        fd = place.socket.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "engine",
            *self._arguments,
            # For this process alone, whatever the address of the service's own internal port.
            "--internal-listen",
            "127.0.0.1:0",
            "--shared-port",
            str(fd),
            # Not among the arguments, which anybody can list: a store URL may hold a password.
            env={**self._environment, "LIVEROOM_STORE": self._url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(fd,),
            # A terminal's ^C reaches this process only, which drains the workers once.
            start_new_session=True,
        )
        worker = _Worker(process)
        self._alive.add(worker)
        worker.ended.add_done_callback(lambda _: self._alive.discard(worker))
        self._metrics.starts.labels(str(place.number), reason).inc()
        if self._stopping:  # Told while it was being started, when there was nobody to pass it on to.
            worker.signal(signal.SIGTERM)
        return worker

    async def _keep(self, place: _Place) -> None:
        """Have a worker in a place for as long as the service runs."""
        reason = "start"
        while True:
            async with place.lock:
                if place.worker is None:
                    place.worker = await self._start_worker(place, reason)
                worker = place.worker
            if worker is None:  # The machine has no process to give.
                await asyncio.sleep(_RESTART_S[-1])
                continue
            if await asyncio.shield(worker.listening) and not place.first.done():
                place.first.set_result(None)
            code = await asyncio.shield(worker.ended)
            if place.worker is not worker:
                continue  # It was replaced, and ended as it was told to.
            place.worker, reason = None, "died"
            lived_s = asyncio.get_running_loop().time() - worker.started_at
            place.deaths = 1 if lived_s > _HEALTHY_S else place.deaths + 1
            log.error("worker.died", number=place.number, code=code, lived_s=round(lived_s, 1))
            if not place.first.done() and (code == EXIT_CONFIG or place.deaths >= _FIRST_DEATHS_MAX):
                place.first.set_exception(ConfigError("the workers cannot start; they have said why"))
                return
            delay_s = _RESTART_S[min(place.deaths, len(_RESTART_S)) - 1]
            if delay_s:
                async with place.lock:
                    self._renounce(place)
                await asyncio.sleep(delay_s)

    def _renounce(self, place: _Place) -> None:
        """Leave the place's share of the port to the others: connections must not wait where nobody accepts them."""
        try:
            fresh = _bind(self.address)
        except ConfigError as error:
            log.error("worker.keeps_its_share", number=place.number, error=str(error))
            return
        place.socket.close()
        place.socket = fresh

    # --- rolling restart ----------------------------------------------------------------------------------

    def roll(self) -> None:
        """
        Replace every worker by a new one, one by one; they read the configuration file anew.

        Asked again meanwhile, it is done once more afterwards: what changed in between is then seen by all.
        """
        if not self._started or self._stopping:
            log.warning("roll.ignored", reason="the service is starting or stopping")
        elif self._rolling is not None and not self._rolling.done():
            self._roll_again = True
            log.info("roll.noted")
        else:
            self._rolling = asyncio.create_task(self._roll(), name="roll")

    async def _roll(self) -> None:
        while True:
            self._roll_again = False
            log.info("roll.started", workers=len(self._places))
            outcome = "done"
            for place in self._places:
                if not await self._replace(place):
                    outcome = "stopped"
                    break
            self._metrics.rolls.labels(outcome).inc()
            if outcome == "done":
                log.info("roll.done", workers=len(self._places))
            else:
                log.error("roll.stopped", number=place.number, hint="the workers that were there go on")
            if not self._roll_again:
                return

    async def _replace(self, place: _Place) -> bool:
        """Start a successor, and drain the worker of the place once it is ready. False when it does not get there."""
        successor = await self._start_worker(place, "rolled")
        if successor is None:
            return False
        if not await self._is_ready_in_time(successor):
            await successor.end(_GIVE_UP_S)
            return False
        async with place.lock:
            before, place.worker = place.worker, successor
            place.deaths = 0
        log.info("worker.replaced", number=place.number, pid=successor.process.pid)
        if before is not None:
            loop = asyncio.get_running_loop()
            returned_at = loop.time() + self._config.drain_spread_ms / 1000
            await before.end(_DRAIN_S_MAX)
            # Its viewers come back until then; those of two workers at once would be twice the load.
            await asyncio.sleep(returned_at - loop.time())
        return True

    async def _is_ready_in_time(self, worker: _Worker) -> bool:
        try:
            async with asyncio.timeout(_READY_S_MAX):
                if not await asyncio.shield(worker.listening):
                    return False
                while not worker.ended.done():
                    if await self._ask(worker, "/readyz") is not None:
                        return True
                    await asyncio.sleep(_ASK_AGAIN_S)
        except TimeoutError:
            pass
        return False

    # --- internal port ------------------------------------------------------------------------------------

    async def _start_internal(self) -> None:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S))
        application = web.Application()
        application.add_routes(Internal(ready=self.readiness, render=self._render).routes())
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        host, port = split_address("internal_listen", self._config.internal_listen)
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        self.internal_address = self._runner.addresses[0][:2]

    async def readiness(self) -> tuple[bool, str]:
        """
        Return whether viewers may come, and how many workers are ready in words.

        One worker is enough: the port answers then, and a balancer that sent everybody away because another worker is
        being restarted would do more harm. `liveroom_worker_ready` tells of the others.
        """
        if self._stopping:
            return False, "draining"
        answers = await self._ask_all("/readyz")
        count = sum(answer is not None for answer in answers.values())
        return (
            count > 0,
            f"ready: {count} of {self._config.workers} workers" if count else "no worker is ready",
        )

    async def _render(self) -> tuple[bytes, str]:
        readiness, answers = await asyncio.gather(self._ask_all("/readyz"), self._ask_all("/metrics"))
        for number, answer in readiness.items():
            self._metrics.ready.labels(number).set(int(answer is not None))
        texts = {number: answer for number, answer in answers.items() if answer is not None}
        return merge_metrics(self._metrics.registry, "worker", texts)

    async def _ask_all(self, path: str) -> dict[str, str | None]:
        """Ask the worker of every place at once; None where there is none, or no good answer in time."""

        async def ask(place: _Place) -> str | None:
            return await self._ask(place.worker, path) if place.worker is not None else None

        answers = await asyncio.gather(*map(ask, self._places))
        return {str(place.number): answer for place, answer in zip(self._places, answers, strict=True)}

    async def _ask(self, worker: _Worker, path: str) -> str | None:
        if not worker.internal_url or self._http is None:
            return None
        try:
            async with self._http.get(worker.internal_url + path) as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None


def _bind(address: tuple[str, int]) -> socket.socket:
    """Return a socket bound to an address that others may be bound to as well. Not listening: its worker begins to."""
    host, port = address
    try:
        family, kind, number, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        shared = socket.socket(family, kind, number)
        try:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind(bound)
        except BaseException:
            shared.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return shared
