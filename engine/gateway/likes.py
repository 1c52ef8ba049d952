"""
Many likes → one step of the store.

Decides how taps are gathered per room and worker, and when they are acknowledged: once the store has them, so the total
is exact. Nothing is on a timer: the next flush leaves when the one before is back.

A viewer's rate is looked at twice. Here, so that a flood does not reach the store; and by the store, for a viewer may
hold connections on several workers.

Source: docs/architecture.md, "Store".
"""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from engine.errors import LiveroomError, RateLimited, StoreUnavailable
from engine.fanout.hub import Hub
from engine.fanout.room import Room
from engine.rooms.limits import Bucket
from engine.store.store import Answered, LikesAnswer, Store

#: An unknown flush is asked about again after this long (seconds).
_LIKES_AGAIN_S: Final = 0.1
#: Commands of one flush; those beyond leave with the next.
FLUSH_COMMANDS_MAX: Final = 500


class _Liked(NamedTuple):
    """One command on its way."""

    #: None for those whom no rate holds back.
    viewer: str | None
    likes: int
    answered: Answered


class LikeGatherer:
    """
    The likes of one room on this worker: gathered while a flush is under way, acknowledged once the store has them.

    A flush whose outcome is unknown is repeated with the same number until the store answers, so it counts once; those
    who wait for it are told that the outcome is unknown when their time is up.

    Bounds: 500 commands a flush; as many wait as connections may send in the meantime (their command buckets). One rate
    bucket per viewer who liked; at 50,000 of them the full ones are dropped.
    """

    _BUCKETS_MAX: Final = 50_000

    def __init__(
        self,
        room: Room,
        store: Store,
        worker: str,
        flushes: Iterator[int],
        per_s: float,
        burst: int,
    ) -> None:
        """
        Begin with an empty hand.

        Args:
            flushes: Rising numbers that this worker has not used before, so that the gatherer of a room that was let go
                and is held again does not repeat those of the one before it: the store would not count them.
        """
        self._room = room
        self._store = store
        self._worker = worker
        self._per_s, self._burst = per_s, burst
        self._cost_ms = int(1000 / per_s)
        self._burst_ms = self._cost_ms * (burst - 1)
        self._buckets: dict[str, Bucket] = {}
        self._flushes = flushes
        self._flying = False
        self._waiting: list[_Liked] = []

    @property
    def total(self) -> int:
        """Likes of the room, as far as known here."""
        return self._room.memory.likes

    def allow(self, viewer: str, now_s: float) -> float:
        """Return 0.0 when a viewer may like now, else the seconds to wait."""
        bucket = self._buckets.get(viewer)
        if bucket is None:
            if len(self._buckets) >= self._BUCKETS_MAX:
                self._buckets = {
                    name: kept for name, kept in self._buckets.items() if not kept.is_full(now_s)
                }
            bucket = self._buckets[viewer] = Bucket(self._per_s, self._burst)
        return bucket.take(now_s)

    def add(self, viewer: str | None, likes: int, answered: Answered) -> None:
        """Count likes with the next flush; `viewer` is None for those whom no rate holds back."""
        self._waiting.append(_Liked(viewer, likes, answered))
        if not self._flying:
            self._send_next()

    def _send_next(self) -> None:
        flying, self._waiting = self._waiting[:FLUSH_COMMANDS_MAX], self._waiting[FLUSH_COMMANDS_MAX:]
        self._flying = True
        self._send(next(self._flushes), flying, flying)

    def _send(self, flush: int, flying: list[_Liked], waiting: list[_Liked]) -> None:
        """Send a flush; `waiting` are those in it who have no answer yet: all, or none when it is repeated."""
        rated = [(liked.viewer, liked.likes) for liked in flying if liked.viewer is not None]
        exempt = sum(liked.likes for liked in flying if liked.viewer is None)

        def answered(answer: LikesAnswer) -> None:
            if isinstance(answer, LiveroomError):
                # The last one first: each gives its batch number back only if it is the newest.
                for liked in reversed(waiting):
                    liked.answered(answer)
                # Of a repeated flush, what is certain is only that this time it did not arrive.
                repeated = waiting is not flying
                if isinstance(answer, StoreUnavailable) and (repeated or not answer.definite):
                    # The store may or may not have it. Asking again with the same number settles it.
                    if repeated:
                        # Those behind it have not left, and must not wait for as long as the store is away.
                        behind, self._waiting = self._waiting, []
                        for liked in reversed(behind):
                            liked.answered(StoreUnavailable("the store does not answer"))
                    loop = asyncio.get_running_loop()
                    loop.call_later(_LIKES_AGAIN_S, self._send, flush, flying, [])
                    return
            else:
                total, refused = answer
                # Whoever is told of it must not be told less by a gauge that is still on its way, nor the reverse.
                self._room.memory.learn_likes(total)
                self._tell(waiting, self.total, refused)
            self._flying = False
            if self._waiting:
                self._send_next()

        names = self._room.names
        self._store.add_likes(
            names, self._worker, flush, exempt, rated, self._cost_ms, self._burst_ms, answered
        )

    @staticmethod
    def _tell(waiting: list[_Liked], total: int, refused: dict[int, int]) -> None:
        late: list[tuple[_Liked, int]] = []
        place = 0
        for liked in waiting:
            if liked.viewer is not None:
                if place in refused:
                    late.append((liked, refused[place]))
                    place += 1
                    continue
                place += 1
            liked.answered(b"%d" % total)
        for liked, retry_ms in reversed(late):
            liked.answered(RateLimited(retry_ms=retry_ms))


class LikeGatherers:
    """The gatherer of each room this worker holds."""

    def __init__(self, store: Store, hub: Hub, *, per_s: float, burst: int) -> None:
        self._store = store
        self._hub = hub
        self._per_s, self._burst = per_s, burst
        self._gatherers: dict[Room, LikeGatherer] = {}
        self._flushes = itertools.count(1)

    def of(self, room: Room) -> LikeGatherer:
        """Return the gatherer of a room's likes; those of rooms that were let go are forgotten."""
        gatherer = self._gatherers.get(room)
        if gatherer is None:
            held = set(self._hub.rooms)
            self._gatherers = {kept: likes for kept, likes in self._gatherers.items() if kept in held}
            gatherer = LikeGatherer(
                room, self._store, self._hub.worker, self._flushes, self._per_s, self._burst
            )
            self._gatherers[room] = gatherer
        return gatherer
