"""`loadtest/linear.py`: an order that explains the answers is found if there is one, and only then."""

import itertools
import random

import pytest

from loadtest.linear import NEVER_US, OPERATIONS_MAX, Kind, Operation, linearisable


def op(kind: Kind, viewer: str, begin: int, end: int) -> Operation:
    return Operation(kind, viewer, begin, end)


@pytest.mark.parametrize(
    ("operations", "explained"),
    [
        ([], True),
        ([op("won", "a", 0, 1), op("nothing_left", "b", 2, 3)], True),
        # Asked and answered before the only unit was asked for.
        ([op("nothing_left", "b", 0, 1), op("won", "a", 2, 3)], False),
        # At the same time: the winner's moment may be the earlier one.
        ([op("nothing_left", "b", 0, 9), op("won", "a", 8, 20)], True),
        ([op("won", "a", 0, 1), op("won", "b", 2, 3)], False),
        ([op("won", "a", 0, 1), op("back", "a", 0, NEVER_US), op("won", "b", 2, 3)], True),
        # What nobody owns cannot come back.
        ([op("back", "a", 0, 1), op("won", "a", 2, 3)], False),
        ([op("won", "a", 0, 1), op("again", "a", 2, 3)], True),
        ([op("again", "a", 0, 1), op("won", "a", 2, 3)], False),
        ([op("won", "a", 0, 1), op("nothing_left", "a", 2, 3)], False),
        ([op("won", "a", 0, 1), op("limit", "a", 2, 3)], True),
        ([op("limit", "b", 0, 9), op("won", "a", 2, 3)], False),
    ],
)
def test_history_of_one_unit(operations: list[Operation], explained: bool) -> None:
    assert linearisable(1, 1, operations) is explained


def test_limit_above_one_is_counted() -> None:
    three = [op("won", "a", 0, 1), op("won", "a", 2, 3), op("won", "a", 4, 5)]

    assert linearisable(3, 3, three) is True
    assert linearisable(3, 2, three) is False


def test_too_long_a_history_is_given_up() -> None:
    assert linearisable(1, 1, [op("won", "a", 0, 1)] * (OPERATIONS_MAX + 1)) is None


def _by_trying_all(units: int, operations: list[Operation]) -> bool:
    for order in itertools.permutations(operations):
        placed = range(len(order))
        if any(
            order[later].end_us < order[early].begin_us
            for early in placed
            for later in placed
            if later > early
        ):
            continue
        left, owns, fits = units, dict[str, int](), True
        for operation in order:
            mine = owns.get(operation.viewer, 0)
            if operation.kind == "won":
                fits = fits and left > 0 and mine < 1
                left, owns[operation.viewer] = left - 1, mine + 1
            elif operation.kind == "back":
                fits = fits and mine > 0
                left, owns[operation.viewer] = left + 1, mine - 1
            elif operation.kind == "nothing_left":
                fits = fits and left == 0 and mine < 1
            else:
                fits = fits and mine >= 1
        if fits:
            return True
    return False


@pytest.mark.parametrize("seed", range(60))
def test_search_agrees_with_trying_every_order(seed: int) -> None:
    rng = random.Random(seed)
    kinds: list[Kind] = ["won", "won", "nothing_left", "again", "back"]
    operations = []
    for _ in range(5):
        begin = rng.randrange(12)
        operations.append(op(rng.choice(kinds), rng.choice("ab"), begin, begin + rng.randrange(8)))

    assert linearisable(1, 1, operations) is _by_trying_all(1, operations)
