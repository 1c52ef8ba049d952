"""Both codecs: what they carry alike, and which bytes they refuse."""

import math
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import CODECS, JSON, MSGPACK, Codec, transcode
from protocol.codes import SUBPROTOCOLS
from protocol.errors import MalformedFrame

BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))

plain_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text("abc多", max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


@BOTH
@given(value=plain_values)
def test_value_comes_back(codec: Codec, value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value


@given(value=plain_values)
def test_transcoding_is_decoding_and_encoding(value: Any) -> None:
    assert transcode(JSON.encode(value)) == MSGPACK.encode(value)


@BOTH
def test_truncated_bytes_are_refused(codec: Codec) -> None:
    whole = codec.encode({"cmd": "ping", "id": 1, "list": [1, 2, {"a": "多少钱"}]})

    for end in range(len(whole)):
        with pytest.raises(MalformedFrame):
            codec.decode(whole[:end])


@BOTH
def test_bytes_after_the_value_are_refused(codec: Codec) -> None:
    whole = codec.encode({"cmd": "ping", "id": 1})

    for rest in (whole, b"\x00", b"\xc0", b"x", b","):
        with pytest.raises(MalformedFrame):
            codec.decode(whole + rest)


@pytest.mark.parametrize(
    "bomb",
    [b"[" * 8192, b'{"a":' * 1500, b"[" * 4000 + b"]" * 4000, b'[{"a":' * 1300],
    ids=["open-lists", "open-maps", "lists", "mixed"],
)
def test_json_depth_bomb_is_refused(bomb: bytes) -> None:
    with pytest.raises(MalformedFrame):
        JSON.decode(bomb)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 8191 + b"\xc0",
        b"\x81\xa1a" * 2700 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ],
    ids=["lists", "maps", "claimed-list", "claimed-map"],
)
def test_msgpack_bomb_is_refused(bomb: bytes) -> None:
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(bomb)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc4\x01x",
        b"\x91\xc4\x01x",
        b"\x81\xa1a\xc4\x01x",
        b"\x81\xc4\x01a\x01",
        b"\x81\xa1a\x92\x01\xc5\x00\x01x",
    ],
    ids=["alone", "in-list", "in-map", "as-key", "deep"],
)
def test_msgpack_binary_string_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(data)


@pytest.mark.parametrize(
    "value",
    [msgpack.ExtType(5, b"x"), msgpack.ExtType(127, b""), msgpack.Timestamp(1, 2)],
    ids=["ext-5", "ext-127", "timestamp"],
)
def test_msgpack_extension_type_is_refused(value: Any) -> None:
    for holder in (value, [value], {"a": value}, {"a": [1, {"b": value}]}):
        with pytest.raises(MalformedFrame):
            MSGPACK.decode(msgpack.packb(holder))


@pytest.mark.parametrize("key", [1, True, None, 1.5, b"a", (1, 2)], ids=repr)
def test_msgpack_key_that_is_not_text_is_refused(key: Any) -> None:
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(msgpack.packb({"a": {key: 1}}))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=repr)
def test_msgpack_number_that_is_not_finite_is_refused(number: float) -> None:
    for holder in (number, [number], {"a": {"b": number}}):
        with pytest.raises(MalformedFrame):
            MSGPACK.decode(msgpack.packb(holder))
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(b"\xca" + struct.pack(">f", number))


@pytest.mark.parametrize("data", [b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"[1e999]"], ids=repr)
def test_json_number_that_is_not_finite_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        JSON.decode(data)


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe5\xa4"], ids=repr
)
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    """`ED A0 80` is a lone surrogate, `C0 80` an overlong zero: RFC 3629 forbids both."""
    with pytest.raises(MalformedFrame):
        JSON.decode(b'"' + text + b'"')
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(bytes([0xA0 + len(text)]) + text)


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udfff", rb"\udc00\ud800", rb"\ud83dx"], ids=repr)
def test_json_escape_of_half_a_surrogate_pair_is_refused(escape: bytes) -> None:
    with pytest.raises(MalformedFrame):
        JSON.decode(b'{"text":"' + escape + b'"}')


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{'a':1}", b"{a:1}", b"[1,]", b"01", b"\xef\xbb\xbf[]", b"[1]//x", b"nul", b'"\t"'],
    ids=repr,
)
def test_what_only_looks_like_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        JSON.decode(data)


def test_msgpack_byte_that_is_never_used_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        MSGPACK.decode(b"\xc1")


@BOTH
def test_last_of_two_equal_keys_wins(codec: Codec) -> None:
    data = {"json": b'{"a":1,"a":2}', "msgpack": b"\x82\xa1a\x01\xa1a\x02"}[codec.name]

    assert codec.decode(data) == {"a": 2}


@BOTH
def test_codec_knows_its_subprotocol(codec: Codec) -> None:
    assert codec.subprotocol == SUBPROTOCOLS[codec.name]
    assert codec.is_text is (codec.name == "json")
