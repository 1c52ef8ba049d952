"""
One simulated viewer on one socket.

Decides how a connection is opened, kept and left, and notes every frame that arrives. Does not decide when to act
(`generator.py`) or what is right (`oracle.py`).

The handshake is done by the sans-I/O core of `websockets`, which is then dropped. From there on a frame that other
viewers have had before costs one dictionary look-up and two appends: at 2,000 viewers and 30 frames a second there
are 16 µs for each, most of which the kernel needs. The viewers of a sample take the long way instead: every frame
through `protocol.connection` and `protocol.view`, as a real client would.
"""

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from loadtest import history
from loadtest.framing import (
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_TEXT,
    FrameReader,
    FramingError,
    Message,
)
from loadtest.history import TICKS_PER_S, BrokenSeen, Clock, Outcome, ReconnectSeen, Recorder, ViewerHistory
from loadtest.plan import Actor
from protocol.codes import CloseCode
from protocol.connection import ClientConnection, Progress
from protocol.errors import ProtocolError
from protocol.frames import Reply, Said
from protocol.view import apply_event

ABNORMAL: Final = 1006
#: Commands kept for a viewer whose connection is not open yet; more are refused as "not_connected".
BACKLOG_MAX: Final = 64
#: A share token that nobody signed.
FORGED_LINK: Final = "st.eyJmb3JnZWQiOnRydWV9.Zm9yZ2Vk"

#: Commands asked again, with the same key, until there is a definite answer: by a viewer after every lost connection
#: and every answer of `AGAIN`.
REASKED: Final = frozenset(
    {
        "seckill.claim",
        "redpacket.grab",
        "order.cancel",
        "item.put",
        "seckill.schedule",
        "redpacket.send",
        "share.rank",
    }
)
#: Answers that ask for patience, or that leave open what happened.
AGAIN: Final = frozenset({"outcome_unknown", "unavailable", "overloaded", "rate_limited"})
#: Seconds before asking again, doubled each time; longer if the server says so.
AGAIN_DELAY_S: Final = 0.2
AGAIN_DELAY_S_MAX: Final = 2.0
#: Commands whose answers are kept.
_TELLING: Final = frozenset({"seckill.claim", "redpacket.grab", "order.cancel", "share.rank"})
_HEAD_BYTES_MAX: Final = 16 * 1024
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Asked:
    """One command on its way to an answer, however many times it has to be asked."""

    step: int
    command: dict[str, Any]
    intended_us: int
    #: When it was first sent, and last; 0 before.
    sent_us: int = 0
    asked_us: int = 0
    tries: int = 0
    #: Whose link a join came through, if it did.
    via: str = ""

    @property
    def reasked(self) -> bool:
        """Tell whether it is asked until the answer is definite."""
        return self.step >= 0 and self.command["cmd"] in REASKED


def _later(delay_s: float, call: "Callable[[], None]") -> None:
    asyncio.get_running_loop().call_later(delay_s, call)


class Desk:
    """
    What the viewers of one process share: recorder, clock, outcomes and the count of what is open.

    `on_close` is called with every viewer whose connection ended.
    """

    def __init__(self, recorder: Recorder, room: str, uri: WebSocketURI) -> None:
        self.recorder = recorder
        self.room = room
        self.uri = uri
        #: `time.monotonic()` at the start of the run; the same for all processes of a machine.
        self.started_s = 0.0
        self.outcomes: list[Outcome] = []
        self.pending = 0
        #: The store's clock, by the join that was answered fastest.
        self.clock = Clock(0, 2**62)
        #: Viewer's index → the share token that viewer was given, and its id.
        self.share_tokens: dict[int, tuple[str, str]] = {}
        #: Answers to claims: delay in ticks from the intended moment → how many.
        self.claims: dict[int, int] = {}
        #: Accepted joins of the plan, likewise.
        self.joins: dict[int, int] = {}
        #: How something is done some seconds later.
        self.later: Callable[[float, Callable[[], None]], None] = _later
        self.on_close: Callable[[Viewer], None] = lambda viewer: None
        #: What went wrong with connections, by kind.
        self.faults: dict[str, int] = {}

    def now_us(self) -> int:
        """Return microseconds since the start of the run."""
        return int((time.monotonic() - self.started_s) * 1_000_000)

    def at_ms(self, moment_us: int) -> int:
        """Return a moment of the run on the store's clock, milliseconds."""
        return self.clock.store_us(moment_us) // 1000

    def set_clock(self, now_ms: int, sent_us: int, done_us: int) -> None:
        """Learn the store's clock from an answer that says what it showed between two moments."""
        # The clock is cut to whole milliseconds: the truth is half of one later, on average.
        error_us = (done_us - sent_us) // 2 + 500
        if error_us < self.clock.error_us:
            self.clock = Clock(now_ms * 1000 + 500 - (sent_us + done_us) // 2, error_us)

    def fault(self, kind: str) -> None:
        """Count something that happened to a connection."""
        self.faults[kind] = self.faults.get(kind, 0) + 1


class Viewer(asyncio.Protocol):
    """One viewer. The object outlives its connections: it comes back with `resume`."""

    __slots__ = (
        "_backlog",
        "_cache",
        "_desk",
        "_handshake",
        "_head",
        "_next_batch",
        "_next_id",
        "_owed",
        "_pending",
        "_plain",
        "_reader",
        "_started_s",
        "actor",
        "attempts",
        "away",
        "close_code",
        "cutting",
        "epoch",
        "frames",
        "id",
        "index",
        "joined",
        "leaving",
        "left",
        "lost",
        "opening",
        "present",
        "return_s",
        "token",
        "transport",
        "via",
    )

    def __init__(self, desk: Desk, index: int, actor: Actor, viewer_id: str, token: str) -> None:
        self._desk = desk
        self._cache = desk.recorder.cache
        self.index = index
        self.actor = actor
        self.id = viewer_id
        self.token = token
        self.transport: asyncio.Transport | None = None
        #: Numbers of the frames read, in order, over all connections.
        self.frames = array("I")
        self.epoch = ""
        self.joined = False
        self.leaving = False
        self.lost: list[int] = []
        #: Whether the viewer was in the room when told to leave.
        self.present = False
        #: Whether a connection is being opened: commands wait in the backlog.
        self.opening = False
        #: Connections tried in a row without getting in.
        self.attempts = 0
        self.close_code = ABNORMAL
        #: When to come back, if the server said so: seconds after the close.
        self.return_s: float | None = None
        #: Whether the connection is being dropped on purpose.
        self.cutting = False
        #: Whether the viewer stays away until the plan brings them back.
        self.away = False
        #: Whether the viewer has left for good before the end.
        self.left = False
        #: The link this viewer comes through: whose, and the token. Shown until a join is accepted.
        self.via: tuple[str, str] | None = None
        self._next_id = 0
        self._next_batch = 0
        self._pending: dict[int, Asked] = {}
        #: Commands of `REASKED` that are asked again, or for the first time, once the viewer is back in the room.
        self._owed: list[Asked] = []
        self._backlog: list[Asked] = []
        self._reader = FrameReader()
        self._handshake: ClientProtocol | None = None
        self._head = b""
        self._started_s = 0.0
        # True when the next byte begins a frame and nothing but the frame matters.
        self._plain = False

    # --- connection ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class, so there is nothing to assert.
        self.transport = cast(asyncio.Transport, transport)
        self.close_code = ABNORMAL
        self.return_s = None
        self.cutting = False
        self._started_s = self._desk.started_s
        self._reader = FrameReader()
        self._head = b""
        codec = self._desk.recorder.codec
        self._handshake = ClientProtocol(self._desk.uri, subprotocols=[Subprotocol(codec.subprotocol)])
        self._handshake.send_request(self._handshake.connect())
        self.transport.writelines(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        if self.cutting:
            return
        if self._plain:
            frame = self._cache.get(data)
            if frame is not None:
                self.frames.append(frame.number)
                tick = int((time.monotonic() - self._started_s) * TICKS_PER_S)
                ticks = frame.ticks
                ticks[tick] = ticks.get(tick, 0) + 1
                return
        self._read(data)

    def _read(self, data: bytes) -> None:
        if self._handshake is not None:
            rest = self._shake_hands(data)
            if not rest:
                return
            data = rest
        try:
            messages = self._reader.feed(data)
        except FramingError as error:
            self._broken(f"framing: {error}")
            return
        for message in messages:
            if message.opcode in (OP_TEXT, OP_BINARY):
                self._message(message)
            elif message.opcode == OP_PING:
                self._write(Opcode.PONG, message.payload)
            elif message.opcode == OP_CLOSE:
                self._closed_by_server(message.payload)
        self._plain = self._reader.idle and self._handshake is None

    def _shake_hands(self, data: bytes) -> bytes:
        """Return the bytes behind the handshake's answer, or nothing while it is incomplete or refused."""
        self._head += data
        end = self._head.find(_HEAD_END)
        if end < 0:
            if len(self._head) > _HEAD_BYTES_MAX:
                self._abort("handshake_too_long")
            return b""
        core, self._handshake = self._handshake, None
        assert core is not None
        head, rest = self._head[: end + len(_HEAD_END)], self._head[end + len(_HEAD_END) :]
        self._head = b""
        core.receive_data(head)
        if core.state is not State.OPEN or core.subprotocol != self._desk.recorder.codec.subprotocol:
            # "HTTP/1.1 503 Service Unavailable"; 101 here means an answer with something else wrong.
            status = head.split(b" ", 2)[1:2]
            self._abort("handshake_" + b"".join(status)[:3].decode("ascii", "replace"))
            return b""
        self.opening = False
        self._plain = True
        backlog, self._backlog = self._backlog, []
        for asked in backlog:
            self._ask(asked)
        return rest

    def _message(self, message: Message) -> None:
        desk = self._desk
        raw = message.raw
        frame = self._cache.get(raw) if raw is not None else None
        replies: list[Reply] = []
        if frame is None:
            frame, replies = desk.recorder.read(message.payload, raw, message.opcode == OP_TEXT)
        self.frames.append(frame.number)
        now_us = desk.now_us()
        self._note(frame, now_us // history.TICK_US)
        if frame.private:
            for mark in frame.marks:
                if isinstance(mark, ReconnectSeen):
                    self.return_s = mark.after_ms / 1000
        for reply in replies:
            self._settle(reply, now_us)

    def _note(self, frame: history.Frame, tick: int) -> None:
        """Note when a frame was read."""
        frame.ticks[tick] = frame.ticks.get(tick, 0) + 1

    def _settle(self, reply: Reply, now_us: int) -> None:
        asked = self._pending.pop(reply.id, None)
        if asked is None:
            if self.leaving:
                return
            self._broken(f"a reply to {reply.id}, which is not pending")
            return
        desk, cmd = self._desk, asked.command["cmd"]
        code, definite = "ok", True
        if reply.ok is None:
            assert reply.err is not None
            code, definite = str(reply.err.get("code")), bool(reply.err.get("definite", True))
            if asked.reasked and not self.leaving and self._ask_again(asked, code, definite, reply.err):
                return
        desk.pending -= 1
        outcome = _outcome(asked, code, now_us, definite=definite)
        if cmd in _TELLING:
            outcome.said = dict(reply.ok if reply.ok is not None else reply.err or {})
            outcome.said.pop("message", None)
        if cmd in _CAMPAIGN:
            tick = max(0, now_us - asked.intended_us) // history.TICK_US
            desk.claims[tick] = desk.claims.get(tick, 0) + 1
        if reply.ok is None:
            if cmd == "room.join" and code in AGAIN and self.transport is not None:
                # Refused for now: come back later. Refused for good: the close code that follows says so.
                self.transport.close()
        elif cmd == "comment.send":
            outcome.value = int(reply.ok.get("comment", 0))
        elif cmd == "like.send":
            outcome.value = int(reply.ok.get("total", 0))
        elif cmd == "room.join":
            self._entered(asked, reply.ok, now_us)
            if asked.step >= 0:
                tick = max(0, now_us - asked.intended_us) // history.TICK_US
                desk.joins[tick] = desk.joins.get(tick, 0) + 1
            if asked.via:
                outcome.said = {"via": asked.via}
        if asked.step >= 0:
            desk.outcomes.append(outcome)

    def _entered(self, asked: Asked, ok: dict[str, Any], now_us: int) -> None:
        """Be in the room: learn the clock and the own link, and ask what is owed."""
        desk = self._desk
        self.joined = True
        self.attempts = 0
        self.via = None
        self.epoch = str(ok.get("epoch", ""))
        desk.set_clock(int(ok.get("now", 0)), asked.asked_us, now_us)
        share = ok.get("you", {}).get("share")
        if share is not None:
            desk.share_tokens[self.index] = (self.id, share)
        owed, self._owed = self._owed, []
        for waiting in owed:
            self._ask(waiting)

    def _ask_again(self, asked: Asked, code: str, definite: bool, err: dict[str, Any]) -> bool:
        """Return whether the answer leaves the question open; if so, it will be asked again with the same key."""
        if code == "not_joined":
            self._owed.append(asked)
            return True
        if definite and code not in AGAIN:
            return False
        delay_s = min(AGAIN_DELAY_S_MAX, AGAIN_DELAY_S * 2 ** min(8, asked.tries - 1))
        if isinstance(err.get("retry_ms"), int):
            delay_s = max(delay_s, err["retry_ms"] / 1000)
        # Up to half as long again, so that those who were refused together do not come back together.
        delay_s *= 1 + asked.step * 0.618034 % 1 / 2
        self._owed.append(asked)
        self._desk.later(delay_s, lambda: self._remind(asked))
        return True

    def _remind(self, asked: Asked) -> None:
        # Unless a join in between has asked it already, or the viewer has left and given up.
        if self.connected and not self.leaving and any(waiting is asked for waiting in self._owed):
            self._owed = [waiting for waiting in self._owed if waiting is not asked]
            self._ask(asked)

    def _closed_by_server(self, payload: bytes) -> None:
        try:
            self.close_code = Close.parse(payload).code if payload else 1005
        except Exception:
            # Whatever the library finds wrong with it, it is no close frame.
            self._broken("a malformed close frame")
            return
        self._write(Opcode.CLOSE, payload[:2])
        if self.transport is not None:
            self.transport.close()

    def _broken(self, why: str) -> None:
        """Record a fault of the server that only this viewer saw, and hang up."""
        recorder = self._desk.recorder
        frame = history.Frame(len(recorder.frames), [BrokenSeen(why)], {}, True)
        recorder.frames.append(frame)
        self.frames.append(frame.number)
        self._abort("broken")

    def _abort(self, kind: str) -> None:
        self._desk.fault(kind)
        self._plain = False
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        desk = self._desk
        self.transport = None
        self._plain = False
        self.joined = False
        self._drop_backlog()
        self._give_up()
        if not self.leaving:
            self.lost.append(self.close_code)
            kind = "away" if self.away else "cut_on_purpose" if self.cutting else f"closed_{self.close_code}"
            desk.fault(kind)
            desk.on_close(self)

    def _give_up(self) -> None:
        """
        Record that no reply will come to what is pending: nobody knows whether it was done.

        What is asked until the answer is definite is owed instead, unless the viewer leaves.
        """
        pending = [*self._pending.values()]
        self._pending.clear()
        if self.leaving:
            pending += self._owed
            self._owed = []
        for asked in pending:
            self._owe(asked)

    def _owe(self, asked: Asked) -> None:
        """Ask later if it is asked until the answer is definite; else record how it ended."""
        if asked.reasked and not self.leaving:
            self._owed.append(asked)
        elif asked.tries:
            self._unanswered(asked)
        else:
            self._not_sent(asked)

    def _unanswered(self, asked: Asked) -> None:
        self._desk.pending -= 1
        if asked.step >= 0:
            outcome = _outcome(asked, "unanswered", self._desk.now_us(), definite=False)
            if asked.via:
                outcome.said = {"via": asked.via}
            self._desk.outcomes.append(outcome)

    # --- acting -------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Tell whether the connection is open and in the room."""
        return self.transport is not None and self._handshake is None and self.joined

    def open(self, step: int, intended_us: int) -> None:
        """
        Queue the command that enters the room, or returns to where this viewer was.

        The caller opens the connection next, and calls `refused` if it cannot.
        """
        self.opening = True
        self.away = False
        self.attempts += 1
        command: dict[str, Any] = {"cmd": "room.join", "room": self._desk.room, "token": self.token}
        if self.epoch:
            command["resume"] = {
                "epoch": self.epoch,
                "seq": history.last_seq(self._desk.recorder.frames, self.frames),
            }
        if self.via is not None:
            command["via"] = self.via[1]
        via = self.via[0] if self.via is not None else ""
        self._ask(Asked(step, command, intended_us, via=via), counted=False)

    def refused(self, kind: str) -> None:
        """Be told that no connection could be opened."""
        self._desk.fault(kind)
        self._drop_backlog()
        self._desk.on_close(self)

    def _drop_backlog(self) -> None:
        self.opening = False
        backlog, self._backlog = self._backlog, []
        for asked in backlog:
            self._owe(asked)

    def _not_sent(self, asked: Asked) -> None:
        self._desk.pending -= 1
        if asked.step >= 0:
            # It never left, so it certainly had no effect.
            now_us = self._desk.now_us()
            asked.sent_us = asked.asked_us = now_us
            self._desk.outcomes.append(_outcome(asked, "not_connected", now_us, definite=True))

    def send(self, step: int, command: dict[str, Any], intended_us: int) -> None:
        """
        Send `command` as step number `step` (below zero: no step of the plan, nothing is recorded).

        Before the handshake is done the command waits, at most `BACKLOG_MAX` of them; its latency runs on. A command
        of `REASKED` waits for the next join, however long that takes.
        """
        self._ask(Asked(step, command, intended_us), counted=False)

    def _ask(self, asked: Asked, *, counted: bool = True) -> None:
        """Send a command, or let it wait. `counted` tells whether it is among the desk's pending ones."""
        desk = self._desk
        now_us = desk.now_us()
        if not counted:
            desk.pending += 1
        if self.transport is None or self._handshake is not None or self.cutting:
            if self.opening and len(self._backlog) < BACKLOG_MAX:
                self._backlog.append(asked)
            else:
                self._owe(asked)
            return
        self._next_id += 1
        message = {"id": self._next_id, **asked.command}
        if asked.command["cmd"] == "like.send":
            self._next_batch += 1
            message["batch"] = self._next_batch
        if not asked.tries:
            asked.sent_us = now_us
        asked.asked_us = now_us
        asked.tries += 1
        self._pending[self._next_id] = asked
        self._sending(self._next_id, asked.command)
        codec = desk.recorder.codec
        self._write(Opcode.TEXT if codec.is_text else Opcode.BINARY, codec.encode(message))

    def _sending(self, command_id: int, command: dict[str, Any]) -> None:
        """Be told of a command as it leaves."""

    def _write(self, opcode: Opcode, payload: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(Frame(opcode, payload).serialize(mask=True))

    def leave(self) -> None:
        """Say goodbye. The connection ends with the server's close, or with `hang_up`."""
        self.leaving = True
        self.present = self.connected
        self._give_up()
        self._drop_backlog()
        if self.transport is not None and self._handshake is None:
            self.send(-1, {"cmd": "room.leave"}, self._desk.now_us())
            self._write(Opcode.CLOSE, Close(CloseCode.NORMAL, "").serialize())

    def cut(self) -> None:
        """Drop the connection without a word: what was written leaves, no answer is read."""
        if self.transport is not None and self._handshake is None and not self.cutting:
            self.cutting = True
            self._plain = False
            self.transport.close()

    def go_away(self) -> None:
        """Drop the connection and stay away until the next `open`."""
        self.away = True
        self.cut()

    def depart(self) -> None:
        """Say goodbye before the end: what comes later is not for this viewer."""
        self.left = self.connected
        self.leave()
        self.present = False

    def hurry(self) -> None:
        """Read as fast as frames come from now on, if that was not so."""

    def hang_up(self) -> None:
        """Cut the connection."""
        self.leaving = True
        if self.transport is not None:
            self.transport.abort()

    def unanswered(self) -> int:
        """Return how many commands wait for a reply."""
        return len(self._pending) + len(self._owed)

    def record(self) -> ViewerHistory:
        """Return what this viewer saw."""
        return ViewerHistory(
            viewer=self.id,
            actor=self.index,
            frames=self.frames,
            lost=self.lost,
            present=self.present,
            joined=bool(self.epoch),
            left=self.left,
        )


#: Commands whose answers make up the delay of claims.
_CAMPAIGN: Final = frozenset({"seckill.claim", "redpacket.grab"})


def _outcome(asked: Asked, code: str, now_us: int, *, definite: bool) -> Outcome:
    return Outcome(
        asked.step,
        asked.command["cmd"],
        code,
        asked.intended_us,
        asked.sent_us,
        now_us,
        taps=asked.command.get("n", 0),
        definite=definite,
        tries=asked.tries,
        asked_us=asked.asked_us,
    )


class SlowViewer(Viewer):
    """
    A viewer on a weak link: takes so many bytes a second and leaves the rest in the buffers of kernel and server.

    Their delays say nothing about the server, so the moments at which they read what everybody gets are not counted;
    what they read, and in which order, is judged like anybody's.
    """

    __slots__ = ("_hurried",)

    def __init__(self, desk: Desk, index: int, actor: Actor, viewer_id: str, token: str) -> None:
        super().__init__(desk, index, actor, viewer_id, token)
        self._hurried = False

    def data_received(self, data: bytes) -> None:
        if self.cutting:
            return
        self._read(data)
        transport = self.transport
        if transport is not None and not transport.is_closing() and not self._hurried:
            transport.pause_reading()
            self._desk.later(len(data) / self.actor.reads_bytes_s, lambda: self._read_on(transport))

    def _read_on(self, transport: asyncio.Transport) -> None:
        if transport is self.transport and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def _note(self, frame: history.Frame, tick: int) -> None:
        if frame.private:
            super()._note(frame, tick)

    def hurry(self) -> None:
        self._hurried = True
        if self.transport is not None:
            self._read_on(self.transport)


class SampledViewer(Viewer):
    """
    A viewer that reads like a real client: every frame decoded, every event folded into its own view of the room.

    The view is compared with the server's snapshot at the end, which checks the reducer, the snapshot and the facts
    against each other on a path that shares nothing with the fast one.
    """

    __slots__ = ("_client", "_room", "_thinned")

    def __init__(self, desk: Desk, index: int, actor: Actor, viewer_id: str, token: str) -> None:
        super().__init__(desk, index, actor, viewer_id, token)
        self._client = ClientConnection(desk.recorder.codec)
        self._room: dict[str, Any] = {}
        self._thinned = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        progress: Progress = self._client.progress
        self._client = ClientConnection(self._desk.recorder.codec, progress)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.cutting:
            self._read(data)

    def _sending(self, command_id: int, command: dict[str, Any]) -> None:
        self._client.pending[command_id] = command["cmd"]

    def _message(self, message: Message) -> None:
        super()._message(message)
        try:
            for entry in self._client.receive(message.payload, message.opcode == OP_TEXT):
                self._fold(entry)
        except (ProtocolError, KeyError, TypeError) as error:
            self._broken(f"sampled viewer: {type(error).__name__} {error}")

    def _fold(self, entry: Reply | Said) -> None:
        if isinstance(entry, Reply):
            if entry.ok is not None and "epoch" in entry.ok:
                if entry.ok["room"] is not None:
                    self._room = entry.ok["room"]
                for fact in entry.ok["missed"]:
                    apply_event(self._room, fact)
        elif entry.name == "thinned":
            self._thinned += entry.body["dropped"]
        else:
            apply_event(self._room, entry.body)

    def record(self) -> ViewerHistory:
        """Return what this viewer saw, with the room as it has it."""
        record = super().record()
        if record.joined:
            record.folded = history.Folded(
                self._client.progress.epoch,
                self._client.progress.seq,
                self._room,
                self._client.gap,
                self._thinned,
            )
        return record
