"""`loadtest/shop.py`: who pays follows from the seed; a payment is repeated with its id until there is an answer."""

import asyncio
import time
from typing import Any, cast

import pytest

from loadtest import shop as shops
from loadtest.api import ApiError, MerchantApi, Refused
from loadtest.planners import make
from loadtest.scenario import load
from loadtest.shop import Shop


class Counter:
    """A merchant API that has some orders and answers payments as told."""

    def __init__(self, viewers: int, answers: list[dict[str, Any] | Exception]) -> None:
        self.changes = [
            {"order": f"o-{number}", "viewer": f"run1-v{number}", "status": "held", "amount_cents": 100}
            for number in range(1, viewers + 1)
        ]
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.pulled = asyncio.Event()

    async def orders(self, room: str, after: str) -> tuple[list[dict[str, Any]], str]:
        self.pulled.set()
        return self.changes[int(after or 0) :], str(len(self.changes))

    async def pay(self, order: str, payment: str, amount_cents: int) -> dict[str, Any]:
        self.asked.append((order, payment))
        answer = self.answers.pop(0) if self.answers else {"order": order, "status": "paid"}
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shops, "PAY_DELAY_S", (0.0, 0.001))
    monkeypatch.setattr(shops, "POLL_S", 0.001)
    monkeypatch.setattr(shops, "RETRY_S", 0.001)


async def paid(viewers: int, ratio: float, *answers: dict[str, Any] | Exception) -> tuple[Shop, Counter]:
    numbers = {
        "viewers.count": 100,
        "seckill.claims": 100,
        "seckill.pay_ratio": ratio,
        "seckill.pay_late_ratio": 0,
    }
    counter = Counter(viewers, list(answers))
    shop = Shop(cast(MerchantApi, counter), make(load("seckill", numbers), 3), "run1", "room")
    shop.open(time.monotonic())
    if ratio:
        await counter.pulled.wait()
    await shop.close(5)
    return shop, counter


@pytest.mark.usefixtures("_quick")
async def test_same_seed_pays_for_the_same_viewers_and_some_twice() -> None:
    shop, counter = await paid(40, 0.5)
    again, _ = await paid(40, 0.5)

    orders = {payment.order for payment in shop.payments}
    assert 10 < len(orders) < 30
    assert {payment.order for payment in again.payments} == orders
    assert len(shop.payments) > len(orders)
    assert len(set(counter.asked)) == len(orders)
    assert {payment.code for payment in shop.payments} == {"ok"}


@pytest.mark.usefixtures("_quick")
async def test_payment_without_an_answer_is_reported_again_with_its_id() -> None:
    lost = ApiError("POST: ServerDisconnectedError")
    shop, counter = await paid(1, 1, lost, Refused("outcome_unknown", "maybe"))

    assert {payment.code for payment in shop.payments} == {"ok"}
    assert len(set(counter.asked)) == 1
    assert len(counter.asked) == 2 + len(shop.payments)


@pytest.mark.usefixtures("_quick")
async def test_refusals_and_refunds_are_recorded() -> None:
    shop, _ = await paid(1, 1, Refused("conflict", "wrong amount"))
    assert shop.payments[0].code == "conflict"

    shop, _ = await paid(1, 1, {"order": "o-1", "refund_required": True})
    assert shop.payments[0].code == "refund_required"


async def test_without_payers_the_shop_stays_closed() -> None:
    shop, counter = await paid(5, 0)

    assert shop.payments == []
    assert counter.asked == []
