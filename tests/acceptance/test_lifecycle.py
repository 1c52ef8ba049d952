"""Life of a room: every command in every state, and what viewers may do in each."""

from collections.abc import Awaitable, Callable

import pytest

from tests.support.client import Merchant, Refused, a_key
from tests.support.stage import CODECS, Stage

#: How a room is brought into each state.
WAYS = {
    "scheduled": [],
    "live": ["room.open"],
    "paused": ["room.open", "room.pause"],
    "closed": ["room.open", "room.close"],
}
COMMANDS = ("room.open", "room.pause", "room.resume", "room.close")
#: (state, command) → the state after it, "again", or "conflict".
STEPS = {
    ("scheduled", "room.open"): "live",
    ("scheduled", "room.pause"): "conflict",
    ("scheduled", "room.resume"): "conflict",
    ("scheduled", "room.close"): "closing",
    ("live", "room.open"): "again",
    ("live", "room.pause"): "paused",
    ("live", "room.resume"): "again",
    ("live", "room.close"): "closing",
    ("paused", "room.open"): "conflict",
    ("paused", "room.pause"): "again",
    ("paused", "room.resume"): "live",
    ("paused", "room.close"): "closing",
    ("closed", "room.open"): "conflict",
    ("closed", "room.pause"): "conflict",
    ("closed", "room.resume"): "conflict",
    ("closed", "room.close"): "again",
}


async def bring(stage: Stage, state: str) -> None:
    """Take a scheduled room to `state`."""
    for cmd in WAYS[state]:
        await stage.do(cmd)
    await until_state(stage, state)


async def until_state(stage: Stage, state: str) -> None:
    for _ in range(200):
        if (await stage.snapshot())["state"] == state:
            return
    raise AssertionError(f"never {state}")


def test_table_is_complete() -> None:
    assert set(STEPS) == {(state, cmd) for state in WAYS for cmd in COMMANDS}


@pytest.mark.parametrize(("state", "cmd"), STEPS)
async def test_step(scheduled: Stage, state: str, cmd: str) -> None:
    await bring(scheduled, state)
    expected = STEPS[state, cmd]
    before = await scheduled.snapshot()

    answer = await scheduled.merchant.command(scheduled.room, cmd)

    if expected == "conflict":
        assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", state)
    elif expected == "again":
        assert answer.json == {"ok": {"state": state, "again": True}}
    else:
        assert answer.json == {"ok": {"state": expected}}
    if expected in ("conflict", "again"):
        after = await scheduled.snapshot()
        assert (after["state"], after["seq"]) == (state, before["seq"])
    else:
        await until_state(scheduled, "closed" if expected == "closing" else expected)


@pytest.mark.parametrize("codec_name", CODECS)
async def test_viewers_see_every_step_and_the_close_ends_with_4411(scheduled: Stage, codec_name: str) -> None:
    anna = await scheduled.enter("anna", codec_name=codec_name)
    sam = await scheduled.enter("sam", "streamer")

    for cmd in ("room.open", "room.pause", "room.resume", "room.close"):
        await sam.do(cmd)

    assert await anna.close_code() == 4411
    assert await sam.close_code() == 4411
    states = [event["state"] for event in anna.said("room.state")]
    assert states == ["live", "paused", "live", "closing", "closed"]
    assert [event["seq"] for event in anna.said("room.state")] == [1, 2, 3, 4, 5]
    assert anna.room["state"] == "closed"


async def test_closed_room_lets_nobody_in(scheduled: Stage) -> None:
    """A join to a closed room is refused with `room_not_live` and 4411."""
    await bring(scheduled, "closed")
    late = await scheduled.connect()

    with pytest.raises(Refused) as refused:
        await late.join(scheduled.room, await scheduled.merchant.token(scheduled.room, "late"))

    assert (refused.value.code, refused.value.err["state"]) == ("room_not_live", "closed")
    assert await late.close_code() == 4411


@pytest.mark.parametrize(("state", "accepted"), [("scheduled", False), ("live", True), ("paused", True)])
async def test_comments_and_likes_by_state(scheduled: Stage, state: str, accepted: bool) -> None:
    await bring(scheduled, state)
    anna = await scheduled.enter()
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: anna.do("comment.send", text="在吗"),
        lambda: anna.ask("like.send", n=1, batch=1),
    ]

    for ask in asks:
        if accepted:
            await ask()
        else:
            with pytest.raises(Refused) as refused:
                await ask()
            assert (refused.value.code, refused.value.err["state"]) == ("room_not_live", state)


async def test_shelf_is_set_before_the_show_and_frozen_after_it(scheduled: Stage) -> None:
    put = {"item": "tea", "title": "铁观音", "price_cents": 100}
    await scheduled.do("item.put", **put)
    await scheduled.do("notice.set", text="八点见")

    await bring(scheduled, "closed")

    for cmd, fields in (("item.put", put), ("notice.set", {"text": "晚了"}), ("room.mute_all", {"on": True})):
        answer = await scheduled.merchant.command(scheduled.room, cmd, **fields)
        assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "room_not_live", "closed")
    again = await scheduled.merchant.call("PUT", f"/v1/rooms/{scheduled.room}", {"title": "返场"})
    assert (again.status, again.json["code"]) == (409, "room_not_live")
    assert (await scheduled.snapshot())["title"] == "秋茶上新"


async def test_steps_are_idempotent_by_key(scheduled: Stage) -> None:
    path = f"/v1/rooms/{scheduled.room}/commands"
    opened = {"cmd": "room.open", "key": "open-the-room"}

    first = await scheduled.merchant.ok("POST", path, opened)
    await scheduled.do("room.pause")
    second = await scheduled.merchant.ok("POST", path, opened)

    # The answer of then; the room stays paused.
    assert first == second == {"ok": {"state": "live"}}
    assert (await scheduled.snapshot())["state"] == "paused"


async def test_commands_to_a_missing_or_foreign_room_are_not_found(
    stage: Stage, other_merchant: Merchant
) -> None:
    answers = [
        await other_merchant.command(room, "room.close", key="close-it-1") for room in (stage.room, "nowhere")
    ]

    assert answers[0].body == answers[1].body
    assert (answers[0].status, answers[0].json["code"]) == (404, "room_not_found")
    assert (await stage.snapshot())["state"] == "live"


async def test_unknown_key_of_a_step_is_refused(stage: Stage) -> None:
    sam = await stage.enter("sam", "streamer")

    assert (await sam.refusal("room.pause"))["code"] == "bad_command"
    assert (await sam.refusal("room.pause", key="short"))["code"] == "bad_command"
    assert await sam.ask("room.pause", key=a_key()) == {"state": "paused"}
