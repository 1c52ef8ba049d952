"""
The state machine of one connection, for both roles.

Decides, from frames in, which commands may run, which refusals to send and when the connection is over. Pure: no
socket, clock or task; timeouts and the socket's own close are the caller's. `ServerConnection` is what the gateway
asks; `ClientConnection` is the mirror that load tests and tests use.

Source: docs/protocol.md, "Connection", "Frames", "Joining, leaving, coming back".
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from protocol import commands
from protocol.codec import Codec
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import Command, JoinRoom
from protocol.errors import MalformedFrame, UnexpectedFrame
from protocol.frames import Refusal, Reply, Request, Said, read_commands, read_messages
from protocol.limits import VIOLATIONS_MAX


class ConnectionState(Enum):
    """Life of a connection after the handshake."""

    AWAITING_JOIN = "awaiting_join"
    JOINING = "joining"
    JOINED = "joined"
    CLOSED = "closed"


#: Every step there is; anything else is a bug of the caller.
CONNECTION_TRANSITIONS = {
    ConnectionState.AWAITING_JOIN: {ConnectionState.JOINING, ConnectionState.CLOSED},
    ConnectionState.JOINING: {ConnectionState.JOINED, ConnectionState.CLOSED},
    ConnectionState.JOINED: {ConnectionState.CLOSED},
    ConnectionState.CLOSED: set(),
}


@dataclass(slots=True)
class Received:
    """What one frame led to."""

    #: Commands to run, in order.
    requests: list[Request] = field(default_factory=list)
    #: Answers to send now.
    refusals: list[Refusal] = field(default_factory=list)
    #: Close with this after sending the refusals.
    close: CloseCode | None = None


class ServerConnection:
    """The server's side: which of a peer's commands may run now."""

    __slots__ = ("_codec", "_violations", "state")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._violations = 0
        self.state = ConnectionState.AWAITING_JOIN

    def receive(self, data: bytes, is_text: bool) -> Received:
        """
        Sort one frame into commands to run and refusals to send.

        Commands that arrive behind a join in flight are passed on: the caller runs them once the join is decided.
        A malformed join closes with 4400; so does the third unreadable frame or map.
        """
        received = Received()
        if self.state is ConnectionState.CLOSED:
            return received
        for entry in read_commands(self._codec, data, is_text):
            if type(entry) is Request:
                refusal = self._refuse(entry)
                if refusal is None:
                    received.requests.append(entry)
                else:
                    received.refusals.append(refusal)
                continue
            assert isinstance(entry, Refusal)
            received.refusals.append(entry)
            if entry.cmd == JoinRoom.name() and self.state is ConnectionState.AWAITING_JOIN:
                received.close = CloseCode.PROTOCOL_VIOLATION
                break
            if entry.is_violation:
                self._violations += 1
                if self._violations >= VIOLATIONS_MAX:
                    received.close = CloseCode.PROTOCOL_VIOLATION
                    break
        if received.close is not None:
            self.state = ConnectionState.CLOSED
        return received

    def _refuse(self, request: Request) -> Refusal | None:
        if type(request.command) is JoinRoom:
            if self.state is not ConnectionState.AWAITING_JOIN:
                return Refusal(request.id, ErrorCode.ALREADY_JOINED, "this connection is in a room")
            self.state = ConnectionState.JOINING
            return None
        if self.state is ConnectionState.AWAITING_JOIN:
            return Refusal(request.id, ErrorCode.NOT_JOINED, "the first command is room.join")
        return None

    def joined(self) -> None:
        """Record that the join was accepted."""
        self._step(ConnectionState.JOINED)

    def closed(self) -> None:
        """Record that the connection is over. Closing twice is harmless."""
        self.state = ConnectionState.CLOSED

    def _step(self, to: ConnectionState) -> None:
        assert to in CONNECTION_TRANSITIONS[self.state], f"{self.state} → {to}"
        self.state = to


@dataclass(slots=True)
class Progress:
    """How far a client has read the room."""

    epoch: str = ""
    seq: int = 0


class ClientConnection:
    """
    The client's side: numbers commands, matches replies, follows `seq`.

    `progress` outlives a connection: pass it to the next one to resume. `pending` holds at most what the caller
    sends without waiting.
    """

    __slots__ = ("_codec", "_next_id", "gap", "pending", "progress")

    def __init__(self, codec: Codec, progress: Progress | None = None) -> None:
        self._codec = codec
        self._next_id = 1
        self.pending: dict[int, str] = {}
        self.progress = progress or Progress()
        #: Set when a fact was skipped: come back with `resume`.
        self.gap = False

    def send(self, command: Command) -> tuple[int, bytes]:
        """Return the id given to `command` and the frame to send."""
        command_id = self._next_id
        self._next_id += 1
        self.pending[command_id] = command.name()
        return command_id, self._codec.encode(commands.to_map(command, command_id))

    def receive(self, data: bytes, is_text: bool) -> list[Reply | Said]:
        """
        Return the messages of one frame, each fact once and in order.

        Facts already seen are left out, and so is everything of that class behind a gap: `resume` brings it again.

        Raises:
            MalformedFrame: If the frame is not an array of messages.
            UnexpectedFrame: If it answers a command that was not sent.
        """
        kept: list[Reply | Said] = []
        for message in read_messages(self._codec, data, is_text):
            if isinstance(message, Reply):
                self._settle(message)
                kept.append(message)
            elif message.seq is None or self._advance(message.seq):
                kept.append(message)
        return kept

    def _settle(self, reply: Reply) -> None:
        if reply.id == 0:
            return
        name = self.pending.pop(reply.id, None)
        if name is None:
            raise UnexpectedFrame(f"reply to {reply.id}, which is not pending")
        if name == JoinRoom.name() and reply.ok is not None:
            epoch, seq = reply.ok.get("epoch"), reply.ok.get("seq")
            if not isinstance(epoch, str) or type(seq) is not int:
                raise MalformedFrame("a join reply has `epoch` and `seq`")
            self.progress.epoch, self.progress.seq = epoch, seq

    def _advance(self, seq: int) -> bool:
        if seq <= self.progress.seq:
            return False
        if self.gap or seq != self.progress.seq + 1:
            # Progress stays in front of the gap, or resuming from it would skip what is missing.
            self.gap = True
            return False
        self.progress.seq = seq
        return True

    def resume(self) -> dict[str, Any] | None:
        """Return the `resume` map for the next join, or None before the first."""
        if not self.progress.epoch:
            return None
        return {"epoch": self.progress.epoch, "seq": self.progress.seq}
