"""
A cluster of three primaries and three replicas, with one room on each: slots that move, primaries that die.

The engine is a process of its own, as an operator would run it: `--store redis+cluster://…`, waiting for one replica.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from engine.store.keys import RoomKey, RoomKeys
from tests.support.client import Client, Map, Refused, a_key
from tests.support.cluster import PRIMARIES, Node, cluster_url, running_cluster, slot_of
from tests.support.processes import Guests, House, a_house, seqs, until
from tests.support.shoppers import NOT_NOW, Shopper, open_sale, orders_of, units_of


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), replicas=1, durable=True) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def house(nodes: list[Node], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # One node of the cluster is enough to find the others.
    arguments = ("--store", cluster_url(nodes[1:2]))
    with a_house(tmp_path_factory.mktemp("house"), *arguments, store_replicas="1") as house:
        yield house


_NUMBERS = itertools.count()


def room_in(slots: range) -> str:
    """Return a room of the demo tenant, not used before, whose slot is one of `slots`."""
    for number in _NUMBERS:
        room = f"r{number}"
        if slot_of(RoomKey("demo", room)) in slots:
            return room
    raise AssertionError


@asynccontextmanager
async def live_room(house: House, slots: range) -> AsyncIterator[Guests]:
    async with Guests(house, room_in(slots)) as guests:
        await guests.open_room()
        yield guests


async def insist(client: Client, name: str, **fields: Any) -> Map:
    """Ask with one key until there is a definite answer."""
    fields = {"key": a_key(), **fields}
    while True:
        try:
            return await client.ask(name, **fields)
        except Refused as refusal:
            if refusal.code not in NOT_NOW:
                raise
            await asyncio.sleep(0.02)


async def test_rooms_on_every_primary_live_side_by_side(house: House, nodes: list[Node]) -> None:
    for node in nodes[:PRIMARIES]:
        async with live_room(house, node.slots) as guests:
            anna = await guests.join("anna")
            host = await guests.join("host", "streamer")

            await host.do("notice.set", text="hi")

            assert (await anna.event("notice"))["text"] == "hi"
            keys = RoomKeys(RoomKey("demo", guests.room))
            assert node.client.exists(keys.meta) == 1


async def test_slot_of_a_live_room_moves_and_viewers_see_every_fact_once(
    house: House, nodes: list[Node]
) -> None:
    source, target = nodes[0], nodes[1]
    async with live_room(house, source.slots) as guests:
        anna = await guests.join("anna")
        host = await guests.join("host", "streamer")
        slot = slot_of(RoomKey("demo", guests.room))

        for number in range(60):
            if number == 20:
                source.client.execute_command(
                    "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id
                )
            await insist(host, "notice.set", text=f"{number}")

        await anna.until(lambda: [e["text"] for e in anna.said("notice")][-1:] == ["59"])
        assert [event["text"] for event in anna.said("notice")] == [str(number) for number in range(60)]
        assert seqs(anna) == sorted(set(seqs(anna)))
        assert len(seqs(anna)) == 60

        async def moved() -> bool:
            try:
                return bool(target.client.exists(RoomKeys(RoomKey("demo", guests.room)).meta))
            except redis.ResponseError:  # MOVED: not here yet.
                return False

        await until(moved)


async def test_claim_is_answered_only_when_a_replica_has_it_on_disk(house: House, nodes: list[Node]) -> None:
    primary, replica = nodes[1], nodes[PRIMARIES + 1]
    async with Guests(house, room_in(primary.slots)) as guests:
        await open_sale(guests, stock=2)
        anna = await guests.join("anna")
        claim = {"sale": "s", "key": a_key()}
        os.kill(replica.process.pid, signal.SIGSTOP)
        try:
            assert (await anna.refusal("seckill.claim", **claim))["code"] == "outcome_unknown"
            # What moves no unit does not wait for replicas.
            await anna.do("comment.send", text="wait")
            # Asked again, it writes nothing, and still is not acknowledged.
            assert (await anna.refusal("seckill.claim", **claim))["code"] == "outcome_unknown"
        finally:
            os.kill(replica.process.pid, signal.SIGCONT)

        await insist(anna, "seckill.claim", **claim)

        assert await units_of(guests) == {"stock": 2, "left": 1, "held": 1, "sold": 0, "holds": True}


async def test_primary_dies_in_a_sale_and_nothing_acknowledged_is_lost(
    house: House, nodes: list[Node]
) -> None:
    """The killed node comes back as a replica, as under any supervisor: without one, nothing is acknowledged."""
    primary, replica = nodes[2], nodes[PRIMARIES + 2]
    async with Guests(house, room_in(primary.slots)) as guests:
        await open_sale(guests, stock=30)
        watcher = await guests.join("watcher")
        shoppers = [Shopper(guests, f"v{number}") for number in range(40)]
        held = await asyncio.gather(*(shopper.order() for shopper in shoppers[:20]))

        # The next ones ask while it happens.
        asking = [asyncio.create_task(shopper.claim()) for shopper in shoppers[20:30]]
        primary.kill()

        async def promoted() -> bool:
            return replica.is_primary()

        await until(promoted, 60.0)
        primary.start()
        answers = await asyncio.gather(*asking)

        answers += [await shopper.claim() for shopper in shoppers[30:]]
        if any(answer.get("code") == "paused" for answer in answers):
            # The engine had seen units taken that the replica does not hold: a person looks, and arms the sale again.
            await guests.merchant.do(guests.room, "seckill.adjust", sale="s", delta=0)
            again = [Shopper(guests, f"w{number}") for number in range(30)]
            answers += [await shopper.claim() for shopper in again]
        won = [str(answer["order"]) for answer in answers if "order" in answer]
        standing = await orders_of(guests)
        assert set(held) <= set(standing)
        assert set(won) <= set(standing)
        units = await units_of(guests)
        assert len(standing) == units["held"] <= 30
        assert units["left"] == 0

        # Viewers may have seen facts that the replica does not hold: the next one begins another epoch.
        host = await guests.join("host", "streamer")
        await insist(host, "notice.set", text="on we go")
        assert await watcher.close_code() == 4502
        back = await guests.come_back(watcher, "watcher")
        assert not back.joined["resumed"]
        assert back.joined["room"]["notice"]["text"] == "on we go"
