"""One link against a node that says what the test wants: which reply belongs to which call."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, ResponseError

from engine.errors import StoreUnavailable
from engine.store import link
from engine.store.batch import Group
from engine.store.functions import library
from engine.store.link import Link


class Transport:
    """What a link aborts when it lets go of a connection."""

    def abort(self) -> None:
        """Nothing is sent for real."""


class ScriptedConnection:
    """One connection to a node. Replies to what is sent in flights are put in, in order, by the test."""

    def __init__(self) -> None:
        self._writer = type("Writer", (), {"transport": Transport()})()
        self.replies: asyncio.Queue[Any] = asyncio.Queue()
        self.flights = 0

    async def connect(self) -> None:
        """Nobody to reach."""

    async def disconnect(self, nowait: bool = False) -> None:
        """Nobody to leave."""

    async def send_command(self, *words: Any, check_health: bool = True) -> None:
        """Load the library."""
        self.replies.put_nowait(b"OK")

    async def send_packed_command(self, packed: list[bytes], check_health: bool = True) -> None:
        """Take a flight."""
        self.flights += 1

    async def read_response(self, *, timeout: float, disable_decoding: bool = False) -> Any:
        """Return or raise the next reply."""
        reply = await self.replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply


class OneLink:
    """A cluster of one link, to which every group belongs until it is redirected."""

    def __init__(self) -> None:
        self.redirected: list[tuple[str, str, int]] = []

    def belongs(self, link: Link, group: Group) -> bool:
        """All are ours."""
        return not self.redirected

    def hand_over(self, group: Group) -> None:
        """End it: where it goes is not of interest here."""
        for done, header, own in group.answers(None, StoreUnavailable("handed over")):
            done(header, own, None)

    def moved(self, slot: int, host: str, port: int) -> None:
        """Note where to."""
        self.redirected.append(("moved", host, port))

    def ask_there(self, group: Group, host: str, port: int) -> None:
        """Note where to."""
        self.redirected.append(("asked", host, port))

    def failed(self) -> None:
        """A refusal is no news to anybody."""


async def test_refused_asking_does_not_shift_the_replies_of_the_calls_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = ScriptedConnection()
    monkeypatch.setattr(link, "make_connection", lambda url: connection)
    served = Link("redis://nowhere:1", library(), cluster=OneLink())
    answers: dict[str, Any] = {}

    def group(name: str, *, asking: bool) -> Group:
        def done(header: Any, own: Any, error: Exception | None) -> None:
            answers[name] = own if error is None else error

        deadline = asyncio.get_running_loop().time() + 20
        return Group("due_claim", ("k",), (0, 0), deadline, merged=False, waiting=[done], asking=asking)

    await served.start()
    served.take_over(group("asked", asking=True))
    served.take_over(group("next", asking=False))
    for reply in (ResponseError("NOPERM no permission to run 'asking'"), b"for asked", b"for next"):
        connection.replies.put_nowait(reply)
    await served.stop()

    assert answers == {"asked": b"for asked", "next": b"for next"}
    assert connection.replies.empty()


@pytest.mark.parametrize(("kind", "how"), [(MovedError, "moved"), (AskError, "asked")])
@pytest.mark.parametrize(
    ("place", "host"), [("10.0.0.9:7009", "10.0.0.9"), (":7009", "10.0.0.1"), ("?:7009", "10.0.0.1")]
)
async def test_redirection_is_followed_as_it_was_meant_and_without_a_host_to_the_one_that_was_asked(
    monkeypatch: pytest.MonkeyPatch, kind: type[AskError], how: str, place: str, host: str
) -> None:
    connection, cluster = ScriptedConnection(), OneLink()
    monkeypatch.setattr(link, "make_connection", lambda url: connection)
    served = Link("redis://me:secret@10.0.0.1:7001", library(), cluster=cluster)
    await served.start()

    served.call("due_claim", ("k",), (0, 0), lambda header, own, error: None)
    connection.replies.put_nowait(kind(f"12 {place}"))
    await served.stop()

    assert cluster.redirected == [(how, host, 7009)]
