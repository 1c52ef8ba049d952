"""
The same thing asked again: after a lost reply, on another worker, after a restart of the store. One answer, one effect.

Each case is one way to move units or money; each test is one way to have to ask again.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from engine.errors import CommandRejected, LiveroomError
from engine.store.embedded import EmbeddedStore
from engine.store.functions import library
from engine.store.keys import RoomKeys
from engine.store.store import Store, to_answer
from tests.support.campaign_room import CampaignRoom
from tests.support.cluster import Node, running_cluster
from tests.support.store_proxy import a_store_proxy
from tests.support.stores import running_store

#: What is asked: given a store and a room, the answer.
Ask = Callable[[Store, CampaignRoom], Awaitable[Any]]


async def claim(store: Store, room: CampaignRoom, viewer: str = "bo", key: str = "key-00001") -> Any:
    """Claim through the engine's own batch."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(header: Any, own: Any, error: Exception | None) -> None:
        answered.set_result(to_answer(own, error))

    store.claim(RoomKeys(room.key), "s", viewer, 1, key, "f1", 0, ",,", done)
    return _json(await answered)


async def grab(store: Store, room: CampaignRoom) -> Any:
    """Grab through the engine's own batch."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    names = RoomKeys(room.key)
    store.grab(names, "p", "bo", "key-00001", "f1", 0, ",,", b'"bo"', b'{"id":"bo"}', answered.set_result)
    return _json(await answered)


async def cancel(store: Store, room: CampaignRoom) -> Any:
    return _json(await store.cancel_order(room.key, "code0000-1", "anna", "key-00001", "f1"))


async def pay(store: Store, room: CampaignRoom) -> Any:
    json, refund = await store.pay_order(room.key, "code0000-1", "pay-1", 4_900)
    return _json(json), refund


async def pay_in_vain(store: Store, room: CampaignRoom) -> Any:
    json, refund = await store.pay_order(room.key, "code0000-2", "pay-2", 4_900)
    return _json(json), refund


async def refund(store: Store, room: CampaignRoom) -> Any:
    return _json(await store.refund_order(room.key, "code0000-3", "pay-3", restock=True))


CASES: dict[str, tuple[Ask, bytes]] = {
    "claim": (claim, b"seckill_claim"),
    "cancel": (cancel, b"order_cancel"),
    "pay": (pay, b"order_paid"),
    "pay in vain": (pay_in_vain, b"order_paid"),
    "refund": (refund, b"order_refunded"),
    "grab": (grab, b"packet_grab"),
}


def _json(answer: bytes | LiveroomError) -> Any:
    if isinstance(answer, LiveroomError):
        raise answer
    return orjson.loads(answer)


def set_the_stage(room: CampaignRoom) -> None:
    """Three orders: one held, one cancelled by somebody who holds another, one paid; and a packet."""
    room.sell(stock=5)
    room.send(parts=(30, 50, 20))
    assert room.hold("anna") == "code0000-1"
    room.cancel("cy", room.hold("cy"))
    room.pay(room.hold("dee"), "pay-3", 4_900)
    room.hold("cy")


def state_of(room: CampaignRoom) -> dict[str, Any]:
    """Return all that counts: everything but how long keys are kept."""
    return {"dump": room.dump(), "units": room.units(), "money": room.money(), "changes": room.changes()}


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[EmbeddedStore]:
    """A private store that comes back when it is killed."""
    server = EmbeddedStore(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def room_on(url: str) -> CampaignRoom:
    """Return a live room with the stage set."""
    client: redis.Redis[str] = redis.Redis.from_url(url, protocol=2, decode_responses=True)
    client.function_load(library().text, replace=True)
    room = CampaignRoom(client, state="live")
    set_the_stage(room)
    return room


def let_go(room: CampaignRoom) -> None:
    room.wire.close()
    room.client.close()


@pytest.mark.parametrize("case", CASES)
async def test_lost_reply_has_one_effect_and_the_same_answer(tmp_path: Path, case: str) -> None:
    ask, function = CASES[case]
    async with embedded(tmp_path) as server:
        room = room_on(server.url)
        socket = server.url.removeprefix("unix://")
        async with a_store_proxy(socket) as proxy, running_store(proxy.url) as store:
            proxy.lose_reply(function)
            first = await ask(store, room)
            assert proxy.lost.is_set()
            after = state_of(room)

            assert await ask(store, room) == first
            assert state_of(room) == after
        let_go(room)


@pytest.mark.parametrize("case", CASES)
async def test_retry_on_another_worker_has_one_effect_and_the_same_answer(server: str, case: str) -> None:
    ask, _ = CASES[case]
    room = room_on(server)
    async with running_store(server) as here, running_store(server) as there:
        first, second = await asyncio.gather(ask(here, room), ask(there, room))
        after = state_of(room)

        assert first == second or case == "grab"
        assert await ask(there, room) == second
        assert state_of(room) == after
        assert room.money()["grabbed"] == int(case == "grab")
    let_go(room)


@pytest.mark.parametrize("case", CASES)
async def test_retry_after_a_restart_has_one_effect_and_the_same_answer(tmp_path: Path, case: str) -> None:
    ask, _ = CASES[case]
    async with embedded(tmp_path) as server:
        room = room_on(server.url)
        async with running_store(server.url) as store:
            first = await ask(store, room)
            before = state_of(room)
            room.wire.close()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)

            assert await _insist(ask, store, room) == first
            assert state_of(room) == before
            # The sale goes on by itself: the store keeps what it acknowledges.
            assert (await claim(store, room, "eve", "key-00002"))["status"] == "held"
        room.client.close()


async def _insist(ask: Ask, store: Store, room: CampaignRoom) -> Any:
    for _ in range(50):
        try:
            return await ask(store, room)
        except CommandRejected:
            raise
        except LiveroomError:
            await asyncio.sleep(0.05)
    raise AssertionError("the store did not come back")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.mark.parametrize("case", CASES)
async def test_engine_runs_a_room_on_the_node_that_owns_it(nodes: list[Node], case: str) -> None:
    ask, _ = CASES[case]
    node = nodes[2]
    room = CampaignRoom(node.client, state="live", key=node.room())
    set_the_stage(room)
    async with running_store(node.url) as store:
        first = await ask(store, room)
        after = state_of(room)
        assert await ask(store, room) == first
        assert state_of(room) == after
        read = await store.read_room(room.key)
        assert read is not None
        assert read.audit["holds"] is True
        assert read.audit["sales"]["s"] == {**room.units(), "holds": True}
    room.wire.close()
