"""Mute, kick, ban, mute all: on those present and absent, and in the next join reply."""

import asyncio

import pytest

from tests.support.client import Refused, a_key
from tests.support.stage import CODECS, Stage


@pytest.mark.parametrize("codec_name", CODECS)
async def test_muted_viewer_is_told_and_only_they(stage: Stage, codec_name: str) -> None:
    phone = await stage.enter("anna", codec_name=codec_name)
    tablet = await stage.enter("anna")
    bela, mo = await stage.enter("bela"), await stage.enter("mo", "moderator")

    muted = await mo.do("viewer.mute", viewer="anna", seconds=600)

    now = (await mo.ask("ping"))["now"]
    assert 590_000 < muted["until"] - now <= 600_000
    for device in (phone, tablet):
        assert await device.event("you.muted") == {"ev": "you.muted", **muted}
        err = await device.refusal("comment.send", key=a_key(), text="在吗")
        assert (err["code"], err["until"], err.get("all")) == ("muted", muted["until"], None)
    # Everything else is still allowed.
    assert await phone.ask("like.send", n=1, batch=1) == {"total": 1}
    await stage.settled(bela)
    assert bela.said("you.muted") == []
    assert (await stage.enter("anna")).joined["you"]["muted_until"] == muted["until"]


async def test_unmute_tells_and_lets_speak(stage: Stage) -> None:
    anna, mo = await stage.enter("anna"), await stage.enter("mo", "moderator")
    assert await mo.do("viewer.mute", viewer="anna", seconds=0) == {"until": 0}
    assert (await stage.enter("anna")).joined["you"]["muted_until"] == 0
    assert (await anna.refusal("comment.send", key=a_key(), text="在吗"))["until"] == 0

    assert await mo.do("viewer.unmute", viewer="anna") == {}

    await anna.event("you.muted", until=0)
    await anna.event("you.muted", until=None)
    assert await anna.do("comment.send", text="在吗") == {"comment": 1}
    assert (await stage.enter("anna")).joined["you"]["muted_until"] is None
    # Unmuting who is not muted changes nothing.
    assert await mo.do("viewer.unmute", viewer="anna") == {}
    await stage.settled(anna)
    assert len(anna.said("you.muted")) == 2


async def test_timed_mute_ends_by_itself_and_the_last_one_counts(stage: Stage) -> None:
    """Re-mute replaces expiry."""
    anna, mo = await stage.enter("anna"), await stage.enter("mo", "moderator")
    await mo.do("viewer.mute", viewer="anna", seconds=0)
    until = (await mo.do("viewer.mute", viewer="anna", seconds=1))["until"]

    err = await anna.refusal("comment.send", key="after-the-mute", text="在吗")

    assert (err["code"], err["until"]) == ("muted", until)
    await asyncio.sleep(max(0, until - (await anna.ask("ping"))["now"]) / 1000 + 0.05)
    assert await anna.ask("comment.send", key="after-the-mute", text="在吗") == {"comment": 1}
    assert (await stage.enter("anna")).joined["you"]["muted_until"] is None


@pytest.mark.parametrize("seconds", [-1, 315_360_001, 1.5, "60", None])
async def test_wrong_seconds_are_bad_commands(stage: Stage, seconds: object) -> None:
    mo = await stage.enter("mo", "moderator")

    err = await mo.refusal("viewer.mute", key=a_key(), viewer="anna", seconds=seconds)

    assert err["code"] == "bad_command"


@pytest.mark.parametrize("codec_name", CODECS)
async def test_mute_all_is_a_fact_and_spares_moderators(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter("anna", codec_name=codec_name)
    gus, mo = await stage.enter("gus", "agent"), await stage.enter("mo", "moderator")

    await mo.do("room.mute_all", on=True)
    await mo.do("room.mute_all", on=True)

    await anna.event("room.muted_all", on=True)
    for client in (anna, gus):
        err = await client.refusal("comment.send", key=a_key(), text="在吗")
        assert (err["code"], err["all"], err["until"]) == ("muted", True, 0)
    assert await mo.do("comment.send", text="请稍等") == {"comment": 1}
    assert (await stage.snapshot())["muted_all"] is True
    assert anna.room["muted_all"] is True

    await mo.do("room.mute_all", on=False)
    await anna.event("room.muted_all", on=False)
    assert await anna.do("comment.send", text="好了") == {"comment": 2}
    # Asking for what is so already is no second fact.
    assert [event["on"] for event in anna.said("room.muted_all")] == [True, False]


@pytest.mark.parametrize("codec_name", CODECS)
async def test_kick_closes_every_connection_and_they_may_return(stage: Stage, codec_name: str) -> None:
    phone = await stage.enter("anna", codec_name=codec_name)
    tablet = await stage.enter("anna")
    bela, mo = await stage.enter("bela"), await stage.enter("mo", "moderator")

    assert await mo.do("viewer.kick", viewer="anna", reason="广告") == {}

    assert await phone.close_code() == 4410
    assert await tablet.close_code() == 4410
    removed = await bela.event("viewer.removed")
    assert (removed["viewer"], removed["how"]) == ("anna", "kick")
    again = await stage.enter("anna", codec_name=codec_name)
    assert await again.do("comment.send", text="我回来了") == {"comment": 1}


@pytest.mark.parametrize("codec_name", CODECS)
async def test_ban_closes_every_connection_and_they_may_not_return(stage: Stage, codec_name: str) -> None:
    phone = await stage.enter("anna", codec_name=codec_name)
    mo = await stage.enter("mo", "moderator")

    await mo.do("viewer.ban", viewer="anna")

    assert await phone.close_code() == 4403
    back = await stage.connect(codec_name)
    token = await stage.merchant.token(stage.room, "anna")
    with pytest.raises(Refused) as refused:
        await back.join(stage.room, token)
    assert refused.value.code == "forbidden"
    assert await back.close_code() == 4403
    # Another viewer's token is another viewer; another room is another room.
    await stage.enter("annabel")
    await mo.do("viewer.unban", viewer="anna")
    await (await stage.connect(codec_name)).join(stage.room, token)


async def test_absent_viewers_are_muted_and_banned_too(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    for viewer, cmd in (("mia", "viewer.kick"), ("zoe", "viewer.ban")):
        await mo.do(cmd, viewer=viewer)
    until = (await mo.do("viewer.mute", viewer="mia", seconds=60))["until"]

    assert (await stage.enter("mia")).joined["you"]["muted_until"] == until
    with pytest.raises(Refused) as refused:
        await stage.enter("zoe")
    assert refused.value.code == "forbidden"


async def test_reason_is_measured(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")

    assert (await mo.refusal("viewer.kick", key=a_key(), viewer="anna", reason="x" * 101))[
        "code"
    ] == "too_long"
    assert (await mo.refusal("viewer.ban", key=a_key(), viewer="-"))["code"] == "bad_command"
    await mo.do("viewer.kick", viewer="anna", reason="x" * 100)


async def test_kick_under_the_same_key_happens_once(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    kicked = await stage.enter("anna")
    await mo.ask("viewer.kick", key="kick-anna", viewer="anna")
    assert await kicked.close_code() == 4410
    anna = await stage.enter("anna")

    assert await mo.ask("viewer.kick", key="kick-anna", viewer="anna") == {}
    assert (await mo.refusal("viewer.kick", key="kick-anna", viewer="bela"))["code"] == "conflict"

    await anna.ask("ping")
    await stage.settled(mo)
    assert [event["viewer"] for event in mo.said("viewer.removed")].count("anna") == 1
