"""The service is killed and started again: what it had acknowledged is all there, once."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest

from engine.store.embedded import EmbeddedStore
from tests.support.client import Refused, a_key
from tests.support.processes import Guests, House, a_house, seqs, until
from tests.support.store_proxy import a_store_proxy


async def test_killed_server_comes_back_as_it_was(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "tea") as guests:
            await guests.open_room()
            for cmd, fields in (
                ("item.put", {"item": "tea-1", "title": "龙井", "price_cents": 9900}),
                ("item.put", {"item": "tea-2", "title": "普洱", "price_cents": 19900}),
                ("item.explain", {"item": "tea-2"}),
                ("notice.set", {"text": "八点开抢"}),
                ("viewer.mute", {"viewer": "mute-me", "seconds": 0}),
                ("viewer.ban", {"viewer": "ban-me"}),
                ("room.mute_all", {"on": True}),
                ("room.mute_all", {"on": False}),
            ):
                await guests.merchant.do("tea", cmd, **fields)
            anna, ben = await guests.join("anna"), await guests.join("ben", codec_name="msgpack")
            likes = [await client.ask("like.send", n=n, batch=1) for client, n in ((anna, 50), (ben, 7))]
            comment = await anna.do("comment.send", text="多少钱?")
            await ben.event("comment")
            before = await guests.merchant.room("tea")

            house.kill()
            house.open()

            after = await guests.merchant.room("tea")
            assert {**after, "now": 0} == {**before, "now": 0}
            assert after["notice"] == {"text": "八点开抢", "version": 1}
            assert (after["explaining"], [item["item"] for item in after["items"]]) == (
                "tea-2",
                ["tea-1", "tea-2"],
            )
            assert [entry["comment"] for entry in after["comments"]] == [comment["comment"]]
            assert likes[-1]["total"] == 57
            assert (await guests.merchant.ok("GET", "/v1/rooms/tea/stats"))["likes"] == 57

            # While the viewers are away the room goes on; they resume with exactly that.
            for text in ("一", "二", "三"):
                await guests.merchant.do("tea", "notice.set", text=text)
            for client, viewer in ((anna, "anna"), (ben, "ben")):
                back = await guests.come_back(client, viewer)
                missed = back.joined["missed"]
                assert (back.joined["resumed"], back.joined["room"]) == (True, None)
                assert [fact["text"] for fact in missed] == ["一", "二", "三"]
                assert [fact["seq"] for fact in missed] == [before["seq"] + n for n in (1, 2, 3)]
                assert back.joined["epoch"] == before["epoch"]
                assert back.joined["gauges"]["likes"] == 57
                assert back.room["notice"] == (await guests.merchant.room("tea"))["notice"]

            muted = await guests.join("mute-me")
            assert muted.joined["you"]["muted_until"] == 0
            assert (await muted.refusal("comment.send", text="hi", key=a_key()))["code"] == "muted"
            banned = await guests.connect()
            with pytest.raises(Refused, match="forbidden"):
                await banned.join("tea", await guests.token("ban-me"))
            assert await banned.close_code() == 4403


async def test_command_repeated_after_a_crash_is_done_once(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "once") as guests:
            await guests.open_room()
            anna = await guests.join("anna")
            notice, comment = {"key": a_key(), "text": "八点"}, {"key": a_key(), "text": "多少钱?"}
            version = await guests.merchant.do("once", "notice.set", **notice)
            number = await anna.ask("comment.send", **comment)

            house.kill()
            house.open()

            assert await guests.merchant.do("once", "notice.set", **notice) == version
            back = await guests.come_back(anna, "anna")
            assert await back.ask("comment.send", **comment) == number
            assert len((await guests.merchant.room("once"))["comments"]) == 1
            assert [fact["ev"] for fact in await guests.facts()] == ["room.state", "notice"]


async def test_killed_after_the_close_was_acknowledged_closes_once(tmp_path: Path) -> None:
    """`closing` is not left by the process that died in it, so the next one has to, exactly once."""
    store = EmbeddedStore(tmp_path / "store")
    socket_path = unquote((await store.start()).removeprefix("unix://"))
    house = House(tmp_path)
    try:
        async with a_store_proxy(socket_path) as wire:
            house.arguments = ("--store", wire.url)
            await asyncio.to_thread(house.open)
            async with Guests(house, "bye") as guests:
                await guests.open_room()
                anna = await guests.join("anna")
                wire.hold_back(b"room_settle")
                assert await guests.merchant.do("bye", "room.close") == {"state": "closing"}
                await wire.held.wait()
                await anna.event("room.state", state="closing")

                house.kill()
                house.arguments = ("--store", store.url)
                await asyncio.to_thread(house.open)

                async def closed() -> bool:
                    return str((await guests.merchant.room("bye"))["state"]) == "closed"

                await until(closed)
                # A second close, and the settling that the first one noted, change nothing.
                await guests.merchant.do("bye", "room.close")
                states = [fact["state"] for fact in await guests.facts()]
                assert states == ["live", "closing", "closed"]
                assert seqs(anna)[-1] == 2
    finally:
        house.close()
        await store.stop()


async def test_reply_of_the_store_that_is_lost_does_not_repeat_the_comment(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    socket_path = unquote((await store.start()).removeprefix("unix://"))
    house = House(tmp_path)
    try:
        async with a_store_proxy(socket_path) as wire:
            house.arguments = ("--store", wire.url)
            await asyncio.to_thread(house.open)
            async with Guests(house, "lost") as guests:
                await guests.open_room()
                anna = await guests.join("anna")
                wire.lose_reply(b"comment_post")

                answer = await anna.do("comment.send", text="多少钱?")

                assert wire.lost.is_set()
                assert answer == {"comment": 1}
                await anna.event("comment")
                wire.lost.clear()
                wire.lose_reply(b"likes_add")
                assert await anna.ask("like.send", n=9, batch=1) == {"total": 9}
                assert wire.lost.is_set()
                assert len((await guests.merchant.room("lost"))["comments"]) == 1
                assert len(anna.said("comment")) == 1
            await asyncio.to_thread(house.close)
    finally:
        house.close()
        await store.stop()
