"""
The gateway: every connection of this worker, and the parts they share.

Decides the order in which connections are opened, counted, drained and let go. Does not parse frames (`session.py`) or
run commands (`dispatch.py`).

Source: docs/architecture.md, "Gateway".
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from engine.clock import StoreClock
from engine.errors import StoreUnavailable
from engine.fanout.hub import Hub, Room
from engine.gateway.dispatch import Console, Dispatcher, LikeGatherer
from engine.gateway.session import Session, wall_clock_s
from engine.gateway.transport import Transport
from engine.rooms.words import WordFilter
from engine.store.store import Store
from engine.telemetry import Metrics
from engine.timers import Timers
from engine.tokens import Tokens
from protocol.codes import CloseCode, Role

log = structlog.stdlib.get_logger(__name__)

SWEEP_S = 1.0
_LEAVE_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Rates of viewers and connections: per second, and at once."""

    comments_per_s: float
    comments_burst: int
    likes_per_s: float
    likes_burst: int
    commands_per_s: float
    commands_burst: int


class Gateway:
    """Everything a session needs, and the set of sessions."""

    def __init__(
        self,
        *,
        store: Store,
        hub: Hub,
        console: Console,
        timers: Timers,
        tokens: Tokens,
        words: WordFilter,
        clock: StoreClock,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store
        self.hub = hub
        self.console = console
        self.timers = timers
        self.tokens = tokens
        self.words = words
        self.clock = clock
        self.metrics = metrics
        self.limits = limits
        self.dispatcher = Dispatcher(self)
        self.sessions: set[Session] = set()
        self._likes: dict[Room, LikeGatherer] = {}
        self._next_connection = 1
        self._sweep_timer = self.loop.call_later(SWEEP_S, self._sweep)
        self.draining = False

    def open_session(self, transport: Transport) -> Session:
        """Begin a session on an accepted connection."""
        session = Session(self, transport, self._next_connection)
        self._next_connection += 1
        self.sessions.add(session)
        self.metrics.connections.inc()
        return session

    def session_joined(self, session: Session) -> None:
        """A session is in its room."""
        self.metrics.joins.inc()
        assert session.claims is not None
        assert session.room is not None
        if session.claims.role >= Role.STREAMER:
            self.timers.watch_host(session.room.key)
        log.debug("viewer.joined", room=str(session.room.key), viewer=session.viewer)

    def session_closed(self, session: Session, code: int) -> None:
        """A session's connection is gone."""
        self.sessions.discard(session)
        self.metrics.connections.dec()
        self.metrics.closes.labels(str(code)).inc()
        room = session.entered
        if room is not None:
            self.hub.unregister(session)
            room.detach(session)
            self.leave(session, room)
            duration_s = round(self.loop.time() - session.opened_at, 3)
            log.debug("viewer.left", room=str(room.key), viewer=session.viewer, code=code, seconds=duration_s)

    def leave(self, session: Session, room: Room) -> None:
        """Give up a connection's place in the store, again and again until it is done: leaving twice is harmless."""

        def done(header: Any, own: Any, error: Exception | None) -> None:
            if isinstance(error, StoreUnavailable):
                self.loop.call_later(_LEAVE_AGAIN_S, self.leave, session, room)

        self.store.leave(room.names, self.hub.worker, session.viewer, session.connection, done)

    def likes_of(self, room: Room) -> LikeGatherer:
        """Return the gatherer of a room's likes."""
        gatherer = self._likes.get(room)
        if gatherer is None:
            held = set(self.hub.rooms)
            self._likes = {kept: likes for kept, likes in self._likes.items() if kept in held}
            limits = self.limits
            gatherer = LikeGatherer(room, self.store, self.hub.worker, limits.likes_per_s, limits.likes_burst)
            self._likes[room] = gatherer
        return gatherer

    def _sweep(self) -> None:
        now_s = wall_clock_s()
        for session in list(self.sessions):
            session.sweep(now_s)
        self._sweep_timer = self.loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        """Stop sweeping."""
        self._sweep_timer.cancel()

    async def drain(self, spread_ms: int) -> None:
        """Tell every viewer when to come back, spread evenly, and close with 4500."""
        self.draining = True
        sessions = list(self.sessions)
        # A shuffled order, so that viewers of one room do not all come back last.
        secrets.SystemRandom().shuffle(sessions)
        for place, session in enumerate(sessions):
            after_ms = place * spread_ms // max(1, len(sessions))
            session.send(orjson.dumps([{"ev": "reconnect", "after_ms": after_ms}]))
            session.close(CloseCode.DRAINING, "draining")
            if place % 200 == 199:
                await asyncio.sleep(0)
