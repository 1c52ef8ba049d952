"""
WebSocket frames as a server sends them: bytes in, whole messages out.

Decides where frames and messages begin and end. Does not decode payloads and does no I/O; the handshake, and every
frame we send, are the `websockets` library's. It exists because a generator that plays thousands of viewers may
spend only microseconds per frame, and because the raw bytes of a frame are the key under which its meaning is
remembered (`history.py`).

Source: RFC 6455 §5.2 (framing), §5.4 (fragmentation), §5.5 (control frames).
"""

from typing import Final, NamedTuple

OP_CONTINUATION: Final = 0x0
OP_TEXT: Final = 0x1
OP_BINARY: Final = 0x2
OP_CLOSE: Final = 0x8
OP_PING: Final = 0x9
OP_PONG: Final = 0xA

#: A server's message above this is a fault; the largest lawful ones are snapshots and 256 KiB resumes.
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024

_CONTROL_BYTES_MAX: Final = 125


class FramingError(Exception):
    """Bytes that no server following RFC 6455 sends."""


class Message(NamedTuple):
    """One message or control frame."""

    opcode: int
    payload: bytes
    #: The frame's bytes with its header, or None if the message came in fragments.
    raw: bytes | None


class FrameReader:
    """
    Cuts a byte stream into messages.

    Holds at most one unfinished frame and one unfinished message, `MESSAGE_BYTES_MAX` each.
    """

    __slots__ = ("_buffer", "_fragments", "_opcode")

    def __init__(self) -> None:
        self._buffer = b""
        self._fragments: list[bytes] = []
        self._opcode = OP_CONTINUATION

    @property
    def idle(self) -> bool:
        """Tell whether the next byte begins a new message."""
        return not self._buffer and not self._fragments

    def feed(self, data: bytes) -> list[Message]:
        """
        Return the messages that `data` completes.

        Raises:
            FramingError: If the stream cannot be a server's. The reader is of no use afterwards.
        """
        if self._buffer:
            data = self._buffer + data
        messages: list[Message] = []
        start, end = 0, len(data)
        while end - start >= 2:
            first, length = data[start], data[start + 1]
            body = start + 2
            if length & 0x80:
                raise FramingError("a masked frame from the server")
            if length == 126:
                body += 2
                if body > end:
                    break
                length = int.from_bytes(data[start + 2 : body], "big")
            elif length == 127:
                body += 8
                if body > end:
                    break
                length = int.from_bytes(data[start + 2 : body], "big")
            if length > MESSAGE_BYTES_MAX:
                raise FramingError(f"a frame of {length} bytes")
            if body + length > end:
                break
            message = self._frame(first, data[body : body + length], data[start : body + length])
            if message is not None:
                messages.append(message)
            start = body + length
        self._buffer = data[start:]
        return messages

    def _frame(self, first: int, payload: bytes, raw: bytes) -> Message | None:
        opcode, final = first & 0x0F, first & 0x80
        if first & 0x70:
            raise FramingError("reserved bits without an extension")
        if opcode >= OP_CLOSE:
            if not final or len(payload) > _CONTROL_BYTES_MAX or opcode > OP_PONG:
                raise FramingError("a malformed control frame")
            return Message(opcode, payload, raw)
        if opcode == OP_CONTINUATION:
            if not self._fragments:
                raise FramingError("a continuation of nothing")
            self._fragments.append(payload)
            if sum(map(len, self._fragments)) > MESSAGE_BYTES_MAX:
                raise FramingError("a fragmented message that is too long")
            if not final:
                return None
            whole = b"".join(self._fragments)
            self._fragments = []
            return Message(self._opcode, whole, None)
        if opcode > OP_BINARY:
            raise FramingError(f"unknown opcode {opcode}")
        if self._fragments:
            raise FramingError("a new message inside a fragmented one")
        if final:
            return Message(opcode, payload, raw)
        self._opcode = opcode
        self._fragments = [payload]
        return None
