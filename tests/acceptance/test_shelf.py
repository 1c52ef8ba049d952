"""The notice and the shelf: compare-and-set, order, and at most one item explained."""

from typing import Any

import pytest

from tests.acceptance.conftest import BLOCKED_WORD
from tests.support.client import a_key
from tests.support.stage import CODECS, Stage

Map = dict[str, Any]


# --- notice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
async def test_notice_reaches_everybody_with_its_version(stage: Stage, codec_name: str) -> None:
    anna, mo = await stage.enter("anna", codec_name=codec_name), await stage.enter("mo", "moderator")

    assert await mo.do("notice.set", text="今晚八点开抢 ", card="c-1") == {"version": 1}

    notice = await anna.event("notice")
    assert {key: notice[key] for key in ("text", "card", "version")} == {
        "text": "今晚八点开抢",
        "card": "c-1",
        "version": 1,
    }
    assert (await stage.snapshot())["notice"] == {"text": "今晚八点开抢", "card": "c-1", "version": 1}
    assert anna.room["notice"] == {"text": "今晚八点开抢", "card": "c-1", "version": 1}


async def test_notice_is_compared_and_set(stage: Stage) -> None:
    mo, mia = await stage.enter("mo", "moderator"), await stage.enter("mia", "moderator")
    await mo.ask("notice.set", key="notice-1", text="八点", version=0)

    err = await mia.refusal("notice.set", key="notice-2", text="九点", version=0)

    assert (err["code"], err["version"]) == ("conflict", 1)
    assert (await stage.snapshot())["notice"]["text"] == "八点"
    # The refusal is not remembered, so the same key may be tried with what is known now.
    assert await mia.ask("notice.set", key="notice-2", text="九点", version=err["version"]) == {"version": 2}
    # Without a version the last one wins.
    assert await mo.do("notice.set", text="十点") == {"version": 3}


async def test_empty_notice_clears_and_keeps_counting(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    await mo.do("notice.set", text="八点")

    assert await mo.do("notice.set", text=" \u200b ") == {"version": 2}

    assert (await mo.event("notice", version=2))["text"] == ""
    assert (await stage.snapshot())["notice"] is None
    assert mo.room["notice"] is None
    assert await mo.do("notice.set", text="九点", version=2) == {"version": 3}


async def test_wrong_notices_are_refused(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")

    assert (await mo.refusal("notice.set", key=a_key(), text="茶" * 100 + "!"))["code"] == "too_long"
    assert (await mo.refusal("notice.set", key=a_key(), text=BLOCKED_WORD))["code"] == "blocked_text"
    assert (await mo.refusal("notice.set", key=a_key(), text="茶", card="-"))["code"] == "bad_command"
    assert (await mo.refusal("notice.set", key=a_key(), text="茶", version=-1))["code"] == "bad_command"
    assert await mo.do("notice.set", text="茶" * 100) == {"version": 1}


# --- shelf --------------------------------------------------------------------------------------------------


def a_card(item: str, **fields: Any) -> Map:
    return {"item": item, "title": f"茶 {item}", "price_cents": 9_900, **fields}


async def shelf(stage: Stage) -> list[str]:
    return [item["item"] for item in (await stage.snapshot())["items"]]


@pytest.mark.parametrize("codec_name", CODECS)
async def test_card_is_put_and_changed(stage: Stage, codec_name: str) -> None:
    anna, sam = await stage.enter("anna", codec_name=codec_name), await stage.enter("sam", "streamer")
    links = {"cover": "https://cdn.example/t.webp", "url": "https://shop.example/tea?x=1"}

    card = await sam.do("item.put", **a_card("tea", **links))
    changed = await sam.do("item.put", **a_card("tea", price_cents=0))

    assert card == {**a_card("tea", **links), "sort": 1, "sold_out": False}
    # What is left out of a card has no value any more; only its place is kept.
    assert changed == {**a_card("tea", price_cents=0), "sort": 1, "sold_out": False}
    events = [await anna.event("item.put") for _ in range(2)]
    assert [{key: event[key] for key in event if key not in ("ev", "seq", "at")} for event in events] == [
        card,
        changed,
    ]
    assert anna.room["items"] == (await stage.snapshot())["items"] == [changed]


async def test_shelf_is_ordered_by_sort_then_id(stage: Stage) -> None:
    for item, sort in (("b", 5), ("a", 5), ("d", -3), ("c", None), ("e", 9_007_199_254_740_991)):
        await stage.do("item.put", **a_card(item, **({} if sort is None else {"sort": sort})))

    assert await shelf(stage) == ["d", "a", "b", "c", "e"]
    anna = await stage.enter()
    await stage.do("item.put", **a_card("e", sort=0))
    await stage.do("item.put", **a_card("a"))
    assert await shelf(stage) == ["d", "e", "a", "b", "c"]
    await anna.event("item.put", item="a")
    assert [item["item"] for item in anna.room["items"]] == ["d", "e", "a", "b", "c"]
    await stage.do("item.remove", item="e")
    assert await shelf(stage) == ["d", "a", "b", "c"]


async def test_new_card_behind_the_largest_sort_still_has_a_sort_the_protocol_can_say(stage: Stage) -> None:
    await stage.do("item.put", **a_card("last", sort=9_007_199_254_740_991))

    card = await stage.do("item.put", **a_card("new"))

    assert card["sort"] <= 9_007_199_254_740_991
    assert await shelf(stage) == ["last", "new"]


async def test_at_most_one_item_is_explained(stage: Stage) -> None:
    """start(B) while A is explaining ends A in the same event."""
    anna, sam = await stage.enter("anna"), await stage.enter("sam", "streamer")
    for item in ("a", "b"):
        await sam.do("item.put", **a_card(item))

    await sam.do("item.explain", item="a")
    await sam.do("item.explain", item="b")
    await sam.do("item.explain", item="b")
    await sam.do("item.unexplain", item="b")
    await anna.event("item.explaining", item=None)

    explained = anna.said("item.explaining")
    assert [event["item"] for event in explained] == ["a", "b", None]
    assert [event["seq"] for event in explained] == list(range(explained[0]["seq"], explained[0]["seq"] + 3))
    for item in ("a", "b", "c"):
        assert (await sam.refusal("item.unexplain", key=a_key(), item=item))["code"] == "not_found"
    assert (await sam.refusal("item.explain", key=a_key(), item="c"))["code"] == "not_found"


async def test_removing_the_explained_item_ends_the_explaining(stage: Stage) -> None:
    """Off-shelf/delete of the explaining item ends it."""
    anna, sam = await stage.enter("anna"), await stage.enter("sam", "streamer")
    await sam.do("item.put", **a_card("a"))
    await sam.do("item.explain", item="a")
    assert (await stage.snapshot())["explaining"] == "a"

    await sam.do("item.remove", item="a")

    await anna.event("item.removed", item="a")
    assert anna.room["explaining"] is None
    snapshot = await stage.snapshot()
    assert (snapshot["explaining"], snapshot["items"]) == (None, [])
    assert (await sam.refusal("item.remove", key=a_key(), item="a"))["code"] == "not_found"
    # It comes back as a card like any other.
    await sam.do("item.put", **a_card("a"))
    assert (await stage.snapshot())["explaining"] is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"item": "-a"}, "bad_command"),
        ({"item": "a b"}, "bad_command"),
        ({"item": "x" * 65}, "bad_command"),
        ({"title": ""}, "bad_command"),
        ({"title": "x" * 61}, "too_long"),
        ({"title": BLOCKED_WORD}, "blocked_text"),
        ({"price_cents": -1}, "bad_command"),
        ({"price_cents": 9.9}, "bad_command"),
        ({"price_cents": 9_007_199_254_740_992}, "bad_command"),
        ({"cover": "http://cdn.example/t.webp"}, "bad_command"),
        ({"url": "javascript:alert(1)"}, "bad_command"),
        ({"url": "https://shop.example/ x"}, "bad_command"),
        ({"url": "https://shop.example/" + "x" * 500}, "too_long"),
        ({"sort": "1"}, "bad_command"),
    ],
)
async def test_wrong_cards_are_refused(stage: Stage, change: Map, code: str) -> None:
    answer = await stage.merchant.command(stage.room, "item.put", **{**a_card("tea"), **change})

    assert answer.json["code"] == code
    assert await shelf(stage) == []


async def test_shelf_holds_500_items(stage: Stage) -> None:
    sam = await stage.enter("sam", "streamer")
    wanted = 500
    for first in range(0, wanted, 25):
        ids = await sam.send(
            *(
                {"cmd": "item.put", "key": a_key(), **a_card(f"i-{number}")}
                for number in range(first, first + 25)
            )
        )
        # The connection's own rate is 50 a second: the merchant's back end has none.
        answers = [await sam.reply(command_id) for command_id in ids]
        for number, answer in enumerate(answers, first):
            if answer.err is not None:
                assert answer.err["code"] == "rate_limited"
                await stage.do("item.put", **a_card(f"i-{number}"))

    full = await stage.merchant.command(stage.room, "item.put", **a_card("one-more"))

    assert (full.status, full.json["code"], full.json["left"]) == (409, "limit_reached", 0)
    await stage.do("item.put", **a_card("i-7", price_cents=1))
    assert len(await shelf(stage)) == wanted
