"""
What sales and red packets have in common: gates, and states that follow from the clock.

Decides how `eligible` is handed to the store, and what a snapshot says of a campaign at a moment. Whether somebody may
take part is decided in the store, when they try. Pure.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
from msgspec import UNSET

from protocol.objects import Eligibility
from protocol.view import Map


def gates(eligible: Eligibility | None) -> tuple[str | bytes | int, ...]:
    """Return `eligible` as JSON and its gates, each '' when open: tags, level, dwell, first order, shared."""
    if eligible is None:
        return ("", "", "", "", "", "")
    # A list without a tag lets nobody in; a gate that is '' would let everybody.
    tags = "" if eligible.tags is UNSET else _one_word_each(eligible.tags) or ","
    return (
        orjson.dumps(msgspec.to_builtins(eligible)),
        tags,
        _or_empty(eligible.level_min),
        _or_empty(eligible.dwell_s),
        "1" if eligible.first_order is True else "",
        _or_empty(eligible.shared),
    )


def _or_empty(value: Any) -> Any:
    return "" if value is UNSET else value


def tag_words(tags: tuple[str, ...]) -> str:
    """Return a token's tags with a comma at both ends, as the store searches them."""
    return "," + _one_word_each(tags) + ","


def _one_word_each(tags: Iterable[str]) -> str:
    return ",".join(tag.replace(",", " ") for tag in tags)


def sale_state_at(sale: Map, now_ms: int) -> str:
    """Return the state of a sale at a moment. Sold out and paused are told by events, the rest by the clock."""
    state: str = sale["state"]
    if state == "ended" or now_ms >= sale["ends_at"]:
        return "ended"
    if state in ("paused", "sold_out"):
        return state
    return "scheduled" if now_ms < sale["starts_at"] else "open"


def packet_state_at(packet: Map, now_ms: int) -> str:
    """Return the state of a red packet at a moment."""
    state: str = packet["state"]
    if state in ("empty", "closed"):
        return state
    if now_ms >= packet["expires_at"]:
        return "closed"
    return "scheduled" if now_ms < packet["opens_at"] else "open"


def states_at(view: Map, now_ms: int) -> int | None:
    """
    Bring the states in a snapshot up to a moment, in place.

    Returns:
        When the next of them changes by itself (milliseconds), or None.
    """
    moments: list[int] = []
    for sale in view["sales"]:
        sale["state"] = sale_state_at(sale, now_ms)
        moments += (sale["starts_at"], sale["ends_at"])
    for packet in view["packets"]:
        packet["state"] = packet_state_at(packet, now_ms)
        moments += (packet["opens_at"], packet["expires_at"])
    return min((moment for moment in moments if moment > now_ms), default=None)
