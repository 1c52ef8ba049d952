"""
`liveroom serve` as processes that tests may kill: the service, its workers, its private store.

Builds on `service.py` for one worker; starts several on a port of their own, finds the server of a data directory, and
waits for things by looking, with a deadline. Ends what it started by process id.
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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from redis.asyncio import Redis

from engine.store.embedded import EmbeddedStore, find_servers
from engine.store.keys import RoomKey, RoomKeys
from tests.support.client import Client, Merchant
from tests.support.service import DEMO_KEY, PATIENCE_S, Service, start_service

_ANNOUNCED = re.compile(r"liveroom listening on (http://\S+) internal (http://\S+)\n")
_LOOK_S = 0.01


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> float:
    """Look until `what` holds. Returns how long it took (seconds)."""
    began = time.monotonic()
    while not await what():
        assert time.monotonic() - began < seconds, f"not so within {seconds} s"
        await asyncio.sleep(_LOOK_S)
    return time.monotonic() - began


def _until_now(what: Callable[[], bool], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, f"not so within {seconds} s"
        time.sleep(_LOOK_S)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class House:
    """A folder with a data directory, and whatever serves it at the moment."""

    def __init__(self, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.arguments = arguments
        self.settings = {"LIVEROOM_DRAIN_SPREAD_MS": "0", **(settings or {})}
        self.service: Service | None = None
        #: Where the service's health and metrics are; the supervisor's, if it has workers.
        self.internal_urls: list[str] = []
        self._port: socket.socket | None = None

    # --- life -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start one worker with its private store."""
        self.service = start_service(self.folder, "--dev", *self.arguments, settings=self.settings)
        self.internal_urls = [self.service.internal_url]

    def open_workers(self, count: int) -> None:
        """Start a supervisor with several workers, and wait until all of them listen."""
        if self._port is None:
            # Bound and never listening: the port is ours for as long as the house stands, and takes no connection.
            self._port = socket.socket()
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._port.bind(("127.0.0.1", 0))
        listen = "{}:{}".format(*self._port.getsockname())
        command = [sys.executable, "-m", "engine", "serve", "--dev", "--workers", str(count)]
        command += ["--listen", listen, "--internal-listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.folder / "data"), *self.arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIVEROOM_")}
        said = self.folder / f"said-{time.monotonic_ns()}"
        log_file = self.folder / "liveroom.log"
        with said.open("w") as out, log_file.open("a") as log:
            process = subprocess.Popen(command, env={**inherited, **self.settings}, stdout=out, stderr=log)
        self.service = Service(process, log_file, f"http://{listen}", "")
        _until_now(lambda: _ANNOUNCED.fullmatch(said.read_text()) is not None, PATIENCE_S)
        announced = _ANNOUNCED.fullmatch(said.read_text())
        assert announced is not None
        self.internal_urls = [announced[2]]

    def kill(self) -> None:
        """Kill the service at once. Its private store lives on, as after a crash."""
        assert self.service is not None
        self.service.process.kill()
        self.service.wait()

    def close(self) -> None:
        """End everything: the service politely, and a store that a crash left."""
        if self._port is not None:
            self._port.close()
        try:
            if self.service is not None and self.service.process.poll() is None:
                self.service.terminate()
                self.service.wait()
        finally:
            if self.service is not None and self.service.process.poll() is None:
                self.service.process.kill()
                self.service.wait()
            for server in find_servers(self.folder / "data"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGKILL)
                _until_now(lambda pid=server.pid: is_gone(pid), PATIENCE_S)  # type: ignore[misc]

    # --- parts ------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where merchants call."""
        assert self.service is not None
        return self.service.url

    @property
    def ws_url(self) -> str:
        """Where viewers connect."""
        assert self.service is not None
        return self.service.ws_url

    def store_pid(self) -> int:
        """Return the process id of the private store."""
        [server] = [found for found in find_servers(self.folder / "data") if not found.is_fork]
        return server.pid

    def kill_store(self) -> None:
        """Kill the private store at once, and return when it is gone."""
        pid = self.store_pid()
        os.kill(pid, signal.SIGKILL)
        _until_now(lambda: is_gone(pid), PATIENCE_S)

    def store(self) -> "Redis[Any]":
        """Return a client of the private store."""
        return Redis.from_url(EmbeddedStore(self.folder / "data").url, protocol=2, decode_responses=True)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the supervisor's workers."""
        assert self.service is not None
        children = Path(f"/proc/{self.service.process.pid}/task/{self.service.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        return [pid for pid in pids if b"--shared-port" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextlib.contextmanager
def a_house(folder: Path, *arguments: str, workers: int = 1, **settings: str) -> Iterator[House]:
    """Run a service for as long as the block lasts. `settings` are named as in `Config`."""
    environment = {f"LIVEROOM_{name.upper()}": value for name, value in settings.items()}
    house = House(folder, *arguments, settings=environment)
    try:
        if workers == 1:
            house.open()
        else:
            house.open_workers(workers)
        yield house
    finally:
        house.close()


class Place(Protocol):
    """Where a service is to be found."""

    @property
    def url(self) -> str:
        """Where merchants call."""
        ...

    @property
    def ws_url(self) -> str:
        """Where viewers connect."""
        ...

    def store(self) -> "Redis[Any]":
        """Return a client of its store."""
        ...


class Guests:
    """Merchant, streamer and viewers of one room, all strangers to the service. Closed together."""

    def __init__(self, house: Place, room: str) -> None:
        self.house = house
        self.room = room
        self.names = RoomKeys(RoomKey("demo", room))
        self._http = aiohttp.ClientSession()
        #: Every connection opened, oldest first.
        self.clients: list[Client] = []

    async def __aenter__(self) -> "Guests":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.socket.close() for client in self.clients))
        await self._http.close()

    @property
    def merchant(self) -> Merchant:
        """The merchant's back end, at wherever the service is now."""
        return Merchant(self._http, self.house.url, DEMO_KEY)

    async def open_room(self) -> None:
        """Create the room and take it live."""
        await self.merchant.put_room(self.room)
        await self.merchant.do(self.room, "room.open")

    async def token(self, viewer: str, role: str = "viewer") -> str:
        """Return a token for the room."""
        return await self.merchant.token(self.room, viewer, role)

    async def connect(self, codec_name: str = "json", before: Client | None = None) -> Client:
        """Open a connection; `before` is the one whose progress it continues."""
        progress = before.machine.progress if before is not None else None
        client = await Client.open(self.house.ws_url, codec_name, progress)
        self.clients.append(client)
        return client

    async def join(self, viewer: str, role: str = "viewer", codec_name: str = "json") -> Client:
        """Open a connection and join."""
        client = await self.connect(codec_name)
        await client.join(self.room, await self.token(viewer, role))
        return client

    async def come_back(self, before: Client, viewer: str, role: str = "viewer") -> Client:
        """Join again from where an earlier connection stopped."""
        client = await self.connect(before=before)
        client.room = before.room
        resume = before.machine.resume()
        assert resume is not None
        await client.join(self.room, await self.token(viewer, role), resume=resume)
        return client

    async def worker_of(self, viewer: str) -> str:
        """Return the worker that holds the viewer's newest connection, as the store knows it."""
        async with self.house.store() as store:
            words = await store.hget(self.names.present, viewer)
        assert words, f"{viewer} is not present"
        return str(words).split()[-1].partition(".")[0]

    async def join_elsewhere(self, viewer: str, than: set[str], role: str = "viewer") -> Client:
        """Join until the kernel hands the connection to a worker that is not one of `than`."""
        for _ in range(64):
            client = await self.join(viewer, role)
            if await self.worker_of(viewer) not in than:
                return client
            await client.socket.close()
        raise AssertionError("64 connections in a row went to the same worker")

    async def online(self) -> int:
        """Return how many viewers the service counts."""
        stats = await self.merchant.ok("GET", f"/v1/rooms/{self.room}/stats")
        return int(stats["online"])

    async def facts(self) -> list[dict[str, Any]]:
        """Return every fact of the room, from the merchant's cursor."""
        page = await self.merchant.ok("GET", f"/v1/rooms/{self.room}/events", query={"limit": 1000})
        assert not page["more"]
        assert not page["gap"]
        facts: list[dict[str, Any]] = page["data"]
        return facts


def seqs(client: Client) -> list[int]:
    """Return the `seq` of every fact on the wire, duplicates and all, in the order they came."""
    found = []
    for frame in client.frames:
        for message in client.codec.decode(frame):
            missed = message.get("ok", {}).get("missed") or ()
            found.extend(fact["seq"] for fact in missed)
            if "ev" in message and "seq" in message:
                found.append(message["seq"])
    return found


async def metric(url: str, name: str) -> float:
    """Return one sample of a worker's metrics, 0 when it is not there yet."""
    async with aiohttp.ClientSession() as http, http.get(url + "/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
    return 0.0
