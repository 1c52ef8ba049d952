"""Replies: one body for every command, and the map of a refusal."""

import msgspec
import pytest

from protocol.codes import ErrorCode
from protocol.commands import COMMANDS
from protocol.replies import REPLIES, ErrorBody, Joined, error_body, error_reply
from tests.support.wire_examples import GAUGES, NOW_MS, REPLY_EXAMPLES, YOU, plain


def test_every_command_has_a_reply() -> None:
    assert set(REPLIES) == set(COMMANDS) == set(REPLY_EXAMPLES)


@pytest.mark.parametrize("name", REPLIES)
def test_reply_comes_back_from_its_map(name: str) -> None:
    example = REPLY_EXAMPLES[name]

    assert type(example) is REPLIES[name]
    assert msgspec.convert(plain(example), REPLIES[name]) == example


@pytest.mark.parametrize("code", ErrorCode)
def test_refusal_says_whether_the_outcome_is_known(code: ErrorCode) -> None:
    body = error_body(code)

    assert body == {"code": code.value, "message": code.value, "definite": code.value != "outcome_unknown"}
    assert msgspec.convert(body, ErrorBody).code == code


def test_refusal_carries_what_its_code_adds() -> None:
    reply = error_reply(7, ErrorCode.RATE_LIMITED, "slow down", retry_ms=800)

    assert reply == {
        "re": 7,
        "err": {"code": "rate_limited", "message": "slow down", "definite": True, "retry_ms": 800},
    }


def test_resumed_join_says_null_for_the_room() -> None:
    joined = Joined(
        now=NOW_MS,
        epoch="k",
        seq=3,
        resumed=True,
        you=YOU,
        gauges=GAUGES,
        room=None,
        missed=[],
        ping_ms=25_000,
    )

    assert plain(joined)["room"] is None
    assert plain(joined)["missed"] == []
