"""
What campaigns should do, as plain Python: the model that the store must agree with.

Decides every reply, fact and sum of sales, red packets and the share board, one command at a time and with nobody else
around. Written from docs/protocol.md, not from the functions: no key, no string joined by hand, no Lua idiom. Time
comes in as an argument. Pure.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

Map = dict[str, Any]
#: (code, object of `ok` or fields of a refusal).
Said = tuple[str, Map]

RUNNING: Final = ("live", "paused")
OVER: Final = ("closing", "closed")
#: Bounds of the store's work in one call; they show only when very much is overdue at once.
REAPED_BY_CLAIMS: Final = 64
REAPED_BY_TICK: Final = 500
INTEGER_MAX: Final = 2**53 - 1


@dataclass
class Gates:
    """Who may take part; None is open."""

    tags: frozenset[str] | None = None
    level: int | None = None
    dwell_ms: int | None = None
    first_order: bool = False
    shared: int | None = None


@dataclass
class Sale:
    """One sale."""

    sale: str
    item: str
    price: int
    stock: int
    per_viewer: int
    starts_at: int
    ends_at: int
    hold_ms: int
    gates: Gates
    left: int = 0
    held: int = 0
    sold: int = 0
    ended: bool = False
    #: '', 'pending' or 'final', as last told.
    told: str = ""


@dataclass
class Order:
    """One order."""

    order: str
    sale: str
    item: str
    viewer: str
    qty: int
    price: int
    status: str
    held_at: int
    pay_by: int
    inviter: str | None
    payment: str | None = None
    refunds: list[str] = field(default_factory=list)

    @property
    def amount(self) -> int:
        return self.price * self.qty

    def body(self) -> Map:
        """Return the order as it travels."""
        body: Map = {
            "order": self.order, "sale": self.sale, "item": self.item, "viewer": self.viewer, "qty": self.qty,
            "price_cents": self.price, "amount_cents": self.amount, "status": self.status, "held_at": self.held_at,
            "pay_by": self.pay_by,
        }  # fmt: skip
        if self.inviter is not None:
            body["inviter"] = self.inviter
        if self.payment is not None:
            body["payment_id"] = self.payment
        if self.refunds:
            body["refund_required"] = list(self.refunds)
        return body


@dataclass
class Packet:
    """One red packet."""

    packet: str
    parts: list[int]
    opens_at: int
    expires_at: int
    gates: Gates
    total: int = 0
    shares: int = 0
    grabs: dict[str, int] = field(default_factory=dict)
    refunded: int = 0
    closed: bool = False
    best: tuple[str, int] | None = None

    @property
    def granted(self) -> int:
        return sum(self.grabs.values())


@dataclass
class Who:
    """A viewer as their token says."""

    viewer: str
    level: int = 0
    tags: frozenset[str] = frozenset()


class Model:
    """One room."""

    def __init__(self) -> None:
        self.state = "live"
        self.sales: dict[str, Sale] = {}
        self.orders: dict[str, Order] = {}
        self.packets: dict[str, Packet] = {}
        self.payments: dict[str, str] = {}
        #: Whether each item on the shelf says that it is sold out.
        self.sold_out: dict[str, bool] = {}
        #: (name of the fact, what it is about).
        self.facts: list[tuple[str, Any]] = []
        #: Every state each order went through.
        self.changes: defaultdict[str, list[str]] = defaultdict(list)
        self.remembered: dict[tuple[str, str, str], tuple[str, Map]] = {}
        self.joined_at: dict[str, int] = {}
        self.inviter_of: dict[str, str] = {}
        self.brought: defaultdict[str, int] = defaultdict(int)
        #: Inviters in the order in which they reached their count.
        self.reached: dict[str, int] = {}
        self.records: list[tuple[str | None, str, str | None]] = []
        self.grants: list[tuple[str, str | None, int]] = []
        self._clock = 0

    # --- what all share ----------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        """Move every moment into the past."""
        for sale in self.sales.values():
            sale.starts_at -= ms
            sale.ends_at -= ms
        for order in self.orders.values():
            order.held_at -= ms
            order.pay_by -= ms
        for packet in self.packets.values():
            packet.opens_at -= ms
            packet.expires_at -= ms
        for viewer in self.joined_at:
            self.joined_at[viewer] -= ms

    def put_item(self, item: str) -> None:
        """Put a card on the shelf."""
        self.sold_out.setdefault(item, False)

    def _recall(self, viewer: str, command: str, key: str, fingerprint: str) -> Said | None:
        known = self.remembered.get((viewer, command, key))
        if known is None:
            return None
        return ("ok", known[1]) if known[0] == fingerprint else ("conflict", {})

    def _eligible(self, gates: Gates, who: Who, now: int) -> bool:
        if gates.tags is not None and not gates.tags & who.tags:
            return False
        if gates.level is not None and who.level < gates.level:
            return False
        if gates.dwell_ms is not None:
            joined = self.joined_at.get(who.viewer)
            if joined is None or now - joined < gates.dwell_ms:
                return False
        if gates.first_order and any(order.viewer == who.viewer for order in self.orders.values()):
            return False
        return gates.shared is None or self.brought[who.viewer] >= gates.shared

    # --- sales -------------------------------------------------------------------------------------------

    def schedule(self, sale: Sale, key: str, fingerprint: str, now: int) -> str:
        """Put units on sale. Returns the code."""
        known = self._recall("boss", "seckill.schedule", key, fingerprint)
        if known is not None:
            return known[0]
        if self.state in OVER:
            return "room_not_live"
        if sale.sale in self.sales:
            return "conflict"
        if sale.item not in self.sold_out:
            return "not_found"
        sale.starts_at = max(sale.starts_at, now)
        if sale.ends_at <= sale.starts_at:
            return "bad_command"
        sale.left = sale.stock
        self.sales[sale.sale] = sale
        self.facts.append(("seckill.scheduled", sale.sale))
        self._mark(sale.item, False)
        self.remembered["boss", "seckill.schedule", key] = (fingerprint, {})
        return "ok"

    def _mark(self, item: str, sold_out: bool) -> None:
        if self.sold_out.get(item, sold_out) is not sold_out:
            self.sold_out[item] = sold_out
            self.facts.append(("item.put", (item, sold_out)))

    def _after(self, sale: Sale) -> None:
        was, sale.told = sale.told, "" if sale.left else "pending" if sale.held else "final"
        if sale.told == was or sale.ended:
            return  # Of a sale that is over, nobody can have what came back.
        if sale.told:
            self.facts.append(("seckill.sold_out", (sale.sale, sale.told == "final")))
            if not was:
                self._mark(sale.item, True)
        else:
            self.facts.append(("seckill.back", sale.sale))
            self._mark(sale.item, False)

    def _move(self, order: Order, status: str) -> None:
        order.status = status
        self.changes[order.order].append(status)

    def _release(self, order: Order, status: str) -> None:
        sale = self.sales[order.sale]
        sale.held -= order.qty
        sale.left += order.qty
        self._move(order, status)

    def _reap(self, sale: Sale, now: int, most: int) -> bool:
        overdue = [
            order
            for order in self.orders.values()
            if order.sale == sale.sale and order.status == "held" and order.pay_by <= now
        ]
        overdue.sort(key=lambda order: (order.pay_by, order.order))
        for order in overdue[:most]:
            self._release(order, "expired")
        return bool(overdue)

    def _counting(self, sale: str, viewer: str) -> list[Order]:
        """Return the orders that count against a viewer's limit: a refund gives no quota back."""
        return [
            order
            for order in self.orders.values()
            if (order.sale, order.viewer) == (sale, viewer) and order.status in ("held", "paid", "refunded")
        ]

    def claims(self, sale_id: str, claims: list[tuple[Who, int, str, str]], now: int) -> list[Said]:
        """Claim for (viewer, quantity, key, fingerprint) each, in order and at one moment."""
        sale = self.sales.get(sale_id)
        if sale is None:
            missing: Said = ("not_found", {})
            return [
                self._recall(who.viewer, "seckill.claim", key, fingerprint) or missing
                for who, _, key, fingerprint in claims
            ]
        refusal: Said | None = None
        if self.state in OVER or sale.ended or now >= sale.ends_at:
            refusal = ("ended", {})
        elif self.state == "scheduled":
            refusal = ("room_not_live", {"state": "scheduled"})
        elif now < sale.starts_at:
            refusal = ("not_started", {"starts_at": sale.starts_at, "now": now})
        changed = refusal is None and self._reap(sale, now, REAPED_BY_CLAIMS)
        said = []
        for who, qty, key, fingerprint in claims:
            before = len(self.orders), sale.left
            said.append(self._claim(sale, who, qty, key, fingerprint, now, refusal))
            changed = changed or before != (len(self.orders), sale.left)
        if changed:
            self._after(sale)
        return said

    def _claim(
        self, sale: Sale, who: Who, qty: int, key: str, fingerprint: str, now: int, refusal: Said | None
    ) -> Said:
        known = self._recall(who.viewer, "seckill.claim", key, fingerprint)
        if known is not None:
            return known
        mine = self._counting(sale.sale, who.viewer)
        if sale.per_viewer == 1 and qty == 1 and mine:
            (first,) = mine
            if first.status != "held" or now < first.pay_by:
                return "ok", {
                    "order": first.order, "status": first.status, "pay_by": first.pay_by, "stock_left": sale.left,
                    "again": True,
                }  # fmt: skip
        if refusal is not None:
            return refusal
        units = sum(order.qty for order in mine)
        if units + qty > sale.per_viewer:
            return "limit_reached", {"left": max(0, sale.per_viewer - units)}
        if not self._eligible(sale.gates, who, now):
            return "not_eligible", {}
        if sale.left < qty:
            return "sold_out", {"final": sale.left == sale.held == 0, "left": sale.left}
        order = Order(
            order=f"code0000-{len(self.orders) + 1}", sale=sale.sale, item=sale.item, viewer=who.viewer, qty=qty,
            price=sale.price, status="held", held_at=now, pay_by=now + sale.hold_ms,
            inviter=self.inviter_of.get(who.viewer),
        )  # fmt: skip
        self.orders[order.order] = order
        self.changes[order.order].append("held")
        sale.left -= qty
        sale.held += qty
        body = {"order": order.order, "status": "held", "pay_by": order.pay_by, "stock_left": sale.left}
        self.remembered[who.viewer, "seckill.claim", key] = (fingerprint, body)
        return "ok", body

    def cancel(self, viewer: str, order_id: str, key: str, fingerprint: str, now: int) -> Said:
        """Give held units back."""
        known = self._recall(viewer, "order.cancel", key, fingerprint)
        if known is not None:
            return known
        order = self.orders.get(order_id)
        if order is None:
            return "not_found", {}
        if order.viewer != viewer:
            return "not_found", {}
        if order.status in ("cancelled", "expired"):
            return "ok", order.body()
        if order.status != "held":
            return "conflict", {"status": order.status}
        self._release(order, "expired" if now >= order.pay_by else "cancelled")
        self._after(self.sales[order.sale])
        self.remembered[viewer, "order.cancel", key] = (fingerprint, order.body())
        return "ok", order.body()

    def pay(self, order_id: str, payment: str, cents: int, now: int) -> Said:
        """Take the shop's word that an order was paid."""
        order = self.orders.get(order_id)
        if order is None:
            return "not_found", {}
        known = self.payments.get(payment)
        if known not in (None, order_id):
            return "conflict", {}
        if cents != order.amount:
            return "conflict", {"amount_cents": order.amount}
        if known is not None:
            return ("refund" if payment in order.refunds else "ok"), order.body()
        self.payments[payment] = order_id
        sale = self.sales[order.sale]
        late = order.status in ("cancelled", "expired")
        if late:
            units = sum(other.qty for other in self._counting(order.sale, order.viewer))
            late = units + order.qty <= sale.per_viewer
            if late and sale.left < order.qty and self._reap(sale, now, REAPED_BY_CLAIMS):
                self._after(sale)
            late = late and sale.left >= order.qty
        if order.status != "held" and not late:
            order.refunds.append(payment)
            self._move(order, order.status)
            return "refund", order.body()
        if late:
            sale.left -= order.qty
        else:
            sale.held -= order.qty
        sale.sold += order.qty
        order.payment = payment
        self._move(order, "paid")
        self._after(sale)
        return "ok", order.body()

    def refund(self, order_id: str, payment: str, restock: bool) -> Said:
        """Take the shop's word that a payment was given back."""
        order = self.orders.get(order_id)
        if order is None:
            return "not_found", {}
        if self.payments.get(payment) != order_id:
            return "conflict", {}
        if payment in order.refunds:
            order.refunds.remove(payment)
            self._move(order, order.status)
        elif payment == order.payment and order.status == "paid":
            sale = self.sales[order.sale]
            sale.sold -= order.qty
            if restock:
                sale.left += order.qty
            else:
                sale.stock -= order.qty
                if not sale.ended:
                    self.facts.append(("seckill.adjusted", sale.sale))
            self._move(order, "refunded")
            self._after(sale)
        return "ok", order.body()

    def adjust(self, sale_id: str, delta: int, now: int) -> Said:
        """Add units, or take free ones away."""
        if self.state in OVER:
            return "room_not_live", {"state": self.state}
        sale = self.sales.get(sale_id)
        if sale is None:
            return "not_found", {}
        if sale.ended or now >= sale.ends_at:
            return "ended", {}
        if sale.left + delta < 0:
            return "limit_reached", {"left": sale.left}
        if delta > 0 and (sale.stock + delta) * max(1, sale.price) > INTEGER_MAX:
            return "bad_quantity", {}
        sale.left += delta
        sale.stock += delta
        self.facts.append(("seckill.adjusted", sale_id))
        self._after(sale)
        return "ok", self.sale_body(sale, now)

    def end(self, sale_id: str, now: int) -> Said:
        """No new holds from now on."""
        if self.state in OVER:
            return "room_not_live", {"state": self.state}
        sale = self.sales.get(sale_id)
        if sale is None:
            return "not_found", {}
        self._end(sale)
        return "ok", self.sale_body(sale, now)

    def _end(self, sale: Sale) -> None:
        if not sale.ended:
            sale.ended = True
            self.facts.append(("seckill.ended", sale.sale))

    def tick(self, sale_id: str, now: int) -> str:
        """Give overdue holds back, announce the end. Returns whether to look again."""
        sale = self.sales.get(sale_id)
        if sale is None:
            return "not_found"
        if self._reap(sale, now, REAPED_BY_TICK):
            self._after(sale)
        if now >= sale.ends_at or self.state in OVER:
            self._end(sale)
        return "done" if sale.ended and not sale.held else "again"

    def sale_body(self, sale: Sale, now: int) -> Map:
        """Return the sale as it travels, without `eligible`."""
        if sale.ended or now >= sale.ends_at:
            state = "ended"
        elif sale.left == 0:
            state = "sold_out"
        else:
            state = "scheduled" if now < sale.starts_at else "open"
        return {
            "sale": sale.sale, "item": sale.item, "price_cents": sale.price, "stock": sale.stock,
            "per_viewer": sale.per_viewer, "starts_at": sale.starts_at, "ends_at": sale.ends_at,
            "hold_s": sale.hold_ms // 1_000, "state": state,
        }  # fmt: skip

    # --- red packets ---------------------------------------------------------------------------------------

    def send(self, packet: Packet, now: int) -> str:
        """Put money into the room. Returns the code."""
        if self.state in OVER:
            return "room_not_live"
        if packet.packet in self.packets:
            return "conflict"
        lasts = packet.expires_at - packet.opens_at
        packet.opens_at = max(packet.opens_at, now)
        packet.expires_at = packet.opens_at + lasts
        packet.total, packet.shares = sum(packet.parts), len(packet.parts)
        self.packets[packet.packet] = packet
        self.facts.append(("redpacket.opened", packet.packet))
        return "ok"

    def grabs(self, packet_id: str, grabs: list[tuple[Who, str, str]], now: int) -> list[Said]:
        """Grab for (viewer, key, fingerprint) each, in order and at one moment."""
        packet = self.packets.get(packet_id)
        if packet is None:
            missing: Said = ("not_found", {})
            return [
                self._recall(who.viewer, "redpacket.grab", key, fingerprint) or missing
                for who, key, fingerprint in grabs
            ]
        refusal: Said | None = None
        if len(packet.grabs) == packet.shares:
            refusal = ("empty", {})
        elif packet.closed or now >= packet.expires_at or self.state in OVER:
            refusal = ("ended", {})
        elif self.state == "scheduled":
            refusal = ("room_not_live", {"state": "scheduled"})
        elif now < packet.opens_at:
            refusal = ("not_started", {"starts_at": packet.opens_at, "now": now})
        said = [self._grab(packet, *grab, now, refusal) for grab in grabs]
        if not packet.closed and len(packet.grabs) == packet.shares:
            self._settle_packet(packet)
        return said

    def _grab(
        self, packet: Packet, who: Who, key: str, fingerprint: str, now: int, refusal: Said | None
    ) -> Said:
        known = self._recall(who.viewer, "redpacket.grab", key, fingerprint)
        if known is not None:
            return known
        if who.viewer in packet.grabs:
            return "ok", {"amount_cents": packet.grabs[who.viewer], "again": True}
        if refusal is not None:
            return refusal
        if not self._eligible(packet.gates, who, now):
            return "not_eligible", {}
        if not packet.parts:
            return "empty", {}
        cents = packet.grabs[who.viewer] = packet.parts.pop(0)
        if packet.best is None or cents > packet.best[1]:
            packet.best = (who.viewer, cents)
        self.grants.append((packet.packet, who.viewer, cents))
        body = {"amount_cents": cents, "again": False}
        self.remembered[who.viewer, "redpacket.grab", key] = (fingerprint, body)
        return "ok", body

    def _settle_packet(self, packet: Packet) -> None:
        packet.closed = True
        packet.refunded = sum(packet.parts)
        packet.parts.clear()
        if packet.refunded:
            self.grants.append((packet.packet, None, packet.refunded))
        self.facts.append(("redpacket.closed", (packet.packet, packet.granted, packet.refunded, packet.best)))

    def cancel_packet(self, packet_id: str) -> str:
        """Stop grabs and refund what is left. Returns the code."""
        if self.state in OVER:
            return "room_not_live"
        packet = self.packets.get(packet_id)
        if packet is None:
            return "not_found"
        if not packet.closed:
            self._settle_packet(packet)
        return "ok"

    def tick_packet(self, packet_id: str, now: int) -> str:
        """Settle a packet that is due. Returns whether to look again."""
        packet = self.packets.get(packet_id)
        if packet is None:
            return "not_found"
        if not packet.closed and (now >= packet.expires_at or self.state in OVER):
            self._settle_packet(packet)
        return "done" if packet.closed else "again"

    # --- the share board -------------------------------------------------------------------------------------

    def join(self, viewer: str, inviter: str | None, flaw: str, now: int) -> None:
        """Let a viewer in, through a link if there is an inviter or a flaw."""
        first = viewer not in self.joined_at
        self.joined_at.setdefault(viewer, now)
        if (inviter is None and not flaw) or self.state in OVER:
            return
        reason = self._flaw_of(viewer, inviter, flaw, first)
        self.records.append((None if flaw == "forged" else inviter, viewer, reason))
        if reason is None:
            assert inviter is not None
            self.inviter_of[viewer] = inviter
            self.brought[inviter] += 1
            self._clock += 1
            self.reached[inviter] = self._clock

    def _flaw_of(self, viewer: str, inviter: str | None, flaw: str, first: bool) -> str | None:
        if flaw:
            return flaw
        if inviter == viewer:
            return "self"
        if not first:
            return "again" if viewer in self.inviter_of else "already_here"
        up = inviter
        while up is not None:
            up = self.inviter_of.get(up)
            if up == viewer:
                return "cycle"
        return None

    def board(self) -> list[tuple[str, int]]:
        """Return the board: the most first, of equals whoever got there first."""
        standing = sorted(self.reached, key=lambda inviter: (-self.brought[inviter], self.reached[inviter]))
        return [(inviter, self.brought[inviter]) for inviter in standing]

    # --- the room --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin to close."""
        self.state = "closing"
        self.facts.append(("room.state", "closing"))

    def settle(self, now: int) -> str:
        """Settle what is open and leave `closing` once nothing is. Returns what became of it."""
        for packet in self.packets:
            self.tick_packet(packet, now)
        for sale in self.sales:
            self.tick(sale, now)
        if self.state != "closing":
            return "not_closing"
        if any(sale.held for sale in self.sales.values()):
            return "open"
        self.state = "closed"
        self.facts.append(("room.state", "closed"))
        return "closed"
