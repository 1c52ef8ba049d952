"""
A liar between viewers and a real server.

Passes HTTP and WebSocket on, both ways, and shows everything to a planted bug (`bugs.py`) that may change it. The
server behind is the real one and stays right; what its clients see is what a server with that bug would have them see.
Knows the frames of docs/protocol.md in JSON, and no more of it than who is asking.
"""

import asyncio
import base64
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import orjson
from aiohttp import WSMsgType, web

MESSAGE_BYTES_MAX = 4 << 20
PATIENCE_S = 30.0
#: Headers that belong to one connection and are not passed on.
_OWN_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "content-encoding"})

Message = dict[str, Any]


class Wire:
    """One connection of one viewer."""

    def __init__(self, client: web.WebSocketResponse) -> None:
        self._client = client
        self.tenant = ""
        self.viewer = ""
        #: Whether the join was accepted.
        self.joined = False
        #: Id → command, while it has no reply.
        self.pending: dict[int, Message] = {}

    def learn(self, command: Message) -> None:
        """Take note of a command on its way in."""
        self.pending[command["id"]] = command
        if command["cmd"] == "room.join":
            body = command["token"].split(".")[1]
            claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            self.tenant, self.viewer = claims["tenant"], claims["sub"]

    async def say(self, messages: list[Message]) -> None:
        """Send messages to the viewer."""
        if messages:
            with contextlib.suppress(ConnectionError):
                await self._client.send_str(orjson.dumps(messages).decode())


class Liar(Protocol):
    """What a planted bug does with what passes. Every method may return what it was given."""

    def asked(self, command: Message) -> Message:
        """Change a command on its way in."""
        ...

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        """Change the messages of a frame on its way out."""
        ...

    def told(self, path: str, body: Any) -> Any:
        """Change an answer of the merchant API."""
        ...

    def strays(self) -> list[tuple[Wire, list[Message]]]:
        """Return frames to be sent where nobody should get them; asked after each frame."""
        ...


class LyingProxy:
    """Listens on a port of 127.0.0.1 and passes on to `origin`, such as http://127.0.0.1:8080."""

    def __init__(self, origin: str, liar: Liar) -> None:
        self._origin = origin
        self._liar = liar
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.target = ""

    async def start(self) -> None:
        """Begin to listen."""
        # Connections are not used twice: one that has carried HTTP does not become a WebSocket.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        app = web.Application(client_max_size=MESSAGE_BYTES_MAX)
        app.router.add_get("/ws", self._websocket)
        app.router.add_route("*", "/{path:.*}", self._http)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.target = f"ws://{host}:{port}"

    async def stop(self) -> None:
        """Cut everything."""
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _http(self, request: web.Request) -> web.Response:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        async with self._session.request(
            request.method, self._origin + request.path_qs, headers=headers, data=await request.read()
        ) as response:
            body = await response.read()
            if response.status == 200 and response.content_type == "application/json":
                body = orjson.dumps(self._liar.told(request.path, orjson.loads(body)))
            return web.Response(status=response.status, body=body, content_type=response.content_type)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        assert self._session is not None
        asked = request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in asked.split(",") if name.strip()]
        async with self._session.ws_connect(
            f"{self._origin}/ws", protocols=protocols, max_msg_size=MESSAGE_BYTES_MAX, compress=0
        ) as server:
            client = web.WebSocketResponse(
                protocols=[server.protocol] if server.protocol else [],
                compress=False,
                max_msg_size=MESSAGE_BYTES_MAX,
            )
            await client.prepare(request)
            wire = Wire(client)
            ways = {
                asyncio.ensure_future(self._inward(wire, client, server)),
                asyncio.ensure_future(self._outward(wire, client, server)),
            }
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            return client

    async def _inward(
        self, wire: Wire, client: web.WebSocketResponse, server: aiohttp.ClientWebSocketResponse
    ) -> None:
        async for frame in client:
            if frame.type is not WSMsgType.TEXT:
                continue
            entry = orjson.loads(frame.data)
            commands = entry if isinstance(entry, list) else [entry]
            for command in commands:
                wire.learn(command)
            changed = [self._liar.asked(command) for command in commands]
            with contextlib.suppress(ConnectionError):
                await server.send_str(orjson.dumps(changed).decode())
        if client.close_code == aiohttp.WSCloseCode.OK:
            await server.close(code=1000)

    async def _outward(
        self, wire: Wire, client: web.WebSocketResponse, server: aiohttp.ClientWebSocketResponse
    ) -> None:
        async for frame in server:
            if frame.type is not WSMsgType.TEXT:
                continue
            messages = orjson.loads(frame.data)
            for message in messages:
                if isinstance(message.get("ok"), dict) and "epoch" in message["ok"]:
                    wire.joined = True
            said = self._liar.said(wire, messages)
            for message in messages:
                if "re" in message:
                    wire.pending.pop(message["re"], None)
            await wire.say(said)
            for other, stray in self._liar.strays():
                await other.say(stray)
        if server.close_code is not None:
            await client.close(code=server.close_code)


class _ProxyThread(threading.Thread):
    """
    A proxy with an event loop of its own.

    The tests' loop judges whole runs and looks at its own every step (asyncio's debug mode); frames must not wait for
    that.
    """

    def __init__(self, origin: str, liar: Liar) -> None:
        super().__init__(daemon=True)
        self.proxy = LyingProxy(origin, liar)
        self.listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()

    def run(self) -> None:
        """Serve until told to end."""
        asyncio.run(self._serve(), debug=False)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.proxy.start()
        self.listening.set()
        await self._over.wait()
        await self.proxy.stop()

    def end(self) -> None:
        """Cut everything and wait until the thread is over."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()


@contextlib.asynccontextmanager
async def lying(origin: str, liar: Liar) -> AsyncIterator[LyingProxy]:
    """Run a lying proxy for as long as the block lasts. What it has done to `liar` may be looked at afterwards."""
    thread = _ProxyThread(origin, liar)
    thread.start()
    await asyncio.to_thread(thread.listening.wait, PATIENCE_S)
    try:
        yield thread.proxy
    finally:
        await asyncio.to_thread(thread.end)
