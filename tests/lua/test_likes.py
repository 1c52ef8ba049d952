"""Function of `likes.lua`: a total that never falls and equals what was acknowledged, and a rate for each viewer."""

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


# --- rates: 5 commands a second, 10 at once -----------------------------------------------------------------


def test_burst_passes_and_the_next_is_told_to_wait(room: LuaRoom) -> None:
    reply = room.like(0, *[("anna", 2)] * 12)

    code, total, *refused = reply
    assert (code, total, refused[::2]) == ("ok", "20", ["11", "12"])
    assert all(100 < int(wait_ms) <= 200 for wait_ms in refused[1::2])


def test_rate_of_a_viewer_holds_over_workers(room: LuaRoom) -> None:
    assert room.like(0, *[("anna", 1)] * 10, worker="a", flush=1)[:2] == ["ok", "10"]

    code, total, place, _ = room.like(0, ("anna", 1), worker="b", flush=1)

    assert (code, total, place) == ("ok", "10", "1")


def test_viewers_have_buckets_of_their_own(room: LuaRoom) -> None:
    room.like(0, *[("anna", 1)] * 10)

    code, total, place, _ = room.like(5, ("bela", 3), ("anna", 1), ("carla", 50))

    assert (code, total, place) == ("ok", "68", "2")


def test_refused_commands_cost_nothing(room: LuaRoom) -> None:
    room.like(0, *[("anna", 1)] * 10)
    full_at = room.client.hget(room.names.like_rates, "anna")

    for _ in range(5):
        room.like(0, ("anna", 1))

    assert room.client.hget(room.names.like_rates, "anna") == full_at


def test_bucket_fills_again_with_time(room: LuaRoom) -> None:
    room.client.hset(room.names.like_rates, "anna", room.now() + 2_000 - 400)

    reply = room.like(0, *[("anna", 1)] * 4)

    # Two of them by what 400 ms give, a third perhaps by the slack of 50 ms and the time that passed.
    assert reply[:2] == ["ok", "2"]
    assert reply[2::2] == ["3", "4"]


def test_flush_sent_again_is_refused_the_same(room: LuaRoom) -> None:
    first = room.like(1, *[("anna", 1)] * 12, flush=1)
    room.like(4, worker="other", flush=1)

    with room.unchanged():
        again = room.like(1, *[("anna", 1)] * 12, flush=1)

    assert again == ["ok", "15", *first[2:]]


def test_flush_that_is_refused_whole_publishes_nothing(room: LuaRoom) -> None:
    room.like(0, *[("anna", 1)] * 10)
    room.wire.read()

    assert room.like(0, ("anna", 7))[:3] == ["ok", "10", "1"]
    assert room.wire.read() == []


def test_five_hundred_commands_fit_one_flush(room: LuaRoom) -> None:
    one = [("anna", 1)] * 500
    many = [(f"v-{number}", 1) for number in range(500)]

    assert len(room.like(0, *one)) == 2 + 2 * 490
    assert room.like(0, *many) == ["ok", "510"]


def test_room_that_is_not_live_takes_nothing_from_a_bucket(room: LuaRoom) -> None:
    room.set_meta(state="closed")

    with room.unchanged():
        assert room.like(0, ("anna", 1), flush=1) == ["room_not_live", '"state":"closed"']
