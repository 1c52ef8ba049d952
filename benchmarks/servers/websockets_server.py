"""
`websockets` and its `broadcast()`, on uvloop, no compression and no pings of its own.

A connection to /publish writes: each of its messages is an event. Prints the port it listens on.
"""

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

viewers: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    """Look after one connection."""
    assert connection.request is not None
    if connection.request.path == "/publish":
        async for event in connection:
            broadcast(viewers, event)
        return
    viewers.add(connection)
    try:
        await connection.wait_closed()
    finally:
        viewers.discard(connection)


async def main() -> None:
    """Serve until killed."""
    async with serve(
        handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096, open_timeout=60
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main())
