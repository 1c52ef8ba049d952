"""
One at a time: is there an order of single steps that explains every answer?

Decides, for a few claims on units that several viewers want at once, whether they are linearisable: whether each can be
given one moment between being asked and being answered, so that a counter of units and a list of owners, changed one
claim at a time, would have given exactly these answers. Searches everything, so it is for small histories; large ones
are judged by counting (`conservation.py`).

Pure. Source: Herlihy and Wing, "Linearizability" (1990); the search is Wing and Gong's (1993), with the states already
visited remembered, as Lowe's (2017).
"""

from dataclasses import dataclass
from typing import Final, Literal

#: Longer histories are not searched.
OPERATIONS_MAX: Final = 40
#: Nor further than this many states.
STATES_MAX: Final = 200_000

#: An answer that never came.
NEVER_US: Final = 1 << 62

Kind = Literal["won", "again", "nothing_left", "limit", "back"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One claim with its answer, or units coming back; microseconds of one clock."""

    kind: Kind
    viewer: str
    begin_us: int
    end_us: int


def linearisable(units: int, per_viewer: int, operations: list[Operation]) -> bool | None:
    """
    Return whether one order of the operations explains all answers; None if the search was given up.

    Args:
        units: How many there are to win, one per claim.
        per_viewer: How many one viewer may own at the same time.
        operations: What was asked and answered, in any order.
    """
    if len(operations) > OPERATIONS_MAX:
        return None
    everything = (1 << len(operations)) - 1
    visited = {0}
    waiting = [0]
    while waiting:
        done = waiting.pop()
        if done == everything:
            return True
        left, owned = _state(units, operations, done)
        first_end = min(
            operation.end_us for place, operation in enumerate(operations) if not done >> place & 1
        )
        for place, operation in enumerate(operations):
            after = done | 1 << place
            # Whatever was asked after another one was answered comes after it.
            if after == done or operation.begin_us > first_end or after in visited:
                continue
            if _fits(operation, left, owned.get(operation.viewer, 0), per_viewer):
                if len(visited) >= STATES_MAX:
                    return None
                visited.add(after)
                waiting.append(after)
    return False


def _state(units: int, operations: list[Operation], done: int) -> tuple[int, dict[str, int]]:
    """Return the units left and what each viewer owns after the operations in `done`, in whatever order."""
    left, owned = units, dict[str, int]()
    for place, operation in enumerate(operations):
        if done >> place & 1 and operation.kind in ("won", "back"):
            change = 1 if operation.kind == "won" else -1
            left -= change
            owned[operation.viewer] = owned.get(operation.viewer, 0) + change
    return left, owned


def _fits(operation: Operation, left: int, owns: int, per_viewer: int) -> bool:
    """Tell whether this is the right answer with `left` units left, to somebody who owns `owns`."""
    if operation.kind == "won":
        return left > 0 and owns < per_viewer
    if operation.kind == "nothing_left":
        return left == 0 and owns < per_viewer
    if operation.kind == "back":
        return owns > 0
    return owns >= per_viewer
