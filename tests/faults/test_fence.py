"""
A sale while the store under it is killed, or comes back as an older copy of itself.

A store that keeps what it acknowledged goes on by itself. One that may not have, or that has less than the engine has
seen, sells nothing until a streamer arms the sale again; what was sold on the lost line of history is not sold twice.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.client import Map, a_key
from tests.support.processes import Guests, House, a_house, is_gone, until
from tests.support.shoppers import Shopper, open_sale, orders_of, units_of


def restore(house: House, older: Path, freeze: Callable[[], int]) -> None:
    """
    Kill the store and let it come back from an older copy of its files.

    Args:
        freeze: Returns the process that would start it again at once; it is held meanwhile.
    """
    keeper, store = freeze(), house.store_pid()
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(store, signal.SIGKILL)
        # A zombie until its parent runs again: then it is as gone as it will be.
        while not is_gone(store):
            pass
        live = house.folder / "data" / "appendonlydir"
        shutil.rmtree(live)
        shutil.copytree(older, live)
    finally:
        os.kill(keeper, signal.SIGCONT)


async def paused(guests: Guests) -> bool:
    """Tell whether the room's snapshot says that the sale waits."""
    answer = await guests.merchant.call("GET", f"/v1/rooms/{guests.room}")
    return answer.status == 200 and [sale["state"] for sale in answer.json["sales"]] == ["paused"]


async def test_killed_durable_store_goes_on_selling_by_itself(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "killed") as guests:
            await open_sale(guests, stock=30)
            shoppers = [Shopper(guests, f"v{number}") for number in range(40)]
            won: list[str] = []

            async def shop(shopper: Shopper) -> Map:
                answer = await shopper.claim()
                if "order" in answer:
                    won.append(answer["order"])
                return answer

            asked = [asyncio.create_task(shop(shopper)) for shopper in shoppers[:20]]
            await until(lambda: _holds(len(won) >= 5))
            house.kill_store()
            asked += [asyncio.create_task(shop(shopper)) for shopper in shoppers[20:]]
            answers = await asyncio.gather(*asked)

            assert sum("order" in answer for answer in answers) == 30
            assert {answer["code"] for answer in answers if "order" not in answer} == {"sold_out"}
            assert len(set(won)) == 30
            # Every order that was acknowledged is there, and nobody had to arm the sale.
            assert set(await orders_of(guests)) == set(won)
            assert await units_of(guests) == {"stock": 30, "left": 0, "held": 30, "sold": 0, "holds": True}
            # The same key has the same answer on the other side.
            again = await shoppers[0].claim()
            assert again == answers[0]


async def _holds(value: bool) -> bool:
    return value


async def sell_over_an_older_copy(house: House, guests: Guests, freeze: Callable[[], int]) -> None:
    """Sell 8 of 20, keep a copy, sell 7 more of which one is paid, lose them, and go on."""
    await open_sale(guests, stock=20)
    early = [await Shopper(guests, f"early-{number}").order() for number in range(8)]
    older = house.folder / "older"
    shutil.copytree(house.folder / "data" / "appendonlydir", older)
    lost = [await Shopper(guests, f"lost-{number}").order() for number in range(7)]
    assert (await units_of(guests))["left"] == 5

    restore(house, older, freeze)
    await until(lambda: paused(guests))

    # Nothing is sold, whoever asks and however often; what the copy knows is still known.
    late = [Shopper(guests, f"late-{number}") for number in range(10)]
    assert {(await shopper.claim())["code"] for shopper in late[:3]} == {"paused"}
    assert set(await orders_of(guests)) == set(early)

    streamer = await guests.join("sam", "streamer")
    sale = await streamer.ask("seckill.adjust", key=a_key(), sale="s", delta=0)
    assert (sale["state"], sale["stock"]) == ("open", 13)

    answers = [await shopper.claim() for shopper in late]
    new = [answer["order"] for answer in answers if "order" in answer]
    # 8 + 7 were acknowledged, so 5 are left of 20.
    assert len(new) == 5
    assert {answer["code"] for answer in answers if "order" not in answer} == {"sold_out"}
    assert len({*early, *lost, *new}) == 20
    assert await units_of(guests) == {"stock": 13, "left": 0, "held": 13, "sold": 0, "holds": True}
    # A shop that had read all of the lost line misses none of the new orders.
    page = await guests.merchant.ok(
        "GET", f"/v1/rooms/{guests.room}/orders", query={"after": "15", "limit": 100}
    )
    assert [change["order"] for change in page["data"]] == new


async def test_store_from_an_older_copy_sells_nothing_twice(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "older") as guests:
            assert house.service is not None
            pid = house.service.process.pid
            await sell_over_an_older_copy(house, guests, lambda: pid)


async def test_older_copy_under_two_workers_sells_nothing_twice(tmp_path: Path) -> None:
    with a_house(tmp_path, workers=2) as house:
        async with Guests(house, "older-two") as guests:
            assert house.service is not None
            pid = house.service.process.pid
            await sell_over_an_older_copy(house, guests, lambda: pid)


async def test_payments_that_were_lost_are_not_sold_again_when_their_holds_end(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "paid") as guests:
            assert house.service is not None
            pid = house.service.process.pid
            await open_sale(guests, stock=2, hold_s=4)
            order = await Shopper(guests, "anna").order()
            older = house.folder / "older"
            shutil.copytree(house.folder / "data" / "appendonlydir", older)
            payment = {"payment_id": "pay-1", "amount_cents": 4_900}
            watcher = await guests.join("watcher")
            await guests.merchant.ok("POST", f"/v1/orders/{order}/paid", payment)
            await watcher.event("stock", sold=1)

            restore(house, older, lambda: pid)
            await until(lambda: paused(guests))
            await guests.merchant.do(guests.room, "seckill.adjust", sale="s", delta=0)

            async def expired() -> bool:
                return (await orders_of(guests))[order]["status"] == "expired"

            await until(expired)
            # Anna's unit was paid for: it is not on sale again.
            assert await units_of(guests) == {"stock": 1, "left": 1, "held": 0, "sold": 0, "holds": True}


async def test_store_that_may_have_lost_something_waits_for_the_streamer(tmp_path: Path) -> None:
    with a_house(tmp_path, appendfsync="everysec") as house:
        async with Guests(house, "everysec") as guests:
            await open_sale(guests, stock=5)
            first = Shopper(guests, "anna")
            order = await first.order()

            house.kill_store()
            await until(lambda: paused(guests))

            late = Shopper(guests, "bo")
            assert (await late.claim())["code"] == "paused"
            # An order that is known is answered, whatever the sale does.
            assert await first.order() == order
            await guests.merchant.do(guests.room, "seckill.adjust", sale="s", delta=0)
            assert await late.order() != order
            assert await units_of(guests) == {"stock": 5, "left": 3, "held": 2, "sold": 0, "holds": True}
