"""
The judge of one sale: units, orders, claims and payments.

Decides what of I1 (stock) and I7 (one at a time) of `conservation.py` was broken, from the claims with their answers,
the changes of the orders, the audit and what the shop was told. Pure.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any, Final, NamedTuple

from loadtest.asks import ASIDE, OWNERS, SERIAL, STOCK, Ask, answers_of, first_sent_us, keyed, private
from loadtest.findings import Findings, SaleTally
from loadtest.history import Dump, History, JoinedSeen, OrderSeen, Payment, StockSeen, digest
from loadtest.linear import NEVER_US, OPERATIONS_MAX, Kind, Operation, linearisable

#: What an order may become.
_NEXT: Final = {
    "": {"held"},
    "held": {"paid", "cancelled", "expired"},
    "paid": {"refunded"},
    "cancelled": {"paid"},
    "expired": {"paid"},
    "refunded": set[str](),
}
_LIVE: Final = frozenset({"held", "paid"})
#: Fields of an order that never change.
_FROZEN: Final = (
    "order",
    "sale",
    "item",
    "viewer",
    "qty",
    "price_cents",
    "amount_cents",
    "held_at",
    "pay_by",
)


class _Line(NamedTuple):
    """One order, from its changes."""

    order: dict[str, Any]
    #: Places in the sale's list of changes at which it became live and ceased to be, in turn.
    turns: list[int]
    #: The statuses it went through.
    statuses: list[str]


class _Won(NamedTuple):
    """One order as a win: its place among the changes, and when it was asked for and first told."""

    place: int
    order: str
    viewer: str
    sent_us: int
    done_us: int


class Sales:
    """All sales of a run, their payments and totals."""

    def __init__(self, history: History, dump: Dump, found: Findings, asks: list[Ask]) -> None:
        self._history = history
        self._dump = dump
        self._found = found
        self._asks = asks
        #: Order → its last change, over all sales.
        self._last: dict[str, dict[str, Any]] = {}
        for change in dump.orders:
            self._last[change["order"]] = change

    def check(self) -> None:
        """Check every sale, then what is about all of them."""
        audited = self._dump.audit.get("sales", {})
        bodies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in self._dump.events:
            if event["ev"] in ("seckill.scheduled", "seckill.adjusted", "seckill.ended"):
                bodies[event["sale"]].append(event)
        claimed = {ask.target for ask in self._asks}
        for sale in sorted(bodies.keys() | audited.keys()):
            if not bodies[sale]:
                self._found.add(STOCK, f"sale {sale} was never announced by a fact")
                continue
            if sale not in audited:
                self._found.add(STOCK, f"sale {sale} is missing from the audit")
                continue
            asks = [ask for ask in self._asks if ask.target == sale]
            changes = [change for change in self._dump.orders if change["sale"] == sale]
            _Sale(self._found, self._history, sale, bodies[sale], asks, changes, audited[sale]).check()
        for order in self._last.values():
            if order["sale"] not in bodies:
                self._found.add(STOCK, f"order {order['order']} is of sale {order['sale']}, which never was")
        for sale in sorted(claimed - bodies.keys()):
            won = [ask for ask in self._asks if ask.target == sale and ask.code == "ok"]
            for ask in won:
                self._found.add(STOCK, f"won of sale {sale}, which the room does not have", ask.viewer)
        self._check_payments()
        self._check_private()
        if self._dump.audit:
            self._check_totals()

    def _check_payments(self) -> None:
        found = self._found
        answers: dict[str, Payment] = {}
        reported: defaultdict[str, set[str]] = defaultdict(set)
        for payment in self._history.payments:
            reported[payment.order].add(payment.payment)
            if not payment.definite:
                continue
            known = answers.setdefault(payment.payment, payment)
            if known.code != payment.code:
                found.add(STOCK, f"payment {payment.payment} was answered {known.code}, then {payment.code}")
            order = self._last.get(payment.order)
            if order is None:
                found.add(STOCK, f"payment {payment.payment} is for order {payment.order}, which is lost")
            elif payment.code == "ok" and order.get("payment_id") != payment.payment:
                found.add(
                    STOCK, f"payment {payment.payment} was taken, but order {payment.order} is not paid by it"
                )
            elif payment.code == "refund_required" and payment.payment not in order.get(
                "refund_required", []
            ):
                found.add(
                    STOCK, f"payment {payment.payment} is to be refunded, but its order does not say so"
                )
            elif payment.code not in ("ok", "refund_required"):
                found.add(STOCK, f"payment {payment.payment} of the right amount was refused: {payment.code}")
        for order in self._last.values():
            owed = order.get("refund_required", [])
            if len(set(owed)) != len(owed):
                found.add(STOCK, f"order {order['order']} requires one refund twice")
            paid = [*owed, *([order["payment_id"]] if "payment_id" in order else [])]
            for payment_id in paid:
                if payment_id not in reported[order["order"]]:
                    found.add(
                        STOCK, f"order {order['order']} has payment {payment_id}, which nobody reported"
                    )

    def _check_private(self) -> None:
        """What the holder of an order is told alone is that order, and a viewer who returns finds what they hold."""
        found = self._found
        changes = {digest(change) for change in self._dump.orders}
        told: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for ask in self._asks:
            if ask.code == "ok":
                told[ask.viewer].append((ask.done_us, str(ask.said.get("order"))))
        paid_us: dict[str, int] = {}
        for payment in self._history.payments:
            paid_us[payment.order] = min(payment.sent_us, paid_us.get(payment.order, NEVER_US))
        # Paid late, an order is live again; when it was given up in between, no record tells.
        cancelled = {change["order"] for change in self._dump.orders if change["status"] == "cancelled"}
        for viewer, at_us, mark in private(self._history):
            if isinstance(mark, OrderSeen):
                if mark.viewer != viewer:
                    found.add(OWNERS, f"was told of order {mark.order} of {mark.viewer}", viewer)
                if mark.digest not in changes:
                    found.add(STOCK, f"was told of a state of order {mark.order} that it never had", viewer)
            elif isinstance(mark, JoinedSeen):
                for done_us, name in told[viewer]:
                    order = self._last.get(name)
                    if order is None or done_us > at_us or name in mark.orders or name in cancelled:
                        continue
                    held = order["status"] == "held" or paid_us.get(name, 0) > at_us
                    if held and order["pay_by"] > mark.now:
                        found.add(STOCK, f"came back and did not find order {name}, which is held", viewer)

    def _check_totals(self) -> None:
        """The room's totals are those of its orders."""
        stats, found = self._dump.stats, self._found
        counted = Counter(order["status"] for order in self._last.values())
        for status, count in stats.get("orders", {}).items():
            if counted[status] != count:
                found.add(STOCK, f"the totals count {count} orders {status}, the orders {counted[status]}")
        cents = sum(order["amount_cents"] for order in self._last.values() if order["status"] == "paid")
        if stats.get("sold_cents", cents) != cents:
            found.add(STOCK, f"the totals say {stats['sold_cents']} cents sold, the orders {cents}")


class _Sale:
    """One sale."""

    def __init__(
        self,
        found: Findings,
        history: History,
        sale: str,
        bodies: list[dict[str, Any]],
        asks: list[Ask],
        changes: list[dict[str, Any]],
        audit: dict[str, Any],
    ) -> None:
        self._found = found
        self._history = history
        self._sale = sale
        self._body = bodies[0]
        self._asks = asks
        self._by_key = keyed(asks)
        self._changes = changes
        self._audit = audit
        #: Units may be added and taken away; then only the highest number is certain.
        self._stock_max = max(body["stock"] for body in bodies)
        self._steady = all(body["ev"] != "seckill.adjusted" for body in bodies)
        self._starts_at: int = self._body["starts_at"]
        ended = (body["at"] for body in bodies if body["ev"] == "seckill.ended")
        self._ends_at: int = min(self._body["ends_at"], *ended, self._body["ends_at"])
        self._lines: dict[str, _Line] = {}
        #: Units held or sold after each change; the first is before all of them.
        self._taken = [0]
        self._wins: list[_Won] = []
        #: When the first one was told of an order that is held to this day.
        self._stayed_us = NEVER_US
        self._tally = SaleTally(
            stock=audit["stock"], left=audit["left"], held=audit["held"], sold=audit["sold"], claims=len(asks)
        )

    def _add(self, message: str, viewer: str = "", invariant: str = STOCK) -> None:
        self._found.add(invariant, f"sale {self._sale}: {message}", viewer)

    def check(self) -> None:
        """Do everything once."""
        self._replay()
        self._check_audit()
        self._check_gauges()
        self._match()
        self._check_keys()
        for ask in self._asks:
            self._check_answer(ask)
        self._check_clock()
        self._check_witness()
        self._search()
        tally, history = self._tally, self._history
        tally.answers = answers_of(self._asks)
        tally.reasked = sum(ask.tries > 1 for ask in self._asks)
        tally.payments = sum(payment.order in self._lines for payment in history.payments)
        tally.refunds_required = sum(
            len(line.order.get("refund_required", [])) for line in self._lines.values()
        )
        self._found.sales[self._sale] = tally

    # --- the orders themselves ----------------------------------------------------------------------------

    def _replay(self) -> None:
        """Go through the changes: units, limits, and what an order may become."""
        units: Counter[str] = Counter()
        taken, body = 0, self._body
        for place, change in enumerate(self._changes, start=1):
            order, viewer, status, qty = change["order"], change["viewer"], change["status"], change["qty"]
            line = self._lines.get(order)
            before = line.statuses[-1] if line is not None else ""
            if status not in _NEXT[before] and status != before:
                self._add(f"order {order} went from {before or 'nothing'} to {status}", viewer)
            if line is None:
                line = self._lines[order] = _Line(dict(change), [], [])
                self._check_new(change)
            for field in _FROZEN:
                if change[field] != line.order[field]:
                    self._add(f"order {order} changed its {field}", viewer)
            was, now = before in _LIVE, status in _LIVE
            if was != now:
                line.turns.append(place)
                step = qty if now else -qty
                taken += step
                units[viewer] += step
                self._tally.returned += 0 if now else qty
                # Who pays late gets the units they paid for, whatever they hold by then.
                if status == "held" and units[viewer] > body["per_viewer"]:
                    self._add(f"holds {units[viewer]} units, the limit is {body['per_viewer']}", viewer)
            if taken > self._stock_max:
                self._add(f"{taken} units held and sold of {self._stock_max} with order {order}", viewer)
            self._taken.append(taken)
            line.statuses.append(status)
            line.order.update(change)

    def _check_new(self, order: dict[str, Any]) -> None:
        body, viewer, name = self._body, order["viewer"], order["order"]
        if order["held_at"] < self._starts_at:
            self._tally.early += order["qty"]
            self._add(
                f"order {name} was held {self._starts_at - order['held_at']} ms before the start", viewer
            )
        if order["held_at"] >= self._ends_at:
            self._add(f"order {name} was held {order['held_at'] - self._ends_at} ms after the end", viewer)
        if order["pay_by"] != order["held_at"] + body["hold_s"] * 1000:
            self._add(f"order {name} is not held for {body['hold_s']} s", viewer)
        if order["price_cents"] != body["price_cents"] or order["item"] != body["item"]:
            self._add(f"order {name} is not for {body['item']} at {body['price_cents']} cents", viewer)
        if order["amount_cents"] != order["price_cents"] * order["qty"] or order["qty"] < 1:
            self._add(f"order {name} is for {order['qty']} units and {order['amount_cents']} cents", viewer)

    def _check_audit(self) -> None:
        audit = self._audit
        units: Counter[str] = Counter()
        for line in self._lines.values():
            units[line.statuses[-1]] += line.order["qty"]
        for status, name in (("held", "held"), ("paid", "sold")):
            if audit[name] != units[status]:
                self._add(f"the audit counts {audit[name]} units {name}, the orders {units[status]}")
        if min(audit["left"], audit["held"], audit["sold"]) < 0:
            self._add("the audit counts units below zero")
        if audit["stock"] != audit["left"] + audit["held"] + audit["sold"] or audit.get("holds") is not True:
            self._add(
                f"{audit['left']} left + {audit['held']} held + {audit['sold']} sold are not {audit['stock']}"
            )
        # Units refunded without coming back leave the stock too.
        refunded = units["refunded"]
        if self._steady and not self._stock_max - refunded <= audit["stock"] <= self._stock_max:
            self._add(f"{self._stock_max} units were put on sale, the audit has {audit['stock']}")

    def _check_gauges(self) -> None:
        if not self._steady or any("refunded" in line.statuses for line in self._lines.values()):
            return
        for process in self._history.processes:
            for frame in process.frames:
                for mark in frame.marks:
                    if not isinstance(mark, StockSeen) or mark.sale != self._sale:
                        continue
                    if (
                        mark.left + mark.held + mark.sold != self._stock_max
                        or min(mark.left, mark.held, mark.sold) < 0
                    ):
                        self._add(
                            f"the gauge said {mark.left} left, {mark.held} held, {mark.sold} sold "
                            f"of {self._stock_max}"
                        )

    # --- orders and claims --------------------------------------------------------------------------------

    def _match(self) -> None:
        """Find the claim of every order: the one that was told of it, or one whose answer was lost."""
        told: defaultdict[str, list[Ask]] = defaultdict(list)
        again: defaultdict[str, list[Ask]] = defaultdict(list)
        unknown: defaultdict[str, list[Ask]] = defaultdict(list)
        for ask in self._asks:
            if ask.code == "ok":
                (again if ask.said.get("again") else told)[str(ask.said.get("order"))].append(ask)
            elif not ask.definite:
                unknown[ask.viewer].append(ask)
        for order in (told.keys() | again.keys()) - self._lines.keys():
            for ask in told[order] + again[order]:
                self._add(f"order {order} was acknowledged and is lost", ask.viewer)
        lost_keys = {viewer: {ask.key for ask in asks} for viewer, asks in unknown.items()}
        for name, line in self._lines.items():
            viewer, place = line.order["viewer"], line.turns[0] if line.turns else 0
            for ask in told[name] + again[name]:
                if ask.viewer != viewer:
                    self._add(f"order {name} of {viewer} was acknowledged to somebody else", ask.viewer)
            keys = {(ask.viewer, ask.key) for ask in told[name]}
            if len(keys) > 1:
                self._add(f"order {name} was acknowledged to {len(keys)} claims as theirs", viewer)
            first_told = min((ask.done_us for ask in told[name] + again[name]), default=NEVER_US)
            if keys:
                sent_us = min(first_sent_us(self._by_key[key]) for key in keys)
            elif lost_keys.get(viewer):
                self._tally.untold += 1
                sent_us = min(ask.sent_us for ask in unknown[viewer])
                # Each lost answer explains one order.
                lost_keys[viewer].pop()
            else:
                self._add(f"order {name} is nobody's attempt", viewer)
                continue
            if place:
                self._wins.append(_Won(place, name, viewer, sent_us, first_told))
        self._wins.sort()
        stayed = (won.done_us for won in self._wins if self._lines[won.order].statuses == ["held"])
        self._stayed_us = min(stayed, default=NEVER_US)

    def _check_keys(self) -> None:
        """The same key has the same answer, from the first win on."""
        for (viewer, key), asks in self._by_key.items():
            won = [ask for ask in asks if ask.code == "ok" and not ask.said.get("again")]
            for one, other in pairwise(won):
                if one.said != other.said:
                    self._add(f"key {key} was answered {one.said}, then {other.said}", viewer)
            if not won:
                continue
            for ask in asks:
                differs = ask.code != "ok" or ask.said.get("again")
                if differs and ask.definite and ask.asked_us > won[0].done_us and ask.code not in ASIDE:
                    self._add(f"key {key} had won, and was answered {ask.code} later", viewer)

    def _check_answer(self, ask: Ask) -> None:
        """Check one answer against the sale's times and the order it names."""
        viewer, said = ask.viewer, ask.said
        if ask.code == "ok":
            line = self._lines.get(str(said.get("order")))
            if line is None:
                return
            if said.get("pay_by") != line.order["pay_by"]:
                self._add(f"order {said['order']} was acknowledged with another pay_by", viewer)
            if not said.get("again"):
                place = line.turns[0] if line.turns else 0
                left = self._stock_max - self._taken[place]
                if self._steady and said.get("stock_left") != left:
                    self._add(
                        f"order {said['order']} was acknowledged with {said.get('stock_left')} left, "
                        f"its place says {left}",
                        viewer,
                    )
                if said.get("status") != "held":
                    self._add(f"order {said['order']} was won as {said.get('status')}", viewer)
        elif ask.code == "not_started":
            if said.get("starts_at") != self._starts_at or said.get("now", 0) >= self._starts_at:
                self._add(f"not_started was said at {said.get('now')} of {said.get('starts_at')}", viewer)
        elif ask.code == "sold_out" and said.get("final") and self._stayed_us < ask.asked_us:
            self._add("sold out for good was said while units were held", viewer)

    def _check_clock(self) -> None:
        """Before the start everybody is told so, after it nobody; the same for the end."""
        for ask in self._asks:
            if ask.code in ASIDE:
                continue
            if ask.code != "not_started" and ask.surely_before(self._starts_at):
                self._add(f"answered {ask.code} before the start", ask.viewer)
            if ask.code == "not_started" and ask.surely_after(self._starts_at, ask.asked_us):
                self._add("answered not_started after the start", ask.viewer)
            if ask.code == "ended" and ask.surely_before(self._ends_at):
                self._add("answered ended before the end", ask.viewer)
            # A repeated key is answered as it was, also when everything is over.
            first = first_sent_us(self._by_key[ask.viewer, ask.key])
            if ask.code == "ok" and not ask.said.get("again") and ask.surely_after(self._ends_at, first):
                self._add("won after the end", ask.viewer)
            if ask.code == "sold_out" and ask.surely_after(self._ends_at, ask.asked_us):
                self._add("answered sold_out after the end", ask.viewer)

    # --- one at a time ------------------------------------------------------------------------------------

    def _check_witness(self) -> None:
        """
        Check that the orders' own history explains every answer at some moment between asking and answering.

        A claim answered before another was asked stands before it; `sold_out` needs a place where nothing was left,
        `again` one where the viewer's order was live.
        """
        earliest_us = NEVER_US
        later = ""
        for won in reversed(self._wins):
            if earliest_us < won.sent_us:
                self._add(
                    f"order {won.order} was asked for after order {later} was answered, but stands before it",
                    won.viewer,
                    SERIAL,
                )
            if won.done_us < earliest_us:
                earliest_us, later = won.done_us, won.order
        by_done = sorted((won.done_us, won.place) for won in self._wins)
        by_sent = sorted((won.sent_us, won.place) for won in self._wins)
        highest, lowest = [0], [len(self._changes) + 1]
        for _, place in by_done:
            highest.append(max(highest[-1], place))
        for _, place in reversed(by_sent):
            lowest.append(min(lowest[-1], place))
        lowest.reverse()
        #: Places up to each at which nothing was left.
        full = [0]
        for taken in self._taken:
            full.append(full[-1] + (taken >= self._stock_max))
        done_at, sent_at = [done for done, _ in by_done], [sent for sent, _ in by_sent]
        for ask in self._asks:
            if ask.code != "sold_out" and not (ask.code == "ok" and ask.said.get("again")):
                continue
            first = highest[bisect_left(done_at, ask.asked_us)]
            last = lowest[bisect_right(sent_at, ask.done_us)] - 1
            if ask.code == "sold_out":
                asked = bisect_left(sent_at, ask.done_us)
                if self._steady and asked + self._tally.untold < self._stock_max:
                    self._add(
                        f"answered sold_out when only {asked} of {self._stock_max} wins had been asked for",
                        ask.viewer,
                    )
                elif self._steady and full[last + 1] <= full[first]:
                    self._add("answered sold_out while units were left", ask.viewer, SERIAL)
            else:
                line = self._lines.get(str(ask.said.get("order")))
                if line is not None and not _live_within(line.turns, first, last):
                    self._add(
                        f"answered again with order {ask.said['order']}, which was not live",
                        ask.viewer,
                        SERIAL,
                    )

    def _search(self) -> None:
        """Look for an order that explains all answers, without the orders' own history, if that is short enough."""
        operations = [Operation("won", won.viewer, won.sent_us, won.done_us) for won in self._wins]
        orders = {won.order: won for won in self._wins}
        kinds: dict[str, Kind] = {"sold_out": "nothing_left", "limit_reached": "limit"}
        for ask in self._asks:
            if ask.code == "ok" and ask.said.get("again"):
                operations.append(Operation("again", ask.viewer, ask.asked_us, ask.done_us))
            elif ask.code in kinds:
                operations.append(Operation(kinds[ask.code], ask.viewer, ask.asked_us, ask.done_us))
            if len(operations) > OPERATIONS_MAX:
                return
        for name, line in self._lines.items():
            if name not in orders or "refunded" in line.statuses or line.statuses[-2:] == ["expired", "paid"]:
                return
            if line.statuses[-1] in ("expired", "cancelled"):
                operations.append(Operation("back", line.order["viewer"], orders[name].sent_us, NEVER_US))
        if not self._steady or any(line.order["qty"] != 1 for line in self._lines.values()):
            return
        explained = linearisable(self._stock_max, self._body["per_viewer"], operations)
        self._tally.searched = explained is not None
        if explained is False:
            self._add("no order of single claims explains the answers", invariant=SERIAL)


def _live_within(turns: list[int], first: int, last: int) -> bool:
    """Tell whether an order that became live and ceased to be at these places was live somewhere in [first, last]."""
    spans = [*turns, NEVER_US] if len(turns) % 2 else turns
    return any(begin <= last and first < end for begin, end in zip(spans[::2], spans[1::2], strict=True))
