"""
What can be wrong with bytes or a map from the other side.

Decides the exceptions of this package. The engine's own tree (`engine/errors.py`) catches them where a frame
enters; a client sees only codes.
"""

from protocol.codes import ErrorCode


class ProtocolError(Exception):
    """Something received does not follow the protocol."""


class MalformedFrame(ProtocolError):
    """A frame that cannot be parsed into a map or an array of maps."""


class BadCommand(ProtocolError):
    """A map that is not a command this protocol knows, or has a wrong field."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.BAD_COMMAND) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UnexpectedFrame(ProtocolError):
    """A well-formed message that makes no sense now, such as a reply to a command never sent."""
