"""
Sales and red packets, and the rush for them.

Decides who claims and grabs when, with which keys, and whose connection is cut while they wait. Does not decide who is
there (`audience.py`). Pure.
"""

import random
from collections.abc import Iterator
from typing import Any, Final

from loadtest.arrivals import US_PER_S, Allowances, stream
from loadtest.audience import Audience
from loadtest.plan import CONSOLE, MAIN_ROOM, SETTLE_US, Step
from loadtest.scenario import ScenarioError
from loadtest.sections import Packets, RedPacket, Sale, Seckill
from loadtest.talk import Cue

#: A connection may send 50 commands per second with a burst of 100; the plan leaves room for what is asked again.
COMMANDS_PER_S: Final = 30
COMMANDS_BURST: Final = 40
#: Moments between sending and cutting the connection, microseconds: before, around and after the answer.
CUTS_US: Final = (0, 0, 1_000, 5_000, 20_000)
#: A shot this close to the start may be decided after it, however right the clocks are.
EARLY_MARGIN_US: Final = 100_000
#: Late grabs of a packet that has expired.
LATE_GRABS_MAX: Final = 20


def sale_cues(sale: Seckill | Sale, name: str, announced_us: int, over_us: int) -> list[Cue]:
    """Return what the console does for a sale called `name`: put its item up, announce the sale."""
    starts_us = announced_us + int(sale.notice_s * US_PER_S)
    item = f"{{run}}-{name}-item"
    put = {
        "cmd": "item.put",
        "item": item,
        "title": "明前龙井 50 g",
        "price_cents": sale.price_cents * 2,
    }
    schedule = {
        "cmd": "seckill.schedule",
        "sale": f"{{run}}-{name}",
        "item": item,
        "price_cents": sale.price_cents,
        "stock": sale.stock,
        "per_viewer": sale.per_viewer,
        "starts_at": f"{{at:{starts_us}}}",
        "ends_at": f"{{at:{over_us}}}",
        "hold_s": sale.hold_s,
    }
    return [
        Cue(max(0, announced_us - SETTLE_US // 2), "send", command=put),
        Cue(announced_us, "send", command=schedule),
    ]


def claims(
    sale: Seckill | Sale,
    name: str,
    keys: str,
    seed: int,
    audience: Audience,
    announced_us: int,
    until_us: int,
) -> Iterator[Step]:
    """
    Yield the claims of one sale, until `until_us`, and the cuts that follow some of them.

    Args:
        sale: Its numbers.
        name: The sale's id without the run's tag; also names the source of chance.
        keys: Letters that tell the keys of this sale from those of others.
        seed: The plan's.
        audience: Who may claim.
        announced_us: When viewers learn of it.
        until_us: When the last straggler claims, after its end.

    Raises:
        ScenarioError: If the viewers may not claim that often within the server's limits.
    """
    starts_us, burst_us = announced_us + int(sale.notice_s * US_PER_S), int(sale.burst_s * US_PER_S)
    moments = stream(seed, f"{name}.claims")
    early, burst = round(sale.claims * sale.early_share), round(sale.claims * sale.burst_share)
    early_us = announced_us + min(SETTLE_US, (starts_us - announced_us) // 2)
    at = [moments.randrange(early_us, max(early_us + 1, starts_us - EARLY_MARGIN_US)) for _ in range(early)]
    at += [starts_us + moments.randrange(burst_us) for _ in range(burst)]
    stragglers = max(0, sale.claims - early - burst)
    at += [moments.randrange(starts_us + burst_us, until_us) for _ in range(stragglers)]
    at.sort()

    who, repeats = stream(seed, f"{name}.who"), stream(seed, f"{name}.keys")
    cuts = stream(seed, f"{name}.cut")
    allowed = Allowances(COMMANDS_PER_S, COMMANDS_BURST)
    there = [
        viewer
        for viewer in audience.of_room(MAIN_ROOM)
        if audience.visits[viewer - 1].comes_us < until_us and audience.visits[viewer - 1].goes_us > early_us
    ]
    #: Everybody once in a random order, then everybody again.
    turns = _turns(who, there)
    attempts: dict[int, int] = {}
    likely = 2 * sale.stock
    for at_us in at:
        viewer = _next(turns, len(there), at_us, audience, allowed)
        if viewer is None:
            raise ScenarioError(
                f"{name}: {len(there)} viewers may not make so many claims within the server's limits"
            )
        attempt = attempts.get(viewer, 0)
        if attempt and repeats.random() < sale.same_key_share:
            attempt = repeats.randint(1, attempt)
        else:
            attempt = attempts[viewer] = attempts.get(viewer, 0) + 1
        key = f"{{run}}-{keys}{viewer}-{attempt}"
        yield Step(at_us, viewer, "send", {"cmd": "seckill.claim", "sale": f"{{run}}-{name}", "key": key})
        if at_us >= starts_us and likely > 0:
            likely -= 1
            if cuts.random() < sale.cut_share:
                yield Step(at_us + cuts.choice(CUTS_US), viewer, "cut", {})


def _turns(rng: random.Random, viewers: list[int]) -> Iterator[int]:
    order = list(viewers)
    while order:
        rng.shuffle(order)
        yield from order


def _next(turns: Iterator[int], most: int, at_us: int, audience: Audience, allowed: Allowances) -> int | None:
    """Return the next viewer who is there and may act; None if none of `most` is."""
    for _ in range(most):
        viewer = next(turns)
        if audience.available(viewer, at_us) and allowed.take(viewer, at_us):
            return viewer
    return None


def packet_command(
    packets: RedPacket | Packets,
    packet: str,
    number: int,
    cents: random.Random,
    opens_us: int,
    expires_s: int,
) -> dict[str, Any]:
    """Return the command that announces packet `number` of a row."""
    return {
        "cmd": "redpacket.send",
        "packet": packet,
        "total_cents": packets.total_cents + cents.randrange(1 + packets.total_cents // 10),
        "shares": packets.shares,
        "split": "even" if number % 2 else "lucky",
        "opens_at": f"{{at:{opens_us}}}",
        "expires_s": expires_s,
    }


def grabs(
    packets: RedPacket | Packets,
    packet: str,
    name: str,
    keys: str,
    seed: int,
    audience: Audience,
    opens_us: int,
    over_us: int,
) -> Iterator[Step]:
    """Yield the grabs of one packet; of one that is to expire at `over_us`, too few, and some that come too late."""
    rng = stream(seed, f"{name}.grabs")
    burst_us = int(packets.burst_s * US_PER_S)
    there = [
        viewer
        for viewer in audience.of_room(MAIN_ROOM)
        if audience.available(viewer, opens_us - 2 * EARLY_MARGIN_US)
        and audience.available(viewer, opens_us + 2 * burst_us)
    ]
    count = min(packets.grabbers, len(there))
    if over_us:
        count = min(count, packets.shares // 4)

    def grab(at_us: int, viewer: int, attempt: int) -> Step:
        key = f"{{run}}-{keys}-{viewer}-{attempt}"
        return Step(at_us, viewer, "send", {"cmd": "redpacket.grab", "packet": packet, "key": key})

    grabbers = rng.sample(there, count)
    for viewer in grabbers:
        at_us = opens_us + rng.randrange(burst_us)
        yield grab(at_us, viewer, 1)
        if rng.random() < packets.early_share:
            yield grab(opens_us - EARLY_MARGIN_US - rng.randrange(EARLY_MARGIN_US), viewer, 1)
        if rng.random() < packets.again_share:
            yield grab(at_us + rng.randrange(burst_us), viewer, rng.choice((1, 2)))
        if rng.random() < packets.cut_share:
            yield Step(at_us + rng.choice(CUTS_US), viewer, "cut", {})
    if over_us:
        rest = sorted(set(there) - set(grabbers))
        for viewer in rng.sample(rest, min(len(rest), LATE_GRABS_MAX)):
            yield grab(over_us + EARLY_MARGIN_US + rng.randrange(US_PER_S), viewer, 1)


def last_word(end_us: int) -> Step:
    """Return the console's look at the share board, as the last step of a run."""
    return Step(end_us - 1, CONSOLE, "send", {"cmd": "share.rank"})
