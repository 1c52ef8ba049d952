"""
The store has no memory left, or its append-only file ends in half a command; and one node's clock is wrong.

What is refused is refused definitely, what was acknowledged is there afterwards, and nobody has to do anything.
"""

import os
import signal
from pathlib import Path

from engine.store.embedded import EmbeddedStore
from tests.support.client import Refused, a_key
from tests.support.processes import Guests, House, a_house, is_gone, until
from tests.support.shoppers import Shopper, open_sale, orders_of, units_of

AN_HOUR_MS = 3_600_000
SHIFTED_CLOCK = Path(__file__).parents[1] / "chaos" / "shifted_clock"


async def test_full_store_refuses_definitely_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "full") as guests, house.store() as store:
            await open_sale(guests, stock=3)
            viewer = await guests.join("viewer")
            before = await Shopper(guests, "before").order()

            await store.config_set("maxmemory", "1mb")
            key = a_key()
            refusal = await viewer.refusal("seckill.claim", sale="s", key=key)
            await store.config_set("maxmemory", "0")

            assert (refusal["code"], refusal["definite"]) == ("unavailable", True)

            async def claimed() -> bool:
                try:
                    return "order" in await viewer.ask("seckill.claim", sale="s", key=key)
                except Refused as refused:
                    return refused.code != "unavailable"

            await until(claimed)
            assert len({before, *(await orders_of(guests))}) == 2
            assert await units_of(guests) == {"stock": 3, "left": 1, "held": 2, "sold": 0, "holds": True}


async def test_half_a_command_at_the_end_of_the_file_costs_nothing_acknowledged(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "torn") as guests:
            await open_sale(guests, stock=5)
            orders = [await Shopper(guests, f"v{number}").order() for number in range(3)]
            assert house.service is not None
            keeper, store = house.service.process.pid, house.store_pid()
            os.kill(keeper, signal.SIGSTOP)
            try:
                os.kill(store, signal.SIGKILL)
                while not is_gone(store):
                    pass
                newest = max((tmp_path / "data" / "appendonlydir").glob("*.incr.aof"))
                with newest.open("ab") as file:
                    file.write(b"*3\r\n$5\r\nHINCR")
            finally:
                os.kill(keeper, signal.SIGCONT)

            late = await Shopper(guests, "late").order()

            assert set(await orders_of(guests)) == {*orders, late}
            assert await units_of(guests) == {"stock": 5, "left": 1, "held": 4, "sold": 0, "holds": True}


async def test_node_whose_clock_is_an_hour_ahead_sells_by_the_stores_clock(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    url = await store.start()
    right = House(tmp_path, "--store", url)
    wrong = House(tmp_path, "--store", url, settings={"PYTHONPATH": str(SHIFTED_CLOCK)})
    try:
        right.open()
        wrong.open()
        async with Guests(right, "clocks") as guests, Guests(wrong, "clocks") as others:
            await open_sale(guests, stock=4, hold_s=600)
            now = (await guests.merchant.room("clocks"))["now"]
            later = {"sale": "later", "item": "tea", "price_cents": 100, "stock": 1, "hold_s": 600}
            times = {"starts_at": now + AN_HOUR_MS // 2, "ends_at": now + AN_HOUR_MS}
            await guests.merchant.do("clocks", "seckill.schedule", **later, **times)

            # The node's own clock says that this sale began long ago and that every hold is over.
            viewer = await others.connect()
            # Whether a token is over is decided by the node that reads it, so this one lives longer than its error.
            token = await guests.merchant.token("clocks", "viewer", ttl_s=7_200)
            joined = await viewer.join("clocks", token)
            assert abs(joined["now"] - now) < AN_HOUR_MS // 4
            refusal = await viewer.refusal("seckill.claim", sale="later", key=a_key())
            assert refusal["code"] == "not_started"
            first = await viewer.ask("seckill.claim", sale="s", key=a_key())
            second = await Shopper(guests, "other").order()

            assert abs(first["pay_by"] - now - 600_000) < AN_HOUR_MS // 4
            orders = await orders_of(guests)
            assert {name: order["status"] for name, order in orders.items()} == {
                first["order"]: "held",
                second: "held",
            }
            units = (await guests.merchant.ok("GET", "/v1/rooms/clocks/audit"))["sales"]["s"]
            assert units == {"stock": 4, "left": 2, "held": 2, "sold": 0, "holds": True}
    finally:
        wrong.close()
        right.close()
        await store.stop()
