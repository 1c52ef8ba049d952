"""The view: what each event does to a snapshot, and the snapshot rule."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import JSON, MSGPACK
from protocol.codes import EventClass
from protocol.events import EVENTS
from protocol.limits import SNAPSHOT_COMMENTS_MAX
from protocol.objects import RoomSnapshot
from protocol.view import apply_event, shelf_order
from tests.support.wire_examples import EVENT_EXAMPLES, plain

Map = dict[str, Any]


def empty_room() -> Map:
    return plain(RoomSnapshot(room="r_88", title="春茶", state="scheduled"))


def folded(*events: Map, room: Map | None = None) -> Map:
    room = empty_room() if room is None else room
    for event in events:
        assert apply_event(room, event), event["ev"]
    return room


def event(name: str, **fields: Any) -> Map:
    """Return the example of an event with other fields."""
    return {**plain(EVENT_EXAMPLES[name]), **fields}


def comment(number: int) -> Map:
    return event("comment", comment=number, text=f"第{number}条")


def test_every_fact_is_known_to_the_view() -> None:
    known = {name for name in EVENTS if apply_event(folded(), event(name))}
    facts = {name for name, kind in EVENTS.items() if kind.delivery is EventClass.FACT}

    assert known == facts | {"comment"}


def test_unknown_event_changes_nothing() -> None:
    room = folded(event("notice"))
    before = JSON.encode(room)

    assert not apply_event(room, {"ev": "from.a.later.version", "seq": 9, "at": 1, "title": "x"})
    assert JSON.encode(room) == before


def test_room_state_is_replaced() -> None:
    assert folded(event("room.state", state="live"))["state"] == "live"


def test_update_replaces_title_and_drops_what_is_absent() -> None:
    room = folded(event("room.updated"), {"ev": "room.updated", "seq": 2, "at": 2, "title": "新茶"})

    assert room["title"] == "新茶"
    assert not {"cover", "playback", "starts_at"} & set(room)


def test_update_sets_what_is_present() -> None:
    room = folded(event("room.updated"))

    assert {"cover", "playback", "starts_at"} <= set(room)


def test_notice_is_replaced_and_cleared() -> None:
    room = folded(event("notice"))
    assert room["notice"] == {"text": "今晚八点开抢", "version": 3, "card": "wxgroup"}

    folded({"ev": "notice", "seq": 2, "at": 2, "text": "", "version": 4}, room=room)
    assert room["notice"] is None


def test_shelf_is_sorted_by_place_then_id() -> None:
    puts = [
        event("item.put", item=item, sort=sort) for item, sort in [("b", 2), ("c", 1), ("a", 2), ("d", -1)]
    ]

    assert [item["item"] for item in folded(*puts)["items"]] == ["d", "c", "a", "b"]


def test_item_put_again_is_replaced_not_doubled() -> None:
    room = folded(event("item.put", item="a", title="旧"), event("item.put", item="a", title="新"))

    assert [item["title"] for item in room["items"]] == ["新"]
    assert not {"ev", "seq", "at"} & set(room["items"][0])


def test_removing_the_explained_item_ends_explaining() -> None:
    room = folded(
        event("item.put", item="a"), event("item.put", item="b"), event("item.explaining", item="a")
    )
    assert room["explaining"] == "a"

    folded(event("item.removed", item="b"), room=room)
    assert room["explaining"] == "a"

    folded(event("item.removed", item="a"), room=room)
    assert (room["explaining"], room["items"]) == (None, [])


def test_explaining_is_one_item_or_none() -> None:
    room = folded(event("item.explaining", item="a"), event("item.explaining", item="b"))
    assert room["explaining"] == "b"
    assert folded(event("item.explaining", item=None), room=room)["explaining"] is None


def test_sale_is_scheduled_adjusted_sold_out_back_and_ended() -> None:
    room = folded(
        event("seckill.scheduled", sale="s2", starts_at=20),
        event("seckill.scheduled", sale="s1", starts_at=10),
    )
    assert [sale["sale"] for sale in room["sales"]] == ["s1", "s2"]

    folded(event("seckill.adjusted", sale="s1", starts_at=10, stock=7), room=room)
    assert [sale["stock"] for sale in room["sales"]] == [7, 100]

    folded(event("seckill.sold_out", sale="s1"), room=room)
    assert [sale["state"] for sale in room["sales"]] == ["sold_out", "scheduled"]

    folded(event("seckill.back", sale="s1"), room=room)
    assert room["sales"][0]["state"] == "open"

    folded(event("seckill.ended", sale="s1"), room=room)
    assert [sale["sale"] for sale in room["sales"]] == ["s2"]


def test_packet_is_shown_until_it_is_closed() -> None:
    room = folded(
        event("redpacket.opened", packet="p2", opens_at=2), event("redpacket.opened", packet="p1", opens_at=1)
    )
    assert [packet["packet"] for packet in room["packets"]] == ["p1", "p2"]

    folded(event("redpacket.closed", packet="p1"), room=room)
    assert [packet["packet"] for packet in room["packets"]] == ["p2"]


def test_mute_of_all_is_switched() -> None:
    assert folded(event("room.muted_all", on=True))["muted_all"] is True
    assert folded(event("room.muted_all", on=True), event("room.muted_all", on=False))["muted_all"] is False


def test_last_fifty_comments_are_kept_oldest_first() -> None:
    room = folded(*map(comment, range(1, 61)))

    assert [entry["comment"] for entry in room["comments"]] == list(range(11, 61))
    assert len(room["comments"]) == SNAPSHOT_COMMENTS_MAX
    assert set(room["comments"][0]) == {"comment", "at", "from", "text", "reply_to"}


def test_comment_already_in_the_snapshot_is_not_doubled() -> None:
    room = folded(*map(comment, [1, 2, 3, 2, 3, 4]))

    assert [entry["comment"] for entry in room["comments"]] == [1, 2, 3, 4]


def test_deleted_comment_leaves_the_list_and_the_pin() -> None:
    pinned = event("comment.pinned")["comment"]
    room = folded(comment(900), comment(901), {"ev": "comment.pinned", "seq": 1, "at": 1, "comment": pinned})
    assert room["pinned"]["comment"] == 901

    folded(event("comment.deleted", comment=900), room=room)
    assert room["pinned"]["comment"] == 901

    folded(event("comment.deleted", comment=901), room=room)
    assert (room["pinned"], room["comments"]) == (None, [])


def test_unpinned_is_null() -> None:
    assert folded(event("comment.pinned"), event("comment.pinned", comment=None))["pinned"] is None


def test_removed_viewer_is_not_part_of_the_snapshot() -> None:
    assert folded(event("viewer.removed")) == empty_room()


def test_shelf_order_is_place_then_id() -> None:
    assert shelf_order({"sort": 3, "item": "a"}) == (3, "a")


# --- the snapshot rule --------------------------------------------------------------------------------------

few_ids = st.sampled_from(["a", "b", "c"])
few_times = st.integers(0, 3)
numbers = st.integers(1, 6)


def of(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Map]:
    return st.fixed_dictionaries(fields).map(lambda chosen: event(name, **chosen))


any_fact = st.one_of(
    of("room.state", state=st.sampled_from(["live", "paused", "closing", "closed"])),
    of("room.updated", title=few_ids),
    of("room.updated").map(lambda fact: {key: fact[key] for key in ("ev", "seq", "at", "title")}),
    of("notice", text=st.sampled_from(["", "好"]), version=numbers),
    of("item.put", item=few_ids, sort=few_times),
    of("item.removed", item=few_ids),
    of("item.explaining", item=few_ids | st.none()),
    of("seckill.scheduled", sale=few_ids, starts_at=few_times),
    of("seckill.adjusted", sale=few_ids, starts_at=few_times, stock=numbers),
    of("seckill.ended", sale=few_ids),
    of("seckill.sold_out", sale=few_ids),
    of("seckill.back", sale=few_ids),
    of("redpacket.opened", packet=few_ids, opens_at=few_times),
    of("redpacket.closed", packet=few_ids),
    of("room.muted_all", on=st.booleans()),
    of("comment.deleted", comment=numbers),
    st.none().map(lambda _: event("comment.pinned", comment=None)),
    numbers.map(
        lambda number: event(
            "comment.pinned", comment=event("comment.pinned")["comment"] | {"comment": number}
        )
    ),
    of("viewer.removed", viewer=few_ids, how=st.sampled_from(["kick", "ban"])),
    numbers.map(comment),
)


@given(events=st.lists(any_fact, max_size=30), data=st.data())
def test_snapshot_and_the_facts_after_it_equal_a_later_snapshot(
    events: list[Map], data: st.DataObject
) -> None:
    """The prefix is sent as a snapshot, in either codec, and read by somebody who folds in the rest."""
    cut = data.draw(st.integers(0, len(events)))
    codec = data.draw(st.sampled_from([JSON, MSGPACK]))
    later = folded(*events)

    snapshot = codec.decode(codec.encode(folded(*events[:cut])))

    assert folded(*events[cut:], room=snapshot) == later
    assert plain(msgspec.convert(later, RoomSnapshot)) == later


@given(events=st.lists(any_fact, max_size=30))
def test_folding_never_changes_an_event(events: list[Map]) -> None:
    before = JSON.encode(events)

    folded(*events, *events)

    assert JSON.encode(events) == before
