"""
Random lives of a room: whatever is asked in whatever order, the store says and does what the model says.

After every step replies, units, orders, facts, outbox, grants, board and cards agree, everything adds up, and a
snapshot with the facts after it folded in equals a later snapshot. Time passes by moving what the room knows into the
past, by amounts that are far from a boundary or exactly on one. The seed is printed with a failure; give it to
`LIVEROOM_TEST_SEED` to see it again.
"""

import os
import random
from collections import defaultdict
from typing import Any, ClassVar

import hypothesis
import hypothesis.strategies as st
import orjson
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.rooms.campaigns import states_at
from engine.rooms.recovery import read_view
from protocol.view import Map, apply_event
from tests.support.campaign_room import MINUTE_MS, CampaignRoom, ok, said
from tests.support.campaigns import Gates, Model, Packet, Sale, Who
from tests.support.stores import fresh_key

VIEWERS = ("anna", "bo", "cy-1.x", "d_e", "eve", "fay")
#: What is asked for; mostly what there is.
SALES = ("s1",) * 6 + ("s2",) * 4 + ("s3",) * 2 + ("ghost",)
ITEMS = ("tea", "cup")
PACKETS = ("p1",) * 5 + ("p2",) * 5 + ("ghost",)
PAYMENTS = tuple(f"pay-{number}" for number in range(8))
KEYS = tuple(f"key-{number}" for number in range(8))
PRICES = (0, 100, 2**53 - 1)

STATUSES = ("held", "paid", "cancelled", "expired", "refunded")

viewers = st.sampled_from(VIEWERS)
places = st.integers(0, 7)
sales = st.sampled_from(SALES)
packets = st.sampled_from(PACKETS)
keys = st.sampled_from(KEYS)
#: What a viewer's token says: eligibility looks at it.
TOKENS = {
    viewer: Who(viewer, level=at, tags=frozenset({"vip"} if at % 2 else {"new"}))
    for at, viewer in enumerate(VIEWERS)
}
gates = st.one_of(
    *(st.just(Gates()) for _ in range(4)),
    st.builds(
        Gates,
        tags=st.sampled_from([None, frozenset({"vip", "svip"}), frozenset({"vip", "new"}), frozenset()]),
        level=st.sampled_from([None, 2]),
        dwell_ms=st.sampled_from([None, MINUTE_MS]),
        first_order=st.booleans(),
        shared=st.sampled_from([None, 1]),
    ),
)


def gate_words(gates: Gates) -> tuple[Any, ...]:
    """Return gates as the functions take them."""
    return (
        "" if gates.tags is None else ",".join(sorted(gates.tags)) or ",",
        "" if gates.level is None else gates.level,
        "" if gates.dwell_ms is None else gates.dwell_ms // 1_000,
        "1" if gates.first_order else "",
        "" if gates.shared is None else gates.shared,
    )


def tag_words(who: Who) -> str:
    return "," + ",".join(sorted(who.tags)) + ","


def parts_of(cents: int, shares: int) -> list[int]:
    """Split money the same way every time."""
    rng = random.Random(cents * 1_000 + shares)
    cuts = sorted(rng.sample(range(1, cents), shares - 1))
    return [after - before for before, after in zip([0, *cuts], [*cuts, cents], strict=True)]


class Life(RuleBasedStateMachine):
    """One room and its model."""

    client: ClassVar["redis.Redis[str]"]

    def __init__(self) -> None:
        super().__init__()
        self.room = CampaignRoom(self.client, state="live")
        self.model = Model()
        self.passed = 0
        self.order_ids: list[str] = []
        for item in ITEMS:
            self.room.put_item(item)
            self.model.put_item(item)
        self.folded = self.snapshot()
        self.seq = len(self.room.facts())
        self.facts_before = self.seq

    def teardown(self) -> None:
        self.room.wire.close()

    # --- what is asked -----------------------------------------------------------------------------------

    @initialize(
        stock=st.integers(1, 5),
        per_viewer=st.sampled_from([1, 2, 4]),
        hold_s=st.sampled_from([60, 300]),
        gates=gates,
        cents=st.integers(4, 60),
        shares=st.integers(1, 4),
    )
    def begin(self, stock: int, per_viewer: int, hold_s: int, gates: Gates, cents: int, shares: int) -> None:
        lasts = 30 * MINUTE_MS
        self.schedule("s1", "tea", 100, stock, 1, -MINUTE_MS, lasts, hold_s, gates, fresh_key())
        self.schedule("s2", "cup", 100, stock, per_viewer, -MINUTE_MS, lasts, 300, Gates(), fresh_key())
        self.send("p1", cents, shares, None, 600, gates)

    @precondition(lambda self: len(self.model.sales) < 3)
    @rule(
        sale=st.sampled_from(("s1", "s2", "s3", "s3", "s3")),
        item=st.sampled_from((*ITEMS, *ITEMS, "gone")),
        price=st.sampled_from(PRICES),
        stock=st.integers(1, 5),
        per_viewer=st.sampled_from([1, 1, 2, 4]),
        starts_in=st.sampled_from([-MINUTE_MS, 2 * MINUTE_MS]),
        lasts=st.sampled_from([0, 8 * MINUTE_MS, 30 * MINUTE_MS]),
        hold_s=st.sampled_from([60, 300]),
        gates=gates,
        key=keys,
    )
    def schedule(
        self, sale: str, item: str, price: int, stock: int, per_viewer: int, starts_in: int, lasts: int, hold_s: int,
        gates: Gates, key: str,
    ) -> None:  # fmt: skip
        price = min(price, (2**53 - 1) // per_viewer)
        fingerprint = f"{sale}{item}{price}{stock}{per_viewer}{starts_in}{lasts}{hold_s}{gates}"
        now = self.room.now()
        reply = self.room.schedule(
            sale, item=item, price=price, stock=stock, per_viewer=per_viewer, starts_in=starts_in, lasts=lasts,
            hold_s=hold_s, gates=gate_words(gates), actor="boss", key=key, fingerprint=fingerprint,
        )  # fmt: skip
        code, body = said(reply)
        starts_at = body.get("starts_at", now + starts_in)
        ends_at = body.get("ends_at", now + max(starts_in, 0) + lasts)
        planned = Sale(sale, item, price, stock, per_viewer, starts_at, ends_at, hold_s * 1_000, gates)
        assert code == self.model.schedule(planned, key, fingerprint, now)
        self.check()

    @rule(sale=sales, viewer=viewers, qty=st.sampled_from([1, 1, 2]))
    def claim_once(self, sale: str, viewer: str, qty: int) -> None:
        self.claim(sale, [(viewer, qty, fresh_key())])

    @rule(
        sale=sales,
        claims=st.lists(st.tuples(viewers, st.sampled_from([1, 1, 1, 2, 3]), keys), min_size=1, max_size=4),
    )
    def claim(self, sale: str, claims: list[tuple[str, int, str]]) -> None:
        asked, expected = [], []
        for viewer, qty, key in claims:
            who = TOKENS[viewer]
            asked.append((viewer, qty, key, f"{sale}{qty}", who.level, tag_words(who)))
            expected.append((who, qty, key, f"{sale}{qty}"))
        (now, *_), replies = self.room.claims(sale, *asked)
        assert replies == self.model.claims(sale, expected, now or self.room.now())
        self.check()

    def an_order(
        self, place: int, statuses: tuple[str, ...] = STATUSES
    ) -> tuple[str, str, str, int, str | None]:
        """Return (order, sale, viewer, amount, payment) of one of the newest orders in these states."""
        found = [order for order in self.model.orders.values() if order.status in statuses]
        if not found or place == 7:
            return "code0000-99", "s1", "anna", 100, None
        order = found[-1 - place % min(5, len(found))]
        return order.order, order.sale, order.viewer, order.amount, order.payment

    @rule(place=places, stranger=st.sampled_from((None, None, None, *VIEWERS)), key=keys)
    def cancel(self, place: int, stranger: str | None, key: str) -> None:
        order, sale, owner, _, _ = self.an_order(place)
        viewer = stranger or owner
        reply = self.room.cancel(viewer, order, sale, key=key, fingerprint=order)
        self.agree(reply, self.model.cancel(viewer, order, key, order, self.room.now()))

    @rule(place=places, payment=st.sampled_from(PAYMENTS), wrong=st.sampled_from([0, 0, 0, 0, 1]))
    def pay(self, place: int, payment: str, wrong: int) -> None:
        order, sale, _, cents, _ = self.an_order(place)
        self.take_payment(order, sale, payment, cents + wrong)

    @rule(place=places, fresh=st.booleans(), payment=st.sampled_from(PAYMENTS))
    def pay_in_time(self, place: int, fresh: bool, payment: str) -> None:
        order, sale, _, cents, _ = self.an_order(place, ("held",))
        self.take_payment(order, sale, fresh_key() if fresh else payment, cents)

    @rule(place=places, fresh=st.booleans(), payment=st.sampled_from(PAYMENTS))
    def pay_late(self, place: int, fresh: bool, payment: str) -> None:
        order, sale, _, cents, _ = self.an_order(place, ("cancelled", "expired"))
        self.take_payment(order, sale, fresh_key() if fresh else payment, cents)

    def take_payment(self, order: str, sale: str, payment: str, cents: int) -> None:
        reply = self.room.pay(order, payment, cents, sale)
        self.agree(reply, self.model.pay(order, payment, cents, self.room.now()))

    @rule(place=places, own=st.booleans(), payment=st.sampled_from(PAYMENTS), restock=st.booleans())
    def refund(self, place: int, own: bool, payment: str, restock: bool) -> None:
        order, sale, _, _, paid = self.an_order(place, ("paid", "refunded") if own else STATUSES)
        payment = paid or payment if own else payment
        reply = self.room.refund(order, payment, sale, restock=restock)
        self.agree(reply, self.model.refund(order, payment, restock))

    @rule(sale=sales, delta=st.sampled_from([-5, -1, 0, 1, 3, 2**53 - 1]))
    def adjust(self, sale: str, delta: int) -> None:
        reply = said(self.room.adjust(sale, delta))
        self.agree(reply, self.model.adjust(sale, delta, self.room.now()))

    @precondition(lambda self: len(self.model.facts) > 10)
    @rule(what=st.integers(0, 9), sale=sales, packet=packets)
    def stop_something(self, what: int, sale: str, packet: str) -> None:
        if what < 3:
            self.agree(said(self.room.end(sale)), self.model.end(sale, self.room.now()))
        elif what < 6:
            assert said(self.room.cancel_packet(packet))[0] == self.model.cancel_packet(packet)
            self.check()
        elif what == 6 and self.model.state == "live":
            assert self.room.step("live", "closing")[0] == "ok"
            self.model.close()
            self.check()

    @rule(sale=sales)
    def tick(self, sale: str) -> None:
        assert self.room.tick(sale)[0] == self.model.tick(sale, self.room.now())
        self.check()

    @precondition(lambda self: len(self.model.packets) < 2)
    @rule(
        packet=st.sampled_from(("p1", "p2", "p2", "p2")),
        cents=st.integers(4, 60),
        shares=st.integers(1, 4),
        opens_in=st.sampled_from([None, -MINUTE_MS, 2 * MINUTE_MS]),
        expires_s=st.sampled_from([60, 600]),
        gates=gates,
    )
    def send(
        self, packet: str, cents: int, shares: int, opens_in: int | None, expires_s: int, gates: Gates
    ) -> None:
        parts = parts_of(cents, shares)
        reply = self.room.send(
            packet, tuple(parts), opens_in=opens_in, expires_s=expires_s, gates=gate_words(gates)
        )
        code, body = said(reply)
        opens_at = body.get("opens_at", self.room.now())
        sent = Packet(packet, parts, opens_at, opens_at + expires_s * 1_000, gates)
        assert code == self.model.send(sent, opens_at)
        self.check()

    @rule(packet=packets, grabs=st.lists(st.tuples(viewers, keys), min_size=1, max_size=4))
    def grab(self, packet: str, grabs: list[tuple[str, str]]) -> None:
        asked, expected = [], []
        for viewer, key in grabs:
            who = TOKENS[viewer]
            asked.append((viewer, 1, key, packet, who.level, tag_words(who)))
            expected.append((who, key, packet))
        replies = self.room.grabs(packet, *asked)
        told = [body["now"] for _, body in replies if "now" in body]
        assert replies == self.model.grabs(packet, expected, told[0] if told else self.room.now())
        self.check()

    @rule(packet=packets)
    def tick_packet(self, packet: str) -> None:
        assert self.room.tick_packet(packet)[0] == self.model.tick_packet(packet, self.room.now())
        self.check()

    @rule(
        viewer=viewers,
        inviter=st.sampled_from((None, *VIEWERS)),
        flaw=st.sampled_from(["", "", "", "expired", "forged"]),
    )
    def join(self, viewer: str, inviter: str | None, flaw: str) -> None:
        inviter = None if flaw == "forged" else inviter or ("anna" if flaw else None)
        if self.model.state == "closed":
            assert self.room.come(viewer, inviter, flaw=flaw)[0] == "room_not_live"
            return
        first = viewer not in self.model.joined_at
        # Two counts within one millisecond would be ordered by name: let the next one be later.
        self.client.hincrby(self.room.names.meta, "created", -1)
        reply = self.room.come(viewer, inviter, flaw=flaw)
        joined = self.client.hget(self.room.names.viewers, viewer) or ""
        self.model.join(viewer, inviter, flaw, int(joined.rpartition("|")[2]))
        if not first:  # Who was never here has neither, and is not asked about.
            mine = (order for order in self.model.orders.values() if order.viewer == viewer)
            assert orjson.loads(reply[2]) == [order.body() for order in mine if order.status == "held"]
            packets = self.model.packets.items()
            assert orjson.loads(reply[3]) == {
                name: at.grabs[viewer] for name, at in packets if viewer in at.grabs
            }
        self.check()

    @rule(minutes=st.sampled_from([1, 1, 2, 5, 10]), extra=st.sampled_from([0, 7]))
    def pass_time(self, minutes: int, extra: int) -> None:
        self.room.pass_time(minutes * MINUTE_MS + extra)
        self.model.pass_time(minutes * MINUTE_MS + extra)
        # The snapshot that is folded holds moments too.
        for sale in self.folded["sales"]:
            sale["starts_at"] -= minutes * MINUTE_MS + extra
            sale["ends_at"] -= minutes * MINUTE_MS + extra
        for packet in self.folded["packets"]:
            packet["opens_at"] -= minutes * MINUTE_MS + extra
            packet["expires_at"] -= minutes * MINUTE_MS + extra
        self.check()

    @precondition(lambda self: self.model.state in ("closing", "closed"))
    @rule()
    def settle(self) -> None:
        happened = self.room.settle_all(list(self.model.sales), list(self.model.packets))
        assert happened == [self.model.settle(self.room.now())]
        self.check()

    # --- what must agree ----------------------------------------------------------------------------------

    def agree(self, reply: tuple[str, Map], expected: tuple[str, Map]) -> None:
        code, body = reply
        body.pop("eligible", None)
        assert (code, body) == expected
        self.check()

    def check(self) -> None:
        """Compare everything there is with the model."""
        room, model = self.room, self.model
        for name, sale in model.sales.items():
            units = {"stock": sale.stock, "left": sale.left, "held": sale.held, "sold": sale.sold}
            assert room.units(name) == units
            counting: defaultdict[str, int] = defaultdict(int)
            for order in model.orders.values():
                if order.sale == name and order.status in ("held", "paid", "refunded"):
                    counting[order.viewer] += order.qty
            assert max(counting.values(), default=0) <= sale.per_viewer
            buyers = self.client.hgetall(room.names.sale_buyers(name))
            assert {viewer: int(entry.partition("|")[0]) for viewer, entry in buyers.items()} == counting
            held = {
                order.order: order.pay_by
                for order in model.orders.values()
                if (order.sale, order.status) == (name, "held")
            }
            assert {
                entry: int(at)
                for entry, at in self.client.zrange(room.names.sale_holds(name), 0, -1, withscores=True)
            } == held
        assert self.client.hlen(room.names.orders) == len(model.orders)
        for order in model.orders.values():
            assert room.order(order.order) == order.body()
        changes: defaultdict[str, list[str]] = defaultdict(list)
        for change in room.changes():
            changes[change["order"]].append(change["status"])
        assert changes == model.changes
        counted = [
            int(room.meta(f"orders_{status}") or 0)
            for status in ("held", "paid", "cancelled", "expired", "refunded")
        ]
        by_status = [order.status for order in model.orders.values()]
        assert counted == [
            by_status.count(status) for status in ("held", "paid", "cancelled", "expired", "refunded")
        ]
        assert int(room.meta("sold_cents") or 0) == sum(
            o.amount for o in model.orders.values() if o.status == "paid"
        )
        for name, packet in model.packets.items():
            money = {
                "total": packet.total, "granted": packet.granted, "refunded": packet.refunded, "shares": packet.shares,
                "grabbed": len(packet.grabs), "left": sum(packet.parts),
            }  # fmt: skip
            assert room.money(name) == money
        grants = [
            (entry["packet"], entry.get("viewer"), int(entry.get("amount") or entry["refund"]))
            for entry in room.grants()
        ]
        assert grants == model.grants
        assert [(r["inviter"], r["invitee"], r.get("reason")) for r in room.records()] == model.records
        assert self.client.hgetall(room.names.inviters) == model.inviter_of
        top = [(line["viewer"], line["count"]) for line in room.rank()[0]]
        assert top == model.board()[:10]
        for item, sold_out in model.sold_out.items():
            assert room.is_sold_out(item) is sold_out
        self.check_facts()

    def check_facts(self) -> None:
        facts = self.room.facts()[self.facts_before :]
        told = []
        for fact in facts:
            name = fact["ev"]
            if name == "item.put":
                told.append((name, (fact["item"], fact["sold_out"])))
            elif name == "room.state":
                told.append((name, fact["state"]))
            elif name == "seckill.sold_out":
                told.append((name, (fact["sale"], fact["final"])))
            elif name == "redpacket.closed":
                best = fact.get("best")
                lucky = (best["viewer"], best["amount_cents"]) if best else None
                told.append((name, (fact["packet"], fact["granted_cents"], fact["refunded_cents"], lucky)))
            else:
                told.append((name, fact.get("sale") or fact["packet"]))
        assert told == self.model.facts
        for fact in facts[self.seq - self.facts_before :]:
            assert fact["seq"] == self.seq + 1
            self.seq += 1
            apply_event(self.folded, fact)
        later = self.snapshot()
        folded = orjson.loads(orjson.dumps(self.folded))
        now = self.room.now()
        states_at(folded, now)
        states_at(later, now)
        assert folded == later

    def snapshot(self) -> Map:
        """Return the room as a snapshot tells it."""
        _, fields, items, _, _, _, sold, granted, _ = self.room.read_room()
        meta = {name.encode(): value.encode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
        running = [json.encode() for json, ended in zip(sold[::8], sold[1::8], strict=True) if ended == "0"]
        open_packets = [
            json.encode() for json, closed in zip(granted[::7], granted[1::7], strict=True) if closed == "0"
        ]
        view = read_view(self.room.key.room, meta, [item.encode() for item in items], running, open_packets)
        for campaign in (*view["sales"], *view["packets"]):
            campaign.pop("eligible", None)
        return view


@pytest.mark.timeout(300)
def test_store_agrees_with_the_model(client: "redis.Redis[str]") -> None:
    chosen = int(os.environ.get("LIVEROOM_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"LIVEROOM_TEST_SEED={chosen}")
    life = type("Life", (Life,), {"client": client})
    hypothesis.seed(chosen)(life)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        life,
        settings=settings(
            max_examples=40,
            stateful_step_count=60,
            deadline=None,
            database=None,
            print_blob=True,
            # Shrinking takes minutes; the seed repeats a run, and every step is printed.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_key_of_the_model_is_as_good_as_a_fresh_one(client: "redis.Redis[str]") -> None:
    """What the random lives rest on: nothing but the key tells two claims apart."""
    room = CampaignRoom(client, state="live")
    room.sell(stock=2)
    first = room.claim("anna", key="key-1")
    assert room.claim("anna", key="key-1") == first
    assert ok(["ok", orjson.dumps(room.claim("anna", key=fresh_key())[1]).decode()])["again"] is True
    room.wire.close()
