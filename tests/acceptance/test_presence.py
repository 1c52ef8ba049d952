"""Who is there: viewers, not connections; five connections each; where they came from."""

import pytest

from tests.support.client import Merchant
from tests.support.stage import CODECS, Stage


async def test_online_counts_viewers_not_connections(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    devices = [await stage.enter("anna") for _ in range(3)]
    await stage.enter("bela")
    await mo.event("online", now=3, peak=3)

    for device in devices[:2]:
        await device.ask("room.leave")
    assert (await mo.ask("stats.get"))["online"] == 3
    await devices[2].ask("room.leave")

    await mo.event("online", now=2, peak=3)
    stats = await mo.ask("stats.get")
    assert (stats["online"], stats["peak"], stats["viewers"]) == (2, 3, 3)


async def test_join_reply_counts_the_joining_viewer(stage: Stage) -> None:
    assert (await stage.enter("anna")).gauges["online"] == {"now": 1, "peak": 1}
    assert (await stage.enter("bela")).gauges["online"] == {"now": 2, "peak": 2}


@pytest.mark.parametrize("codec_name", CODECS)
async def test_sixth_connection_closes_the_oldest_with_4429(stage: Stage, codec_name: str) -> None:
    devices = [await stage.enter("anna", codec_name=codec_name) for _ in range(5)]
    bela = await stage.enter("bela")

    sixth = await stage.enter("anna", codec_name=codec_name)

    assert await devices[0].close_code() == 4429
    for device in (*devices[1:], sixth, bela):
        await device.ask("ping")
    seventh = await stage.enter("anna")
    assert await devices[1].close_code() == 4429
    await seventh.ask("ping")


async def test_connections_are_counted_per_room(stage: Stage, merchant: Merchant) -> None:
    first = await stage.enter("anna")
    await merchant.put_room(f"{stage.room}-b")
    token = await merchant.token("*", "anna")
    for _ in range(5):
        elsewhere = await stage.connect()
        await elsewhere.join(f"{stage.room}-b", token)

    await first.ask("ping")


async def test_entries_count_each_viewer_by_their_first_join(stage: Stage) -> None:
    for viewer, entry in (
        ("anna", "official_account"),
        ("anna", "group"),
        ("bela", "official_account"),
        ("carl", "群"),
        ("dora", None),
    ):
        await stage.enter(viewer, **({} if entry is None else {"entry": entry}))

    stats = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/stats")

    assert stats["entries"] == {"official_account": 2, "unknown": 2}
    assert stats["viewers"] == 4


@pytest.mark.parametrize("codec_name", CODECS)
async def test_first_arrival_is_shown(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter("anna", codec_name=codec_name)

    await stage.enter("bela", claims={"name": "贝拉"})

    arrived = await anna.event("arrived", **{"from": {"id": "bela", "name": "贝拉", "role": "viewer"}})
    assert arrived["at"] > 0
    # Coming back is no arrival.
    await (await stage.enter("bela")).ask("ping")
    await stage.settled(anna)
    assert [event["from"]["id"] for event in anna.said("arrived")].count("bela") == 1


async def test_stats_over_both_ways_are_the_same(stage: Stage) -> None:
    mo, anna = await stage.enter("mo", "moderator"), await stage.enter("anna", entry="group")
    await anna.ask("like.send", n=9, batch=1)
    await anna.do("comment.send", text="在吗")

    stats = await mo.ask("stats.get")

    assert stats == {
        "online": 2,
        "peak": 2,
        "viewers": 2,
        "likes": 9,
        "comments": 1,
        "shares": 0,
        "orders": {"held": 0, "paid": 0, "cancelled": 0, "expired": 0, "refunded": 0},
        "sold_cents": 0,
        "entries": {"unknown": 1, "group": 1},
    }
    assert await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/stats") == stats
    assert await stage.do("stats.get") == stats


async def test_room_without_campaigns_conserves_everything(stage: Stage) -> None:
    sam = await stage.enter("sam", "streamer")
    nothing = {"holds": True, "sales": {}, "packets": {}}

    assert await sam.ask("audit.get") == nothing
    assert await stage.do("audit.get") == nothing
    assert await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/audit") == nothing
