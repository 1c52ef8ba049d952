"""
Command → what is done about it, for a connection that has joined.

Decides who may ask, which pure rule applies, and which step of the store follows. One short function per command, the
place where deciding, storing and sending meet. The commands that run a room are `console.py`'s.

Does not read frames or send them. Source: docs/protocol.md, "Viewer commands".
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import orjson

from engine.errors import (
    BlockedText,
    CommandRejected,
    Forbidden,
    LiveroomError,
    RateLimited,
    RoomNotFound,
    StoreUnavailable,
    rejected,
)
from engine.fanout.room import Room
from engine.gateway.console import Actor
from engine.gateway.parts import Parts
from engine.rooms.campaigns import tag_words
from engine.rooms.fragments import comment_body, fingerprint
from engine.store.keys import RoomKey
from engine.store.store import Answer, Answered, to_answer
from engine.tokens import Claims
from protocol import commands as c
from protocol.codes import CloseCode, ErrorCode, Role
from protocol.frames import Request

_EMPTY: Final = b"{}"


class Asker(Protocol):
    """The connection a command came from, as far as it matters here."""

    viewer: str
    claims: Claims | None
    #: The viewer as they appear in comments, as JSON.
    sender: bytes
    room: Room | None
    last_like_batch: int

    def ok(self, command_id: int, body: bytes) -> None:
        """Answer a command that was done; `body` is JSON."""
        ...

    def refuse(self, command_id: int, error: LiveroomError) -> None:
        """Answer a command that was refused, or whose outcome is unknown."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection."""
        ...


class Dispatcher:
    """The commands of a joined connection."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._handlers: dict[type[c.Command], Callable[[Asker, int, Any], None]] = {
            c.LeaveRoom: self._leave,
            c.Ping: self._ping,
            c.PostComment: self._comment,
            c.SendLikes: self._like,
            c.GetStats: self._stats,
            c.GetAudit: self._audit,
            c.ClaimSeckill: self._claim,
            c.GetOrder: self._get_order,
            c.CancelOrder: self._cancel_order,
            c.GrabRedPacket: self._grab,
            c.MakeShareToken: self._share_token,
            c.GetShareRank: self._share_rank,
        }

    def run(self, session: Asker, request: Request) -> None:
        """Carry out one command of a joined connection; it gets exactly one reply."""
        command = request.command
        self._parts.metrics.command(command.name())
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
        self._parts.console.run(room.key, command, actor, self._answer(session, request.id))

    @staticmethod
    def _answer(session: Asker, command_id: int) -> Answered:
        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, answer)
            else:
                session.refuse(command_id, answer)

        return answered

    def _leave(self, session: Asker, command_id: int, command: c.LeaveRoom) -> None:
        session.ok(command_id, _EMPTY)
        session.close(CloseCode.NORMAL, "left")

    def _ping(self, session: Asker, command_id: int, command: c.Ping) -> None:
        session.ok(command_id, b'{"now":%d}' % self._parts.clock.now_ms())

    def _comment(self, session: Asker, command_id: int, command: c.PostComment) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None
        if self._parts.words.blocks(command.text):
            session.refuse(command_id, BlockedText())
            return
        limits = self._parts.limits
        cost_ms = int(1000 / limits.comments_per_s)

        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, b'{"comment":%s}' % answer)
            else:
                session.refuse(command_id, answer)

        self._parts.store.post_comment(
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

    def _like(self, session: Asker, command_id: int, command: c.SendLikes) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None
        gatherer = self._parts.likes.of(room)
        if command.batch <= session.last_like_batch:
            session.ok(command_id, b'{"total":%d}' % gatherer.total)
            return
        rated = claims.viewer if claims.role < Role.MODERATOR else None
        if rated is not None:
            wait_s = gatherer.allow(rated, self._parts.loop.time())
            if wait_s:
                session.refuse(command_id, RateLimited(retry_ms=int(wait_s * 1000) + 1))
                return
        before, session.last_like_batch = session.last_like_batch, command.batch

        def answered(answer: Answer) -> None:
            if isinstance(answer, bytes):
                session.ok(command_id, b'{"total":%s}' % answer)
                return
            certain = isinstance(answer, CommandRejected) or (
                isinstance(answer, StoreUnavailable) and answer.definite
            )
            if certain and session.last_like_batch == command.batch:
                # Refused for certain: the batch was not counted and may be sent again.
                session.last_like_batch = before
            session.refuse(command_id, answer)

        gatherer.add(rated, command.n, answered)

    def _claim(self, session: Asker, command_id: int, command: c.ClaimSeckill) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None

        def done(header: Any, own: Any, error: Exception | None) -> None:
            # A header of zeros: there is no such room or sale, and nothing to remember of it.
            if error is None and header[0] != b"0":
                room.memory.note_sold(command.sale, change=int(header[1]), taken=int(header[2]))
            self._answer(session, command_id)(to_answer(own, error))

        self._parts.store.claim(
            room.names,
            command.sale,
            claims.viewer,
            command.qty,
            command.key,
            fingerprint(command),
            claims.level,
            tag_words(claims.tags),
            done,
        )

    def _grab(self, session: Asker, command_id: int, command: c.GrabRedPacket) -> None:
        room, claims = session.room, session.claims
        assert room is not None
        assert claims is not None
        self._parts.store.grab(
            room.names,
            command.packet,
            claims.viewer,
            command.key,
            fingerprint(command),
            claims.level,
            tag_words(claims.tags),
            orjson.dumps(claims.name),
            session.sender,
            self._answer(session, command_id),
        )

    def _get_order(self, session: Asker, command_id: int, command: c.GetOrder) -> None:
        assert session.room is not None
        self._later(
            session, command_id, self._read_own_order(session.room.key, command.order, session.viewer)
        )

    async def _read_own_order(self, room: RoomKey, order: str, viewer: str) -> bytes:
        json, _, owner = await self._parts.store.read_order(room, order)
        if owner != viewer:
            raise rejected(ErrorCode.NOT_FOUND)
        return json

    def _cancel_order(self, session: Asker, command_id: int, command: c.CancelOrder) -> None:
        assert session.room is not None
        cancelled = self._parts.store.cancel_order(
            session.room.key, command.order, session.viewer, command.key, fingerprint(command)
        )
        self._later(session, command_id, cancelled)

    def _share_token(self, session: Asker, command_id: int, command: c.MakeShareToken) -> None:
        claims = session.claims
        assert claims is not None
        token = self._parts.share_token(claims, command.channel)
        if token is None:
            session.refuse(command_id, rejected(ErrorCode.UNAVAILABLE, "this engine has no key to sign with"))
        else:
            session.ok(command_id, orjson.dumps({"token": token}))

    def _share_rank(self, session: Asker, command_id: int, command: c.GetShareRank) -> None:
        assert session.room is not None
        self._later(session, command_id, self._read_rank(session.room.key, session.viewer))

    async def _read_rank(self, room: RoomKey, viewer: str) -> bytes:
        return orjson.dumps(await self._parts.store.share_rank(room, viewer))

    def _later(self, session: Asker, command_id: int, asked: Coroutine[Any, Any, bytes]) -> None:
        """Answer a command that needs more than one step of the store: rare ones, so a task is cheap enough."""

        async def answer() -> None:
            try:
                session.ok(command_id, await asked)
            except LiveroomError as error:
                session.refuse(command_id, error)

        self._parts.hub.spawn(answer())

    def _stats(self, session: Asker, command_id: int, command: c.GetStats) -> None:
        assert session.room is not None
        self._later(session, command_id, self._read_stats(session.room.key))

    async def _read_stats(self, room: RoomKey) -> bytes:
        stats = await self._parts.store.stats(room)
        if stats is None:
            raise RoomNotFound
        return orjson.dumps(stats)

    def _audit(self, session: Asker, command_id: int, command: c.GetAudit) -> None:
        assert session.room is not None
        self._later(session, command_id, self._read_audit(session.room.key))

    async def _read_audit(self, room: RoomKey) -> bytes:
        read = await self._parts.store.read_room(room)
        if read is None:
            raise RoomNotFound
        return orjson.dumps(read.audit)


#: Pause before a flush whose outcome is unknown is repeated (seconds).
_LIKES_AGAIN_S: Final = 0.1
