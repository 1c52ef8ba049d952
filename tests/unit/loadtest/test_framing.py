"""`loadtest/framing.py`: messages come out whole however the bytes were cut. Frames are built by `websockets`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from loadtest.framing import (
    MESSAGE_BYTES_MAX,
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_TEXT,
    FrameReader,
    FramingError,
    Message,
)


def text(payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode.TEXT, payload, fin=fin).serialize(mask=False)


def more(payload: bytes, *, fin: bool) -> bytes:
    return Frame(Opcode.CONT, payload, fin=fin).serialize(mask=False)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_frame_of_any_length_is_one_message(length: int) -> None:
    raw = text(b"x" * length)

    assert FrameReader().feed(raw) == [Message(OP_TEXT, b"x" * length, raw)]


def test_merged_frames_come_apart() -> None:
    frames = [text(b"one"), Frame(Opcode.BINARY, b"two").serialize(mask=False), text(b"")]

    messages = FrameReader().feed(b"".join(frames))

    assert [(message.opcode, message.payload) for message in messages] == [
        (OP_TEXT, b"one"),
        (OP_BINARY, b"two"),
        (OP_TEXT, b""),
    ]
    assert [message.raw for message in messages] == frames


def test_split_frame_waits_for_its_end() -> None:
    reader, raw = FrameReader(), text(b"x" * 300)

    for byte in raw[:-1]:
        assert reader.feed(bytes([byte])) == []
        assert not reader.idle
    assert reader.feed(raw[-1:]) == [Message(OP_TEXT, b"x" * 300, raw)]
    assert reader.idle


@given(
    payloads=st.lists(st.binary(max_size=400), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=3000), max_size=12),
)
def test_cuts_do_not_matter(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(text(payload) for payload in payloads)
    reader, found, start = FrameReader(), [], 0
    for cut in [*sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]:
        found += reader.feed(stream[start:cut])
        start = cut

    assert [message.payload for message in found] == payloads
    assert reader.idle


def test_fragments_are_joined_and_have_no_raw_form() -> None:
    """RFC 6455 §5.4: control frames "MAY be injected in the middle of a fragmented message"."""
    reader = FrameReader()
    ping = Frame(Opcode.PING, b"p").serialize(mask=False)

    messages = reader.feed(text(b"a", fin=False) + more(b"b", fin=False) + ping)
    assert [message.opcode for message in messages] == [OP_PING]
    assert not reader.idle

    assert reader.feed(more(b"c", fin=True)) == [Message(OP_TEXT, b"abc", None)]
    assert reader.idle


def test_close_frame_keeps_code_and_reason() -> None:
    raw = Frame(Opcode.CLOSE, Close(4501, "slow").serialize()).serialize(mask=False)

    [message] = FrameReader().feed(raw)

    assert message.opcode == OP_CLOSE
    assert Close.parse(message.payload) == Close(4501, "slow")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (Frame(Opcode.TEXT, b"x").serialize(mask=True), "masked"),
        (b"\xc1\x00", "reserved bits"),
        (b"\x83\x00", "unknown opcode"),
        (b"\x80\x00", "continuation of nothing"),
        (b"\x01\x00\x81\x00", "inside a fragmented"),
        (b"\x09\x00", "control"),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, "control"),
        (b"\x8b\x00", "control"),
        (b"\x81\x7f" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big"), "bytes"),
    ],
)
def test_what_no_server_sends_is_a_fault(raw: bytes, fault: str) -> None:
    with pytest.raises(FramingError, match=fault):
        FrameReader().feed(raw)
