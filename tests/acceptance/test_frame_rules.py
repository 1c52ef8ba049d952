"""What a frame may be: arrays, violations, sizes, rates, and that every command gets exactly one reply."""

import pytest

from protocol.codec import CODECS as BY_NAME
from tests.support.client import a_key
from tests.support.stage import CODECS, Stage


@pytest.mark.parametrize("codec_name", CODECS)
async def test_array_of_commands_gets_one_reply_each(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter(codec_name=codec_name)

    ids = await anna.send(*({"cmd": "ping"} for _ in range(32)))

    assert [sorted(await anna.answer(command_id)) for command_id in ids] == [["now"]] * 32
    await anna.caught_up()
    assert len(anna.replies) == 1 + 32 + 1


@pytest.mark.parametrize("codec_name", CODECS)
async def test_33_commands_are_one_bad_frame_and_none_is_carried_out(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter(codec_name=codec_name)

    await anna.send_bytes(
        anna.codec.encode([{"cmd": "like.send", "id": n, "n": 1, "batch": n} for n in range(1, 34)])
    )

    assert (await anna.complaint())["code"] == "bad_frame"
    assert await anna.ask("like.send", n=1, batch=99) == {"total": 1}


async def test_mixed_array_answers_each_entry(stage: Stage) -> None:
    anna = await stage.enter()

    await anna.send_bytes(b'[{"cmd":"ping"},7,[]]'.replace(b",7,[]", b",7"))
    [fly, ping] = await anna.send({"cmd": "room.fly"}, {"cmd": "ping"})

    assert [(await anna.complaint(n))["code"] for n in (1, 2)] == ["bad_command", "bad_command"]
    await anna.answer(ping)
    assert anna.replies[fly].err is not None
    assert anna.replies[fly].err["code"] == "unknown_command"


async def test_empty_array_asks_for_nothing(stage: Stage) -> None:
    anna = await stage.enter()

    await anna.send_bytes(b"[]")
    await anna.caught_up()

    assert anna.complaints == []


#: What cannot be read, by codec, with the code of the complaint.
UNREADABLE: dict[str, list[tuple[bytes, bool, str]]] = {
    "json": [
        (b"", True, "bad_frame"),
        (b"{", True, "bad_frame"),
        (b"7", True, "bad_frame"),
        (b'"ping"', True, "bad_frame"),
        (b"{} {}", True, "bad_frame"),
        (b'{"cmd":"ping","id":1}', False, "bad_frame"),
        (b'{"cmd":"comment.send","id":1,"key":"surrogate","text":"\\ud800"}', True, "bad_frame"),
        (b"[" * 2_000, True, "bad_frame"),
        (b'{"cmd":"ping"}', True, "bad_command"),
        (b'{"cmd":"ping","id":0}', True, "bad_command"),
        (b'{"cmd":"ping","id":4294967296}', True, "bad_command"),
        (b'{"cmd":"ping","id":1.0}', True, "bad_command"),
        (b'{"cmd":"ping","id":"1"}', True, "bad_command"),
        (b'{"cmd":"ping","id":true}', True, "bad_command"),
    ],
    "msgpack": [
        (b"", False, "bad_frame"),
        (b"\xc1", False, "bad_frame"),
        (b"\x07", False, "bad_frame"),
        (b"\x82\xa3cmd\xa4ping\xa2id", False, "bad_frame"),
        (b"\x82\xa3cmd\xa4ping\xa2id\x01\x00", False, "bad_frame"),
        (b'{"cmd":"ping","id":1}', True, "bad_frame"),
        (b"\x82\xc4\x03cmd\xa4ping\xa2id\x01", False, "bad_frame"),
        (b"\x81\xa3cmd\xa4ping", False, "bad_command"),
        (b"\x82\xa3cmd\xa4ping\xa2id\x00", False, "bad_command"),
    ],
}


@pytest.mark.parametrize("codec_name", CODECS)
async def test_unreadable_frames_are_complained_about_and_the_third_closes_with_4400(
    stage: Stage, codec_name: str
) -> None:
    """The third in a connection closes it with 4400."""
    frames = UNREADABLE[codec_name]
    good = BY_NAME[codec_name]
    for start in range(0, len(frames) - 2, 2):
        client = await stage.enter(codec_name=codec_name)
        for number, (data, text, code) in enumerate(frames[start : start + 3], 1):
            await client.send_bytes(data, text=text)
            assert (await client.complaint(number))["code"] == code, data
            if number < 3:
                await client.caught_up()
        assert await client.close_code() == 4400
        assert client.codec is good


async def test_violations_count_before_the_join_too(stage: Stage) -> None:
    client = await stage.connect()
    for _ in range(3):
        await client.send_bytes(b"{")

    assert await client.close_code() == 4400
    assert len(client.complaints) == 3


async def test_broken_utf8_closes_with_1007(stage: Stage) -> None:
    anna = await stage.enter()

    await anna.send_bytes(b'{"cmd":"ping","id":1,"x":"\xff"}')

    assert await anna.close_code() == 1007


# --- sizes --------------------------------------------------------------------------------------------------


def sized(codec_name: str, size_bytes: int) -> bytes:
    """Return a `ping` of exactly this size, with a field nobody knows."""
    codec = BY_NAME[codec_name]
    for filler in range(size_bytes, 0, -1):
        frame = codec.encode({"cmd": "ping", "id": 9, "filler": "x" * filler})
        if len(frame) == size_bytes:
            return frame
    raise AssertionError("no such frame")


@pytest.mark.parametrize("codec_name", CODECS)
@pytest.mark.parametrize(
    ("role", "limit"),
    [(None, 8_192), ("viewer", 8_192), ("agent", 8_192), ("moderator", 65_536), ("owner", 65_536)],
)
async def test_frame_over_the_limit_closes_with_1009(
    stage: Stage, codec_name: str, role: str | None, limit: int
) -> None:
    """8 KiB viewers, 64 KiB once joined as `moderator` or higher."""
    if role is None:
        client = await stage.connect(codec_name)
    else:
        client = await stage.enter("somebody", role, codec_name=codec_name)
    client.machine.pending[9] = "ping"

    await client.send_bytes(sized(codec_name, limit))
    await client.until(lambda: 9 in client.replies)
    await client.send_bytes(sized(codec_name, limit + 1))

    assert await client.close_code() == 1009


async def test_nesting_is_limited_to_16(stage: Stage) -> None:
    anna = await stage.enter()

    def nested(levels: int) -> object:
        return 7 if levels == 0 else [nested(levels - 1)]

    await anna.ask("ping", extra=nested(15))
    assert (await anna.refusal("ping", extra=nested(16)))["code"] == "bad_command"


# --- rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmd", ["ping", "room.fly"])
async def test_commands_of_one_connection_are_limited(stage: Stage, cmd: str) -> None:
    """50 commands per second per connection with a burst of 100; nonsense counts as well."""
    anna, bela = await stage.enter("anna"), await stage.enter("bela")
    ids = [command_id for _ in range(8) for command_id in await anna.send(*([{"cmd": cmd}] * 32))]

    await anna.until(lambda: ids[-1] in anna.replies)

    refused = [reply.err for reply in (anna.replies[each] for each in ids) if reply.err is not None]
    slowed = [err for err in refused if err["code"] == "rate_limited"]
    # How many, depends on how long it took; at most all but the burst.
    assert 1 <= len(slowed) <= 156
    assert all(0 < err["retry_ms"] <= 4_000 for err in slowed)
    await bela.ask("ping")


async def test_key_is_checked(stage: Stage) -> None:
    anna = await stage.enter()

    for key in ("short", "x" * 65, "with space", "ключ-ключ", "", None, 12345678, "newline-\n"):
        err = await anna.refusal("comment.send", key=key, text="在吗")
        assert err["code"] == "bad_command", key
    assert (await anna.refusal("comment.send", text="在吗"))["code"] == "bad_command"
    await anna.ask("comment.send", key="x" * 64, text="在吗")
    await anna.ask("comment.send", key=a_key(), text="在吗")
