"""
Several workers on one port.

Decides how worker processes are started, watched and stopped: each is a `liveroom serve` of its own that shares the
port (SO_REUSEPORT) and the store. One that dies is started again, its viewers resume on the others. The private store
belongs to this process, so it outlives every worker and is stopped last.

Processes are spawned, never forked: a fork would keep the store's lock after our crash. Each holds the other end of a
pipe of ours and stops when that closes (`engine/app.py`), so that no worker outlives a supervisor that was killed.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from engine.config import Config, split_address
from engine.errors import ConfigError
from engine.store.embedded import EmbeddedStore

log = structlog.stdlib.get_logger(__name__)

#: Delay before a dead worker is started again, growing with each death in a row (seconds).
_RESTART_S = (0.0, 0.2, 1.0, 5.0)
#: A worker that lived this long starts the row anew (seconds).
_HEALTHY_S = 30.0
_EXTRA_DRAIN_S = 15.0


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process | None = None
    deaths: int = 0


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
        if split_address("listen", config.listen)[1] == 0:
            raise ConfigError("several workers share a port, so listen must name one")
        self._config = config
        self._arguments = arguments
        self._environment = dict(environment)
        self._embedded: EmbeddedStore | None = None
        self._url = config.store
        self._tasks: list[asyncio.Task[None]] = []
        self._workers = [_Worker(number) for number in range(config.workers)]
        self._stopping = False

    async def start(self) -> None:
        """Start the store, then every worker."""
        if not self._url:
            self._embedded = EmbeddedStore(self._config.data_dir, appendfsync=self._config.appendfsync)
            self._url = await self._embedded.start()
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    async def stop(self) -> None:
        """Drain every worker, then stop the store."""
        self._stopping = True
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._config.drain_spread_ms / 1000 + _EXTRA_DRAIN_S):
                await asyncio.gather(*self._tasks)
        except TimeoutError:
            for worker in self._workers:
                if worker.process is not None and worker.process.returncode is None:
                    worker.process.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._embedded is not None:
            await self._embedded.stop()

    async def _keep(self, worker: _Worker) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            started = loop.time()
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "engine",
                *self._arguments_of(worker),
                # Not among the arguments, which anybody can list: a store URL may hold a password.
                env={**self._environment, "LIVEROOM_STORE": self._url},
                stdin=asyncio.subprocess.PIPE,
                # A terminal's ^C reaches this process only, which drains the workers once.
                start_new_session=True,
            )
            if self._stopping:  # Told while it was being started, when there was nobody to pass it on to.
                worker.process.send_signal(signal.SIGTERM)
            code = await worker.process.wait()
            if self._stopping:
                return
            lived_s = loop.time() - started
            worker.deaths = 0 if lived_s > _HEALTHY_S else worker.deaths + 1
            log.error("worker.died", number=worker.number, code=code, lived_s=round(lived_s, 1))
            await asyncio.sleep(_RESTART_S[min(worker.deaths, len(_RESTART_S) - 1)])

    def _arguments_of(self, worker: _Worker) -> list[str]:
        host, port = split_address("internal_listen", self._config.internal_listen)
        internal = f"{host}:{port + worker.number if port else 0}"
        return [*self._arguments, "--internal-listen", internal, "--shared-port"]
