"""Functions of `rooms.lua`: a room's life, and reading it."""

from typing import Any

import orjson
import pytest
import redis

from engine.rooms.lifecycle import ROOM_TRANSITIONS, STEPS
from engine.store.functions import library
from engine.store.keys import tenant_codes, tenant_rooms
from protocol.codes import RoomState
from tests.support.stores import LuaRoom, fresh_key

EVERY_STATE = [state.value for state in RoomState]
OVER = ["closing", "closed"]


def call_every_writer(room: LuaRoom) -> dict[str, Any]:
    """Call every function that writes, once; return the code each replied."""
    replies = {
        "room_step": room.step("scheduled", "live"),
        "room_settle": room.settle(),
        "notice_set": room.notice("hello"),
        "item_put": room.put_item("tea"),
        "item_remove": room.remove_item("tea"),
        "item_explain": room.explain("tea"),
        "item_unexplain": room.unexplain("tea"),
        "viewer_mute": room.mute("anna"),
        "viewer_unmute": room.unmute("anna"),
        "viewer_remove": room.remove("anna", "ban"),
        "viewer_unban": room.unban("anna"),
        "room_mute_all": room.mute_all(True),
        "comment_delete": room.delete_comment(1),
        "comment_pin": room.pin(1),
        "comment_unpin": room.unpin(1),
        "comment_post": room.say("anna"),
        "likes_add": room.like(3),
        "room_join": room.enter("w", "anna"),
        "host_check": room.host_check(),
    }
    return {name: reply[0] for name, reply in replies.items()}


# --- room_put -------------------------------------------------------------------------------------------------


def test_room_begins_scheduled_with_an_epoch_and_no_facts(nowhere: LuaRoom) -> None:
    assert nowhere.put('"title":"Tea"') == ["created"]

    assert nowhere.meta("state") == "scheduled"
    assert nowhere.meta("epoch") == "e0"
    assert nowhere.since(0) == ["e0", "0", "1"]
    assert nowhere.wire.read() == []


def test_room_put_again_with_the_same_description_changes_nothing(room: LuaRoom) -> None:
    with room.unchanged():
        assert room.put('"title":"Tea"') == ["unchanged"]


def test_changed_description_is_a_fact(room: LuaRoom) -> None:
    assert room.put('"title":"绿茶","cover":"https://a.example/1"') == ["updated"]

    (fact,) = room.facts()
    assert fact["ev"] == "room.updated"
    assert (fact["title"], fact["cover"]) == ("绿茶", "https://a.example/1")


def test_settings_of_a_room_change_without_a_fact(room: LuaRoom) -> None:
    assert room.put(slow_ms=3_000, kept_ms=700_000) == ["unchanged"]

    assert (room.meta("slow_ms"), room.meta("facts_kept_ms")) == ("3000", "700000")
    assert room.facts() == []


@pytest.mark.parametrize("state", OVER)
def test_room_that_is_over_is_not_changed(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    with room.unchanged():
        assert room.put('"title":"new"') == ["room_not_live", f'"state":"{state}"']


def test_nothing_but_room_put_creates_a_room(nowhere: LuaRoom) -> None:
    codes = call_every_writer(nowhere)

    assert codes.pop("host_check") == "done"
    assert set(codes.values()) == {"room_not_found"}
    assert nowhere.leave("w", ("anna", 1)) == [[], ["ok"]]
    assert nowhere.beat("w") == []
    assert nowhere.purge("w") == ["ok", 0]
    assert nowhere.dump() == {}
    assert nowhere.wire.read() == []


def test_reading_a_missing_room_answers_with_nothing(nowhere: LuaRoom) -> None:
    names = nowhere.names

    assert nowhere.read() == []
    assert nowhere.since(0) == []
    assert (
        nowhere.call(
            "room_stats", [names.meta, names.present, names.viewers, names.entries, names.leases], []
        )
        == []
    )
    assert nowhere.call("audit_page", [names.meta, names.audit], ["", 10]) == []


# --- room_step, room_settle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", EVERY_STATE)
@pytest.mark.parametrize("name", STEPS)
def test_step_is_taken_repeated_or_refused_as_the_table_says(room: LuaRoom, name: str, state: str) -> None:
    step = STEPS[name]
    room.set_meta(state=state)

    code, reply = room.step(",".join(step.origins), step.target, command=name)

    if state in step.origins:
        assert (code, orjson.loads(reply)) == ("ok", {"state": step.target})
        assert RoomState(step.target) in ROOM_TRANSITIONS[RoomState(state)]
        (fact,) = room.facts()
        assert (fact["ev"], fact["state"]) == ("room.state", step.target)
        assert room.audit()[0]["before"] == f'{{"state":"{state}"}}'
    elif state == step.target or (name == "room.close" and state in OVER):
        assert (code, orjson.loads(reply)) == ("ok", {"state": state, "again": True})
        assert room.facts() == []
        assert room.audit() == []
    else:
        assert (code, reply) == ("conflict", f'"state":"{state}"')
        assert room.facts() == []


def test_state_that_is_part_of_another_name_is_no_origin(room: LuaRoom) -> None:
    room.set_meta(state="closed")

    assert room.step("closedish,xclosed", "live")[0] == "conflict"


def test_step_repeated_with_its_key_replies_the_same_after_later_steps(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.step("live", "paused", key=key)
    room.step("paused", "live")

    with room.unchanged():
        assert room.step("live", "paused", key=key) == first


def test_closing_room_settles_once(room: LuaRoom) -> None:
    room.set_meta(state="closing")

    assert room.settle() == ["closed"]
    assert [(fact["ev"], fact["state"]) for fact in room.facts()] == [("room.state", "closed")]
    with room.unchanged():
        assert room.settle() == ["not_closing"]


@pytest.mark.parametrize("state", ["scheduled", "live", "paused"])
def test_room_that_is_not_closing_is_not_settled(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    with room.unchanged():
        assert room.settle() == ["not_closing"]


@pytest.mark.parametrize("state", OVER)
def test_room_that_is_over_refuses_every_console_command(room: LuaRoom, state: str) -> None:
    room.put_item("tea")
    room.say("anna")
    room.set_meta(state=state)
    room.wire.read()
    before = room.dump()

    codes = {
        reply[0]
        for reply in (
            room.notice("x"), room.put_item("x"), room.remove_item("tea"), room.explain("tea"), room.unexplain("tea"),
            room.mute("a"), room.unmute("a"), room.remove("a", "kick"), room.unban("a"), room.mute_all(True),
            room.delete_comment(1), room.pin(1), room.unpin(1), room.say("anna"), room.like(1),
        )
    }  # fmt: skip

    assert codes == {"room_not_live"}
    assert room.dump() == before
    assert room.wire.read() == []


# --- reading --------------------------------------------------------------------------------------------------


def test_room_is_read_at_one_moment_with_items_in_shelf_order(room: LuaRoom) -> None:
    room.put_item("b", 2)
    room.put_item("c", 1)
    room.put_item("a", 2)
    for text in ("one", "two", "three"):
        room.say("anna", text)
    room.enter("w", "anna")

    now, meta, items, comments, facts, online, *_ = room.read(comments=2, facts=2)

    fields = dict(zip(meta[::2], meta[1::2], strict=True))
    assert int(now) <= room.now()
    assert fields["seq"] == "3"
    assert [orjson.loads(item)["item"] for item in items] == ["c", "a", "b"]
    assert comments[::2] == ["2", "3"]
    assert [orjson.loads(json)["text"] for json in comments[1::2]] == ["two", "three"]
    assert facts[::2] == ["2", "3"]
    assert [orjson.loads(json)["seq"] for json in facts[1::2]] == [2, 3]
    assert online == 1


def test_full_shelf_is_read_whole(room: LuaRoom) -> None:
    items = {f"i{number}": f'{{"item":"i{number}"}}' for number in range(500)}
    room.client.hset(room.names.items, mapping=items)
    room.client.zadd(room.names.shelf, {item: number for number, item in enumerate(items)})

    assert room.read()[2] == list(items.values())


def test_facts_after_a_place_come_in_pages(room: LuaRoom) -> None:
    for number in range(5):
        room.notice(f"n{number}")

    assert room.since(0, 2)[:3] == ["e0", "5", "1"]
    assert room.since(0, 2)[3::2] == ["1", "2"]
    assert room.since(2, 2)[3::2] == ["3", "4"]
    assert room.since(4, 2)[3::2] == ["5"]
    assert room.since(5)[3:] == []
    assert room.since(2**53 - 1)[3:] == []


def test_first_fact_held_is_told_after_older_ones_have_left(room: LuaRoom) -> None:
    for number in range(5):
        room.notice(f"n{number}")
    room.client.xtrim(room.names.log, minid="4-0", approximate=False)

    assert room.since(0)[:3] == ["e0", "5", "4"]


def test_stats_count_what_happened(room: LuaRoom) -> None:
    room.join("w", ("a", 1, 0, "app"), ("b", 2, 0, "app"), ("a-b.c", 3, 0, "official_account"))
    room.leave("w", ("a", 1))
    room.say("b")
    room.like(2**40)

    names = room.names
    reply = room.call(
        "room_stats", [names.meta, names.present, names.viewers, names.entries, names.leases], []
    )

    # Shares, orders by status and money stand between the totals and the entries.
    online, peak, viewers, likes, comments = reply[:5]
    lapsed, *entries = reply[12:]
    assert lapsed == []
    assert (online, peak, viewers, likes, comments) == (2, 3, 3, str(2**40), 1)
    assert dict(zip(entries[::2], map(int, entries[1::2]), strict=True)) == {"app": 2, "official_account": 1}


def test_counts_of_viewers_name_the_workers_whose_lease_ran_out(room: LuaRoom) -> None:
    room.join("dead", ("a", 1, 0, "app"))
    room.join("alive", ("b", 1, 0, "app"))
    names = room.names
    room.client.zadd(names.leases, {"dead": room.now() - 1})

    stats = room.call(
        "room_stats", [names.meta, names.present, names.viewers, names.entries, names.leases], []
    )
    brief = room.call("room_brief", [names.meta, names.present, names.leases], [])

    assert (stats[0], stats[12]) == (2, ["dead"])
    assert brief[2:] == [2, ["dead"]]


def test_audit_trail_is_paged_after_a_place(room: LuaRoom) -> None:
    for number in range(3):
        room.notice(f"n{number}", key=f"key-{number}-xx")
    keys = [room.names.meta, room.names.audit]

    code, *first = room.call("audit_page", keys, ["", 2])
    _, *rest = room.call("audit_page", keys, [first[-1][0], 10])

    def told(entries: list[Any]) -> list[str]:
        return [dict(zip(fields[::2], fields[1::2], strict=True))["key"] for _, fields in entries]

    assert code == "ok"
    assert told(first) == ["key-0-xx", "key-1-xx"]
    assert told(rest) == ["key-2-xx"]


@pytest.mark.parametrize("function", ["room_read", "facts_since", "room_stats", "room_brief", "audit_page"])
def test_reading_functions_are_declared_to_write_nothing(client: "redis.Redis[str]", function: str) -> None:
    name = library().function(function)
    (found,) = client.function_list(library=library().name)
    described = dict(zip(found[::2], found[1::2], strict=True)) if isinstance(found, list) else found
    functions = [
        dict(zip(entry[::2], entry[1::2], strict=True)) if isinstance(entry, list) else entry
        for entry in described["functions"]
    ]

    (flags,) = [entry["flags"] for entry in functions if entry["name"] == name]
    assert "no-writes" in flags


# --- index ----------------------------------------------------------------------------------------------------


def test_index_lists_a_tenants_rooms_in_order_of_id(client: "redis.Redis[str]", room: LuaRoom) -> None:
    index, codes = tenant_rooms(f"t.{room.key.room}"), tenant_codes(f"t.{room.key.room}")
    for number, name in enumerate(("b-1", "a.1", "a", "a-1")):
        assert room.call("index_add", [index, codes], [name, f"code{number}"]) == ["ok", f"code{number}"]
    # A room keeps its first code.
    assert room.call("index_add", [index, codes], ["a", "other"]) == ["ok", "code2"]

    first = room.call("index_page", [index], ["", 3])
    rest = room.call("index_page", [index], [first[-1], 3])

    assert first + rest == sorted(["b-1", "a.1", "a", "a-1"])
    assert room.call("code_room", [codes], ["code2"]) == ["ok", "a"]
    assert room.call("code_room", [codes], ["code9"]) == ["not_found", ""]
    client.delete(index, codes)
