"""One WebSocket without a socket: bytes in, what the session hears, bytes out."""

import asyncio
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

from engine.gateway.transport import SLICE_BYTES, Timeouts, Transport, build_frame
from protocol.codes import CloseCode
from protocol.limits import CONSOLE_FRAME_BYTES_MAX, FRAME_BYTES_MAX


class RecordingSocket(asyncio.Transport):
    """The far side of a `Transport`: remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.sent = b""
        self.ended = self.aborted = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        over = self.ended or self.aborted
        assert not over, "written after the end"
        self.sent += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.sent)


class Clock(asyncio.AbstractEventLoop):
    """As much of a loop as a transport uses."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.soon: list[tuple[Any, Any]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any) -> None:
        self.soon.append((callback, args))

    def turn(self) -> None:
        """One turn of the loop."""
        due, self.soon = self.soon, []
        for callback, args in due:
            callback(*args)


class Viewer:
    """A session that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.react: Callable[[bytes], None] = lambda data: None

    def on_message(self, data: bytes, is_text: bool) -> None:
        self.heard.append(("message", data, is_text))
        self.react(data)

    def on_writable(self, writable: bool) -> None:
        self.heard.append(("writable", writable))

    def on_closed(self, code: int, reason: str) -> None:
        self.heard.append(("closed", code, reason))


class Connection:
    """A transport between a recording socket and a viewer."""

    def __init__(
        self, codec_name: Any = "json", extensions: Any = (), timeouts: Timeouts | None = None
    ) -> None:
        self.socket, self.clock, self.viewer = RecordingSocket(), Clock(), Viewer()
        self.lost: list[Transport] = []
        self.transport = Transport(
            self.socket,
            loop=self.clock,
            timeouts=timeouts or Timeouts(),
            lost=self.lost.append,
            codec_name=codec_name,
            extensions=extensions,
        )
        self.transport.open(lambda transport: self.viewer)

    def receive(self, *frames: bytes) -> None:
        """Read the frames at once, and let the loop turn until all of it is worked off."""
        self.transport.data_received(b"".join(frames))
        while self.clock.soon:
            self.clock.turn()

    @property
    def heard(self) -> list[tuple[Any, ...]]:
        return self.viewer.heard


def client_frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    plain = bytearray(Frame(opcode, b"", fin).serialize(mask=False)[:1])
    if rsv1:
        plain[0] |= 0x40
    length = len(data)
    if length < 126:
        plain.append(0x80 | length)
    elif length < 65_536:
        plain += struct.pack("!BH", 0x80 | 126, length)
    else:
        plain += struct.pack("!BQ", 0x80 | 127, length)
    # A mask of zeros leaves the data as it is.
    return bytes(plain) + bytes(4) + data


def text(data: str | bytes, *, fin: bool = True) -> bytes:
    return client_frame(Opcode.TEXT, data.encode() if isinstance(data, str) else data, fin=fin)


def more(data: bytes, *, fin: bool) -> bytes:
    return client_frame(Opcode.CONT, data, fin=fin)


def close_frame(code: int, reason: str = "") -> bytes:
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


def client_close(code: int, reason: str = "") -> bytes:
    return client_frame(Opcode.CLOSE, Close(code, reason).serialize())


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("is_text", [True, False])
def test_built_frame_equals_the_librarys(length: int, is_text: bool) -> None:
    payload = b"a" * length
    frame = Frame(Opcode.TEXT if is_text else Opcode.BINARY, payload)

    assert build_frame(payload, text=is_text) == frame.serialize(mask=False)


def test_compressed_frame_has_rsv1() -> None:
    assert build_frame(b"z", text=True, compressed=True) == b"\xc1\x01z"


@pytest.mark.parametrize(("codec_name", "first"), [("json", b"\x81"), ("msgpack", b"\x82")])
def test_send_uses_the_codecs_kind_of_frame(codec_name: str, first: bytes) -> None:
    connection = Connection(codec_name=codec_name)

    connection.transport.send(b"[]")

    assert connection.socket.sent == first + b"\x02[]"
    assert connection.transport.unsent_bytes() == 4
    assert connection.transport.remote_address() == "192.0.2.7"


def test_messages_arrive_whole_in_any_slicing() -> None:
    frames = (
        text("多少钱") + client_frame(Opcode.BINARY, b"\x80") + text("a", fin=False) + more(b"b", fin=True)
    )
    for size in (1, 2, 7, len(frames)):
        connection = Connection()
        for start in range(0, len(frames), size):
            connection.receive(frames[start : start + size])

        assert connection.heard == [
            ("message", "多少钱".encode(), True),
            ("message", b"\x80", False),
            ("message", b"ab", True),
        ]


def test_read_larger_than_a_slice_loses_nothing() -> None:
    connection = Connection()
    payloads = [b"%05d" % number * 100 for number in range(200)]
    data = b"".join(text(payload) for payload in payloads)
    assert len(data) > 3 * SLICE_BYTES

    connection.receive(data)

    assert connection.heard == [("message", payload, True) for payload in payloads]


def test_flood_is_worked_off_a_slice_per_turn_and_not_read_meanwhile() -> None:
    connection = Connection()
    data = b"".join(text(b"%05d" % number * 100) for number in range(40))
    assert len(data) > 4 * SLICE_BYTES

    connection.transport.data_received(data)

    heard = [len(connection.heard)]
    assert connection.socket.paused
    while connection.clock.soon:
        connection.clock.turn()
        heard.append(len(connection.heard))
    assert heard == sorted(heard)
    assert len(set(heard)) >= 5
    assert heard[-1] == 40
    assert not connection.socket.paused


def test_ping_is_answered_before_the_replies_of_the_same_read() -> None:
    connection = Connection()
    connection.viewer.react = lambda data: connection.transport.send(b"re")

    connection.receive(text("x"), client_frame(Opcode.PING, b"p"))

    assert connection.socket.sent == b"\x8a\x01p" + b"\x81\x02re"


@pytest.mark.parametrize(
    "frames",
    [
        text(b"\xff"),
        text("多".encode()[:-1]),
        text("ok", fin=False) + more(b"\xc3\x28", fin=False),
        text(b"\xe5\xa4", fin=False) + more(b"", fin=True),
    ],
    ids=["byte", "truncated", "fragment", "cut at the end"],
)
def test_broken_utf8_closes_with_1007(frames: bytes) -> None:
    """RFC 6455 §8.1: "it MUST _Fail the WebSocket Connection_"."""
    connection = Connection()

    connection.receive(frames)
    connection.receive(text("never heard"))

    assert connection.socket.sent.startswith(b"\x88")
    assert connection.socket.sent[2:4] == struct.pack("!H", CloseCode.INVALID_TEXT)
    assert connection.socket.ended
    assert [each[:2] for each in connection.heard] == [("closed", 1007)]


def test_character_split_over_fragments_is_whole() -> None:
    connection = Connection()
    data = "多少".encode()

    connection.receive(text(data[:1], fin=False), client_frame(Opcode.PING), more(data[1:4], fin=False))
    connection.receive(more(data[4:], fin=True))

    assert connection.heard == [("message", data, True)]


@pytest.mark.parametrize("parts", [1, 3])
def test_message_over_the_limit_closes_with_1009(parts: int) -> None:
    connection = Connection()
    size = FRAME_BYTES_MAX // parts + 1
    assert connection.transport.message_size_max == FRAME_BYTES_MAX

    connection.receive(text("a" * size, fin=parts == 1))
    for part in range(1, parts):
        connection.receive(more(b"a" * size, fin=part == parts - 1))

    assert connection.socket.sent[2:4] == struct.pack("!H", CloseCode.FRAME_TOO_BIG)
    assert [each[:2] for each in connection.heard] == [("closed", 1009)]


def test_raised_limit_counts_for_the_next_message() -> None:
    connection = Connection()
    connection.transport.message_size_max = CONSOLE_FRAME_BYTES_MAX

    connection.receive(text("a" * CONSOLE_FRAME_BYTES_MAX))
    connection.receive(text("a" * (CONSOLE_FRAME_BYTES_MAX + 1)))

    assert [each[0] for each in connection.heard] == ["message", "closed"]
    assert connection.heard[1][1] == 1009


def test_limit_holds_for_inflated_size() -> None:
    inflate = PerMessageDeflate(True, True, 15, 15)
    connection = Connection(extensions=[inflate])
    deflate = zlib.compressobj(wbits=-15)
    bomb = (deflate.compress(b"a" * 1_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < FRAME_BYTES_MAX

    connection.receive(client_frame(Opcode.TEXT, bomb, rsv1=True))

    assert connection.transport.deflate_window_bits == 15
    assert [each[:2] for each in connection.heard] == [("closed", 1009)]


def test_flood_of_empty_fragments_is_not_collected() -> None:
    connection = Connection()

    connection.receive(text("", fin=False), *[more(b"", fin=False)] * 10_000, more(b"x", fin=True))

    assert connection.heard == [("message", b"x", True)]


def test_protocol_error_closes_with_1002_after_the_messages_before_it() -> None:
    connection = Connection()
    connection.viewer.react = lambda data: connection.transport.send(b"re")

    connection.receive(text("x"), b"\x83\x80" + bytes(4))

    assert connection.socket.sent.startswith(b"\x81\x02re\x88")
    assert connection.socket.sent[6:8] == struct.pack("!H", CloseCode.PROTOCOL_ERROR)
    assert [each[:2] for each in connection.heard] == [("message", b"x"), ("closed", 1002)]


def test_peers_close_is_answered_and_told_once() -> None:
    connection = Connection()

    connection.receive(text("x"), client_close(1000, "bye"), text("late"))
    connection.transport.connection_lost(None)

    assert connection.socket.sent == close_frame(1000, "bye")
    assert connection.socket.ended
    assert connection.heard == [("message", b"x", True), ("closed", 1000, "bye")]
    assert connection.lost == [connection.transport]


def test_close_frame_without_code_is_1005() -> None:
    connection = Connection()

    connection.receive(client_frame(Opcode.CLOSE))

    assert connection.heard == [("closed", 1005, "")]


def test_our_close_waits_for_the_answer_and_mutes_both_sides() -> None:
    connection = Connection()

    connection.transport.close(CloseCode.KICKED, "out")
    connection.transport.close(CloseCode.IDLE, "twice")
    connection.transport.send(b"late")
    connection.transport.write(b"late")
    connection.receive(text("late"))

    assert connection.socket.sent == close_frame(4410, "out")
    assert connection.heard == []
    assert not connection.socket.ended

    connection.receive(client_close(4410, "out"))

    assert connection.socket.ended
    assert connection.heard == [("closed", 4410, "out")]


def test_close_from_inside_a_message_stops_the_rest_of_the_read() -> None:
    connection = Connection()

    def leave(data: bytes) -> None:
        connection.transport.send(b"re")
        connection.transport.close(CloseCode.NORMAL)

    connection.viewer.react = leave
    connection.receive(text("leave"), text("late"))

    assert connection.heard == [("message", b"leave", True)]
    assert connection.socket.sent == b"\x81\x02re" + close_frame(1000)


def test_close_from_inside_a_message_followed_by_the_peers_close() -> None:
    connection = Connection()
    connection.viewer.react = lambda data: connection.transport.close(CloseCode.KICKED)

    connection.receive(text("x"), client_close(1001))

    assert connection.socket.sent == close_frame(1001)
    assert connection.heard == [("message", b"x", True), ("closed", 1001, "")]


def test_abort_from_inside_a_message_writes_nothing_more() -> None:
    connection = Connection()
    connection.viewer.react = lambda data: connection.transport.abort()

    connection.receive(text("x"), text("late"), client_close(1000))
    connection.transport.connection_lost(None)

    assert connection.socket.sent == b""
    assert connection.heard == [("message", b"x", True), ("closed", 1000, "")]


@pytest.mark.parametrize("reason", ["x" * 200, "多" * 60])
def test_long_close_reason_is_cut_between_characters(reason: str) -> None:
    connection = Connection()

    connection.transport.close(4400, reason)

    sent = connection.socket.sent[4:]
    assert 120 < len(sent) <= 123
    assert reason.startswith(sent.decode())


def test_lost_socket_is_1006() -> None:
    connection = Connection()

    connection.transport.connection_lost(ConnectionResetError())

    assert connection.heard == [("closed", 1006, "")]
    connection.transport.send(b"late")
    assert connection.socket.sent == b""


def test_bug_in_the_session_is_logged_and_closes_with_1011() -> None:
    connection = Connection()

    def fall(data: bytes) -> None:
        raise ZeroDivisionError("a bug")

    connection.viewer.react = fall
    with capture_logs() as lines:
        connection.receive(text("x"), text("y"))

    assert connection.socket.sent == close_frame(1011, "internal error")
    assert connection.heard == [("message", b"x", True)]
    assert [(line["event"], line["log_level"], line["exc_info"]) for line in lines] == [
        ("session_failed", "error", True)
    ]


def test_session_that_cannot_be_opened_closes_with_1011() -> None:
    connection = Connection()

    def fail(transport: Transport) -> Viewer:
        raise RuntimeError("a bug")

    transport = Transport(
        connection.socket, loop=connection.clock, timeouts=Timeouts(), lost=connection.lost.append
    )
    with capture_logs() as lines:
        transport.open(fail)
        transport.data_received(text("x"))
        transport.connection_lost(None)

    assert connection.socket.sent == close_frame(1011, "internal error")
    assert connection.lost == [transport]
    assert len(lines) == 1


def test_peer_that_does_not_read_is_not_read() -> None:
    connection = Connection()
    assert connection.socket.high == 64 * 1024

    connection.transport.pause_writing()
    assert connection.socket.paused
    assert not connection.transport.writable

    connection.transport.resume_writing()
    assert not connection.socket.paused
    assert connection.heard == [("writable", False), ("writable", True)]


def test_closing_reads_again_to_see_the_answer() -> None:
    connection = Connection()
    connection.transport.pause_writing()

    connection.transport.close(CloseCode.TOO_SLOW)

    assert not connection.socket.paused


TIMEOUTS = Timeouts(join_timeout_ms=5_000, idle_timeout_ms=60_000, close_timeout_ms=3_000)


def test_no_join_in_time_closes_with_4401_even_if_it_talks() -> None:
    connection = Connection(timeouts=TIMEOUTS)
    connection.clock.now += 4.9
    connection.receive(client_frame(Opcode.PING))
    connection.transport.on_deadline(connection.clock.now)
    assert not connection.transport.closing
    assert connection.transport.deadline == 1_005.0

    connection.clock.now += 0.1
    connection.transport.on_deadline(connection.clock.now)

    assert connection.transport.closing
    assert struct.pack("!H", CloseCode.UNAUTHORIZED) in connection.socket.sent


def test_silence_closes_with_4503_and_pings_count_as_life() -> None:
    connection = Connection(timeouts=TIMEOUTS)
    connection.transport.joined = True
    connection.clock.now += 59
    connection.receive(client_frame(Opcode.PONG))
    connection.clock.now += 59
    connection.transport.on_deadline(connection.clock.now)
    assert not connection.transport.closing
    assert connection.transport.deadline == connection.transport.last_received_at + 60

    connection.clock.now += 1
    connection.transport.on_deadline(connection.clock.now)

    assert connection.socket.sent == close_frame(4503, "idle")


def test_unanswered_close_is_aborted() -> None:
    connection = Connection(timeouts=TIMEOUTS)

    connection.transport.close(CloseCode.DRAINING)

    assert connection.transport.deadline == connection.clock.now + 3
    connection.transport.on_deadline(connection.transport.deadline)
    assert connection.socket.aborted
    connection.transport.connection_lost(None)
    assert connection.heard == [("closed", 4500, "")]
