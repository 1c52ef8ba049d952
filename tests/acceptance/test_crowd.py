"""The benchmarks' crowd, in C and in Python, sees what a server really did: it is no easier to please than a viewer."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import crowd as crowd_module
from benchmarks.crowd import Crowd, Run, crowd
from benchmarks.native import HERE, NotCompiled, compiled

VIEWERS = 5
EVENTS = 20


@pytest.fixture(params=["c", "python"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use one of the two clients."""
    if request.param == "c":
        try:
            command = [str(compiled(HERE / "crowd.c"))]
        except NotCompiled as reason:
            pytest.skip(str(reason))
    else:
        command = [sys.executable, "-m", "benchmarks.crowd_slow"]
    monkeypatch.setattr(crowd_module, "program", lambda: (command, request.param))
    return str(request.param)


class Liar:
    """A server that passes events on, but not quite all of them to everybody."""

    def __init__(
        self, *, skipped: int = -1, repeated: int = -1, hung_up: int = -1, together: bool = False
    ) -> None:
        self.skipped, self.repeated, self.hung_up, self.together = skipped, repeated, hung_up, together
        self.viewers: list[ServerConnection] = []
        self.held: list[str] = []

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path != "/publish":
            self.viewers.append(connection)
            await connection.wait_closed()
            return
        number = 0
        async for event in connection:
            await self.pass_on(number, str(event))
            number += 1

    async def pass_on(self, number: int, event: str) -> None:
        if self.together and number % 2 == 0:
            self.held.append(event)
            return
        text = ",".join([*self.held, event])
        self.held.clear()
        first = self.viewers[0]
        for viewer in self.viewers:
            if viewer is not first or number != self.skipped:
                await viewer.send(text)
        if number == self.repeated:
            await first.send(text)
        if number == self.hung_up:
            self.viewers.remove(first)
            await first.close(4501)


@contextlib.asynccontextmanager
async def listening(liar: Liar) -> AsyncIterator[int]:
    async with serve(liar.handle, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def watch(port: int, grace_s: float) -> Run:
    def run(client: Crowd) -> Run:
        opening = client.open(VIEWERS + 1)
        assert (opening.joined, opening.failed) == (VIEWERS + 1, 0)
        client.publish_as('{"text":"#"}', 100)
        return client.run(per_s=200, events=EVENTS, grace_s=grace_s)

    with crowd(port, mode="plain", viewers=VIEWERS) as client:
        return run(client)


async def seen(liar: Liar, *, grace_s: float = 30.0) -> Run:
    """Return what the crowd says of a server. It waits no longer than it takes for everything to arrive."""
    async with listening(liar) as port:
        return await asyncio.to_thread(watch, port, grace_s)


async def test_honest_server_is_whole(client: str) -> None:
    run = await seen(Liar())

    assert run.whole
    assert run.delivered == 1.0
    assert (run.received, run.frames, run.bytes) == (
        EVENTS * VIEWERS,
        EVENTS * VIEWERS,
        EVENTS * VIEWERS * 111,
    )
    assert sum(run.delays.values()) == EVENTS * VIEWERS


async def test_events_that_share_a_frame_are_all_found(client: str) -> None:
    run = await seen(Liar(together=True))

    assert run.whole
    assert run.events_per_frame == 2.0


async def test_skipped_event_is_missed(client: str) -> None:
    run = await seen(Liar(skipped=7), grace_s=3.0)

    assert not run.whole
    assert (run.gaps, run.repeats, run.complete) == (1, 0, VIEWERS - 1)
    assert run.received == EVENTS * VIEWERS - 1


async def test_skipped_last_event_is_missed_too(client: str) -> None:
    run = await seen(Liar(skipped=EVENTS - 1), grace_s=3.0)

    assert not run.whole
    assert run.received == EVENTS * VIEWERS - 1


async def test_repeated_event_is_no_second_delivery(client: str) -> None:
    run = await seen(Liar(repeated=7))

    assert not run.whole
    assert (run.gaps, run.repeats, run.received) == (0, 1, EVENTS * VIEWERS)


async def test_lost_connection_is_counted_with_its_code_and_what_it_missed(client: str) -> None:
    run = await seen(Liar(hung_up=10))

    assert not run.whole
    assert (run.lost, run.last_close_code, run.listeners) == (1, 4501, VIEWERS - 1)
    assert run.received == EVENTS * (VIEWERS - 1) + 11
    assert run.delivered == run.received / (EVENTS * VIEWERS)
