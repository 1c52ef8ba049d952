"""Functions of `seckill.lua`: units of an item on sale for a time, and the orders that hold them."""

from typing import Any

import orjson
import pytest

from tests.support.campaign_room import MINUTE_MS, CampaignRoom, Said, ok, said
from tests.support.stores import fresh_key

BIG = 2**53 - 1


def refused(said: Said) -> str:
    code, _ = said
    assert code != "ok", said
    return code


def campaign_facts(room: CampaignRoom) -> list[str]:
    """Return the names of the facts so far, with what a sold-out one says."""
    names = []
    for fact in room.facts():
        name = fact["ev"]
        names.append(f"{name} final={fact['final']}" if name == "seckill.sold_out" else name)
    return names


# --- seckill_schedule -----------------------------------------------------------------------------------------


def test_sale_is_answered_stored_and_told_in_the_same_words(fair: CampaignRoom) -> None:
    fair.put_item("tea")
    gates = ("vip,svip", 3, 60, "1", 2)

    sale = ok(fair.schedule(stock=100, starts_in=MINUTE_MS, eligible='{"level_min":3}', gates=gates))

    assert sale["state"] == "scheduled"
    assert (sale["stock"], sale["price_cents"], sale["per_viewer"], sale["hold_s"]) == (100, 4_900, 1, 300)
    assert sale["eligible"] == {"level_min": 3}
    fact = fair.facts()[-1]
    assert {name: fact[name] for name in sale} == sale
    assert fair.units() == {"stock": 100, "left": 100, "held": 0, "sold": 0}


def test_start_in_the_past_means_now(fair: CampaignRoom) -> None:
    fair.put_item("tea")
    before = fair.now()

    sale = ok(fair.schedule(starts_in=-10 * MINUTE_MS))

    assert before <= sale["starts_at"] <= fair.now()
    assert sale["state"] == "open"


@pytest.mark.parametrize("lasts", [0, -1, -10 * MINUTE_MS])
@pytest.mark.parametrize("starts_in", [-MINUTE_MS, MINUTE_MS])
def test_sale_that_would_end_before_it_starts_is_refused(
    fair: CampaignRoom, starts_in: int, lasts: int
) -> None:
    fair.put_item("tea")

    with fair.unchanged():
        assert refused(said(fair.schedule(starts_in=starts_in, lasts=lasts))) == "bad_command"


def test_sale_of_an_item_that_is_not_on_the_shelf_is_not_found(fair: CampaignRoom) -> None:
    with fair.unchanged():
        assert refused(said(fair.schedule())) == "not_found"


def test_taken_sale_id_is_a_conflict_and_the_same_key_gets_its_answer(fair: CampaignRoom) -> None:
    fair.put_item("tea")
    key = fresh_key()
    first = fair.schedule(key=key)

    with fair.unchanged():
        assert refused(said(fair.schedule(stock=9))) == "conflict"
        assert fair.schedule(key=key) == first
        assert refused(said(fair.schedule(key=key, fingerprint="f2"))) == "conflict"


def test_new_sale_of_an_item_that_was_sold_out_puts_it_back(fair: CampaignRoom) -> None:
    fair.sell(stock=1)
    fair.hold("anna")
    assert fair.is_sold_out()

    fair.schedule("s2")

    assert not fair.is_sold_out()


@pytest.mark.parametrize("state", ["closing", "closed"])
def test_nothing_is_scheduled_in_a_room_that_is_over(fair: CampaignRoom, state: str) -> None:
    fair.put_item("tea")
    fair.set_meta(state=state)

    with fair.unchanged():
        assert said(fair.schedule()) == ("room_not_live", {"state": state})


# --- seckill_claim: who gets units ----------------------------------------------------------------------------


def test_claim_holds_units_until_they_are_paid(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    before = fair.now()

    (now, change, taken), [(code, held)] = fair.claims("s", ("anna", 1, fresh_key(), "f1", 0, ",,"))

    assert (code, held) == (
        "ok",
        {"order": "code0000-1", "status": "held", "pay_by": now + 300_000, "stock_left": 2},
    )
    assert before <= now <= fair.now()
    assert (change, taken) == (1, 1)
    order = fair.order("code0000-1")
    assert order == {
        "order": "code0000-1", "sale": "s", "item": "tea", "viewer": "anna", "qty": 1, "price_cents": 4_900,
        "amount_cents": 4_900, "status": "held", "held_at": now, "pay_by": now + 300_000,
    }  # fmt: skip
    assert fair.changes() == [order]
    assert fair.units() == {"stock": 3, "left": 2, "held": 1, "sold": 0}


def test_viewer_and_room_are_told_of_a_hold(fair: CampaignRoom) -> None:
    fair.sell()
    fair.wire.read()

    order = fair.hold("anna")

    told = dict(fair.wire.read())
    assert orjson.loads(told["p anna"]) == {"ev": "you.order", **fair.order(order)}
    assert orjson.loads(told["g stock:s 1 1 0"]) == {
        "ev": "stock",
        "sale": "s",
        "left": 2,
        "held": 1,
        "sold": 0,
    }


def test_batch_is_decided_in_order_to_the_last_unit(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    batch = [(f"v{number}", 1, fresh_key(), "f1", 0, ",,") for number in range(5)]

    _, replies = fair.claims("s", *batch)

    assert [code for code, _ in replies] == ["ok"] * 3 + ["sold_out"] * 2
    assert [body["stock_left"] for code, body in replies if code == "ok"] == [2, 1, 0]
    assert replies[3][1] == {"final": False, "left": 0}
    assert fair.units() == {"stock": 3, "left": 0, "held": 3, "sold": 0}


def test_full_batch_of_500_is_decided_at_once(fair: CampaignRoom) -> None:
    fair.sell(stock=400)
    batch = [(f"v{number}", 1, fresh_key(), "f1", 0, ",,") for number in range(500)]

    _, replies = fair.claims("s", *batch)

    assert [code for code, _ in replies] == ["ok"] * 400 + ["sold_out"] * 100
    assert len({body["order"] for code, body in replies if code == "ok"}) == 400
    assert len(fair.changes()) == 400


def test_claims_of_one_viewer_in_one_batch_see_each_other(fair: CampaignRoom) -> None:
    fair.sell(stock=5)
    key = fresh_key()
    anna = ("anna", 1, key, "f1", 0, ",,")

    _, replies = fair.claims(
        "s", anna, ("bo", 1, fresh_key(), "f1", 0, ",,"), anna, ("anna", 1, fresh_key(), "f1", 0, ",,")
    )

    assert replies[2] == replies[0]
    assert (replies[3][1]["order"], replies[3][1]["again"]) == (replies[0][1]["order"], True)
    assert fair.units()["held"] == 2


def test_second_key_on_a_one_per_viewer_sale_gets_the_first_order(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    first = fair.hold("anna")

    with fair.unchanged():
        code, body = fair.claim("anna")

    assert (code, body["order"], body["again"], body["status"]) == ("ok", first, True, "held")


def test_second_key_says_what_became_of_the_first_order(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)

    assert fair.claim("anna")[1]["status"] == "paid"
    fair.refund(order, "pay-1")
    assert fair.claim("anna")[1] | {"pay_by": 0} == {
        "order": order, "status": "refunded", "pay_by": 0, "stock_left": 3, "again": True,
    }  # fmt: skip


def test_second_key_gets_the_first_order_also_when_the_sale_is_over(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    order = fair.hold("anna")
    fair.end("s")

    assert fair.claim("anna")[1]["order"] == order
    assert refused(fair.claim("bo")) == "ended"


def test_limit_above_one_counts_units_and_knows_no_again(fair: CampaignRoom) -> None:
    fair.sell(stock=9, per_viewer=3)

    first, second = fair.hold("anna", qty=1), fair.hold("anna", qty=1)
    assert first != second
    with fair.unchanged():
        assert fair.claim("anna", qty=2) == ("limit_reached", {"left": 1})
    fair.hold("anna", qty=1)
    with fair.unchanged():
        assert fair.claim("anna", qty=1) == ("limit_reached", {"left": 0})
    assert fair.units() == {"stock": 9, "left": 6, "held": 3, "sold": 0}


def test_more_than_one_unit_of_a_one_per_viewer_sale_is_over_the_limit(fair: CampaignRoom) -> None:
    fair.sell(stock=9)

    assert fair.claim("anna", qty=2) == ("limit_reached", {"left": 1})
    fair.hold("anna")
    assert fair.claim("anna", qty=2) == ("limit_reached", {"left": 0})


def test_quantity_above_what_is_left_says_how_many_there_are(fair: CampaignRoom) -> None:
    fair.sell(stock=3, per_viewer=5)

    with fair.unchanged():
        assert fair.claim("anna", qty=4) == ("sold_out", {"final": False, "left": 3})
    assert fair.claim("anna", qty=3)[0] == "ok"


@pytest.mark.parametrize("qty", [2**31, BIG])
def test_huge_quantity_is_over_the_limit_and_changes_nothing(fair: CampaignRoom, qty: int) -> None:
    fair.sell(stock=3, per_viewer=3)

    with fair.unchanged():
        assert fair.claim("anna", qty=qty) == ("limit_reached", {"left": 3})


def test_limit_is_per_sale(fair: CampaignRoom) -> None:
    fair.sell("s")
    fair.sell("s2", item="cup")

    assert fair.hold("anna", "s") != fair.hold("anna", "s2")


def test_banned_viewer_gets_nothing(fair: CampaignRoom) -> None:
    fair.sell()
    fair.remove("anna", "ban")

    with fair.unchanged():
        assert refused(fair.claim("anna")) == "forbidden"


def test_missing_sale_is_not_created(fair: CampaignRoom) -> None:
    with fair.unchanged():
        assert refused(fair.claim("anna", "ghost")) == "not_found"
        assert refused(fair.cancel("anna", "code0000-1", "ghost")) == "not_found"
        assert refused(fair.pay("code0000-1", "pay-1", 4_900, "ghost")) == "not_found"
        assert refused(fair.refund("code0000-1", "pay-1", "ghost")) == "not_found"
        assert refused(said(fair.adjust("ghost", 1))) == "not_found"
        assert refused(said(fair.end("ghost"))) == "not_found"
        assert fair.tick("ghost") == ["not_found"]


def test_sale_whose_hash_is_gone_is_not_brought_back_by_its_orders(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.client.delete(fair.names.sale("s"))

    with fair.unchanged():
        assert refused(fair.cancel("anna", order)) == "not_found"
        assert refused(fair.pay(order, "pay-1", 4_900)) == "not_found"
        assert fair.tick("s") == ["not_found"]


def test_missing_room_is_not_created(no_fair: CampaignRoom) -> None:
    assert refused(no_fair.claim("anna")) == "room_not_found"
    assert refused(said(no_fair.schedule())) == "room_not_found"
    assert refused(no_fair.pay("code0000-1", "pay-1", 1)) == "room_not_found"
    assert no_fair.distrust({"s": (1, 1)}) == ["room_not_found", ""]
    assert no_fair.dump() == {}


# --- seckill_claim: when ---------------------------------------------------------------------------------------


def test_start_and_end_are_half_open_to_the_millisecond(fair: CampaignRoom) -> None:
    """[starts_at, ends_at): the header of each reply says what the store's clock was when it decided."""
    fair.sell(stock=100_000)
    now = fair.now()
    starts_at, ends_at = now + 40, now + 80
    fair.client.hset(fair.names.sale("s"), mapping={"starts_at": starts_at, "ends_at": ends_at})

    seen = set()
    for number in range(100_000):
        (now, *_), [(code, body)] = fair.claims("s", (f"v{number}", 1, fresh_key(), "f1", 0, ",,"))
        expected = "not_started" if now < starts_at else "ended" if now >= ends_at else "ok"
        assert code == expected, (now - starts_at, now - ends_at)
        if code == "not_started":
            assert body == {"starts_at": starts_at, "now": now}
        seen.add(code)
        if now > ends_at + 10:
            break
    assert seen == {"not_started", "ok", "ended"}


def test_sale_starts_and_ends_without_any_timer(fair: CampaignRoom) -> None:
    fair.sell(starts_in=5 * MINUTE_MS, lasts=10 * MINUTE_MS)

    with fair.unchanged():
        assert refused(fair.claim("anna")) == "not_started"
    fair.pass_time(5 * MINUTE_MS)
    fair.hold("anna")
    fair.pass_time(10 * MINUTE_MS)
    assert refused(fair.claim("bo")) == "ended"


def test_ended_sale_refuses_whether_or_not_it_was_announced(fair: CampaignRoom) -> None:
    fair.sell()
    fair.pass_time(61 * MINUTE_MS)

    with fair.unchanged():
        assert refused(fair.claim("anna")) == "ended"
    fair.tick("s")
    with fair.unchanged():
        assert refused(fair.claim("anna")) == "ended"


@pytest.mark.parametrize(("state", "code"), [
    ("scheduled", "room_not_live"), ("live", "ok"), ("paused", "ok"), ("closing", "ended"), ("closed", "ended"),
])  # fmt: skip
def test_room_decides_whether_anything_is_held(fair: CampaignRoom, state: str, code: str) -> None:
    fair.sell()
    fair.set_meta(state=state)

    assert fair.claim("anna")[0] == code


# --- one effect per key ----------------------------------------------------------------------------------------


def test_same_key_has_the_same_answer_whatever_became_of_the_order(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    key = fresh_key()
    first = fair.claim("anna", key=key)
    order = first[1]["order"]

    with fair.unchanged():
        assert fair.claim("anna", key=key) == first
    fair.cancel("anna", order)
    with fair.unchanged():
        assert fair.claim("anna", key=key) == first
    second = fair.hold("anna")
    fair.pass_time(6 * MINUTE_MS)
    fair.tick("s")
    with fair.unchanged():
        assert fair.claim("anna", key=key) == first
    assert fair.order(second)["status"] == "expired"
    fair.end("s")
    fair.set_meta(state="closing")
    with fair.unchanged():
        assert fair.claim("anna", key=key) == first


def test_same_key_with_other_fields_is_a_conflict(fair: CampaignRoom) -> None:
    fair.sell(stock=3, per_viewer=3)
    key = fresh_key()
    fair.claim("anna", key=key)

    with fair.unchanged():
        assert refused(fair.claim("anna", qty=2, key=key, fingerprint="f2")) == "conflict"


def test_keys_of_two_viewers_and_commands_are_apart(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    key = fresh_key()

    order = fair.hold("anna", key=key)
    assert fair.hold("bo", key=key) != order
    assert fair.cancel("anna", order, key=key)[1]["status"] == "cancelled"


def test_refusal_is_not_remembered_under_its_key(fair: CampaignRoom) -> None:
    fair.sell(stock=1, starts_in=5 * MINUTE_MS)
    key = fresh_key()

    assert refused(fair.claim("bo", key=key)) == "not_started"
    fair.pass_time(5 * MINUTE_MS)
    order = fair.hold("anna")
    assert refused(fair.claim("bo", key=key)) == "sold_out"
    fair.cancel("anna", order)
    assert fair.claim("bo", key=key)[0] == "ok"


def test_answer_is_kept_for_a_day_beyond_the_last_hold(fair: CampaignRoom) -> None:
    fair.sell(lasts=48 * 60 * MINUTE_MS)
    key = fresh_key()
    fair.claim("anna", key=key)

    kept_ms = fair.client.pttl(fair.names.idempotency("anna", "seckill.claim", key))
    assert kept_ms > (48 + 24) * 60 * MINUTE_MS


# --- giving back -----------------------------------------------------------------------------------------------


def test_cancel_gives_units_and_quota_back_once(fair: CampaignRoom) -> None:
    fair.sell(stock=2)
    order, key = fair.hold("anna"), fresh_key()

    code, cancelled = fair.cancel("anna", order, key=key)

    assert (code, cancelled["status"]) == ("ok", "cancelled")
    assert fair.units() == {"stock": 2, "left": 2, "held": 0, "sold": 0}
    with fair.unchanged():
        assert fair.cancel("anna", order, key=key) == (code, cancelled)
        assert fair.cancel("anna", order) == (code, cancelled)
    assert fair.hold("anna") != order


def test_order_of_somebody_else_is_not_found(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")

    with fair.unchanged():
        assert refused(fair.cancel("bo", order)) == "not_found"
        assert refused(fair.cancel("anna", "code0000-99")) == "not_found"


@pytest.mark.parametrize("restock", [True, False])
def test_paid_order_is_not_cancelled(fair: CampaignRoom, restock: bool) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)

    with fair.unchanged():
        assert fair.cancel("anna", order) == ("conflict", {"status": "paid"})
    fair.refund(order, "pay-1", restock=restock)
    with fair.unchanged():
        assert fair.cancel("anna", order) == ("conflict", {"status": "refunded"})


def test_cancel_key_with_another_order_is_a_conflict(fair: CampaignRoom) -> None:
    fair.sell(stock=3, per_viewer=2)
    one, two, key = fair.hold("anna"), fair.hold("anna"), fresh_key()
    fair.cancel("anna", one, key=key)

    with fair.unchanged():
        assert refused(fair.cancel("anna", two, key=key, fingerprint="f2")) == "conflict"


def test_hold_expires_once_at_its_moment(fair: CampaignRoom) -> None:
    fair.sell(stock=2)
    order = fair.hold("anna")
    with fair.unchanged():
        assert fair.tick("s")[0] == "again"

    fair.pass_time(300_000)
    fair.tick("s")

    assert fair.order(order)["status"] == "expired"
    assert fair.units() == {"stock": 2, "left": 2, "held": 0, "sold": 0}
    with fair.unchanged():
        fair.tick("s")
        assert fair.cancel("anna", order)[1]["status"] == "expired"


def test_expired_hold_is_stock_before_any_timer_looks(fair: CampaignRoom) -> None:
    fair.sell(stock=1)
    lost = fair.hold("anna")
    assert fair.claim("bo") == ("sold_out", {"final": False, "left": 0})

    fair.pass_time(300_000)

    fair.hold("bo")
    assert fair.order(lost)["status"] == "expired"


def test_expired_hold_gives_quota_back_before_any_timer_looks(fair: CampaignRoom) -> None:
    fair.sell(stock=5)
    lost = fair.hold("anna")
    fair.pass_time(300_000)

    assert fair.hold("anna") != lost
    assert fair.units() == {"stock": 5, "left": 4, "held": 1, "sold": 0}


def test_viewers_own_expired_hold_behind_many_others_gives_quota_back(fair: CampaignRoom) -> None:
    fair.sell(stock=500)
    fair.claims("s", *((f"v{number}", 1, fresh_key(), "f1", 0, ",,") for number in range(200)))
    lost = fair.hold("zoe")
    fair.client.zincrby(fair.names.sale_holds("s"), 1, lost)
    fair.pass_time(400_000)

    assert fair.hold("zoe") != lost
    assert fair.order(lost)["status"] == "expired"


def test_cancel_after_the_hold_has_ended_says_expired(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.pass_time(300_000)

    assert fair.cancel("anna", order)[1]["status"] == "expired"
    assert fair.units()["left"] == 3


@pytest.mark.parametrize("first", ["cancel", "expire", "pay"])
@pytest.mark.parametrize("second", ["cancel", "expire", "pay", "refund"])
@pytest.mark.parametrize("third", ["cancel", "expire", "refund"])
def test_units_come_back_once_in_every_order_and_doubled(
    fair: CampaignRoom, first: str, second: str, third: str
) -> None:
    fair.sell(stock=2)
    order = fair.hold("anna")

    def do(what: str) -> None:
        if what == "cancel":
            fair.cancel("anna", order)
        elif what == "expire":
            fair.pass_time(300_000)
            fair.tick("s")
        elif what == "pay":
            fair.pay(order, "pay-1", 4_900)
        else:
            fair.refund(order, "pay-1")

    for step in (first, first, second, second, third, third):
        do(step)
        units = fair.units()
        status = fair.order(order)["status"]
        assert units["stock"] == 2
        assert (units["held"], units["sold"]) == (int(status == "held"), int(status == "paid"))


def test_expired_holds_are_given_back_500_at_a_look(fair: CampaignRoom) -> None:
    fair.sell(stock=600)
    for first in (0, 300):
        batch = [(f"v{number}", 1, fresh_key(), "f1", 0, ",,") for number in range(first, first + 300)]
        fair.claims("s", *batch)
    fair.pass_time(300_000)

    assert fair.tick("s") == ["again", "1"]
    assert fair.units() == {"stock": 600, "left": 500, "held": 100, "sold": 0}
    fair.tick("s")
    assert fair.units()["held"] == 0


# --- paying ----------------------------------------------------------------------------------------------------


def test_payment_turns_a_hold_into_a_sale_once(fair: CampaignRoom) -> None:
    fair.sell(stock=2, per_viewer=2)
    order = fair.hold("anna", qty=2)

    code, paid = fair.pay(order, "pay-1", 9_800)

    assert (code, paid["status"], paid["payment_id"]) == ("ok", "paid", "pay-1")
    assert fair.units() == {"stock": 2, "left": 0, "held": 0, "sold": 2}
    assert fair.meta("sold_cents") == "9800"
    with fair.unchanged():
        assert fair.pay(order, "pay-1", 9_800) == (code, paid)
    fair.pass_time(10 * MINUTE_MS)
    fair.tick("s")
    assert fair.order(order)["status"] == "paid"


@pytest.mark.parametrize("cents", [0, 1, 4_899, 4_901, BIG])
def test_wrong_amount_changes_nothing(fair: CampaignRoom, cents: int) -> None:
    fair.sell()
    order = fair.hold("anna")

    with fair.unchanged():
        assert fair.pay(order, "pay-1", cents) == ("conflict", {"amount_cents": 4_900})


def test_payment_id_of_another_order_is_a_conflict(fair: CampaignRoom) -> None:
    fair.sell()
    one, two = fair.hold("anna"), fair.hold("bo")
    fair.pay(one, "pay-1", 4_900)

    with fair.unchanged():
        assert refused(fair.pay(two, "pay-1", 4_900)) == "conflict"
        assert refused(fair.refund(two, "pay-1")) == "conflict"


def test_second_payment_of_a_paid_order_is_to_give_back_once(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)

    code, body = fair.pay(order, "pay-2", 4_900)

    assert (code, body["status"], body["refund_required"]) == ("refund", "paid", ["pay-2"])
    with fair.unchanged():
        assert fair.pay(order, "pay-2", 4_900) == (code, body)
    code, body = fair.pay(order, "pay-3", 4_900)
    assert body["refund_required"] == ["pay-2", "pay-3"]
    assert fair.units()["sold"] == 1


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_late_payment_takes_stock_again(fair: CampaignRoom, how: str) -> None:
    fair.sell(stock=1)
    order = fair.hold("anna")
    if how == "cancelled":
        fair.cancel("anna", order)
    else:
        fair.pass_time(300_000)
        fair.tick("s")

    code, paid = fair.pay(order, "pay-1", 4_900)

    assert (code, paid["status"]) == ("ok", "paid")
    assert fair.units() == {"stock": 1, "left": 0, "held": 0, "sold": 1}
    assert fair.claim("anna")[1]["again"] is True


def test_late_payment_takes_the_stock_of_holds_that_are_over(fair: CampaignRoom) -> None:
    fair.sell(stock=1)
    one = fair.hold("anna")
    fair.pass_time(300_000)
    two = fair.hold("bo")
    fair.pass_time(300_000)

    assert fair.pay(one, "pay-1", 4_900)[0] == "ok"
    assert fair.order(two)["status"] == "expired"


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_late_payment_without_stock_is_to_give_back_exactly_once(fair: CampaignRoom, how: str) -> None:
    fair.sell(stock=1)
    order = fair.hold("anna")
    if how == "cancelled":
        fair.cancel("anna", order)
    else:
        fair.pass_time(300_000)
    fair.hold("bo")

    code, body = fair.pay(order, "pay-1", 4_900)

    assert (code, body["status"], body["refund_required"]) == ("refund", how, ["pay-1"])
    assert fair.units() == {"stock": 1, "left": 0, "held": 1, "sold": 0}
    with fair.unchanged():
        assert fair.pay(order, "pay-1", 4_900) == (code, body)
    assert [change["order"] for change in fair.changes() if "refund_required" in change] == [order]


def test_late_payment_does_not_lift_the_limit(fair: CampaignRoom) -> None:
    fair.sell(stock=5)
    first = fair.hold("anna")
    fair.pass_time(300_000)
    second = fair.hold("anna")

    assert fair.pay(first, "pay-1", 4_900)[0] == "refund"
    assert fair.pay(second, "pay-2", 4_900)[0] == "ok"
    assert fair.units()["sold"] == 1


def test_payment_that_was_given_back_is_not_asked_back_again(fair: CampaignRoom) -> None:
    fair.sell(stock=1)
    order = fair.hold("anna")
    fair.cancel("anna", order)
    fair.hold("bo")
    fair.pay(order, "pay-1", 4_900)

    code, body = fair.refund(order, "pay-1")
    assert (code, "refund_required" in body) == ("ok", False)
    with fair.unchanged():
        assert fair.pay(order, "pay-1", 4_900) == ("ok", body)
        assert fair.refund(order, "pay-1") == ("ok", body)


@pytest.mark.parametrize(("restock", "units"), [
    (True, {"stock": 2, "left": 2, "held": 0, "sold": 0}), (False, {"stock": 1, "left": 1, "held": 0, "sold": 0}),
])  # fmt: skip
def test_refund_moves_units_once(fair: CampaignRoom, restock: bool, units: dict[str, int]) -> None:
    fair.sell(stock=2)
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)

    code, body = fair.refund(order, "pay-1", restock=restock)

    assert (code, body["status"]) == ("ok", "refunded")
    assert fair.units() == units
    assert fair.meta("sold_cents") == "0"
    with fair.unchanged():
        assert fair.refund(order, "pay-1", restock=not restock) == (code, body)
    # Units that leave the stock are told: `stock` is part of the snapshot.
    told = [fact["stock"] for fact in fair.facts() if fact["ev"] == "seckill.adjusted"]
    assert told == ([] if restock else [1])


@pytest.mark.parametrize("payment", ["pay-2", "", "pay"])
def test_refund_of_a_payment_nobody_made_is_a_conflict(fair: CampaignRoom, payment: str) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)

    with fair.unchanged():
        assert refused(fair.refund(order, payment)) == "conflict"


def test_order_that_costs_nothing_is_paid_and_refunded_like_any_other(fair: CampaignRoom) -> None:
    fair.sell(price=0)
    order = fair.hold("anna")

    assert fair.pay(order, "pay-1", 0)[1]["status"] == "paid"
    assert fair.refund(order, "pay-1")[1]["status"] == "refunded"
    assert fair.units() == {"stock": 3, "left": 3, "held": 0, "sold": 0}
    assert fair.meta("sold_cents") == "0"


def test_refund_gives_no_quota_back(fair: CampaignRoom) -> None:
    fair.sell(stock=9, per_viewer=2)
    order = fair.hold("anna", qty=2)
    fair.pay(order, "pay-1", 9_800)
    fair.refund(order, "pay-1")

    assert fair.claim("anna") == ("limit_reached", {"left": 0})


def test_largest_amount_is_exact(fair: CampaignRoom) -> None:
    fair.sell(price=BIG, stock=1)
    order = fair.hold("anna")

    assert fair.order(order)["amount_cents"] == BIG
    assert refused(fair.pay(order, "pay-1", BIG - 1)) == "conflict"
    assert fair.pay(order, "pay-1", BIG)[0] == "ok"
    assert fair.meta("sold_cents") == str(BIG)


def test_price_is_frozen_in_the_hold(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.client.hset(fair.names.sale("s"), "price_cents", 1)

    assert refused(fair.pay(order, "pay-1", 1)) == "conflict"
    assert fair.pay(order, "pay-1", 4_900)[1]["amount_cents"] == 4_900


def test_inviter_is_stamped_when_units_are_held(fair: CampaignRoom) -> None:
    fair.sell(stock=9, per_viewer=2)
    fair.come("ivy")
    fair.come("anna", "ivy")
    order = fair.hold("anna")
    fair.client.hset(fair.names.inviters, "anna", "mallory")

    assert fair.order(order)["inviter"] == "ivy"
    assert fair.pay(order, "pay-1", 4_900)[1]["inviter"] == "ivy"
    assert "inviter" not in fair.order(fair.hold("bo"))


def test_order_changes_are_pulled_in_order_from_a_cursor(fair: CampaignRoom) -> None:
    fair.sell()
    one, two = fair.hold("anna"), fair.hold("bo")
    fair.pay(one, "pay-1", 4_900)
    fair.cancel("bo", two)

    told = [(change["order"], change["status"]) for change in fair.changes()]
    assert told == [(one, "held"), (two, "held"), (one, "paid"), (two, "cancelled")]
    assert [change["status"] for change in fair.changes(after=2, limit=1)] == ["paid"]
    page = fair.call("orders_page", [fair.names.meta, fair.names.outbox], [4, 10])
    assert page == ["4"]


def test_room_counts_orders_by_status(fair: CampaignRoom) -> None:
    fair.sell(stock=9)
    orders = [fair.hold(f"v{number}") for number in range(5)]
    fair.pay(orders[0], "pay-0", 4_900)
    fair.pay(orders[1], "pay-1", 4_900)
    fair.refund(orders[1], "pay-1")
    fair.cancel("v2", orders[2])
    fair.cancel("v3", orders[3])
    fair.pay(orders[3], "pay-3", 4_900)

    fields = ("held", "paid", "cancelled", "expired", "refunded")
    assert [int(fair.meta(f"orders_{field}") or 0) for field in fields] == [1, 2, 1, 0, 1]
    assert fair.meta("sold_cents") == "9800"


# --- sold out, back ---------------------------------------------------------------------------------------------


def test_sold_out_is_final_once_no_hold_can_return(fair: CampaignRoom) -> None:
    fair.sell(stock=1)

    order = fair.hold("anna")
    assert fair.is_sold_out()
    fair.pay(order, "pay-1", 4_900)

    told = [name for name in campaign_facts(fair) if name.startswith("seckill.sold_out")]
    assert told == ["seckill.sold_out final=False", "seckill.sold_out final=True"]
    assert fair.claim("bo") == ("sold_out", {"final": True, "left": 0})
    assert fair.is_sold_out()


@pytest.mark.parametrize("how", ["cancel", "expire", "refund", "adjust"])
def test_stock_that_returns_is_told_and_the_card_follows(fair: CampaignRoom, how: str) -> None:
    fair.sell(stock=1)
    order = fair.hold("anna")
    if how == "cancel":
        fair.cancel("anna", order)
    elif how == "expire":
        fair.pass_time(300_000)
        fair.tick("s")
    elif how == "refund":
        fair.pay(order, "pay-1", 4_900)
        fair.refund(order, "pay-1")
    else:
        fair.adjust("s", 1)

    names = campaign_facts(fair)
    assert names.count("seckill.back") == 1
    assert names.index("seckill.sold_out final=False") < names.index("seckill.back")
    flags = [fact["sold_out"] for fact in fair.facts() if fact["ev"] == "item.put"]
    assert flags == [False, True, False]
    assert not fair.is_sold_out()
    assert fair.claim("bo")[0] == "ok"


def test_card_that_left_the_shelf_does_not_come_back(fair: CampaignRoom) -> None:
    fair.sell(stock=1)
    fair.remove_item("tea")

    fair.hold("anna")

    assert fair.client.hgetall(fair.names.items) == {}


# --- seckill_adjust, seckill_end, seckill_tick -------------------------------------------------------------------


def test_stock_is_adjusted_up_and_down_to_what_is_free(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    fair.hold("anna")

    assert ok(fair.adjust("s", 2))["stock"] == 5
    with fair.unchanged():
        assert said(fair.adjust("s", -5)) == ("limit_reached", {"left": 4})
    assert ok(fair.adjust("s", -4))["state"] == "sold_out"
    assert fair.units() == {"stock": 1, "left": 0, "held": 1, "sold": 0}
    assert fair.audit()[-1]["before"] == '{"stock":5,"left":4}'
    assert campaign_facts(fair)[-2:] == ["seckill.sold_out final=False", "item.put"]


def test_adjust_by_key_counts_once(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    key = fresh_key()
    first = fair.adjust("s", 5, key=key)

    with fair.unchanged():
        assert fair.adjust("s", 5, key=key) == first
    assert fair.units()["stock"] == 8


@pytest.mark.parametrize("delta", [BIG, BIG - 2])
def test_stock_does_not_grow_beyond_what_the_wire_can_carry(fair: CampaignRoom, delta: int) -> None:
    fair.sell(stock=3, price=1)

    with fair.unchanged():
        assert refused(said(fair.adjust("s", delta))) == "bad_quantity"
    assert ok(fair.adjust("s", BIG - 3))["stock"] == BIG


def test_stock_does_not_grow_beyond_what_its_worth_can_be_written_as(fair: CampaignRoom) -> None:
    """`sold_cents` of a room is a sum the wire must carry."""
    fair.sell(stock=3, price=1_000)

    with fair.unchanged():
        assert refused(said(fair.adjust("s", BIG // 1_000))) == "bad_quantity"
    assert ok(fair.adjust("s", BIG // 1_000 - 3))["stock"] == BIG // 1_000


@pytest.mark.parametrize("how", ["end", "time"])
def test_ended_sale_is_not_adjusted(fair: CampaignRoom, how: str) -> None:
    fair.sell()
    if how == "end":
        fair.end("s")
    else:
        fair.pass_time(60 * MINUTE_MS)

    with fair.unchanged():
        assert refused(said(fair.adjust("s", 1))) == "ended"


def test_sale_that_is_ended_now_keeps_its_holds(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")

    assert ok(fair.end("s"))["state"] == "ended"

    assert refused(fair.claim("bo")) == "ended"
    assert campaign_facts(fair)[-1] == "seckill.ended"
    assert fair.pay(order, "pay-1", 4_900)[0] == "ok"
    facts = len(fair.facts())
    ok(fair.end("s"))
    fair.tick("s")
    assert len(fair.facts()) == facts


def test_end_is_announced_once_by_the_tick(fair: CampaignRoom) -> None:
    fair.sell(lasts=4 * MINUTE_MS)
    fair.hold("anna")
    fair.pass_time(4 * MINUTE_MS)

    code, wait = fair.tick("s")
    assert (code, int(wait) <= MINUTE_MS) == ("again", True)
    fair.tick("s")
    assert campaign_facts(fair).count("seckill.ended") == 1
    fair.pass_time(MINUTE_MS)
    assert fair.tick("s") == ["done"]
    assert fair.units()["held"] == 0


def test_tick_looks_again_no_later_than_the_next_hold_could_end(fair: CampaignRoom) -> None:
    fair.sell(starts_in=5 * MINUTE_MS, lasts=60 * MINUTE_MS, hold_s=30)

    code, wait = fair.tick("s")
    assert (code, 5 * MINUTE_MS < int(wait) <= 5 * MINUTE_MS + 30_000) == ("again", True)
    fair.pass_time(5 * MINUTE_MS)
    fair.hold("anna")
    fair.pass_time(20_000)
    code, wait = fair.tick("s")
    assert (code, int(wait) <= 10_000) == ("again", True)


# --- eligibility -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tags", "code"), [
    (",vip,", "ok"), (",new,svip,", "ok"), (",,", "not_eligible"), (",vi,", "not_eligible"), (",vipp,", "not_eligible"),
    (",v.p,", "not_eligible"),
])  # fmt: skip
def test_one_of_the_tags_is_needed(fair: CampaignRoom, tags: str, code: str) -> None:
    fair.sell(gates=("vip,svip", "", "", "", ""))

    assert fair.claim("anna", tags=tags)[0] == code


def test_list_without_a_tag_lets_nobody_in(fair: CampaignRoom) -> None:
    fair.sell(gates=(",", "", "", "", ""))

    assert refused(fair.claim("anna", tags=",,")) == "not_eligible"
    assert refused(fair.claim("anna", tags=",vip,")) == "not_eligible"


@pytest.mark.parametrize(
    ("level", "code"), [(0, "not_eligible"), (2, "not_eligible"), (3, "ok"), (BIG, "ok")]
)
def test_level_is_needed(fair: CampaignRoom, level: int, code: str) -> None:
    fair.sell(gates=("", 3, "", "", ""))

    assert fair.claim("anna", level=level)[0] == code


def test_time_in_the_room_is_needed(fair: CampaignRoom) -> None:
    fair.sell(gates=("", "", 60, "", ""))

    assert refused(fair.claim("anna")) == "not_eligible"
    fair.come("anna")
    with fair.unchanged():
        assert refused(fair.claim("anna")) == "not_eligible"
    fair.pass_time(MINUTE_MS)
    assert fair.claim("anna")[0] == "ok"


def test_first_order_means_no_order_in_this_room_before(fair: CampaignRoom) -> None:
    fair.sell("s")
    fair.sell("s2", item="cup", gates=("", "", "", "1", ""))

    fair.cancel("anna", fair.hold("anna", "s"))
    assert refused(fair.claim("anna", "s2")) == "not_eligible"
    assert fair.claim("bo", "s2")[0] == "ok"
    assert fair.claim("bo", "s2")[1]["again"] is True


def test_viewers_brought_are_needed(fair: CampaignRoom) -> None:
    fair.sell(gates=("", "", "", "", 2))
    fair.come("anna")
    fair.come("bo", "anna")

    assert refused(fair.claim("anna")) == "not_eligible"
    fair.come("cy", "anna")
    assert fair.claim("anna")[0] == "ok"


def test_every_gate_given_must_hold(fair: CampaignRoom) -> None:
    fair.sell(gates=("vip", 3, "", "1", ""))

    assert refused(fair.claim("anna", tags=",vip,", level=2)) == "not_eligible"
    assert refused(fair.claim("anna", tags=",,", level=3)) == "not_eligible"
    assert fair.claim("anna", tags=",vip,", level=3)[0] == "ok"


# --- the fence ---------------------------------------------------------------------------------------------------


def test_restart_that_the_engine_vouches_for_goes_on_selling(fair: CampaignRoom) -> None:
    fair.sell()
    fair.hold("anna")
    fair.restart()
    fair.vouched = fair.replid

    fair.hold("bo")
    assert fair.units() == {"stock": 3, "left": 1, "held": 2, "sold": 0}
    assert fair.meta("epoch") == "e0"


def test_restart_that_nobody_vouches_for_pauses_the_sale(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.restart()

    with fair.unchanged():
        assert refused(fair.claim("bo")) == "paused"
        # What is known stays known.
        assert fair.claim("anna")[1]["order"] == order
    fair.pass_time(10 * MINUTE_MS)
    assert fair.tick("s")[0] == "again"
    assert fair.order(order)["status"] == "held"
    assert orjson.loads(fair.read_sale()[0])["state"] == "paused"


def test_sale_stays_paused_when_a_later_restart_loses_nothing(fair: CampaignRoom) -> None:
    """What the first restart lost does not come back with the second."""
    fair.sell()
    fair.restart()
    fair.notice("the room goes on")
    fair.restart()
    fair.vouched = fair.replid

    assert refused(fair.claim("bo")) == "paused"
    ok(fair.adjust("s", 0))
    assert fair.claim("bo")[0] == "ok"


def test_sale_stays_paused_when_a_later_restart_loses_nothing_in_a_silent_room(fair: CampaignRoom) -> None:
    """Nothing happened between the two restarts but a look of the timers."""
    fair.sell()
    fair.restart()
    assert fair.tick("s")[0] == "again"
    fair.restart()
    fair.vouched = fair.replid

    assert refused(fair.claim("bo")) == "paused"
    ok(fair.adjust("s", 0))
    assert fair.claim("bo")[0] == "ok"


def test_promoted_replica_that_holds_what_was_acknowledged_goes_on_selling_in_another_epoch(
    fair: CampaignRoom,
) -> None:
    fair.sell()
    fair.hold("anna")
    fair.restart()
    fair.vouched = fair.replid + "+"

    fair.hold("bo")
    fair.notice("the room goes on")
    fair.hold("cy")

    assert fair.units() == {"stock": 3, "left": 0, "held": 3, "sold": 0}
    assert fair.meta("epoch") != "e0"


def test_sale_scheduled_after_a_restart_nobody_vouches_for_sells(fair: CampaignRoom) -> None:
    fair.notice("before")
    fair.restart()

    fair.sell()

    assert fair.claim("bo")[0] == "ok"


def test_paused_sale_takes_payments_of_holds_and_no_late_ones(fair: CampaignRoom) -> None:
    fair.sell()
    held, gone = fair.hold("anna"), fair.hold("bo")
    fair.cancel("bo", gone)
    fair.restart()

    assert fair.pay(held, "pay-1", 4_900)[0] == "ok"
    assert fair.pay(gone, "pay-2", 4_900)[0] == "refund"


def test_streamer_arms_the_sale_again(fair: CampaignRoom) -> None:
    fair.sell()
    first = fair.hold("anna")
    fair.restart()

    sale = ok(fair.adjust("s", 0))

    assert (sale["state"], sale["stock"]) == ("open", 3)
    second = fair.hold("bo")
    assert fair.units() == {"stock": 3, "left": 1, "held": 2, "sold": 0}
    # Numbers that may have been given on the lost line of history are not given again.
    assert int(second.rpartition("-")[2]) > int(first.rpartition("-")[2]) + 1_000
    assert fair.meta("epoch") != "e0"


def test_units_that_an_engine_has_seen_taken_leave_the_stock(fair: CampaignRoom) -> None:
    """The copy holds 2 of the 7 units that were taken: 5 orders are missing."""
    fair.sell(stock=10)
    fair.hold("anna")
    fair.hold("bo")
    fair.restart()

    assert fair.distrust({"s": (7, 0)}) == ["ok"]
    assert fair.distrust({"s": (6, 0)}) == ["ok"]
    assert ok(fair.adjust("s", 0))["stock"] == 5

    assert fair.units() == {"stock": 5, "left": 3, "held": 2, "sold": 0}


def test_vouching_does_not_arm_a_sale_of_which_more_was_seen(fair: CampaignRoom) -> None:
    fair.sell(stock=10)
    fair.restart()
    fair.distrust({"s": (7, 0)})
    fair.vouched = fair.replid

    assert refused(fair.claim("cy")) == "paused"
    ok(fair.adjust("s", 0))
    assert fair.units()["left"] == 3
    assert fair.claim("cy")[0] == "ok"


def test_units_missing_beyond_what_is_left_are_kept_from_what_comes_back(fair: CampaignRoom) -> None:
    """Stock 5, 4 held in the copy; 3 more were taken after 2 of them had come back."""
    fair.sell(stock=5)
    orders = [fair.hold(f"v{number}") for number in range(4)]
    fair.restart()
    fair.distrust({"s": (7, 0)})

    ok(fair.adjust("s", 0))
    assert fair.units() == {"stock": 4, "left": 0, "held": 4, "sold": 0}
    for number, order in enumerate(orders[:3]):
        fair.cancel(f"v{number}", order)
    assert fair.units() == {"stock": 2, "left": 1, "held": 1, "sold": 0}


def test_units_that_were_paid_on_the_lost_line_are_not_sold_again_when_their_hold_ends(
    fair: CampaignRoom,
) -> None:
    fair.sell(stock=3)
    fair.hold("anna")
    fair.restart()
    fair.distrust({"s": (1, 1)})
    ok(fair.adjust("s", 0))

    fair.pass_time(5 * MINUTE_MS)
    fair.tick("s")

    assert fair.units() == {"stock": 2, "left": 2, "held": 0, "sold": 0}


def test_distrust_leaves_a_sale_alone_that_was_armed_on_this_line(fair: CampaignRoom) -> None:
    fair.sell(stock=3)
    fair.restart()
    ok(fair.adjust("s", 0))

    fair.distrust({"s": (3, 3)})

    assert fair.claim("anna")[0] == "ok"


def test_distrust_does_not_bring_a_missing_sale_to_life(fair: CampaignRoom) -> None:
    fair.distrust({"ghost": (3, 0)})

    assert not fair.client.exists(fair.names.sale("ghost"))


def test_gauge_says_how_many_units_were_ever_taken_and_bought(fair: CampaignRoom) -> None:
    """Both only rise, so the largest an engine has heard is what it has seen."""
    fair.sell()
    order = fair.hold("anna")
    fair.pay(order, "pay-1", 4_900)
    fair.refund(order, "pay-1")
    fair.cancel("bo", fair.hold("bo"))

    headers = [header for header, _ in fair.wire.read() if header.startswith("g stock:s ")]
    assert headers == [
        "g stock:s 0 0 0", "g stock:s 1 1 0", "g stock:s 2 1 1",
        "g stock:s 3 1 1", "g stock:s 4 2 1", "g stock:s 5 2 1",
    ]  # fmt: skip


def test_number_of_a_change_is_not_given_again_on_another_line_of_history(fair: CampaignRoom) -> None:
    """A shop that has pulled the lost changes must not miss the new ones behind its cursor."""
    fair.sell()
    order = fair.hold("anna")
    fair.restart()

    assert fair.pay(order, "pay-1", fair.price_of("s"))[0] == "ok"

    page = fair.call("orders_page", [fair.names.meta, fair.names.outbox], [1, 10])
    assert int(page[1]) > 1_000_000
    assert page[0] == page[1]


def test_order_of_a_paused_sale_is_not_cancelled(fair: CampaignRoom) -> None:
    """It may have been paid on the lost line of history; its unit would be sold a second time."""
    fair.sell()
    order = fair.hold("anna")
    fair.restart()

    with fair.unchanged():
        assert refused(fair.cancel("anna", order)) == "paused"
    fair.adjust("s", 0)
    assert fair.cancel("anna", order)[0] == "ok"


def test_distrust_counts_also_when_somebody_has_vouched_for_the_line(fair: CampaignRoom) -> None:
    fair.sell()
    fair.restart()
    fair.vouched = fair.replid
    fair.notice("a fact on the new line")
    assert fair.meta("epoch") == "e0"

    fair.distrust({"s": (3, 0)})

    assert fair.meta("epoch") != "e0"
    assert refused(fair.claim("anna")) == "paused"


def test_distrusted_room_goes_on_in_another_epoch_once_per_line(fair: CampaignRoom) -> None:
    fair.sell()
    fair.restart()

    fair.distrust({"s": (1, 0)})
    epoch, change = fair.meta("epoch"), int(fair.meta("change") or 0)
    fair.distrust({"s": (2, 0)})

    assert epoch != "e0"
    assert fair.meta("epoch") == epoch
    assert change >= 1_000_000
    assert int(fair.meta("change") or 0) == change


# --- a room that closes -----------------------------------------------------------------------------------------


def test_room_closes_after_the_last_hold_has_ended(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.set_meta(state="closing")

    assert refused(fair.claim("bo")) == "ended"
    assert fair.settle_all(["s"], []) == ["open"]
    assert fair.order(order)["status"] == "held"
    fair.pass_time(5 * MINUTE_MS)
    assert fair.settle_all(["s"], []) == ["closed"]
    assert fair.settle_all(["s"], []) == ["not_closing"]
    assert campaign_facts(fair).count("room.state") == 1


def test_room_closes_when_its_last_hold_is_paid(fair: CampaignRoom) -> None:
    fair.sell()
    order = fair.hold("anna")
    fair.set_meta(state="closing")
    fair.pay(order, "pay-1", 4_900)

    assert fair.settle_all(["s"], []) == ["closed"]


def test_paused_sale_does_not_keep_a_room_from_closing(fair: CampaignRoom) -> None:
    fair.sell()
    fair.hold("anna")
    fair.restart()
    fair.set_meta(state="closing")
    fair.pass_time(5 * MINUTE_MS)

    assert fair.settle_all(["s"], []) == ["closed"]


def test_room_is_not_settled_with_a_sale_that_was_not_named(fair: CampaignRoom) -> None:
    fair.sell()
    fair.set_meta(state="closing")

    assert fair.settle_all([], []) == ["stale"]
    assert fair.settle_all(["other"], []) == ["stale"]


# --- a viewer that comes back -------------------------------------------------------------------------------------


def test_open_orders_are_told_to_a_viewer_who_joins_again(fair: CampaignRoom) -> None:
    fair.sell("s")
    fair.sell("s2", item="cup")
    fair.come("anna")
    held, gone = fair.hold("anna", "s"), fair.hold("anna", "s2")
    fair.cancel("anna", gone, "s2")

    orders: list[Any] = orjson.loads(fair.come("anna")[2])

    assert orders == [fair.order(held)]


def test_many_finished_orders_do_not_hide_an_open_one(fair: CampaignRoom) -> None:
    fair.sell(stock=9, per_viewer=2)
    fair.come("anna")
    held = fair.hold("anna")
    for _ in range(200):
        fair.cancel("anna", fair.hold("anna"))

    assert [order["order"] for order in orjson.loads(fair.come("anna")[2])] == [held]
    assert len(fair.client.hget(fair.names.viewer_orders, "anna") or "") < 2_000
