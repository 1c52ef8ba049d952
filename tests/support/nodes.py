"""
Several nodes of the service on one outside store, as on several hosts.

Decides how the store is started, frozen, killed and brought back, and what a node is: a `liveroom serve` with a port
that it keeps over restarts. Nodes share nothing but the store and the key of `--dev`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.asyncio import Redis

from engine.store.embedded import find_binary
from tests.support.service import PATIENCE_S, Service, start_service


class OutsideStore:
    """A server that the service did not start: append-only file, every write on disk before it is answered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "store.sock"
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers. What it had stored is there again."""
        options = {
            "dir": str(self._folder), "port": "0", "unixsocket": str(self._socket), "save": "",
            "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
            "logfile": str(self._folder / "store.log"),
        }  # fmt: skip
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        self.process = subprocess.Popen([find_binary().path, *words])
        give_up = time.monotonic() + PATIENCE_S
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert time.monotonic() < give_up, "the store does not start"
                    time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill it at once, and return when it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)


class Node:
    """One `liveroom serve`, and the store it shares with others."""

    def __init__(self, folder: Path, data_dir: Path, store_url: str, settings: dict[str, str]) -> None:
        self._folder = folder
        self._data_dir = data_dir
        self._store_url = store_url
        self._settings = settings
        self.service: Service | None = None
        # Bound and never listening: the port is the node's for as long as it is needed, and takes no connection while
        # the node is away.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self._address = "{}:{}".format(*self._port.getsockname())

    def close(self) -> None:
        """Kill it, if it runs, and give its port back."""
        if self.service is not None and self.service.process.poll() is None:
            self.kill()
        self._port.close()

    def start(self) -> None:
        """Start it, and return when it listens."""
        own = ("--listen", self._address, "--store", self._store_url, "--data-dir", str(self._data_dir))
        self.service = start_service(self._folder, "--dev", *own, settings=self._settings)

    def kill(self) -> None:
        """Kill it at once, and return when it is gone."""
        assert self.service is not None
        self.service.process.kill()
        self.service.wait()

    async def restart(self) -> float:
        """Drain it and start it again. Returns how long the draining took (seconds)."""
        assert self.service is not None
        began = time.monotonic()
        self.service.terminate()
        assert await asyncio.to_thread(self.service.wait) == 0
        drained_s = time.monotonic() - began
        await asyncio.to_thread(self.start)
        return drained_s

    @property
    def url(self) -> str:
        """Where merchants call."""
        return f"http://{self._address}"

    @property
    def ws_url(self) -> str:
        """Where viewers connect."""
        return f"ws://{self._address}/ws"

    @property
    def internal_url(self) -> str:
        """Where health and metrics are."""
        assert self.service is not None
        return self.service.internal_url

    def store(self) -> "Redis[Any]":
        """Return a client of the store."""
        return Redis.from_url(self._store_url, protocol=2, decode_responses=True)


@contextlib.contextmanager
def some_nodes(folder: Path, count: int = 2, **settings: str) -> Iterator[tuple[OutsideStore, list[Node]]]:
    """Run a store and `count` nodes for as long as the block lasts. `settings` are named as in `Config`."""
    environment = {"LIVEROOM_DRAIN_SPREAD_MS": "1000"}
    environment |= {f"LIVEROOM_{name.upper()}": value for name, value in settings.items()}
    store = OutsideStore(folder)
    nodes: list[Node] = []
    try:
        store.start()
        for number in range(count):
            home = folder / f"node-{number}"
            home.mkdir()
            nodes.append(Node(home, folder / "data", store.url, environment))
            nodes[-1].start()
        yield store, nodes
    finally:
        for node in nodes:
            node.close()
        if store.process is not None and store.process.poll() is None:
            # A stopped process takes no other signal.
            os.kill(store.process.pid, signal.SIGCONT)
            store.end()
