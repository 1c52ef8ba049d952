"""Codes and roles: names, numbers and what follows from them."""

import re
from pathlib import Path

from protocol.codes import ROLE_BY_NAME, SUBPROTOCOLS, CloseCode, ErrorCode, EventClass, Role, RoomState

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")

ERROR_CODES = """
    bad_frame bad_command unknown_command not_joined already_joined unauthorized forbidden room_not_found room_not_live
    rate_limited too_long blocked_text muted not_found not_started ended sold_out limit_reached not_eligible empty
    bad_quantity conflict paused overloaded unavailable outcome_unknown
"""
CLOSE_CODES = {4400, 4401, 4402, 4403, 4404, 4410, 4411, 4429, 4500, 4501, 4502, 4503}


def test_error_codes_are_those_of_version_1() -> None:
    assert [code.value for code in ErrorCode] == ERROR_CODES.split()


def test_only_an_unknown_outcome_is_not_definite() -> None:
    assert [code for code in ErrorCode if not code.definite] == [ErrorCode.OUTCOME_UNKNOWN]


def test_private_close_codes_are_those_of_version_1() -> None:
    assert {code.value for code in CloseCode if code >= 4000} == CLOSE_CODES


def test_close_codes_from_4500_ask_to_come_back() -> None:
    assert {code for code in CloseCode if code.may_reconnect} == {
        CloseCode.DRAINING,
        CloseCode.TOO_SLOW,
        CloseCode.STATE_LOST,
        CloseCode.IDLE,
    }


def test_every_code_is_documented() -> None:
    in_tables = set(re.findall(r"^\| `([a-z_]+|\d{4})` \|", DOCUMENT, re.M))

    assert {code.value for code in ErrorCode} | {str(code.value) for code in CloseCode} <= in_tables


def test_roles_are_ordered_by_power() -> None:
    assert sorted(Role) == [Role.VIEWER, Role.AGENT, Role.MODERATOR, Role.STREAMER, Role.OWNER]
    assert list(ROLE_BY_NAME) == ["viewer", "agent", "moderator", "streamer", "owner"]
    assert all(ROLE_BY_NAME[role.wire] is role for role in Role)


def test_names_that_stand_on_the_wire() -> None:
    assert [state.value for state in RoomState] == ["scheduled", "live", "paused", "closing", "closed"]
    assert [delivery.value for delivery in EventClass] == ["fact", "chat", "gauge", "personal", "control"]
    assert SUBPROTOCOLS == {"json": "liveroom.v1.json", "msgpack": "liveroom.v1.msgpack"}
