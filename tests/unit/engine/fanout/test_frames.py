"""One batch in each form that somebody reads: built once, deflated when that gains."""

import random
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fanout.frames import (
    DEFLATE_BYTES_MAX,
    DEFLATE_BYTES_MIN,
    DEFLATE_WINDOW_BITS,
    Form,
    Frames,
    deflate,
)
from protocol.codec import MSGPACK

#: RFC 7692 §7.2.2: what a reader appends; then an empty final block, which zlib wants to see.
TAIL = b"\x00\x00\xff\xff" + b"\x01\x00\x00\xff\xff"

JSON, JSON_DEFLATED = Form("json", deflated=False), Form("json", deflated=True)
MSGPACK_PLAIN, MSGPACK_DEFLATED = Form("msgpack", deflated=False), Form("msgpack", deflated=True)


def inflate(message: bytes, window_bits: int = DEFLATE_WINDOW_BITS) -> bytes:
    return zlib.decompress(message + TAIL, wbits=-window_bits)


def a_batch(size_bytes: int) -> bytes:
    """A batch of about `size_bytes` bytes that repeats itself as batches do."""
    event = b'{"ev":"comment","comment":901,"at":1795000000123,"from":{"id":"u_7","name":"Anna"},"text":"hi"}'
    return b"[" + b",".join([event] * (size_bytes // len(event) + 1)) + b"]"


class Builder:
    """Stands where `build_frame` does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[bool, bool]] = []

    def __call__(self, payload: bytes, *, text: bool, compressed: bool = False) -> bytes:
        self.asked.append((text, compressed))
        return payload


def test_each_form_is_built_once_and_says_the_same() -> None:
    build = Builder()
    batch = a_batch(2_000)
    frames = Frames(batch, build)

    built = {form: frames.of(form) for form in (JSON, JSON_DEFLATED, MSGPACK_PLAIN, MSGPACK_DEFLATED)}

    assert all(frames.of(form) is frame for form, frame in built.items())
    assert build.asked == [(True, False), (True, True), (False, False), (False, True)]
    assert built[JSON] == inflate(built[JSON_DEFLATED]) == batch
    assert MSGPACK.decode(built[MSGPACK_PLAIN]) == orjson.loads(batch)
    assert inflate(built[MSGPACK_DEFLATED]) == built[MSGPACK_PLAIN]


@pytest.mark.parametrize("size_bytes", [2, DEFLATE_BYTES_MIN - 200, DEFLATE_BYTES_MAX + 1])
def test_batch_that_is_small_or_huge_is_the_same_plain_frame_for_all(size_bytes: int) -> None:
    build = Builder()
    frames = Frames(a_batch(size_bytes) if size_bytes > 2 else b"[]", build)

    assert frames.of(JSON_DEFLATED) is frames.of(JSON)
    assert build.asked == [(True, False)]


def test_what_does_not_shrink_stays_plain() -> None:
    noise = random.Random(7).randbytes(4_096)

    assert deflate(noise) is None


def test_a_bigger_window_reads_it_too_and_a_smaller_one_need_not() -> None:
    batch = a_batch(60_000)
    deflated = deflate(batch)
    assert deflated is not None

    assert inflate(deflated, DEFLATE_WINDOW_BITS) == inflate(deflated, 15) == batch


@given(
    st.lists(
        st.dictionaries(st.text(max_size=8), st.text(max_size=200) | st.integers(0, 2**53), max_size=6),
        max_size=60,
    )
)
def test_whatever_is_deflated_is_smaller_and_comes_back(events: list[dict[str, Any]]) -> None:
    batch = orjson.dumps(events)

    deflated = deflate(batch)

    if deflated is not None:
        assert len(deflated) < len(batch)
        assert inflate(deflated) == batch
