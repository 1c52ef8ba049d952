"""
What is written to a connection arrives whole and in order, whichever part of a turn of the loop it was written in.

The transport writes to the socket itself while nothing is in front of it and leaves the rest to the loop. The peer here
reads in bursts, so that both happen all the time, on either kind of loop.
"""

import asyncio
import os
import random
import socket
from typing import cast

import pytest
import uvloop

from engine.gateway.transport import Timeouts, Transport, build_frame

PATIENCE_S = 60.0
FRAMES = 1_000
LAST = build_frame(b"the end", text=True)
TIMEOUTS = Timeouts(join_timeout_ms=60_000, idle_timeout_ms=60_000)


class Peer(asyncio.Protocol):
    """Accepts one connection and makes a transport of it, as the listener does."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, tcp: asyncio.BaseTransport) -> None:
        """Write what would be the handshake's answer, then wrap."""
        loop = asyncio.get_running_loop()
        stream = cast("asyncio.Transport", tcp)  # uvloop's is no subclass.
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        stream.write(b"hello\n")
        transport = Transport(stream, loop=loop, timeouts=TIMEOUTS, lost=lambda _: None)
        stream.set_protocol(transport)
        # In the same turn, ahead of what the loop still holds if this went straight to the socket.
        transport.write(build_frame(b"0", text=True))
        self.ready.set_result(transport)


async def scenario(seed: int) -> None:
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    peer = Peer()
    server = await loop.create_server(lambda: peer, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.setblocking(False)
    transport = await peer.ready
    # Something that wakes the loop from its poll, as a message of another connection does.
    bell, ringer = os.pipe()
    expected = [b"hello\n", build_frame(b"0", text=True)]
    number = 0
    written = asyncio.Event()

    def write_some() -> None:
        nonlocal number
        for _ in range(chance.randrange(1, 6)):
            if number == FRAMES:
                written.set()
                return
            number += 1
            payload = b"%d " % number * chance.choice((1, 10, 100, 4_000))
            frame = build_frame(payload, text=True)
            if chance.random() < 0.5:
                transport.write(frame)
            else:
                transport.send(payload)
            expected.append(frame)

    def rung() -> None:
        os.read(bell, 1024)
        write_some()

    loop.add_reader(bell, rung)
    received = bytearray()

    async def read_everything() -> None:
        while not received.endswith(LAST):
            received.extend(await loop.sock_recv(client, chance.choice((2_000, 50_000, 200_000))))

    reading = asyncio.ensure_future(read_everything())
    while not written.is_set():
        # Written from the turn's own callbacks, from a reader's, or from both in one turn.
        what = chance.randrange(4)
        if what != 0:
            os.write(ringer, b"!")
        if what != 1:
            write_some()
        if what == 3:
            loop.call_soon(write_some)
        await asyncio.sleep(0)
    transport.write(LAST)
    expected.append(LAST)
    await reading

    assert bytes(received) == b"".join(expected)
    loop.remove_reader(bell)
    os.close(bell)
    os.close(ringer)
    client.close()
    transport.abort()
    server.close()


@pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@pytest.mark.parametrize("round_", range(3))
def test_everything_arrives_once_and_in_order(loop_factory: object, round_: int) -> None:
    seed = int(os.environ.get("LIVEROOM_TEST_SEED", random.SystemRandom().randrange(2**32))) + round_
    print(f"LIVEROOM_TEST_SEED={seed - round_}")
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(asyncio.wait_for(scenario(seed), PATIENCE_S))
