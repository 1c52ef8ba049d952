"""
Replies of the store → types.

Decides how coded and flat replies are read, and what an answer is: the JSON of `ok`, or why there is none. Pure.
"""

from collections.abc import Callable
from typing import Any

import orjson

from engine.errors import CommandRejected, LiveroomError, rejected
from engine.store.batch import Done
from protocol.codes import ErrorCode

#: JSON of `ok`, or why there is none.
Answer = bytes | LiveroomError
Answered = Callable[[Answer], None]
#: The total of likes and the commands refused, by place, with milliseconds to wait; or why none was counted.
LikesAnswer = tuple[int, dict[int, int]] | LiveroomError


def rows(flat: list[Any], width: int) -> list[list[Any]]:
    """Return a flat list as rows of `width`."""
    return [flat[at : at + width] for at in range(0, len(flat), width)]


def page(reply: Any) -> tuple[int, list[tuple[int, bytes]]] | None:
    """Return (newest number, numbered entries) of a cursor pull, or None when there is no such room."""
    if not reply:
        return None
    return int(reply[0]), [(int(number), json) for number, json in pairs(reply[1:])]


def body(reply: Any) -> bytes:
    """Return the JSON of an `ok`. Raises CommandRejected for any other code."""
    if reply[0] != b"ok":
        raise to_rejection(reply)
    body: bytes = reply[1]
    return body


def pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    """Return a flat list as pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def extra(fragment: bytes) -> dict[str, Any]:
    """Return the fields a refusal adds."""
    fields: dict[str, Any] = orjson.loads(b"{" + fragment + b"}")
    return fields


def info(reply: bytes) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    lines = bytes(reply).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def to_answer(own: Any, error: Exception | None) -> Answer:
    """Turn a coded reply, or a failure, into the JSON of `ok` or the error to send."""
    if error is not None:
        assert isinstance(error, LiveroomError), error
        return error
    if own[0] == b"ok":
        json: bytes = own[1]
        return json
    return to_rejection(own)


def to_rejection(own: Any) -> CommandRejected:
    """Turn the coded reply of a refusal into the error to send."""
    return rejected(ErrorCode(own[0].decode()), None, extra(own[1]) if len(own) > 1 else {})


def answer(answered: Answered) -> Done:
    """Return the callback of a call whose reply is coded."""

    def done(header: Any, own: Any, error: Exception | None) -> None:
        answered(to_answer(own, error))

    return done
