"""
The wire between engines and their store, and what can be done to it.

Forwards bytes both ways, until it is told to strike at the n-th claim at a named point of it, or to fall silent in one
or both directions without closing anything. Knows no protocol: a claim is the name of its function, which stands in
the request as it is.

Listens on a unix socket, because the kernel then says which process is at the other end: the one to kill when a
worker is to die at a point of a claim.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import Enum
from pathlib import Path
from typing import Final

#: The function that decides a claim, as it stands in a request behind the library's prefix.
CLAIM: Final = b"_seckill_claim"
_CHUNK: Final = 1 << 16


class Point(Enum):
    """Where a claim is when the fault strikes."""

    #: The flight with it has left the engine and not reached the store.
    BEFORE = "before the flight arrives"
    #: The store has it; nobody knows whether it was done.
    DURING = "while it is in flight"
    #: The store has answered, the engine has not heard.
    AFTER = "after the store's answer"


class Wire:
    """Listens on a unix socket and forwards to another."""

    def __init__(self, here: Path, there: str) -> None:
        """
        Prepare.

        Args:
            here: Where engines connect.
            there: Path of the store's unix socket.
        """
        self.url = f"unix://{here}"
        self._here = here
        self._there = there
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = 0
        self._point = Point.BEFORE
        self._blow: Callable[[int], None] = lambda pid: None
        #: Set once it has struck.
        self.struck = asyncio.Event()
        self._requests_flow = asyncio.Event()
        self._replies_flow = asyncio.Event()
        self.speak()

    def strike(self, point: Point, number: int, blow: Callable[[int], None]) -> None:
        """
        Do `blow` when the `number`-th call with claims from now is at `point`; it is given the engine's process id.

        Claims that are asked for at the same time may share a call.
        """
        self.struck.clear()
        self._point, self._left, self._blow = point, number, blow

    def silence(self, *, requests: bool, replies: bool) -> None:
        """Stop forwarding in these directions and leave every connection open."""
        if requests:
            self._requests_flow.clear()
        if replies:
            self._replies_flow.clear()

    def speak(self) -> None:
        """Forward again; what gathered meanwhile comes first."""
        self._requests_flow.set()
        self._replies_flow.set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_unix_server(self._accept, self._here)

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio would make complains when it is cancelled.
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer_pid(writer)
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(self._there)
            hold = asyncio.Event()
            ways = {
                asyncio.ensure_future(self._requests(reader, store_writer, hold, peer)),
                asyncio.ensure_future(self._replies(store_reader, writer, hold, peer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                store_writer.close()
        except OSError:
            pass  # No store at the moment: the engine sees a connection that ends.
        finally:
            writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold: asyncio.Event, peer: int
    ) -> None:
        tail = b""
        while data := await reader.read(_CHUNK):
            await self._requests_flow.wait()
            hit = False
            if self._left > 0:
                # A name may be cut by the end of a chunk.
                self._left -= (tail + data).count(CLAIM)
                hit = self._left <= 0
            tail = data[1 - len(CLAIM) :]
            if hit and self._point is Point.BEFORE:
                self._do(peer)
                return
            if hit and self._point is Point.AFTER:
                hold.set()
            writer.write(data)
            await writer.drain()
            if hit and self._point is Point.DURING:
                self._do(peer)
                return

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold: asyncio.Event, peer: int
    ) -> None:
        while data := await reader.read(_CHUNK):
            if hold.is_set():
                self._do(peer)
                return
            await self._replies_flow.wait()
            writer.write(data)
            await writer.drain()

    def _do(self, peer: int) -> None:
        self._left = 0
        self._blow(peer)
        self.struck.set()


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


@contextlib.asynccontextmanager
async def a_wire(here: Path, there: str) -> AsyncIterator[Wire]:
    """Forward from one unix socket to another for as long as the block lasts."""
    wire = Wire(here, there)
    await wire.start()
    try:
        yield wire
    finally:
        await wire.stop()
