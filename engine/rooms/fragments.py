"""
Insides of JSON objects that the store completes.

The store gives a fact its `seq` and `at`, a comment its number, an item its place; it does so by joining strings, so
that no text is decoded and encoded again in Lua. This module makes the other part: the fields a command brings,
encoded once, without the braces. Pure.
"""

import hashlib
from typing import Any, Final

import orjson
from msgspec import UNSET

from protocol.commands import Command, PostComment, PutItem, SetNotice

_FINGERPRINT_BYTES: Final = 8


def inside(fields: dict[str, Any]) -> bytes:
    """Return `fields` as JSON without the surrounding braces; fields that are None or unset are left out."""
    present = {name: value for name, value in fields.items() if value is not None and value is not UNSET}
    return orjson.dumps(present)[1:-1]


def fingerprint(command: Command) -> str:
    """
    Return a digest of what a command asks, without its key: the same key with another digest is a conflict.

    64 bits compare two commands of one viewer under one key, so chance does not matter and an attacker only cheats
    themselves.
    """
    fields = {name: getattr(command, name) for name in command.__struct_fields__ if name != "key"}
    encoded = orjson.dumps(fields, default=_struct_fields, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(encoded, digest_size=_FINGERPRINT_BYTES).hexdigest()


def _struct_fields(value: Any) -> Any:
    if value is UNSET:
        return None
    return {name: getattr(value, name) for name in value.__struct_fields__}


def comment_body(command: PostComment, sender: bytes) -> bytes:
    """Return what follows `comment` and `at` in a comment. `sender` is already JSON."""
    return b'"from":' + sender + b"," + inside({"text": command.text, "reply_to": command.reply_to})


def notice_body(command: SetNotice) -> bytes:
    """Return what stands before `version` in a notice."""
    return inside({"text": command.text, "card": command.card})


def item_body(command: PutItem) -> bytes:
    """Return what stands before `sort` and `sold_out` in an item."""
    return inside(
        {
            "item": command.item,
            "title": command.title,
            "price_cents": command.price_cents,
            "cover": command.cover,
            "url": command.url,
        }
    )


def audit_body(command: Command) -> bytes:
    """Return the command as JSON for the audit trail."""
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return orjson.dumps(fields, default=_struct_fields)
