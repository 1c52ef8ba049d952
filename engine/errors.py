"""
The engine's error tree.

Decides who has to act on a failure: the viewer, the peer, nobody for a while, or the operator. Does not decide
what is sent for it: the gateway turns these into replies and close codes. A bug is none of these; it is an
`AssertionError`. Library errors are translated where they enter.
"""

from typing import Any, Final

from protocol.codes import CloseCode, ErrorCode

#: Exit code of a process that ended with a `ConfigError`: EX_CONFIG of sysexits.h.
EXIT_CONFIG: Final = 78


class LiveroomError(Exception):
    """Something the engine expects to go wrong now and then."""


class CommandRejected(LiveroomError):
    """The command is refused; the connection stays open."""

    #: What the error reply carries.
    code: ErrorCode = ErrorCode.BAD_COMMAND

    def __init__(self, message: str | None = None, **extra: Any) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0])
        #: Fields the code adds to the error, such as `retry_ms`.
        self.extra = extra

    @property
    def message(self) -> str:
        """Return what the error reply says to a person."""
        return str(self)


class Overloaded(CommandRejected):
    """Too much is waiting for the store; try again in a moment."""

    code = ErrorCode.OVERLOADED


class Forbidden(CommandRejected):
    """Your role may not do that here."""

    code = ErrorCode.FORBIDDEN


class Unauthorized(CommandRejected):
    """The token is missing, forged, or not for this room."""

    code = ErrorCode.UNAUTHORIZED


class TokenExpired(Unauthorized):
    """The token has expired; get a new one and resume."""


class RoomNotFound(CommandRejected):
    """There is no such room."""

    code = ErrorCode.ROOM_NOT_FOUND


class RateLimited(CommandRejected):
    """Too fast; wait for `retry_ms`."""

    code = ErrorCode.RATE_LIMITED


class BlockedText(CommandRejected):
    """The text holds a word that is not allowed here."""

    code = ErrorCode.BLOCKED_TEXT


#: What a person reads for codes that the store decides.
_MESSAGES: Final[dict[ErrorCode, str]] = {
    ErrorCode.ROOM_NOT_FOUND: "There is no such room.",
    ErrorCode.ROOM_NOT_LIVE: "The room is not live.",
    ErrorCode.CONFLICT: "That contradicts what was done before.",
    ErrorCode.MUTED: "You may not comment here now.",
    ErrorCode.RATE_LIMITED: "Too fast; wait for `retry_ms`.",
    ErrorCode.NOT_FOUND: "There is no such thing in this room.",
    ErrorCode.FORBIDDEN: "Nobody acts on an equal or higher role.",
    ErrorCode.LIMIT_REACHED: "The limit is reached.",
}


def rejected(
    code: ErrorCode, message: str | None = None, extra: dict[str, Any] | None = None
) -> CommandRejected:
    """Return a refusal with a code that was decided elsewhere, such as in the store."""
    error = CommandRejected(message or _MESSAGES.get(code, code.value), **(extra or {}))
    error.code = code
    return error


class PeerViolation(LiveroomError):
    """The peer broke the protocol, so its connection is closed."""

    def __init__(self, message: str, close_code: CloseCode = CloseCode.PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.close_code = close_code


class StoreUnavailable(LiveroomError):
    """The store did not answer. Unless `definite`, the outcome is unknown and the same command may be repeated."""

    def __init__(self, message: str, *, definite: bool = True) -> None:
        super().__init__(message)
        self.definite = definite


class EngineFault(LiveroomError):
    """A bug, logged with its stack where it was noticed. It ends the connection it hurt."""


class ConfigError(LiveroomError):
    """The operator has to act: the engine refuses to start."""
