"""
Errors of the merchant API: RFC 9457 problem documents.

Decides the HTTP status of each error code and the document's fields. Does not decide what is an error.
"""

from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

from engine.errors import CommandRejected, EngineFault, LiveroomError, StoreUnavailable
from protocol.codes import ErrorCode

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:liveroom:problem:"
#: Fields of an error that RFC 9457 gives another meaning, and how they are called here.
RENAMED: Final = {"status": "order_status"}

STATUS: Final[dict[ErrorCode, HTTPStatus]] = {
    ErrorCode.BAD_FRAME: HTTPStatus.BAD_REQUEST,
    ErrorCode.BAD_COMMAND: HTTPStatus.BAD_REQUEST,
    ErrorCode.BAD_QUANTITY: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNKNOWN_COMMAND: HTTPStatus.BAD_REQUEST,
    ErrorCode.TOO_LONG: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.BLOCKED_TEXT: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.ROOM_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.OVERLOADED: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.OUTCOME_UNKNOWN: HTTPStatus.GATEWAY_TIMEOUT,
}


def status_of(code: ErrorCode) -> HTTPStatus:
    """Return the status of a code; what contradicts the state of the room is a conflict."""
    return STATUS.get(code, HTTPStatus.CONFLICT)


def problem(code: ErrorCode, detail: str, *, status: HTTPStatus | None = None, **extra: Any) -> web.Response:
    """Return a problem document. `extra` holds the fields the code adds."""
    status = status or status_of(code)
    document = {
        "type": TYPE_PREFIX + code.value,
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code.value,
        "definite": code.definite,
        **extra,
    }
    headers = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="liveroom"'
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        # Whole seconds, rounded up: who comes back when told must be let through.
        headers["Retry-After"] = str(max(1, -(-int(extra.get("retry_ms", 1000)) // 1000)))
    return web.Response(
        body=orjson.dumps(document), status=status, content_type=CONTENT_TYPE, headers=headers
    )


def problem_of(error: LiveroomError) -> web.Response:
    """Return the problem document of a refusal or a failure."""
    if isinstance(error, CommandRejected):
        extra = {RENAMED.get(field, field): value for field, value in error.extra.items()}
        return problem(error.code, error.message, **extra)
    if isinstance(error, StoreUnavailable):
        code = ErrorCode.UNAVAILABLE if error.definite else ErrorCode.OUTCOME_UNKNOWN
        return problem(code, str(error), retry_ms=1000)
    if isinstance(error, EngineFault):
        return problem(ErrorCode.OUTCOME_UNKNOWN, "internal error", status=HTTPStatus.INTERNAL_SERVER_ERROR)
    raise AssertionError(f"no problem document for {error!r}")
