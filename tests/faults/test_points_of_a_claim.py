"""
The store or the service dies while a claim is on its way, or the wire between them falls silent.

Before the store has it, while it is there, after its answer: whoever asks again with the same key has one order,
whatever the point was, and the units add up.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from engine.store.embedded import EmbeddedStore
from tests.support.client import Client, Map, Refused, a_key
from tests.support.processes import Guests, House, is_gone, seqs, until
from tests.support.shoppers import Shopper, open_sale, orders_of, units_of
from tests.support.store_wire import Point, Wire, a_wire

STOCK = 6
NOT_NOW = {"unavailable", "outcome_unknown"}
SHOPPERS = 9


class Wired:
    """A service that reaches its store through a wire of ours; both are started again when they die."""

    def __init__(self, house: House, store: EmbeddedStore, wire: Wire) -> None:
        self.house = house
        self.store = store
        self.wire = wire

    def kill_store(self, engine_pid: int) -> None:
        """Kill the store at once. Who watches it starts it again."""
        pid = self.store.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def kill_service(self, engine_pid: int) -> None:
        """Kill the service at once."""
        os.kill(engine_pid, signal.SIGKILL)


@pytest.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Wired]:
    store = EmbeddedStore(tmp_path / "store")
    url = await store.start()
    try:
        async with a_wire(tmp_path / "wire.sock", url.removeprefix("unix://")) as wire:
            house = House(tmp_path, "--store", wire.url)
            # The wire runs on this loop, so nothing that waits for the service may hold it.
            await asyncio.to_thread(house.open)
            try:
                yield Wired(house, store, wire)
            finally:
                await asyncio.to_thread(house.close)
    finally:
        await store.stop()


async def assert_sold_once(guests: Guests, answers: dict[str, str]) -> None:
    """Compare what the shoppers were told with the orders and the units."""
    won = {order for order in answers.values() if order != "sold_out"}
    assert len(won) == STOCK
    assert list(answers.values()).count("sold_out") == SHOPPERS - STOCK
    assert set(await orders_of(guests)) == won
    assert await units_of(guests) == {"stock": STOCK, "left": 0, "held": STOCK, "sold": 0, "holds": True}


async def claim(shopper: Shopper) -> Map:
    """Claim, also when the service dies while a token is asked for."""
    while True:
        try:
            return await shopper.claim()
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)


async def claim_by_all(guests: Guests) -> dict[str, str]:
    """Let everybody claim at once; return viewer → order or the code of the refusal."""
    shoppers = [Shopper(guests, f"v{number}") for number in range(SHOPPERS)]
    told = await asyncio.gather(*(claim(shopper) for shopper in shoppers))
    return {
        shopper.name: str(answer.get("order", answer.get("code")))
        for shopper, answer in zip(shoppers, told, strict=True)
    }


async def test_store_killed_at_each_point_of_a_claim_sells_each_unit_once(wired: Wired) -> None:
    for point in Point:
        async with Guests(wired.house, f"store-{point.name.lower()}") as guests:
            await open_sale(guests, stock=STOCK)
            wired.wire.strike(point, 1, wired.kill_store)

            answers = await claim_by_all(guests)

            assert wired.wire.struck.is_set()
            await assert_sold_once(guests, answers)


async def test_service_killed_at_each_point_of_a_claim_sells_each_unit_once(wired: Wired) -> None:
    house = wired.house
    for point in Point:
        async with Guests(house, f"service-{point.name.lower()}") as guests:
            await open_sale(guests, stock=STOCK)
            assert house.service is not None
            pid = house.service.process.pid
            wired.wire.strike(point, 1, wired.kill_service)
            claiming = asyncio.ensure_future(claim_by_all(guests))

            await wired.wire.struck.wait()
            await until(lambda pid=pid: _gone(pid))  # type: ignore[misc]
            house.service.wait()
            # Whoever asks meanwhile is refused a connection and tries again where the service is next.
            await asyncio.to_thread(house.open)

            await assert_sold_once(guests, await claiming)


async def _gone(pid: int) -> bool:
    return is_gone(pid)


async def test_silent_wire_is_answered_for_and_loses_nothing(wired: Wired) -> None:
    """Nothing is closed and nothing arrives, in both directions or in one."""
    for requests, replies in ((True, True), (True, False), (False, True)):
        async with Guests(wired.house, f"silent-{requests:d}{replies:d}") as guests:
            await open_sale(guests, stock=STOCK)
            viewer, console = await guests.join("viewer"), await guests.join("console", "moderator")
            order = await Shopper(guests, "first").order()

            wired.wire.silence(requests=requests, replies=replies)
            asked = {"key": a_key(), "text": "停电"}
            refusals = [await console.refusal("notice.set", **asked) for _ in range(2)]
            wired.wire.speak()

            assert {refusal["code"] for refusal in refusals} <= NOT_NOW
            assert await insist(console, "notice.set", **asked) <= NOT_NOW
            answers = await claim_by_all(guests)
            assert sum(answer != "sold_out" for answer in answers.values()) == STOCK - 1
            assert set(await orders_of(guests)) == {order, *answers.values()} - {"sold_out"}
            assert await units_of(guests) == {
                "stock": STOCK,
                "left": 0,
                "held": STOCK,
                "sold": 0,
                "holds": True,
            }
            # Set once, however often it was asked for, and told on the connection from before.
            facts = [fact["seq"] for fact in await guests.facts()]
            await heard(viewer, facts[-1])
            assert seqs(viewer) == list(range(viewer.joined["seq"] + 1, facts[-1] + 1))
            assert len(viewer.said("notice")) == 1


async def heard(viewer: Client, seq: int) -> None:
    """Read until the fact at `seq` is there."""
    await viewer.until(lambda: seqs(viewer)[-1:] == [seq])


async def insist(client: Client, cmd: str, **fields: object) -> set[str]:
    """Ask until it is done; return what was answered before."""
    refusals = set()
    while True:
        try:
            await client.ask(cmd, **fields)
            return refusals
        except Refused as refused:
            refusals.add(refused.code)
