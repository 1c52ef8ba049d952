"""The insides of JSON objects that the store completes, and the digest of what a command asks."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from engine.rooms.fragments import (
    audit_body,
    comment_body,
    fingerprint,
    inside,
    item_body,
    notice_body,
)
from protocol.commands import (
    BanViewer,
    Command,
    KickViewer,
    MuteViewer,
    OpenRoom,
    PostComment,
    PutItem,
    ScheduleSeckill,
    SetNotice,
)
from protocol.objects import Eligibility

KEY = "k-0000001"
BIG = 2**53 - 1

NASTY = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)


def whole(fragment: bytes) -> dict[str, object]:
    """Return a fragment as the object the store would make of it."""
    decoded: dict[str, object] = orjson.loads(b'{"seq":1,' + fragment + b"}")
    del decoded["seq"]
    return decoded


def test_fields_without_a_value_are_left_out() -> None:
    assert inside({"a": 1, "b": None, "c": UNSET, "d": "x"}) == b'"a":1,"d":"x"'
    assert inside({"a": None}) == b""


def test_zero_false_and_empty_text_are_values() -> None:
    assert inside({"a": 0, "b": False, "c": ""}) == b'"a":0,"b":false,"c":""'


@given(NASTY)
def test_any_text_survives_and_stays_on_one_line(text: str) -> None:
    fragment = inside({"text": text})

    assert whole(fragment) == {"text": text}
    # A line break parts the messages of a batch on the bus.
    assert b"\n" not in fragment


def test_comment_names_its_sender_as_given() -> None:
    command = PostComment(key=KEY, text='多少钱? "\n|', reply_to=7)

    found = whole(comment_body(command, b'{"id":"u_7","name":"\xe6\x9e\x97","role":"viewer"}'))

    assert found == {
        "from": {"id": "u_7", "name": "林", "role": "viewer"}, "text": '多少钱? "\n|', "reply_to": 7,
    }  # fmt: skip


def test_comment_that_answers_none_has_no_reply_to() -> None:
    assert b"reply_to" not in comment_body(PostComment(key=KEY, text="hi"), b"{}")


def test_notice_is_its_text_and_card() -> None:
    assert whole(notice_body(SetNotice(key=KEY, text="hi", card="c_1", version=3))) == {
        "text": "hi",
        "card": "c_1",
    }
    assert notice_body(SetNotice(key=KEY, text="")) == b'"text":""'


def test_item_is_everything_but_its_place_and_stock() -> None:
    command = PutItem(
        key=KEY, item="tea-1.x", title="龙井", price_cents=BIG, url="https://a.example/t", sort=3
    )

    assert whole(item_body(command)) == {
        "item": "tea-1.x", "title": "龙井", "price_cents": BIG, "url": "https://a.example/t",
    }  # fmt: skip


# --- fingerprint ----------------------------------------------------------------------------------------------

COMMANDS: list[Command] = [
    PostComment(key=KEY, text="a"),
    PostComment(key=KEY, text="b"),
    PostComment(key=KEY, text="a", reply_to=1),
    SetNotice(key=KEY, text="a"),
    SetNotice(key=KEY, text="a", version=1),
    SetNotice(key=KEY, text="a", card="c"),
    MuteViewer(key=KEY, viewer="u", seconds=0),
    MuteViewer(key=KEY, viewer="u", seconds=1),
    MuteViewer(key=KEY, viewer="u1", seconds=0),
    KickViewer(key=KEY, viewer="u"),
    KickViewer(key=KEY, viewer="u", reason="spam"),
]


def test_commands_that_ask_for_other_things_have_other_fingerprints() -> None:
    assert len({fingerprint(command) for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_key_is_no_part_of_the_fingerprint(command: Command) -> None:
    assert fingerprint(structs.replace(command, key="k-another-one")) == fingerprint(command)


def test_fingerprint_looks_inside_nested_objects() -> None:
    sale = ScheduleSeckill(
        key=KEY, sale="s", item="tea", price_cents=1, stock=1, starts_at=1, ends_at=2, eligible=Eligibility(tags=["a"])
    )  # fmt: skip
    other = structs.replace(sale, eligible=Eligibility(tags=["b"]))

    assert fingerprint(sale) != fingerprint(other)
    assert fingerprint(sale) == fingerprint(structs.replace(sale, eligible=Eligibility(tags=["a"])))


@pytest.mark.parametrize("command", [*COMMANDS, OpenRoom(key=KEY), BanViewer(key=KEY, viewer="u-1.x")])
def test_fingerprint_holds_nothing_that_parts_it_from_the_reply(command: Command) -> None:
    assert len(fingerprint(command)) == 16
    assert set(fingerprint(command)) <= set("0123456789abcdef")


# --- audit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_audit_holds_every_field_of_the_command(command: Command) -> None:
    found = orjson.loads(audit_body(command))

    assert set(found) == set(command.__struct_fields__)
    assert found["key"] == KEY
