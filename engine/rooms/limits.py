"""
Rates: how often somebody may do something.

Decides by the generic cell rate algorithm: one number per bucket, the moment it is full again, instead of a count and
a timer. Pure: the caller passes the time. The per-viewer rates of comments and likes use the same rule inside the store
(`store/lua/comments.lua`, `likes.lua`), because they must hold over all workers.

Source: ITU-T I.371; docs/protocol.md, "Limits".
"""

from typing import Final

#: Commands that come too fast before their sender is taken for a flood and closed with 4400.
TOO_FAST_MAX: Final = 1_000
#: Of those, how many are forgotten for each command that comes in time. A bucket lets one through every so often,
#: whatever the rate; at six times the rate and above a sender is a flood sooner or later.
FORGOTTEN_EACH: Final = 5


class Bucket:
    """`per_s` events a second on average, `burst` at once."""

    __slots__ = ("_burst_s", "_cost_s", "_full_at")

    def __init__(self, per_s: float, burst: int) -> None:
        self._cost_s = 1.0 / per_s
        self._burst_s = (burst - 1) / per_s
        self._full_at = 0.0

    def take(self, now_s: float) -> float:
        """Take one. Returns 0.0 when allowed, else the seconds to wait before trying again."""
        full_at = max(self._full_at, now_s)
        excess = full_at - now_s - self._burst_s
        # Sums of floats carry a little dust; a caller that waited as long as told must be let through.
        if excess > 1e-9:
            return excess
        self._full_at = full_at + self._cost_s
        return 0.0

    def is_full(self, now_s: float) -> bool:
        """Tell whether the bucket is as good as new."""
        return self._full_at <= now_s
