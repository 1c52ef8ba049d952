"""
The store's clock, read from this process.

Every deciding function reads the store's `TIME`; replies that carry it are observed here, so that `ping` and join
replies can tell the time without asking the store. Between observations the local monotonic clock carries on.
Nothing is decided by this clock. Before the first observation it follows the system clock.
"""

import time
from collections.abc import Callable

#: How much an old estimate may be ahead of a new one before it is believed to have drifted (milliseconds).
_TRUST_MS = 50.0


class StoreClock:
    """An estimate of the store's time, never ahead of it by more than the drift between observations."""

    __slots__ = ("_monotonic", "_offset_ms")

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._offset_ms = wall() * 1000 - monotonic() * 1000

    def now_ms(self) -> int:
        """Return the store's time in milliseconds since 1970-01-01 UTC, as estimated."""
        return int(self._monotonic() * 1000 + self._offset_ms)

    def observe(self, store_now_ms: int) -> None:
        """Learn from a reply that carried the store's time. A reply's travel time only makes it look older."""
        offset = store_now_ms - self._monotonic() * 1000
        if offset > self._offset_ms or self._offset_ms - offset > _TRUST_MS:
            self._offset_ms = offset
