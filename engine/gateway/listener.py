"""
One port: accepts sockets, reads the first request's headers, hands each socket to who speaks its language.

Decides which of two protocols a socket gets: `GET /ws` with `Upgrade: websocket` is shaken hands with here
and becomes a `Transport`; everything else becomes aiohttp's, with the bytes read so far. Also runs the one
sweep timer that enforces every connection's timeouts.

Does not know rooms or tokens (`open_session` makes a session, the session does the rest), and does not look
after HTTP connections once handed over: their limits and their end belong to the owner of `http_server`.
Nothing here logs a request's path, because people put secrets into query strings.

Bounds: an arriving socket has 16 KiB of headers and 10 s, then it is refused with 431 or 408; the kernel holds at most
64 KiB of a connection's unsent bytes.

Source: RFC 6455 §4.2; docs/protocol.md, "Connection".
"""

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, cast

import structlog
from aiohttp import web
from websockets.datastructures import Headers
from websockets.exceptions import HeaderLineTooLong, NegotiationError, RequestLineTooLong, TooManyHeaders
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.typing import Origin, Subprotocol

from engine.gateway.transport import CodecName, Session, Timeouts, Transport, core_log
from protocol.codes import SUBPROTOCOLS
from protocol.limits import HANDSHAKE_HEADERS_BYTES_MAX

_END_OF_HEADERS: Final = b"\r\n\r\n"
#: The path is exactly `/ws`; a query is ignored.
_WEBSOCKET_LINE: Final = re.compile(rb"GET /ws(?:\?[^ \r\n]*)? HTTP/1\.[01]\r\n")
_UPGRADE_HEADER: Final = re.compile(rb"\r\nupgrade:[^\r\n]*websocket", re.IGNORECASE)

#: The request line of a WebSocket, and headers as clients write them: ASCII, one blank after the colon or none.
_REQUEST_LINE: Final = re.compile(rb"(GET) (/[\x21-\x7e]*) (HTTP/1\.[01])\r\n")
_HEADER: Final = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+: ?[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n"
_HEADERS: Final = re.compile(rb"(?:" + _HEADER + rb"){1,32}\r\n")
#: A request that is longer or has more headers is the library's to judge.
_PLAIN_REQUEST_BYTES_MAX: Final = 4096

#: By subprotocol; None is a client that offered no subprotocol.
_CODECS: Final[dict[str | None, CodecName]] = {
    None: "json",
    SUBPROTOCOLS["json"]: "json",
    SUBPROTOCOLS["msgpack"]: "msgpack",
}

#: Unsent bytes the kernel takes from us for one connection before we are told to wait.
KERNEL_UNSENT_BYTES_MAX: Final = 64 * 1024

#: Why the kernel gives no connection, and gives none the next moment either.
_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# No context is kept between messages in either direction: two contexts would cost a viewer 64 KiB and more.
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)

_log = structlog.stdlib.get_logger(__name__)


class _Handshake(ServerProtocol):
    """The library's handshake rules. One serves all connections: it keeps nothing the next would see."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Pick the first known one in the client's order. None offered is fine; only strange ones are not."""
        for subprotocol in subprotocols:
            if subprotocol in _CODECS:
                return subprotocol
        if subprotocols:
            raise NegotiationError(f"unknown subprotocol; known: {', '.join(SUBPROTOCOLS.values())}")
        return None


class Listener:
    """One listening port and every connection that came through it."""

    def __init__(
        self,
        *,
        open_session: Callable[[Transport], Session],
        http_server: web.Server | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
        compression: bool = False,
        allowed_origins: frozenset[str] | None = None,
    ) -> None:
        """
        Prepare; nothing listens before `start`.

        Args:
            open_session: Called for every accepted handshake, on the loop's thread.
            http_server: Serves all that is not a WebSocket; None answers 404. Shut down by its owner.
            timeouts: For every connection.
            compression: Negotiate permessage-deflate with clients that offer it.
            allowed_origins: Values of `Origin` to accept, others get 403; None accepts all. The check
                protects people's browsers; a client that sends no `Origin` is no browser and is let in.
        """
        self.timeouts = timeouts
        #: Accepted WebSockets until their TCP connection is gone.
        self.transports: set[Transport] = set()
        self._open_session = open_session
        self._http_server = http_server
        origins = None if allowed_origins is None else [*map(Origin, sorted(allowed_origins)), None]
        self._handshake = _Handshake(
            extensions=[_DEFLATE] if compression else None, origins=origins, logger=core_log
        )
        self._arrivals: set[_Arrival] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        #: Set while `stop` waits for the last connection.
        self._emptied: asyncio.Future[None] | None = None
        #: Set while `accept_rest` waits for the last request.
        self._all_asked: asyncio.Future[None] | None = None

    async def start(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        backlog: int = 4096,
        reuse_port: bool = False,
    ) -> tuple[str, int]:
        """
        Listen on `host` and `port`, or on a bound socket.

        Args:
            host: An address; a name with several addresses would get a port for each.
            port: 0 lets the kernel pick.
            sock: Instead of `host` and `port`; owned by the listener from now on.
            backlog: Connections the kernel holds until they are accepted: a join storm fits. The kernel cuts
                it at net.core.somaxconn.
            reuse_port: Let other processes listen on the same port (`SO_REUSEPORT`).

        Returns:
            The bound address and port.

        Raises:
            OSError: If the address cannot be bound.

        Cancelling this is safe: nothing listens.
        """
        assert self._server is None, "started twice"
        loop = self._loop = asyncio.get_running_loop()
        if sock is not None:
            server = await loop.create_server(self._arrive, sock=sock, backlog=backlog)
        else:
            server = await loop.create_server(
                self._arrive, host, port, backlog=backlog, reuse_port=reuse_port or None
            )
        self._server = server
        for listening in server.sockets:
            _hold_back(listening.fileno())
        self._schedule_sweep(loop)
        address = server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    def stop_accepting(self) -> None:
        """Close the listening socket. Open connections live on, and are swept as before."""
        if self._server is not None:
            self._server.close()

    async def accept_rest(self, patience_s: float) -> None:
        """
        Close the listening socket, after accepting those who are connected already: the kernel would reset them.

        Returns when each of them has sent its request, or after `patience_s`. Where another process holds the same
        socket, it goes on accepting.
        """
        if self._server is None or not self._server.sockets:
            return
        loop = asyncio.get_running_loop()
        try:
            listening = socket.socket(fileno=os.dup(self._server.sockets[0].fileno()))
        except OSError as error:
            if error.errno not in _OUT_OF_ROOM:
                raise
            self.stop_accepting()  # There is no descriptor for anybody who waits either.
        else:
            with listening:
                listening.setblocking(False)
                self.stop_accepting()
                await self._accept_waiting(loop, listening)
        if self._arrivals:
            self._all_asked = loop.create_future()
            await asyncio.wait([self._all_asked], timeout=patience_s)

    async def _accept_waiting(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_ROOM:
                    return  # The next moment would say the same, for ever.
                continue  # That one has gone away again.
            await loop.connect_accepted_socket(self._arrive, connection)

    async def stop(self) -> None:
        """
        Close the listening socket and drop every connection that is left; return when all are gone.

        Sessions get their `on_closed`. HTTP connections are left to the owner of `http_server`.

        Not safe to cancel after the first await: connections may still be on their way out.
        """
        self.stop_accepting()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for arrival in self._arrivals:
            arrival.abort()
        for transport in self.transports:
            transport.abort()
        if self._loop is not None and (self._arrivals or self.transports):
            self._emptied = self._loop.create_future()
            await self._emptied

    # --- connections come and go --------------------------------------------------------------------------

    def _arrive(self) -> "_Arrival":
        assert self._loop is not None
        return _Arrival(self, self._loop.time() + self.timeouts.handshake_timeout_ms / 1000)

    def arrived(self, arrival: "_Arrival") -> None:
        """Watch a new socket until its first request is complete."""
        self._arrivals.add(arrival)

    def departed(self, gone: "Transport | _Arrival") -> None:
        """Forget a connection that is gone or was handed over."""
        if isinstance(gone, Transport):
            self.transports.discard(gone)
        else:
            self._arrivals.discard(gone)
        asked = self._all_asked
        if asked is not None and not self._arrivals and not asked.done():
            asked.set_result(None)
        emptied = self._emptied
        if emptied is not None and not self._arrivals and not self.transports and not emptied.done():
            emptied.set_result(None)

    def hand_over(self, arrival: "_Arrival", tcp: asyncio.Transport, data: bytes, head_size: int) -> None:
        """
        Give the socket to the protocol its first request asks for, or refuse it.

        Args:
            arrival: Who read the request.
            tcp: The socket.
            data: All bytes read so far.
            head_size: How many of them are the request line and headers.
        """
        line = _WEBSOCKET_LINE.match(data)
        if line is not None and _UPGRADE_HEADER.search(data, line.end() - 2, head_size) is not None:
            self._shake_hands(arrival, tcp, data, head_size)
        elif self._http_server is None:
            arrival.refuse(HTTPStatus.NOT_FOUND, "This port speaks WebSocket, at /ws.\n")
        else:
            self.departed(arrival)
            http = self._http_server()
            tcp.set_protocol(http)
            http.connection_made(tcp)
            http.data_received(data)

    async def upgrade(self, request: web.Request) -> web.StreamResponse:
        """
        Shake hands on a connection that has carried HTTP before; the handler of `GET /ws` of `http_server`.

        Balancers keep connections to a server open and send whatever comes next on them, handshakes too.
        """
        if request.headers.get("Upgrade", "").lower() != "websocket" or request.transport is None:
            raise web.HTTPNotFound
        tcp, http = request.transport, request.protocol
        # Whatever spelling of the path led here; a query is ignored.
        head = bytearray(b"GET /ws HTTP/1.1\r\n")
        for name, value in request.raw_headers:
            head += name + b": " + value + b"\r\n"
        # To aiohttp the connection is gone; it must not close it for that.
        http.transport = None
        http.connection_lost(None)
        arrival = self._arrive()
        tcp.set_protocol(arrival)
        arrival.connection_made(tcp)
        arrival.data_received(bytes(head) + b"\r\n")
        # Nobody reads it: what aiohttp would write has no connection to go to.
        return web.Response()

    def _shake_hands(self, arrival: "_Arrival", tcp: asyncio.Transport, data: bytes, head_size: int) -> None:
        handshake = self._handshake
        try:
            response = handshake.accept(_parse_request(data[:head_size]))
        except (HeaderLineTooLong, RequestLineTooLong, TooManyHeaders) as error:
            arrival.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{error}.\n")
            return
        except (ValueError, EOFError, NotImplementedError):
            arrival.refuse(HTTPStatus.BAD_REQUEST, "Malformed WebSocket handshake.\n")
            return
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            # It refers to the request through its traceback.
            handshake.handshake_exc = None
            arrival.refuse_with(response)
            return
        assert self._loop is not None
        transport = Transport(
            tcp,
            loop=self._loop,
            timeouts=self.timeouts,
            lost=self.departed,
            codec_name=_CODECS[handshake.subprotocol],
            extensions=handshake.extensions,
        )
        self.transports.add(transport)
        self.departed(arrival)
        tcp.set_protocol(transport)
        tcp.write(response.serialize())
        transport.open(self._open_session)
        if len(data) > head_size:
            transport.data_received(data[head_size:])

    def response(self, status: HTTPStatus, text: str) -> Response:
        """Build a refusal: plain text, and the connection ends after it."""
        return self._handshake.reject(status, text)

    # --- the sweep ----------------------------------------------------------------------------------------

    def _schedule_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep_timer = loop.call_later(self.timeouts.sweep_period_ms / 1000, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every connection's `deadline`: one comparison each, more only for those it has passed."""
        self._schedule_sweep(loop)
        now = loop.time()
        for arrival in [each for each in self._arrivals if each.deadline <= now]:
            arrival.on_deadline()
        for transport in [each for each in self.transports if each.deadline <= now]:
            transport.on_deadline(now)


class _Arrival(asyncio.Protocol):
    """A socket whose first request is not complete yet, or was refused."""

    __slots__ = ("_head", "_listener", "_refused", "_tcp", "deadline")

    def __init__(self, listener: Listener, deadline: float) -> None:
        self._listener = listener
        self._tcp: asyncio.Transport | None = None
        self._head = bytearray()
        self._refused = False
        #: `loop.time()` by which the headers must be complete, or a refusal sent.
        self.deadline = deadline

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        # uvloop's transports are not subclasses of asyncio's.
        self._tcp = cast(asyncio.Transport, transport)
        self._listener.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Collect bytes until the headers end."""
        tcp, head = self._tcp, self._head
        if self._refused or tcp is None:
            return
        # The end may be split over two reads, so the last three bytes are looked at again.
        searched = max(0, len(head) - 3)
        head += data
        end = head.find(_END_OF_HEADERS, searched)
        if (end if end >= 0 else len(head)) > HANDSHAKE_HEADERS_BYTES_MAX:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers are limited to 16 KiB.\n")
        elif end >= 0:
            self._listener.hand_over(self, tcp, bytes(head), end + len(_END_OF_HEADERS))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener."""
        self._listener.departed(self)

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer with an HTTP error and close."""
        self.refuse_with(self._listener.response(status, text))

    def refuse_with(self, response: Response) -> None:
        """Answer with a response and close once it is sent."""
        assert self._tcp is not None
        self._refused = True
        self._head.clear()
        self._tcp.write(response.serialize())
        self._tcp.close()
        _log.debug("handshake_refused", status=response.status_code)

    def on_deadline(self) -> None:
        """End a socket that did not finish its request, or does not take its refusal."""
        if self._refused:
            self.abort()
        else:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "No complete request in time.\n")

    def abort(self) -> None:
        """Drop the TCP connection now."""
        if self._tcp is not None:
            self._tcp.abort()


def _hold_back(fileno: int) -> None:
    """
    Have the kernel hold at most `KERNEL_UNSENT_BYTES_MAX` unsent bytes for each connection accepted from here on.

    Its send buffer grows to megabytes otherwise, out of our sight, for every viewer that does not read. What is on its
    way to a viewer that does read is not limited by this.
    """
    with socket.socket(fileno=os.dup(fileno)) as listening:
        if listening.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Accepted sockets inherit it.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_UNSENT_BYTES_MAX)


def _read_plain_request(head: bytes) -> Request | None:
    """
    Return what the library would make of a complete request head, or None when it is not written plainly.

    A storm of joins is a storm of requests that look alike; the library's parser, a generator that reads line by line,
    costs each of them as much as everything else in the handshake.
    """
    line = _REQUEST_LINE.match(head)
    if line is None or len(head) > _PLAIN_REQUEST_BYTES_MAX or not _HEADERS.fullmatch(head, line.end()):
        return None
    headers = Headers()
    for header in head[line.end() : -4].decode("ascii").split("\r\n"):
        name, _, value = header.partition(":")
        headers.set_insecure(name, value.lstrip(" "))
    if "Content-Length" in headers or "Transfer-Encoding" in headers:
        return None
    method, path, version = line.groups()
    return Request(path.decode("ascii"), headers, method.decode("ascii"), version.decode("ascii"))


def _parse_request(head: bytes) -> Request:
    """
    Parse a complete request head, any but a plain one with the library's parser.

    Raises:
        HeaderLineTooLong, RequestLineTooLong, TooManyHeaders: If a limit of the library is passed.
        ValueError, EOFError, NotImplementedError: If it is malformed or announces a body.
    """
    plain = _read_plain_request(head)
    if plain is not None:
        return plain
    reader = StreamReader()
    reader.feed_data(head)
    reader.feed_eof()
    parser = Request.parse(reader.read_line)
    try:
        next(parser)
    except StopIteration as done:
        request: Request = done.value
        return request
    raise EOFError("request is not complete")
