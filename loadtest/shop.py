"""
The shop of a run: learns of orders by pulling them, and reports payments.

Decides who pays, when, and how a payment whose outcome is unknown is repeated: with the same payment id, until there is
an answer. Some payments are reported twice on purpose, some after the hold has ended. Does not judge the answers
(`conservation.py`); it records them.

Who pays follows from the seed and the viewer, so that two runs of one plan pay for the same viewers. Bounds: one task
per payment under way, at most one per order.
"""

import asyncio
import time
from typing import Any, Final

from loadtest.api import ApiError, MerchantApi, Refused
from loadtest.arrivals import stream
from loadtest.history import Payment
from loadtest.plan import Plan
from loadtest.sections import Sale

POLL_S: Final = 0.2
#: Seconds after the hold in which somebody pays who pays in time, at most half of the hold.
PAY_DELAY_S: Final = (0.1, 1.5)
#: Seconds after the hold has ended, for those who pay late.
PAY_LATE_S: Final = (0.2, 1.0)
REPEAT_ONE_IN: Final = 5
RETRY_S: Final = 0.3
#: Answers that leave open what happened, or ask for patience.
_AGAIN: Final = frozenset({"outcome_unknown", "unavailable", "overloaded"})


class Shop:
    """Pays for a part of the viewers. `payments` is what was reported so far."""

    def __init__(self, api: MerchantApi, plan: Plan, run: str, room: str) -> None:
        self._api = api
        self._plan = plan
        self._run = run
        self._room = room
        self._started_s = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._open = True
        #: Sales of a show by their name; without one, the scenario has a single sale.
        self._sales = {
            name: moment for name, moment in plan.scenario.moments.items() if isinstance(moment, Sale)
        }
        self.payments: list[Payment] = []

    def open(self, started_s: float) -> None:
        """Begin; `started_s` is the start of the run on `time.monotonic()`. Without anybody who pays, do nothing."""
        self._started_s = started_s
        sales = [self._plan.scenario.seckill, *self._sales.values()]
        if any(sale.pay_ratio for sale in sales):
            self._polling = asyncio.create_task(self._poll())

    async def close(self, timeout_s: float) -> None:
        """
        Take no more orders; wait for the payments under way, `timeout_s` at most.

        Those that have no answer then stay "unanswered".
        """
        self._open = False
        if self._polling is not None:
            await self._polling
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _poll(self) -> None:
        after = ""
        while self._open:
            try:
                orders, after = await self._api.orders(self._room, after)
            except ApiError:
                # The server is away; the cursor stands where it was.
                orders = []
            for order in orders:
                if order["status"] == "held" and order["order"] not in self._tasks:
                    self._meet(order)
            await asyncio.sleep(POLL_S)

    def _meet(self, order: dict[str, Any]) -> None:
        sale = self._sales.get(
            str(order.get("sale", "")).removeprefix(f"{self._run}-"), self._plan.scenario.seckill
        )
        rng = stream(self._plan.seed, f"pay.{str(order['viewer']).removeprefix(f'{self._run}-')}")
        if rng.random() >= sale.pay_ratio:
            return
        late, repeats = rng.random() < sale.pay_late_ratio, rng.randrange(REPEAT_ONE_IN) == 0
        first, last = PAY_DELAY_S
        delay_s = rng.uniform(first, min(last, max(first, sale.hold_s / 2)))
        if late:
            delay_s = sale.hold_s + rng.uniform(*PAY_LATE_S)
        if delay_s > self._plan.end_us / 1e6:
            # Nobody waits that long; they are among those who never pay.
            return
        self._tasks[order["order"]] = asyncio.create_task(self._pay(order, delay_s, 2 if repeats else 1))

    async def _pay(self, order: dict[str, Any], delay_s: float, times: int) -> None:
        await asyncio.sleep(delay_s)
        for _ in range(times):
            payment = Payment(
                order=order["order"],
                payment=f"{self._run}-{order['order']}"[:64],
                amount_cents=order["amount_cents"],
                sent_us=self._now_us(),
                done_us=0,
                code="unanswered",
            )
            self.payments.append(payment)
            while payment.code == "unanswered":
                await self._report(payment)

    async def _report(self, payment: Payment) -> None:
        """Report a payment once; without a definite answer, leave it unanswered and wait a little."""
        try:
            said = await self._api.pay(payment.order, payment.payment, payment.amount_cents)
            payment.said = said
            payment.code = "refund_required" if said.get("refund_required") is True else "ok"
        except Refused as refusal:
            if refusal.code in _AGAIN:
                await asyncio.sleep(RETRY_S)
                return
            payment.code = refusal.code
        except ApiError:
            await asyncio.sleep(RETRY_S)
            return
        payment.done_us = self._now_us()

    def _now_us(self) -> int:
        return int((time.monotonic() - self._started_s) * 1_000_000)
