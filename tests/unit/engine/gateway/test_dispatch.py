"""What a connection's own commands leave behind: the batches of likes that are used up."""

from typing import Any

import pytest

from engine.errors import LiveroomError, RateLimited, StoreUnavailable
from engine.gateway.dispatch import Dispatcher
from engine.store.store import Answer, Answered
from protocol.codes import Role
from protocol.commands import SendLikes
from protocol.frames import Request


class Gatherer:
    """Lets everybody like; the test answers."""

    total = 7

    def __init__(self) -> None:
        self.added: list[tuple[int, Answered]] = []

    def allow(self, viewer: str, now_s: float) -> float:
        """Nobody is too fast."""
        return 0.0

    def add(self, viewer: str | None, likes: int, answered: Answered) -> None:
        """Write down."""
        self.added.append((likes, answered))


class Viewer:
    """A connection that writes down what it is told."""

    viewer = "anna"
    claims: Any = type("Claims", (), {"viewer": "anna", "role": Role.VIEWER})()
    sender = b"{}"
    room: Any = object()

    def __init__(self) -> None:
        self.last_like_batch = -1
        self.told: list[bytes | LiveroomError] = []

    def ok(self, command_id: int, body: bytes) -> None:
        """Done."""
        self.told.append(body)

    def refuse(self, command_id: int, error: LiveroomError) -> None:
        """Refused."""
        self.told.append(error)

    def close(self, code: int, reason: str = "") -> None:
        """No command of these tests closes."""
        raise AssertionError


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        (RateLimited(retry_ms=1), True),
        (StoreUnavailable("it never left"), True),
        (StoreUnavailable("no answer", definite=False), False),
    ],
)
def test_batch_of_likes_is_used_up_unless_it_was_refused_for_certain(
    refusal: LiveroomError, counts: bool
) -> None:
    gatherer, viewer = Gatherer(), Viewer()
    parts: Any = type("Parts", (), {})()
    parts.metrics = type("Metrics", (), {"command": lambda self, name: None})()
    parts.loop = type("Loop", (), {"time": lambda self: 0.0})()
    parts.likes = type("Likes", (), {"of": lambda self, room: gatherer})()
    dispatcher = Dispatcher(parts)

    def like() -> None:
        dispatcher.run(viewer, Request(id=1, command=SendLikes(n=3, batch=0), raw={}))

    def answer(said: Answer) -> None:
        gatherer.added.pop()[1](said)

    like()
    answer(refusal)
    like()

    assert viewer.told[0] is refusal
    if counts:
        answer(b"10")
        assert viewer.told[1] == b'{"total":10}'
    else:
        assert not gatherer.added
        assert viewer.told[1] == b'{"total":7}'
