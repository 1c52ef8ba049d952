"""Function of `likes.lua`: a total that never falls and equals what was acknowledged."""

import pytest

from tests.support.stores import LuaRoom


def test_likes_add_up_over_workers(room: LuaRoom) -> None:
    assert room.like(3, worker="a", flush=1) == ["ok", "3"]
    assert room.like(4, worker="ab", flush=1) == ["ok", "7"]
    assert room.like(5, worker="a", flush=2) == ["ok", "12"]


def test_total_is_published_as_a_gauge(room: LuaRoom) -> None:
    room.like(3)

    assert room.wire.read() == [("g likes", '{"ev":"likes","total":3}')]


@pytest.mark.parametrize("flush", [1, 2])
def test_flush_counts_once_however_often_it_is_sent(room: LuaRoom, flush: int) -> None:
    room.like(3, flush=1)
    room.like(4, flush=2)

    with room.unchanged():
        assert room.like(4, flush=flush) == ["ok", "7"]


def test_flush_numbers_may_jump(room: LuaRoom) -> None:
    room.like(1, flush=2**52)

    assert room.like(1, flush=2**52 + 1) == ["ok", "2"]


def test_large_totals_keep_every_digit(room: LuaRoom) -> None:
    room.set_meta(likes=2**53 - 51)

    assert room.like(50) == ["ok", str(2**53 - 1)]
    assert room.wire.read() == [("g likes", f'{{"ev":"likes","total":{2**53 - 1}}}')]


@pytest.mark.parametrize("state", ["scheduled", "closing", "closed"])
def test_room_that_is_not_live_counts_no_likes(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    with room.unchanged():
        assert room.like(1, flush=1) == ["room_not_live", f'"state":"{state}"']


def test_refused_flush_may_be_sent_again(room: LuaRoom) -> None:
    room.set_meta(state="scheduled")
    room.like(3, flush=1)
    room.set_meta(state="paused")

    assert room.like(3, flush=1) == ["ok", "3"]


def test_counted_flush_is_told_after_the_room_is_over(room: LuaRoom) -> None:
    room.like(3, flush=1)
    room.set_meta(state="closed")

    assert room.like(3, flush=1) == ["ok", "3"]


def test_missing_room_counts_no_likes(nowhere: LuaRoom) -> None:
    assert nowhere.like(1) == ["room_not_found", ""]
    assert nowhere.dump() == {}
