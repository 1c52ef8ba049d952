"""The exceptions of the package."""

import pytest

from protocol.codes import ErrorCode
from protocol.errors import BadCommand, MalformedFrame, ProtocolError, UnexpectedFrame


@pytest.mark.parametrize("kind", [BadCommand, MalformedFrame, UnexpectedFrame])
def test_every_exception_is_a_protocol_error(kind: type[Exception]) -> None:
    assert issubclass(kind, ProtocolError)


def test_bad_command_carries_the_code_to_answer() -> None:
    assert BadCommand("no").code is ErrorCode.BAD_COMMAND

    error = BadCommand("`text` is too long", ErrorCode.TOO_LONG)

    assert (error.code, error.message, str(error)) == (
        ErrorCode.TOO_LONG,
        "`text` is too long",
        "`text` is too long",
    )
