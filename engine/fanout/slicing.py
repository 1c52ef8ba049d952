"""
How much of a flush one turn of the loop may write.

Decides between two who want the loop: a room of ten thousand that is being sent to, and everybody whose commands and
joins came in meanwhile. A slice is short while the others need little, so that a command is answered within a few of
them; it grows while they need more than the flush does, so that a storm of joins cannot starve those who are here.
Pure: the caller passes the time.

Source: docs/decisions/0014-what-a-flush-costs.md.
"""

from typing import Final

#: About 2 ms at 8 to 10 µs a write.
SLICE_WRITES_MIN: Final = 200
SLICE_WRITES_MAX: Final = 1_600


class Slicer:
    """The slices of one room's flushes."""

    __slots__ = ("_ended_s", "_took_s", "_writes")

    def __init__(self) -> None:
        self._writes = SLICE_WRITES_MIN
        #: When the last slice ended, and how long it took; None before the first of a flush.
        self._ended_s: float | None = None
        self._took_s = 0.0

    def first(self) -> int:
        """Return the writes of a flush's first slice."""
        self._ended_s = None
        self._writes = SLICE_WRITES_MIN
        return self._writes

    def wrote(self, started_s: float, ended_s: float) -> None:
        """Note a slice."""
        self._ended_s = ended_s
        self._took_s = ended_s - started_s

    def following(self, now_s: float) -> int:
        """Return the writes of the next slice: twice as many when the others took longer than the last one did."""
        assert self._ended_s is not None, "no slice before this one"
        if now_s - self._ended_s > self._took_s:
            self._writes = min(2 * self._writes, SLICE_WRITES_MAX)
        else:
            self._writes = SLICE_WRITES_MIN
        return self._writes
