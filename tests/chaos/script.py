"""
What the crowd of one trial does, decided before it starts.

Merges three plans of the load test into one: a sale with claims, repeats and cut connections, red packets, and a
console that changes the room. All have the same viewers. Decides when the fault strikes, too: in the first half of
the sale, while claims come evenly. The same shape and seed give the same plan and the same moment.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from loadtest import planners
from loadtest.arrivals import US_PER_S, stream
from loadtest.plan import SETTLE_US, Plan
from loadtest.scenario import Scenario
from loadtest.sections import Comments, Drain, Facts, Likes, RedPacket, Seckill, Shares, Viewers

#: Seconds between the announcement of the sale and its start, and from its end to the end of its claims.
NOTICE_S: Final = 1.0
OVER_S: Final = 1.0
#: Selling time besides the fault's own length (seconds).
SALE_S: Final = 8.0
#: Where in the undisturbed part of the sale the fault strikes.
MOMENT: Final = (0.1, 0.35)
#: Of the viewers: those who grab, and shares per grabber.
GRABBERS: Final = 0.5
#: What the console does that can be lost without making what follows it wrong.
_INDEPENDENT: Final = frozenset({"notice.set", "item.put"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How big a trial is."""

    viewers: int = 150
    #: How long the fault lasts; the sale is longer by this (seconds).
    fault_s: float = 0.0
    #: Seconds a unit is held unpaid.
    hold_s: int = 5
    #: Of the viewers: those who pay.
    pay_ratio: float = 0.4
    #: Units on sale for each viewer.
    stock_per_viewer: float = 0.6
    #: Of the claims and grabs likely to win: those whose connection the viewer cuts.
    cut_share: float = 0.03
    #: How long unanswered commands are waited for in the end (seconds).
    patience_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Script:
    """A plan and the moment of its fault (seconds after the start)."""

    plan: Plan
    moment_s: float


def write(shape: Shape, seed: int, name: str) -> Script:
    """Return the script of the trial called `name` under `seed`."""
    rng = stream(seed, f"chaos.{name}")
    # Handshakes and joins of a crowd take their time on a small machine; 400 a second leave room for the rest.
    ramp_s = max(1.5, shape.viewers / 400)
    start_s = ramp_s + SETTLE_US / US_PER_S + NOTICE_S
    moment_s = start_s + SALE_S * rng.uniform(*MOMENT)
    sale_s = SALE_S + shape.fault_s
    grabbers = max(4, int(shape.viewers * GRABBERS))
    scenario = Scenario(
        name=f"chaos {name}",
        plays="seckill",
        seconds=start_s - ramp_s + sale_s + OVER_S,
        viewers=Viewers(count=shape.viewers, ramp_s=ramp_s),
        comments=Comments(per_s=10),
        likes=Likes(per_s=100),
        facts=Facts(per_s=0),
        shares=Shares(via_ratio=0.2, forged_ratio=0.01),
        seckill=Seckill(
            stock=max(1, int(shape.viewers * shape.stock_per_viewer)),
            claims=int(shape.viewers * 1.6),
            hold_s=shape.hold_s,
            notice_s=NOTICE_S,
            # The rest come until after the end, and are told so.
            burst_s=sale_s - 0.5,
            burst_share=0.95,
            cut_share=shape.cut_share,
            over_s=OVER_S,
            pay_ratio=shape.pay_ratio,
        ),
        redpacket=RedPacket(
            packets=1,
            shares=max(2, int(grabbers * 0.6)),
            total_cents=max(100, grabbers * 60),
            grabbers=grabbers,
            # The stampede for the first one is under way when the fault strikes; the other expires after it.
            notice_s=moment_s - 0.3 - ramp_s - 1,
            every_s=shape.fault_s + 2.5,
            burst_s=1,
            cut_share=shape.cut_share,
            expire_one=True,
            expires_s=3,
        ),
        drain=Drain(deadline_s=shape.patience_s),
    )
    quiet: dict[str, Any] = {"comments": Comments(per_s=0), "likes": Likes(per_s=0)}
    sale = planners.make(scenario, seed)
    packets = planners.make(msgspec.structs.replace(scenario, plays="redpacket", **quiet), seed)
    changes = planners.make(
        msgspec.structs.replace(scenario, plays="crowd", facts=Facts(per_s=2), **quiet), seed
    )
    steps = [step for step in sale.steps if step.command.get("cmd") != "share.rank"]
    steps += [step for step in packets.steps if step.verb != "join"]
    steps += [step for step in changes.steps if step.command.get("cmd") in _INDEPENDENT]
    steps.sort(key=lambda step: step.at_us)
    end_us = max(sale.end_us, packets.end_us, changes.end_us)
    plan = Plan(scenario, seed, sale.actors, steps, end_us, int(moment_s * US_PER_S))
    return Script(plan, moment_s)
