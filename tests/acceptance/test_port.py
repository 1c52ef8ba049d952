"""One port, for real: sockets, both event loops, WebSocket beside HTTP, and every way a peer can be late."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engine.gateway.listener import Listener
from engine.gateway.transport import WRITE_BUFFER_BYTES_HIGH, Timeouts, Transport, build_frame

#: Long enough to hide nothing: a test that waits this long has failed.
PATIENCE_S = 20.0
QUICK = Timeouts(
    handshake_timeout_ms=200,
    join_timeout_ms=200,
    idle_timeout_ms=60_000,
    close_timeout_ms=200,
    sweep_period_ms=20,
)


class Echo:
    """Sends every message back, and remembers its end."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.transport.joined = True
        self.writable: asyncio.Queue[bool] = asyncio.Queue()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def on_message(self, data: bytes, is_text: bool) -> None:
        self.transport.write(build_frame(data, text=is_text))

    def on_writable(self, writable: bool) -> None:
        self.writable.put_nowait(writable)

    def on_closed(self, code: int, reason: str) -> None:
        # A second call would raise: a result is set once.
        self.closed.set_result((code, reason))


class Port:
    """A listener on a free port, with the sessions it opened."""

    def __init__(self, listener: Listener, address: tuple[str, int]) -> None:
        self.listener, self.address = listener, address
        self.sessions: list[Echo] = []
        #: The same sessions, to be waited for.
        self.opened: asyncio.Queue[Echo] = asyncio.Queue()

    def connect(self, target: str = "/ws", **options: Any) -> connect:
        options = {"compression": None, "open_timeout": PATIENCE_S, **options}
        return connect(f"ws://{self.address[0]}:{self.address[1]}{target}", **options)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)


async def hello(request: web.BaseRequest) -> web.Response:
    body = await request.read()
    return web.Response(text=f"{request.method} {request.path} {len(body)}")


@contextlib.asynccontextmanager
async def open_port(
    session: Callable[[Transport], Echo] = Echo, *, http: bool = True, **options: Any
) -> AsyncIterator[Port]:
    def open_session(transport: Transport) -> Echo:
        opened = session(transport)
        port.sessions.append(opened)
        port.opened.put_nowait(opened)
        return opened

    http_server = web.Server(hello) if http else None
    listener = Listener(open_session=open_session, http_server=http_server, **options)
    port = Port(listener, await listener.start("127.0.0.1"))
    try:
        yield port
    finally:
        await listener.stop()
        assert not listener.transports
        if http_server is not None:
            await http_server.shutdown(PATIENCE_S)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run a scenario to its end on one of the two loops, in debug mode."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_scenario(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(debug=True, loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(scenario(), PATIENCE_S))

    return run_scenario


Run = Callable[[Callable[[], Awaitable[None]]], None]


async def close_of(client: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code


def test_websocket_and_http_share_the_port(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port, port.connect() as client, aiohttp.ClientSession() as http:
            await client.send("多少钱")
            assert await client.recv() == "多少钱"
            await client.send(b"\x00\xff")
            assert await client.recv() == b"\x00\xff"
            base = f"http://{port.address[0]}:{port.address[1]}"
            async with http.get(f"{base}/v1/rooms") as answer:
                assert (answer.status, await answer.text()) == (200, "GET /v1/rooms 0")
            # Larger than one read, on a connection that is kept alive.
            async with http.post(f"{base}/v1/rooms", data=b"x" * 1_000_000) as answer:
                assert await answer.text() == "POST /v1/rooms 1000000"
            # The path alone is not enough: without an upgrade it is a web request.
            async with http.get(f"{base}/ws") as answer:
                assert await answer.text() == "GET /ws 0"
            assert len(port.sessions) == len(port.listener.transports) == 1

    run(scenario)


def test_small_frames_are_not_held_back(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port, port.connect() as client:
            await client.send("x")
            await client.recv()
            peer = port.sessions[0].transport._tcp.get_extra_info("socket")
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert port.sessions[0].transport.remote_address() == "127.0.0.1"

    run(scenario)


@pytest.mark.parametrize(
    ("offered", "chosen", "codec_name"),
    [
        (None, None, "json"),
        (["liveroom.v1.json"], "liveroom.v1.json", "json"),
        (["liveroom.v1.msgpack"], "liveroom.v1.msgpack", "msgpack"),
        (["liveroom.v1.msgpack", "liveroom.v1.json"], "liveroom.v1.msgpack", "msgpack"),
        (["liveroom.v9.cbor", "liveroom.v1.json", "liveroom.v1.msgpack"], "liveroom.v1.json", "json"),
    ],
)
async def test_subprotocol_picks_the_codec(
    offered: list[str] | None, chosen: str | None, codec_name: str
) -> None:
    async with open_port() as port, port.connect(subprotocols=offered) as client:
        assert client.subprotocol == chosen
        assert ("Sec-WebSocket-Protocol" in client.response.headers) == (chosen is not None)
        assert port.sessions[0].transport.codec_name == codec_name


async def test_only_unknown_subprotocols_are_refused() -> None:
    async with open_port() as port:
        with pytest.raises(InvalidStatus) as refusal:
            await port.connect(subprotocols=["liveroom.v9.json"])
        assert refusal.value.response.status_code == 400
        assert not port.sessions


@pytest.mark.parametrize("target", ["/ws?room=r_88", "/ws"])
async def test_query_is_ignored(target: str) -> None:
    async with open_port() as port, port.connect(target) as client:
        await client.send("x")
        assert await client.recv() == "x"


@pytest.mark.parametrize("target", ["/", "/ws/", "/wss", "/ws/x", "/WS"])
async def test_other_paths_are_not_ours(target: str) -> None:
    async with open_port(http=False) as port:
        with pytest.raises(InvalidStatus) as refusal:
            await port.connect(target)
        assert refusal.value.response.status_code == 404


ONE_SHOP = frozenset({"https://shop.example"})


@pytest.mark.parametrize("origin", ["https://shop.example", None])
async def test_own_origin_and_no_origin_are_let_in(origin: str | None) -> None:
    async with open_port(allowed_origins=ONE_SHOP) as port, port.connect(origin=origin) as client:
        await client.send("x")
        assert await client.recv() == "x"


async def test_foreign_origin_is_refused() -> None:
    async with open_port(allowed_origins=ONE_SHOP) as port:
        with pytest.raises(InvalidStatus) as refusal:
            await port.connect(origin="https://shop.example.evil.example")
        assert refusal.value.response.status_code == 403


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_handshake_in_single_bytes_with_a_frame_behind_it(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            reader, writer = await port.raw()
            head = HANDSHAKE + b"\x81\x81\x00\x00\x00\x00x"
            for at in range(len(HANDSHAKE) - 1):
                writer.write(head[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(head[len(HANDSHAKE) - 1 :])

            answer = await reader.readuntil(b"\r\n\r\n")

            assert answer.startswith(b"HTTP/1.1 101 ")
            # The key and its answer are RFC 6455's own example, §1.3.
            assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
            assert await reader.readexactly(3) == b"\x81\x01x"
            writer.close()
            await port.sessions[0].closed

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 400),
        (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), 400),
        (HANDSHAKE.replace(b"Connection: Upgrade\r\n", b""), 426),
        (HANDSHAKE.replace(b"Host: x", b"Ho st: x"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Content-Length: 5"), 400),
        (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
        (HANDSHAKE.replace(b"Host: x", b"Host: " + b"x" * 17_000), 431),
        (HANDSHAKE.replace(b"Host: x", b"Host: " + b"x" * 10_000), 431),
        (b"GET /v1 HTTP/1.1\r\nX: " + b"x" * 17_000, 431),
    ],
)
def test_bad_handshake_is_refused_and_closed(run: Run, request_bytes: bytes, status: int) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            reader, writer = await port.raw()
            writer.write(request_bytes)

            answer = await reader.read()

            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert not port.sessions
            writer.close()

    run(scenario)


def test_slow_first_request_is_timed_out(run: Run) -> None:
    async def scenario() -> None:
        async with open_port(timeouts=QUICK) as port:
            reader, writer = await port.raw()
            writer.write(HANDSHAKE[:-1])

            answer = await reader.read()

            assert answer.startswith(b"HTTP/1.1 408 ")
            writer.close()

    run(scenario)


class Stranger(Echo):
    """Never joins."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        transport.joined = False


def test_without_a_join_the_connection_is_closed_with_4401(run: Run) -> None:
    async def scenario() -> None:
        async with open_port(Stranger, timeouts=QUICK) as port, port.connect() as client:
            assert await close_of(client) == 4401
            assert (await port.sessions[0].closed)[0] == 4401

    run(scenario)


def test_silence_is_closed_with_4503_and_pings_are_not_silence(run: Run) -> None:
    async def scenario() -> None:
        timeouts = Timeouts(idle_timeout_ms=400, sweep_period_ms=20)
        async with open_port(timeouts=timeouts) as port, port.connect(ping_interval=0.1) as alive:
            async with port.connect(ping_interval=None) as silent:
                assert await close_of(silent) == 4503
            await alive.send("still here")
            assert await alive.recv() == "still here"

    run(scenario)


def test_close_that_is_not_answered_ends_anyway(run: Run) -> None:
    async def scenario() -> None:
        async with open_port(timeouts=QUICK) as port:
            reader, writer = await port.raw()
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            session = port.sessions[0]

            session.transport.close(4500, "draining")

            assert await session.closed == (4500, "draining")
            assert await reader.readexactly(2 + 2 + 8) == b"\x88\x0a\x11\x94draining"
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_cut_connection_is_told_once_as_1006(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            reader, writer = await port.raw()
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")

            writer.transport.abort()

            assert await port.sessions[0].closed == (1006, "")

    run(scenario)


def test_close_code_reaches_a_peer_that_is_still_sending(run: Run) -> None:
    """Closing with unread data would reset the connection and lose the close frame."""

    async def scenario() -> None:
        async with open_port() as port:
            reader, writer = await port.raw()
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            # A frame of 4 MB is announced, and all of it is sent before anything is read.
            writer.write(b"\x82\xff" + (4_000_000).to_bytes(8, "big") + bytes(4) + bytes(4_000_000))
            await writer.drain()

            first, size, code = *(await reader.readexactly(2)), await reader.readexactly(2)

            assert (first, size > 2, int.from_bytes(code, "big")) == (0x88, True, 1009)
            assert (await port.sessions[0].closed)[0] == 1009
            writer.close()

    run(scenario)


def test_ping_flood_by_a_peer_that_does_not_read_stays_bounded(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            flood = socket.create_connection(port.address)
            flood.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(flood, HANDSHAKE)
            pings = (b"\x89\xfd" + bytes(4 + 125)) * 1_000
            sender = asyncio.ensure_future(flood_with(flood, pings))
            session = await port.opened.get()
            assert await session.writable.get() is False

            # Now the kernel's buffers fill up and nothing more is read, so the sender gets stuck too.
            unsent = session.transport.unsent_bytes()
            assert unsent <= WRITE_BUFFER_BYTES_HIGH + 256 * 1024
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.writable.get(), 0.2)
            assert session.transport.unsent_bytes() <= unsent

            # Once the peer reads, the connection goes on.
            while not session.transport.writable:
                await loop.sock_recv(flood, 1 << 20)
            assert await session.writable.get() is True
            sender.cancel()
            flood.close()
            await session.closed

    run(scenario)


async def flood_with(flood: socket.socket, pings: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            await asyncio.get_running_loop().sock_sendall(flood, pings)


class Buggy(Echo):
    """Falls over its first message."""

    def on_message(self, data: bytes, is_text: bool) -> None:
        raise ZeroDivisionError("a bug")


def test_bug_in_a_session_hurts_only_its_connection(run: Run) -> None:
    async def scenario() -> None:
        kinds = iter([Buggy, Echo])
        async with (
            open_port(lambda transport: next(kinds)(transport)) as port,
            port.connect() as hurt,
            port.connect() as well,
        ):
            await hurt.send("x")
            assert await close_of(hurt) == 1011
            await well.send("x")
            assert await well.recv() == "x"

    run(scenario)


async def test_compression_is_off_unless_asked_for() -> None:
    async with open_port() as port, port.connect(compression="deflate") as client:
        assert "Sec-WebSocket-Extensions" not in client.response.headers
    async with open_port(compression=True) as port, port.connect(compression="deflate") as client:
        extension = client.response.headers["Sec-WebSocket-Extensions"]
        assert "server_no_context_takeover" in extension
        assert "client_no_context_takeover" in extension
        await client.send("x" * 8_000)
        assert await client.recv() == "x" * 8_000


def test_stop_accepting_keeps_what_is_open(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port, port.connect() as client:
            port.listener.stop_accepting()
            with pytest.raises(OSError):
                await port.raw()
            await client.send("x")
            assert await client.recv() == "x"

    run(scenario)


def test_stop_drops_every_connection_and_tells_every_session(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            clients = [await port.connect() for _ in range(5)]
            _, arriving = await port.raw()
            arriving.write(b"GET ")
            await arriving.drain()

            await port.listener.stop()

            assert [session.closed.result()[0] for session in port.sessions] == [1006] * 5
            for client in clients:
                assert await close_of(client) == 1006
            arriving.close()

    run(scenario)


def test_bound_socket_can_be_passed_in(run: Run) -> None:
    async def scenario() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        listener = Listener(open_session=Echo)
        address = await listener.start(sock=bound)
        assert address == bound.getsockname()
        async with connect(f"ws://{address[0]}:{address[1]}/ws") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await listener.stop()

    run(scenario)


def test_two_listeners_can_share_a_port(run: Run) -> None:
    async def scenario() -> None:
        first, second = Listener(open_session=Echo), Listener(open_session=Echo)
        address = await first.start("127.0.0.1", reuse_port=True)
        assert await second.start(*address, reuse_port=True) == address
        await first.stop()
        async with connect(f"ws://{address[0]}:{address[1]}/ws") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await second.stop()

    run(scenario)


def test_kernel_takes_little_for_a_client_that_does_not_read(run: Run) -> None:
    """Otherwise its send buffer grows to megabytes before a slow viewer is noticed."""

    async def scenario() -> None:
        async with open_port() as port:
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(slow, port.address)
            async with port.connect(sock=slow, max_queue=1, ping_interval=None):
                session = await port.opened.get()
                written = 0
                while not session.transport.unsent_bytes():
                    session.transport.write(build_frame(b"x" * 1_000, text=False))
                    written += 1_000
                    assert written < 1024 * 1024, "the kernel takes it all"
                    await asyncio.sleep(0)
                session.transport.abort()

    run(scenario)


def test_those_who_wait_to_be_accepted_are_served_before_the_socket_closes(run: Run) -> None:
    """The kernel has told them that they are connected; closing the socket on them would reset them."""

    async def scenario() -> None:
        async with open_port() as port:
            # Connected without a turn of the loop in between, so nobody has accepted them.
            waiting = [socket.create_connection(port.address) for _ in range(20)]

            closing = asyncio.ensure_future(port.listener.accept_rest(PATIENCE_S))
            url = f"ws://{port.address[0]}:{port.address[1]}/ws"
            for sock in waiting:
                sock.setblocking(False)
            clients = await asyncio.gather(*(connect(url, sock=sock, compression=None) for sock in waiting))
            await closing

            for client in clients:
                await client.send("noch da")
                assert await client.recv() == "noch da"
                await client.close()
            with pytest.raises(ConnectionRefusedError):
                await port.raw()

    run(scenario)


def test_connection_that_asks_for_nothing_does_not_hold_up_the_closing(run: Run) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            _, silent = await port.raw()

            async with asyncio.timeout(PATIENCE_S):
                await port.listener.accept_rest(0.05)

            silent.close()
            await silent.wait_closed()

    run(scenario)


@contextlib.contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Leave this process no more than `free` descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 200, hard))
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize("free", [0, 1, 3])
def test_closing_ends_when_there_is_no_descriptor_for_those_who_wait(run: Run, free: int) -> None:
    async def scenario() -> None:
        async with open_port() as port:
            waiting = [socket.create_connection(port.address) for _ in range(5)]

            with few_descriptors(free):
                await port.listener.accept_rest(0.05)

            for sock in waiting:
                sock.close()
            with pytest.raises(ConnectionRefusedError):
                await port.raw()

    run(scenario)
