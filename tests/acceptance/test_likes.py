"""Likes: exact, each batch once, the total never falling."""

import asyncio

import pytest

from tests.support.client import Refused
from tests.support.stage import CODECS, Stage


@pytest.mark.parametrize("codec_name", CODECS)
async def test_acknowledged_likes_are_the_total(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter("anna", codec_name=codec_name)
    bela = await stage.enter("bela", codec_name=codec_name)

    totals = [await anna.ask("like.send", n=n, batch=n) for n in (1, 2, 50)]
    await bela.ask("like.send", n=7, batch=0)

    assert totals == [{"total": 1}, {"total": 3}, {"total": 53}]
    await anna.event("likes", total=60)
    await bela.event("likes", total=60)
    said = [event["total"] for event in anna.said("likes")]
    assert said == sorted(said)
    assert (await stage.enter("carla")).gauges["likes"] == 60
    assert (await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/stats"))["likes"] == 60


async def test_batch_that_does_not_rise_is_answered_and_not_counted(stage: Stage) -> None:
    """`like.send` whose `batch` does not rise is answered with the total and not counted."""
    anna = await stage.enter()
    assert await anna.ask("like.send", n=5, batch=3) == {"total": 5}

    assert await anna.ask("like.send", n=5, batch=3) == {"total": 5}
    assert await anna.ask("like.send", n=9, batch=2) == {"total": 5}
    assert await anna.ask("like.send", n=1, batch=4) == {"total": 6}


async def test_batches_rise_per_connection(stage: Stage) -> None:
    phone, tablet = await stage.enter(), await stage.enter()
    await phone.ask("like.send", n=5, batch=10)

    assert await tablet.ask("like.send", n=5, batch=0) == {"total": 10}


@pytest.mark.parametrize(
    "fields", [{"n": 0}, {"n": 51}, {"n": -1}, {"n": 1.0}, {"n": True}, {"batch": -1}, {}]
)
async def test_wrong_fields_are_bad_commands(stage: Stage, fields: dict[str, object]) -> None:
    anna = await stage.enter()
    whole = {"n": 1, "batch": 1, **fields} if fields else {"n": 1}

    assert (await anna.refusal("like.send", **whole))["code"] == "bad_command"
    assert (await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/stats"))["likes"] == 0


async def test_too_fast_says_when_and_the_refused_batch_may_be_sent_again(stage: Stage) -> None:
    """5 per second with a burst of 10."""
    anna = await stage.enter()

    ids = await anna.send(*({"cmd": "like.send", "n": 1, "batch": batch} for batch in range(11)))

    with pytest.raises(Refused) as refused:
        await anna.answer(ids[10])
    err = refused.value.err
    assert err["code"] == "rate_limited"
    assert 0 < err["retry_ms"] <= 201
    await asyncio.sleep(err["retry_ms"] / 1000)
    assert await anna.ask("like.send", n=1, batch=10) == {"total": 11}


async def test_moderators_are_exempt_from_the_rate(stage: Stage) -> None:
    mods = await stage.enter("mo", "moderator")
    ids = await mods.send(*({"cmd": "like.send", "n": 1, "batch": batch} for batch in range(32)))

    assert (await mods.answer(ids[-1]))["total"] <= 32
    await mods.event("likes", total=32)


async def test_likes_need_a_live_room(scheduled: Stage) -> None:
    anna = await scheduled.enter()

    err = await anna.refusal("like.send", n=1, batch=1)

    assert (err["code"], err["state"]) == ("room_not_live", "scheduled")


async def test_refused_batch_is_not_used_up(scheduled: Stage) -> None:
    """A definite refusal has no effect, so the same batch may be sent again."""
    anna = await scheduled.enter()
    assert (await anna.refusal("like.send", n=3, batch=1))["code"] == "room_not_live"
    await scheduled.do("room.open")

    assert await anna.ask("like.send", n=3, batch=1) == {"total": 3}
