"""The envelope: every map has exactly one outcome."""

from typing import Any

import pytest

from protocol.codec import CODECS, JSON, Codec
from protocol.codes import ErrorCode
from protocol.commands import Ping, PostComment
from protocol.errors import MalformedFrame
from protocol.frames import Refusal, Reply, Request, Said, read_commands, read_messages
from protocol.limits import COMMAND_ID_MAX, COMMANDS_PER_FRAME_MAX, NESTING_MAX

BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
PING = {"cmd": "ping", "id": 1}


def read(codec: Codec, value: Any) -> list[Request | Refusal]:
    return read_commands(codec, codec.encode(value), codec.is_text)


def refused(entry: Request | Refusal) -> tuple[int, ErrorCode]:
    assert isinstance(entry, Refusal)
    return entry.id, entry.code


@BOTH
def test_map_is_one_command(codec: Codec) -> None:
    assert read(codec, PING) == [Request(1, Ping(), PING)]


@BOTH
def test_array_is_commands_in_order(codec: Codec) -> None:
    maps = [{"cmd": "ping", "id": command_id} for command_id in (5, 3, 9)]

    assert [entry.id for entry in read(codec, maps)] == [5, 3, 9]


@BOTH
def test_empty_array_asks_for_nothing(codec: Codec) -> None:
    assert read(codec, []) == []


@BOTH
def test_thirty_two_commands_are_the_most(codec: Codec) -> None:
    full = [{"cmd": "ping", "id": n + 1} for n in range(COMMANDS_PER_FRAME_MAX)]

    assert all(isinstance(entry, Request) for entry in read(codec, full))
    assert len(read(codec, full)) == 32


@BOTH
def test_thirty_three_commands_are_one_bad_frame(codec: Codec) -> None:
    [entry] = read(codec, [{"cmd": "ping", "id": n + 1} for n in range(33)])

    assert refused(entry) == (0, ErrorCode.BAD_FRAME)


@BOTH
@pytest.mark.parametrize("value", [None, True, 1, 1.5, "ping", ""], ids=repr)
def test_frame_that_is_neither_map_nor_array_is_a_bad_frame(codec: Codec, value: Any) -> None:
    [entry] = read(codec, value)

    assert refused(entry) == (0, ErrorCode.BAD_FRAME)


@BOTH
@pytest.mark.parametrize("value", [None, True, 1, 1.5, "ping", [], [PING]], ids=repr)
def test_entry_that_is_not_a_map_is_a_bad_command(codec: Codec, value: Any) -> None:
    before, entry, after = read(codec, [PING, value, PING])

    assert refused(entry) == (0, ErrorCode.BAD_COMMAND)
    assert isinstance(before, Request)
    assert isinstance(after, Request)


@BOTH
@pytest.mark.parametrize(
    "command_id", [0, -1, 2**32, 2**53, True, False, 1.0, 1.5, "1", "１", None, [1], {}], ids=repr
)
def test_unusable_id_is_answered_with_zero(codec: Codec, command_id: Any) -> None:
    [entry] = read(codec, {"cmd": "ping", "id": command_id})

    assert refused(entry) == (0, ErrorCode.BAD_COMMAND)
    assert isinstance(entry, Refusal)
    assert entry.is_violation


@BOTH
def test_missing_id_is_answered_with_zero(codec: Codec) -> None:
    [entry] = read(codec, {"cmd": "ping"})

    assert refused(entry) == (0, ErrorCode.BAD_COMMAND)


@BOTH
@pytest.mark.parametrize("command_id", [1, COMMAND_ID_MAX])
def test_smallest_and_largest_id_are_echoed(codec: Codec, command_id: int) -> None:
    [entry] = read(codec, {"cmd": "ping", "id": command_id})

    assert entry.id == command_id


@BOTH
def test_equal_ids_each_get_their_outcome(codec: Codec) -> None:
    entries = read(codec, [PING, PING, {"cmd": "nope", "id": 1}])

    assert [type(entry) for entry in entries] == [Request, Request, Refusal]
    assert [entry.id for entry in entries] == [1, 1, 1]


@BOTH
def test_refusal_with_an_id_is_no_violation(codec: Codec) -> None:
    [entry] = read(codec, {"cmd": "nope", "id": 4})

    assert refused(entry) == (4, ErrorCode.UNKNOWN_COMMAND)
    assert isinstance(entry, Refusal)
    assert not entry.is_violation
    assert entry.cmd == "nope"


@BOTH
def test_wrong_frame_type_is_a_bad_frame(codec: Codec) -> None:
    [entry] = read_commands(codec, codec.encode(PING), not codec.is_text)

    assert refused(entry) == (0, ErrorCode.BAD_FRAME)


@BOTH
def test_unreadable_bytes_are_a_bad_frame(codec: Codec) -> None:
    [entry] = read_commands(codec, b"\xc1{", codec.is_text)

    assert refused(entry) == (0, ErrorCode.BAD_FRAME)


def nested(levels: int) -> dict[str, Any]:
    """Return a ping whose unknown field holds arrays so that the whole is `levels` deep."""
    inner: Any = 1
    for _ in range(levels - 1):
        inner = [inner]
    return {**PING, "later": inner}


@BOTH
def test_nesting_is_bounded_so_that_a_command_can_be_written_again(codec: Codec) -> None:
    [kept] = read(codec, nested(NESTING_MAX))
    [entry] = read(codec, nested(NESTING_MAX + 1))
    [far] = read(codec, nested(250))

    assert isinstance(kept, Request)
    assert codec.encode(kept.raw) == codec.encode(nested(NESTING_MAX))
    assert refused(entry) == refused(far) == (1, ErrorCode.BAD_COMMAND)


@BOTH
def test_command_keeps_the_map_it_came_from(codec: Codec) -> None:
    message = {"cmd": "comment.send", "id": 2, "key": "abcdefgh", "text": " 好 ", "later": 1}

    [entry] = read(codec, message)

    assert isinstance(entry, Request)
    assert entry.command == PostComment(key="abcdefgh", text="好")
    assert entry.raw == message


# --- the server's frames ------------------------------------------------------------------------------------


def hear(value: Any) -> list[Reply | Said]:
    return read_messages(JSON, JSON.encode(value), True)


def test_replies_and_events_are_read_in_order() -> None:
    reply, fact, gauge = hear(
        [{"re": 7, "ok": {"comment": 901}}, {"ev": "notice", "seq": 4, "at": 1}, {"ev": "likes", "total": 2}]
    )

    assert reply == Reply(7, {"comment": 901}, None)
    assert isinstance(fact, Said)
    assert isinstance(gauge, Said)
    assert (fact.name, fact.seq) == ("notice", 4)
    assert (gauge.name, gauge.seq, gauge.body["total"]) == ("likes", None, 2)


def test_refusal_is_read() -> None:
    assert hear([{"re": 0, "err": {"code": "bad_frame"}}]) == [Reply(0, None, {"code": "bad_frame"})]


def test_unknown_event_is_read_all_the_same() -> None:
    [said] = hear([{"ev": "from.a.later.version", "x": 1}])

    assert isinstance(said, Said)
    assert said.name == "from.a.later.version"


@pytest.mark.parametrize(
    "value",
    [
        {},
        "x",
        [1],
        [[]],
        [{}],
        [{"ev": 1}],
        [{"re": 1}],
        [{"re": "1", "ok": {}}],
        [{"re": True, "ok": {}}],
        [{"re": 1, "ok": 5}],
        [{"re": 1, "err": []}],
        [{"re": 1, "ok": {}, "err": {}}],
    ],
    ids=repr,
)
def test_anything_else_from_a_server_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        hear(value)


@BOTH
def test_servers_frame_of_the_wrong_type_is_malformed(codec: Codec) -> None:
    with pytest.raises(MalformedFrame):
        read_messages(codec, codec.encode([]), not codec.is_text)
