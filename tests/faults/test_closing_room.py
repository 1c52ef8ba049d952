"""A room that is closing when everything stops: what is open is settled exactly once, by whoever is there next."""

from pathlib import Path
from typing import Any

from tests.support.processes import Guests, House, a_house, until


async def campaigns_of(guests: Guests) -> dict[str, Any]:
    audit: dict[str, Any] = await guests.merchant.ok("GET", f"/v1/rooms/{guests.room}/audit")
    assert audit["holds"] is True
    return audit


async def begin_to_close(guests: Guests, hold_s: int) -> str:
    """A sale with a hold and a packet with a grab, in a room that is told to close; returns the order."""
    await guests.open_room()
    await guests.merchant.do(guests.room, "item.put", item="tea", title="明前龙井", price_cents=9_900)
    now = (await guests.merchant.room(guests.room))["now"]
    sale = {"sale": "s", "item": "tea", "price_cents": 4_900, "stock": 3, "hold_s": hold_s}
    await guests.merchant.do(guests.room, "seckill.schedule", **sale, starts_at=0, ends_at=now + 3_600_000)
    packet = {"packet": "p", "total_cents": 100, "shares": 4, "split": "even", "expires_s": 3_600}
    await guests.merchant.do(guests.room, "redpacket.send", **packet)
    anna = await guests.join("anna")
    order = (await anna.do("seckill.claim", sale="s"))["order"]
    await anna.do("redpacket.grab", packet="p")
    await guests.merchant.do(guests.room, "room.close")
    return str(order)


async def see_that_it_closed_once(guests: Guests, order: str) -> None:
    async def closed() -> bool:
        return bool((await guests.merchant.room(guests.room))["state"] == "closed")

    await until(closed)
    facts = await guests.facts()
    told = [(fact["ev"], fact.get("state")) for fact in facts]
    assert told.count(("room.state", "closed")) == 1
    assert told.count(("redpacket.closed", "closed")) == 1
    assert told.count(("seckill.ended", "ended")) == 1
    assert told[-1] == ("room.state", "closed")
    audit = await campaigns_of(guests)
    assert audit["sales"]["s"] == {"stock": 3, "left": 3, "held": 0, "sold": 0, "holds": True}
    assert (audit["packets"]["p"]["granted_cents"], audit["packets"]["p"]["refunded_cents"]) == (25, 75)
    page = await guests.merchant.ok("GET", f"/v1/rooms/{guests.room}/orders")
    assert [(change["order"], change["status"]) for change in page["data"]] == [
        (order, "held"),
        (order, "expired"),
    ]


async def test_service_killed_while_a_room_closes(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "closing") as guests:
            order = await begin_to_close(guests, hold_s=2)
            house.kill()
            house.open()
            await see_that_it_closed_once(guests, order)


async def test_service_and_store_killed_while_a_room_closes(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "closing") as guests:
            order = await begin_to_close(guests, hold_s=2)
            kill_everything(house)
            house.open()
            await see_that_it_closed_once(guests, order)


def kill_everything(house: House) -> None:
    """Kill service and store at once, the service first: it would start the store again."""
    house.kill()
    house.kill_store()
