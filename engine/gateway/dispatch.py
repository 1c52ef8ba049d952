"""
Command → what is done about it.

Decides who may ask, which pure rule applies, and which step of the store follows. One short function per command, the
place where deciding, storing and sending meet. Consoles over WebSocket and merchants over HTTP come through the same
functions.

Does not read frames or send them. Source: docs/protocol.md, "Viewer commands", "Console commands".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from engine.errors import (
    BlockedText,
    CommandRejected,
    Forbidden,
    LiveroomError,
    RateLimited,
    RoomNotFound,
    rejected,
)
from engine.fanout.hub import Room
from engine.rooms.fragments import comment_body, fingerprint, item_body, notice_body
from engine.rooms.lifecycle import STEPS
from engine.rooms.limits import Bucket
from engine.rooms.words import WordFilter
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Answer, Answered, Store
from engine.timers import Timers
from protocol import commands as c
from protocol.codes import CloseCode, ErrorCode, Role
from protocol.frames import Request
from protocol.limits import SHELF_ITEMS_MAX

if TYPE_CHECKING:
    from engine.gateway.server import Gateway
    from engine.gateway.session import Session


@dataclass(frozen=True, slots=True)
class Actor:
    """Who gives a console command."""

    id: str
    #: Above every role of a token for the merchant's back end.
    rank: int


class Console:
    """The commands that run a room."""

    def __init__(self, store: Store, words: WordFilter, timers: Timers) -> None:
        self._store = store
        self._words = words
        self._timers = timers
        self._handlers: dict[type[c.Command], Callable[[RoomKey, Any, Actor, Answered], None]] = {
            c.OpenRoom: self._step,
            c.PauseRoom: self._step,
            c.ResumeRoom: self._step,
            c.CloseRoom: self._step,
            c.SetNotice: self._set_notice,
            c.PutItem: self._put_item,
            c.RemoveItem: self._remove_item,
            c.ExplainItem: self._explain_item,
            c.UnexplainItem: self._unexplain_item,
            c.MuteViewer: self._mute,
            c.UnmuteViewer: self._unmute,
            c.KickViewer: self._remove_viewer,
            c.BanViewer: self._remove_viewer,
            c.UnbanViewer: self._unban,
            c.MuteAll: self._mute_all,
            c.DeleteComment: self._delete_comment,
            c.PinComment: self._pin_comment,
            c.UnpinComment: self._unpin_comment,
        }

    def run(self, room: RoomKey, command: c.Command, actor: Actor, answered: Answered) -> None:
        """Carry out a console command; `answered` is called once."""
        if actor.rank < command.role:
            answered(Forbidden())
            return
        handler = self._handlers.get(type(command))
        if handler is None:
            answered(rejected(ErrorCode.UNKNOWN_COMMAND, f"{command.name()} is not available here"))
            return
        handler(room, command, actor, answered)

    def _step(self, room: RoomKey, command: c.KeyedCommand, actor: Actor, answered: Answered) -> None:
        step = STEPS[command.name()]
        origins = "," + ",".join(step.origins) + ","

        closes = type(command) is c.CloseRoom

        def done(answer: Answer) -> None:
            if closes and isinstance(answer, bytes):
                self._timers.settle(room)
            answered(answer)

        if closes:
            self._timers.expect_close(room)
        own = (origins, step.target)
        self._store.console("room_step", room, command, actor.id, actor.rank, (), own, done)

    def _set_notice(self, room: RoomKey, command: c.SetNotice, actor: Actor, answered: Answered) -> None:
        if self._words.blocks(command.text):
            answered(BlockedText())
            return
        args = (
            notice_body(command),
            int(not command.text),
            "" if command.version is None else command.version,
        )
        self._store.console("notice_set", room, command, actor.id, actor.rank, (), args, answered)

    def _put_item(self, room: RoomKey, command: c.PutItem, actor: Actor, answered: Answered) -> None:
        if self._words.blocks(command.title):
            answered(BlockedText())
            return
        names = RoomKeys(room)
        sort = "" if command.sort is None else command.sort
        args = (command.item, item_body(command), sort, SHELF_ITEMS_MAX)
        self._store.console(
            "item_put", room, command, actor.id, actor.rank, (names.items, names.shelf), args, answered
        )

    def _remove_item(self, room: RoomKey, command: c.RemoveItem, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        own = (names.items, names.shelf)
        self._store.console(
            "item_remove", room, command, actor.id, actor.rank, own, (command.item,), answered
        )

    def _explain_item(self, room: RoomKey, command: c.ExplainItem, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).items,)
        self._store.console(
            "item_explain", room, command, actor.id, actor.rank, own, (command.item,), answered
        )

    def _unexplain_item(
        self, room: RoomKey, command: c.UnexplainItem, actor: Actor, answered: Answered
    ) -> None:
        self._store.console(
            "item_unexplain", room, command, actor.id, actor.rank, (), (command.item,), answered
        )

    def _mute(self, room: RoomKey, command: c.MuteViewer, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        args = (command.viewer, command.seconds)
        self._store.console(
            "viewer_mute", room, command, actor.id, actor.rank, (names.mutes, names.staff), args, answered
        )

    def _unmute(self, room: RoomKey, command: c.UnmuteViewer, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        own = (names.mutes, names.staff)
        self._store.console(
            "viewer_unmute", room, command, actor.id, actor.rank, own, (command.viewer,), answered
        )

    def _remove_viewer(
        self, room: RoomKey, command: c.KickViewer | c.BanViewer, actor: Actor, answered: Answered
    ) -> None:
        names = RoomKeys(room)
        how = "ban" if type(command) is c.BanViewer else "kick"
        args = (command.viewer, how)
        self._store.console(
            "viewer_remove", room, command, actor.id, actor.rank, (names.bans, names.staff), args, answered
        )

    def _unban(self, room: RoomKey, command: c.UnbanViewer, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).bans,)
        self._store.console(
            "viewer_unban", room, command, actor.id, actor.rank, own, (command.viewer,), answered
        )

    def _mute_all(self, room: RoomKey, command: c.MuteAll, actor: Actor, answered: Answered) -> None:
        self._store.console(
            "room_mute_all", room, command, actor.id, actor.rank, (), (int(command.on),), answered
        )

    def _delete_comment(
        self, room: RoomKey, command: c.DeleteComment, actor: Actor, answered: Answered
    ) -> None:
        own = (RoomKeys(room).comments,)
        args = (command.comment,)
        self._store.console("comment_delete", room, command, actor.id, actor.rank, own, args, answered)

    def _pin_comment(self, room: RoomKey, command: c.PinComment, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).comments,)
        self._store.console(
            "comment_pin", room, command, actor.id, actor.rank, own, (command.comment,), answered
        )

    def _unpin_comment(
        self, room: RoomKey, command: c.UnpinComment, actor: Actor, answered: Answered
    ) -> None:
        self._store.console(
            "comment_unpin", room, command, actor.id, actor.rank, (), (command.comment,), answered
        )


_EMPTY: Final = b"{}"


class Dispatcher:
    """The commands of a joined connection."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._handlers: dict[type[c.Command], Callable[[Session, int, Any], None]] = {
            c.LeaveRoom: self._leave,
            c.Ping: self._ping,
            c.PostComment: self._comment,
            c.SendLikes: self._like,
            c.GetStats: self._stats,
            c.GetAudit: self._audit,
        }

    def run(self, session: "Session", request: Request) -> None:
        """Carry out one command of a joined connection; it gets exactly one reply."""
        command = request.command
        self._gateway.metrics.command(command.name())
        claims = session.claims
        assert claims is not None
        if claims.role < command.role:
            session.refuse(request.id, Forbidden())
            return
        handler = self._handlers.get(type(command))
        if handler is not None:
            handler(session, request.id, command)
            return
        room = session.room
        assert room is not None
        actor = Actor(claims.viewer, int(claims.role))
        self._gateway.console.run(room.key, command, actor, self._answer(session, request.id))

    @staticmethod
    def _answer(session: "Session", command_id: int) -> Answered:
        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, answer)
            else:
                session.refuse(command_id, answer)

        return answered

    def _leave(self, session: "Session", command_id: int, command: c.LeaveRoom) -> None:
        session.ok(command_id, _EMPTY)
        session.close(CloseCode.NORMAL, "left")

    def _ping(self, session: "Session", command_id: int, command: c.Ping) -> None:
        session.ok(command_id, b'{"now":%d}' % self._gateway.clock.now_ms())

    def _comment(self, session: "Session", command_id: int, command: c.PostComment) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None
        if self._gateway.words.blocks(command.text):
            session.refuse(command_id, BlockedText())
            return
        limits = self._gateway.limits
        cost_ms = int(1000 / limits.comments_per_s)

        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, b'{"comment":%s}' % answer)
            else:
                session.refuse(command_id, answer)

        self._gateway.store.post_comment(
            room.names,
            claims.viewer,
            int(claims.role),
            command.key,
            fingerprint(command),
            comment_body(command, session.sender),
            cost_ms,
            cost_ms * (limits.comments_burst - 1),
            answered,
        )

    def _like(self, session: "Session", command_id: int, command: c.SendLikes) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None
        gatherer = self._gateway.likes_of(room)
        if command.batch <= session.last_like_batch:
            session.ok(command_id, b'{"total":%d}' % gatherer.total)
            return
        if claims.role < Role.MODERATOR:
            wait_s = gatherer.allow(claims.viewer, self._gateway.loop.time())
            if wait_s:
                session.refuse(command_id, RateLimited(retry_ms=int(wait_s * 1000) + 1))
                return
        session.last_like_batch = command.batch

        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, b'{"total":%s}' % answer)
            else:
                session.refuse(command_id, answer)

        gatherer.add(command.n, answered)

    def _stats(self, session: "Session", command_id: int, command: c.GetStats) -> None:
        assert session.room is not None
        self._gateway.hub.spawn(self._send_stats(session, command_id, session.room.key))

    async def _send_stats(self, session: "Session", command_id: int, room: RoomKey) -> None:
        try:
            stats = await self._gateway.store.stats(room)
        except LiveroomError as error:
            session.refuse(command_id, error)
            return
        if stats is None:
            session.refuse(command_id, RoomNotFound())
        else:
            session.ok(command_id, orjson.dumps(stats))

    def _audit(self, session: "Session", command_id: int, command: c.GetAudit) -> None:
        session.ok(command_id, orjson.dumps(EMPTY_AUDIT))


#: A room without campaigns conserves everything.
EMPTY_AUDIT: Final[dict[str, Any]] = {"holds": True, "sales": {}, "packets": {}}


class LikeGatherer:
    """
    The likes of one room on this worker: gathered while a flush is under way, acknowledged once the store has them.

    A flush whose outcome is unknown is repeated with the same number until the store answers, so it counts once; those
    who wait for it are told that the outcome is unknown when their time is up.

    Bounds: one rate bucket per viewer who liked; at 50,000 of them the full ones are dropped.
    """

    _BUCKETS_MAX: Final = 50_000

    def __init__(self, room: Room, store: Store, worker: str, per_s: float, burst: int) -> None:
        self._room = room
        self._store = store
        self._worker = worker
        self._per_s, self._burst = per_s, burst
        self._buckets: dict[str, Bucket] = {}
        self._flush = 0
        self._flying = False
        self._likes = 0
        self._waiting: list[Answered] = []
        #: As last told by the store.
        self.total = int(room.gauges()["likes"])

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

    def add(self, likes: int, answered: Answered) -> None:
        """Count likes with the next flush."""
        self._likes += likes
        self._waiting.append(answered)
        if not self._flying:
            self._send_next()

    def _send_next(self) -> None:
        likes, self._likes = self._likes, 0
        waiting, self._waiting = self._waiting, []
        self._flush += 1
        self._flying = True
        self._send(self._flush, likes, waiting)

    def _send(self, flush: int, likes: int, waiting: list[Answered]) -> None:
        def answered(answer: Answer) -> None:
            unknown = not isinstance(answer, (bytes, CommandRejected)) and not getattr(
                answer, "definite", True
            )
            if isinstance(answer, bytes):
                self.total = max(self.total, int(answer))
            for tell in waiting:
                tell(answer)
            if unknown:
                # The store may or may not have it. Asking again with the same number settles it.
                self._send(flush, likes, [])
                return
            self._flying = False
            if self._waiting:
                self._send_next()

        self._store.add_likes(self._room.names, self._worker, flush, likes, answered)
