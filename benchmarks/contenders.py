"""
Every server of the comparison: how it is started, and how the crowd talks to it.

Decides the settings under which each is measured (`note` says them in the report) and what an event looks like on its
wire. What is fair, for all of them: one event is one JSON object of about 200 bytes; no compression; TCP_NODELAY where
it can be said; one process on one CPU; the fastest broadcast that its documentation shows; nobody is cut off for being
behind, within 4 MiB; events come in over a WebSocket of the publisher. The peers do nothing but pass events on. The
engine does all of its work: tokens, limits per viewer, one step of the store per comment, log, bus, thinning,
recovery, metrics.
"""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgpack

from benchmarks import peers
from benchmarks.crowd import EVENT_BYTES, Crowd, Mode, crowd
from benchmarks.machine import OTHER_CPU, SERVER_CPU, pin, starting_on, tree
from benchmarks.native import HERE, NotCompiled, compiled
from benchmarks.peers import NotInstalled
from engine.store.embedded import find_servers
from loadtest.api import MerchantApi
from loadtest.tokens import SigningKey
from protocol.codes import SUBPROTOCOLS
from tests.support.service import DEMO_KEY, Service, start_service

SERVERS: Final = HERE / "servers"
TENANT: Final = "demo"
#: Staff who write in the engine's rooms. One, as everywhere else: only what one connection says has an order.
WRITERS: Final = 1
TTL_S: Final = 3600

_AT: Final = 1795000000123
#: A comment as the engine sends it, for the peers to pass on.
_COMMENT: Final = (
    f'{{"ev":"comment","comment":@,"at":{_AT},'
    '"from":{"id":"w0","name":"w0","role":"moderator"},"text":"#"}'
)


@dataclass(slots=True)
class Running:
    """A server that runs."""

    port: int
    #: Processes whose CPU time and memory are the server's.
    pids: list[int]
    mode: Mode
    #: Kind of event → template of what is published, and bytes of its mark with padding.
    templates: dict[str, tuple[str, int]]
    path: str = "/"
    publish_path: str = "/publish"
    subprotocol: str = ""
    binary_subprotocol: str = ""
    publishers: int = 1
    publishers_listen: bool = False
    store_pid: int | None = None
    joins: Callable[[int], list[str]] = field(default=lambda count: [])

    @contextlib.contextmanager
    def crowd(self, viewers: int) -> Iterator[Crowd]:
        """Run a client with so many viewers at most; the first it opens are the publishers."""
        with crowd(
            self.port,
            mode=self.mode,
            viewers=viewers,
            publishers=self.publishers,
            publishers_listen=self.publishers_listen,
            path=self.path,
            publish_path=self.publish_path,
            subprotocol=self.subprotocol,
            binary_subprotocol=self.binary_subprotocol,
            joins=self.joins(viewers),
        ) as client:
            yield client

    @property
    def publishers_apart(self) -> int:
        """Return how many connections only write."""
        return 0 if self.publishers_listen else self.publishers


@dataclass(frozen=True, slots=True)
class Contender:
    """A server as the report names it."""

    name: str
    note: str
    start: Callable[[Path], "contextlib.AbstractContextManager[Running]"]
    #: Somebody else's server, against which the engine is judged.
    is_peer: bool = True


def _fitting(template: str) -> tuple[str, int]:
    """Return the template, and the text's size that makes its event as large as all others."""
    return template, EVENT_BYTES - len(template) + len("@#") - 3


PLAIN: Final = {"chat": _fitting(_COMMENT)}


# --- the engine -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(
    folder: Path,
    *,
    settings: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    cpus: tuple[int, ...] = (SERVER_CPU,),
    store_cpus: tuple[int, ...] = (OTHER_CPU,),
) -> Iterator["EngineRunning"]:
    """Run `liveroom serve --dev` with its private store and no display cap."""
    chosen = {
        # 0 shows all: the comparison is about delivering, not about leaving out.
        "LIVEROOM_CHAT_PER_S_MAX": "0",
        # The crowd says nothing once it has joined.
        "LIVEROOM_IDLE_TIMEOUT_MS": "3600000",
        "LIVEROOM_JOIN_TIMEOUT_MS": "60000",
        "LIVEROOM_DRAIN_SPREAD_MS": "0",
        # One writer says what hundreds would.
        "LIVEROOM_COMMANDS_PER_S": "1000",
        "LIVEROOM_COMMANDS_BURST": "1000",
        **(settings or {}),
    }
    with starting_on(*cpus):
        service = start_service(folder, "--dev", "--log-level", "warning", *arguments, settings=chosen)
    try:
        data = folder / "data"
        [store] = [found for found in find_servers(data) if not found.is_fork]
        pin(store.pid, *store_cpus)
        yield EngineRunning(service, store.pid, SigningKey.read(data / "dev-key.json", TENANT))
    finally:
        service.terminate()
        try:
            service.wait()
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.wait()


class EngineRunning:
    """A running engine, its store, and what is needed to enter its rooms."""

    def __init__(self, service: Service, store_pid: int, key: SigningKey) -> None:
        self.service = service
        self.store_pid = store_pid
        self.key = key
        self.port = int(service.url.rpartition(":")[2])

    @property
    def pids(self) -> list[int]:
        """Return the engine's processes, without its store."""
        return [pid for pid in tree(self.service.process.pid) if pid not in tree(self.store_pid)]

    def api(self) -> MerchantApi:
        """Return the merchant's side."""
        return MerchantApi(self.service.url, DEMO_KEY)

    async def open_room(self, room: str) -> None:
        """Make a room and open it."""
        async with self.api() as api:
            await api.create_room(room, "Benchmark")

    def join(self, room: str, viewer: str, role: str = "viewer") -> str:
        """Return a `room.join` as JSON."""
        token = self.key.sign(room, viewer, role, viewer, TTL_S)
        return f'{{"cmd":"room.join","id":1,"room":"{room}","token":"{token}"}}'

    def joins(
        self, room: str, count: int, *, writers: int = WRITERS, prefix: str = "v", codec: str = "json"
    ) -> list[str]:
        """Return the joins of a crowd: first the writers, who are moderators, then the viewers."""
        staff = [self.join(room, f"w{number}", "moderator") for number in range(min(writers, count))]
        viewers = [self.join(room, f"{prefix}{number}") for number in range(len(staff), count)]
        if codec == "msgpack":
            viewers = [msgpack.packb(json.loads(join)).hex() for join in viewers]
        return staff + viewers

    def running(self, room: str, *, codec: str = "json") -> Running:
        """Return the engine as a contender, for one room."""
        # Keys are 8 characters or more.
        comment = '{"cmd":"comment.send","id":@,"key":"comment-@","text":"#"}'
        notice = '{"cmd":"notice.set","id":@,"key":"notice--@","text":"#"}'
        return Running(
            port=self.port,
            pids=self.pids,
            mode="liveroom",
            path="/ws",
            publish_path="/ws",
            subprotocol=SUBPROTOCOLS["json"],
            # The writers speak JSON in any case.
            binary_subprotocol=SUBPROTOCOLS["msgpack"] if codec == "msgpack" else "",
            publishers=WRITERS,
            publishers_listen=True,
            store_pid=self.store_pid,
            # What the engine adds around the text makes the event as large as the peers'.
            templates={"chat": (comment, PLAIN["chat"][1]), "fact": (notice, EVENT_BYTES - 69)},
            joins=lambda count: self.joins(room, count, codec=codec),
        )


@contextlib.contextmanager
def _engine(folder: Path) -> Iterator[Running]:
    with engine(folder) as running:
        asyncio.run(running.open_room("bench"))
        yield running.running("bench")


# --- the others -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _serving(
    command: list[str], *, environment: dict[str, str] | None = None, error_file: Path
) -> Iterator["subprocess.Popen[str]"]:
    """Run a server on the server's CPU for as long as the block lasts."""
    with error_file.open("w") as errors, starting_on(SERVER_CPU):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **(environment or {})},
        )
    try:
        yield process
    finally:
        processes = tree(process.pid)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in reversed(processes):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait(5)
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def _announcing(
    command: list[str],
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    socketio: bool = False,
) -> Iterator[Running]:
    """Run a server that prints its port, and speaks plain WebSocket or Socket.IO."""
    errors = folder / "errors.log"
    with _serving(command, environment=environment, error_file=errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            process.wait(5)
            raise NotInstalled(f"did not start: {errors.read_text('utf-8').strip()[-300:]}")
        running = Running(port=int(line), pids=tree(process.pid), mode="plain", templates=PLAIN)
        if socketio:
            running.mode = "socketio"
            # The publisher is a connection like any other.
            running.path = running.publish_path = "/socket.io/?EIO=4&transport=websocket"
            running.templates = {"chat": (f'42["publish",{_COMMENT}]', PLAIN["chat"][1])}
        yield running


def _bare(folder: Path, *options: str) -> "contextlib.AbstractContextManager[Running]":
    return _announcing([sys.executable, "-m", "benchmarks.servers.bare_uvloop", *options], folder)


def _bare_c(folder: Path) -> "contextlib.AbstractContextManager[Running]":
    try:
        return _announcing([str(compiled(SERVERS / "bare_send.c"))], folder)
    except NotCompiled as reason:
        raise NotInstalled(str(reason)) from None


def _node(folder: Path, package: str, script: str) -> "contextlib.AbstractContextManager[Running]":
    modules = peers.npm(package)
    node = shutil.which("node")
    assert node is not None
    environment = {"NODE_PATH": str(modules), "NODE_ENV": "production"}
    command = [node, str(SERVERS / script)]
    return _announcing(command, folder, environment=environment, socketio=package == "socket.io")


def _python_socketio(folder: Path) -> "contextlib.AbstractContextManager[Running]":
    packages = peers.pip("python-socketio")
    return _announcing(
        [sys.executable, str(SERVERS / "python_socketio_server.py")],
        folder,
        environment={"PYTHONPATH": str(packages)},
        socketio=True,
    )


def _websockets(folder: Path) -> "contextlib.AbstractContextManager[Running]":
    return _announcing([sys.executable, "-m", "benchmarks.servers.websockets_server"], folder)


_NGINX: Final = """\
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/errors.log warn;
{user}
worker_rlimit_nofile 20000;
events {{ worker_connections 18000; }}
http {{
  access_log off;
  tcp_nodelay on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /publish {{
      nchan_publisher websocket;
      nchan_channel_id room;
      nchan_message_buffer_length 100;
      nchan_message_timeout 10s;
    }}
    location = / {{
      nchan_subscriber websocket;
      nchan_channel_id room;
      nchan_subscriber_first_message newest;
      nchan_websocket_ping_interval 0;
    }}
  }}
}}
"""


@contextlib.contextmanager
def _nchan(folder: Path) -> Iterator[Running]:
    root = peers.debian()
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    # A worker of a master that is root would be somebody who may not write here.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    configuration = folder / "nginx.conf"
    module = next(root.glob("usr/lib/nginx/modules/ngx_nchan_module.so"))
    configuration.write_text(_NGINX.format(module=module, folder=folder, port=port, user=user))
    errors = folder / "start.log"
    program = str(root / "usr/sbin/nginx")
    command = [program, "-p", str(folder), "-e", str(folder / "errors.log"), "-c", str(configuration)]
    with _serving(command, error_file=errors) as process:
        _wait_for(port, process, errors)
        yield Running(port=port, pids=tree(process.pid), mode="plain", templates=PLAIN)


def _wait_for(port: int, process: "subprocess.Popen[str]", errors: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise NotInstalled(f"did not start: {errors.read_text('utf-8').strip()[-300:]}")


@contextlib.contextmanager
def started(contender: Contender) -> Iterator[Running]:
    """
    Run a contender in a folder of its own.

    Raises:
        NotInstalled: If it is not to be had here.
    """
    # On a disk: memory would make the store's `appendfsync always` free.
    with (
        tempfile.TemporaryDirectory(prefix="liveroom-compare-") as folder,
        contender.start(Path(folder)) as running,
    ):
        yield running


ENGINE: Final = Contender(
    "this engine",
    "`liveroom serve --dev`, one worker, private Valkey with `appendfsync always` on the other CPU; every viewer joins "
    "with a token of their own; comments and notices by one moderator over WebSocket. `chat_per_s_max = 0` (no "
    "display cap), `commands_per_s = 1000` (one writer for many), longer idle and join timeouts; all else as shipped.",
    _engine,
    is_peer=False,
)
BARE: Final = Contender(
    "bare transport",
    "`servers/bare_uvloop.py`: uvloop, one `transport.write` of a shared frame per viewer and event.",
    _bare,
    is_peer=False,
)
BARE_COALESCING: Final = Contender(
    "bare transport, coalescing",
    "The same with the engine's cadence and slices: what the engine would cost if it did nothing but send.",
    lambda folder: _bare(folder, "--coalesce"),
    is_peer=False,
)
BARE_C: Final = Contender(
    "C `send` loop", "`servers/bare_send.c`: one `send()` per viewer and event.", _bare_c, is_peer=False
)
CONTENDERS: Final = (
    ENGINE,
    BARE,
    BARE_COALESCING,
    BARE_C,
    Contender(
        "uWebSockets.js",
        f"npm `uwebsockets` {peers.NPM['uwebsockets']}, its publish/subscribe.",
        lambda folder: _node(folder, "uwebsockets", "uws_server.js"),
    ),
    Contender(
        "ws",
        f"npm `ws` {peers.NPM['ws']}, a loop over `send`.",
        lambda folder: _node(folder, "ws", "ws_server.js"),
    ),
    Contender(
        "Socket.IO",
        f"npm `socket.io` {peers.NPM['socket.io']}, WebSocket only, `broadcast.emit`.",
        lambda folder: _node(folder, "socket.io", "socketio_server.js"),
    ),
    Contender("websockets", "PyPI `websockets`, `broadcast()` on uvloop.", _websockets),
    Contender(
        "nchan",
        "nginx with nchan from Debian, one worker; CPU and memory include the idle master.",
        _nchan,
    ),
    Contender(
        "python-socketio",
        f"PyPI `python-socketio` {peers.PIP['python-socketio']} on aiohttp and uvloop, WebSocket only, `emit`.",
        _python_socketio,
    ),
)
