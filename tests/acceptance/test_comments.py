"""Comments: cleaned, measured, filtered, paced, numbered once per key; pinned and deleted."""

import asyncio
import itertools

import pytest

from tests.acceptance.conftest import BLOCKED_WORD
from tests.support.client import Refused, a_key
from tests.support.stage import CODECS, Stage


@pytest.mark.parametrize("codec_name", CODECS)
async def test_comment_reaches_everybody_with_the_number_of_the_reply(stage: Stage, codec_name: str) -> None:
    claims = {"name": "小林", "avatar": "https://cdn.example/lin.png"}
    anna = await stage.enter("anna", codec_name=codec_name, claims=claims)
    bela = await stage.enter("bela", "agent")

    first = await anna.do("comment.send", text="多少钱?")
    second = await bela.do("comment.send", text="99 元", reply_to=first["comment"])

    assert (first, second) == ({"comment": 1}, {"comment": 2})
    for client in (anna, bela):
        asked = await client.event("comment", comment=1)
        told = await client.event("comment", comment=2)
        assert asked["from"] == {
            "id": "anna",
            "name": "小林",
            "role": "viewer",
            "avatar": "https://cdn.example/lin.png",
        }
        assert (asked["text"], "reply_to" in asked) == ("多少钱?", False)
        assert (told["text"], told["reply_to"], told["from"]["role"]) == ("99 元", 1, "agent")
        assert sorted(told) == ["at", "comment", "ev", "from", "reply_to", "text"]
    assert [comment["comment"] for comment in (await stage.snapshot())["comments"]] == [1, 2]


async def test_snapshot_holds_the_last_50_oldest_first(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    for first in (0, 30):
        ids = await mo.send(
            *({"cmd": "comment.send", "key": a_key(), "text": str(first + n)} for n in range(30))
        )
        for command_id in ids:
            await mo.answer(command_id)
    # Not the last comment itself: so many at once are more than a room shows, but the snapshot has them all.
    await stage.settled(mo)

    joined = await stage.enter("late")

    assert [comment["comment"] for comment in joined.room["comments"]] == list(range(11, 61))
    assert (await stage.snapshot())["comments"] == joined.room["comments"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("  多少钱 ?\n", "多少钱 ?"),
        ("e\u0301", "\u00e9"),
        ("a\u0000b\u0085c", "abc"),
        ("\u202egnp.exe\u2066", "gnp.exe"),
        ("隐\u200b形\u200d\ufeff", "隐形"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("z" + "\u0335" * 20, "z" + "\u0335" * 8),
        ("x" * 200 + "\u200b" * 300, "x" * 200),
    ],
)
async def test_text_is_cleaned_before_anybody_sees_it(stage: Stage, sent: str, shown: str) -> None:
    mo = await stage.enter("mo", "moderator")

    number = await mo.do("comment.send", text=sent)

    assert (await mo.event("comment", **number))["text"] == shown


async def test_wrong_texts_are_refused(stage: Stage) -> None:
    anna = await stage.enter()

    assert (await anna.refusal("comment.send", key=a_key(), text="货" * 201))["code"] == "too_long"
    for text in ("", "  ", "\u200b\u202e", None, 7):
        assert (await anna.refusal("comment.send", key=a_key(), text=text))["code"] == "bad_command", text
    assert (await anna.refusal("comment.send", key=a_key(), text="?", reply_to=0))["code"] == "bad_command"
    # A refusal costs nothing of the rate, and 200 code points fit.
    assert await anna.do("comment.send", text="货" * 200) == {"comment": 1}


async def test_blocked_words_are_seen_through_disguises(stage: Stage) -> None:
    anna = await stage.enter()

    for text in (BLOCKED_WORD, f"快来{BLOCKED_WORD}!", "加 微 信", "加.微*信", "加\u200b微信"):
        assert (await anna.refusal("comment.send", key=a_key(), text=text))["code"] == "blocked_text", text
    assert await anna.do("comment.send", text="加 一 份") == {"comment": 1}


# --- pace ---------------------------------------------------------------------------------------------------


async def test_sixth_comment_at_once_is_told_when(stage: Stage) -> None:
    """1 per second per viewer with a burst of 5."""
    anna = await stage.enter("anna")
    bela = await stage.enter("bela")

    keys = [*(a_key() for _ in range(5)), "slow-down"]
    ids = await anna.send(*({"cmd": "comment.send", "key": key, "text": "快"} for key in keys))

    with pytest.raises(Refused) as refused:
        await anna.answer(ids[5])
    err = refused.value.err
    assert err["code"] == "rate_limited"
    assert 0 < err["retry_ms"] <= 1_000
    # The rate is the viewer's, not the room's and not the connection's.
    await bela.do("comment.send", text="慢")
    other_device = await stage.enter("anna")
    assert (await other_device.refusal("comment.send", key=a_key(), text="快"))["code"] == "rate_limited"
    await asyncio.sleep(err["retry_ms"] / 1000)
    assert await anna.ask("comment.send", key="slow-down", text="快") == {"comment": 7}


async def test_moderators_are_exempt_from_the_rate(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")

    assert [(await mo.do("comment.send", text="通知"))["comment"] for _ in range(8)] == list(range(1, 9))


async def test_slow_mode_is_one_comment_in_so_many_seconds(stage: Stage) -> None:
    await stage.merchant.put_room(stage.room, slow_mode_s=30)
    anna, mo = await stage.enter("anna"), await stage.enter("mo", "moderator")
    await anna.do("comment.send", text="一")

    err = await anna.refusal("comment.send", key=a_key(), text="二")

    assert err["code"] == "rate_limited"
    assert 25_000 < err["retry_ms"] <= 30_000
    for _ in range(3):
        await mo.do("comment.send", text="主持")


# --- keys ---------------------------------------------------------------------------------------------------


async def test_same_key_gives_the_same_answer_and_one_comment(stage: Stage) -> None:
    anna = await stage.enter("anna")
    sent = {"key": "c-5f1e0b2a", "text": "多少钱?"}
    first = await anna.ask("comment.send", **sent)

    assert await anna.ask("comment.send", **sent) == first
    # Cleaning makes it the same text, another device the same viewer.
    assert await anna.ask("comment.send", key="c-5f1e0b2a", text=" 多少钱?\u200b") == first
    assert await (await stage.enter("anna")).ask("comment.send", **sent) == first
    await stage.settled(anna)
    assert len(anna.said("comment")) == 1


async def test_same_key_with_other_fields_is_a_conflict(stage: Stage) -> None:
    anna = await stage.enter()
    await anna.ask("comment.send", key="c-5f1e0b2a", text="一")

    for change in ({"text": "二"}, {"text": "一", "reply_to": 1}):
        assert (await anna.refusal("comment.send", key="c-5f1e0b2a", **change))["code"] == "conflict"


async def test_scope_of_a_key_is_room_viewer_and_command(stage: Stage) -> None:
    anna, bela = await stage.enter("anna"), await stage.enter("bela", "moderator")
    key = "the-same-key"

    assert await anna.ask("comment.send", key=key, text="一") == {"comment": 1}
    assert await bela.ask("comment.send", key=key, text="二") == {"comment": 2}
    assert await bela.ask("comment.pin", key=key, comment=1) == {}
    assert await bela.ask("comment.delete", key=key, comment=2) == {}


async def test_refusal_is_not_remembered_under_its_key(scheduled: Stage) -> None:
    anna = await scheduled.enter()
    sent = {"key": "before-the-show", "text": "开始了吗"}
    assert (await anna.refusal("comment.send", **sent))["code"] == "room_not_live"

    await scheduled.do("room.open")

    assert await anna.ask("comment.send", **sent) == {"comment": 1}


# --- pin and delete -----------------------------------------------------------------------------------------


async def test_pin_shows_the_whole_comment_and_gives_way_to_the_next(stage: Stage) -> None:
    anna, mo = await stage.enter("anna"), await stage.enter("mo", "moderator")
    for text in ("一", "二"):
        await anna.do("comment.send", text=text)

    await mo.do("comment.pin", comment=1)
    await mo.do("comment.pin", comment=2)

    first, second = await anna.event("comment.pinned"), await anna.event("comment.pinned")
    assert [first["comment"]["text"], second["comment"]["text"]] == ["一", "二"]
    assert second["seq"] == first["seq"] + 1
    assert (await stage.snapshot())["pinned"] == second["comment"]
    assert (await mo.refusal("comment.unpin", key=a_key(), comment=1))["code"] == "not_found"
    await mo.do("comment.unpin", comment=2)
    assert (await anna.event("comment.pinned"))["comment"] is None
    assert (await stage.snapshot())["pinned"] is None
    for cmd in ("comment.pin", "comment.unpin", "comment.delete"):
        assert (await mo.refusal(cmd, key=a_key(), comment=99))["code"] == "not_found"
        assert (await mo.refusal(cmd, key=a_key(), comment=0))["code"] == "bad_command"


async def test_pinning_the_pinned_comment_says_nothing_new(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    await mo.do("comment.send", text="一")
    await mo.do("comment.pin", comment=1)

    await mo.do("comment.pin", comment=1)
    await stage.settled(mo)

    assert len(mo.said("comment.pinned")) == 1


@pytest.mark.parametrize("codec_name", CODECS)
async def test_deleted_comment_leaves_every_screen_and_the_pin(stage: Stage, codec_name: str) -> None:
    anna, mo = await stage.enter("anna", codec_name=codec_name), await stage.enter("mo", "moderator")
    for text in ("一", "二"):
        await anna.do("comment.send", text=text)
    await mo.do("comment.pin", comment=1)

    await mo.do("comment.delete", comment=1)

    await anna.event("comment.deleted", comment=1)
    await anna.event("comment.pinned", comment=None)
    assert [comment["comment"] for comment in anna.room["comments"]] == [2]
    snapshot = await stage.snapshot()
    assert [comment["comment"] for comment in snapshot["comments"]] == [2]
    assert snapshot["pinned"] is None
    assert (await mo.refusal("comment.delete", key=a_key(), comment=1))["code"] == "not_found"


async def test_display_cap_thins_evenly_and_says_so(stage: Stage) -> None:
    """40 chat events per second shown in a room; the sender always gets the reply."""
    mo, anna = await stage.enter("mo", "moderator"), await stage.enter("anna")
    numbers = itertools.count()
    for _ in range(3):
        await mo.send(
            *({"cmd": "comment.send", "key": a_key(), "text": str(next(numbers))} for _ in range(32))
        )
    await mo.until(lambda: sum(reply.ok is not None for reply in mo.replies.values()) == 1 + 96)

    while len(anna.said("comment")) + sum(event["dropped"] for event in anna.said("thinned")) < 96:
        await anna.take_frame()

    shown = [event["comment"] for event in anna.said("comment")]
    assert shown == sorted(set(shown))
    assert len(shown) < 96
    assert len((await stage.snapshot())["comments"]) == 50
