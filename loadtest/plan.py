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
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from loadtest.arrivals import US_PER_S
from loadtest.scenario import Scenario, ScenarioError

#: "join" enters the room, or returns to it with `resume`. "cut" drops the connection without a word, after what was
#: sent before has left; the viewer comes back by itself. "away" drops it too, and the next "join" says when they come
#: back. "leave" is for good.
Verb = Literal["join", "send", "cut", "away", "leave"]

#: A viewer needs this long to be in the room before the plan counts on them, and again before they go.
SETTLE_US: Final = US_PER_S

#: The console of the main room; those of other rooms come after the viewers.
CONSOLE: Final = 0
#: The room in which sales, packets and other moments happen: the largest.
MAIN_ROOM: Final = 0

#: Says of a join that its share token is one that nobody signed.
FORGED: Final = -1


class Actor(Struct, frozen=True, array_like=True):
    """One who holds a connection. Actor 0 is the console."""

    #: Id without the run's tag.
    id: str
    name: str
    role: str
    #: Number of the room.
    room: int = 0
    #: Bytes per second of a slow reader; 0 reads as fast as they come.
    reads_bytes_s: int = 0


class Mark(Struct, frozen=True, array_like=True):
    """A named moment of the run, for whoever looks at its charts."""

    at_us: int
    name: str


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
    #: Rooms; each has a console.
    rooms: int = 1
    #: What happens when, in order of time.
    moments: list[Mark] = []

    def to_bytes(self) -> bytes:
        """Return the plan as compressed JSON, the same bytes for the same plan."""
        return gzip.compress(msgspec.json.encode(self), compresslevel=6, mtime=0)

    @staticmethod
    def from_bytes(data: bytes) -> "Plan":
        """
        Return the plan that `to_bytes` wrote.

        Raises:
            ScenarioError: If it is no plan, or one whose parts do not fit together.
        """
        try:
            plan = msgspec.json.decode(gzip.decompress(data), type=Plan)
        except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
            raise ScenarioError(f"not a plan: {error}") from None
        last_us = 0
        for number, step in enumerate(plan.steps):
            if not 0 <= step.actor < len(plan.actors) or step.at_us < last_us:
                raise ScenarioError(f"not a plan: step {number} is nobody's, or out of order")
            last_us = step.at_us
        if any(not 0 <= actor.room < plan.rooms for actor in plan.actors):
            raise ScenarioError("not a plan: an actor is in a room that is not there")
        return plan

    def digest(self) -> str:
        """Return a short name for exactly this plan, whatever compressed it."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()

    def connections_max(self) -> int:
        """Return how many connections are open at the same time, at most."""
        held: set[int] = set()
        most = 0
        for step in self.steps:
            if step.verb == "join":
                held.add(step.actor)
                most = max(most, len(held))
            elif step.verb in ("leave", "away"):
                held.discard(step.actor)
        return most


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
