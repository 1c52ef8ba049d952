"""
Ends a run that is told to end.

Decides that SIGINT and SIGTERM do the same: the run is cancelled, so that everything it started is stopped as it is on
any other way out, and the process then ends with 130 or 143, the numbers a shell gives for the two. A second signal
changes nothing: every step of the way out has a limit of its own.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")

#: What a shell adds to the number of a signal.
EXIT_BASE: Final = 128


class Interrupted(Exception):
    """A signal ended the run."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.exit_code = EXIT_BASE + number


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """
    Run `work` in an event loop of its own and return its result.

    Raises:
        Interrupted: If a signal ended it; it has cleaned up by then.
    """
    return asyncio.run(_heeding(work))


async def _heeding(work: Coroutine[Any, Any, Answer]) -> Answer:
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    caught: list[int] = []

    def end(number: int) -> None:
        if not caught:
            caught.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        raise Interrupted(caught[0]) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
