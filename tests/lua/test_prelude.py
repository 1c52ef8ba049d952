"""What every function shares (`prelude.lua`): facts as history, one effect per key, the audit trail, the epoch."""

import re

import orjson
import pytest

from tests.support.stores import LuaRoom, fresh_key

KEY_KEPT_MS = 24 * 3600 * 1000
LOG_ENTRY = tuple[str, dict[str, str]]


def held(room: LuaRoom) -> list[int]:
    """Return the seq of each fact of the log."""
    return [int(place.partition("-")[0]) for place, _ in room.client.xrange(room.names.log)]


def fill_log(room: LuaRoom, count: int, *, age_ms: int) -> None:
    """Write a history of `count` facts that are `age_ms` old."""
    at = room.now() - age_ms
    with room.client.pipeline(transaction=False) as pipe:
        for seq in range(1, count + 1):
            json = f'{{"ev":"notice","seq":{seq},"at":{at},"text":"","version":{seq}}}'
            pipe.xadd(room.names.log, {"e": json, "t": at}, id=f"{seq}-0")
        pipe.hset(room.names.meta, mapping={"seq": count, "replid": room.replid})
        pipe.execute()


# --- facts ----------------------------------------------------------------------------------------------------


def test_facts_are_numbered_without_gaps_and_kept_under_their_number(room: LuaRoom) -> None:
    room.notice("one")
    room.put_item("tea")
    room.explain("missing")
    room.explain("tea")
    room.mute_all(True)

    assert held(room) == [1, 2, 3, 4]
    assert [fact["seq"] for fact in room.facts()] == [1, 2, 3, 4]
    assert room.meta("seq") == "4"
    assert all(place.endswith("-0") for place, _ in room.client.xrange(room.names.log))


def test_fact_carries_the_stores_time(room: LuaRoom) -> None:
    before = room.now()
    room.notice("one")
    after = room.now()

    ((_, fields),) = room.client.xrange(room.names.log)
    assert before <= int(fields["t"]) <= after
    assert room.facts()[0]["at"] == int(fields["t"])


def test_fact_is_published_as_it_is_kept_under_epoch_seq_and_name(room: LuaRoom) -> None:
    room.notice("多少钱?")
    room.mute_all(True)

    messages = room.wire.read()

    assert [header for header, _ in messages] == ["f e0 1 notice", "f e0 2 room.muted_all"]
    kept = [fields["e"] for _, fields in room.client.xrange(room.names.log)]
    assert [payload for _, payload in messages] == kept


def test_large_numbers_keep_every_digit(room: LuaRoom) -> None:
    room.set_meta(seq=2**53 - 2, replid=room.replid)

    room.notice("one")

    assert held(room) == [2**53 - 1]
    assert room.wire.read()[0][0] == f"f e0 {2**53 - 1} notice"
    assert re.search(r'"at":\d{13},', room.client.xrange(room.names.log)[0][1]["e"])


# --- trimming -------------------------------------------------------------------------------------------------


def test_log_keeps_a_thousand_facts_however_old(room: LuaRoom) -> None:
    fill_log(room, 1_087, age_ms=86_400_000)

    room.notice("the 1088th, a multiple of 64")

    assert held(room) == list(range(89, 1_089))


def test_log_keeps_young_facts_however_many(room: LuaRoom) -> None:
    fill_log(room, 1_471, age_ms=500_000)

    room.notice("the 1472nd")

    assert len(held(room)) == 1_472


def test_log_keeps_what_is_younger_than_its_setting(room: LuaRoom) -> None:
    fill_log(room, 1_471, age_ms=500_000)
    room.set_meta(facts_kept_ms=400_000)

    room.notice("the 1472nd")

    # At most 256 leave at a time.
    assert held(room) == list(range(257, 1_473))


def test_trimming_catches_up_and_tells_the_first_fact_held(room: LuaRoom) -> None:
    fill_log(room, 2_047, age_ms=86_400_000)

    for number in range(2_048, 2_048 + 8 * 64):
        room.notice(f"n{number}")

    assert len(held(room)) <= 1_064
    assert room.since(0)[2] == str(held(room)[0])


# --- epoch ----------------------------------------------------------------------------------------------------


def test_first_fact_notes_the_store_without_a_new_epoch(room: LuaRoom) -> None:
    room.vouched = ""

    room.notice("one")

    assert (room.meta("replid"), room.meta("epoch")) == (room.replid, "e0")


def test_store_that_is_vouched_for_continues_the_epoch_after_a_restart(room: LuaRoom) -> None:
    room.notice("one")
    room.set_meta(replid="f" * 40)

    room.notice("two")

    assert (room.meta("epoch"), room.meta("replid")) == ("e0", room.replid)
    assert held(room) == [1, 2]


@pytest.mark.parametrize("vouched", ["", "f" * 40])
def test_store_nobody_vouches_for_starts_a_new_epoch_with_the_next_fact(room: LuaRoom, vouched: str) -> None:
    room.notice("one")
    room.set_meta(replid="0" * 40)
    room.vouched = vouched
    room.wire.read()

    room.notice("two")

    epoch = room.meta("epoch")
    assert epoch
    assert epoch != "e0"
    assert " " not in epoch
    assert len(epoch) <= 32
    assert held(room) == [1]
    assert room.since(0)[:3] == [epoch, "1", "1"]
    assert room.wire.read()[0][0] == f"f {epoch} 1 notice"


def test_new_epoch_is_begun_once(room: LuaRoom) -> None:
    room.notice("one")
    room.set_meta(replid="0" * 40)
    room.vouched = ""
    room.notice("two")
    epoch = room.meta("epoch")

    room.notice("three")

    assert room.meta("epoch") == epoch
    assert held(room) == [1, 2]


def test_what_is_refused_starts_no_new_epoch(room: LuaRoom) -> None:
    room.notice("one")
    room.set_meta(replid="0" * 40)
    room.vouched = ""

    with room.unchanged():
        assert room.explain("missing") == ["not_found", ""]


# --- one effect per key ---------------------------------------------------------------------------------------


def test_same_key_and_fields_reply_the_same_and_write_nothing(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.notice("one", key=key)

    with room.unchanged():
        assert room.notice("one", key=key) == first


def test_same_key_with_other_fields_is_a_conflict(room: LuaRoom) -> None:
    key = fresh_key()
    room.notice("one", key=key, fingerprint="f1")

    with room.unchanged():
        assert room.notice("two", key=key, fingerprint="f2")[0] == "conflict"
    with room.unchanged():
        # A fingerprint that begins like the stored one is another one too.
        assert room.notice("two", key=key, fingerprint="f")[0] == "conflict"


def test_refusal_is_not_remembered(room: LuaRoom) -> None:
    key = fresh_key()
    assert room.explain("tea", key=key)[0] == "not_found"
    room.put_item("tea")

    assert room.explain("tea", key=key) == ["ok", "{}"]


def test_key_belongs_to_one_actor_and_one_command(room: LuaRoom) -> None:
    key = fresh_key()
    room.notice("one", key=key, actor="u-1")

    assert room.notice("two", key=key, actor="u-1.1") == ["ok", '{"version":2}']
    assert room.mute_all(True, key=key, actor="u-1")[0] == "ok"


def test_done_command_is_remembered_for_a_day(room: LuaRoom) -> None:
    key = fresh_key()
    room.notice("one", key=key)

    left_ms = room.client.pttl(room.names.idempotency("boss-1.x", "notice.set", key))
    assert KEY_KEPT_MS - 60_000 < left_ms <= KEY_KEPT_MS


def test_done_command_is_told_after_the_room_is_over(room: LuaRoom) -> None:
    key = fresh_key()
    first = room.notice("one", key=key)
    room.set_meta(state="closed")

    with room.unchanged():
        assert room.notice("one", key=key) == first


def test_reply_with_separators_inside_is_remembered_whole(room: LuaRoom) -> None:
    own = (room.names.items, room.names.shelf)
    key = fresh_key()
    first = room.console("item_put", "a", '"item":"a","title":"x|y|%d\\n{}"', "", 500, keys=own, key=key)

    again = room.console("item_put", "a", '"item":"a","title":"x|y|%d\\n{}"', "", 500, keys=own, key=key)

    assert again == first
    assert orjson.loads(again[1])["title"] == "x|y|%d\n{}"


# --- audit trail ----------------------------------------------------------------------------------------------


def test_audit_says_who_asked_what_and_what_was_there_before(room: LuaRoom) -> None:
    before = room.now()
    room.notice("one", actor="u-1.a_b", key="key-0001", body='{"cmd":"notice.set","text":"one"}')

    (entry,) = room.audit()

    assert before <= int(entry.pop("at")) <= room.now()
    assert entry == {
        "actor": "u-1.a_b", "cmd": "notice.set", "key": "key-0001", "before": "null",
        "after": '{"cmd":"notice.set","text":"one"}',
    }  # fmt: skip


def test_repeats_and_refusals_leave_no_trace_in_the_audit_trail(room: LuaRoom) -> None:
    key = fresh_key()
    room.notice("one", key=key)
    room.notice("one", key=key)
    room.notice("two", key=key, fingerprint="other")
    room.explain("missing")

    assert len(room.audit()) == 1


def test_every_console_command_is_audited_with_json_before(room: LuaRoom) -> None:
    room.notice("one")
    room.put_item("tea")
    room.explain("tea")
    room.unexplain("tea")
    room.remove_item("tea")
    room.mute("anna", 60)
    room.unmute("anna")
    room.remove("anna", "kick")
    room.remove("anna", "ban")
    room.unban("anna")
    room.say("ben")
    room.mute_all(True)
    room.pin(1)
    room.unpin(1)
    room.delete_comment(1)
    room.step("live", "paused")

    trail = [(entry["cmd"], type(orjson.loads(entry["before"]))) for entry in room.audit()]
    assert trail == [
        ("notice.set", type(None)), ("item.put", type(None)), ("item.explain", type(None)),
        ("item.unexplain", str), ("item.remove", dict), ("viewer.mute", type(None)), ("viewer.unmute", int),
        ("viewer.remove", dict), ("viewer.remove", dict), ("viewer.unban", dict), ("room.mute_all", bool),
        ("comment.pin", type(None)), ("comment.unpin", int), ("comment.delete", dict), ("room.step", dict),
    ]  # fmt: skip
