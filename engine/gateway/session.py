"""
One viewer's connection to a room: from the first command to the last.

Decides, per connection, what is answered now, what waits for the join, and how the connection ends. Commands are run by
`dispatch.py`; bytes are the transport's. A command's path is plain function calls until the store, and its reply a
callback: no task, queue or timer belongs to a connection.

Bounds: 32 commands wait behind a join in flight; more are refused with `overloaded`.

Source: docs/protocol.md, "Connection", "Joining, leaving, coming back".
"""

import time
from collections.abc import Callable
from typing import Any, Final

import orjson
import structlog

from engine.errors import (
    CommandRejected,
    EngineFault,
    LiveroomError,
    RoomNotFound,
    StoreUnavailable,
    TokenExpired,
    rejected,
)
from engine.fanout.frames import DEFLATE_WINDOW_BITS, Form
from engine.fanout.room import Room
from engine.gateway.dispatch import Dispatcher
from engine.gateway.parts import Parts
from engine.gateway.transport import Transport
from engine.rooms.limits import FORGOTTEN_EACH, TOO_FAST_MAX, Bucket
from engine.store.batch import Done
from engine.store.keys import RoomKey
from engine.store.store import to_rejection
from engine.tokens import NO_SHARE, Claims, Share
from protocol.codec import CODECS, transcode
from protocol.codes import CloseCode, ErrorCode, Role
from protocol.commands import JoinRoom
from protocol.connection import ConnectionState, ServerConnection
from protocol.frames import Request
from protocol.ids import is_id
from protocol.limits import COMMANDS_PER_FRAME_MAX, CONSOLE_FRAME_BYTES_MAX, PING_PERIOD_MS
from protocol.replies import error_body

log = structlog.stdlib.get_logger(__name__)

_LEAVE_AGAIN_S: Final = 1.0
_UNKNOWN_ENTRY: Final = "unknown"
_REJOIN_AGAIN_S: Final = 1.0
#: Shared by all connections, by codec and by whether the peer reads what `deflate` writes.
_FORMS: Final = {(name, deflated): Form(name, deflated) for name in CODECS for deflated in (False, True)}


def encode_error(command_id: int, error: LiveroomError) -> bytes:
    """Return the reply of a refused command, as JSON."""
    if isinstance(error, CommandRejected):
        body = error_body(error.code, error.message, **error.extra)
    elif isinstance(error, StoreUnavailable):
        code = ErrorCode.UNAVAILABLE if error.definite else ErrorCode.OUTCOME_UNKNOWN
        body = error_body(code, str(error), retry_ms=1000)
    elif isinstance(error, EngineFault):
        body = error_body(ErrorCode.OUTCOME_UNKNOWN, "internal error")
    else:
        raise AssertionError(f"no reply for {error!r}")
    return orjson.dumps({"re": command_id, "err": body})


def encode_refusal(command_id: int, code: ErrorCode, message: str) -> bytes:
    """Return the reply to something that is no command, as JSON."""
    return orjson.dumps({"re": command_id, "err": error_body(code, message)})


class Session:
    """One connection. The transport calls `on_…`, the hub calls the rest."""

    __slots__ = (
        "_behind_join",
        "_buckets",
        "_dispatcher",
        "_joined_seq",
        "_machine",
        "_on_ended",
        "_on_joined",
        "_out",
        "_parts",
        "_removal",
        "_room",
        "_too_fast",
        "_transport",
        "claims",
        "connection",
        "form",
        "last_like_batch",
        "opened_at",
        "room",
        "sender",
        "viewer",
        "write",
    )

    def __init__(
        self,
        parts: Parts,
        dispatcher: Dispatcher,
        transport: Transport,
        connection: int,
        on_joined: Callable[["Session"], None],
        on_ended: Callable[["Session", int], None],
    ) -> None:
        self._parts = parts
        self._dispatcher = dispatcher
        self._on_joined = on_joined
        self._on_ended = on_ended
        self._transport = transport
        #: Send a ready-made frame: the transport's own method, since a room calls it for every viewer and flush.
        self.write: Callable[[bytes], None] = transport.write
        self._machine = ServerConnection(CODECS[transport.codec_name])
        self._room: Room | None = None
        self._behind_join: list[Request] = []
        self._out: list[bytes] | None = None
        self._buckets = Bucket(parts.limits.commands_per_s, parts.limits.commands_burst)
        self.form = _FORMS[transport.codec_name, transport.deflate_window_bits >= DEFLATE_WINDOW_BITS]
        self.connection = connection
        self.viewer = ""
        self.claims: Claims | None = None
        self.sender = b""
        self.room: Room | None = None
        self.last_like_batch = -1
        #: The room's `seq` when the store let this connection in; None while it has not.
        self._joined_seq: int | None = None
        self._removal: tuple[int, int, str] | None = None
        #: Commands that came too fast, less those that are forgotten.
        self._too_fast = 0
        self.opened_at = parts.loop.time()

    # --- sending ----------------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send an array of messages given as JSON, in this connection's codec."""
        self._transport.send(payload if self.form.codec_name == "json" else transcode(payload))

    def unsent_bytes(self) -> int:
        """Return how much the peer has not taken yet."""
        return self._transport.unsent_bytes()

    def reply(self, message: bytes) -> None:
        """Send one reply; replies to commands of one frame that are known at once leave in one frame."""
        if self._out is not None:
            self._out.append(message)
        else:
            self.send(b"[" + message + b"]")

    def ok(self, command_id: int, body: bytes) -> None:
        """Answer a command that was done; `body` is JSON."""
        self.reply(b'{"re":%d,"ok":%s}' % (command_id, body))

    def refuse(self, command_id: int, error: LiveroomError) -> None:
        """Answer a command that was refused, or whose outcome is unknown."""
        if isinstance(error, CommandRejected):
            self._parts.metrics.refused(error.code)
        self.reply(encode_error(command_id, error))
        if isinstance(error, EngineFault):
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection. What was sent before still goes out."""
        self._flush_replies()
        self._machine.closed()
        self._transport.close(code, reason)

    def removed(self, seq: int, code: int, reason: str) -> None:
        """
        Close the connection unless it joined after the fact `seq`: a kicked viewer may come back at once.

        A join that is still undecided is judged when the store has answered it.
        """
        if self._joined_seq is None:
            self._removal = (seq, code, reason)
        elif self._joined_seq < seq:
            self.close(code, reason)

    def _flush_replies(self) -> None:
        out, self._out = self._out, None
        if out:
            self.send(b"[" + b",".join(out) + b"]")

    # --- from the transport -----------------------------------------------------------------------------

    def on_message(self, data: bytes, is_text: bool) -> None:
        """Take one frame of the client."""
        received = self._machine.receive(data, is_text)
        self._out = []
        try:
            for refusal in received.refusals:
                # What ends the connection is said in any case; other nonsense costs as much as sense.
                if received.close is None and refusal.id and self._is_too_fast(refusal.id):
                    continue
                self._parts.metrics.refused(refusal.code)
                self.reply(encode_refusal(refusal.id, refusal.code, refusal.message))
            for request in received.requests:
                self._run(request)
            if received.close is not None:
                self.close(received.close, "protocol violation")
        finally:
            self._flush_replies()

    def on_writable(self, writable: bool) -> None:
        """The peer fell behind, or caught up."""
        if self.room is not None:
            self.room.audience.writable(self, writable)

    def on_closed(self, code: int, reason: str) -> None:
        """The connection is over."""
        self._machine.closed()
        self._on_ended(self, code)

    # --- commands ---------------------------------------------------------------------------------------

    def _run(self, request: Request) -> None:
        if self._machine.state is ConnectionState.CLOSED:
            return
        if type(request.command) is JoinRoom:
            # It comes once, whatever was refused before it.
            self._join(request.id, request.command)
        elif self._is_too_fast(request.id):
            return
        elif self._machine.state is ConnectionState.JOINING:
            if len(self._behind_join) >= COMMANDS_PER_FRAME_MAX:
                self.refuse(request.id, rejected(ErrorCode.OVERLOADED, "too many commands wait for the join"))
            else:
                self._behind_join.append(request)
        else:
            self._dispatcher.run(self, request)

    def _is_too_fast(self, command_id: int) -> bool:
        """Count one command; refuse it when there were too many."""
        wait_s = self._buckets.take(self._parts.loop.time())
        if not wait_s:
            self._too_fast = max(0, self._too_fast - FORGOTTEN_EACH)
            return False
        self._too_fast += 1
        if self._too_fast >= TOO_FAST_MAX:
            self.close(CloseCode.PROTOCOL_VIOLATION, "flooding")
            return True
        extra = {"retry_ms": int(wait_s * 1000) + 1}
        self.refuse(command_id, rejected(ErrorCode.RATE_LIMITED, "too many commands", extra))
        return True

    # --- joining ----------------------------------------------------------------------------------------

    def _join(self, command_id: int, command: JoinRoom) -> None:
        try:
            claims = self._parts.tokens.verify(command.token, command.room)
        except TokenExpired as error:
            self._refuse_join(command_id, error, CloseCode.TOKEN_EXPIRED)
            return
        except CommandRejected as error:
            self._refuse_join(command_id, error, CloseCode.UNAUTHORIZED)
            return
        # The peer did its part in time; how long the store takes is not its fault.
        self._transport.joined = True
        self.claims = claims
        self.viewer = claims.viewer
        self.sender = claims.sender()
        key = RoomKey(claims.tenant, claims.room)
        self._parts.hub.enter(key, lambda room: self._enter(command_id, command, room))

    def _enter(self, command_id: int, command: JoinRoom, room: Room | LiveroomError) -> None:
        if self._machine.state is not ConnectionState.JOINING:
            return
        if isinstance(room, LiveroomError):
            self._refuse_join(command_id, room, _close_code_of(room))
            return
        claims = self.claims
        assert claims is not None
        self._room = room
        room.audience.expect(self)
        self._parts.hub.register(self)
        entry = command.entry if is_id(command.entry) else _UNKNOWN_ENTRY
        assert entry is not None
        share = NO_SHARE
        if command.via is not None:
            share = self._parts.tokens.read_share(command.via, tenant=claims.tenant, room=claims.room)

        # Ahead of the join: a worker that died between the two would leave a room that nobody watches.
        note = self._parts.timers.watch_host(room.key) if claims.role >= Role.STREAMER else None

        def done(header: Any, own: Any, error: Exception | None) -> None:
            if error is None and note is not None:
                note.then(lambda failed: self._decided(command_id, command, room, header, own, failed))
            else:
                self._decided(command_id, command, room, header, own, error)

        self._take_place(room, claims, entry, share, done)

    def _take_place(self, room: Room, claims: Claims, entry: str, share: Share, done: Done) -> None:
        self._parts.store.join(
            room.names,
            self._parts.hub.worker,
            claims.viewer,
            self.connection,
            int(claims.role),
            entry,
            orjson.dumps(claims.name),
            self.sender,
            share.inviter,
            share.channel,
            share.flaw,
            done,
        )

    def give_up_place(self, room: Room) -> None:
        """Give up this connection's place in the store, again and again until it is done: twice is harmless."""

        def done(header: Any, own: Any, error: Exception | None) -> None:
            if isinstance(error, StoreUnavailable):
                self._parts.loop.call_later(_LEAVE_AGAIN_S, self.give_up_place, room)

        self._parts.store.leave(room.names, self._parts.hub.worker, self.viewer, self.connection, done)

    def rejoin(self) -> None:
        """Take this connection's place in the store again, until it is done or the connection is over."""
        room, claims = self.room, self.claims
        assert room is not None
        assert claims is not None

        def done(header: Any, own: Any, error: Exception | None) -> None:
            if self._machine.state is ConnectionState.CLOSED:
                self.give_up_place(room)
            elif error is not None:
                self._parts.loop.call_later(_REJOIN_AGAIN_S, self._rejoin_late)
            elif own[0] == b"banned":
                self.close(CloseCode.BANNED, "ban")

        # The entry was counted when the viewer came.
        self._take_place(room, claims, _UNKNOWN_ENTRY, NO_SHARE, done)

    def _rejoin_late(self) -> None:
        if self._machine.state is not ConnectionState.CLOSED:
            self.rejoin()

    def _decided(
        self, command_id: int, command: JoinRoom, room: Room, header: Any, own: Any, error: Exception | None
    ) -> None:
        if self._machine.state is not ConnectionState.JOINING:
            # The connection went away meanwhile; its place in the room must go too.
            self.give_up_place(room)
            return
        if error is not None:
            assert isinstance(error, LiveroomError), error
            self._refuse_join(command_id, error, CloseCode.STATE_LOST)
        elif own[0] == b"banned":
            self._refuse_join(
                command_id, rejected(ErrorCode.FORBIDDEN, "banned from this room"), CloseCode.BANNED
            )
        elif own[0] != b"ok":
            refusal = to_rejection(own)
            self._refuse_join(command_id, refusal, _close_code_of(refusal))
        else:
            self._parts.clock.observe(int(header[0]))
            room.memory.observe(int(header[3]), int(header[4]), int(header[5]))
            you = self._you(own)
            seq = int(header[2]) if header[1].decode() == room.epoch else 0
            self._joined_seq = seq
            if self._removal is not None and self._removal[0] > seq:
                _, code, reason = self._removal
                self._refuse_join(
                    command_id, rejected(ErrorCode.FORBIDDEN, f"removed: {reason}"), CloseCode(code)
                )
                return
            room.when_caught_up(seq, lambda: self._settle(command_id, command, room, you))

    def _you(self, own: Any) -> bytes:
        """Return the `you` of a join reply, as JSON, from the store's answer."""
        claims = self.claims
        assert claims is not None
        _, muted_until, orders, grabs, rank, invited = own
        return orjson.dumps(
            {
                "viewer": claims.viewer,
                "name": claims.name,
                "role": claims.role.wire,
                "muted_until": int(muted_until) if muted_until else None,
                "orders": orjson.Fragment(orders),
                "grabs": orjson.Fragment(grabs),
                "rank": {"rank": rank, "count": invited} if rank else None,
                "invited": invited,
                "share": self._parts.share_token(claims, None),
            }
        )

    def _settle(self, command_id: int, command: JoinRoom, room: Room, you: bytes) -> None:
        if self._machine.state is not ConnectionState.JOINING:
            self.give_up_place(room)
            return
        if command.resume is None:
            self._welcome(command_id, room, you, None)
            return
        room.missed(
            command.resume.epoch,
            command.resume.seq,
            lambda missed: self._welcome(command_id, room, you, missed),
        )

    def _welcome(self, command_id: int, room: Room, you: bytes, missed: list[bytes] | None) -> None:
        """Send the join reply and, in the same turn of the loop, become a member: nothing falls between the two."""
        if self._machine.state is not ConnectionState.JOINING:
            self.give_up_place(room)
            return
        claims = self.claims
        assert claims is not None
        body = (
            b'{"now":%d,"epoch":"%s","seq":%d,"resumed":%s,"you":%s,'
            b'"gauges":%s,"room":%s,"missed":[%s],"ping_ms":%d}'
        )
        resumed = missed is not None
        self._machine.joined()
        if claims.role >= Role.MODERATOR:
            self._transport.message_size_max = CONSOLE_FRAME_BYTES_MAX
        self.room = room
        self.ok(
            command_id,
            body
            % (
                self._parts.clock.now_ms(),
                room.epoch.encode(),
                room.memory.seq,
                b"true" if resumed else b"false",
                you,
                orjson.dumps(room.memory.gauges()),
                b"null" if resumed else room.snapshot(),
                b",".join(missed or ()),
                PING_PERIOD_MS,
            ),
        )
        room.audience.attach(self)
        self._on_joined(self)
        waiting, self._behind_join = self._behind_join, []
        for request in waiting:
            if self._transport.closing:
                break  # One of them was a leave.
            self._dispatcher.run(self, request)

    def _refuse_join(self, command_id: int, error: LiveroomError, code: CloseCode) -> None:
        self.refuse(command_id, error)
        self.close(code, "join refused")

    @property
    def entered(self) -> Room | None:
        """The room this connection is in, or on its way into."""
        return self._room

    def sweep(self, now_s: float) -> None:
        """Close when the token has expired. `now_s` is the wall clock, as in tokens."""
        if self.claims is not None and now_s >= self.claims.expires_at_s and self.room is not None:
            self.close(CloseCode.TOKEN_EXPIRED, "token expired")


def _close_code_of(error: LiveroomError) -> CloseCode:
    if isinstance(error, RoomNotFound):
        return CloseCode.ROOM_NOT_FOUND
    if isinstance(error, CommandRejected):
        if error.code is ErrorCode.ROOM_NOT_FOUND:
            return CloseCode.ROOM_NOT_FOUND
        if error.code is ErrorCode.ROOM_NOT_LIVE:
            return CloseCode.ROOM_CLOSED
    return CloseCode.STATE_LOST


def wall_clock_s() -> float:
    """Return the wall clock in seconds since 1970-01-01 UTC, for token expiry only."""
    return time.time()
