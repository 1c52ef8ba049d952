"""Functions of `comments.lua`: accept, delete, pin."""

import orjson
import pytest

from tests.support.stores import (
    MODERATOR,
    OWNER,
    STREAMER,
    VIEWER,
    LuaRoom,
    fresh_key,
)


def numbers(room: LuaRoom) -> list[str]:
    """Return the places of the comments that are kept."""
    return [place for place, _ in room.client.xrange(room.names.comments)]


# --- accepting ------------------------------------------------------------------------------------------------


def test_comments_are_numbered_from_one_without_gaps(room: LuaRoom) -> None:
    assert [room.say("anna") for _ in range(3)] == [["ok", "1"], ["ok", "2"], ["ok", "3"]]

    assert numbers(room) == ["1-0", "2-0", "3-0"]
    assert room.meta("comment") == "3"


def test_batch_is_answered_in_order_and_published_at_once(room: LuaRoom) -> None:
    room.say("anna")
    room.wire.read()

    replies = room.post(
        ("a", VIEWER, fresh_key(), "f", "多少钱?"), ("a-b.c", VIEWER, fresh_key(), "f", 'line\n"two"')
    )

    assert replies == [["ok", "2"], ["ok", "3"]]
    ((header, payload),) = room.wire.read()
    assert header == "c 2"
    events = [orjson.loads(line) for line in payload.split("\n")]
    assert [(e["ev"], e["comment"], e["from"]["id"], e["text"]) for e in events] == [
        ("comment", 2, "a", "多少钱?"),
        ("comment", 3, "a-b.c", 'line\n"two"'),
    ]


def test_refused_comments_of_a_batch_take_no_number(room: LuaRoom) -> None:
    room.mute("bad", 0)
    room.wire.read()

    replies = room.post(
        *((viewer, VIEWER, fresh_key(), "f", "hi") for viewer in ("a", "bad", "b", "bad", "c"))
    )

    assert [reply[0] for reply in replies] == ["ok", "muted", "ok", "muted", "ok"]
    assert [reply[1] for reply in replies if reply[0] == "ok"] == ["1", "2", "3"]
    assert len(room.wire.read()[0][1].split("\n")) == 3


def test_kept_comment_is_the_published_one(room: LuaRoom) -> None:
    before = room.now()
    room.say("anna", "hi", rank=VIEWER)

    ((_, payload),) = room.wire.read()
    ((_, fields),) = room.client.xrange(room.names.comments)
    event = orjson.loads(payload)
    assert event.pop("ev") == "comment"
    assert orjson.loads(fields["c"]) == event
    assert before <= event["at"] <= room.now()


def test_comment_repeated_with_its_key_keeps_its_number(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.say("anna", key=key)
    room.say("ben")

    with room.unchanged():
        assert room.say("anna", key=key) == first == ["ok", "1"]


def test_comment_twice_in_one_batch_is_accepted_once(room: LuaRoom) -> None:
    key = fresh_key()
    comment = ("anna", VIEWER, key, "f", "hi")

    assert room.post(comment, ("ben", VIEWER, fresh_key(), "f", "yo"), comment) == [
        ["ok", "1"],
        ["ok", "2"],
        ["ok", "1"],
    ]


def test_same_key_with_another_text_is_a_conflict(room: LuaRoom) -> None:
    key = fresh_key()
    room.say("anna", key=key, fingerprint="f1")

    with room.unchanged():
        assert room.say("anna", key=key, fingerprint="f2")[0] == "conflict"


def test_key_of_another_viewer_is_another_key(room: LuaRoom) -> None:
    key = fresh_key()

    assert [room.say(viewer, key=key)[1] for viewer in ("a", "a-b", "a.b")] == ["1", "2", "3"]


def test_refusal_is_not_remembered(room: LuaRoom) -> None:
    key = fresh_key()
    room.mute_all(True)
    assert room.say("anna", key=key)[0] == "muted"
    room.mute_all(False)

    assert room.say("anna", key=key) == ["ok", "1"]


def test_accepted_comment_is_told_again_whatever_happened_since(room: LuaRoom) -> None:
    key = fresh_key()
    room.say("anna", key=key)
    room.mute("anna", 0)
    room.set_meta(state="closed")

    assert room.say("anna", key=key) == ["ok", "1"]


@pytest.mark.parametrize("state", ["scheduled", "closing", "closed"])
def test_room_that_is_not_live_takes_no_comments(room: LuaRoom, state: str) -> None:
    room.set_meta(state=state)

    with room.unchanged():
        assert room.say("anna", rank=OWNER) == ["room_not_live", f'"state":"{state}"']


def test_paused_room_takes_comments(room: LuaRoom) -> None:
    room.set_meta(state="paused")

    assert room.say("anna")[0] == "ok"


def test_missing_room_refuses_every_comment_of_a_batch(nowhere: LuaRoom) -> None:
    comments = [("a", VIEWER, fresh_key(), "f", "hi") for _ in range(3)]

    assert [reply[0] for reply in nowhere.post(*comments)] == ["room_not_found"] * 3
    assert nowhere.dump() == {}


def test_mute_all_tells_that_it_is_for_all(room: LuaRoom) -> None:
    room.mute_all(True)

    with room.unchanged():
        assert room.say("anna") == ["muted", '"until":0,"all":true']


def test_muted_staff_is_refused_too(room: LuaRoom) -> None:
    """A mute comes from a higher role, so no role below it is exempt."""
    room.enter("w", "mod", rank=MODERATOR)
    assert room.mute("mod", rank=STREAMER)[0] == "ok"

    with room.unchanged():
        assert room.say("mod", rank=MODERATOR) == ["muted", '"until":0']


def test_newest_ten_thousand_comments_are_kept(room: LuaRoom) -> None:
    with room.client.pipeline(transaction=False) as pipe:
        for number in range(1, 10_301):
            pipe.xadd(room.names.comments, {"c": "{}", "v": "a", "r": 0}, id=f"{number}-0")
        pipe.execute()
    room.set_meta(comment=10_300)

    room.say("anna")

    # Trimmed by whole nodes of the stream, so a few more may be held.
    assert 10_000 <= room.client.xlen(room.names.comments) <= 10_100
    assert numbers(room)[-1] == "10301-0"


# --- the rate -------------------------------------------------------------------------------------------------


def test_burst_passes_and_the_next_is_told_how_long_to_wait(room: LuaRoom) -> None:
    replies = [room.say("anna", cost_ms=60_000, burst_ms=120_000) for _ in range(4)]

    assert [reply[0] for reply in replies] == ["ok", "ok", "ok", "rate_limited"]
    wait_ms = orjson.loads("{" + replies[3][1] + "}")["retry_ms"]
    assert 0 < wait_ms <= 60_000


def test_rate_is_counted_for_each_viewer(room: LuaRoom) -> None:
    assert room.say("a", cost_ms=60_000)[0] == "ok"
    assert room.say("a", cost_ms=60_000)[0] == "rate_limited"
    assert room.say("a.b", cost_ms=60_000)[0] == "ok"


def test_rate_limited_comment_writes_nothing_and_costs_nothing(room: LuaRoom) -> None:
    room.say("anna", cost_ms=60_000)

    with room.unchanged():
        assert room.say("anna", cost_ms=60_000)[0] == "rate_limited"


def test_viewer_whose_bucket_is_full_again_may_comment(room: LuaRoom) -> None:
    room.say("anna", cost_ms=60_000)
    room.client.hset(room.names.rates, "anna", room.now() - 1)

    assert room.say("anna", cost_ms=60_000)[0] == "ok"


def test_moderators_and_higher_have_no_rate(room: LuaRoom) -> None:
    room.put(slow_ms=60_000)

    for rank in (MODERATOR, STREAMER, OWNER):
        assert [room.say(f"u{rank}", rank=rank, cost_ms=60_000)[0] for _ in range(3)] == ["ok"] * 3


def test_slow_mode_replaces_rate_and_burst(room: LuaRoom) -> None:
    room.put(slow_ms=3_000)

    assert room.say("anna", cost_ms=0, burst_ms=600_000)[0] == "ok"
    code, extra = room.say("anna", cost_ms=0, burst_ms=600_000)
    assert code == "rate_limited"
    assert 0 < orjson.loads("{" + extra + "}")["retry_ms"] <= 3_000


def test_repeated_comment_costs_no_rate(room: LuaRoom) -> None:
    key = fresh_key()
    room.say("anna", key=key, cost_ms=60_000, burst_ms=60_000)
    for _ in range(5):
        room.say("anna", key=key, cost_ms=60_000, burst_ms=60_000)

    assert room.say("anna", cost_ms=60_000, burst_ms=60_000)[0] == "ok"


# --- delete ---------------------------------------------------------------------------------------------------


def test_deleted_comment_leaves_replay_and_screens(room: LuaRoom) -> None:
    room.say("anna", "one")
    room.say("anna", "two")

    assert room.delete_comment(1) == ["ok", "{}"]
    assert numbers(room) == ["2-0"]
    (fact,) = room.facts()
    assert (fact["ev"], fact["comment"]) == ("comment.deleted", 1)
    assert orjson.loads(room.audit()[-1]["before"])["text"] == "one"


def test_deleted_number_is_not_used_again(room: LuaRoom) -> None:
    room.say("anna")
    room.delete_comment(1)

    assert room.say("anna") == ["ok", "2"]


@pytest.mark.parametrize("comment", [1, 2**53 - 1])
def test_deleting_a_missing_comment_is_not_found(room: LuaRoom, comment: int) -> None:
    with room.unchanged():
        assert room.delete_comment(comment) == ["not_found", ""]


@pytest.mark.parametrize("author", [MODERATOR, STREAMER])
def test_comment_of_an_equal_or_higher_role_stays(room: LuaRoom, author: int) -> None:
    room.say("other", rank=author)

    with room.unchanged():
        assert room.delete_comment(1, rank=MODERATOR) == ["forbidden", ""]


def test_own_comment_may_be_deleted_at_any_rank(room: LuaRoom) -> None:
    room.say("boss-1.x", rank=MODERATOR)

    assert room.delete_comment(1, actor="boss-1.x", rank=MODERATOR)[0] == "ok"


def test_deleting_the_pinned_comment_unpins_it(room: LuaRoom) -> None:
    room.say("anna")
    room.pin(1)

    room.delete_comment(1)

    told = [(fact["ev"], fact["comment"]) for fact in room.facts()[1:]]
    assert told == [("comment.deleted", 1), ("comment.pinned", None)]
    assert room.meta("pinned") is None
    assert room.meta("pinned_json") is None


def test_deleting_another_comment_leaves_the_pin(room: LuaRoom) -> None:
    for _ in range(11):
        room.say("anna")
    room.pin(11)

    room.delete_comment(1)

    assert room.meta("pinned") == "11"


# --- pin, unpin -----------------------------------------------------------------------------------------------


def test_pinned_comment_is_told_whole(room: LuaRoom) -> None:
    room.say("anna", "看这里")

    assert room.pin(1) == ["ok", "{}"]
    (fact,) = room.facts()
    assert fact["ev"] == "comment.pinned"
    assert (fact["comment"]["comment"], fact["comment"]["text"]) == (1, "看这里")
    assert orjson.loads(room.meta("pinned_json") or "") == fact["comment"]


def test_next_pin_replaces_the_first_in_one_fact(room: LuaRoom) -> None:
    room.say("anna")
    room.say("anna")
    room.pin(1)
    room.pin(2)

    assert [fact["comment"]["comment"] for fact in room.facts()] == [1, 2]
    assert room.audit()[-1]["before"] == "1"


def test_pinning_the_pinned_comment_is_no_fact(room: LuaRoom) -> None:
    room.say("anna")
    room.pin(1)

    assert room.pin(1) == ["ok", "{}"]
    assert len(room.facts()) == 1


def test_pinning_a_missing_comment_is_not_found(room: LuaRoom) -> None:
    with room.unchanged():
        assert room.pin(1) == ["not_found", ""]


def test_unpin_ends_the_pin(room: LuaRoom) -> None:
    room.say("anna")
    room.pin(1)

    assert room.unpin(1) == ["ok", "{}"]
    assert room.facts()[-1]["comment"] is None
    with room.unchanged():
        assert room.unpin(1) == ["not_found", ""]


def test_unpin_of_another_comment_is_not_found(room: LuaRoom) -> None:
    for _ in range(11):
        room.say("anna")
    room.pin(11)

    with room.unchanged():
        assert room.unpin(1) == ["not_found", ""]


def test_pinned_comment_that_has_left_the_replay_can_be_unpinned(room: LuaRoom) -> None:
    room.say("anna")
    room.pin(1)
    room.client.xdel(room.names.comments, "1-0")

    assert room.unpin(1) == ["ok", "{}"]
