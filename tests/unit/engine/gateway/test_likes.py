"""Gathering of likes: what leaves with which flush, and who is told what in which order."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import CommandRejected, LiveroomError, RateLimited, StoreUnavailable
from engine.fanout.memory import RoomMemory
from engine.gateway.likes import FLUSH_COMMANDS_MAX, LikeGatherer
from engine.store.store import Answer, LikesAnswer
from tests.support.stores import until


class Flush:
    """One call to the store, and how it is answered."""

    def __init__(
        self, number: int, exempt: int, rated: Sequence[tuple[str, int]], done: Callable[[LikesAnswer], None]
    ) -> None:
        self.number = number
        self.exempt = exempt
        self.rated = list(rated)
        self.answer = done


class Calls:
    """Writes down what is asked of a store; the test answers."""

    def __init__(self) -> None:
        self.flushes: list[Flush] = []

    def add_likes(
        self, names: Any, worker: str, flush: int, exempt: int, rated: Sequence[tuple[str, int]],
        cost_ms: int, burst_ms: int, done: Callable[[LikesAnswer], None],
    ) -> None:  # fmt: skip
        assert (worker, cost_ms, burst_ms) == ("w", 200, 1_800)
        self.flushes.append(Flush(flush, exempt, rated, done))


class Likes:
    """A gatherer, the calls it makes, and what its callers were told, in order."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.memory = RoomMemory()
        room: Any = type("Room", (), {"names": None, "memory": self.memory})()
        self.gatherer = LikeGatherer(room, self.calls, "w", itertools.count(1), 5.0, 10)  # type: ignore[arg-type]
        self.told: list[tuple[str, Answer]] = []

    def add(self, name: str, viewer: str | None, likes: int = 1) -> None:
        self.gatherer.add(viewer, likes, lambda answer: self.told.append((name, answer)))

    def names(self, kind: type[Answer]) -> list[str]:  # type: ignore[type-arg]
        return [name for name, answer in self.told if isinstance(answer, kind)]


async def test_first_leaves_at_once_and_the_rest_gathers_behind_it() -> None:
    likes = Likes()
    likes.add("a", "anna", 2)
    likes.add("b", "bela", 3)
    likes.add("m", None, 50)
    likes.add("c", "anna", 4)

    likes.calls.flushes[0].answer((2, {}))

    assert [(flush.number, flush.exempt, flush.rated) for flush in likes.calls.flushes] == [
        (1, 0, [("anna", 2)]),
        (2, 50, [("bela", 3), ("anna", 4)]),
    ]
    assert likes.told == [("a", b"2")]
    assert likes.gatherer.total == 2


async def test_refused_commands_are_told_last_and_the_newest_of_them_first() -> None:
    """A refused batch gives its number back only if it is the newest of its connection: the newest comes first."""
    likes = Likes()
    likes.add("first", "anna")
    for name, viewer in (("a1", "anna"), ("mod", None), ("b1", "bela"), ("a2", "anna"), ("a3", "anna")):
        likes.add(name, viewer)
    likes.calls.flushes[0].answer((1, {}))

    # Places count those whom a rate holds back: a1, b1, a2, a3.
    likes.calls.flushes[1].answer((4, {2: 120, 3: 320}))

    assert [name for name, _ in likes.told] == ["first", "a1", "mod", "b1", "a3", "a2"]
    refused = {name: answer for name, answer in likes.told if isinstance(answer, RateLimited)}
    assert {name: answer.extra["retry_ms"] for name, answer in refused.items()} == {"a2": 120, "a3": 320}


async def test_flush_takes_five_hundred_commands_and_the_next_the_rest() -> None:
    likes = Likes()
    likes.add("first", "anna")
    for number in range(FLUSH_COMMANDS_MAX + 7):
        likes.add(str(number), f"v-{number}")

    likes.calls.flushes[0].answer((1, {}))
    likes.calls.flushes[1].answer((1 + FLUSH_COMMANDS_MAX, {}))

    assert [len(flush.rated) for flush in likes.calls.flushes] == [1, FLUSH_COMMANDS_MAX, 7]


async def test_unknown_flush_is_told_once_and_repeated_with_its_number_until_it_is_known() -> None:
    likes = Likes()
    likes.add("a", "anna", 2)
    likes.add("b", "bela", 3)

    likes.calls.flushes[0].answer(StoreUnavailable("gone", definite=False))
    await until(lambda: len(likes.calls.flushes) == 2)
    likes.calls.flushes[1].answer((2, {0: 100}))

    assert [(flush.number, flush.rated) for flush in likes.calls.flushes] == [
        (1, [("anna", 2)]),
        (1, [("anna", 2)]),
        (2, [("bela", 3)]),
    ]
    assert [name for name, _ in likes.told] == ["a"]


async def test_room_that_takes_no_likes_refuses_the_newest_first_and_the_next_flush_leaves() -> None:
    likes = Likes()
    for name in ("a", "b", "c"):
        likes.add(name, "anna")
    likes.calls.flushes[0].answer(CommandRejected("not live"))
    likes.calls.flushes[1].answer(CommandRejected("not live"))
    likes.add("d", "anna")

    assert likes.names(LiveroomError) == ["a", "c", "b"]
    assert len(likes.calls.flushes) == 3


async def test_nobody_is_told_less_than_was_heard_of_already() -> None:
    likes = Likes()
    likes.add("a", "anna", 2)
    likes.memory.learn_likes(90)

    likes.calls.flushes[0].answer((80, {}))

    assert likes.told == [("a", b"90")]


async def test_flush_of_unknown_outcome_is_repeated_also_when_a_repetition_did_not_arrive() -> None:
    """Those behind it are told that the store is away: their likes have not left."""
    likes = Likes()
    likes.add("a", "anna", 2)
    likes.add("b", "bela", 3)
    likes.add("c", None, 1)

    likes.calls.flushes[0].answer(StoreUnavailable("no answer", definite=False))
    await until(lambda: len(likes.calls.flushes) == 2)
    likes.calls.flushes[1].answer(StoreUnavailable("still away"))
    assert [(name, getattr(answer, "definite", None)) for name, answer in likes.told] == [
        ("a", False),
        ("c", True),
        ("b", True),
    ]
    await until(lambda: len(likes.calls.flushes) == 3)
    likes.add("d", "dora", 4)
    likes.calls.flushes[2].answer((2, {}))

    assert [(flush.number, flush.rated) for flush in likes.calls.flushes] == [
        *[(1, [("anna", 2)])] * 3,
        (2, [("dora", 4)]),
    ]
    assert len(likes.told) == 3
