"""
Splitting money into shares.

Decides how many cents each share of a red packet holds, before it opens. Integers only. Pure: chance comes in as an
argument; the product passes `secrets.SystemRandom`, because a share that can be guessed can be waited for.

Does not decide who gets a share (`store/lua/red_packets.lua`), which checks sum, count and minimum again.
Source: docs/decisions/0011-red-packet-split.md.
"""

import random
from typing import Final

from engine.errors import rejected
from protocol.codes import ErrorCode

#: Shares of one packet: a packet is handed to the store in one call.
SHARES_MAX: Final = 10_000


def check(total_cents: int, shares_count: int, min_cents: int) -> None:
    """
    Accept a packet that can be split.

    Raises:
        CommandRejected: With `bad_quantity`.
    """
    if shares_count > SHARES_MAX:
        raise rejected(ErrorCode.BAD_QUANTITY, f"`shares` must be at most {SHARES_MAX}")
    if total_cents < shares_count * min_cents:
        raise rejected(ErrorCode.BAD_QUANTITY, "`total_cents` is less than `min_cents` for every share")


def split_lucky(total_cents: int, shares_count: int, min_cents: int, rng: random.Random) -> list[int]:
    """
    Split at random, fair to late grabbers: each share is drawn from min to twice the mean of what is left.

    Args:
        total_cents: Money in the packet.
        shares_count: Viewers who can grab, 1 or more.
        min_cents: Least cents of a share, 1 or more.
        rng: Source of chance.

    Returns:
        Shares in cents, in the order they are handed out. They sum to `total_cents`; each is at least `min_cents`.
    """
    assert shares_count >= 1
    assert total_cents >= shares_count * min_cents
    shares: list[int] = []
    left = total_cents
    for still in range(shares_count, 1, -1):
        most = min(2 * (left // still) - min_cents, left - (still - 1) * min_cents)
        share = rng.randint(min_cents, max(min_cents, most))
        shares.append(share)
        left -= share
    shares.append(left)
    assert sum(shares) == total_cents
    assert min(shares) >= min_cents
    return shares


def split_even(total_cents: int, shares_count: int) -> list[int]:
    """Split evenly; the first shares get the odd cents."""
    share, odd = divmod(total_cents, shares_count)
    return [share + 1] * odd + [share] * (shares_count - odd)
