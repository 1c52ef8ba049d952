"""
The gateway: every connection of this worker, and the parts they share.

Decides the order in which connections are opened, counted, drained and let go. Does not parse frames (`session.py`) or
run commands (`dispatch.py`).

Source: docs/architecture.md, "Gateway".
"""

import asyncio
import secrets

import orjson
import structlog

from engine.clock import StoreClock
from engine.fanout.hub import Hub
from engine.gateway.console import Console
from engine.gateway.dispatch import Dispatcher
from engine.gateway.likes import LikeGatherers
from engine.gateway.parts import Limits, Parts
from engine.gateway.session import Session, wall_clock_s
from engine.gateway.transport import Transport
from engine.rooms.words import WordFilter
from engine.store.store import Store
from engine.telemetry import Metrics
from engine.timers import Timers
from engine.tokens import Tokens
from protocol.codes import CloseCode

log = structlog.stdlib.get_logger(__name__)

SWEEP_S = 1.0
#: How long a draining worker waits for viewers to take their farewell (seconds).
_FAREWELL_S = 2.0


_OUR_CODES = frozenset((1005, 1006, *map(int, CloseCode)))


class Gateway:
    """The sessions of this worker."""

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
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._timers = timers
        self._metrics = metrics
        self._parts = Parts(
            loop=self._loop,
            store=store,
            hub=hub,
            console=console,
            likes=LikeGatherers(store, hub, per_s=limits.likes_per_s, burst=limits.likes_burst),
            timers=timers,
            tokens=tokens,
            words=words,
            clock=clock,
            metrics=metrics,
            limits=limits,
        )
        self._dispatcher = Dispatcher(self._parts)
        self.sessions: set[Session] = set()
        self._next_connection = 1
        self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)
        self.draining = False
        #: Set when a draining worker has no session left.
        self._emptied = asyncio.Event()

    def open_session(self, transport: Transport) -> Session:
        """Begin a session on an accepted connection."""
        session = Session(
            self._parts, self._dispatcher, transport, self._next_connection, self._joined, self._closed
        )
        self._next_connection += 1
        self.sessions.add(session)
        self._metrics.connections.inc()
        if self.draining:
            # Shook hands while the listener was closing.
            session.send(orjson.dumps([{"ev": "reconnect", "after_ms": 0}]))
            session.close(CloseCode.DRAINING, "draining")
        return session

    def _joined(self, session: Session) -> None:
        """A session is in its room."""
        self._metrics.joins.inc()
        assert session.room is not None
        log.debug("viewer.joined", room=str(session.room.key), viewer=session.viewer)

    def _closed(self, session: Session, code: int) -> None:
        """A session's connection is gone."""
        self.sessions.discard(session)
        if self.draining and not self.sessions:
            self._emptied.set()
        self._metrics.connections.dec()
        # Codes that are not ours are the peer's choice, and would be series without end.
        self._metrics.closes.labels(str(code) if code in _OUR_CODES else "other").inc()
        room = session.entered
        if room is not None:
            self._hub.unregister(session)
            room.audience.detach(session)
            session.give_up_place(room)
            duration_s = round(self._loop.time() - session.opened_at, 3)
            log.debug("viewer.left", room=str(room.key), viewer=session.viewer, code=code, seconds=duration_s)

    def _sweep(self) -> None:
        now_s = wall_clock_s()
        for session in list(self.sessions):
            session.sweep(now_s)
        self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        """Stop sweeping."""
        self._sweep_timer.cancel()

    async def drain(self, spread_ms: int) -> None:
        """
        Tell every viewer when to come back, spread evenly, and close with 4500.

        Returns when all have answered, or after 2 s: dropping a connection before that could lose the farewell.
        """
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
        if self.sessions:
            try:
                async with asyncio.timeout(_FAREWELL_S):
                    await self._emptied.wait()
            except TimeoutError:
                pass  # They do not read; the listener drops them.
