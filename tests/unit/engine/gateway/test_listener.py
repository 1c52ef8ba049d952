"""The quick reading of a plain handshake: whatever it accepts, the library reads the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.streams import StreamReader

from engine.gateway.listener import _PLAIN_REQUEST_BYTES_MAX, _read_plain_request

MINI_PROGRAM = (
    b"GET /ws?from=card HTTP/1.1\r\n"
    b"Host: live.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: liveroom.v1.json, liveroom.v1.msgpack\r\n"
    b"User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) MicroMessenger/8.0\r\n"
    b"\r\n"
)


def read_by_library(head: bytes) -> Request:
    reader = StreamReader()
    reader.feed_data(head)
    reader.feed_eof()
    parser = Request.parse(reader.read_line)
    with pytest.raises(StopIteration) as done:
        next(parser)
    request = done.value.value
    assert isinstance(request, Request)
    return request


def parts(request: Request) -> tuple[str, str, str, list[tuple[str, str]]]:
    return request.method, request.path, request.protocol, list(request.headers.raw_items())


def test_plain_request_is_read_as_the_library_reads_it() -> None:
    request = _read_plain_request(MINI_PROGRAM)

    assert request is not None
    assert parts(request) == parts(read_by_library(MINI_PROGRAM))
    assert request.headers["sec-websocket-version"] == "13"


NAMES = st.sampled_from(
    [b"Host", b"host", b"X-A", b"Cookie", b"Upgrade", b"Content-Length", b"Transfer-Encoding", b"B d", b""]
)
VALUES = st.sampled_from(
    [
        b"a",
        b"a b",
        b" a",
        b"a ",
        b"",
        b"\ta",
        b"a\tb",
        b"a:b: c",
        b"0",
        b"chunked",
        b"\xe9",
        b"a\rb",
        b"a\x00",
    ]
)
COLONS = st.sampled_from([b":", b": ", b":  ", b" : ", b""])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n "])
LINES = st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join)
FIRST = st.sampled_from(
    [
        b"GET /ws HTTP/1.1\r\n",
        b"GET /ws HTTP/1.0\r\n",
        b"GET /ws?a=%20 HTTP/1.1\r\n",
        b"POST /ws HTTP/1.1\r\n",
        b"GET  /ws HTTP/1.1\r\n",
        b"GET /\xe9 HTTP/1.1\r\n",
        b"GET /a b HTTP/1.1\r\n",
    ]
)


@given(first=FIRST, lines=st.lists(LINES, max_size=40))
def test_whatever_is_read_quickly_the_library_reads_the_same(first: bytes, lines: list[bytes]) -> None:
    head = first + b"".join(lines) + b"\r\n"

    request = _read_plain_request(head)

    if request is not None:
        assert parts(request) == parts(read_by_library(head))


@given(place=st.integers(0, len(MINI_PROGRAM) - 1), byte=st.integers(0, 255))
def test_a_byte_that_is_wrong_never_makes_the_two_differ(place: int, byte: int) -> None:
    head = MINI_PROGRAM[:place] + bytes((byte,)) + MINI_PROGRAM[place + 1 :]

    request = _read_plain_request(head)

    if request is not None:
        assert parts(request) == parts(read_by_library(head))


@pytest.mark.parametrize(
    "extra",
    [
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X-Folded: a\r\n b\r\n",
        b"X-Empty:\r\n",
        b"X: " + b"a" * _PLAIN_REQUEST_BYTES_MAX + b"\r\n",
        b"X: a\r\n" * 32,
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_library(extra: bytes) -> None:
    assert _read_plain_request(MINI_PROGRAM[:-2] + extra + b"\r\n") is None
