"""
A faulty wire between an engine and its store.

Forwards bytes both ways until it is told to hold back or to cut when a request mentions something. Knows no protocol:
the words it looks for are names of functions, which stand in the request as they are.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class StoreProxy:
    """Listens on a port of 127.0.0.1 and forwards to a unix socket."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hold_back = b""
        self._lose_reply = b""
        #: Set once a request was held back.
        self.held = asyncio.Event()
        #: Set once a reply was lost.
        self.lost = asyncio.Event()

    @property
    def url(self) -> str:
        """The store's URL as the engine is told it."""
        assert self._server is not None
        return "redis://{}:{}".format(*self._server.sockets[0].getsockname())

    def hold_back(self, word: bytes) -> None:
        """Do not forward the next request that mentions `word`, or anything after it on that connection."""
        self._hold_back = word

    def lose_reply(self, word: bytes) -> None:
        """Forward the next request that mentions `word`, and cut the connection when its reply comes."""
        self._lose_reply = word

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio would make complains when it is cancelled.
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = asyncio.Event()
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(self._socket_path)
            ways = {
                asyncio.ensure_future(self._requests(reader, store_writer, cut)),
                asyncio.ensure_future(self._replies(store_reader, writer, cut)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                await _close(store_writer)
        except OSError:
            pass  # No store at the moment: the engine sees a connection that ends.
        finally:
            await _close(writer)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if self._hold_back and self._hold_back in data:
                self._hold_back = b""
                self.held.set()
                await asyncio.Event().wait()
            if self._lose_reply and self._lose_reply in data:
                self._lose_reply = b""
                cut.set()
            writer.write(data)
            await writer.drain()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if cut.is_set():
                self.lost.set()
                return
            writer.write(data)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def a_store_proxy(socket_path: str) -> AsyncIterator[StoreProxy]:
    """Forward to a unix socket for as long as the block lasts."""
    proxy = StoreProxy(socket_path)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
