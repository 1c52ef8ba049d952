"""
The envelope: a frame ↔ commands, a frame ↔ replies and events.

Decides what a readable frame is, and gives every map in it exactly one outcome: a command, or the refusal that
answers it. Does not decide what an unreadable frame costs (`connection.py`).

Source: docs/protocol.md, "Frames".
"""

from dataclasses import dataclass
from typing import Any

from protocol.codec import Codec
from protocol.codes import ErrorCode
from protocol.commands import Command, parse
from protocol.errors import BadCommand, MalformedFrame
from protocol.limits import COMMAND_ID_MAX, COMMANDS_PER_FRAME_MAX, NESTING_MAX


@dataclass(frozen=True, slots=True)
class Request:
    """One command with the `id` its reply will carry, and the map it came from."""

    id: int
    command: Command
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a map, or a whole frame, that is not a command. `id` is 0 when it had no usable one."""

    id: int
    code: ErrorCode
    message: str
    #: `cmd` of the refused map, if it was a string: a refused join closes the connection.
    cmd: str = ""

    @property
    def is_violation(self) -> bool:
        """Tell whether it counts towards the close with 4400."""
        return self.id == 0


def read_commands(codec: Codec, data: bytes, is_text: bool) -> list[Request | Refusal]:
    """
    Read a client's frame: one map or an array of up to 32.

    An unreadable frame is one refusal with id 0. An empty array is readable and asks for nothing.
    """
    if is_text is not codec.is_text:
        expected = "text" if codec.is_text else "binary"
        return [Refusal(0, ErrorCode.BAD_FRAME, f"{codec.subprotocol} uses {expected} frames")]
    try:
        value = codec.decode(data)
    except MalformedFrame as error:
        return [Refusal(0, ErrorCode.BAD_FRAME, str(error))]
    if type(value) is dict:
        return [_read_one(value)]
    if type(value) is not list:
        return [Refusal(0, ErrorCode.BAD_FRAME, "a frame is a map or an array of maps")]
    if len(value) > COMMANDS_PER_FRAME_MAX:
        return [Refusal(0, ErrorCode.BAD_FRAME, f"more than {COMMANDS_PER_FRAME_MAX} commands in a frame")]
    return [_read_one(entry) for entry in value]


def _read_one(message: Any) -> Request | Refusal:
    if type(message) is not dict:
        return Refusal(0, ErrorCode.BAD_COMMAND, "a command is a map")
    command_id = message.get("id")
    cmd = message.get("cmd")
    name = cmd if type(cmd) is str else ""
    if type(command_id) is not int or not 0 < command_id <= COMMAND_ID_MAX:
        return Refusal(0, ErrorCode.BAD_COMMAND, "`id` must be an integer from 1 to 4294967295", name)
    if _is_deeper(message, NESTING_MAX):
        return Refusal(command_id, ErrorCode.BAD_COMMAND, f"nested deeper than {NESTING_MAX}", name)
    try:
        return Request(command_id, parse(message), message)
    except BadCommand as error:
        return Refusal(command_id, error.code, error.message, name)
    except MalformedFrame as error:
        return Refusal(0, ErrorCode.BAD_FRAME, str(error), name)


def _is_deeper(value: Any, levels_max: int) -> bool:
    """Tell whether maps and arrays stand inside each other more than `levels_max` times, `value` included."""
    # Fields nobody knows are kept with the command, and writers of JSON give up long before readers do.
    if levels_max == 0:
        return True
    for inner in value.values() if type(value) is dict else value:
        if type(inner) in (dict, list) and _is_deeper(inner, levels_max - 1):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Reply:
    """The one answer to a command."""

    id: int
    #: The body of `ok`, or None when refused.
    ok: dict[str, Any] | None
    #: The body of `err`, or None when done.
    err: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Said:
    """One event, as the map it travelled in."""

    name: str
    body: dict[str, Any]

    @property
    def seq(self) -> int | None:
        """Return the place among the room's facts, or None for other classes."""
        seq = self.body.get("seq")
        return seq if type(seq) is int else None


def read_messages(codec: Codec, data: bytes, is_text: bool) -> list[Reply | Said]:
    """
    Read a server's frame: always an array of replies and events.

    Raises:
        MalformedFrame: If it is anything else.
    """
    if is_text is not codec.is_text:
        raise MalformedFrame("wrong frame type for the codec")
    value = codec.decode(data)
    if not isinstance(value, list):
        raise MalformedFrame("a server's frame is an array")
    return [_read_message(entry) for entry in value]


def _read_message(message: Any) -> Reply | Said:
    if not isinstance(message, dict):
        raise MalformedFrame("a message is a map")
    if "re" in message:
        ok, err = message.get("ok"), message.get("err")
        if type(message["re"]) is not int or (ok is None) is (err is None):
            raise MalformedFrame("a reply has `re` and either `ok` or `err`")
        if not isinstance(ok if err is None else err, dict):
            raise MalformedFrame("`ok` and `err` are maps")
        return Reply(message["re"], ok, err)
    name = message.get("ev")
    if not isinstance(name, str):
        raise MalformedFrame("a message has `re` or `ev`")
    return Said(name, message)
