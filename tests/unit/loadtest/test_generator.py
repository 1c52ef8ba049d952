"""`loadtest/generator.py`: who comes back when, who leaves when, and what a process that stood still says."""

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import cast

import pytest

from loadtest import generator as generators
from loadtest.generator import Generator, Share
from loadtest.history import Outcome
from loadtest.plan import Actor, Step
from loadtest.viewer import Asked, SlowViewer, Viewer
from tests.unit.loadtest.test_viewer import JOIN_REPLY, Wire

ACTORS = [
    Actor("console", "主播", "streamer"),
    Actor("v1", "小林", "viewer"),
    Actor("v2", "慢慢来", "viewer", 1, 500),
]


class Opened(Generator):
    """A generator whose connections are only noted."""

    def __init__(self, share: Share, orders: Connection, reports: Connection) -> None:
        super().__init__(share, orders, reports)
        self.opened: list[tuple[int, int]] = []

    def _open(self, viewer: Viewer, step: int, intended_us: int) -> None:
        viewer.open(step, intended_us)
        self.opened.append((viewer.index, step))


@pytest.fixture
def playing() -> Opened:
    orders, _ = multiprocessing.Pipe(duplex=False)
    _, reports = multiprocessing.Pipe(duplex=False)
    made = Opened(
        Share(
            process=0,
            run="run1",
            rooms=["r", "other"],
            target="ws://127.0.0.1:1",
            codec="json",
            connections=3,
            actors=dict(enumerate(ACTORS)),
            tokens={index: f"token-{index}" for index in range(3)},
            steps={0: Step(0, 1, "join", {}), 1: Step(10**12, 1, "leave", {})},
            comments_us={},
            sampled={0},
            late_us=250_000,
        ),
        orders,
        reports,
    )
    made._started_s = time.monotonic()
    return made


def inside(playing: Opened, index: int = 1) -> tuple[Viewer, Wire]:
    """Return a viewer who is in the room."""
    viewer, wire = playing._viewers[index], Wire()
    playing._return(viewer, 0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())
    viewer.data_received(JOIN_REPLY)
    assert viewer.connected
    return viewer, wire


def test_viewers_are_of_their_kind_and_room(playing: Opened) -> None:
    kinds = {index: type(viewer).__name__ for index, viewer in playing._viewers.items()}

    assert kinds == {0: "SampledViewer", 1: "Viewer", 2: "SlowViewer"}
    assert isinstance(playing._viewers[2], SlowViewer)
    assert [playing._viewers[index]._desk.room for index in range(3)] == ["r", "r", "other"]


def test_return_waits_for_the_last_connection_to_close(playing: Opened) -> None:
    viewer, _ = inside(playing)
    viewer.go_away()

    playing._return(viewer, 7, 500)

    assert playing.opened == [(1, 0)]
    viewer.connection_lost(None)
    assert playing.opened == [(1, 0), (1, 7)]


async def test_viewer_who_is_away_is_not_brought_back_early(playing: Opened) -> None:
    viewer, _ = inside(playing)
    viewer.go_away()
    viewer.connection_lost(None)

    playing._come_back(viewer)

    assert playing.opened == [(1, 0)]
    playing._return(viewer, 7, 500)
    assert playing.opened == [(1, 0), (1, 7)]


def test_return_of_one_who_never_got_away_changes_nothing(playing: Opened) -> None:
    viewer = playing._viewers[1]
    playing._return(viewer, 0, 0)
    # Still connecting, so there is nothing to drop.
    viewer.go_away()

    playing._return(viewer, 7, 500)

    assert playing.opened == [(1, 0)]
    assert not viewer.away


async def test_who_leaves_waits_for_the_answer_first(
    playing: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "DEPART_STEP_S", 0.001)
    viewer, wire = inside(playing)
    viewer.send(3, {"cmd": "seckill.claim", "sale": "s", "key": "run1-c1-1"}, 0)

    playing._depart(viewer, 1_000_000)
    await asyncio.sleep(0.01)

    assert not viewer.leaving
    asked: Asked = next(iter(viewer._pending.values()))
    viewer._pending.clear()
    playing._desks[0].outcomes.append(Outcome(asked.step, "seckill.claim", "sold_out", 0, 0, 0))
    async with asyncio.timeout(30):
        while not viewer.leaving:  # noqa: ASYNC110  (only the event loop's timers move it)
            await asyncio.sleep(0.001)
    assert viewer.left
    assert wire.sent[-1]["cmd"] == "room.leave"


def test_who_has_waited_long_enough_leaves_anyway(playing: Opened) -> None:
    viewer, _ = inside(playing)
    viewer.send(3, {"cmd": "seckill.claim", "sale": "s", "key": "run1-c1-1"}, 0)

    playing._depart(viewer, 0)

    assert viewer.left
    assert [outcome.code for outcome in playing._desks[0].outcomes if outcome.step == 3] == ["unanswered"]


async def test_process_that_stood_still_says_so(playing: Opened) -> None:
    beating = asyncio.get_running_loop().create_task(playing._beat())
    await asyncio.sleep(0)
    time.sleep(0.2)
    # Two turns: one in which the timer is due, one in which the task goes on.
    await asyncio.sleep(generators.BEAT_S)
    beating.cancel()

    assert playing._progress().stall_us > 100_000
    assert playing._progress().stall_us == 0


def test_progress_adds_up_the_rooms(playing: Opened) -> None:
    inside(playing)
    for desk, taps in zip(playing._desks, (3, 4), strict=True):
        desk.outcomes.append(Outcome(9, "like.send", "ok", 0, 0, 0, 0, taps))
        desk.fault("away")
        desk.recorder.stock["s"] = taps

    progress = playing._progress()

    assert (progress.connected, progress.joined) == (1, 1)
    assert progress.outcomes == {"room.join ok": 1, "like.send ok": 2}
    assert progress.faults == {"away": 2}
    assert playing._progress().outcomes == progress.outcomes
