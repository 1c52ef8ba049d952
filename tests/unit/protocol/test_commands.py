"""Commands: the smallest valid map of each, and everything that makes one invalid."""

from typing import Any

import msgspec
import pytest

from protocol import limits
from protocol.codes import ErrorCode, Role
from protocol.commands import (
    COMMANDS,
    Command,
    KeyedCommand,
    PostComment,
    SetNotice,
    check_url,
    parse,
    to_map,
)
from protocol.errors import BadCommand, MalformedFrame
from tests.support.wire_examples import COMMAND_EXAMPLES, KEY, NOW_MS

#: What each command cannot do without, besides `cmd` and, where it is keyed, `key`.
REQUIRED: dict[str, dict[str, Any]] = {
    "room.join": {"room": "r_88", "token": "t"},
    "room.leave": {},
    "ping": {},
    "comment.send": {"text": "多少钱?"},
    "like.send": {"n": 1, "batch": 0},
    "share.token": {},
    "share.rank": {},
    "seckill.claim": {"sale": "s_1"},
    "order.get": {"order": "o_1"},
    "order.cancel": {"order": "o_1"},
    "redpacket.grab": {"packet": "p_1"},
    "room.open": {},
    "room.pause": {},
    "room.resume": {},
    "room.close": {},
    "notice.set": {"text": ""},
    "item.put": {"item": "tea", "title": "茶", "price_cents": 0},
    "item.remove": {"item": "tea"},
    "item.explain": {"item": "tea"},
    "item.unexplain": {"item": "tea"},
    "seckill.schedule": {
        "sale": "s_1",
        "item": "tea",
        "price_cents": 0,
        "stock": 1,
        "starts_at": 0,
        "ends_at": NOW_MS,
    },
    "seckill.adjust": {"sale": "s_1", "delta": -1},
    "seckill.end": {"sale": "s_1"},
    "redpacket.send": {"packet": "p_1", "total_cents": 1, "shares": 1, "split": "even", "expires_s": 1},
    "redpacket.cancel": {"packet": "p_1"},
    "viewer.mute": {"viewer": "u_9", "seconds": 0},
    "viewer.unmute": {"viewer": "u_9"},
    "viewer.kick": {"viewer": "u_9"},
    "viewer.ban": {"viewer": "u_9"},
    "viewer.unban": {"viewer": "u_9"},
    "room.mute_all": {"on": False},
    "comment.delete": {"comment": 1},
    "comment.pin": {"comment": 1},
    "comment.unpin": {"comment": 1},
    "stats.get": {},
    "audit.get": {},
}
KEYED = {
    "comment.send", "seckill.claim", "order.cancel", "redpacket.grab",
    *(name for name in REQUIRED if COMMANDS[name].console and not name.endswith(".get")),
}  # fmt: skip
MODERATOR = {
    "notice.set", "viewer.mute", "viewer.unmute", "viewer.kick", "viewer.ban", "viewer.unban", "room.mute_all",
    "comment.delete", "comment.pin", "comment.unpin", "stats.get",
}  # fmt: skip
STREAMER = {
    "room.open", "room.pause", "room.resume", "room.close", "item.put", "item.remove", "item.explain",
    "item.unexplain", "seckill.schedule", "seckill.adjust", "seckill.end", "redpacket.send", "redpacket.cancel",
    "audit.get",
}  # fmt: skip

#: Values of every wire type; a field takes one or two of these types.
OF_EVERY_TYPE: list[Any] = [None, True, 1, -1, 1.0, 1.5, 2**53, "x", "１", "", b"x", [], ["x"], {}, {"a": 1}]


def smallest(name: str, **changes: Any) -> dict[str, Any]:
    key = {"key": KEY} if name in KEYED else {}
    return {"cmd": name, **key, **REQUIRED[name], **changes}


def code_of(message: dict[str, Any]) -> ErrorCode:
    with pytest.raises(BadCommand) as caught:
        parse(message)
    return caught.value.code


def required_fields() -> list[tuple[str, str]]:
    return [(name, field) for name in REQUIRED for field in smallest(name) if field != "cmd"]


def all_fields() -> list[tuple[str, str]]:
    return [(name, field) for name in REQUIRED for field in COMMANDS[name].__struct_fields__]


def test_there_are_36_commands() -> None:
    assert set(COMMANDS) == set(REQUIRED)
    assert len(COMMANDS) == 36


@pytest.mark.parametrize("name", REQUIRED)
def test_smallest_map_is_a_command(name: str) -> None:
    assert type(parse(smallest(name))) is COMMANDS[name]


@pytest.mark.parametrize(("name", "field"), required_fields())
def test_missing_field_is_a_bad_command(name: str, field: str) -> None:
    message = smallest(name)
    del message[field]

    assert code_of(message) is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize(("name", "field"), all_fields())
def test_field_of_another_type_is_refused_with_its_code(name: str, field: str) -> None:
    """A value is either of the field's type, by the type's own encoder, or refused: never converted."""
    expected = ErrorCode.BAD_QUANTITY if field in ("qty", "delta") else ErrorCode.BAD_COMMAND
    codes = []
    for value in OF_EVERY_TYPE:
        try:
            command = parse(smallest(name, **{field: value}))
        except BadCommand as error:
            codes.append(error.code)
        else:
            kept = msgspec.to_builtins(getattr(command, field))
            assert (kept, type(kept)) == (value, type(value))
    assert set(codes) == {expected}
    assert len(codes) >= 8


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize(
    "key", ["short", "a" * 65, "with space", "abcdefgh\n", "１２３４５６７８", 12345678], ids=repr
)
def test_malformed_key_is_a_bad_command(name: str, key: Any) -> None:
    assert code_of(smallest(name, key=key)) is ErrorCode.BAD_COMMAND


ID_FIELDS = ("room", "sale", "order", "packet", "item", "viewer", "card", "channel")


@pytest.mark.parametrize(("name", "field"), [pair for pair in all_fields() if pair[1] in ID_FIELDS])
@pytest.mark.parametrize("value", ["", "a b", "a/b", "a}", "_a", "a\n", "ａ", "房", "a" * 65], ids=ascii)
def test_malformed_id_is_a_bad_command(name: str, field: str, value: str) -> None:
    assert code_of(smallest(name, **{field: value})) is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize(
    "value", [0, -1, 1.0, 1.5, True, False, "1", "１", "", None, 2**53, 2**64, [], {}], ids=repr
)
def test_bad_quantity_has_its_own_code(value: Any) -> None:
    assert code_of(smallest("seckill.claim", qty=value)) is ErrorCode.BAD_QUANTITY


@pytest.mark.parametrize("value", [1.0, True, "1", "１", None, 2**53, -(2**53), [], {}], ids=repr)
def test_bad_delta_has_its_own_code(value: Any) -> None:
    assert code_of(smallest("seckill.adjust", delta=value)) is ErrorCode.BAD_QUANTITY


def test_quantity_named_in_another_field_is_still_a_bad_command() -> None:
    assert code_of(smallest("redpacket.send", split="`$.qty`")) is ErrorCode.BAD_COMMAND
    assert code_of(smallest("seckill.claim", sale="`$.qty`")) is ErrorCode.BAD_COMMAND


def test_largest_exact_integer_is_accepted_and_the_next_refused() -> None:
    assert to_map(parse(smallest("seckill.claim", qty=2**53 - 1)), 1)["qty"] == 2**53 - 1
    assert code_of(smallest("item.put", price_cents=2**53)) is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize(
    ("name", "field", "lowest", "highest"),
    [
        ("like.send", "n", 1, 50),
        ("like.send", "batch", 0, 2**53 - 1),
        ("comment.delete", "comment", 1, 2**53 - 1),
        ("item.put", "price_cents", 0, 2**53 - 1),
        ("item.put", "sort", -(2**53 - 1), 2**53 - 1),
        ("seckill.schedule", "stock", 1, 2**53 - 1),
        ("seckill.schedule", "per_viewer", 1, 2**53 - 1),
        ("seckill.schedule", "hold_s", 1, 86_400),
        ("seckill.schedule", "starts_at", 0, 2**53 - 1),
        ("redpacket.send", "total_cents", 1, 2**53 - 1),
        ("redpacket.send", "shares", 1, 2**53 - 1),
        ("redpacket.send", "min_cents", 1, 2**53 - 1),
        ("redpacket.send", "expires_s", 1, 86_400),
        ("viewer.mute", "seconds", 0, limits.MUTE_S_MAX),
        ("notice.set", "version", 0, 2**53 - 1),
    ],
)
def test_bounds_are_inclusive(name: str, field: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        assert getattr(parse(smallest(name, **{field: value})), field) == value
    for value in (lowest - 1, highest + 1):
        assert code_of(smallest(name, **{field: value})) is ErrorCode.BAD_COMMAND


def test_defaults_are_those_of_the_document() -> None:
    sale = msgspec.to_builtins(parse(smallest("seckill.schedule")))
    packet = msgspec.to_builtins(parse(smallest("redpacket.send")))

    assert (sale["per_viewer"], sale["hold_s"], packet["min_cents"]) == (1, 300, 1)
    assert msgspec.to_builtins(parse(smallest("seckill.claim")))["qty"] == 1


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["nope", "", "comment.send ", "COMMENT.SEND", "PostComment", "x" * 5000], ids=len
)
def test_unknown_name_is_an_unknown_command(name: str) -> None:
    with pytest.raises(BadCommand) as caught:
        parse({"cmd": name})

    assert caught.value.code is ErrorCode.UNKNOWN_COMMAND
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", [None, 1, True, ["ping"], {}, b"ping"], ids=repr)
def test_name_that_is_not_text_is_a_bad_command(name: Any) -> None:
    assert code_of({"cmd": name}) is ErrorCode.BAD_COMMAND


def test_missing_name_is_a_bad_command() -> None:
    assert code_of({"id": 1}) is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize("name", REQUIRED)
def test_unknown_fields_are_ignored(name: str) -> None:
    assert parse(smallest(name, later={"a": [1.5]}, id=7)) == parse(smallest(name))


def test_what_is_quoted_of_a_bad_value_is_bounded() -> None:
    with pytest.raises(BadCommand) as caught:
        parse(smallest("redpacket.send", split="x" * 60_000))

    assert len(caught.value.message) <= 200


# --- text and URLs ----------------------------------------------------------------------------------------


def test_comment_of_200_code_points_is_accepted_and_201_is_too_long() -> None:
    assert parse(smallest("comment.send", text="多" * 200)) == PostComment(key=KEY, text="多" * 200)
    assert code_of(smallest("comment.send", text="多" * 201)) is ErrorCode.TOO_LONG


def test_text_is_measured_after_cleaning() -> None:
    raw = "\u200b" * 500 + " " + "e\u0301" * 200 + " "

    assert parse(smallest("comment.send", text=raw)) == PostComment(key=KEY, text="é" * 200)


@pytest.mark.parametrize(("name", "field"), [("comment.send", "text"), ("item.put", "title")])
@pytest.mark.parametrize("blank", ["", "  ", "\u200b\u2060", "\u3164", "\ufe0f"], ids=ascii)
def test_text_that_shows_nothing_is_a_bad_command(name: str, field: str, blank: str) -> None:
    assert code_of(smallest(name, **{field: blank})) is ErrorCode.BAD_COMMAND


def test_notice_is_measured_in_bytes_and_may_be_empty() -> None:
    assert parse(smallest("notice.set", text="多" * 100)) == SetNotice(key=KEY, text="多" * 100)
    assert parse(smallest("notice.set", text=" ")) == SetNotice(key=KEY, text="")
    assert code_of(smallest("notice.set", text="多" * 100 + "a")) is ErrorCode.TOO_LONG


@pytest.mark.parametrize(
    ("name", "field", "chars"),
    [("item.put", "title", 60), ("viewer.kick", "reason", 100), ("viewer.ban", "reason", 100)],
)
def test_other_texts_have_their_limit_in_code_points(name: str, field: str, chars: int) -> None:
    assert getattr(parse(smallest(name, **{field: "👍" * chars})), field) == "👍" * chars
    assert code_of(smallest(name, **{field: "👍" * chars + "a"})) is ErrorCode.TOO_LONG


@pytest.mark.parametrize(
    ("name", "field"),
    [("comment.send", "text"), ("notice.set", "text"), ("item.put", "title"), ("viewer.kick", "reason")],
)
def test_lone_surrogate_spoils_the_frame(name: str, field: str) -> None:
    with pytest.raises(MalformedFrame):
        parse(smallest(name, **{field: "a\ud800"}))


@pytest.mark.parametrize("field", ["cover", "url"])
def test_url_of_512_bytes_is_accepted_and_513_is_too_long(field: str) -> None:
    longest = "https://a.example/" + "x" * 494

    assert getattr(parse(smallest("item.put", **{field: longest})), field) == longest
    assert code_of(smallest("item.put", **{field: longest + "x"})) is ErrorCode.TOO_LONG
    assert code_of(smallest("item.put", **{field: "https://a.example/" + "图" * 165})) is ErrorCode.TOO_LONG


@pytest.mark.parametrize(
    "url", ["", "http://a.example/", "javascript:alert(1)", "https://a\ud800", "https://a b"], ids=ascii
)
def test_url_that_is_not_https_is_a_bad_command(url: str) -> None:
    assert code_of(smallest("item.put", url=url)) is ErrorCode.BAD_COMMAND
    with pytest.raises(BadCommand):
        check_url("playback", url)


# --- nested fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resume",
    [{}, {"epoch": "k"}, {"seq": 1}, {"epoch": "", "seq": 1}, {"epoch": "k" * 33, "seq": 1}, {"epoch": "k", "seq": -1},
     {"epoch": "k", "seq": 1.0}, {"epoch": 1, "seq": 1}, {"epoch": "k", "seq": "1"}, [], "k:1", 0],
    ids=repr,
)  # fmt: skip
def test_malformed_resume_is_a_bad_command(resume: Any) -> None:
    assert code_of(smallest("room.join", resume=resume)) is ErrorCode.BAD_COMMAND


@pytest.mark.parametrize(
    "eligible",
    [{"tags": [1]}, {"tags": [""]}, {"tags": ["x" * 33]}, {"tags": ["x"] * 21}, {"tags": "vip"}, {"level_min": -1},
     {"dwell_s": 86_401}, {"first_order": 1}, {"shared": 1.0}, {"a_rule_nobody_knows": True}, [], 1],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
@pytest.mark.parametrize("name", ["seckill.schedule", "redpacket.send"])
def test_malformed_eligibility_is_a_bad_command(name: str, eligible: Any) -> None:
    """A rule that is not known must not be ignored: it would let everybody in."""
    assert code_of(smallest(name, eligible=eligible)) is ErrorCode.BAD_COMMAND


# --- who, and the way back --------------------------------------------------------------------------------


def test_keyed_commands_are_those_of_the_document() -> None:
    assert {name for name, kind in COMMANDS.items() if issubclass(kind, KeyedCommand)} == KEYED


def test_roles_are_those_of_the_document() -> None:
    assert {name for name, kind in COMMANDS.items() if kind.role is Role.MODERATOR} == MODERATOR
    assert {name for name, kind in COMMANDS.items() if kind.role is Role.STREAMER} == STREAMER
    assert {name for name, kind in COMMANDS.items() if kind.console} == MODERATOR | STREAMER


@pytest.mark.parametrize("command", COMMAND_EXAMPLES.values(), ids=list(COMMAND_EXAMPLES))
def test_map_of_a_command_is_read_as_that_command(command: Command) -> None:
    message = to_map(command, 7)

    assert (message["cmd"], message["id"]) == (command.name(), 7)
    assert parse(message) == command


def test_fields_without_a_value_stay_out_of_the_map() -> None:
    assert to_map(PostComment(key=KEY, text="好"), 1) == {
        "cmd": "comment.send",
        "id": 1,
        "key": KEY,
        "text": "好",
    }
