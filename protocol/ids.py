"""
Identifiers and the characters they may contain.

One alphabet for tenants, rooms, viewers, items, sales, packets and cards, so that an id can stand in a key, a
URL and a log line without escaping. Source: docs/protocol.md, "Connection".
"""

import re
from typing import Annotated, Final, NewType

from msgspec import Meta

# `$` also matches before a final newline in Python; the look-ahead closes that hole and is valid in JSON Schema.
ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)"
KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{8,64}$(?!\n)"

_ID = re.compile(ID_PATTERN)
_KEY = re.compile(KEY_PATTERN)

Id = Annotated[str, Meta(pattern=ID_PATTERN, description="1–64 of A-Za-z0-9_.-, the first a letter or digit")]
IdempotencyKey = Annotated[
    str, Meta(pattern=KEY_PATTERN, description="8–64 of A-Za-z0-9_-; scope (room, viewer, cmd)")
]

TenantId = NewType("TenantId", str)
RoomId = NewType("RoomId", str)
ViewerId = NewType("ViewerId", str)


def is_id(value: object) -> bool:
    """Tell whether `value` is a well-formed identifier."""
    return isinstance(value, str) and _ID.match(value) is not None


def is_idempotency_key(value: object) -> bool:
    """Tell whether `value` is a well-formed idempotency key."""
    return isinstance(value, str) and _KEY.match(value) is not None
