"""
One WebSocket: an `asyncio.Protocol` around the sans-I/O core of `websockets`.

Decides how bytes become whole messages and when a socket is over: fragments joined under one size limit,
text checked for UTF-8, pings answered, closing handshakes driven, silence and missing joins noticed. Every
connection is one `Transport` and one core: no task, no queue, no timer. The listener's single sweep compares
`deadline` with the clock and calls `on_deadline`.

Does not accept sockets or shake hands (`listener.py`), does not read messages (the session's business), does
not decide what a slow viewer loses (the hub's; `on_writable` and `unsent_bytes` tell it).

Bounds: a message at most `message_size_max`; unsent pongs and replies at most 64 KiB plus the answers to one
read (256 KiB), because a peer that does not read is not read either.

Source: RFC 6455; RFC 7692; https://websockets.readthedocs.io/en/stable/howto/sansio.html; docs/protocol.md,
"Connection".
"""

import asyncio
import codecs
import logging
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import structlog
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SERVER, State
from websockets.protocol import Protocol as WebSocketCore

from protocol.codes import CloseCode
from protocol.limits import FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_MS, IDLE_TIMEOUT_MS, JOIN_TIMEOUT_MS

CodecName = Literal["json", "msgpack"]

#: Unsent bytes above which the session is told to hold back and the peer is no longer read.
WRITE_BUFFER_BYTES_HIGH: Final = 64 * 1024
#: Bytes parsed before their messages are delivered: bounds how many frames of one read sit in memory.
SLICE_BYTES: Final = 4 * 1024
#: RFC 6455 §5.5: a control frame carries 125 bytes, two of them the close code.
CLOSE_REASON_BYTES_MAX: Final = 123

#: RFC 6455 §7.4.1: reported locally, never sent.
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006

# RFC 6455 §5.2: FIN with the opcode; RFC 7692 §6: RSV1 marks a compressed message.
_FIN_TEXT: Final = 0x81
_FIN_BINARY: Final = 0x82
_RSV1: Final = 0x40

_OPEN = State.OPEN
_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT

_log = structlog.stdlib.get_logger(__name__)

# The core's own lines (one per connection at "info", one per frame at "debug") would cost more than the
# frames. Only its errors are kept: they are bugs.
core_log: Final = logging.getLogger("engine.gateway.websockets")
core_log.setLevel(logging.ERROR)


class Session(Protocol):
    """What a connection is for. Implemented by the room layer; called by `Transport`, never concurrently."""

    def on_message(self, data: bytes, is_text: bool) -> None:
        """Take one whole message. An exception is a bug: it is logged and closes the connection with 1011."""

    def on_writable(self, writable: bool) -> None:
        """
        Learn that unsent bytes rose above 64 KiB (False) or drained again (True).

        May be called from inside `Transport.write`.
        """

    def on_closed(self, code: int, reason: str) -> None:
        """
        Learn, exactly once, that the connection is over; no call follows this one.

        The code is ours if we closed first, else the peer's; 1005 if its close frame had none, 1006 if the
        socket went away without one.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a peer may take (milliseconds). Checked every `sweep_period_ms`, so up to that much later."""

    #: From the accepted socket to the end of the request's headers.
    handshake_timeout_ms: int = HANDSHAKE_TIMEOUT_MS
    #: From the handshake to `Transport.joined`.
    join_timeout_ms: int = JOIN_TIMEOUT_MS
    #: Without a byte from the peer; pings count as life.
    idle_timeout_ms: int = IDLE_TIMEOUT_MS
    #: From our close frame to the end of the TCP connection.
    close_timeout_ms: int = 5_000
    #: Period of the one timer that enforces the others.
    sweep_period_ms: int = 1_000


def build_frame(payload: bytes, *, text: bool, compressed: bool = False) -> bytes:
    """
    Build a server's frame: one whole message, unmasked.

    Args:
        payload: The message, already compressed if `compressed` is set.
        text: Text (UTF-8, not checked) or binary.
        compressed: Mark as deflated by RFC 7692; only with a window of at most `Transport.deflate_window_bits`.

    Source: RFC 6455 §5.2.
    """
    first = (_FIN_TEXT if text else _FIN_BINARY) | (_RSV1 if compressed else 0)
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


class Transport(asyncio.Protocol):
    """
    One accepted WebSocket.

    Made by the listener after the handshake, which then calls `open` once. All calls belong to the loop's
    thread.
    """

    __slots__ = (
        "_backlog",
        "_core",
        "_decoder",
        "_deferred",
        "_fd",
        "_is_text",
        "_loop",
        "_lost",
        "_partial",
        "_session",
        "_tcp",
        "_timeouts",
        "closing",
        "codec_name",
        "deadline",
        "deflate_window_bits",
        "joined",
        "last_received_at",
        "opened_at",
        "writable",
    )

    def __init__(
        self,
        tcp: asyncio.Transport,
        *,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        lost: Callable[["Transport"], None],
        codec_name: CodecName = "json",
        extensions: Sequence[Extension] = (),
    ) -> None:
        """
        Wrap a socket whose handshake was accepted.

        Args:
            tcp: The socket's transport; its protocol must be set to this object by the caller.
            loop: The loop `tcp` belongs to.
            timeouts: Shared by every connection of a listener.
            lost: Called once, when the TCP connection is gone.
            codec_name: From the negotiated subprotocol.
            extensions: Negotiated for this connection.
        """
        self._tcp = tcp
        sock = tcp.get_extra_info("socket")
        #: Of the socket; -1 where there is none, and then the loop writes everything.
        self._fd: int = -1 if sock is None else sock.fileno()
        #: Writes given to the loop whose turn is not over.
        self._deferred = 0
        self._loop = loop
        # The answer to the handshake may not have left yet.
        self._defer()
        self._timeouts = timeouts
        self._lost = lost
        self._session: Session | None = None
        self._backlog = bytearray()
        self._core = WebSocketCore(SERVER, max_size=FRAME_BYTES_MAX, logger=core_log)
        if extensions:
            self._core.extensions = list(extensions)
        #: Bytes of a fragmented message so far; None between messages.
        self._partial: bytearray | None = None
        #: Checks a fragmented text while it arrives; None for binary.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._is_text = codec_name == "json"
        self.codec_name: CodecName = codec_name
        #: Window, in bits, of the deflated frames (`build_frame(..., compressed=True)`) this peer can read: 9
        #: to 15, or 0 for none. Deflating is optional for each message, so a frame that is shared by many
        #: and deflated with a larger window is simply replaced by the plain one.
        self.deflate_window_bits = max(
            (each.local_max_window_bits for each in extensions if isinstance(each, PerMessageDeflate)),
            default=0,
        )
        #: Set by the session when it is satisfied with who this is; until then the join timeout runs.
        self.joined = False
        #: False from the first close frame on: writes become no-ops and messages are no longer delivered.
        self.closing = False
        #: False while more than 64 KiB are unsent.
        self.writable = True
        now = loop.time()
        self.opened_at = now
        #: `loop.time()` of the last bytes of any kind.
        self.last_received_at = now
        #: `loop.time()` from which `on_deadline` has something to check.
        self.deadline = now + min(timeouts.join_timeout_ms, timeouts.idle_timeout_ms) / 1000
        tcp.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)

    def open(self, open_session: Callable[["Transport"], Session]) -> None:
        """Give the connection its session. If that fails, it is a bug: logged, and closed with 1011."""
        try:
            self._session = open_session(self)
        except Exception:
            self._fail_with_bug()

    # --- for the session and the hub ----------------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        """Send a ready-made frame (`build_frame`). Does nothing once closing."""
        if not self.closing:
            self._put(frame)

    def send(self, payload: bytes) -> None:
        """Send one message: text for the JSON codec, binary for MessagePack. Does nothing once closing."""
        if not self.closing:
            self._put(build_frame(payload, text=self._is_text))

    def close(self, code: int, reason: str = "") -> None:
        """
        Send a close frame; after the peer's answer, or 5 s without one, end the TCP connection.

        Does nothing if already closing. `on_closed` follows with the answer, not from inside this call.

        Args:
            code: 1000–1014 as RFC 6455 §7.4 allows, or 3000–4999.
            reason: For people; cut at 123 bytes of UTF-8.
        """
        if self.closing:
            return
        self._begin_closing()
        # Otherwise the peer's close frame is in the read being handled, and the core's answer is on its way.
        if self._core.state is _OPEN:
            encoded = reason.encode()
            if len(encoded) > CLOSE_REASON_BYTES_MAX:
                reason = encoded[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
            self._core.send_close(code, reason)
            self._flush()
        if not self.writable:
            # The answer can only be seen by a reader.
            self._tcp.resume_reading()

    def abort(self) -> None:
        """Drop the TCP connection now, with whatever is unsent."""
        self.closing = True
        self._tcp.abort()

    def unsent_bytes(self) -> int:
        """Return the bytes written but not yet taken by the kernel."""
        return self._tcp.get_write_buffer_size()

    def remote_address(self) -> str:
        """Return the peer's IP address as text, or "" if the socket has none (a unix socket, or gone)."""
        peer = self._tcp.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def message_size_max(self) -> int:
        """
        Largest message taken from the peer, in bytes, after joining fragments and inflating.

        A bigger one closes with 1009. A new value counts from the next read, not for frames that arrived
        together with the message that made the session raise it.
        """
        size = self._core.max_message_size
        assert size is not None
        return size

    @message_size_max.setter
    def message_size_max(self, size_bytes: int) -> None:
        self._core.max_message_size = size_bytes

    # --- for the listener's sweep -------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Enforce the timeouts, and set the next `deadline`. Cheap and idempotent."""
        timeouts = self._timeouts
        if self.closing:
            self._tcp.abort()
            return
        silent_at = self.last_received_at + timeouts.idle_timeout_ms / 1000
        join_by = self.opened_at + timeouts.join_timeout_ms / 1000
        if not self.joined and now >= join_by:
            self.close(CloseCode.UNAUTHORIZED, "no join in time")
        elif now >= silent_at:
            self.close(CloseCode.IDLE, "idle")
        else:
            self.deadline = silent_at if self.joined else min(silent_at, join_by)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the core and deliver what it found."""
        self.last_received_at = self._loop.time()
        if self._backlog:
            self._backlog += data
        elif len(data) <= SLICE_BYTES:
            self._receive(data)
        else:
            # A peer that sends much at once takes turns with everybody else: it is not read again, and a slice of
            # what it sent is worked off per turn of the loop.
            self._backlog += data
            self._tcp.pause_reading()
            self._work_off()

    def _work_off(self) -> None:
        backlog = self._backlog
        if not backlog:
            self._read_on()
            return
        if not self.writable and not self.closing:
            return  # Its answers would only add to what the peer does not take; `resume_writing` goes on.
        piece = bytes(backlog[:SLICE_BYTES])
        del backlog[:SLICE_BYTES]
        self._receive(piece)
        # Also when that was all: the loop reads a socket many times a turn unless it was told to stop.
        self._loop.call_soon(self._work_off if backlog else self._read_on)

    def _read_on(self) -> None:
        if self.writable and not self._tcp.is_closing():
            self._tcp.resume_reading()

    def pause_writing(self) -> None:
        """Pass the news on, and stop reading: each ping or command read would add to what is unsent."""
        self.writable = False
        if not self.closing:
            self._tcp.pause_reading()
        self._tell_writable()

    def resume_writing(self) -> None:
        """Pass the news on, and read again."""
        self.writable = True
        if self._backlog:
            self._loop.call_soon(self._work_off)
        else:
            self._tcp.resume_reading()
        self._tell_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session if it does not know yet, and let go of everything."""
        self.closing = True
        self._backlog.clear()
        self._tell_closed()
        # The suspended parser refers to the core: closing it here frees both without the cycle collector.
        self._core.parser.close()
        self._partial = self._decoder = None
        self._lost(self)

    # --- inside -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        core = self._core
        core.receive_data(data)
        if core.writes and core.state is _OPEN:
            # Pongs: first, because a reply may be long and the peer may be measuring.
            self._flush()
        if core.events:
            for event in core.events_received():
                if self.closing:
                    break
                # After the handshake the core lists nothing but frames.
                assert isinstance(event, Frame)
                self._take_frame(event)
        if core.writes:
            # A close frame: last, so that replies to the messages before it still leave.
            self._flush()

    def _take_frame(self, frame: Frame) -> None:
        """Deliver a message once it is whole. The core has answered pings and close frames by itself."""
        opcode = frame.opcode
        if opcode is _TEXT or opcode is _BINARY:
            is_text = opcode is _TEXT
            data = bytes(frame.data)
            if frame.fin:
                if is_text and not data.isascii():
                    try:
                        data.decode()
                    except UnicodeDecodeError as error:
                        self._fail_with_bad_text(error)
                        return
                self._deliver(data, is_text)
                return
            self._partial = bytearray()
            self._decoder = codecs.getincrementaldecoder("utf-8")() if is_text else None
        elif opcode is not _CONT:
            return
        partial, decoder = self._partial, self._decoder
        assert partial is not None
        # One growing array, not a list of parts: a flood of empty fragments adds nothing to it.
        partial += frame.data
        if decoder is not None:
            try:
                decoder.decode(bytes(frame.data), frame.fin)
            except UnicodeDecodeError as error:
                self._fail_with_bad_text(error)
                return
        if frame.fin:
            self._partial = self._decoder = None
            self._deliver(bytes(partial), decoder is not None)

    def _deliver(self, data: bytes, is_text: bool) -> None:
        session = self._session
        if session is None:
            return
        try:
            session.on_message(data, is_text)
        except Exception:
            self._fail_with_bug()

    def _fail_with_bad_text(self, error: UnicodeDecodeError) -> None:
        """Fail the connection: RFC 6455 §8.1. Sent with the next flush, which `_receive` is about to do."""
        self._core.fail(CloseCode.INVALID_TEXT, f"{error.reason} at position {error.start}")
        self._begin_closing()

    def _fail_with_bug(self) -> None:
        """Log the exception being handled and close the connection it hurt."""
        _log.exception("session_failed", codec=self.codec_name, joined=self.joined)
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _put(self, data: bytes) -> None:
        """
        Write bytes, straight to the socket while nothing is in front of them.

        The event loop's own write costs a tenth of a room's fan-out more. What the kernel does not take, and every
        failure, is the loop's, and then everything that follows until it has written it.
        """
        tcp = self._tcp
        if not self._deferred and not tcp.get_write_buffer_size():
            try:
                # The loop closes the descriptor after `connection_lost`; by then nothing is written any more.
                sent = os.write(self._fd, data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        tcp.write(data)
        self._defer()

    def _defer(self) -> None:
        # A loop may keep what it is given until the end of the turn, and not count it as unsent before that.
        self._deferred += 1
        self._loop.call_soon(self._written)

    def _written(self) -> None:
        self._deferred -= 1

    def _begin_closing(self) -> None:
        self.closing = True
        self.deadline = self._loop.time() + self._timeouts.close_timeout_ms / 1000

    def _flush(self) -> None:
        """Write what the core has to say. Its last word, the empty bytes, ends our half of the connection."""
        writes = self._core.data_to_send()
        if self._tcp.is_closing():
            # The session dropped the connection while the read was being handled.
            return
        last = not writes[-1]
        if last:
            writes.pop()
        if writes:
            self._put(writes[0] if len(writes) == 1 else b"".join(writes))
        if last:
            if not self.closing:
                self._begin_closing()
            # Only our half: closing with unread bytes would reset the connection and could lose the close
            # frame. The peer's end of stream, or the sweep, does the rest.
            self._tcp.write_eof()
            self._tell_closed()

    def _tell_writable(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            session.on_writable(self.writable)
        except Exception:
            self._fail_with_bug()

    def _tell_closed(self) -> None:
        """Take the session away and tell it why."""
        session = self._session
        if session is None:
            return
        self._session = None
        core = self._core
        received, sent = core.close_rcvd, core.close_sent
        ours_first = sent is not None and not core.close_rcvd_then_sent
        final = (sent if ours_first else received) or Close(ABNORMAL, "")
        try:
            session.on_closed(int(final.code), final.reason)
        except Exception:
            _log.exception("session_failed", codec=self.codec_name, joined=self.joined)
