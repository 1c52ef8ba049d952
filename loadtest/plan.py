"""
The plan: everything a run will do, decided before it starts.

Decides who acts, when, and with which command. Does not send anything and does not look at a clock: a plan is a
value, and the same scenario and seed give the same bytes. Moments are microseconds from the start of the run; the
latency of whatever a step leads to is measured from there, however late the step was really taken.

A plan knows nothing of the room it will be played in. Strings of a command may hold `{run}`, the tag of one run, and
`{step}`, the number of the step; both are filled in as it is sent, so that every comment, item and notice seen later
can be traced to the step that made it. A field that is `{at:5000000}` becomes that moment of the plan on the store's
clock, which is how a sale is announced for a moment that the claims of the plan wait for.
"""

import gzip
import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from loadtest import phrases
from loadtest.arrivals import US_PER_S, Allowances, arrivals, ramp, stream
from loadtest.scenario import Scenario, ScenarioError
from protocol.limits import LIKES_PER_COMMAND_MAX

#: "cut" drops the connection without a word, after what was sent before has left.
Verb = Literal["join", "send", "cut", "leave"]

#: A viewer may say one comment per second with a burst of 5; the plan stays one below the burst, because the
#: server sees the steps with jitter.
COMMENT_BURST: Final = 4
#: And send 5 batches of likes per second with a burst of 10.
LIKES_PER_S: Final = 4
LIKES_BURST: Final = 8

#: A viewer needs this long to be in the room before the plan counts on them.
SETTLE_US: Final = US_PER_S

CONSOLE: Final = 0

#: A connection may send 50 commands per second with a burst of 100; the plan leaves room for what is asked again.
COMMANDS_PER_S: Final = 30
COMMANDS_BURST: Final = 40

#: The share token of somebody in another process is not at hand, so inviter and invitee are this many actors apart,
#: or a multiple: they share a process when there are 1, 2, 3, 4, 6 or 12.
INVITER_APART: Final = 12
#: Says of a join that its share token is one that nobody signed.
FORGED: Final = -1

#: Moments between sending and cutting the connection, microseconds: before, around and after the answer.
CUTS_US: Final = (0, 0, 1_000, 5_000, 20_000)


class Actor(Struct, frozen=True, array_like=True):
    """One who holds a connection. Actor 0 is the console."""

    #: Id without the run's tag.
    id: str
    name: str
    role: str


class Step(Struct, frozen=True, array_like=True):
    """One thing one actor does at one moment."""

    at_us: int
    actor: int
    verb: Verb
    #: The command's map without `id` and `batch`, and mostly without `key`, which the sender adds. Of a join, only
    #: `via`: the actor whose share token is shown, or `FORGED`.
    command: dict[str, Any]


class Plan(Struct, frozen=True):
    """Who does what when, in order of time."""

    scenario: Scenario
    seed: int
    actors: list[Actor]
    steps: list[Step]
    #: When the last planned moment is over.
    end_us: int
    #: The moment everything is about, such as the start of a sale: where a fault hurts most. 0: there is none.
    peak_us: int = 0

    def to_bytes(self) -> bytes:
        """Return the plan as compressed JSON, the same bytes for the same plan."""
        return gzip.compress(msgspec.json.encode(self), compresslevel=6, mtime=0)

    @staticmethod
    def from_bytes(data: bytes) -> "Plan":
        """Return the plan that `to_bytes` wrote."""
        return msgspec.json.decode(gzip.decompress(data), type=Plan)

    def digest(self) -> str:
        """Return a short name for exactly this plan, whatever compressed it."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()


def make(scenario: Scenario, seed: int) -> Plan:
    """
    Return the plan of `scenario` under `seed`.

    Raises:
        ScenarioError: If no planner is called `scenario.plays`, or the scenario asks for more than its viewers may
            do under the server's limits.
    """
    planner = PLANNERS.get(scenario.plays)
    if planner is None:
        raise ScenarioError(f"plays: no planner {scenario.plays!r}; there are {', '.join(PLANNERS)}")
    return planner(scenario, seed)


def fill(command: dict[str, Any], run: str, step: int, at_ms: Callable[[int], int]) -> dict[str, Any]:
    """
    Return `command` as it is sent as step number `step` of the run `run`, with a key where one is needed.

    Args:
        command: The map of a step.
        run: The run's tag.
        step: The step's number.
        at_ms: Moment of the plan in microseconds → the store's clock in milliseconds.
    """
    filled = {field: _filled(value, run, step, at_ms) for field, value in command.items()}
    if filled["cmd"] not in _KEYLESS:
        filled.setdefault("key", f"{run}-{step}")
    return filled


def _filled(value: Any, run: str, step: int, at_ms: Callable[[int], int]) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith(_AT):
        return at_ms(int(value[len(_AT) : -1]))
    return value.replace("{run}", run).replace("{step}", str(step))


_AT: Final = "{at:"
_KEYLESS: Final = frozenset({"like.send", "share.rank"})


def _actors(scenario: Scenario, seed: int) -> list[Actor]:
    names = stream(seed, "names")
    actors = [Actor("console", "主播小北", "streamer")]
    actors += [
        Actor(f"v{number}", phrases.viewer_name(names), "viewer")
        for number in range(1, scenario.viewers.count + 1)
    ]
    return actors


def _arriving(scenario: Scenario, seed: int) -> tuple[list[int], list[Step]]:
    """Return the moments at which viewers 1, 2, 3 … join, and the steps: the console first."""
    joins = ramp(stream(seed, "joins"), scenario.viewers.count, scenario.ramp_s)
    steps = [Step(0, CONSOLE, "join", {})]
    rng = stream(seed, "shares")
    for number, at_us in enumerate(joins, start=1):
        # Somebody who joined well before: their token is known by then, unless the server is slow.
        there = bisect_right(joins, at_us - SETTLE_US)
        inviters = range(number % INVITER_APART or INVITER_APART, min(there, number - 1) + 1, INVITER_APART)
        how, place = rng.random(), rng.random()
        via: dict[str, Any] = {}
        if how < scenario.shares.forged_ratio:
            via = {"via": FORGED}
        elif how < scenario.shares.forged_ratio + scenario.shares.via_ratio and inviters:
            # The square makes few viewers bring many, as it is.
            via = {"via": inviters[int(place * place * len(inviters))]}
        steps.append(Step(at_us, number, "join", via))
    return joins, steps


def _crowd(scenario: Scenario, seed: int) -> Plan:
    joins, steps = _arriving(scenario, seed)
    steps += _comments(scenario, seed, joins)
    steps += _likes(scenario, seed, joins)
    steps += _changes(scenario, seed)
    steps.sort(key=lambda step: step.at_us)
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    return Plan(scenario, seed, _actors(scenario, seed), steps, end_us)


# --- seckill --------------------------------------------------------------------------------------------------


def _seckill(scenario: Scenario, seed: int) -> Plan:
    """One sale announced ahead: shots before its start, a stampede, stragglers until after its end."""
    sale = scenario.seckill
    joins, steps = _arriving(scenario, seed)
    announced_us = int(scenario.ramp_s * US_PER_S) + SETTLE_US
    start_us = announced_us + int(sale.notice_s * US_PER_S)
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    over_us = end_us - int(sale.over_s * US_PER_S)
    if over_us <= start_us + int(sale.burst_s * US_PER_S):
        raise ScenarioError("seconds: too short for seckill.notice_s, burst_s and over_s")
    item = {
        "cmd": "item.put",
        "item": "{run}-i0",
        "title": "明前龙井 50 g",
        "price_cents": sale.price_cents * 2,
    }
    schedule = {
        "cmd": "seckill.schedule",
        "sale": "{run}-sale",
        "item": "{run}-i0",
        "price_cents": sale.price_cents,
        "stock": sale.stock,
        "per_viewer": sale.per_viewer,
        "starts_at": f"{{at:{start_us}}}",
        "ends_at": f"{{at:{over_us}}}",
        "hold_s": sale.hold_s,
    }
    steps.append(Step(announced_us - SETTLE_US // 2, CONSOLE, "send", item))
    steps.append(Step(announced_us, CONSOLE, "send", schedule))
    steps += _claims(scenario, seed, announced_us, start_us, end_us)
    steps += _comments(scenario, seed, joins)
    steps += _likes(scenario, seed, joins)
    steps.append(Step(end_us - 1, CONSOLE, "send", {"cmd": "share.rank"}))
    steps.sort(key=lambda step: step.at_us)
    return Plan(scenario, seed, _actors(scenario, seed), steps, end_us, start_us)


#: A shot this close to the start may be decided after it, however right the clocks are.
EARLY_MARGIN_US: Final = 100_000


def _claims(scenario: Scenario, seed: int, announced_us: int, start_us: int, end_us: int) -> list[Step]:
    sale = scenario.seckill
    moments = stream(seed, "claims")
    early = round(sale.claims * sale.early_share)
    burst = round(sale.claims * sale.burst_share)
    burst_us = int(sale.burst_s * US_PER_S)
    early_us = announced_us + min(SETTLE_US, (start_us - announced_us) // 2)
    at = [moments.randrange(early_us, max(early_us + 1, start_us - EARLY_MARGIN_US)) for _ in range(early)]
    at += [start_us + moments.randrange(burst_us) for _ in range(burst)]
    at += [moments.randrange(start_us + burst_us, end_us) for _ in range(max(0, sale.claims - early - burst))]
    at.sort()

    who, keys = stream(seed, "claims.who"), stream(seed, "claims.keys")
    cuts = stream(seed, "claims.cut")
    allowed = Allowances(COMMANDS_PER_S, COMMANDS_BURST)
    #: Everybody once in a random order, then everybody again.
    turns = _turns(who, scenario.viewers.count)
    attempts: dict[int, int] = {}
    steps = []
    likely = 2 * sale.stock
    for at_us in at:
        viewer = next(
            (found for found in _few(turns, scenario.viewers.count) if allowed.take(found, at_us)), None
        )
        if viewer is None:
            raise ScenarioError(
                f"seckill.claims: {scenario.viewers.count} viewers may not claim that often within the server's limits"
            )
        attempt = attempts.get(viewer, 0)
        if attempt and keys.random() < sale.same_key_share:
            attempt = keys.randint(1, attempt)
        else:
            attempt = attempts[viewer] = attempt + 1
        command = {"cmd": "seckill.claim", "sale": "{run}-sale", "key": f"{{run}}-c{viewer}-{attempt}"}
        steps.append(Step(at_us, viewer, "send", command))
        if at_us >= start_us and likely > 0:
            likely -= 1
            if cuts.random() < sale.cut_share:
                steps.append(Step(at_us + cuts.choice(CUTS_US), viewer, "cut", {}))
    return steps


def _turns(rng: random.Random, viewers: int) -> Iterator[int]:
    order = list(range(1, viewers + 1))
    while True:
        rng.shuffle(order)
        yield from order


def _few(turns: Iterator[int], most: int) -> Iterator[int]:
    for _ in range(most):
        yield next(turns)


# --- red packets ----------------------------------------------------------------------------------------------

#: Seconds a packet lasts that is meant to be emptied.
PACKET_EXPIRES_S: Final = 60
#: After the last packet has expired: time for grabs that come too late, and for the refund.
PACKET_OVER_S: Final = 2.0


def _redpacket(scenario: Scenario, seed: int) -> Plan:
    """Packets announced ahead, each grabbed by many at once, and one that expires with shares left."""
    packets = scenario.redpacket
    if packets.grabbers > scenario.viewers.count:
        raise ScenarioError("redpacket.grabbers: more than there are viewers")
    joins, steps = _arriving(scenario, seed)
    cents = stream(seed, "packets")
    first_us = int((scenario.ramp_s + packets.notice_s) * US_PER_S) + SETTLE_US
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    for number in range(packets.packets + packets.expire_one):
        expires = number == packets.packets
        opens_us = first_us + int(number * packets.every_s * US_PER_S)
        expires_s = packets.expires_s if expires else PACKET_EXPIRES_S
        command = {
            "cmd": "redpacket.send",
            "packet": f"{{run}}-p{number + 1}",
            "total_cents": packets.total_cents + cents.randrange(1 + packets.total_cents // 10),
            "shares": packets.shares,
            "split": "even" if number % 2 else "lucky",
            "opens_at": f"{{at:{opens_us}}}",
            "expires_s": expires_s,
        }
        steps.append(Step(opens_us - int(packets.notice_s * US_PER_S), CONSOLE, "send", command))
        over_us = opens_us + expires_s * US_PER_S if expires else 0
        end_us = max(end_us, over_us + int(PACKET_OVER_S * US_PER_S))
        steps += _grabs(scenario, seed, number, opens_us, over_us)
    steps += _comments(scenario, seed, joins)
    steps += _likes(scenario, seed, joins)
    steps.append(Step(end_us - 1, CONSOLE, "send", {"cmd": "share.rank"}))
    steps.sort(key=lambda step: step.at_us)
    return Plan(scenario, seed, _actors(scenario, seed), steps, end_us, first_us)


def _grabs(scenario: Scenario, seed: int, number: int, opens_us: int, over_us: int) -> list[Step]:
    """Return the grabs of one packet; of one that is to expire (`over_us`), too few, and some that come too late."""
    packets, rng = scenario.redpacket, stream(seed, f"grabs.{number}")
    count = min(packets.grabbers, packets.shares // 4) if over_us else packets.grabbers
    burst_us = int(packets.burst_s * US_PER_S)
    steps: list[Step] = []

    def grab(at_us: int, viewer: int, attempt: int) -> None:
        command = {"cmd": "redpacket.grab", "packet": f"{{run}}-p{number + 1}"}
        command["key"] = f"{{run}}-g{number + 1}-{viewer}-{attempt}"
        steps.append(Step(at_us, viewer, "send", command))

    grabbers = rng.sample(range(1, scenario.viewers.count + 1), count)
    for viewer in grabbers:
        at_us = opens_us + rng.randrange(burst_us)
        grab(at_us, viewer, 1)
        if rng.random() < packets.early_share:
            grab(opens_us - EARLY_MARGIN_US - rng.randrange(EARLY_MARGIN_US), viewer, 1)
        if rng.random() < packets.again_share:
            grab(at_us + rng.randrange(burst_us), viewer, rng.choice((1, 2)))
        if rng.random() < packets.cut_share:
            steps.append(Step(at_us + rng.choice(CUTS_US), viewer, "cut", {}))
    if over_us:
        rest = sorted(set(range(1, scenario.viewers.count + 1)) - set(grabbers))
        for viewer in rng.sample(rest, min(len(rest), 20)):
            grab(over_us + EARLY_MARGIN_US + rng.randrange(US_PER_S), viewer, 1)
    return steps


# --- talk and taps --------------------------------------------------------------------------------------------


def _spread(
    scenario: Scenario, seed: int, subject: str, joins: list[int], allowed: Allowances, moments: list[int]
) -> list[tuple[int, int]]:
    """
    Give each moment to a random viewer who is in the room and within the limits.

    During the ramp a moment is kept with the share of viewers present, so that the first ones are not made to speak
    for all.

    Raises:
        ScenarioError: If in the steady phase nobody is left who may act.
    """
    rng = stream(seed, f"{subject}.who")
    ramp_end_us = int(scenario.ramp_s * US_PER_S) + SETTLE_US
    given = []
    for at_us in moments:
        present = bisect_right(joins, at_us - SETTLE_US)
        kept = rng.random() * len(joins) < present or at_us >= ramp_end_us
        if not present or not kept:
            continue
        first = rng.randrange(present)
        for offset in range(present):
            viewer = (first + offset) % present + 1
            if allowed.take(viewer, at_us):
                given.append((at_us, viewer))
                break
        else:
            if at_us >= ramp_end_us:
                raise ScenarioError(
                    f"{subject}.per_s: {len(joins)} viewers may not do that much under the server's limits per viewer"
                )
    return given


def _comments(scenario: Scenario, seed: int, joins: list[int]) -> list[Step]:
    comments = scenario.comments
    moments = arrivals(
        stream(seed, "comments"), comments.arrivals, comments.per_s, 0, scenario.ramp_s + scenario.seconds
    )
    words = stream(seed, "comments.text")
    allowed = Allowances(1, COMMENT_BURST)
    return [
        Step(at_us, viewer, "send", {"cmd": "comment.send", "text": f"{_words(words)} #{{run}}.{{step}}"})
        for at_us, viewer in _spread(scenario, seed, "comments", joins, allowed, list(moments))
    ]


def _words(rng: random.Random) -> str:
    return str(rng.choice(phrases.COMMENTS))


def _likes(scenario: Scenario, seed: int, joins: list[int]) -> list[Step]:
    likes = scenario.likes
    batches = arrivals(
        stream(seed, "likes"),
        likes.arrivals,
        likes.per_s / likes.batch_mean,
        0,
        scenario.ramp_s + scenario.seconds,
    )
    sizes = stream(seed, "likes.size")
    allowed = Allowances(LIKES_PER_S, LIKES_BURST)
    return [
        Step(at_us, viewer, "send", {"cmd": "like.send", "n": _batch(sizes, likes.batch_mean)})
        for at_us, viewer in _spread(scenario, seed, "likes", joins, allowed, list(batches))
    ]


def _batch(rng: random.Random, mean: float) -> int:
    # Exponential sizes: most people tap a few times, some do not stop.
    return int(min(LIKES_PER_COMMAND_MAX, max(1, round(rng.expovariate(1 / mean)))))


def _changes(scenario: Scenario, seed: int) -> list[Step]:
    rng = stream(seed, "facts")
    facts = scenario.facts
    # The console needs a moment to join; from then on every change is planned to succeed, because each one
    # depends only on changes before it, and one connection's commands are decided in order.
    moments = arrivals(rng, "uniform", facts.per_s, 1, scenario.ramp_s + scenario.seconds)
    shelf: list[str] = []
    explaining: str | None = None
    steps = []
    for number, at_us in enumerate(moments):
        command: dict[str, Any]
        choice = rng.random()
        if len(shelf) < 2 or (choice < 0.3 and len(shelf) < facts.items):
            item = f"{{run}}-i{number}"
            shelf.append(item)
            command = _card(rng, item)
        elif choice < 0.45:
            command = _card(rng, rng.choice(shelf))
        elif choice < 0.65:
            # Never the one explained now: changing nothing makes no fact.
            explaining = rng.choice([item for item in shelf if item != explaining])
            command = {"cmd": "item.explain", "item": explaining}
        elif choice < 0.7 and explaining is not None:
            command = {"cmd": "item.unexplain", "item": explaining}
            explaining = None
        elif choice < 0.75 and len(shelf) > 2:
            item = shelf.pop(rng.randrange(len(shelf)))
            explaining = None if item == explaining else explaining
            command = {"cmd": "item.remove", "item": item}
        else:
            command = {"cmd": "notice.set", "text": f"{rng.choice(phrases.NOTICES)} #{{run}}.{{step}}"}
        steps.append(Step(at_us, CONSOLE, "send", command))
    return steps


def _card(rng: random.Random, item: str) -> dict[str, Any]:
    return {
        "cmd": "item.put",
        "item": item,
        "title": f"{rng.choice(phrases.GOODS)} {rng.randint(1, 9)}号",
        "price_cents": rng.randint(990, 99_900),
    }


#: Name in a scenario's `plays` → what makes its plan.
PLANNERS: Final[dict[str, Callable[[Scenario, int], Plan]]] = {
    "crowd": _crowd,
    "seckill": _seckill,
    "redpacket": _redpacket,
}
