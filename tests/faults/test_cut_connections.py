"""Connections that end without a word, at the worst moment, leave nothing behind."""

import asyncio
import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from engine.fanout import hub
from engine.fanout.room import Room
from tests.support.client import Client
from tests.support.in_process import Engine, an_engine
from tests.support.processes import Guests, seqs, until

COUNT = 30


def reset(client: Client) -> None:
    """Cut a connection so that the other end sees a reset, not an end."""
    raw = client.socket.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.transport.abort()


async def nobody_left(engine: Engine, guests: Guests) -> None:
    async def forgotten() -> bool:
        async with engine.store() as store:
            present = await store.hlen(guests.names.present)
            here = await store.scard(guests.names.present_on(engine.app.worker))
        return await guests.online() == present == here == 0

    await until(forgotten)
    assert engine.app.gateway.sessions == set()
    assert all(not room.audience.by_viewer for room in engine.app.hub.rooms)


async def test_reset_in_the_middle_of_a_join_leaves_no_ghost(tmp_path: Path) -> None:
    """The store decides the joins when their connections are gone already: their places must be given up again."""
    async with an_engine(tmp_path) as engine, Guests(engine, "ghosts") as guests:
        await guests.open_room()
        anna = await guests.join("anna")
        tokens = [await guests.token(f"v{number}") for number in range(COUNT)]
        clients = [await guests.connect() for _ in tokens]
        embedded = engine.app._embedded
        assert embedded is not None
        assert embedded.pid is not None
        os.kill(embedded.pid, signal.SIGSTOP)
        try:
            for client, token in zip(clients, tokens, strict=True):
                await client.send({"cmd": "room.join", "room": "ghosts", "token": token})
            sessions = engine.app.gateway.sessions

            async def all_wait_for_the_store() -> bool:
                return (
                    sum(session.entered is not None and session.room is None for session in sessions) == COUNT
                )

            await until(all_wait_for_the_store, 0.8)
            for client in clients:
                reset(client)

            async def all_are_gone() -> bool:
                return len(engine.app.gateway.sessions) == 1

            await until(all_are_gone)
        finally:
            os.kill(embedded.pid, signal.SIGCONT)

        async def one() -> bool:
            return await guests.online() == 1

        await until(one)
        reset(anna)
        await nobody_left(engine, guests)


async def test_resets_at_any_moment_leave_no_ghost(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as engine, Guests(engine, "random") as guests:
        await guests.open_room()
        token = await guests.token("anna")
        for turns in range(COUNT):
            client = await guests.connect()
            await client.send({"cmd": "room.join", "room": "random", "token": token})
            # Not a wait for anything: each connection is cut a little later on its way in than the one before.
            for _ in range(turns):
                await asyncio.sleep(0)
            reset(client)
        await nobody_left(engine, guests)


async def test_fact_that_the_bus_lost_in_silence_is_noticed_by_the_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BEAT_S", 0.2)
    lost: list[bytes] = []
    receive = Room.receive

    def receive_all_but_one(room: Room, message: bytes) -> None:
        if not lost and message.startswith(b"f "):
            lost.append(message)
        else:
            receive(room, message)

    async with an_engine(tmp_path) as engine, Guests(engine, "silent") as guests:
        await guests.open_room()
        anna, ben = await guests.join("anna"), await guests.join("ben", codec_name="msgpack")
        monkeypatch.setattr(Room, "receive", receive_all_but_one)

        # Nothing follows that would show the gap.
        await guests.merchant.do("silent", "notice.set", text="hört ihr mich?")

        for client in (anna, ben):
            assert (await client.event("notice"))["text"] == "hört ihr mich?"
            assert seqs(client) == [2]
        assert len(lost) == 1
        assert engine.sample("liveroom_recoveries_total", source="log") == 1
        assert engine.sample("liveroom_recoveries_total", source="snapshot") == 0


async def test_likes_of_a_room_that_was_let_go_meanwhile_all_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store counts a worker's flush once, by its number: a room that is held again must not start over at 1."""
    monkeypatch.setattr(hub, "BEAT_S", 0.05)
    monkeypatch.setattr(hub, "LINGER_S", 0.0)
    async with an_engine(tmp_path) as engine, Guests(engine, "linger") as guests:
        await guests.open_room()
        total = 0
        for round_number in range(3):
            anna = await guests.join("anna")
            for batch in range(1, 4 - round_number):
                total += 5
                assert await anna.ask("like.send", n=5, batch=batch) == {"total": total}
            await anna.socket.close()

            async def let_go() -> bool:
                return engine.app.hub.rooms == []

            await until(let_go)
        assert (await guests.merchant.ok("GET", "/v1/rooms/linger/stats"))["likes"] == total
