"""
What a room says by itself: comments, likes, and what the console changes.

Decides who speaks and taps when, and which commands the console gives, so that every one of them is lawful at its
moment. Does not decide who is there (`audience.py`) or what happens at a sale (`stampede.py`). Pure.

Talk grows with the size of a room, but slower than it: in a small room everybody is answered, in a large one most
only read. Source: docs/decisions/0016-a-plan-is-a-file.md.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

from loadtest import phrases
from loadtest.arrivals import US_PER_S, Allowances, arrivals, stream
from loadtest.audience import NEVER_US, Audience, Sweep
from loadtest.plan import MAIN_ROOM, SETTLE_US, Step
from loadtest.scenario import Scenario, ScenarioError
from loadtest.sections import Goodbye, Quiz, Rush
from protocol.limits import LIKES_PER_COMMAND_MAX

#: A viewer may say one comment per second with a burst of 5; the plan stays one below the burst, because the
#: server sees the steps with jitter.
COMMENT_BURST: Final = 4
#: And send 5 batches of likes per second with a burst of 10.
LIKES_PER_S: Final = 4
LIKES_BURST: Final = 8
#: The console needs a moment to join; so long after the start it gives its first command.
CONSOLE_READY_S: Final = 1.0

_ANSWERS: Final = ("A", "B", "C", "选A", "肯定是A吧", "B!", "C?", "A A A", "安溪!")


class _Wish(NamedTuple):
    """Somebody of the room is to do something."""

    at_us: int
    #: "" for what goes on all the time, else the name of a moment.
    moment: str


def comments(scenario: Scenario, seed: int, audience: Audience, end_us: int) -> Iterator[Step]:
    """
    Yield all comments, room by room.

    Raises:
        ScenarioError: If nobody is left who may speak under the server's limits.
    """
    numbers, words = scenario.comments, stream(seed, "comments.text")
    sizes = audience.sizes
    weights = [size**numbers.size_exponent for size in sizes]
    for room, weight in enumerate(weights):
        per_s = numbers.per_s * weight
        per_s /= numbers.at_viewers**numbers.size_exponent if numbers.at_viewers else sum(weights)
        base = arrivals(stream(seed, f"comments.{room}"), numbers.arrivals, per_s, 0, end_us / US_PER_S)
        wishes = [_Wish(at_us, "") for at_us in base]
        if room == MAIN_ROOM:
            wishes += _rushes(scenario, seed, "comments")
            wishes += _quizzes(scenario, seed, audience)
        allowed = Allowances(1, COMMENT_BURST)
        for wish, viewer in _given(scenario, seed, "comments", room, audience, allowed, wishes):
            moment = scenario.moments.get(wish.moment)
            text = words.choice(_ANSWERS if isinstance(moment, Quiz) else phrases.COMMENTS)
            command = {"cmd": "comment.send", "text": f"{text} #{{run}}.{{step}}"}
            yield Step(wish.at_us, viewer, "send", command)


def likes(scenario: Scenario, seed: int, audience: Audience, end_us: int) -> Iterator[Step]:
    """
    Yield all batches of likes, room by room.

    Raises:
        ScenarioError: If nobody is left who may tap under the server's limits.
    """
    numbers, taps = scenario.likes, stream(seed, "likes.size")
    sizes = audience.sizes
    for room, size in enumerate(sizes):
        per_s = numbers.per_s / numbers.batch_mean * size / sum(sizes)
        base = arrivals(stream(seed, f"likes.{room}"), numbers.arrivals, per_s, 0, end_us / US_PER_S)
        wishes = [_Wish(at_us, "") for at_us in base]
        if room == MAIN_ROOM:
            wishes += _rushes(scenario, seed, "likes")
        allowed = Allowances(LIKES_PER_S, LIKES_BURST)
        for wish, viewer in _given(scenario, seed, "likes", room, audience, allowed, wishes):
            command = {"cmd": "like.send", "n": _batch(taps, numbers.batch_mean)}
            yield Step(wish.at_us, viewer, "send", command)


def _batch(rng: random.Random, mean: float) -> int:
    # Exponential sizes: most people tap a few times, some do not stop.
    return int(min(LIKES_PER_COMMAND_MAX, max(1, round(rng.expovariate(1 / mean)))))


def _rushes(scenario: Scenario, seed: int, subject: str) -> Iterator[_Wish]:
    for name, moment in scenario.moments.items():
        if isinstance(moment, Rush):
            per_s = moment.comments_per_s
            if subject == "likes":
                per_s = moment.likes_per_s / scenario.likes.batch_mean
            rng = stream(seed, f"{name}.{subject}")
            for at_us in arrivals(rng, "poisson", per_s, moment.at_s, moment.at_s + moment.lasts_s):
                yield _Wish(at_us, name)


def _quizzes(scenario: Scenario, seed: int, audience: Audience) -> Iterator[_Wish]:
    for name, moment in scenario.moments.items():
        if isinstance(moment, Quiz):
            rng, at_us = stream(seed, f"{name}.answers"), int(moment.at_s * US_PER_S)
            present = sum(visit.room == MAIN_ROOM and visit.here(at_us) for visit in audience.visits)
            for _ in range(round(present * moment.share)):
                # Reading takes a second; the first are the most.
                yield _Wish(at_us + int(rng.triangular(1, 1 + moment.lasts_s, 1.5) * US_PER_S), name)


def _given(
    scenario: Scenario,
    seed: int,
    subject: str,
    room: int,
    audience: Audience,
    allowed: Allowances,
    wishes: list[_Wish],
) -> Iterator[tuple[_Wish, int]]:
    """
    Give each wish to a random viewer who is in the room and within the limits.

    During the ramp, and when people leave in the end, a wish is kept with the share of viewers present, so that the
    few who are there are not made to speak for all.
    """
    rng = stream(seed, f"{subject}.who.{room}")
    sweep = Sweep(audience, room)
    size = audience.sizes[room]
    full_us = int(scenario.ramp_s * US_PER_S) + SETTLE_US
    empties_us = min(
        (int(moment.at_s * US_PER_S) for moment in scenario.moments.values() if isinstance(moment, Goodbye)),
        default=NEVER_US,
    )
    for wish in sorted(wishes):
        present = sweep.at(wish.at_us)
        steady = full_us <= wish.at_us < empties_us
        kept = rng.random() * size < len(present) or steady
        if not present or not kept:
            continue
        first = rng.randrange(len(present))
        for offset in range(len(present)):
            viewer = present[(first + offset) % len(present)]
            if allowed.take(viewer, wish.at_us):
                yield wish, viewer
                break
        else:
            # In a quiz, or when half of a room is away, somebody may be over their limit; what goes on all the time
            # is what the scenario promises.
            if steady and not wish.moment and not scenario.moments:
                raise ScenarioError(
                    f"{subject}.per_s: {size} viewers may not do that much under the server's limits per viewer"
                )


# --- the console ----------------------------------------------------------------------------------------------


class Cue(NamedTuple):
    """Something the console is to do in the main room at a moment of a show."""

    at_us: int
    #: "change" is any change; "notice" has a text; "explain" puts up an item; "send" has a whole command.
    what: Literal["change", "notice", "explain", "send"]
    text: str = ""
    command: dict[str, Any] | None = None


def changes(
    scenario: Scenario, seed: int, audience: Audience, end_us: int, cues: Iterable[Cue]
) -> Iterator[Step]:
    """
    Yield what the consoles do: changes at their rate, and the cues of the show.

    Every change is planned to succeed and to make a fact, because each depends only on those before it, and one
    connection's commands are decided in order.
    """
    for room in range(len(audience.sizes)):
        rng = stream(seed, f"facts.{room}")
        moments = arrivals(rng, "uniform", scenario.facts.per_s, CONSOLE_READY_S, end_us / US_PER_S)
        todo = [Cue(at_us, "change") for at_us in moments]
        if room == MAIN_ROOM:
            todo += cues
        todo.sort(key=lambda cue: cue.at_us)
        shelf = _Shelf(rng, "i" if room == MAIN_ROOM else f"r{room}i", scenario.facts.items)
        for cue in todo:
            for command in shelf.commands(cue):
                yield Step(cue.at_us, audience.console(room), "send", command)


class _Shelf:
    """What one console has put up, and what it does next."""

    def __init__(self, rng: random.Random, prefix: str, items_max: int) -> None:
        self._rng = rng
        self._prefix = prefix
        self._items_max = items_max
        self._put = 0
        self._items: list[str] = []
        self._explaining: str | None = None

    def commands(self, cue: Cue) -> list[dict[str, Any]]:
        """Return the commands for one cue."""
        if cue.what == "change":
            return [self._change()]
        if cue.what == "explain":
            card = self._new()
            return [card, self._explain(card["item"])]
        if cue.what == "notice":
            return [_notice(cue.text)]
        assert cue.command is not None
        return [cue.command]

    def _change(self) -> dict[str, Any]:
        rng, choice, items = self._rng, self._rng.random(), self._items
        if len(items) < 2 or (choice < 0.3 and len(items) < self._items_max):
            return self._new()
        if choice < 0.45:
            return _card(rng, rng.choice(items))
        if choice < 0.65:
            # Never the one explained now: changing nothing makes no fact.
            return self._explain(rng.choice([item for item in items if item != self._explaining]))
        if choice < 0.7 and self._explaining is not None:
            explained, self._explaining = self._explaining, None
            return {"cmd": "item.unexplain", "item": explained}
        if choice < 0.75 and len(items) > 2:
            item = items.pop(rng.randrange(len(items)))
            # Whoever takes what is explained off the shelf ends that too.
            self._explaining = None if item == self._explaining else self._explaining
            return {"cmd": "item.remove", "item": item}
        return _notice(rng.choice(phrases.NOTICES))

    def _new(self) -> dict[str, Any]:
        item = f"{{run}}-{self._prefix}{self._put}"
        self._put += 1
        self._items.append(item)
        return _card(self._rng, item)

    def _explain(self, item: str) -> dict[str, Any]:
        self._explaining = item
        return {"cmd": "item.explain", "item": item}


def _notice(text: str) -> dict[str, Any]:
    return {"cmd": "notice.set", "text": f"{text} #{{run}}.{{step}}"}


def _card(rng: random.Random, item: str) -> dict[str, Any]:
    return {
        "cmd": "item.put",
        "item": item,
        "title": f"{rng.choice(phrases.GOODS)} {rng.randint(1, 9)}号",
        "price_cents": rng.randint(990, 99_900),
    }
