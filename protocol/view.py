"""
What a screen knows: a snapshot with the events after it folded in.

Decides what each event does to the snapshot, which is the rule "snapshot + the facts after it == a later snapshot"
as code. The engine keeps one per room and worker to answer joins without asking the store, load tests and tests
compare theirs with the server's. Pure; maps in the shape of `RoomSnapshot`, so that nothing is converted twice.

Does not check `seq` (`connection.py`, `engine/fanout/hub.py`) and does not read a clock: a sale's `state` follows
from its times when it is read.
"""

from collections.abc import Callable
from typing import Any, Final

from protocol.limits import SNAPSHOT_COMMENTS_MAX

Map = dict[str, Any]

_ENVELOPE: Final = ("ev", "seq", "at")


def apply_event(room: Map, event: Map) -> bool:
    """
    Fold one event into the snapshot `room`, in place.

    Returns:
        Whether the event is one this reducer knows. Unknown events change nothing.
    """
    reducer = _REDUCERS.get(event["ev"])
    if reducer is None:
        return False
    reducer(room, event)
    return True


def _object(event: Map) -> Map:
    return {name: value for name, value in event.items() if name not in _ENVELOPE}


def _room_state(room: Map, event: Map) -> None:
    room["state"] = event["state"]


def _room_updated(room: Map, event: Map) -> None:
    for field in ("title", "cover", "playback", "starts_at"):
        if field in event:
            room[field] = event[field]
        else:
            room.pop(field, None)


def _notice(room: Map, event: Map) -> None:
    room["notice"] = _object(event) if event["text"] else None


def shelf_order(item: Map) -> tuple[int, str]:
    """Return the sort key of the shelf: ascending `sort`, ties by item id."""
    return item["sort"], item["item"]


def _item_put(room: Map, event: Map) -> None:
    items = [item for item in room["items"] if item["item"] != event["item"]]
    items.append(_object(event))
    items.sort(key=shelf_order)
    room["items"] = items


def _item_removed(room: Map, event: Map) -> None:
    room["items"] = [item for item in room["items"] if item["item"] != event["item"]]
    if room["explaining"] == event["item"]:
        room["explaining"] = None


def _item_explaining(room: Map, event: Map) -> None:
    room["explaining"] = event["item"]


def sale_order(sale: Map) -> tuple[int, str]:
    """Return the sort key of sales: the earliest start first, ties by id."""
    return sale["starts_at"], sale["sale"]


def packet_order(packet: Map) -> tuple[int, str]:
    """Return the sort key of red packets: the earliest opening first, ties by id."""
    return packet["opens_at"], packet["packet"]


def _sale_changed(room: Map, event: Map) -> None:
    sales = [sale for sale in room["sales"] if sale["sale"] != event["sale"]]
    sales.append(_object(event))
    sales.sort(key=sale_order)
    room["sales"] = sales


def _sale_ended(room: Map, event: Map) -> None:
    room["sales"] = [sale for sale in room["sales"] if sale["sale"] != event["sale"]]


def _sale_state(room: Map, event: Map) -> None:
    state = "sold_out" if event["ev"] == "seckill.sold_out" else "open"
    for sale in room["sales"]:
        if sale["sale"] == event["sale"]:
            sale["state"] = state


def _packet_opened(room: Map, event: Map) -> None:
    packets = [packet for packet in room["packets"] if packet["packet"] != event["packet"]]
    packets.append(_object(event))
    packets.sort(key=packet_order)
    room["packets"] = packets


def _packet_closed(room: Map, event: Map) -> None:
    room["packets"] = [packet for packet in room["packets"] if packet["packet"] != event["packet"]]


def _muted_all(room: Map, event: Map) -> None:
    room["muted_all"] = event["on"]


def _comment_deleted(room: Map, event: Map) -> None:
    room["comments"] = [entry for entry in room["comments"] if entry["comment"] != event["comment"]]
    if room["pinned"] is not None and room["pinned"]["comment"] == event["comment"]:
        room["pinned"] = None


def _comment_pinned(room: Map, event: Map) -> None:
    room["pinned"] = event["comment"]


def _comment(room: Map, event: Map) -> None:
    comments = room["comments"]
    # Chat carries no `seq`: one that arrives around the snapshot may be in it already. Numbers rise.
    if comments and event["comment"] <= comments[-1]["comment"]:
        return
    comments.append({name: value for name, value in event.items() if name != "ev"})
    if len(comments) > SNAPSHOT_COMMENTS_MAX:
        del comments[: len(comments) - SNAPSHOT_COMMENTS_MAX]


def _nothing(room: Map, event: Map) -> None:
    """A removed viewer is not part of the snapshot."""


_REDUCERS: Final[dict[str, Callable[[Map, Map], None]]] = {
    "room.state": _room_state,
    "room.updated": _room_updated,
    "notice": _notice,
    "item.put": _item_put,
    "item.removed": _item_removed,
    "item.explaining": _item_explaining,
    "seckill.scheduled": _sale_changed,
    "seckill.adjusted": _sale_changed,
    "seckill.ended": _sale_ended,
    "seckill.sold_out": _sale_state,
    "seckill.back": _sale_state,
    "redpacket.opened": _packet_opened,
    "redpacket.closed": _packet_closed,
    "room.muted_all": _muted_all,
    "comment.deleted": _comment_deleted,
    "comment.pinned": _comment_pinned,
    "viewer.removed": _nothing,
    "comment": _comment,
}
