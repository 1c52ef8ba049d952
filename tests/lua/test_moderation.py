"""Functions of `moderation.lua`: mute, kick, ban, mute all."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.support.stores import AGENT, MODERATOR, OWNER, STREAMER, VIEWER, LuaRoom, fresh_key

#: What one person does to another, by name.
ACTS: dict[str, Callable[..., Any]] = {
    "mute": lambda room, viewer, **who: room.mute(viewer, **who),
    "unmute": lambda room, viewer, **who: room.unmute(viewer, **who),
    "kick": lambda room, viewer, **who: room.remove(viewer, "kick", **who),
    "ban": lambda room, viewer, **who: room.remove(viewer, "ban", **who),
}


# --- who may act on whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("rank", [MODERATOR, STREAMER, OWNER])
@pytest.mark.parametrize("target", [VIEWER, AGENT, MODERATOR, STREAMER, OWNER])
def test_nobody_acts_on_an_equal_or_higher_role(room: LuaRoom, act: str, rank: int, target: int) -> None:
    room.enter("w", "u-1.x", rank=target)

    if target >= rank:
        with room.unchanged():
            assert ACTS[act](room, "u-1.x", rank=rank) == ["forbidden", ""]
    else:
        assert ACTS[act](room, "u-1.x", rank=rank)[0] == "ok"


@pytest.mark.parametrize("act", ACTS)
def test_nobody_acts_on_themselves(room: LuaRoom, act: str) -> None:
    with room.unchanged():
        assert ACTS[act](room, "boss-1.x", actor="boss-1.x", rank=OWNER) == ["forbidden", ""]


@pytest.mark.parametrize("act", ACTS)
def test_absent_viewers_can_be_acted_on(room: LuaRoom, act: str) -> None:
    assert ACTS[act](room, "never-here", rank=MODERATOR)[0] == "ok"


def test_role_outlives_the_connection(room: LuaRoom) -> None:
    room.enter("w", "mod", rank=MODERATOR)
    room.leave("w", ("mod", 1))

    assert room.mute("mod", rank=MODERATOR) == ["forbidden", ""]


def test_role_given_up_protects_no_longer(room: LuaRoom) -> None:
    room.enter("w", "mod", rank=MODERATOR)
    room.leave("w", ("mod", 1))
    room.enter("w", "mod", 2, rank=VIEWER)

    assert room.mute("mod", rank=MODERATOR)[0] == "ok"


def test_second_page_with_a_lesser_token_keeps_the_role(room: LuaRoom) -> None:
    room.enter("w", "host", 1, rank=STREAMER)
    room.enter("w", "host", 2, rank=VIEWER)

    assert room.remove("host", "kick", rank=MODERATOR) == ["forbidden", ""]


def test_viewers_whose_id_begins_alike_are_others(room: LuaRoom) -> None:
    room.enter("w", "a", rank=OWNER)
    room.mute("a.b")

    assert room.say("a.b")[0] == "muted"
    assert room.say("a", rank=OWNER)[0] == "ok"
    assert room.say("a.b-c")[0] == "ok"


# --- mute, unmute ---------------------------------------------------------------------------------------------


def test_mute_for_ever_has_no_end(room: LuaRoom) -> None:
    assert room.mute("anna", 0) == ["ok", '{"until":0}']

    assert room.say("anna") == ["muted", '"until":0']


def test_mute_ends_after_its_seconds_on_the_stores_clock(room: LuaRoom) -> None:
    before = room.now()
    _, reply = room.mute("anna", 315_360_000)

    until = orjson.loads(reply)["until"]
    assert before + 315_360_000_000 <= until <= room.now() + 315_360_000_000
    assert room.say("anna") == ["muted", f'"until":{until}']


def test_mute_is_told_to_the_viewer_alone(room: LuaRoom) -> None:
    room.mute("u-1.x", 0)

    assert room.wire.read() == [("p u-1.x", '{"ev":"you.muted","until":0}')]
    assert room.facts() == []


def test_muting_again_replaces_the_end(room: LuaRoom) -> None:
    room.mute("anna", 0)
    _, reply = room.mute("anna", 60)

    until = orjson.loads(reply)["until"]
    assert room.client.hget(room.names.mutes, "anna") == str(until)
    assert room.audit()[-1]["before"] == "0"


def test_mute_that_has_ended_refuses_nothing(room: LuaRoom) -> None:
    room.client.hset(room.names.mutes, "anna", room.now() - 1)

    assert room.say("anna")[0] == "ok"


def test_mute_refuses_comments_and_nothing_else(room: LuaRoom) -> None:
    room.mute("anna", 0)

    assert room.enter("w", "anna")[:2] == ["ok", "0"]
    assert room.like(1)[0] == "ok"


def test_unmuted_viewer_comments_again_and_is_told(room: LuaRoom) -> None:
    room.mute("anna", 0)
    room.wire.read()

    assert room.unmute("anna") == ["ok", "{}"]
    assert room.wire.read() == [("p anna", '{"ev":"you.muted","until":null}')]
    assert room.say("anna")[0] == "ok"


def test_unmuting_who_is_not_muted_tells_nobody(room: LuaRoom) -> None:
    assert room.unmute("anna") == ["ok", "{}"]

    assert room.wire.read() == []


def test_mute_repeated_with_its_key_does_not_undo_a_later_unmute(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.mute("anna", 60, key=key)
    room.unmute("anna")

    with room.unchanged():
        assert room.mute("anna", 60, key=key) == first
    assert room.say("anna")[0] == "ok"


# --- kick, ban, unban -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kick", "ban"])
def test_removal_is_a_fact(room: LuaRoom, how: str) -> None:
    assert room.remove("u-1.x", how) == ["ok", "{}"]

    (fact,) = room.facts()
    assert (fact["ev"], fact["viewer"], fact["how"]) == ("viewer.removed", "u-1.x", how)


def test_kicked_viewer_may_come_back_and_a_banned_one_may_not(room: LuaRoom) -> None:
    room.remove("kicked", "kick")
    room.remove("banned", "ban")

    assert room.enter("w", "kicked")[0] == "ok"
    assert room.enter("w", "banned") == ["banned", ""]
    assert list(room.present()) == ["kicked"]


def test_kick_after_a_ban_leaves_the_ban(room: LuaRoom) -> None:
    room.remove("anna", "ban")
    room.remove("anna", "kick")

    assert room.enter("w", "anna")[0] == "banned"
    assert orjson.loads(room.audit()[-1]["before"]) == {"banned": True}


def test_unbanned_viewer_comes_in_again(room: LuaRoom) -> None:
    room.remove("anna", "ban")

    assert room.unban("anna") == ["ok", "{}"]
    assert room.enter("w", "anna")[0] == "ok"


def test_nobody_unbans_an_equal_or_higher_role(room: LuaRoom) -> None:
    room.enter("w", "host", rank=STREAMER)
    room.remove("host", "ban", rank=OWNER)

    with room.unchanged():
        assert room.unban("host", rank=MODERATOR)[0] == "forbidden"
    assert room.unban("host", rank=OWNER)[0] == "ok"


def test_unbanning_who_is_not_banned_is_no_error(room: LuaRoom) -> None:
    assert room.unban("anna") == ["ok", "{}"]

    assert orjson.loads(room.audit()[-1]["before"]) == {"banned": False}
    assert room.facts() == []


# --- mute all -------------------------------------------------------------------------------------------------


def test_mute_all_refuses_everyone_below_moderator(room: LuaRoom) -> None:
    assert room.mute_all(True) == ["ok", "{}"]

    replies = {
        rank: room.say(f"u{rank}", rank=rank)[0] for rank in (VIEWER, AGENT, MODERATOR, STREAMER, OWNER)
    }
    assert replies == {VIEWER: "muted", AGENT: "muted", MODERATOR: "ok", STREAMER: "ok", OWNER: "ok"}


def test_end_of_mute_all_is_a_fact_too(room: LuaRoom) -> None:
    room.mute_all(True)
    room.mute_all(False)

    assert [fact["on"] for fact in room.facts()] == [True, False]
    assert room.say("anna")[0] == "ok"


@pytest.mark.parametrize("on", [True, False])
def test_mute_all_that_changes_nothing_is_no_fact(room: LuaRoom, on: bool) -> None:
    if on:
        room.mute_all(True)
    facts = room.facts()

    assert room.mute_all(on) == ["ok", "{}"]
    assert room.facts() == facts


def test_personal_mute_outlasts_mute_all(room: LuaRoom) -> None:
    room.mute("anna", 0)
    room.mute_all(True)
    room.mute_all(False)

    assert room.say("anna")[0] == "muted"
