"""
python-socketio on aiohttp and uvloop, WebSocket only, no compression.

An event `publish` of one connection is emitted as `e` to every other. Prints the port it listens on.
"""

import asyncio
from typing import Any

import socketio
import uvloop
from aiohttp import web

io = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"], http_compression=False)


@io.event
async def publish(sid: str, event: Any) -> None:
    """Tell everybody else."""
    await io.emit("e", event, skip_sid=sid)


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    io.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main())
