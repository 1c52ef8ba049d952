"""
Claims and grabs as they were asked, and what viewers were told alone.

Decides how the record of a run is read for the judges of money and stock: one `Ask` per claim with its final answer,
and the comparisons of its moments with the store's clock that hold whatever the error of the clocks. Judges nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from loadtest.history import TICK_US, Clock, GrabSeen, History, JoinedSeen, OrderSeen
from loadtest.linear import NEVER_US
from loadtest.plan import Plan, fill

STOCK: Final = "I1 stock"
CENTS: Final = "I2 cents"
BOARD: Final = "I6 board"
SERIAL: Final = "I7 one at a time"
OWNERS: Final = "I8 tenants"

#: Answers that say nothing about the sale or packet itself.
ASIDE: Final = frozenset(
    {
        *("unanswered", "not_connected", "outcome_unknown", "unavailable", "overloaded", "rate_limited"),
        *("paused", "room_not_live", "forbidden", "not_eligible", "not_joined", "not_found"),
    }
)


class Ask(NamedTuple):
    """One claim or grab of the plan, and its final answer."""

    viewer: str
    key: str
    #: Id of the sale or packet.
    target: str
    code: str
    definite: bool
    #: When it was first sent, last sent, and answered; microseconds of the run.
    sent_us: int
    asked_us: int
    done_us: int
    tries: int
    said: dict[str, Any]
    clock: Clock

    @property
    def sent(self) -> bool:
        """Tell whether it ever left."""
        return self.code != "not_connected"

    def surely_before(self, store_ms: int) -> bool:
        """Tell whether it was answered before a moment of the store's clock, whatever the error."""
        return self.clock.store_us(self.done_us) + self.clock.error_us < store_ms * 1000

    def surely_after(self, store_ms: int, run_us: int) -> bool:
        """Tell whether a moment of the run is after a moment of the store's clock, whatever the error."""
        return self.clock.store_us(run_us) - self.clock.error_us > (store_ms + 1) * 1000


def asks_of(plan: Plan, history: History) -> dict[str, list[Ask]]:
    asks: dict[str, list[Ask]] = {"seckill.claim": [], "redpacket.grab": []}
    for process in history.processes:
        for outcome in process.outcomes:
            if outcome.command not in asks:
                continue
            step = plan.steps[outcome.step]
            command = fill(step.command, history.run, outcome.step, lambda moment_us: 0)
            asks[outcome.command].append(
                Ask(
                    viewer=f"{history.run}-{plan.actors[step.actor].id}",
                    key=command["key"],
                    target=command.get("sale") or command["packet"],
                    code=outcome.code,
                    definite=outcome.definite,
                    sent_us=outcome.sent_us,
                    asked_us=outcome.asked_us or outcome.sent_us,
                    done_us=outcome.done_us,
                    tries=outcome.tries,
                    said=outcome.said,
                    clock=process.clock,
                )
            )
    return asks


def keyed(asks: Iterable[Ask]) -> dict[tuple[str, str], list[Ask]]:
    """Return (viewer, key) → the asks with it, in the order of their answers."""
    found: defaultdict[tuple[str, str], list[Ask]] = defaultdict(list)
    for ask in asks:
        if ask.sent:
            found[ask.viewer, ask.key].append(ask)
    for same in found.values():
        same.sort(key=lambda ask: ask.done_us)
    return found


def first_sent_us(same_key: list[Ask]) -> int:
    """
    Return when what a key won was asked for at the earliest, `NEVER_US` if it cannot have won anything.

    An ask that was definitely refused, or answered with what another key had won, won nothing itself.
    """
    may_have = (
        ask for ask in same_key if not ask.definite or (ask.code == "ok" and not ask.said.get("again"))
    )
    return min((ask.sent_us for ask in may_have), default=NEVER_US)


def answers_of(asks: list[Ask]) -> dict[str, int]:
    """Return how often each answer was given: `again` for another key, "same key" for a win told once more."""
    counts: Counter[str] = Counter()
    won: set[tuple[str, str]] = set()
    for ask in asks:
        name = ask.code
        if ask.code == "ok":
            name = "again" if ask.said.get("again") else "same key" if (ask.viewer, ask.key) in won else "won"
            won.add((ask.viewer, ask.key))
        counts[name] += 1
    return dict(sorted(counts.items()))


def last_us(plan: Plan, history: History) -> int:
    """Return the last moment of the run of which anything is known."""
    done = (outcome.done_us for process in history.processes for outcome in process.outcomes)
    return max(plan.end_us, max(done, default=0))


class Private(NamedTuple):
    """What one viewer was told alone, and when."""

    viewer: str
    at_us: int
    mark: JoinedSeen | OrderSeen | GrabSeen


def private(history: History) -> Iterator[Private]:
    for process in history.processes:
        telling = {
            frame.number: [
                mark for mark in frame.marks if isinstance(mark, JoinedSeen | OrderSeen | GrabSeen)
            ]
            for frame in process.frames
            if frame.private
        }
        for viewer in process.viewers:
            for number in viewer.frames:
                for mark in telling.get(number, ()):
                    # A private frame is read once, so it has one tick.
                    at_us = max(process.frames[number].ticks, default=0) * TICK_US
                    yield Private(viewer.viewer, at_us, mark)
