"""
Whatever bytes arrive, nothing is raised and everything is answered.

Question: is there a frame that `read_commands` or `ServerConnection` does not survive, or a bad message without exactly
one refusal? Method: 20,000 examples over both codecs: random bytes, random well-formed values, and valid commands with
something wrong. A failure prints the blob that repeats it; `--hypothesis-seed` repeats a whole run.
"""

from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.codec import CODECS, JSON, MSGPACK, Codec
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import COMMANDS, Command
from protocol.connection import ConnectionState, ServerConnection
from protocol.errors import MalformedFrame
from protocol.frames import Refusal, Request, read_commands
from protocol.limits import COMMANDS_PER_FRAME_MAX, VIOLATIONS_MAX
from tests.support.wire_examples import COMMAND_EXAMPLES, to_map

BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))


def examples(count: int) -> settings:
    """Return the settings of a test that runs `count` examples, never the same ones by intention."""
    return settings(
        max_examples=count,
        derandomize=False,
        database=None,
        print_blob=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


VALID = [to_map(command, 7) for command in COMMAND_EXAMPLES.values()]
FIELDS = sorted({field for message in VALID for field in message} | {"later", ""})

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, 7, -1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63, 2**64 - 1, -(2**63)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "ping", "c-5f1e0b2a", "r_88", "１", "\u200b", "\x00", "x" * 300, "`$.qty`", *COMMANDS]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
#: What only MessagePack can write.
foreign = st.sampled_from(
    [b"x", msgpack.ExtType(4, b"x"), msgpack.Timestamp(1, 0), float("nan"), float("inf"), {b"k": 1}]
)


@st.composite
def mutated_commands(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid command with up to three fields dropped, replaced, renamed or added."""
    message = dict(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(sorted(message) or ["cmd"]))
        match draw(st.sampled_from(["drop", "replace", "rename", "add"])):
            case "drop":
                message.pop(field, None)
            case "replace":
                message[field] = draw(values)
            case "rename":
                message[draw(st.sampled_from(FIELDS))] = message.pop(field, None)
            case _:
                message[draw(st.sampled_from(FIELDS))] = draw(values)
    return message


frames = mutated_commands() | st.lists(mutated_commands() | values, max_size=5) | values


def encode(codec: Codec, value: Any) -> bytes:
    """Return `value` in the codec, by the libraries and not by the code under test."""
    return orjson.dumps(value) if codec is JSON else msgpack.packb(value)


def check_outcomes(codec: Codec, data: bytes) -> list[Request | Refusal]:
    """Read a frame, assert what holds for every frame, and return the outcomes."""
    outcomes = read_commands(codec, data, codec.is_text)
    for outcome in outcomes:
        if isinstance(outcome, Request):
            assert isinstance(outcome.command, Command)
            assert 0 < outcome.id < 2**32
            assert outcome.command.name() == outcome.raw["cmd"]
            # What was accepted can be written down and sent on, in both codecs.
            JSON.encode(outcome.raw)
            MSGPACK.encode(outcome.raw)
        else:
            assert outcome.code in ErrorCode
            assert outcome.message
            assert outcome.is_violation is (outcome.id == 0)
            JSON.encode({"re": outcome.id, "err": {"code": outcome.code, "message": outcome.message}})
    return outcomes


def check_count(codec: Codec, data: bytes, outcomes: list[Request | Refusal]) -> None:
    """Assert that every map, or the frame as a whole, has exactly one outcome."""
    try:
        value = codec.decode(data)
    except MalformedFrame:
        value = None
    if isinstance(value, list) and len(value) <= COMMANDS_PER_FRAME_MAX:
        assert len(outcomes) == len(value)
    elif isinstance(value, dict):
        assert len(outcomes) == 1
    else:
        [outcome] = outcomes
        assert isinstance(outcome, Refusal)
        assert (outcome.id, outcome.code) == (0, ErrorCode.BAD_FRAME)


def check_connection(codec: Codec, data: bytes, outcomes: list[Request | Refusal]) -> None:
    """Assert that a joined connection passes on or answers what was read, up to the third violation."""
    connection = ServerConnection(codec)
    join = {"cmd": "room.join", "id": 1, "room": "r", "token": "t"}
    connection.receive(encode(codec, join), codec.is_text)
    connection.joined()
    violations = 0
    for _ in range(VIOLATIONS_MAX):
        received = connection.receive(data, codec.is_text)
        violations += sum(refusal.is_violation for refusal in received.refusals)
        if received.close is not None:
            assert received.close is CloseCode.PROTOCOL_VIOLATION
            assert violations == VIOLATIONS_MAX
            assert connection.state is ConnectionState.CLOSED
            return
        assert len(received.requests) + len(received.refusals) == len(outcomes)
        assert connection.state is ConnectionState.JOINED
    assert violations < VIOLATIONS_MAX


def check(codec: Codec, data: bytes) -> list[Request | Refusal]:
    outcomes = check_outcomes(codec, data)
    check_count(codec, data, outcomes)
    check_connection(codec, data, outcomes)
    return outcomes


@BOTH
@examples(5_000)
@given(data=st.binary(max_size=200))
def test_random_bytes(codec: Codec, data: bytes) -> None:
    check(codec, data)


@BOTH
@examples(2_500)
@given(value=frames)
def test_random_values_and_mutated_commands(codec: Codec, value: Any) -> None:
    outcomes = check(codec, encode(codec, value))

    if isinstance(value, list) and len(value) <= COMMANDS_PER_FRAME_MAX:
        assert len(outcomes) == len(value)
    else:
        assert len(outcomes) == 1


@BOTH
@examples(2_000)
@given(value=frames, data=st.data())
def test_damaged_bytes_of_a_frame(codec: Codec, value: Any, data: st.DataObject) -> None:
    damaged = bytearray(encode(codec, value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        match data.draw(st.sampled_from(["cut", "flip", "insert"])):
            case "cut":
                del damaged[at : at + data.draw(st.integers(1, 8))]
            case "flip" if at < len(damaged):
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case _:
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=4))

    check(codec, bytes(damaged))


@examples(1_000)
@given(message=mutated_commands(), field=st.sampled_from(FIELDS), value=foreign, deep=st.integers(0, 3))
def test_types_only_messagepack_has(message: dict[str, Any], field: str, value: Any, deep: int) -> None:
    for _ in range(deep):
        value = [value]
    message[field] = value

    [outcome] = check(MSGPACK, msgpack.packb(message))

    assert isinstance(outcome, Refusal)
    assert (outcome.id, outcome.code) == (0, ErrorCode.BAD_FRAME)


@BOTH
@pytest.mark.parametrize("command", COMMAND_EXAMPLES.values(), ids=list(COMMAND_EXAMPLES))
def test_valid_command_is_accepted(codec: Codec, command: Command) -> None:
    """The baseline of the mutations above: unchanged, they are commands."""
    [outcome] = check(codec, encode(codec, to_map(command, 7)))

    assert isinstance(outcome, Request)
    assert outcome.command == command
