"""
Bytes ↔ plain values, in JSON and in MessagePack.

Decides how a value is written and which bytes are refused. Both codecs carry the same maps. Does not know commands
or events (`frames.py`). JSON is UTF-8 in text frames, MessagePack travels in binary frames.

Sources: RFC 8259; the MessagePack specification; docs/protocol.md, "Connection".
"""

import math
from typing import Any, Final, Protocol

import msgpack
import orjson

from protocol.codes import SUBPROTOCOLS
from protocol.errors import MalformedFrame


class Codec(Protocol):
    """One way to write frames."""

    name: str
    subprotocol: str
    #: Whether its frames are WebSocket text frames.
    is_text: bool

    def encode(self, value: Any) -> bytes:
        """Return `value` as bytes."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value in `data`. Raises MalformedFrame."""
        ...


class JsonCodec:
    """UTF-8 JSON in text frames."""

    name = "json"
    subprotocol = SUBPROTOCOLS["json"]
    is_text = True

    def encode(self, value: Any) -> bytes:
        """Return `value` as UTF-8 JSON without white space."""
        return orjson.dumps(value)

    def decode(self, data: bytes) -> Any:
        """
        Return the value in `data`.

        Raises:
            MalformedFrame: If it is not UTF-8 JSON, is nested too deeply, or holds a lone surrogate.
        """
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise MalformedFrame(f"not JSON: {error}") from None


class MsgpackCodec:
    """MessagePack in binary frames: string keys, no extension types, no binary strings."""

    name = "msgpack"
    subprotocol = SUBPROTOCOLS["msgpack"]
    is_text = False

    def encode(self, value: Any) -> bytes:
        """Return `value` as MessagePack."""
        packed: bytes = msgpack.packb(value, use_bin_type=True)
        return packed

    def decode(self, data: bytes) -> Any:
        """
        Return the value in `data`.

        Raises:
            MalformedFrame: If it is not exactly one MessagePack value, has keys that are not strings, an extension
                type, a binary string or a number that JSON cannot say, is nested too deeply, or holds text that is
                not UTF-8.
        """
        try:
            value = msgpack.unpackb(
                data,
                raw=False,
                strict_map_key=True,
                ext_hook=_refuse_extension,
                object_hook=_only_shared_types_in_map,
                list_hook=_only_shared_types,
            )
            # The hooks see what stands in a map or an array, not a lone value.
            return _only_shared_types((value,))[0]
        except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
            raise MalformedFrame(f"not MessagePack: {error}") from None


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the protocol")


def _only_shared_types_in_map(values: dict[Any, Any]) -> dict[Any, Any]:
    # msgpack's strict keys still let binary strings through.
    for key in values:
        if type(key) is not str:
            raise ValueError("a key is not a string")
    _only_shared_types(values.values())
    return values


def _only_shared_types(values: Any) -> Any:
    """Return the collection `values` when each of them is of a type both codecs have."""
    for value in values:
        kind = type(value)
        if kind is bytes or kind is msgpack.Timestamp:
            raise ValueError("a binary string or time stamp is not part of the protocol")
        if kind is float and not math.isfinite(value):
            raise ValueError("a number is not finite")
    return values


JSON: Final = JsonCodec()
MSGPACK: Final = MsgpackCodec()
CODECS: Final[dict[str, Codec]] = {JSON.name: JSON, MSGPACK.name: MSGPACK}


def transcode(payload: bytes) -> bytes:
    """Return a JSON payload of ours as MessagePack. Used once per flush for the MessagePack viewers of a room."""
    return MSGPACK.encode(orjson.loads(payload))
