"""
A small sale, two red packets and a share board as values: four viewers, two units, one of which comes back.

Everything in it is consistent. Tests change one thing and ask the judges what is wrong. The store's clock is `T0` ahead
of the run's, and known to half a millisecond.
"""

from array import array
from collections.abc import Iterable
from typing import Any

from loadtest import conservation
from loadtest.findings import Findings
from loadtest.history import (
    Clock,
    Dump,
    Frame,
    GrabSeen,
    History,
    JoinedSeen,
    OrderSeen,
    Outcome,
    PacketSeen,
    Payment,
    ProcessHistory,
    Seen,
    StockSeen,
    ViewerHistory,
    digest,
)
from loadtest.plan import FORGED, Actor, Plan, Step
from loadtest.scenario import Scenario

RUN = "s1t2"
ROOM = "load-s1t2"
SALE = f"{RUN}-sale"
FULL, HALF = f"{RUN}-p1", f"{RUN}-p2"
T0 = 1_795_000_000_000
CLOCK = Clock(T0 * 1000, 500)

STARTS_AT, ENDS_AT = T0 + 10, T0 + 5000
HOLD_S = 1
PRICE = 4900
OPENS_AT, EXPIRES_AT = T0 + 10, T0 + 3000

ME = [f"{RUN}-console", *(f"{RUN}-v{number}" for number in range(1, 5))]


def order(name: str, viewer: int, held_ms: int, status: str, **more: Any) -> dict[str, Any]:
    """Return one change of an order, held `held_ms` after `T0`."""
    return {
        "order": name,
        "sale": SALE,
        "item": f"{RUN}-i0",
        "viewer": ME[viewer],
        "qty": 1,
        "price_cents": PRICE,
        "amount_cents": PRICE,
        "status": status,
        "held_at": T0 + held_ms,
        "pay_by": T0 + held_ms + HOLD_S * 1000,
    } | more


def won(name: str, held_ms: int, left: int, **more: Any) -> dict[str, Any]:
    return {
        "order": name,
        "status": "held",
        "pay_by": T0 + held_ms + HOLD_S * 1000,
        "stock_left": left,
    } | more


class ACampaign:
    """The run, open to changes."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []
        self._joins()
        self._claims()
        self._grabs()
        rank = {"top": [{"viewer": ME[1], "name": "x", "count": 1}], "me": {"rank": None, "count": 0}}
        self.rank = self.ask(0, {"cmd": "share.rank"}, 6_000_000, 6_001_000, "ok", rank)
        self.events: list[dict[str, Any]] = [
            {
                "ev": "seckill.scheduled",
                "seq": 1,
                "at": T0 + 1,
                "sale": SALE,
                "item": f"{RUN}-i0",
                "price_cents": PRICE,
                "stock": 2,
                "per_viewer": 1,
                "starts_at": STARTS_AT,
                "ends_at": ENDS_AT,
                "hold_s": HOLD_S,
                "state": "scheduled",
            },
            self.opened(2, FULL, 100, "lucky"),
            self.opened(3, HALF, 10, "even"),
            {
                **self.opened(4, FULL, 100, "lucky"),
                "ev": "redpacket.closed",
                "at": T0 + 25,
                "granted_cents": 100,
                "refunded_cents": 0,
                "grabbed": 2,
                "best": {"viewer": ME[1], "name": "x", "amount_cents": 60},
            },
            {
                **self.opened(5, HALF, 10, "even"),
                "ev": "redpacket.closed",
                "at": EXPIRES_AT + 1,
                "granted_cents": 5,
                "refunded_cents": 5,
                "grabbed": 1,
                "best": {"viewer": ME[1], "name": "x", "amount_cents": 5},
            },
        ]
        self.orders = [
            order("o-1", 1, 11, "held"),
            order("o-2", 2, 12, "held"),
            order("o-1", 1, 11, "paid", payment_id="pay-1"),
            order("o-2", 2, 12, "expired"),
            order("o-3", 3, 1100, "held"),
        ]
        self.payments = [self.payment("o-1", "pay-1"), self.payment("o-1", "pay-1")]
        self.audit: dict[str, Any] = {
            "holds": True,
            "sales": {SALE: {"stock": 2, "left": 0, "held": 1, "sold": 1, "holds": True}},
            "packets": {
                FULL: self.audited(100, 100, 0, 2),
                HALF: self.audited(10, 5, 5, 1),
            },
        }
        self.stats: dict[str, Any] = {
            "orders": {"held": 1, "paid": 1, "cancelled": 0, "expired": 1, "refunded": 0},
            "sold_cents": PRICE,
            "shares": 1,
        }
        self.shares: list[dict[str, Any]] = [
            {"at": T0 + 2, "inviter": ME[1], "invitee": ME[2], "counted": True},
            {"at": T0 + 3, "inviter": None, "invitee": ME[3], "counted": False, "reason": "forged"},
        ]
        #: Actor → what that viewer was told alone, with the moment in microseconds.
        self.told: dict[int, list[tuple[int, Seen]]] = {
            2: [
                (19_000, JoinedSeen("e", 3, True, "", 0, [], -1, 0, ME[2], T0 + 19, ["o-2"], {})),
                (1_013_000, OrderSeen("o-2", ME[2], digest(self.orders[3]))),
                (2_000_000, JoinedSeen("e", 3, True, "", 0, [], -1, 0, ME[2], T0 + 2000, [], {FULL: 40})),
            ],
            1: [(12_500, OrderSeen("o-1", ME[1], digest(self.orders[0]))), (21_500, GrabSeen(FULL, 60))],
        }
        self.gauges: list[Seen] = [StockSeen(SALE, 1, 1, 0), StockSeen(SALE, 0, 1, 1), PacketSeen(FULL, 1, 1)]

    @staticmethod
    def opened(seq: int, packet: str, total: int, split: str) -> dict[str, Any]:
        return {
            "ev": "redpacket.opened",
            "seq": seq,
            "at": T0 + 1,
            "packet": packet,
            "total_cents": total,
            "shares": 2,
            "split": split,
            "min_cents": 1,
            "opens_at": OPENS_AT,
            "expires_at": EXPIRES_AT,
            "state": "scheduled",
        }

    @staticmethod
    def audited(total: int, granted: int, refunded: int, grabbed: int) -> dict[str, Any]:
        return {
            "total_cents": total,
            "granted_cents": granted,
            "left_cents": total - granted - refunded,
            "refunded_cents": refunded,
            "shares": 2,
            "grabbed": grabbed,
            "holds": True,
        }

    @staticmethod
    def payment(order: str, payment: str, code: str = "ok") -> Payment:
        return Payment(
            order=order, payment=payment, amount_cents=PRICE, sent_us=500_000, done_us=501_000, code=code
        )

    def ask(
        self,
        actor: int,
        command: dict[str, Any],
        sent_us: int,
        done_us: int,
        code: str,
        said: dict[str, Any] | None = None,
    ) -> Outcome:
        """Add a step and how it ended."""
        self.steps.append(Step(sent_us, actor, "send", command))
        outcome = Outcome(
            len(self.steps) - 1, command["cmd"], code, sent_us, sent_us, done_us, asked_us=sent_us
        )
        outcome.said = said or {}
        outcome.definite = code not in ("unanswered", "outcome_unknown")
        self.outcomes.append(outcome)
        return outcome

    def claim(
        self, actor: int, key: str, sent_us: int, done_us: int, code: str, said: dict[str, Any] | None = None
    ) -> Outcome:
        command = {"cmd": "seckill.claim", "sale": "{run}-sale", "key": f"{{run}}-{key}"}
        return self.ask(actor, command, sent_us, done_us, code, said)

    def grab(
        self,
        actor: int,
        packet: int,
        sent_us: int,
        done_us: int,
        code: str,
        said: dict[str, Any] | None = None,
    ) -> Outcome:
        command = {
            "cmd": "redpacket.grab",
            "packet": f"{{run}}-p{packet}",
            "key": f"{{run}}-g{actor}-{packet}",
        }
        return self.ask(actor, command, sent_us, done_us, code, said)

    def _joins(self) -> None:
        for actor, via in ((0, None), (1, None), (2, 1), (3, FORGED), (4, None)):
            self.steps.append(Step(0, actor, "join", {} if via is None else {"via": via}))
            outcome = Outcome(len(self.steps) - 1, "room.join", "ok", 0, 0, 100)
            if via is not None:
                outcome.said = {"via": "?" if via == FORGED else ME[via]}
            self.outcomes.append(outcome)

    def _claims(self) -> None:
        early = {"starts_at": STARTS_AT, "now": T0 + 2}
        self.early = self.claim(1, "a", 2_000, 3_000, "not_started", early)
        self.first = self.claim(1, "a", 11_000, 12_000, "ok", won("o-1", 11, 1))
        self.repeated = self.claim(1, "a", 13_000, 13_500, "ok", won("o-1", 11, 1))
        self.again = self.claim(1, "b", 14_000, 14_500, "ok", won("o-1", 11, 1, again=True))
        # Cut after sending, asked again on return.
        self.cut = self.claim(2, "c", 12_000, 20_000, "ok", won("o-2", 12, 0))
        self.cut.tries, self.cut.asked_us = 2, 19_500
        self.sold_out = self.claim(3, "d", 21_000, 22_000, "sold_out", {"final": False})
        self.late = self.claim(3, "d2", 1_100_000, 1_101_000, "ok", won("o-3", 1100, 0))
        self.ended = self.claim(4, "e", 5_100_000, 5_101_000, "ended")

    def _grabs(self) -> None:
        self.winner = self.grab(1, 1, 20_000, 21_000, "ok", {"amount_cents": 60, "again": False})
        self.other = self.grab(2, 1, 22_000, 23_000, "ok", {"amount_cents": 40, "again": False})
        self.empty = self.grab(3, 1, 24_000, 25_000, "empty")
        self.only = self.grab(1, 2, 30_000, 31_000, "ok", {"amount_cents": 5, "again": False})
        self.over = self.grab(2, 2, 3_100_000, 3_101_000, "ended")

    def forget(self, *outcomes: Outcome) -> None:
        """Take outcomes out of the record."""
        self.outcomes = [outcome for outcome in self.outcomes if outcome not in outcomes]

    def judged(self) -> Findings:
        """Return what the judges find."""
        frames: list[Frame] = []

        def frame(marks: Iterable[Seen], at_us: int, private: bool) -> int:
            frames.append(Frame(len(frames), list(marks), {at_us // 100: 1}, private))
            return frames[-1].number

        shared = [frame([mark], 1_000, False) for mark in self.gauges]
        viewers = []
        for actor, viewer in enumerate(ME):
            numbers = [*shared, *(frame([mark], at_us, True) for at_us, mark in self.told.get(actor, ()))]
            viewers.append(ViewerHistory(viewer, actor, array("I", numbers), [], True, True))
        actors = [Actor(viewer.removeprefix(f"{RUN}-"), "x", "viewer") for viewer in ME]
        scenario = Scenario(name="seckill", plays="seckill")
        plan = Plan(scenario, 1, actors, self.steps, 7_000_000)
        process = ProcessHistory(0, frames, viewers, self.outcomes, CLOCK)
        history = History(RUN, ROOM, 5, [process], self.payments)
        dump = Dump(ROOM, self.events, self.stats, {}, self.audit, self.orders, self.shares)
        found = Findings()
        conservation.check(plan, history, dump, found)
        return found
