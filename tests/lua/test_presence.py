"""Functions of `presence.lua`: who is in the room, counted by viewer, safe against workers that die."""

from typing import Any

import orjson
import pytest

from tests.support.stores import AGENT, MODERATOR, OWNER, STREAMER, VIEWER, LuaRoom

LEASE_MS = 6_000
HOST_CHECK_MS = 15_000
GRACE_MS = 60_000
PATIENCE_MS = 600_000


def online(room: LuaRoom) -> dict[str, Any]:
    """Return the last count published."""
    told = [orjson.loads(payload) for header, payload in room.wire.read() if header == "g online"]
    return dict(told[-1])


def here_by(room: LuaRoom, worker: str) -> set[str]:
    """Return the viewers that a worker is known to have."""
    return set(room.client.smembers(room.names.present_on(worker)))


def lease_of(room: LuaRoom, worker: str) -> float | None:
    return room.client.zscore(room.names.leases, worker)


# --- join -----------------------------------------------------------------------------------------------------


def test_join_tells_where_the_room_stands(room: LuaRoom) -> None:
    room.notice("one")
    room.like(7)
    before = room.now()

    header, first, second = room.join("w", ("a", 1, VIEWER, "app"), ("a.b", 2, VIEWER, "app"))

    now, epoch, seq, here, peak, likes = header
    assert before <= int(now) <= room.now()
    assert (epoch, seq, here, peak, likes) == ("e0", "1", 2, 2, "7")
    assert [reply[:2] for reply in (first, second)] == [["ok", ""], ["ok", ""]]


def test_viewers_are_counted_and_not_connections(room: LuaRoom) -> None:
    room.join("w", ("a", 1, VIEWER, "app"), ("a", 2, VIEWER, "app"))
    room.join("v", ("a", 1, VIEWER, "app"), ("b", 2, VIEWER, "app"))

    assert room.present() == {"a": ["w.1", "w.2", "v.1"], "b": ["v.2"]}
    assert online(room) == {"ev": "online", "now": 2, "peak": 2}


def test_peak_stays_when_viewers_go(room: LuaRoom) -> None:
    room.join("w", ("a", 1, VIEWER, "app"), ("b", 2, VIEWER, "app"))
    room.leave("w", ("a", 1), ("b", 2))

    assert online(room) == {"ev": "online", "now": 0, "peak": 2}


def test_repeated_join_of_one_connection_holds_one_place(room: LuaRoom) -> None:
    for _ in range(3):
        assert room.enter("w", "a", 1)[0] == "ok"

    assert room.present() == {"a": ["w.1"]}


def test_connections_whose_number_begins_alike_are_others(room: LuaRoom) -> None:
    for connection in (1, 11, 111, 11):
        room.enter("w", "a", connection)
    room.leave("w", ("a", 1))

    assert room.present() == {"a": ["w.111", "w.11"]}


def test_sixth_connection_evicts_the_oldest_of_all_workers(room: LuaRoom) -> None:
    for connection, worker in enumerate(("w", "v", "w", "v", "w"), start=1):
        room.enter(worker, "a", connection)
    room.wire.read()

    room.enter("v", "a", 6)
    room.enter("w", "a", 7)

    assert room.present() == {"a": ["w.3", "v.4", "w.5", "v.6", "w.7"]}
    assert [header for header, _ in room.wire.read() if header.startswith("x")] == ["x w 1", "x v 2"]


def test_smaller_limit_evicts_as_many_as_needed(room: LuaRoom) -> None:
    room.join("w", *(("a", connection, VIEWER, "app") for connection in range(1, 5)))
    room.wire.read()

    room.join("w", ("a", 9, VIEWER, "app"), most=2)

    assert room.present() == {"a": ["w.4", "w.9"]}
    assert [h for h, _ in room.wire.read() if h.startswith("x")] == ["x w 1", "x w 2", "x w 3"]


def test_first_join_decides_the_entry_of_a_viewer(room: LuaRoom) -> None:
    room.enter("w", "a", 1, entry="app")
    room.leave("w", ("a", 1))
    room.enter("w", "a", 2, entry="official_account")
    room.enter("w", "a-b", 3, entry="unknown")

    assert room.client.hgetall(room.names.entries) == {"app": "1", "unknown": "1"}
    assert set(room.client.hkeys(room.names.viewers)) == {"a", "a-b"}


def test_arrival_is_shown_once_for_each_viewer(room: LuaRoom) -> None:
    room.enter("w", "a", 1)
    room.enter("w", "a", 2)

    ((header, payload),) = [(h, p) for h, p in room.wire.read() if h.startswith("c")]
    assert header == "c 0"
    event = orjson.loads(payload)
    assert (event["ev"], event["from"]) == ("arrived", {"id": "a"})


def test_storm_of_arrivals_shows_a_burst_of_four(room: LuaRoom) -> None:
    room.join("w", *((f"u{number}", number, VIEWER, "app") for number in range(50)))

    ((_, payload),) = [(h, p) for h, p in room.wire.read() if h.startswith("c")]
    assert [orjson.loads(line)["from"]["id"] for line in payload.split("\n")] == ["u0", "u1", "u2", "u3"]


def test_banned_viewer_stays_out_of_a_batch(room: LuaRoom) -> None:
    room.remove("bad", "ban")

    _, *replies = room.join("w", ("a", 1, VIEWER, "app"), ("bad", 2, VIEWER, "app"), ("b", 3, VIEWER, "app"))

    assert [reply[0] for reply in replies] == ["ok", "banned", "ok"]
    assert set(room.present()) == {"a", "b"}
    assert "bad" not in room.client.hkeys(room.names.viewers)


@pytest.mark.parametrize(("until_ms", "told"), [(60_000, True), (-1, False)])
def test_join_tells_a_running_mute_only(room: LuaRoom, until_ms: int, told: bool) -> None:
    until = room.now() + until_ms
    room.client.hset(room.names.mutes, "a", until)

    assert room.enter("w", "a")[1] == (str(until) if told else "")


def test_join_tells_a_mute_for_ever(room: LuaRoom) -> None:
    room.mute("a", 0)

    assert room.enter("w", "a")[1] == "0"


@pytest.mark.parametrize("state", ["scheduled", "live", "paused", "closing"])
def test_room_is_open_to_viewers_until_it_is_closed(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    assert room.enter("w", "a")[0] == "ok"


def test_closed_room_lets_nobody_in(room: LuaRoom) -> None:
    room.set_meta(state="closed")

    with room.unchanged():
        header, *replies = room.join("w", ("a", 1, VIEWER, "app"), ("b", 2, OWNER, "app"))
    assert header == []
    assert replies == [["room_not_live", '"state":"closed"']] * 2


def test_missing_room_lets_nobody_in(nowhere: LuaRoom) -> None:
    assert nowhere.join("w", ("a", 1, VIEWER, "app")) == [[], ["room_not_found", ""]]
    assert nowhere.dump() == {}


# --- roles ----------------------------------------------------------------------------------------------------


def test_rank_of_staff_is_remembered_and_viewers_have_none(room: LuaRoom) -> None:
    room.join("w", ("a", 1, VIEWER, "app"), ("b", 2, AGENT, "app"), ("c", 3, OWNER, "app"))

    assert room.client.hgetall(room.names.staff) == {"b": "1", "c": "4"}


def test_highest_rank_of_several_connections_counts(room: LuaRoom) -> None:
    room.enter("w", "a", 1, MODERATOR)
    room.enter("v", "a", 2, VIEWER)
    room.enter("w", "a", 3, STREAMER)
    room.enter("w", "a", 4, AGENT)

    assert room.client.hgetall(room.names.staff) == {"a": "3"}


def test_first_join_after_an_absence_sets_the_rank_anew(room: LuaRoom) -> None:
    room.enter("w", "a", 1, STREAMER)
    room.leave("w", ("a", 1))
    room.enter("w", "a", 2, AGENT)
    assert room.client.hget(room.names.staff, "a") == "1"

    room.leave("w", ("a", 2))
    room.enter("w", "a", 3, VIEWER)
    assert room.client.hget(room.names.staff, "a") is None


# --- leave ----------------------------------------------------------------------------------------------------


def test_viewer_is_gone_with_the_last_connection(room: LuaRoom) -> None:
    room.enter("w", "a", 1)
    room.enter("v", "a", 2)

    room.leave("w", ("a", 1))
    assert room.present() == {"a": ["v.2"]}
    assert here_by(room, "w") == set()
    assert here_by(room, "v") == {"a"}

    room.leave("v", ("a", 2))
    assert room.present() == {}
    assert online(room)["now"] == 0


def test_viewer_stays_with_a_worker_that_has_another_connection(room: LuaRoom) -> None:
    room.enter("w", "a", 1)
    room.enter("w", "a", 2)

    room.leave("w", ("a", 1))

    assert here_by(room, "w") == {"a"}


def test_leaving_twice_is_harmless(room: LuaRoom) -> None:
    room.enter("w", "a", 1)
    room.enter("w", "b", 2)

    assert room.leave("w", ("a", 1), ("a", 1)) == [[], ["ok"], ["ok"]]
    assert room.leave("w", ("a", 1)) == [[], ["ok"]]
    assert room.present() == {"b": ["w.2"]}


def test_leaving_worker_whose_name_begins_alike_takes_nothing_along(room: LuaRoom) -> None:
    room.enter("ab", "u", 1)
    room.enter("a", "u", 1)
    room.enter("b", "u", 1)

    room.leave("a", ("u", 1))

    assert room.present() == {"u": ["ab.1", "b.1"]}
    assert here_by(room, "ab") == {"u"}
    assert here_by(room, "a") == set()


def test_evicted_connection_that_leaves_last_is_forgotten(room: LuaRoom) -> None:
    room.enter("w", "a", 1)
    room.join("v", ("a", 2, VIEWER, "app"), most=1)
    room.leave("v", ("a", 2))

    room.leave("w", ("a", 1))

    assert here_by(room, "w") == set()


# --- leases ---------------------------------------------------------------------------------------------------


def test_join_and_beat_renew_the_lease(room: LuaRoom) -> None:
    before = room.now()
    room.enter("w", "a")
    assert before + LEASE_MS <= (lease_of(room, "w") or 0) <= room.now() + LEASE_MS

    room.expire_lease("w")
    before = room.now()
    room.beat("w")
    assert before + LEASE_MS <= (lease_of(room, "w") or 0) <= room.now() + LEASE_MS


def test_beat_tells_where_the_room_stands(room: LuaRoom) -> None:
    room.enter("w", "a")
    room.notice("one")
    room.like(2**40)

    now, epoch, seq, here, peak, likes, state, *dead = room.beat("w")

    assert int(now) <= room.now()
    assert (epoch, seq, here, peak, likes, state) == ("e0", "1", 1, 1, str(2**40), "live")
    assert dead == []


def test_beat_names_workers_whose_lease_ran_out(room: LuaRoom) -> None:
    for worker in ("a", "ab", "b"):
        room.enter(worker, f"u-{worker}")
    room.expire_lease("ab")

    assert room.beat("a")[7:] == ["ab"]


def test_beat_tells_a_worker_that_its_own_lease_ran_out(room: LuaRoom) -> None:
    """Its viewers may have been purged meanwhile, so it has to bring them in again."""
    room.enter("a", "u")
    room.expire_lease("a")

    assert room.beat("a")[7:] == ["a"]
    assert room.beat("a")[7:] == []


def test_worker_with_a_lease_is_not_purged(room: LuaRoom) -> None:
    room.enter("w", "a")

    with room.unchanged():
        assert room.purge("w") == ["alive"]


def test_purge_of_a_dead_worker_leaves_other_workers_connections(room: LuaRoom) -> None:
    room.join("a", ("both", 1, VIEWER, "app"), ("only", 2, VIEWER, "app"), ("u", 3, VIEWER, "app"))
    room.join("ab", ("both", 1, VIEWER, "app"), ("other", 2, VIEWER, "app"), ("u", 3, VIEWER, "app"))
    room.expire_lease("a")
    room.wire.read()

    assert room.purge("a") == ["ok", 0]

    assert room.present() == {"both": ["ab.1"], "other": ["ab.2"], "u": ["ab.3"]}
    assert here_by(room, "a") == set()
    assert here_by(room, "ab") == {"both", "other", "u"}
    assert lease_of(room, "a") is None
    assert lease_of(room, "ab") is not None
    assert online(room)["now"] == 3


def test_large_worker_is_purged_in_slices(room: LuaRoom) -> None:
    for start in range(0, 1_200, 400):
        room.join("w", *((f"u{number}", number, VIEWER, "app") for number in range(start, start + 400)))
    room.expire_lease("w")

    left = [room.purge("w")[1] for _ in range(3)]

    assert left == [700, 200, 0]
    assert room.present() == {}
    assert lease_of(room, "w") is None


def test_purge_stops_when_the_worker_is_back(room: LuaRoom) -> None:
    room.join("w", *((f"u{number}", number, VIEWER, "app") for number in range(600)))
    room.expire_lease("w")
    assert room.purge("w") == ["ok", 100]

    room.beat("w")

    assert room.purge("w") == ["alive"]
    assert len(room.present()) == 100


def test_purging_twice_is_harmless(room: LuaRoom) -> None:
    room.enter("w", "a")
    room.enter("v", "b")
    room.expire_lease("w")
    room.purge("w")

    assert room.purge("w") == ["ok", 0]
    assert room.present() == {"b": ["v.1"]}


# --- host_check -----------------------------------------------------------------------------------------------


def check(room: LuaRoom, patience_ms: int = PATIENCE_MS) -> list[Any]:
    return list(room.host_check(GRACE_MS, patience_ms))


def states(room: LuaRoom) -> list[tuple[str, str | None]]:
    return [(fact["state"], fact.get("reason")) for fact in room.facts() if fact["ev"] == "room.state"]


def host_leaves(room: LuaRoom) -> None:
    room.enter("w", "host-1.x", 1, STREAMER)
    room.leave("w", ("host-1.x", 1))


def test_room_that_no_streamer_ever_joined_is_watched_and_left_alone(room: LuaRoom) -> None:
    """The watch is noted before the join, which may have been refused."""
    room.enter("w", "mod", 2, MODERATOR)

    with room.unchanged():
        assert check(room) == ["watch", HOST_CHECK_MS]


def test_room_with_its_streamer_is_left_alone(room: LuaRoom) -> None:
    room.enter("w", "host-1.x", 1, STREAMER)

    with room.unchanged():
        assert check(room) == ["watch", HOST_CHECK_MS]


@pytest.mark.parametrize("rank", [VIEWER, AGENT, MODERATOR])
def test_others_do_not_stand_in_for_the_streamer(room: LuaRoom, rank: int) -> None:
    host_leaves(room)
    room.enter("w", "mod", 2, rank)

    code, wait_ms = check(room)

    assert (code, wait_ms) == ("watch", GRACE_MS)
    assert room.meta("host_gone_at") is not None


def test_owner_stands_in_for_the_streamer(room: LuaRoom) -> None:
    host_leaves(room)
    room.enter("w", "owner", 2, OWNER)

    assert check(room) == ["watch", HOST_CHECK_MS]


def test_room_is_paused_when_the_streamer_stays_away_for_the_grace(room: LuaRoom) -> None:
    host_leaves(room)
    check(room)
    assert states(room) == []
    room.set_meta(host_gone_at=room.now() - GRACE_MS)

    assert check(room) == ["paused", PATIENCE_MS]
    assert states(room) == [("paused", "streamer_gone")]
    assert room.meta("state") == "paused"


def test_check_during_the_grace_tells_what_is_left_of_it(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(host_gone_at=room.now() - 10_000)

    code, wait_ms = check(room)

    assert code == "watch"
    assert GRACE_MS - 11_000 < wait_ms <= GRACE_MS - 10_000


def test_streamer_on_a_dead_worker_is_gone(room: LuaRoom) -> None:
    room.enter("ab", "host-1.x", 1, STREAMER)
    room.enter("a", "viewer", 1)
    room.expire_lease("ab")

    assert check(room) == ["watch", GRACE_MS]


def test_streamer_back_within_the_grace_resets_it(room: LuaRoom) -> None:
    host_leaves(room)
    check(room)

    room.enter("w", "host-1.x", 2, STREAMER)

    assert room.meta("host_gone_at") is None
    assert check(room) == ["watch", HOST_CHECK_MS]


def test_streamer_back_in_a_paused_room_sets_it_live_again(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(host_gone_at=room.now() - GRACE_MS)
    check(room)

    header, _ = room.join("w", ("host-1.x", 2, STREAMER, "app"))

    assert states(room) == [("paused", "streamer_gone"), ("live", "streamer_back")]
    assert header[2] == "2"


def test_viewer_in_a_paused_room_does_not_set_it_live(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(host_gone_at=room.now() - GRACE_MS)
    check(room)

    room.enter("w", "mod", 2, MODERATOR)

    assert room.meta("state") == "paused"


def test_streamer_joining_a_room_paused_by_hand_leaves_it_paused(room: LuaRoom) -> None:
    room.step("live", "paused")

    room.enter("w", "host-1.x", 1, STREAMER)

    assert room.meta("state") == "paused"


def test_room_paused_for_the_streamer_is_closed_after_the_patience(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(state="paused", state_reason="streamer_gone", state_at=room.now() - 10_000)
    code, wait_ms = check(room)
    assert code == "watch"
    assert PATIENCE_MS - 11_000 < wait_ms <= PATIENCE_MS - 10_000

    room.set_meta(state_at=room.now() - PATIENCE_MS)
    assert check(room) == ["closing"]
    assert states(room) == [("closing", "streamer_gone")]
    assert check(room) == ["done"]


def test_patience_of_zero_never_closes(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(state="paused", state_reason="streamer_gone", state_at=1)

    assert check(room, patience_ms=0) == ["watch", HOST_CHECK_MS]
    assert room.meta("state") == "paused"


@pytest.mark.parametrize("state", ["scheduled", "paused"])
def test_room_that_is_not_live_is_only_watched(room: LuaRoom, state: str) -> None:
    host_leaves(room)
    room.set_meta(state=state)

    assert check(room) == ["watch", HOST_CHECK_MS]
    assert states(room) == []


@pytest.mark.parametrize("state", ["closing", "closed"])
def test_room_that_is_over_is_not_watched(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    with room.unchanged():
        assert check(room) == ["done"]


def test_room_set_live_by_hand_while_the_streamer_is_away_gets_a_new_grace(room: LuaRoom) -> None:
    host_leaves(room)
    room.set_meta(host_gone_at=room.now() - GRACE_MS)
    check(room)

    room.step("paused", "live")

    assert check(room) == ["watch", GRACE_MS]
    assert room.meta("state") == "live"


def test_pause_by_hand_and_resume_begin_a_new_grace(room: LuaRoom) -> None:
    host_leaves(room)
    check(room)
    room.step("live", "paused")
    check(room)
    room.set_meta(state="live")

    assert check(room) == ["watch", GRACE_MS]
