"""What a room remembers of its gauges."""

import itertools

import orjson
import pytest

from engine.fanout.memory import RoomMemory
from engine.rooms.recovery import RoomRead


def a_memory(likes: int = 0) -> RoomMemory:
    memory = RoomMemory()
    memory.load(a_read(likes))
    return memory


def a_read(likes: int) -> RoomRead:
    return RoomRead(
        now_ms=1, epoch="e", seq=0, view={"comments": []}, comments=[], facts=[], likes=likes, online=0, peak=0,
        gauges={}, audit={}, change=0, sold={},
    )  # fmt: skip


def by_bus(memory: RoomMemory, total: int) -> None:
    memory.fold_gauge("likes", orjson.dumps({"ev": "likes", "total": total}))


def by_join(memory: RoomMemory, total: int) -> None:
    memory.observe(1, 1, total)


def by_flush(memory: RoomMemory, total: int) -> None:
    memory.learn_likes(total)


def by_reading(memory: RoomMemory, total: int) -> None:
    memory.expect_gauges()
    memory.refresh_gauges(a_read(total))


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product((by_bus, by_join, by_flush, by_reading), repeat=2))
)
def test_total_of_likes_never_falls_whoever_tells_it_late(first, second) -> None:  # type: ignore[no-untyped-def]
    """`likes`: never decreasing. The bus, joins and flushes travel on their own; any of them may be late."""
    memory = a_memory(3)
    first(memory, 980)
    second(memory, 960)

    assert memory.likes == 980
    assert memory.gauges()["likes"] == 980
    assert orjson.loads(memory.gauge("likes")) == {"ev": "likes", "total": 980}


def test_state_that_was_lost_begins_anew_with_what_the_store_has() -> None:
    memory = a_memory(980)

    memory.load(a_read(12))

    assert memory.gauges()["likes"] == 12
