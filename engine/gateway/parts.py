"""
What every connection of a worker shares.

Decides nothing: one frozen record, built once by `server.py`, so that sessions and commands do not need to know the
gateway that holds them.
"""

import asyncio
from dataclasses import dataclass

from engine.clock import StoreClock
from engine.errors import Unauthorized
from engine.fanout.hub import Hub
from engine.gateway.console import Console
from engine.gateway.likes import LikeGatherers
from engine.rooms.words import WordFilter
from engine.store.store import Store
from engine.telemetry import Metrics
from engine.timers import Timers
from engine.tokens import Claims, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Rates of viewers and connections: per second, and at once."""

    comments_per_s: float
    comments_burst: int
    likes_per_s: float
    likes_burst: int
    commands_per_s: float
    commands_burst: int
    #: Life of a share token (seconds).
    share_ttl_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one worker that a connection uses."""

    loop: asyncio.AbstractEventLoop
    store: Store
    hub: Hub
    console: Console
    likes: LikeGatherers
    timers: Timers
    tokens: Tokens
    words: WordFilter
    clock: StoreClock
    metrics: Metrics
    limits: Limits

    def share_token(self, claims: Claims, channel: str | None) -> str | None:
        """Return a viewer's own share token, or None when this engine has no key that signs."""
        try:
            return self.tokens.sign_share(
                tenant=claims.tenant,
                room=claims.room,
                inviter=claims.viewer,
                channel=channel,
                ttl_s=self.limits.share_ttl_s,
            )
        except Unauthorized:
            return None
