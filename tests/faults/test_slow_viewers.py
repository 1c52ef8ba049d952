"""A viewer that stops reading loses chat, then the connection, never a fact; nobody else notices."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from engine.fanout import hub, write_queue
from engine.gateway.session import Session
from tests.support.client import Client
from tests.support.in_process import Engine, an_engine
from tests.support.processes import Guests, seqs, until

#: About 700 bytes on the wire.
LONG = "慢" * 200
#: The kernel holds a megabyte or so of a loopback connection before the server has anything unsent.
POSTED_MAX = 15_000
COMMANDS_AT_ONCE = 30
STUCK = 300


@contextlib.asynccontextmanager
async def a_room(folder: Path) -> AsyncIterator[tuple[Engine, Guests, Client, Client]]:
    """A live room that shows all chat, with a console and one viewer who keeps up."""
    settings = {"chat_per_s_max": 0, "commands_per_s": 1e6, "commands_burst": 1_000_000}
    async with an_engine(folder, **settings) as engine, Guests(engine, "slow") as guests:
        await guests.open_room()
        yield engine, guests, await guests.join("console", "streamer"), await guests.join("quick")


async def join_with_small_pockets(engine: Engine, guests: Guests) -> tuple[Client, Session]:
    """
    Join on a socket that holds little, and keeps the other end's from growing. Returns both ends.

    The client takes from its socket only while it is waiting for something, so it is slow whenever the test is silent.
    """
    pocket = socket.socket()
    pocket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pocket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    pocket.setblocking(False)
    host, port = guests.house.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(pocket, (host, int(port)))
    websocket = await connect(
        guests.house.ws_url,
        sock=pocket,
        subprotocols=[Subprotocol("liveroom.v1.json")],
        compression=None,
        ping_interval=None,
        max_queue=1,
        max_size=None,
    )
    client = Client(websocket, "json")
    guests.clients.append(client)
    await client.join(guests.room, await guests.token("slow"))
    [session] = [each for each in engine.app.gateway.sessions if each.viewer == "slow"]
    return client, session


async def fill(console: Client, session: Session) -> int:
    """
    Post long comments until a connection has taken nothing of the last `STUCK` of them. Returns how many it were.

    The kernel makes room by and by, so being unwritable once is not being stuck.
    """
    posted, stuck, unsent = 0, 0, -1
    while stuck < STUCK:
        assert posted < POSTED_MAX, "so many comments did not fill it"
        ids = await console.send(
            *(
                {"cmd": "comment.send", "key": f"fill-{posted + place:08}", "text": LONG}
                for place in range(COMMANDS_AT_ONCE)
            )
        )
        for command_id in ids:
            await console.answer(command_id)
        posted += len(ids)
        before, unsent = unsent, session.unsent_bytes()
        stuck = 0 if session._transport.writable or unsent != before else stuck + len(ids)
    return posted


async def test_slow_viewer_gets_facts_only_and_is_told_what_it_missed(tmp_path: Path) -> None:
    async with a_room(tmp_path) as (engine, guests, console, quick):
        slow, session = await join_with_small_pockets(engine, guests)
        reading = asyncio.ensure_future(quick.event("notice", text="drei"))

        posted = await fill(console, session)
        for text in ("eins", "zwei", "drei"):
            await guests.merchant.do("slow", "notice.set", text=text)

        # The others are not held up, and nothing is kept from them.
        await reading
        assert len(quick.said("comment")) == posted
        assert quick.said("thinned") == []

        # It reads again in time: all that was thinned is counted, and every fact is there.
        def thinned() -> int:
            return sum(event["dropped"] for event in slow.said("thinned"))

        await slow.until(lambda: thinned() + len(slow.said("comment")) >= posted)
        await slow.event("notice", text="drei")
        assert thinned() + len(slow.said("comment")) == posted
        assert thinned() >= STUCK
        assert [fact["text"] for fact in slow.said("notice")] == ["eins", "zwei", "drei"]
        assert seqs(slow) == seqs(quick) == [2, 3, 4]
        numbers = [event["comment"] for event in slow.said("comment")]
        assert numbers == sorted(set(numbers))

        # Having caught up, it is a viewer like any other.
        assert await console.do("comment.send", text=LONG) == {"comment": posted + 1}
        assert (await slow.event("comment", comment=posted + 1))["text"] == LONG
        assert engine.sample("liveroom_closes_total", code="4501") == 0


async def test_viewer_that_stays_slow_is_cut_off_and_resumes_with_every_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten seconds are shortened; that they are ten is checked in tests/unit."""
    monkeypatch.setattr(write_queue, "SLOW_S_MAX", 0.5)
    monkeypatch.setattr(hub, "BEAT_S", 0.1)
    async with a_room(tmp_path) as (engine, guests, console, quick):
        slow, session = await join_with_small_pockets(engine, guests)
        reading = asyncio.ensure_future(quick.event("notice", text="zwei"))
        await fill(console, session)
        await guests.merchant.do("slow", "notice.set", text="eins")

        async def cut_off() -> bool:
            return session._transport.closing

        await until(cut_off)
        await guests.merchant.do("slow", "notice.set", text="zwei")

        # What was sent before the close still arrives, then the reason.
        assert await slow.close_code() == 4501
        back = await guests.come_back(slow, "slow")
        assert back.joined["resumed"]
        assert seqs(slow) + seqs(back) == [2, 3]
        await reading
        assert seqs(quick) == [2, 3]
        assert back.room["notice"]["text"] == "zwei"
        assert quick.socket.close_code is None


async def test_viewer_more_than_a_mebibyte_behind_is_cut_off_at_once(tmp_path: Path) -> None:
    async with a_room(tmp_path) as (engine, guests, console, quick):
        slow, session = await join_with_small_pockets(engine, guests)
        url = "https://shop.example.com/" + "x" * 480
        item = {"item": "tea", "title": "茶" * 60, "price_cents": 1, "cover": url, "url": url}
        put = 0
        while not session._transport.closing:
            assert put < 3000, "facts worth 4 MB did not fill it"
            ids = await console.send(
                *(
                    {"cmd": "item.put", "key": f"item-{put + place:08}", **item}
                    for place in range(COMMANDS_AT_ONCE)
                )
            )
            for command_id in ids:
                await console.answer(command_id)
            put += len(ids)
            # Facts are the one thing a slow viewer is still sent, so they alone fill it up.
            assert session.unsent_bytes() < write_queue.UNSENT_BYTES_MAX + 64 * 1024 * 2

        assert await slow.close_code() == 4501
        assert seqs(slow) == list(range(2, len(seqs(slow)) + 2))
        back = await guests.come_back(slow, "slow")
        now = await guests.merchant.room("slow")
        assert back.joined["seq"] == now["seq"]
        assert back.room["items"] == now["items"]
        await quick.event("item.put", seq=now["seq"])
        assert seqs(quick) == list(range(2, put + 2))
