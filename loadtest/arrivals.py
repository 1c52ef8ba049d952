"""
When things happen: seeded arrival times.

Decides moments only, in whole microseconds from the start of a run. Does not decide who acts or what they do
(`plan.py`). Pure: the source of chance comes in as an argument, and one seed always gives the same moments.

The load is open: moments come from a process that does not wait for answers, so a slow server cannot slow the
questions down and hide its own delay ("coordinated omission", Gil Tene).
"""

import random
from collections.abc import Iterator
from typing import Final, Literal

ArrivalProcess = Literal["poisson", "uniform"]

US_PER_S: Final = 1_000_000


def stream(seed: int, name: str) -> random.Random:
    """
    Return the source of chance called `name` under `seed`.

    Each subject of a plan draws from its own stream, so that changing the rate of likes leaves the comments as they
    were. Seeding with text goes through SHA-512 and is the same on every Python.
    """
    return random.Random(f"{seed}/{name}")


def arrivals(
    rng: random.Random, process: ArrivalProcess, per_s: float, start_s: float, end_s: float
) -> Iterator[int]:
    """
    Yield moments at `per_s` in [start_s, end_s), rising.

    Args:
        rng: Source of chance. Uniform arrivals use it for their phase only.
        process: "poisson" for independent people, "uniform" for equal distances.
        per_s: Mean rate; 0 yields nothing.
        start_s: First possible moment, seconds.
        end_s: First impossible moment, seconds.
    """
    if per_s <= 0:
        return
    gap_s = 1 / per_s
    moment_s = start_s + (rng.expovariate(per_s) if process == "poisson" else gap_s * rng.random())
    while moment_s < end_s:
        yield int(moment_s * US_PER_S)
        moment_s += rng.expovariate(per_s) if process == "poisson" else gap_s


def ramp(rng: random.Random, count: int, length_s: float) -> list[int]:
    """
    Return `count` moments spread evenly over `length_s`, each moved within its own slot.

    Even, so that the ramp asks for no more handshakes per second than it says; moved, so that they do not come in
    step with the server's timers. A length of 0 is a storm: everybody at once.
    """
    slot_us = length_s * US_PER_S / count if count else 0.0
    return [int((place + rng.random()) * slot_us) for place in range(count)]


class Allowances:
    """
    Token buckets that keep a plan within the server's limits per viewer.

    A plan that breaks a limit would measure refusals. Holds one entry per viewer who has acted.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level: dict[int, tuple[float, int]] = {}

    def take(self, actor: int, at_us: int) -> bool:
        """Return whether `actor` may act at `at_us`, and if so count it. Moments must not go back."""
        level, last_us = self._level.get(actor, (self._burst, at_us))
        level = min(self._burst, level + (at_us - last_us) / US_PER_S * self._per_s)
        if level < 1:
            self._level[actor] = (level, at_us)
            return False
        self._level[actor] = (level - 1, at_us)
        return True
