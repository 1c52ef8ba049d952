"""`loadtest/conservation.py`: every planted fault is named, with invariant and viewer; a clean run is clean."""

from collections.abc import Callable
from typing import Any

import pytest

from loadtest.asks import BOARD, CENTS, OWNERS, SERIAL, STOCK
from loadtest.findings import Findings, Violation
from loadtest.history import GrabSeen, JoinedSeen, OrderSeen, PacketSeen, StockSeen
from tests.unit.loadtest.a_campaign import (
    FULL,
    HALF,
    ME,
    OPENS_AT,
    SALE,
    STARTS_AT,
    T0,
    ACampaign,
    order,
    won,
)

Plant = Callable[[ACampaign], object]


def named(findings: Findings, invariant: str, message: str) -> Violation:
    """Return the one violation that says this."""
    found = [
        violation
        for violation in findings.violations
        if violation.invariant == invariant and message in violation.message
    ]
    assert len(found) == 1, [str(violation) for violation in findings.violations]
    return found[0]


@pytest.fixture
def run() -> ACampaign:
    return ACampaign()


def test_clean_run_raises_nothing(run: ACampaign) -> None:
    findings = run.judged()

    assert [str(violation) for violation in findings.violations] == []
    sale = findings.sales[SALE]
    assert (sale.stock, sale.left, sale.held, sale.sold) == (2, 0, 1, 1)
    assert (sale.early, sale.untold, sale.returned, sale.reasked, sale.payments) == (0, 0, 1, 1, 2)
    assert sale.answers == {"again": 1, "ended": 1, "not_started": 1, "same key": 1, "sold_out": 1, "won": 3}
    assert sale.searched
    full, half = findings.packets[FULL], findings.packets[HALF]
    assert (full.winners, full.granted_cents, full.refunded_cents, full.searched) == (2, 100, 0, True)
    assert (half.winners, half.granted_cents, half.refunded_cents) == (1, 5, 5)
    assert (findings.board.arrivals, findings.board.counted, findings.board.reasons) == (2, 1, {"forged": 1})


def change(place: int, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        run.orders[place] |= fields

    return plant


def said(name: str, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        outcome = getattr(run, name)
        outcome.said = outcome.said | fields

    return plant


def moved(name: str, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        for field, value in fields.items():
            setattr(getattr(run, name), field, value)

    return plant


def audit(kind: str, name: str, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        run.audit[kind][name] |= fields

    return plant


def event(place: int, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        run.events[place] |= fields

    return plant


def both(*plants: Plant) -> Plant:
    def plant(run: ACampaign) -> None:
        for one in plants:
            one(run)

    return plant


# --- I1 stock -------------------------------------------------------------------------------------------------

ORDERS: list[tuple[str, Plant, str, str]] = [
    (
        "oversold",
        lambda run: run.orders.insert(2, order("o-9", 4, 13, "held")),
        "3 units held and sold of 2 with order o-9",
        ME[4],
    ),
    (
        "two for one viewer",
        lambda run: run.orders.insert(1, order("o-9", 1, 12, "held")),
        "holds 2 units, the limit is 1",
        ME[1],
    ),
    ("before the start", change(0, held_at=STARTS_AT - 3), "o-1 was held 3 ms before the start", ME[1]),
    ("after the end", change(4, held_at=T0 + 5000), "o-3 was held 0 ms after the end", ME[3]),
    ("hold of another length", change(4, pay_by=T0 + 1), "o-3 is not held for 1 s", ME[3]),
    ("another price", change(4, price_cents=1), "o-3 is not for", ME[3]),
    (
        "amount that is not price times units",
        change(4, amount_cents=1),
        "o-3 is for 1 units and 1 cents",
        ME[3],
    ),
    ("changed owner", change(2, viewer=ME[4]), "o-1 changed its viewer", ME[4]),
    (
        "paid twice",
        lambda run: run.orders.insert(3, order("o-1", 1, 11, "held")),
        "went from paid to held",
        ME[1],
    ),
    (
        "never held",
        lambda run: run.orders.append(order("o-9", 4, 2000, "paid")),
        "from nothing to paid",
        ME[4],
    ),
    (
        "nobody's",
        lambda run: run.orders.append(order("o-9", 4, 4000, "held")),
        "order o-9 is nobody's attempt",
        ME[4],
    ),
    ("lost", lambda run: run.orders.pop(), "order o-3 was acknowledged and is lost", ME[3]),
    (
        "sold twice",
        said("late", order="o-1"),
        "order o-1 of s1t2-v1 was acknowledged to somebody else",
        ME[3],
    ),
    ("won by two keys", said("again", again=False), "o-1 was acknowledged to 2 claims as theirs", ME[1]),
    (
        "another number left",
        said("cut", stock_left=1),
        "o-2 was acknowledged with 1 left, its place says 0",
        ME[2],
    ),
    ("another pay_by", said("late", pay_by=5), "o-3 was acknowledged with another pay_by", ME[3]),
    ("won as paid", said("late", status="paid"), "o-3 was won as paid", ME[3]),
    ("same key, other answer", said("repeated", stock_left=0), "was answered {", ME[1]),
    (
        "same key, refused later",
        both(moved("repeated", code="sold_out"), moved("repeated", said={"final": False})),
        "had won, and was answered sold_out later",
        ME[1],
    ),
    ("again for a lost order", said("again", order="o-8"), "order o-8 was acknowledged and is lost", ME[1]),
    (
        "not started, though it was",
        said("early", now=STARTS_AT),
        f"not_started was said at {STARTS_AT} of {STARTS_AT}",
        ME[1],
    ),
    ("won before the start", moved("first", done_us=9_000), "answered ok before the start", ME[1]),
    (
        "sold out before the start",
        moved("sold_out", done_us=5_000),
        "answered sold_out before the start",
        ME[3],
    ),
    (
        "not started after the start",
        moved("early", asked_us=13_000, done_us=14_000),
        "answered not_started after the start",
        ME[1],
    ),
    ("ended before the end", moved("ended", done_us=4_000_000), "answered ended before the end", ME[4]),
    ("won after the end", moved("late", sent_us=5_200_000), "won after the end", ME[3]),
    (
        "sold out after the end",
        moved("sold_out", asked_us=5_200_000, done_us=5_300_000),
        "answered sold_out after the end",
        ME[3],
    ),
    (
        "sold out too early",
        moved("sold_out", asked_us=11_100, done_us=11_500),
        "sold_out when only 1 of 2 wins had been asked for",
        ME[3],
    ),
    (
        "sold out for good while held",
        both(said("sold_out", final=True), moved("sold_out", asked_us=1_200_000, done_us=1_300_000)),
        "sold out for good was said while units were held",
        ME[3],
    ),
]


@pytest.mark.parametrize(
    ("plant", "message", "viewer"), [row[1:] for row in ORDERS], ids=[row[0] for row in ORDERS]
)
def test_broken_promise_about_an_order_is_named(
    run: ACampaign, plant: Plant, message: str, viewer: str
) -> None:
    plant(run)

    assert named(run.judged(), STOCK, message).named == [viewer]


TOTALS: list[tuple[str, Plant, str]] = [
    ("audit", audit("sales", SALE, left=1), "1 left + 1 held + 1 sold are not 2"),
    (
        "audit of the held",
        audit("sales", SALE, held=2, left=-1),
        "the audit counts 2 units held, the orders 1",
    ),
    (
        "audit of the sold",
        audit("sales", SALE, sold=0, left=1),
        "the audit counts 0 units sold, the orders 1",
    ),
    ("below zero", audit("sales", SALE, held=2, left=-1), "the audit counts units below zero"),
    ("more stock", audit("sales", SALE, stock=3, left=1), "2 units were put on sale, the audit has 3"),
    (
        "audit that says so itself",
        lambda run: run.audit.update(holds=False),
        "the server's own audit does not hold",
    ),
    ("sale without a fact", lambda run: run.events.pop(0), "was never announced by a fact"),
    ("sale without an audit", lambda run: run.audit["sales"].clear(), "is missing from the audit"),
    (
        "total of orders",
        lambda run: run.stats["orders"].update(held=5),
        "the totals count 5 orders held, the orders 1",
    ),
    (
        "total of cents",
        lambda run: run.stats.update(sold_cents=1),
        "the totals say 1 cents sold, the orders 4900",
    ),
    (
        "gauge",
        lambda run: run.gauges.append(StockSeen(SALE, 1, 1, 1)),
        "the gauge said 1 left, 1 held, 1 sold of 2",
    ),
    ("gauge below zero", lambda run: run.gauges.append(StockSeen(SALE, -1, 3, 0)), "the gauge said -1 left"),
    (
        "order of no sale",
        lambda run: run.orders.append(order("o-9", 1, 12, "held", sale="other")),
        "order o-9 is of sale other, which never was",
    ),
    (
        "payment of a lost order",
        lambda run: run.payments.append(run.payment("o-8", "pay-8")),
        "payment pay-8 is for order o-8, which is lost",
    ),
    (
        "payment taken and forgotten",
        lambda run: run.payments.append(run.payment("o-3", "pay-3")),
        "payment pay-3 was taken, but order o-3 is not paid by it",
    ),
    (
        "refund forgotten",
        lambda run: run.payments.append(run.payment("o-2", "pay-2", "refund_required")),
        "payment pay-2 is to be refunded, but its order does not say so",
    ),
    (
        "payment refused",
        lambda run: run.payments.append(run.payment("o-3", "pay-3", "conflict")),
        "payment pay-3 of the right amount was refused: conflict",
    ),
    (
        "payment with two answers",
        lambda run: run.payments.append(run.payment("o-1", "pay-1", "refund_required")),
        "payment pay-1 was answered ok, then refund_required",
    ),
    ("payment nobody made", lambda run: run.payments.clear(), "has payment pay-1, which nobody reported"),
    (
        "refund required twice",
        both(
            lambda run: run.payments.append(run.payment("o-2", "pay-2", "refund_required")),
            change(3, refund_required=["pay-2", "pay-2"]),
        ),
        "order o-2 requires one refund twice",
    ),
]


@pytest.mark.parametrize(("plant", "message"), [row[1:] for row in TOTALS], ids=[row[0] for row in TOTALS])
def test_totals_that_do_not_agree_are_named(run: ACampaign, plant: Plant, message: str) -> None:
    plant(run)

    assert named(run.judged(), STOCK, message).viewers == 0


def test_order_whose_answer_was_lost_is_its_askers(run: ACampaign) -> None:
    run.late.code, run.late.definite, run.late.said = "unanswered", False, {}

    findings = run.judged()

    assert findings.violations == []
    assert findings.sales[SALE].untold == 1


def test_one_lost_answer_explains_one_order_only(run: ACampaign) -> None:
    run.ended.code, run.ended.definite = "unanswered", False
    run.orders += [
        order("o-8", 4, 4000, "held"),
        order("o-8", 4, 4000, "cancelled"),
        order("o-9", 4, 4001, "held"),
    ]

    assert named(run.judged(), STOCK, "o-9 is nobody's attempt").named == [ME[4]]


def test_payment_nobody_has_an_answer_to_may_or_may_not_be_there(run: ACampaign) -> None:
    run.payments += [run.payment("o-3", "pay-3", "unanswered")]

    assert run.judged().violations == []


def test_late_payment_takes_the_unit_again(run: ACampaign) -> None:
    run.forget(run.late)
    run.orders[4] = order("o-2", 2, 12, "paid", payment_id="pay-2")
    run.payments.append(run.payment("o-2", "pay-2"))
    run.audit["sales"][SALE] |= {"held": 0, "sold": 2}
    run.stats |= {"orders": {"held": 0, "paid": 2, "expired": 0}, "sold_cents": 9800}

    assert run.judged().violations == []


def test_refunded_and_restocked_units_are_left_again(run: ACampaign) -> None:
    run.orders.append(order("o-1", 1, 11, "refunded", payment_id="pay-1"))
    run.audit["sales"][SALE] |= {"left": 1, "sold": 0}
    run.stats |= {"orders": {"held": 1, "paid": 0, "refunded": 1}, "sold_cents": 0}

    assert run.judged().violations == []


def test_returning_viewer_finds_what_they_hold(run: ACampaign) -> None:
    run.cut.done_us = 18_000
    run.told[2][0] = (19_000, JoinedSeen("e", 3, True, "", 0, [], -1, 0, ME[2], T0 + 19, [], {}))
    run.told[2][1:] = []
    run.orders[3:] = []
    run.forget(run.late)
    run.audit["sales"][SALE] |= {"held": 1, "sold": 1}
    run.stats["orders"] = {"held": 1, "paid": 1}

    assert named(run.judged(), STOCK, "did not find order o-2, which is held").named == [ME[2]]


def test_order_given_up_and_paid_late_is_not_missed_in_between(run: ACampaign) -> None:
    run.cut.done_us = 18_000
    run.told[2] = [(19_000, JoinedSeen("e", 3, True, "", 0, [], -1, 0, ME[2], T0 + 19, [], {FULL: 40}))]
    run.forget(run.late)
    run.orders[3:] = [
        order("o-2", 2, 12, "cancelled"),
        order("o-2", 2, 12, "paid", payment_id="pay-2"),
    ]
    run.payments.append(run.payment("o-2", "pay-2"))
    run.audit["sales"][SALE] |= {"held": 0, "sold": 2}
    run.stats |= {"orders": {"held": 0, "paid": 2, "cancelled": 0}, "sold_cents": 9800}

    assert run.judged().violations == []


def test_personal_news_of_somebody_else_is_named(run: ACampaign) -> None:
    mark = run.told[1][0][1]
    assert isinstance(mark, OrderSeen)
    run.told[3] = [(13_000, mark)]

    assert named(run.judged(), OWNERS, "was told of order o-1 of s1t2-v1").named == [ME[3]]


def test_personal_news_that_never_was_is_named(run: ACampaign) -> None:
    run.told[1].append((30_000, OrderSeen("o-1", ME[1], 77)))

    assert named(run.judged(), STOCK, "told of a state of order o-1 that it never had").named == [ME[1]]


# --- I7 one at a time -----------------------------------------------------------------------------------------


def test_order_asked_for_after_a_later_one_was_answered_is_named(run: ACampaign) -> None:
    run.first.sent_us = run.first.asked_us = 30_000
    run.first.done_us = 31_000
    run.forget(run.repeated, run.again)
    run.outcomes.remove(run.sold_out)

    assert named(run.judged(), SERIAL, "o-1 was asked for after order o-2 was answered").named == [ME[1]]


def test_sold_out_before_the_last_win_was_asked_for_is_named(run: ACampaign) -> None:
    run.sold_out.asked_us, run.sold_out.sent_us, run.sold_out.done_us = 10_500, 10_500, 12_200
    run.cut.sent_us = 12_100
    run.first.sent_us = run.first.asked_us = 12_150
    run.first.done_us = 12_300
    run.orders[0], run.orders[1] = run.orders[1], run.orders[0]
    run.told.clear()
    run.cut.said["stock_left"] = 1
    run.first.said["stock_left"] = run.repeated.said["stock_left"] = 0
    assert run.judged().violations == []

    run.first.sent_us = 12_250

    assert named(run.judged(), STOCK, "sold_out when only 1 of 2").named == [ME[3]]


def test_sold_out_while_a_unit_was_left_is_named(run: ACampaign) -> None:
    """Three wins were asked for before, as many as there are units, but never three units were gone at a time."""
    run.events[0]["stock"] = 3
    run.audit["sales"][SALE] |= {"stock": 3, "left": 1}
    run.gauges.clear()
    for outcome in (run.first, run.repeated, run.cut, run.late):
        outcome.said["stock_left"] += 1
    run.forget(run.sold_out)
    assert run.judged().violations == []

    run.claim(4, "x", 1_200_000, 1_201_000, "sold_out", {"final": False})

    assert named(run.judged(), SERIAL, "answered sold_out while units were left").named == [ME[4]]


def test_again_with_an_order_that_was_not_live_is_named(run: ACampaign) -> None:
    # o-2 had expired before o-3 was held, and o-3 was told before this was asked.
    run.claim(2, "x", 1_200_000, 1_201_000, "ok", won("o-2", 12, 0, again=True))

    violation = named(run.judged(), SERIAL, "answered again with order o-2, which was not live")

    assert violation.named == [ME[2]]


def test_search_finds_what_no_order_of_claims_explains(run: ACampaign) -> None:
    # Nobody but one viewer had asked for a unit yet, of which there are two.
    run.sold_out.asked_us, run.sold_out.sent_us, run.sold_out.done_us = 11_100, 11_100, 11_900

    assert named(run.judged(), SERIAL, "no order of single claims explains the answers").viewers == 0


# --- I2 cents -------------------------------------------------------------------------------------------------

PACKETS: list[tuple[str, Plant, str]] = [
    (
        "cents made",
        audit("packets", HALF, refunded_cents=6),
        "5 granted + 0 left + 6 refunded are not 10 cents",
    ),
    (
        "cents below zero",
        audit("packets", HALF, left_cents=-1, refunded_cents=6),
        "the audit counts cents below zero",
    ),
    (
        "announced otherwise",
        event(1, total_cents=99),
        "announced with 99 cents in 2 shares, the audit has others",
    ),
    ("winner missing", audit("packets", FULL, grabbed=1), "2 of 2 shares were told to viewers"),
    ("winner nobody is", audit("packets", HALF, grabbed=2), "1 of 2 shares were told to viewers"),
    (
        "told more than granted",
        said("only", amount_cents=6),
        "6 cents were told to viewers, the audit granted 5",
    ),
    ("settled twice", lambda run: run.events.append(run.events[4] | {"seq": 6}), "settled 2 times"),
    ("never settled", lambda run: run.events.pop(), "not settled, though it is empty or over"),
    ("refunded unsettled", lambda run: run.events.pop(), "refunded without being settled"),
    (
        "left over",
        both(audit("packets", HALF, left_cents=5, refunded_cents=0), event(4, refunded_cents=0)),
        "settled with 5 cents left",
    ),
    ("fact against audit", event(4, refunded_cents=4), "settled with refunded_cents 4, the audit has 5"),
    ("settled before its time", event(4, at=T0 + 1000), "settled 2000 ms before it expires"),
    (
        "wrong luckiest",
        event(3, best={"viewer": ME[2], "amount_cents": 60}),
        "the luckiest is said to be s1t2-v2",
    ),
    (
        "less lucky",
        event(3, best={"viewer": ME[2], "amount_cents": 40}),
        "the luckiest is said to be s1t2-v2",
    ),
    ("no luckiest", lambda run: run.events[3].pop("best"), "settled without naming the luckiest"),
    (
        "missing from the audit",
        lambda run: run.audit["packets"].pop(HALF),
        "missing from the facts or from the audit",
    ),
    (
        "gauge",
        lambda run: run.gauges.append(PacketSeen(FULL, 2, 1)),
        "the gauge said 2 left and 1 grabbed of 2",
    ),
]


@pytest.mark.parametrize(("plant", "message"), [row[1:] for row in PACKETS], ids=[row[0] for row in PACKETS])
def test_cents_that_do_not_add_up_are_named(run: ACampaign, plant: Plant, message: str) -> None:
    plant(run)

    assert named(run.judged(), CENTS, message).viewers == 0


GRABS: list[tuple[str, Plant, str, str]] = [
    ("below the least", event(1, min_cents=41), "a share of 40 cents, the least is 41", ME[2]),
    ("uneven", both(said("only", amount_cents=4)), "a share of 4 cents of 10 split evenly by 2", ME[1]),
    (
        "two amounts",
        lambda run: run.told[1].append((40_000, GrabSeen(FULL, 61))),
        "told 60 cents, and 61 cents",
        ME[1],
    ),
    (
        "never grabbed",
        lambda run: run.told.update({4: [(40_000, GrabSeen(HALF, 5))]}),
        "has a share without ever grabbing",
        ME[4],
    ),
    ("before it opened", moved("winner", done_us=5_000), "answered ok before it opened", ME[1]),
    ("empty before it opened", moved("empty", done_us=5_000), "answered empty before it opened", ME[3]),
    (
        "ended before it was over",
        moved("over", done_us=2_000_000),
        "answered ended before it was over",
        ME[2],
    ),
    ("granted after it expired", moved("only", sent_us=3_200_000), "granted after it expired", ME[1]),
    (
        "not started after it opened",
        lambda run: run.grab(4, 1, 15_000, 16_000, "not_started", {"starts_at": OPENS_AT, "now": T0 + 1}),
        "answered not_started after it opened",
        ME[4],
    ),
    (
        "not started at a moment after",
        lambda run: run.grab(4, 1, 1_000, 2_000, "not_started", {"starts_at": OPENS_AT, "now": OPENS_AT}),
        f"not_started was said at {OPENS_AT}",
        ME[4],
    ),
    (
        "empty too early",
        moved("empty", asked_us=21_100, done_us=21_500),
        "answered empty when only 1 of 2 winners had asked",
        ME[3],
    ),
    (
        "won with two keys",
        lambda run: run.ask(
            1,
            {"cmd": "redpacket.grab", "packet": "{run}-p1", "key": "another-key"},
            23_000,
            23_500,
            "ok",
            {"amount_cents": 60, "again": False},
        ),
        "won with 2 keys",
        ME[1],
    ),
    (
        "same key, other answer",
        lambda run: run.grab(1, 1, 40_000, 41_000, "ok", {"amount_cents": 60, "again": True}),
        "was answered {",
        ME[1],
    ),
    (
        "not found on return",
        lambda run: run.told[2].append(
            (2_100_000, JoinedSeen("e", 3, True, "", 0, [], -1, 0, ME[2], T0 + 2100, [], {}))
        ),
        "came back and did not find what was grabbed",
        ME[2],
    ),
]


@pytest.mark.parametrize(
    ("plant", "message", "viewer"), [row[1:] for row in GRABS], ids=[row[0] for row in GRABS]
)
def test_broken_promise_about_a_share_is_named(
    run: ACampaign, plant: Plant, message: str, viewer: str
) -> None:
    plant(run)

    assert named(run.judged(), CENTS, message).named == [viewer]


def test_share_won_after_it_was_empty_is_named(run: ACampaign) -> None:
    run.other.sent_us = run.other.asked_us = 26_000
    run.other.done_us = 27_000

    assert named(run.judged(), SERIAL, "won after somebody was told that it is empty").named == [ME[2]]


def test_share_whose_answer_was_lost_may_be_there(run: ACampaign) -> None:
    run.only.code, run.only.definite, run.only.said = "unanswered", False, {}

    findings = run.judged()

    assert findings.violations == []
    assert findings.packets[HALF].winners == 1


# --- I6 board -------------------------------------------------------------------------------------------------


def arrival(inviter: int, invitee: int, **fields: Any) -> Plant:
    def plant(run: ACampaign) -> None:
        run.shares.append(
            {"at": T0 + 9, "inviter": ME[inviter], "invitee": ME[invitee], "counted": True} | fields
        )
        run.stats["shares"] += 1

    return plant


ARRIVALS: list[tuple[str, Plant, str, str]] = [
    ("twice", arrival(1, 2), "counted twice", ME[2]),
    ("self", arrival(4, 4), "counted as brought by themselves", ME[4]),
    ("through no link", arrival(1, 4), "counted as brought by s1t2-v1, whose link they did not come", ME[4]),
    (
        "with a reason against",
        lambda run: run.shares[0].update(reason="cycle"),
        "counted, though cycle",
        ME[2],
    ),
    (
        "not counted",
        both(
            lambda run: run.shares[0].update(counted=False, reason="again"),
            lambda run: run.stats.update(shares=0),
        ),
        "came through the link of s1t2-v1, and was not counted",
        ME[2],
    ),
    (
        "forged without a record",
        lambda run: run.shares.pop(),
        "came through a forged link, and there is no",
        ME[3],
    ),
    (
        "other count",
        lambda run: run.rank.said["top"][0].update(count=2),
        "the board says 2, the records 1",
        ME[1],
    ),
]


@pytest.mark.parametrize(
    ("plant", "message", "viewer"), [row[1:] for row in ARRIVALS], ids=[row[0] for row in ARRIVALS]
)
def test_wrong_arrival_is_named(run: ACampaign, plant: Plant, message: str, viewer: str) -> None:
    plant(run)

    assert named(run.judged(), BOARD, message).named == [viewer]


def test_circle_of_inviters_is_named(run: ACampaign) -> None:
    arrival(2, 1)(run)

    violation = named(run.judged(), BOARD, "is in a circle of inviters")

    assert sorted(violation.named) == [ME[1], ME[2]]


def test_total_of_arrivals_is_that_of_the_records(run: ACampaign) -> None:
    run.stats["shares"] = 7

    assert named(run.judged(), BOARD, "the totals count 7 arrivals, the records 1").viewers == 0


def test_head_of_the_board_lacking_somebody_is_named(run: ACampaign) -> None:
    run.rank.said["top"].clear()

    assert named(run.judged(), BOARD, "the head of the board is [], by the records").viewers == 0


def test_who_reached_a_count_first_stands_first(run: ACampaign) -> None:
    """docs/protocol.md and the board's rule: among equals the earliest first, not the alphabet."""
    run.steps[4].command["via"] = 4
    run.outcomes[4].said = {"via": ME[2]}
    run.shares.insert(0, {"at": T0 + 1, "inviter": ME[2], "invitee": ME[4], "counted": True})
    run.stats["shares"] = 2
    run.rank.said["top"] = [
        {"viewer": ME[2], "name": "x", "count": 1},
        {"viewer": ME[1], "name": "x", "count": 1},
    ]
    assert run.judged().violations == []

    run.rank.said["top"].reverse()

    assert named(run.judged(), BOARD, "the head of the board is").viewers == 0
