"""
What is attacked: nodes of the service and their store, as processes.

Decides how they are started, kept and ended. A node is a `liveroom serve` that is started again when it dies, as an
init system would. The store is private to a node; or watched, which is a private one kept by this process behind a
wire (`tests/support/store_wire.py`); or far, which is one across a network of its own (`seclusion.py`); or a cluster of
three primaries with a replica each. Processes are known by their ids, and only those started here are signalled. Does
not decide what is done to them (`faults.py`).
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.store.embedded import EmbeddedStore, find_binary, find_servers
from engine.store.keys import RoomKey
from loadtest.tokens import SigningKey
from tests.chaos import seclusion
from tests.support.cluster import PRIMARIES, cluster_url, running_cluster, slot_of
from tests.support.cluster import Node as ClusterNode
from tests.support.processes import is_gone
from tests.support.store_wire import Wire

_ANNOUNCED: Final = re.compile(r"liveroom listening on (http://\S+) internal (http://\S+)")
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
#: An init system's pause before it starts a dead service again (seconds), systemd's default.
RESTART_S: Final = 0.1
_FAR_PORT: Final = 6379

#: After this long without a sign of life a cluster's node counts as gone. The viewers' wait for a promotion begins with
#: it, so a show has it short; much shorter, and a machine that is merely busy loses its primaries.
NODE_TIMEOUT_MS: Final = 1_000

StoreKind = Literal["private", "watched", "far", "cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which processes there are."""

    nodes: int = 1
    workers: int = 1
    store: StoreKind = "private"
    #: Size of the disk with the data, if it is one of its own (bytes).
    disk_bytes: int = 0
    #: Node → variables of its environment.
    environment: Mapping[int, Mapping[str, str]] = field(default_factory=dict)


class Node:
    """One `liveroom serve`, kept running until it is ended."""

    def __init__(
        self, number: int, port: int, folder: Path, arguments: list[str], environment: dict[str, str]
    ):
        self.number = number
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = folder / f"node-{number}.log"
        self._command = [sys.executable, "-m", "engine", "serve", "--dev", "--log-level", "warning"]
        self._command += ["--listen", f"127.0.0.1:{port}", "--internal-listen", "127.0.0.1:0", *arguments]
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        #: Internal addresses as announced, one for each start, newest last.
        self.internal_urls: list[str] = []

    @property
    def target(self) -> str:
        """Where viewers connect."""
        return self.url.replace("http://", "ws://")

    @property
    def pid(self) -> int:
        """Process id of the service, or of its supervisor."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and return when it listens, with all its workers."""
        self._keeping = asyncio.create_task(self._keep())
        give_up = time.monotonic() + START_TIMEOUT_S
        while not self.internal_urls:
            if self._keeping.done() or time.monotonic() > give_up:
                raise AssertionError(f"node {self.number} did not start; it logged:\n{self.log()}")
            await asyncio.sleep(0.02)

    async def _keep(self) -> None:
        while True:
            with self.log_file.open("ab") as log:
                self._process = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                )
            assert process.stdout is not None
            async for line in process.stdout:
                announced = _ANNOUNCED.search(line.decode())
                if announced is not None:
                    self.internal_urls.append(announced[2])
            await process.wait()
            await asyncio.sleep(RESTART_S)

    def worker_pids(self) -> list[int]:
        """Return the process ids of its workers, in order; its own if it has none."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        workers = [
            int(pid) for pid in children if b"--shared-port" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return sorted(workers) or [self.pid]

    def log(self) -> str:
        """Return what it has logged."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    async def stop(self) -> None:
        """End it politely; by force if that takes too long."""
        if self._keeping is None:
            return
        process = self._process
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            # Drained by nobody from here on, so a chatty one must not be waited for by its pipe.
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Site:
    """Everything that runs. Use `a_site`."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self.layout = layout
        self.folder = folder
        self.data = folder / "data"
        self.nodes: list[Node] = []
        self.wire: Wire | None = None
        self.cable: seclusion.Cable | None = None
        self._watched: EmbeddedStore | None = None
        self._far: subprocess.Popen[bytes] | None = None
        self._stopped: set[int] = set()
        #: Of a cluster, the primaries first.
        self.cluster: list[ClusterNode] = []
        self._clusters = contextlib.ExitStack()

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the store, then the nodes."""
        layout = self.layout
        self.data.mkdir(mode=0o700)
        if layout.disk_bytes:
            seclusion.mount_small_disk(self.data, layout.disk_bytes)
        arguments = ["--data-dir", str(self.data), "--workers", str(layout.workers)]
        if layout.store == "watched":
            arguments += ["--store", await self._start_watched()]
        elif layout.store == "far":
            arguments += ["--store", await self._start_far()]
        elif layout.store == "cluster":
            cluster = running_cluster(self.folder / "cluster", replicas=1, durable=True)
            (self.folder / "cluster").mkdir()
            self.cluster = await asyncio.to_thread(self._clusters.enter_context, cluster)
            for node in self.cluster:
                await asyncio.to_thread(node.client.config_set, "cluster-node-timeout", NODE_TIMEOUT_MS)
            arguments += ["--store", cluster_url(self.cluster[:PRIMARIES])]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIVEROOM_")}
        # Only what is stopped in the middle of a run would need time to drain, and nothing here is.
        inherited["LIVEROOM_DRAIN_SPREAD_MS"] = "0"
        if layout.store == "cluster":
            inherited["LIVEROOM_STORE_REPLICAS"] = "1"
        with contextlib.ExitStack() as ports:
            # Held until all are known, so that they differ.
            sockets = [
                ports.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(layout.nodes)
            ]
            numbers = [each.getsockname()[1] for each in sockets]
        for number, port in enumerate(numbers):
            environment = {**inherited, **layout.environment.get(number, {})}
            node = Node(number, port, self.folder, arguments, environment)
            self.nodes.append(node)
            await node.start()

    async def _start_watched(self) -> str:
        store_data = self.folder / "store"
        self._watched = EmbeddedStore(store_data, on_log=structlog.get_logger())
        await self._watched.start()
        self.wire = Wire(
            self.folder / "wire.sock", str(EmbeddedStore(store_data).url.removeprefix("unix://"))
        )
        await self.wire.start()
        return self.wire.url

    async def _start_far(self) -> str:
        store_data = self.folder / "store"
        store_data.mkdir()
        options = {
            "dir": str(store_data), "bind": seclusion.THERE, "port": str(_FAR_PORT), "protected-mode": "no",
            "appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction",
            "logfile": str(store_data / "store.log"),
        }  # fmt: skip
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        binary = str(find_binary().path)
        # It waits until the cable is plugged in, then becomes the store.
        script = 'read plugged && exec "$@"'
        self._far = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script, "store", binary, *words], stdin=subprocess.PIPE
        )
        assert self._far.stdin is not None
        await _own_network(self._far.pid)
        self.cable = seclusion.Cable(self._far.pid)
        self._far.stdin.write(b"\n")
        self._far.stdin.close()
        url = f"redis://{seclusion.THERE}:{_FAR_PORT}"
        async with Redis.from_url(url, protocol=2) as client:
            give_up = time.monotonic() + START_TIMEOUT_S
            while True:
                with contextlib.suppress(RedisError, OSError):
                    if await client.ping():
                        return url
                assert time.monotonic() < give_up, "the far store did not start"
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End everything that was started."""
        for pid in list(self._stopped):
            self.thaw(pid)
        if self.cable is not None and self._far is not None and self._far.poll() is None:
            self.cable.mend()
        if self.wire is not None:
            self.wire.speak()
        await asyncio.gather(*(node.stop() for node in self.nodes))
        if self.wire is not None:
            await self.wire.stop()
        if self._watched is not None:
            await self._watched.stop()
        await asyncio.to_thread(self._clusters.close)
        if self._far is not None:
            self._far.kill()
            self._far.wait()
        if self.cable is not None:
            self.cable.unplug()
        # A node that had to be killed leaves its private store.
        for server in find_servers(self.data.resolve()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
            _until_gone(server.pid)
        if self.layout.disk_bytes:
            seclusion.unmount(self.data)

    # --- parts ------------------------------------------------------------------------------------------

    @property
    def signing_key(self) -> SigningKey:
        """The key that signs viewers' tokens; known to all nodes."""
        return SigningKey.read(self.data / "dev-key.json", "demo")

    @property
    def store_data(self) -> Path:
        """Where the store keeps its files."""
        return self.data if self.layout.store == "private" else self.folder / "store"

    def store_pid(self) -> int:
        """Return the process id of the store that runs now."""
        if self._far is not None:
            return self._far.pid
        [server] = [found for found in find_servers(self.store_data.resolve()) if not found.is_fork]
        return server.pid

    def primary_of(self, room: str) -> ClusterNode:
        """Return the node of the cluster that owned the room's slot at the start."""
        slot = slot_of(RoomKey("demo", room))
        [primary] = [node for node in self.cluster if slot in node.slots]
        return primary

    def replica_of(self, primary: ClusterNode) -> ClusterNode:
        """Return the replica that a primary was given at the start."""
        return self.cluster[PRIMARIES + self.cluster.index(primary)]

    def store(self) -> "Redis[Any]":
        """Return a client of the store, around any wire."""
        if self._far is not None:
            return Redis.from_url(f"redis://{seclusion.THERE}:{_FAR_PORT}", protocol=2)
        return Redis.from_url(EmbeddedStore(self.store_data).url, protocol=2)

    def log(self) -> str:
        """Return what the nodes have logged."""
        return "".join(node.log() for node in self.nodes)

    # --- blows ------------------------------------------------------------------------------------------

    def kill(self, pid: int) -> None:
        """Kill a process at once, and return when it is gone."""
        os.kill(pid, signal.SIGKILL)
        _until_gone(pid)

    def freeze(self, pid: int) -> None:
        """Stop a process where it stands."""
        os.kill(pid, signal.SIGSTOP)
        self._stopped.add(pid)

    def thaw(self, pid: int) -> None:
        """Let a frozen process go on."""
        self._stopped.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _until_gone(pid: int) -> None:
    """Look until a killed process has ended. It is dying already, and nothing may happen in between."""
    give_up = time.monotonic() + STOP_TIMEOUT_S
    while not is_gone(pid):
        assert time.monotonic() < give_up, f"process {pid} does not end"
        time.sleep(0.001)


async def _own_network(pid: int) -> None:
    """Wait until a process has a network other than ours."""
    ours = os.readlink("/proc/self/ns/net")
    # There is nothing that would tell; it takes milliseconds.
    while os.readlink(f"/proc/{pid}/ns/net") == ours:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def a_site(layout: Layout, folder: Path) -> AsyncIterator[Site]:
    """Run everything for as long as the block lasts."""
    site = Site(layout, folder)
    try:
        await site.start()
        yield site
    finally:
        await site.stop()
