"""Golden bytes: what travels is what travelled before, in both codecs."""

from typing import Any

import msgspec
import pytest

from protocol.codec import CODECS
from protocol.codes import ErrorCode
from protocol.commands import COMMANDS
from protocol.events import EVENTS
from protocol.frames import Reply, Request, Said, read_commands, read_messages
from protocol.replies import REPLIES, ErrorBody
from tests.support.wire_examples import (
    COMMAND_EXAMPLES,
    ERROR_FIELDS,
    EVENT_EXAMPLES,
    REPLY_EXAMPLES,
    REQUEST_ID,
    golden_values,
)
from tests.wire import golden

GOLDEN_VALUES = golden_values()
BOTH_CODECS = pytest.mark.parametrize("codec_name", sorted(CODECS))
EVERY_MESSAGE = pytest.mark.parametrize("name", sorted(GOLDEN_VALUES))


def golden_bytes(codec_name: str, name: str) -> bytes:
    text = golden.path_of(codec_name, name).read_text(encoding="utf-8")
    return golden.from_text(codec_name, text)


def read_reply(codec_name: str, name: str) -> Reply:
    codec = CODECS[codec_name]
    [message] = read_messages(codec, golden_bytes(codec_name, name), codec.is_text)
    assert isinstance(message, Reply)
    return message


@BOTH_CODECS
@EVERY_MESSAGE
def test_message_is_written_as_its_golden_bytes(codec_name: str, name: str) -> None:
    assert CODECS[codec_name].encode(GOLDEN_VALUES[name]) == golden_bytes(codec_name, name)


@EVERY_MESSAGE
def test_both_codecs_carry_the_same_value(name: str) -> None:
    values = [codec.decode(golden_bytes(codec.name, name)) for codec in CODECS.values()]

    assert values[0] == values[1] == GOLDEN_VALUES[name]


@BOTH_CODECS
def test_no_golden_file_is_left_over(codec_name: str) -> None:
    folder = golden.FOLDER / codec_name
    found = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*") if path.is_file()}

    assert found == set(GOLDEN_VALUES)


def test_there_is_an_example_of_everything() -> None:
    assert set(COMMAND_EXAMPLES) == set(COMMANDS) == set(REPLIES) == set(REPLY_EXAMPLES)
    assert set(EVENT_EXAMPLES) == set(EVENTS)


@BOTH_CODECS
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_golden_command_is_read_as_its_example(codec_name: str, name: str) -> None:
    codec = CODECS[codec_name]

    [entry] = read_commands(codec, golden_bytes(codec_name, f"commands/{name}"), codec.is_text)

    assert isinstance(entry, Request)
    assert (entry.id, entry.command) == (REQUEST_ID, COMMAND_EXAMPLES[name])


@BOTH_CODECS
@pytest.mark.parametrize("name", sorted(REPLIES))
def test_golden_reply_is_read_as_its_example(codec_name: str, name: str) -> None:
    reply = read_reply(codec_name, f"replies/{name}")

    assert (reply.id, reply.err) == (REQUEST_ID, None)
    assert msgspec.convert(reply.ok, REPLIES[name]) == REPLY_EXAMPLES[name]


@BOTH_CODECS
@pytest.mark.parametrize("code", ErrorCode)
def test_golden_refusal_is_read_with_its_fields(codec_name: str, code: ErrorCode) -> None:
    reply = read_reply(codec_name, f"errors/{code}")

    assert reply.ok is None
    body = msgspec.convert(reply.err, ErrorBody)
    assert (body.code, body.definite) == (code, code is not ErrorCode.OUTCOME_UNKNOWN)
    assert {name: getattr(body, name) for name in ERROR_FIELDS.get(code, {})} == ERROR_FIELDS.get(code, {})


@BOTH_CODECS
@pytest.mark.parametrize("name", sorted(EVENTS))
def test_golden_event_is_read_as_its_example(codec_name: str, name: str) -> None:
    codec = CODECS[codec_name]

    [said] = read_messages(codec, golden_bytes(codec_name, f"events/{name}"), codec.is_text)

    assert isinstance(said, Said)
    assert said.name == name
    assert msgspec.convert(said.body, EVENTS[name]) == EVENT_EXAMPLES[name]


def with_unknown_fields(value: Any) -> Any:
    """Return `value` as a later version might send it: one more field in every map that is an object."""
    if isinstance(value, list):
        return [with_unknown_fields(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    # The keys of these maps are ids, so that one more key would be one more object; eligibility is closed.
    grown = {key: inner if key in NOT_OBJECTS else with_unknown_fields(inner) for key, inner in value.items()}
    return {**grown, "from_a_later_version": {"n": 1}}


NOT_OBJECTS = ("stock", "packets", "sales", "grabs", "entries", "eligible")


@BOTH_CODECS
@pytest.mark.parametrize("name", sorted(EVENTS))
def test_event_with_unknown_fields_is_read_without_them(codec_name: str, name: str) -> None:
    """docs/protocol.md: "unknown events and unknown fields must be ignored"."""
    codec = CODECS[codec_name]
    data = codec.encode(with_unknown_fields(GOLDEN_VALUES[f"events/{name}"]))

    [said] = read_messages(codec, data, codec.is_text)

    assert isinstance(said, Said)
    assert msgspec.convert(said.body, EVENTS[name]) == EVENT_EXAMPLES[name]


@BOTH_CODECS
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_with_unknown_fields_is_read_without_them(codec_name: str, name: str) -> None:
    codec = CODECS[codec_name]
    data = codec.encode(with_unknown_fields(GOLDEN_VALUES[f"commands/{name}"]))

    [entry] = read_commands(codec, data, codec.is_text)

    assert isinstance(entry, Request)
    assert entry.command == COMMAND_EXAMPLES[name]


def test_hexadecimal_text_is_read_back() -> None:
    data = bytes(range(256))

    assert golden.from_hex(golden.to_hex(data)) == data
