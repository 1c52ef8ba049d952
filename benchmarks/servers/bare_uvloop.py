"""
The bare transport: what fan-out costs in Python when there is nothing else to do.

Accepts connections, answers every handshake with the one answer that fits the crowd's fixed key, builds each frame once
and hands the same bytes to `transport.write` of every connection. Knows no rooms, tokens, log or limits. With
`--coalesce`, events wait for the engine's own cadence (`engine/fanout/cadence.py`) and leave as one array.

A connection to /publish writes: each of its text frames is an event. Prints the port it listens on.
"""

import asyncio
import socket
import sys
from time import monotonic
from typing import cast

import uvloop

from engine.fanout.cadence import Cadence
from engine.fanout.slicing import Slicer
from engine.gateway.transport import build_frame

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Room:
    """Everybody who listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, coalesce: bool) -> None:
        self.loop = loop
        self.coalesce = coalesce
        self.viewers: dict[asyncio.Transport, None] = {}
        self.cadence = Cadence()
        self.slicer = Slicer()
        self.pending: list[bytes] = []
        self.timer: asyncio.TimerHandle | None = None
        self.flushing = False

    def publish(self, event: bytes) -> None:
        """Send an event at once, or with the next flush."""
        if not self.coalesce:
            frame = build_frame(b"[" + event + b"]", text=True)
            for viewer in self.viewers:
                viewer.write(frame)
            return
        self.pending.append(event)
        self.schedule()

    def schedule(self) -> None:
        """Arm the timer for the next flush."""
        if self.flushing or self.timer is not None or not self.pending:
            return
        now = self.loop.time()
        at = self.cadence.next_flush_at(now, facts=False, chat=True, gauges=False)
        assert at is not None
        self.timer = self.loop.call_at(at, self.flush)

    def flush(self) -> None:
        """Send what is pending as one frame, in slices as the engine does."""
        self.timer = None
        self.flushing = True
        frame = build_frame(b"[" + b",".join(self.pending) + b"]", text=True)
        self.pending.clear()
        self.write_slice(self.loop.time(), frame, list(self.viewers), self.slicer.first())

    def write_slice(self, began: float, frame: bytes, left: list[asyncio.Transport], budget: int) -> None:
        """Write to some and leave the rest to the next turn of the loop."""
        started = monotonic()
        for viewer in left[-budget:]:
            viewer.write(frame)
        del left[-budget:]
        self.slicer.wrote(started, monotonic())
        if left:
            self.loop.call_soon(self.write_on, began, frame, left)
        else:
            self.loop.call_soon(self.flushed, began)

    def write_on(self, began: float, frame: bytes, left: list[asyncio.Transport]) -> None:
        """Write the next slice."""
        self.write_slice(began, frame, left, self.slicer.following(monotonic()))

    def flushed(self, began: float) -> None:
        """Go on with what has come meanwhile."""
        self.flushing = False
        self.cadence.flushed(began, self.loop.time(), with_gauges=False)
        self.schedule()


class Connection(asyncio.Protocol):
    """A viewer or a publisher."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.data = b""
        self.publishes: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Answer the handshake, then take a publisher's frames."""
        self.data += data
        if self.publishes is None:
            if b"\r\n\r\n" not in self.data:
                return
            self.publishes = self.data.startswith(b"GET /publish ")
            self.data = self.data.partition(b"\r\n\r\n")[2]
            self.transport.write(ANSWER)
            if not self.publishes:
                self.room.viewers[self.transport] = None
        while len(self.data) >= 2:
            length, head = self.data[1] & 0x7F, 2
            if length == 126:
                length, head = int.from_bytes(self.data[2:4], "big"), 4
            # The crowd's mask is zeros, so there is nothing to unmask.
            end = head + 4 + length
            if len(self.data) < end:
                return
            payload, self.data = self.data[head + 4 : end], self.data[end:]
            self.room.publish(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.room.viewers.pop(self.transport, None)


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    room = Room(loop, coalesce="--coalesce" in sys.argv)
    server = await loop.create_server(lambda: Connection(room), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(main())
