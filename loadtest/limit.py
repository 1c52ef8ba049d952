"""
How much a server holds, and what gives out first.

Decides the steps of a search over one number of a scenario, and from the figures of the step that failed, which part
it was: the generator, the store, the server's event loop, or the network. Runs and measures nothing itself
(`find_limit.py`, `watch.py`). Pure.

The search doubles until a step fails, then halves the gap. A step fails when a threshold is missed or the generator
cannot keep up; a broken promise is no limit but a bug, and ends the search.
"""

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from loadtest.report import Exit, Result
from loadtest.watch import Usage

Part = Literal["server loop", "store", "network", "generator", "processor", "unknown"]

#: Share of a core at which a single-threaded process has nothing left.
BUSY_SHARE: Final = 0.9
#: The server's loop answers a request that needs no store within this, or it is behind.
LOOP_SLOW_MS: Final = 250.0
#: Processor time of the whole machine that is left when there is some left.
IDLE_SHARE_MIN: Final = 0.05
#: Segments sent again, of those sent, that a healthy network does not reach.
RETRANSMITTED_MAX: Final = 0.01
STEPS_MAX: Final = 24


class Culprit(Struct, frozen=True):
    """What gave out, and how one can tell."""

    part: Part
    why: str


class Search:
    """
    The values to try, one after the other.

    Ask for `next_value`, try it, tell `held`. Bounds: `STEPS_MAX` steps.
    """

    def __init__(self, first: float, highest: float, precision: float, *, whole: bool) -> None:
        self._value = first
        self._highest = highest
        self._precision = precision
        self._whole = whole
        self._steps = 0
        #: The highest value that held, and the lowest that did not.
        self.best = 0.0
        self.failed: float | None = None

    def values(self) -> Iterator[float]:
        """Yield what to try; between two values, `held` must be told."""
        while self._steps < STEPS_MAX and not self._done():
            self._steps += 1
            yield self._value

    def _done(self) -> bool:
        if self.failed is None:
            return self.best >= self._highest
        least = max(self._precision * self.failed, 1 if self._whole else 0)
        return self.failed - self.best <= least

    def held(self, holds: bool) -> None:
        """Be told how the last value went."""
        if holds:
            self.best = self._value
        else:
            self.failed = self._value
        value = self.best * 2 if self.failed is None else (self.best + self.failed) / 2
        value = min(self._highest, value)
        self._value = round(value) if self._whole else value


def culprit(result: Result, usage: Usage) -> Culprit:
    """
    Return what gave out in a step that failed.

    Args:
        result: Of the step.
        usage: What server, store and machine used meanwhile.
    """
    if result.exit_code == Exit.SATURATED:
        return Culprit("generator", "; ".join(result.reasons))
    missed = "; ".join(result.reasons)
    store, server = usage.store_share, usage.server_share
    if store is not None and store >= BUSY_SHARE:
        return Culprit("store", f"it used {store:.0%} of a core; {missed}")
    if server is not None and server >= BUSY_SHARE:
        return Culprit("server loop", f"its busiest process used {server:.0%} of a core; {missed}")
    crowded = f", all cores busy ({usage.idle_share:.0%} idle)" if usage.idle_share < IDLE_SHARE_MIN else ""
    if usage.probe_p50_ms > LOOP_SLOW_MS:
        return Culprit(
            "server loop",
            f"a request that needs nothing but the loop took {usage.probe_p50_ms:.0f} ms{crowded}; {missed}",
        )
    refused = sum(count for fault, count in result.faults.items() if fault.startswith("connect_"))
    if usage.listen_drops or refused:
        return Culprit(
            "network",
            f"{usage.listen_drops:,} connections dropped from the listening queue, {refused:,} refused; {missed}",
        )
    if usage.retransmitted_share > RETRANSMITTED_MAX:
        return Culprit("network", f"{usage.retransmitted_share:.1%} of the segments sent again; {missed}")
    if crowded:
        shares = {"server": server, "store": store, "generator": result.generator.get("cpu_share_max")}
        used = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share is not None)
        return Culprit(
            "processor", f"too few cores for all that runs here{crowded}; of one core, {used}; {missed}"
        )
    slow = max(result.metrics[f"{subject}_p99_ms"] for subject in ("claim", "grab", "reply"))
    if slow > LOOP_SLOW_MS:
        return Culprit("store", f"answers took {slow:.0f} ms while the server's loop was free; {missed}")
    return Culprit(
        "unknown", f"nothing that is watched was short: the network, or a limit set on purpose; {missed}"
    )
