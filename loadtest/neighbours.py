"""
The neighbours: a few viewers of another tenant, in a room of their own with the same id.

Decides what happens next door while a run goes on: now and then a comment, some likes, a notice. Nothing of it may
reach the run's viewers, and nothing of the run these (I8, `oracle.py`); the id is the same so that nothing but the
tenant keeps the two apart. They are no load: a handful of viewers and a few commands a second, played by the process
that waits for the generators anyway. They are in no plan, no figure and no count but their own.
"""

import asyncio
import contextlib
import ssl
from itertools import count
from typing import Any, Final, Self

from websockets.uri import parse_uri

from loadtest import phrases
from loadtest.api import ApiError, MerchantApi, Refused
from loadtest.arrivals import stream
from loadtest.history import Neighbours, ProcessHistory, Recorder
from loadtest.plan import Actor
from loadtest.viewer import Desk, Viewer
from protocol.codec import CODECS

VIEWERS: Final = 4
PERIOD_S: Final = 0.25
COME_BACK_S: Final = 0.5
LEAVE_TIMEOUT_S: Final = 2.0
#: The process number of their history.
PROCESS: Final = -1


class NextDoor:
    """
    The neighbours of one run. Use as an async context manager: leaving it cuts what is still connected.

    `open` before the generators start, `begin` with them, `close` when they are done.
    """

    def __init__(self, api: MerchantApi, *, run: str, room: str, target: str, seed: int) -> None:
        self._api = api
        self._run = f"{run}n"
        self._room = room
        self._rng = stream(seed, "neighbours")
        uri = parse_uri(f"{target.rstrip('/')}/ws")
        self._ssl = ssl.create_default_context() if uri.secure else None
        self._desk = Desk(Recorder(CODECS["json"], self._run), room, uri)
        self._desk.on_close = self._lost
        self._viewers: list[Viewer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._cut()

    async def open(self, ttl_s: int) -> bool:
        """
        Create the room next door and get tokens for it; return whether there is such a tenant.

        Raises:
            ApiError: If the server does not answer.
        """
        try:
            await self._api.create_room(self._room, f"next door to {self._run}")
        except Refused as refusal:
            if refusal.code in ("unauthorized", "forbidden"):
                return False
            raise
        actors = [Actor("console", "隔壁主播", "streamer")]
        actors += [
            Actor(f"v{number}", phrases.viewer_name(self._rng), "viewer") for number in range(1, VIEWERS)
        ]
        tokens = await self._api.tokens(
            [
                {
                    "room": self._room,
                    "viewer": f"{self._run}-{actor.id}",
                    "role": actor.role,
                    "name": actor.name,
                    "ttl_s": ttl_s,
                }
                for actor in actors
            ]
        )
        self._viewers = [
            Viewer(self._desk, index, actor, f"{self._run}-{actor.id}", token)
            for index, (actor, token) in enumerate(zip(actors, tokens, strict=True))
        ]
        return True

    def begin(self, started_s: float) -> None:
        """Let everybody in; `started_s` is the start of the run on `time.monotonic()`."""
        self._desk.started_s = started_s
        for viewer in self._viewers:
            self._enter(viewer)
        if self._viewers:
            self._spawn(self._talk())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _enter(self, viewer: Viewer) -> None:
        if not self._ending:
            viewer.open(-1, self._desk.now_us())
            self._spawn(self._connect(viewer))

    async def _connect(self, viewer: Viewer) -> None:
        uri = self._desk.uri
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: viewer, uri.host, uri.port, ssl=self._ssl
            )
        except OSError as error:
            viewer.refused(f"connect_{type(error).__name__}")

    def _lost(self, viewer: Viewer) -> None:
        if not self._ending and not 4000 <= viewer.close_code < 4500:
            asyncio.get_running_loop().call_later(COME_BACK_S, self._enter, viewer)

    async def _talk(self) -> None:
        """Do one thing after the other, everybody in turn."""
        for number in count():
            await asyncio.sleep(PERIOD_S)
            viewer = self._viewers[number % len(self._viewers)]
            if not viewer.connected:
                continue
            command: dict[str, Any]
            if viewer.actor.role == "streamer":
                text = f"{self._rng.choice(phrases.NOTICES)} #{self._run}.{number}"
                command = {"cmd": "notice.set", "key": f"{self._run}-{number}", "text": text}
            elif self._rng.random() < 0.5:
                text = f"{self._rng.choice(phrases.COMMENTS)} #{self._run}.{number}"
                command = {"cmd": "comment.send", "key": f"{self._run}-{number}", "text": text}
            else:
                command = {"cmd": "like.send", "n": self._rng.randint(1, 5)}
            viewer.send(-1, command, self._desk.now_us())

    async def close(self) -> tuple[Neighbours, list[dict[str, Any]]]:
        """
        Make everybody leave; return what they saw, and the facts of their room.

        Cancelling this is safe: the connections are cut.

        Raises:
            ApiError: If the server does not answer.
        """
        self._ending = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for viewer in self._viewers:
                viewer.leave()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    # Asked now and then: nobody is told when a connection is gone.
                    while any(viewer.transport is not None for viewer in self._viewers):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        finally:
            self._cut()
        seen = ProcessHistory(
            PROCESS,
            self._desk.recorder.frames,
            [viewer.record() for viewer in self._viewers],
            [],
            self._desk.clock,
        )
        events = await self._api.events(self._room)
        with contextlib.suppress(ApiError):
            await self._api.close_room(self._room)
        return Neighbours(run=self._run, seen=seen), events

    def _cut(self) -> None:
        self._ending = True
        for task in self._tasks:
            task.cancel()
        for viewer in self._viewers:
            viewer.hang_up()
