"""Functions of `shelf.lua`: the notice, the items and the one being explained."""

import orjson
import pytest

from tests.support.stores import LuaRoom, fresh_key

BIG = 2**53 - 1


def fact_names(room: LuaRoom) -> list[str]:
    return [fact["ev"] for fact in room.facts()]


# --- notice_set -----------------------------------------------------------------------------------------------


def test_each_notice_gets_the_next_version(room: LuaRoom) -> None:
    assert room.notice("公告") == ["ok", '{"version":1}']
    assert room.notice("second") == ["ok", '{"version":2}']

    assert [(fact["text"], fact["version"]) for fact in room.facts()] == [("公告", 1), ("second", 2)]
    assert orjson.loads(room.meta("notice") or "") == {"text": "second", "version": 2}


def test_notice_set_with_the_known_version_is_taken(room: LuaRoom) -> None:
    room.notice("one")

    assert room.notice("two", version=1)[0] == "ok"


@pytest.mark.parametrize("version", [0, 2, BIG])
def test_notice_set_with_another_version_is_a_conflict(room: LuaRoom, version: int) -> None:
    room.notice("one")

    with room.unchanged():
        assert room.notice("two", version=version) == ["conflict", '"version":1']


def test_first_notice_may_expect_version_zero(room: LuaRoom) -> None:
    assert room.notice("one", version=0)[0] == "ok"


def test_empty_text_clears_the_notice_and_raises_the_version(room: LuaRoom) -> None:
    room.notice("one")

    assert room.notice("") == ["ok", '{"version":2}']
    assert room.meta("notice") == ""
    assert room.facts()[-1]["text"] == ""
    assert room.notice("three", version=2) == ["ok", '{"version":3}']


def test_audit_names_the_notice_before(room: LuaRoom) -> None:
    room.notice("one")
    room.notice("")
    room.notice("three")

    before = [orjson.loads(entry["before"]) for entry in room.audit()]
    assert before == [None, {"text": "one", "version": 1}, None]


# --- item_put, item_remove ------------------------------------------------------------------------------------


def test_item_is_answered_stored_and_told_in_the_same_words(room: LuaRoom) -> None:
    code, reply = room.put_item("tea-1.x_y", 10, cents=BIG)

    item = orjson.loads(reply)
    assert code == "ok"
    assert item == {
        "item": "tea-1.x_y", "title": "tea-1.x_y!", "price_cents": BIG, "sort": 10, "sold_out": False,
    }  # fmt: skip
    assert orjson.loads(room.client.hget(room.names.items, "tea-1.x_y") or "") == item
    (fact,) = room.facts()
    assert {name: fact[name] for name in item} == item


@pytest.mark.parametrize("sort", [0, -1, BIG, -BIG])
def test_every_digit_of_sort_is_kept(room: LuaRoom, sort: int) -> None:
    assert orjson.loads(room.put_item("tea", sort)[1])["sort"] == sort
    # Changed without `sort` it keeps its place.
    assert orjson.loads(room.put_item("tea")[1])["sort"] == sort


def test_item_without_sort_goes_to_the_end(room: LuaRoom) -> None:
    sorts = [orjson.loads(room.put_item(item)[1])["sort"] for item in ("a", "b")]
    room.put_item("far", 100)

    assert sorts == [1, 2]
    assert orjson.loads(room.put_item("last")[1])["sort"] == 101


def test_item_without_sort_stays_within_what_the_wire_can_carry(room: LuaRoom) -> None:
    room.put_item("far", BIG)

    assert orjson.loads(room.put_item("last")[1])["sort"] == BIG


def test_changed_item_stays_sold_out(room: LuaRoom) -> None:
    room.put_item("tea", 1)
    sold = '{"item":"tea","title":"t","price_cents":1,"sort":1,"sold_out":true}'
    room.client.hset(room.names.items, "tea", sold)

    assert orjson.loads(room.put_item("tea")[1])["sold_out"] is True


def test_title_that_looks_like_a_field_does_not_sell_an_item_out(room: LuaRoom) -> None:
    own = (room.names.items, room.names.shelf)
    body = f'"item":"tea","title":{orjson.dumps(chr(34) + "sold_out" + chr(34) + ":true").decode()}'
    room.console("item_put", "tea", body, "", 500, keys=own)

    assert orjson.loads(room.put_item("tea")[1])["sold_out"] is False


def test_full_shelf_takes_changes_but_no_further_item(room: LuaRoom) -> None:
    room.put_item("a", most=2)
    room.put_item("b", most=2)

    with room.unchanged():
        assert room.put_item("c", most=2) == ["limit_reached", '"left":0']
    assert room.put_item("a", most=2)[0] == "ok"


def test_removed_item_is_gone_from_shelf_and_order(room: LuaRoom) -> None:
    room.put_item("tea")
    room.put_item("tea-2")

    assert room.remove_item("tea") == ["ok", "{}"]
    assert room.client.hkeys(room.names.items) == ["tea-2"]
    assert room.client.zrange(room.names.shelf, 0, -1) == ["tea-2"]
    assert room.facts()[-1]["item"] == "tea"
    assert orjson.loads(room.audit()[-1]["before"])["item"] == "tea"


def test_removing_a_missing_item_is_not_found(room: LuaRoom) -> None:
    room.put_item("tea-2")

    with room.unchanged():
        assert room.remove_item("tea") == ["not_found", ""]


def test_removing_the_explained_item_ends_explaining_first(room: LuaRoom) -> None:
    room.put_item("tea")
    room.explain("tea")

    room.remove_item("tea")

    assert fact_names(room) == ["item.put", "item.explaining", "item.explaining", "item.removed"]
    assert room.meta("explaining") is None


def test_removing_another_item_leaves_the_explained_one(room: LuaRoom) -> None:
    room.put_item("tea")
    room.put_item("tea-2")
    room.explain("tea")

    room.remove_item("tea-2")

    assert room.meta("explaining") == "tea"


# --- item_explain, item_unexplain -----------------------------------------------------------------------------


def test_explaining_another_item_ends_the_first_in_the_same_fact(room: LuaRoom) -> None:
    room.put_item("a")
    room.put_item("b")

    assert room.explain("a") == ["ok", "{}"]
    assert room.explain("b") == ["ok", "{}"]

    assert [fact["item"] for fact in room.facts() if fact["ev"] == "item.explaining"] == ["a", "b"]
    assert room.meta("explaining") == "b"
    assert room.audit()[-1]["before"] == '"a"'


def test_explaining_the_same_item_again_is_no_fact(room: LuaRoom) -> None:
    room.put_item("a")
    room.explain("a")

    assert room.explain("a") == ["ok", "{}"]
    assert fact_names(room) == ["item.put", "item.explaining"]


def test_explaining_a_missing_item_is_not_found(room: LuaRoom) -> None:
    with room.unchanged():
        assert room.explain("a") == ["not_found", ""]


def test_unexplain_ends_explaining(room: LuaRoom) -> None:
    room.put_item("a")
    room.explain("a")

    assert room.unexplain("a") == ["ok", "{}"]
    assert room.facts()[-1]["item"] is None
    assert room.meta("explaining") is None
    with room.unchanged():
        assert room.unexplain("a") == ["not_found", ""]


def test_unexplain_of_an_item_that_is_not_explained_is_not_found(room: LuaRoom) -> None:
    room.put_item("a")
    room.put_item("a.b")
    room.explain("a.b")

    with room.unchanged():
        assert room.unexplain("a") == ["not_found", ""]


# --- one effect per key ---------------------------------------------------------------------------------------


def test_item_put_repeated_with_its_key_does_not_undo_a_later_change(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.put_item("tea", 1, key=key)
    room.put_item("tea", 2)

    with room.unchanged():
        assert room.put_item("tea", 1, key=key) == first
