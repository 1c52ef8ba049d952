"""
Shoppers in a sale, for tests that break something under it.

Decides how one insists: with one key, over new connections if need be, until there is a definite answer.
"""

import asyncio
from typing import Any

from websockets.exceptions import ConnectionClosed

from tests.support.client import Client, Closed, Map, Refused, a_key
from tests.support.processes import Guests

SALE = {"sale": "s", "item": "tea", "price_cents": 4_900, "starts_at": 0, "hold_s": 600}
AN_HOUR_MS = 3_600_000
NOT_NOW = {"unavailable", "outcome_unknown", "overloaded"}


async def open_sale(guests: Guests, stock: int, **fields: Any) -> None:
    """Create a live room with one sale in it."""
    await guests.open_room()
    await guests.merchant.do(guests.room, "item.put", item="tea", title="明前龙井", price_cents=9_900)
    now = (await guests.merchant.room(guests.room))["now"]
    sale = {**SALE, "stock": stock, "ends_at": now + AN_HOUR_MS, **fields}
    await guests.merchant.do(guests.room, "seckill.schedule", **sale)


class Shopper:
    """A viewer who wants one unit and asks with one key until there is an answer, over new connections if need be."""

    def __init__(self, guests: Guests, name: str) -> None:
        self.guests = guests
        self.name = name
        self.key = a_key()
        self.client: Client | None = None

    async def claim(self) -> Map:
        """Return `ok` of the claim, or the refusal."""
        while True:
            try:
                if self.client is None:
                    self.client = await self.guests.join(self.name)
                return await self.client.ask("seckill.claim", sale="s", key=self.key)
            except Refused as refused:
                if refused.code not in NOT_NOW:
                    return refused.err
            except (Closed, ConnectionClosed, OSError):
                self.client = None
            await asyncio.sleep(0.02)

    async def order(self) -> str:
        """Return the order of a claim that must be won."""
        answer = await self.claim()
        assert "order" in answer, answer
        return str(answer["order"])


async def orders_of(guests: Guests) -> dict[str, Map]:
    """Return the newest state of every order, as the shop pulls them."""
    page = await guests.merchant.ok("GET", f"/v1/rooms/{guests.room}/orders", query={"limit": 1_000})
    return {change["order"]: change for change in page["data"]}


async def units_of(guests: Guests) -> dict[str, int]:
    """Return the units of the sale; everything must add up."""
    audit = await guests.merchant.ok("GET", f"/v1/rooms/{guests.room}/audit")
    assert audit["holds"] is True
    units: dict[str, int] = audit["sales"]["s"]
    return units
