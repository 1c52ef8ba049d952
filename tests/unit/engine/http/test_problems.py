"""Problem documents: one status for every code, and the fields of RFC 9457."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import web

from engine.errors import (
    BlockedText,
    ConfigError,
    EngineFault,
    Forbidden,
    LiveroomError,
    Overloaded,
    RateLimited,
    RoomNotFound,
    StoreUnavailable,
    TokenExpired,
    Unauthorized,
    rejected,
)
from engine.http.problems import CONTENT_TYPE, STATUS, problem, problem_of, status_of
from protocol.codes import ErrorCode


def document(response: web.Response) -> dict[str, Any]:
    assert response.content_type == CONTENT_TYPE
    assert isinstance(response.body, bytes)
    body: dict[str, Any] = json.loads(response.body)
    assert body["status"] == response.status
    return body


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_an_error_status(code: ErrorCode) -> None:
    body = document(problem(code, "why"))

    assert 400 <= body["status"] <= 599
    assert body == {
        "type": f"urn:liveroom:problem:{code.value}",
        "title": HTTPStatus(body["status"]).phrase,
        "status": status_of(code).value,
        "detail": "why",
        "code": code.value,
        "definite": code is not ErrorCode.OUTCOME_UNKNOWN,
    }


def test_what_contradicts_the_rooms_state_is_a_conflict() -> None:
    stateful = [code for code in ErrorCode if code not in STATUS]

    assert {status_of(code) for code in stateful} == {HTTPStatus.CONFLICT}
    assert {ErrorCode.CONFLICT, ErrorCode.ROOM_NOT_LIVE, ErrorCode.SOLD_OUT, ErrorCode.ENDED} <= set(stateful)


@pytest.mark.parametrize(
    ("error", "status", "code", "definite"),
    [
        (Unauthorized(), 401, "unauthorized", True),
        (TokenExpired(), 401, "unauthorized", True),
        (Forbidden(), 403, "forbidden", True),
        (RoomNotFound(), 404, "room_not_found", True),
        (BlockedText(), 422, "blocked_text", True),
        (RateLimited(retry_ms=2_500), 429, "rate_limited", True),
        (Overloaded(), 503, "overloaded", True),
        (StoreUnavailable("away", definite=True), 503, "unavailable", True),
        (StoreUnavailable("away", definite=False), 504, "outcome_unknown", False),
        (EngineFault("secret detail"), 500, "outcome_unknown", False),
        (rejected(ErrorCode.CONFLICT, None, {"state": "paused"}), 409, "conflict", True),
    ],
)
def test_every_error_becomes_a_problem(error: LiveroomError, status: int, code: str, definite: bool) -> None:
    body = document(problem_of(error))

    assert (body["status"], body["code"], body["definite"]) == (status, code, definite)
    assert "secret" not in body["detail"]


def test_the_errors_own_fields_stand_beside() -> None:
    body = document(problem_of(rejected(ErrorCode.LIMIT_REACHED, "enough", {"left": 0})))

    assert (body["left"], body["detail"]) == (0, "enough")


def test_field_that_rfc_9457_has_a_meaning_for_goes_by_another_name() -> None:
    """RFC 9457 §3.1: `status` is the HTTP status code."""
    body = document(problem_of(rejected(ErrorCode.CONFLICT, None, {"status": "paid"})))

    assert (body["status"], body["order_status"]) == (409, "paid")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimited(retry_ms=2_500), "3"),
        (RateLimited(retry_ms=1), "1"),
        (StoreUnavailable("away"), "1"),
        (Overloaded(), "1"),
    ],
)
def test_who_may_come_back_is_told_when(error: LiveroomError, seconds: str) -> None:
    """RFC 9110 §10.2.3: whole seconds, and never less than what `retry_ms` says."""
    assert problem_of(error).headers["Retry-After"] == seconds


def test_401_says_how_to_authenticate() -> None:
    """RFC 9110 §15.5.2: "MUST send a WWW-Authenticate header field"."""
    assert problem_of(Unauthorized()).headers["WWW-Authenticate"] == 'Bearer realm="liveroom"'
    assert "WWW-Authenticate" not in problem_of(Forbidden()).headers


def test_what_only_the_operator_can_mend_is_no_answer() -> None:
    with pytest.raises(AssertionError):
        problem_of(ConfigError("x"))
