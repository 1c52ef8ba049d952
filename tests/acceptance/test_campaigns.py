"""Sales, orders, red packets and shares, from outside: what viewers, consoles and the shop see."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import redis

from engine.rooms.campaigns import states_at
from engine.store.embedded import EmbeddedStore
from engine.store.keys import RoomKey, RoomKeys
from tests.support.client import Client, Map, Refused, a_key
from tests.support.service import Service, now_s
from tests.support.stage import CODECS, Stage
from tests.support.stores import dump_keys

HOUR_MS = 3_600_000
BIG = 2**53 - 1

#: Quantities nobody can have; JSON carries them all, the store sees none of them.
BAD_QUANTITIES = [0, -1, -5, BIG + 1, 2**63, 2**64, 1.5, 1.0, "1", "１", "", True, None, [1], {"n": 1}]


async def clock(stage: Stage) -> int:
    return int((await stage.snapshot())["now"])


async def put_on_sale(stage: Stage, sale: str = "s", *, item: str = "tea", **fields: Any) -> Map:
    """Put an item on the shelf and its units on sale, by default 3 at 49.00 for an hour from now."""
    await stage.do("item.put", item=item, title="明前龙井", price_cents=9_900)
    now = await clock(stage)
    terms = {"price_cents": 4_900, "stock": 3, "starts_at": 0, "ends_at": now + HOUR_MS, **fields}
    return await stage.do("seckill.schedule", sale=sale, item=item, **terms)


async def pay(stage: Stage, order: str, payment: str, cents: Any = 4_900) -> Any:
    body = {"payment_id": payment, "amount_cents": cents}
    return await stage.merchant.call("POST", f"/v1/orders/{order}/paid", body)


async def audit(stage: Stage) -> Map:
    numbers: Map = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/audit")
    assert numbers["holds"] is True
    return numbers


async def agrees(stage: Stage, client: Client) -> None:
    """See that what a viewer folded together is what a snapshot says now."""
    later = await stage.snapshot()
    await client.until(
        lambda: client.machine.progress is not None and client.machine.progress.seq >= later["seq"]
    )
    now = later["now"]
    for view in (client.room, later):
        states_at(view, now)
    for part in ("items", "sales", "packets", "state", "explaining", "notice"):
        assert client.room[part] == later[part]


@pytest.fixture
def dump(service: Service, stage: Stage) -> Iterator[Any]:
    """What the store holds of the room, without the leases, which the worker renews all the time."""
    url = EmbeddedStore(service.log_file.parent / "data").url
    client: redis.Redis[str] = redis.Redis.from_url(url, protocol=2, decode_responses=True)
    prefix = RoomKeys(RoomKey("demo", stage.room)).prefix

    def read() -> Map:
        return {key: value for key, value in dump_keys(client, prefix).items() if key != "leases"}

    yield read
    client.close()


# --- seckill ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
async def test_sale_from_its_announcement_to_the_last_unit(stage: Stage, codec_name: str) -> None:
    sam = await stage.enter("sam", "streamer", codec_name=codec_name)
    anna, bo = (
        await stage.enter("anna", codec_name=codec_name),
        await stage.enter("bo", codec_name=codec_name),
    )
    await stage.do("item.put", item="tea", title="明前龙井", price_cents=9_900)
    now = await clock(stage)
    sale = await sam.do(
        "seckill.schedule",
        sale="s",
        item="tea",
        price_cents=4_900,
        stock=1,
        starts_at=now + 400,
        ends_at=now + HOUR_MS,
    )
    assert sale["state"] == "scheduled"
    assert (await anna.event("seckill.scheduled"))["starts_at"] == sale["starts_at"]

    early = await anna.refusal("seckill.claim", key=a_key(), sale="s")
    assert (early["code"], early["starts_at"]) == ("not_started", sale["starts_at"])
    assert early["now"] < sale["starts_at"]
    # It unlocks by the clock, with no message.
    await asyncio.sleep((sale["starts_at"] - early["now"]) / 1000)
    held = await anna.do("seckill.claim", sale="s")
    assert (held["status"], held["stock_left"], "again" in held) == ("held", 0, False)
    assert (await anna.event("you.order"))["order"] == held["order"]
    assert (await bo.event("seckill.sold_out"))["final"] is False
    assert (await bo.event("item.put", item="tea"))["sold_out"] is True
    assert (await bo.event("stock", left=0))["held"] == 1

    assert (await bo.refusal("seckill.claim", key=a_key(), sale="s"))["final"] is False
    again = await anna.do("seckill.claim", sale="s")
    assert again == {**held, "again": True}
    cancelled = await anna.do("order.cancel", order=held["order"])
    assert cancelled["status"] == "cancelled"
    await bo.event("seckill.back")
    bought = await bo.do("seckill.claim", sale="s")
    paid = await pay(stage, bought["order"], "pay-1")
    assert (paid.status, paid.json["status"], paid.json["payment_id"]) == (200, "paid", "pay-1")
    assert (await bo.event("you.order", status="paid"))["order"] == bought["order"]
    await bo.event("seckill.sold_out", final=True)
    assert (await bo.ask("order.get", order=bought["order"])) == paid.json
    assert (await anna.refusal("order.get", order=bought["order"]))["code"] == "not_found"
    for viewer in (anna, bo, sam):
        await agrees(stage, viewer)
    assert (await audit(stage))["sales"]["s"] == {"stock": 1, "left": 0, "held": 0, "sold": 1, "holds": True}
    assert await sam.ask("audit.get") == await audit(stage)
    ended = await sam.do("seckill.end", sale="s")
    assert ended["state"] == "ended"
    await bo.event("seckill.ended")
    assert (await stage.snapshot())["sales"] == []


async def test_two_devices_of_one_viewer_hold_one_order(stage: Stage) -> None:
    await put_on_sale(stage)
    devices = [await stage.enter("anna") for _ in range(4)]

    answers = await asyncio.gather(*(device.do("seckill.claim", sale="s") for device in devices))

    assert len({answer["order"] for answer in answers}) == 1
    assert sum("again" in answer for answer in answers) == 3
    assert (await audit(stage))["sales"]["s"]["held"] == 1


async def test_many_claims_in_one_frame_are_answered_one_by_one(stage: Stage) -> None:
    await put_on_sale(stage, stock=9, per_viewer=3)
    anna = await stage.enter("anna")
    key = a_key()

    ids = await anna.send(
        {"cmd": "seckill.claim", "key": key, "sale": "s"},
        {"cmd": "seckill.claim", "key": key, "sale": "s"},
        {"cmd": "seckill.claim", "key": key, "sale": "s", "qty": 2},
        {"cmd": "seckill.claim", "key": a_key(), "sale": "s", "qty": 2},
        {"cmd": "seckill.claim", "key": a_key(), "sale": "s"},
    )
    replies = [await anna.reply(command_id) for command_id in ids]

    assert replies[0].ok == replies[1].ok
    assert [reply.err and reply.err["code"] for reply in replies] == [
        None,
        None,
        "conflict",
        None,
        "limit_reached",
    ]
    assert replies[4].err is not None
    assert replies[4].err["left"] == 0
    assert (await audit(stage))["sales"]["s"]["held"] == 3


@pytest.mark.parametrize(
    ("codec_name", "qty"),
    [(name, qty) for name in CODECS for qty in BAD_QUANTITIES if (name, qty) != ("msgpack", 2**64)],
    ids=repr,
)
async def test_quantity_that_is_none_leaves_the_store_untouched(
    stage: Stage, dump: Any, codec_name: str, qty: Any
) -> None:
    await put_on_sale(stage)
    anna = await stage.enter("anna", codec_name=codec_name)
    before = dump()

    command = {"cmd": "seckill.claim", "id": 7, "key": a_key(), "sale": "s", "qty": qty}
    anna.machine.pending[7] = "seckill.claim"
    # The client's encoder of JSON knows no number this large; others do.
    await anna.send_bytes(json.dumps(command).encode() if anna.codec.is_text else anna.codec.encode(command))
    err = (await anna.reply(7)).err

    assert err is not None
    assert err["code"] == "bad_quantity"
    assert dump() == before


@pytest.mark.parametrize(
    ("field", "codes"),
    [("stock", {"bad_command"}), ("per_viewer", {"bad_command"}), ("hold_s", {"bad_command"})],
)
async def test_bad_numbers_of_a_sale_leave_the_store_untouched(
    stage: Stage, dump: Any, field: str, codes: set[str]
) -> None:
    await stage.do("item.put", item="tea", title="明前龙井", price_cents=9_900)
    terms = {
        "sale": "s",
        "item": "tea",
        "price_cents": 1,
        "stock": 1,
        "starts_at": 0,
        "ends_at": await clock(stage) + HOUR_MS,
    }
    before = dump()

    for value in BAD_QUANTITIES:
        answer = await stage.merchant.command(stage.room, "seckill.schedule", **{**terms, field: value})
        assert answer.status >= 400, (value, answer.body)
        assert answer.json["code"] in codes | {"bad_quantity"}

    assert dump() == before


async def test_bad_adjustment_leaves_the_store_untouched(stage: Stage, dump: Any) -> None:
    await put_on_sale(stage)
    sam = await stage.enter("sam", "streamer")
    before = dump()

    for delta in (BIG + 1, -BIG - 1, 2**63, 1.5, 1.0, "1", "１", "", True, None, [1], {"n": 1}):
        err = await sam.refusal("seckill.adjust", key=a_key(), sale="s", delta=delta)
        answer = await stage.merchant.command(stage.room, "seckill.adjust", sale="s", delta=delta)
        assert err["code"] == answer.json["code"] == "bad_quantity", delta

    assert dump() == before


async def test_adjustment_is_limited_to_what_is_free(stage: Stage) -> None:
    await put_on_sale(stage)
    sam, anna = await stage.enter("sam", "streamer"), await stage.enter("anna")
    await anna.do("seckill.claim", sale="s")

    refused = await sam.refusal("seckill.adjust", key=a_key(), sale="s", delta=-3)
    assert (refused["code"], refused["left"]) == ("limit_reached", 2)
    assert (await sam.do("seckill.adjust", sale="s", delta=-2))["state"] == "sold_out"
    assert (await sam.do("seckill.adjust", sale="s", delta=4))["stock"] == 5
    await agrees(stage, anna)
    huge = await sam.refusal("seckill.adjust", key=a_key(), sale="s", delta=BIG)
    assert huge["code"] == "bad_quantity"
    missing = await sam.refusal("seckill.adjust", key=a_key(), sale="ghost", delta=1)
    assert missing["code"] == "not_found"


async def test_price_times_limit_that_no_number_holds_is_refused(stage: Stage) -> None:
    answer = await stage.merchant.command(
        stage.room,
        "seckill.schedule",
        sale="s",
        item="tea",
        price_cents=BIG,
        stock=1,
        per_viewer=2,
        starts_at=0,
        ends_at=1,
    )

    assert answer.json["code"] == "bad_quantity"


async def test_eligibility_is_read_from_the_token(stage: Stage) -> None:
    await put_on_sale(stage, eligible={"tags": ["vip", "a,b"], "level_min": 3})
    low = await stage.enter("low", claims={"tags": ["vip"], "level": 2})
    new = await stage.enter("new", claims={"tags": ["a", "b"], "level": 9})
    vip = await stage.enter("vip", claims={"tags": ["x", "a,b"], "level": 3})

    for viewer in (low, new):
        assert (await viewer.refusal("seckill.claim", key=a_key(), sale="s"))["code"] == "not_eligible"
    assert (await vip.do("seckill.claim", sale="s"))["status"] == "held"
    assert (await stage.snapshot())["sales"][0]["eligible"] == {"tags": ["vip", "a,b"], "level_min": 3}


async def test_hold_expires_and_stock_is_told_to_be_back(stage: Stage) -> None:
    await put_on_sale(stage, stock=1, hold_s=1)
    anna, bo = await stage.enter("anna"), await stage.enter("bo")
    held = await anna.do("seckill.claim", sale="s")

    expired = await anna.event("you.order", status="expired")

    assert expired["order"] == held["order"]
    await bo.event("seckill.back")
    assert (await bo.do("seckill.claim", sale="s"))["status"] == "held"
    await agrees(stage, bo)


async def test_viewer_who_comes_back_finds_order_share_and_stock(stage: Stage) -> None:
    await put_on_sale(stage)
    await stage.do("redpacket.send", packet="p", total_cents=10, shares=2, split="even", expires_s=600)
    anna = await stage.enter("anna")
    held = await anna.do("seckill.claim", sale="s")
    await anna.do("redpacket.grab", packet="p")
    await anna.socket.close()

    back = await stage.enter("anna")

    assert [order["order"] for order in back.joined["you"]["orders"]] == [held["order"]]
    assert back.joined["you"]["grabs"] == {"p": 5}
    assert back.joined["gauges"]["stock"] == {"s": {"left": 2, "held": 1, "sold": 0}}
    assert back.joined["gauges"]["packets"] == {"p": {"left": 1, "grabbed": 1}}
    assert back.joined["room"]["sales"][0]["state"] == "open"


# --- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cents", [*BAD_QUANTITIES[1:], -4_900], ids=repr)
async def test_amount_that_is_none_leaves_the_store_untouched(stage: Stage, dump: Any, cents: Any) -> None:
    await put_on_sale(stage)
    anna = await stage.enter("anna")
    order = (await anna.do("seckill.claim", sale="s"))["order"]
    before = dump()

    answer = await pay(stage, order, "pay-1", cents)

    assert (answer.status, answer.json["code"]) == (400, "bad_quantity")
    assert dump() == before


@pytest.mark.parametrize("cents", [0, 1, 4_899, 4_901, BIG])
async def test_wrong_amount_is_a_conflict_and_changes_nothing(stage: Stage, dump: Any, cents: int) -> None:
    await put_on_sale(stage)
    anna = await stage.enter("anna")
    order = (await anna.do("seckill.claim", sale="s"))["order"]
    before = dump()

    answer = await pay(stage, order, "pay-1", cents)

    assert (answer.status, answer.json["code"], answer.json["amount_cents"]) == (409, "conflict", 4_900)
    assert dump() == before


@pytest.mark.parametrize("payment", ["", "x" * 129, "a b", "a,b", "a|b", "支付", 1, None])
async def test_payment_id_that_is_none_is_refused(stage: Stage, payment: Any) -> None:
    for what in ("paid", "refunded"):
        body = {"payment_id": payment, "amount_cents": 1}
        await put_on_sale(stage, sale=f"s-{what}")
        anna = await stage.enter("anna")
        order = (await anna.do("seckill.claim", sale=f"s-{what}"))["order"]
        answer = await stage.merchant.call("POST", f"/v1/orders/{order}/{what}", body)
        assert (answer.status, answer.json["code"]) == (400, "bad_command")


async def test_payments_are_taken_late_twice_and_given_back(stage: Stage) -> None:
    await put_on_sale(stage, stock=1)
    anna, bo = await stage.enter("anna"), await stage.enter("bo")
    first = (await anna.do("seckill.claim", sale="s"))["order"]
    await anna.do("order.cancel", order=first)
    second = (await bo.do("seckill.claim", sale="s"))["order"]

    late = await pay(stage, first, "pay-1")
    assert (late.status, late.json["status"], late.json["refund_required"]) == (200, "cancelled", True)
    assert (await pay(stage, first, "pay-1")).json == late.json
    assert (await pay(stage, second, "pay-1")).json["code"] == "conflict"
    assert (await pay(stage, second, "pay-2")).json["status"] == "paid"
    twice = await pay(stage, second, "pay-3")
    assert (twice.json["status"], twice.json["refund_required"]) == ("paid", True)
    assert (await anna.ask("order.get", order=first))["refund_required"] == ["pay-1"]
    refunded = await stage.merchant.ok("POST", f"/v1/orders/{first}/refunded", {"payment_id": "pay-1"})
    assert "refund_required" not in refunded
    assert "refund_required" not in (await pay(stage, first, "pay-1")).json
    back = await stage.merchant.ok(
        "POST", f"/v1/orders/{second}/refunded", {"payment_id": "pay-2", "restock": False}
    )
    assert back["status"] == "refunded"
    assert (await audit(stage))["sales"]["s"] == {"stock": 0, "left": 0, "held": 0, "sold": 0, "holds": True}
    await agrees(stage, bo)
    stats = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/stats")
    assert stats["orders"] == {"held": 0, "paid": 0, "cancelled": 1, "expired": 0, "refunded": 1}
    assert stats["sold_cents"] == 0


async def test_changes_of_orders_are_pulled_page_by_page(stage: Stage) -> None:
    await put_on_sale(stage, stock=9)
    shoppers = [await stage.enter(f"v{number}") for number in range(3)]
    orders = [(await shopper.do("seckill.claim", sale="s"))["order"] for shopper in shoppers]
    await pay(stage, orders[1], "pay-1")

    pulled, cursor, more = [], "", True
    while more:
        query = {"limit": 2, **({"after": cursor} if cursor else {})}
        page = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/orders", query=query)
        pulled += [(change["order"], change["status"]) for change in page["data"]]
        cursor, more = page["next"], page["more"]

    assert pulled == [*((order, "held") for order in orders), (orders[1], "paid")]


async def test_order_of_another_tenant_does_not_exist(stage: Stage, other_merchant: Any) -> None:
    await put_on_sale(stage)
    anna = await stage.enter("anna")
    order = (await anna.do("seckill.claim", sale="s"))["order"]

    answer = await other_merchant.call(
        "POST", f"/v1/orders/{order}/paid", {"payment_id": "pay-1", "amount_cents": 4_900}
    )

    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert (await anna.ask("order.get", order=order))["status"] == "held"


# --- red packets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["lucky", "even"])
async def test_packet_is_grabbed_to_the_last_cent(stage: Stage, split: str) -> None:
    viewers = [await stage.enter(f"v{number}") for number in range(5)]
    await stage.do(
        "redpacket.send", packet="p", total_cents=1_003, shares=4, split=split, min_cents=100, expires_s=600
    )
    # Whoever comes later sees it too.
    late = await stage.enter("late")
    assert late.room["packets"][0]["state"] == "open"

    answers = [await viewer.do("redpacket.grab", packet="p") for viewer in viewers[:4]]
    amounts = [answer["amount_cents"] for answer in answers]

    assert sum(amounts) == 1_003
    assert min(amounts) >= 100
    if split == "even":
        assert amounts == [251, 251, 251, 250]
    closed = await late.event("redpacket.closed")
    luckiest = viewers[amounts.index(max(amounts))].joined["you"]["viewer"]
    assert (closed["granted_cents"], closed["refunded_cents"], closed["grabbed"]) == (1_003, 0, 4)
    assert (closed["best"]["viewer"], closed["best"]["amount_cents"]) == (luckiest, max(amounts))
    assert (await viewers[4].refusal("redpacket.grab", key=a_key(), packet="p"))["code"] == "empty"
    assert await viewers[0].do("redpacket.grab", packet="p") == {"amount_cents": amounts[0], "again": True}
    assert (await viewers[0].event("you.grab"))["amount_cents"] == amounts[0]
    assert (await audit(stage))["packets"]["p"]["holds"] is True
    await agrees(stage, late)


async def test_packet_opens_by_the_clock_and_refunds_when_it_expires(stage: Stage) -> None:
    anna, bo = await stage.enter("anna"), await stage.enter("bo")
    packet = await stage.do(
        "redpacket.send",
        packet="p",
        total_cents=100,
        shares=2,
        split="even",
        opens_at=await clock(stage) + 300,
        expires_s=1,
    )
    assert packet["state"] == "scheduled"

    early = await anna.refusal("redpacket.grab", key=a_key(), packet="p")
    assert (early["code"], early["starts_at"]) == ("not_started", packet["opens_at"])
    await asyncio.sleep((packet["opens_at"] - early["now"]) / 1000)
    assert (await anna.do("redpacket.grab", packet="p"))["amount_cents"] == 50
    closed = await bo.event("redpacket.closed")
    assert (closed["granted_cents"], closed["refunded_cents"]) == (50, 50)
    assert (await bo.refusal("redpacket.grab", key=a_key(), packet="p"))["code"] == "ended"
    numbers = (await audit(stage))["packets"]["p"]
    assert (numbers["granted_cents"], numbers["left_cents"], numbers["refunded_cents"]) == (50, 0, 50)


async def test_cancelled_packet_refunds_and_granted_shares_stand(stage: Stage) -> None:
    sam, anna = await stage.enter("sam", "streamer"), await stage.enter("anna")
    await sam.do("redpacket.send", packet="p", total_cents=100, shares=4, split="even", expires_s=600)
    await anna.do("redpacket.grab", packet="p")

    cancelled = await sam.do("redpacket.cancel", packet="p")

    assert cancelled["state"] == "closed"
    assert (await anna.event("redpacket.closed"))["refunded_cents"] == 75
    assert (await sam.do("redpacket.cancel", packet="p"))["state"] == "closed"
    assert (await anna.do("redpacket.grab", packet="p")) == {"amount_cents": 25, "again": True}


@pytest.mark.parametrize(("change", "code"), [
    ({"total_cents": 9, "shares": 10}, "bad_quantity"),
    ({"min_cents": 51}, "bad_quantity"),
    ({"shares": 10_001, "total_cents": 20_000}, "bad_quantity"),
    *(({"shares": value}, "bad_command") for value in BAD_QUANTITIES),
    *(({"total_cents": value}, "bad_command") for value in BAD_QUANTITIES),
    *(({"expires_s": value}, "bad_command") for value in BAD_QUANTITIES),
    ({"split": "half"}, "bad_command"),
])  # fmt: skip
async def test_packet_that_cannot_be_is_refused_before_the_store(
    stage: Stage, dump: Any, change: Map, code: str
) -> None:
    packet = {"packet": "p", "total_cents": 100, "shares": 2, "split": "lucky", "expires_s": 60}
    before = dump()

    answer = await stage.merchant.command(stage.room, "redpacket.send", **{**packet, **change})

    assert answer.json["code"] == code
    assert dump() == before


# --- sharing --------------------------------------------------------------------------------------------------------


async def test_people_who_come_through_a_link_count_and_their_orders_name_who_brought_them(
    stage: Stage,
) -> None:
    await put_on_sale(stage)
    ivy = await stage.enter("ivy", claims={"name": "艾薇"})
    link = (await ivy.ask("share.token", channel="wechat_group"))["token"]
    assert ivy.joined["you"]["share"] is not None

    anna = await stage.enter("anna", via=link)
    await stage.enter("anna", via=link)
    await stage.enter("ivy", via=link)

    assert (await ivy.event("arrived", via="艾薇"))["from"]["id"] == "anna"
    assert (await ivy.event("rank"))["top"] == [{"viewer": "ivy", "name": "艾薇", "count": 1}]
    rank = await ivy.ask("share.rank")
    assert rank == {"top": [{"viewer": "ivy", "name": "艾薇", "count": 1}], "me": {"rank": 1, "count": 1}}
    held = await anna.do("seckill.claim", sale="s")
    assert (await anna.ask("order.get", order=held["order"]))["inviter"] == "ivy"
    page = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/shares")
    told = [(record["invitee"], record["counted"], record.get("reason")) for record in page["data"]]
    assert told == [("anna", True, None), ("anna", False, "again"), ("ivy", False, "self")]
    assert page["data"][0]["channel"] == "wechat_group"


async def test_link_that_is_flawed_lets_the_viewer_in_and_says_why_it_does_not_count(
    stage: Stage, merchant: Any, service: Service
) -> None:
    ivy = await stage.enter("ivy")
    good = (await ivy.ask("share.token"))["token"]
    header = jwt.get_unverified_header(good)
    claims = {**jwt.decode(good, options={"verify_signature": False}), "sub": "mallory"}
    forged = jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": header["kid"]})
    elsewhere = Stage(service, merchant, f"{stage.room}-2")
    await merchant.put_room(elsewhere.room)
    foreign = (await (await elsewhere.enter("ivy")).ask("share.token"))["token"]
    token = await stage.merchant.token(stage.room, "ivy")

    for viewer, link in [("a", forged), ("b", good[:-3]), ("c", foreign), ("d", token), ("e", "？？")]:
        joined = await stage.enter(viewer, via=link)
        assert joined.joined["you"]["viewer"] == viewer

    page = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/shares")
    assert [(record["inviter"], record["reason"]) for record in page["data"]] == [(None, "forged")] * 5
    assert (await ivy.ask("share.rank"))["top"] == []
    await elsewhere.leave_all()
    assert claims["exp"] > now_s()


# --- a room that closes -----------------------------------------------------------------------------------------------


async def test_closing_room_waits_for_its_holds_and_refunds_its_packets(stage: Stage) -> None:
    await put_on_sale(stage, hold_s=2)
    await stage.do("redpacket.send", packet="p", total_cents=100, shares=4, split="even", expires_s=600)
    anna, bo = await stage.enter("anna"), await stage.enter("bo")
    held = await anna.do("seckill.claim", sale="s")
    await anna.do("redpacket.grab", packet="p")

    assert (await stage.do("room.close"))["state"] == "closing"
    closed = await bo.event("redpacket.closed")
    assert (closed["granted_cents"], closed["refunded_cents"]) == (25, 75)
    assert (await bo.refusal("seckill.claim", key=a_key(), sale="s"))["code"] == "ended"
    with pytest.raises(Refused):
        await bo.do("redpacket.grab", packet="p")
    assert (await anna.ask("order.get", order=held["order"]))["status"] == "held"
    assert (await stage.snapshot())["state"] == "closing"

    await anna.event("you.order", status="expired")
    await bo.event("room.state", state="closed")
    numbers = await audit(stage)
    assert numbers["sales"]["s"] == {"stock": 3, "left": 3, "held": 0, "sold": 0, "holds": True}
    # A payment that comes after all that is to give back or a sale, as for any late one.
    late = await pay(stage, held["order"], "pay-1")
    assert late.json["status"] == "paid"
