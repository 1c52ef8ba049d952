"""A step that must not be forgotten is answered once its note is in the store, not before."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine import timers as timers_module
from engine.errors import LiveroomError, Overloaded, StoreUnavailable
from engine.gateway.console import Actor, Console
from engine.rooms.words import WordFilter
from engine.store.keys import RoomKey
from engine.store.replies import Answer, Answered
from engine.timers import Timers
from protocol import commands as c

ROOM = RoomKey("demo", "tea")
DONE: Answer = b'{"state":"closing"}'


class SlowStore:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Callable[[Exception | None], None]]] = []
        self.steps: list[Answered] = []
        #: Set when a second note was taken.
        self.noted_again = asyncio.Event()

    def due_add(self, member: str, in_ms: int, done: Callable[[Exception | None], None]) -> None:
        """Take a note."""
        self.notes.append((member, done))
        if len(self.notes) == 2:
            self.noted_again.set()

    def console(self, *arguments: Any) -> None:
        """Take a step; the last argument is who waits for it."""
        self.steps.append(arguments[-1])


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def timers(store: SlowStore) -> Timers:
    return Timers(store, streamer_grace_ms=1000, paused_close_ms=1000)  # type: ignore[arg-type]


def close_room(store: SlowStore, timers: Timers) -> list[Answer]:
    answers: list[Answer] = []
    console = Console(store, WordFilter(()), timers)  # type: ignore[arg-type]
    console.run(ROOM, c.CloseRoom(key="k"), Actor("host", 3), answers.append)
    return answers


async def test_step_is_answered_when_both_it_and_its_note_are_there(store: SlowStore, timers: Timers) -> None:
    answers = close_room(store, timers)
    [(member, noted)], [stepped] = store.notes, store.steps
    assert member == "settle|demo|tea|"

    stepped(DONE)
    assert answers == []
    noted(None)

    assert answers == [DONE]


async def test_order_of_the_two_does_not_matter(store: SlowStore, timers: Timers) -> None:
    answers = close_room(store, timers)

    store.notes[0][1](None)
    assert answers == []
    store.steps[0](DONE)

    assert answers == [DONE]


async def test_refused_step_needs_no_note(store: SlowStore, timers: Timers) -> None:
    answers = close_room(store, timers)
    refusal: LiveroomError = Overloaded("full")

    store.steps[0](refusal)

    assert answers == [refusal]


async def test_outcome_is_unknown_while_the_note_is_missing_and_the_note_is_tried_again(
    store: SlowStore, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "_LOOK_S_MAX", 0.0)
    answers = close_room(store, timers)

    store.steps[0](DONE)
    store.notes[0][1](StoreUnavailable("gone", definite=True))

    [answer] = answers
    assert isinstance(answer, StoreUnavailable)
    assert not answer.definite
    await store.noted_again.wait()
    assert store.notes[1][0] == store.notes[0][0]
