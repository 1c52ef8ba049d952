"""
What a slow viewer loses, and in which order.

Decides from the bytes a viewer has not read: everything is sent while they are few; then facts only, and their chat is
counted as thinned; then the connection is closed with 4501 and the viewer resumes from the log. Facts are never
given up. Pure.

Source: docs/architecture.md, "Slow viewers".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

#: Unsent bytes above which a viewer gets facts only.
UNSENT_BYTES_SLOW: Final = 64 * 1024
#: Unsent bytes above which a viewer is cut off.
UNSENT_BYTES_MAX: Final = 1024 * 1024
#: Time above `UNSENT_BYTES_SLOW` after which a viewer is cut off (seconds).
SLOW_S_MAX: Final = 10.0


class Verdict(Enum):
    """What to do with a slow viewer now."""

    FACTS_ONLY = "facts_only"
    CLOSE = "close"


@dataclass(slots=True)
class SlowViewer:
    """A viewer above `UNSENT_BYTES_SLOW`."""

    since_s: float
    #: Chat events they did not get.
    dropped: int = 0

    def judge(self, unsent_bytes: int, now_s: float) -> Verdict:
        """Decide from what is unsent and for how long."""
        if unsent_bytes > UNSENT_BYTES_MAX or now_s - self.since_s > SLOW_S_MAX:
            return Verdict.CLOSE
        return Verdict.FACTS_ONLY
