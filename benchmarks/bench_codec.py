"""
What do the steps between bytes and objects cost: a command, a join, an event, a frame, deflate?

Method: each step alone, in this process, repeated for a fixed time; the least of seven tries, because noise only adds.
No sockets and no store. Events are comments of about 140 bytes, in the words of the load test's crowd. A batch is what
a busy room flushes at once: 8 events; 40 for a huge one. "Per viewer" steps are those a flush would repeat for each
viewer if it did not share their result: what one frame per flush and codec saves.

Deflate is raw deflate as in permessage-deflate (RFC 7692) without context takeover, level 1 and 6 with the largest
window, and as the engine does it: once for a batch and shared by all, or once for each connection.

    python -m benchmarks codec --save first
"""

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER
from websockets.protocol import Protocol as WebSocketCore
from websockets.server import ServerProtocol

from benchmarks.figures import shown, table
from benchmarks.machine import SERVER_CPU, heading, pin, record
from engine.fanout.frames import deflate
from engine.gateway.listener import _parse_request as parse_request
from engine.gateway.transport import build_frame, core_log
from engine.rooms.fragments import comment_body, fingerprint
from engine.tokens import SigningKey, Tokens
from loadtest.phrases import COMMENTS, NICKNAMES
from protocol.codec import JSON, MSGPACK, transcode
from protocol.codes import Role
from protocol.commands import PostComment
from protocol.connection import ServerConnection
from protocol.frames import read_commands

TRIES: Final = 7
RESULTS: Final = Path(__file__).with_name("results")

SENDER: Final = b'{"id":"viewer1234","name":"viewer1234","role":"viewer"}'
TEXT: Final = "这款茶多少钱一斤? 今天下单什么时候发货呀"
BATCHES: Final = (1, 8, 40)
HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: live.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: liveroom.v1.json\r\n\r\n"
)


def event(number: int) -> bytes:
    """Return a comment as the store publishes it, about 140 bytes."""
    body = {"ev": "comment", "comment": number, "at": 1795000000000 + number}
    # As different as what a crowd says, because deflate lives on what is alike.
    sender = {
        "id": f"viewer{number * 7919 % 10_000}",
        "name": NICKNAMES[number % len(NICKNAMES)],
        "role": "viewer",
    }
    body |= {"from": sender, "text": COMMENTS[number * 31 % len(COMMENTS)]}
    return orjson.dumps(body)


def batch(size: int) -> bytes:
    """Return events joined into a payload, as the hub joins them."""
    return b"[" + b",".join(event(number) for number in range(size)) + b"]"


def deflated(payload: bytes, level: int) -> bytes:
    """Return a payload deflated on its own, as RFC 7692 §7.2.1 says, without the four bytes at the end."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def steps() -> list[tuple[str, str, Callable[[], Any]]]:
    """Return (when it is done, what, how) of every step."""
    command: dict[str, Any] = {"cmd": "comment.send", "id": 7, "key": "c-5f1e0b2a", "text": TEXT}
    as_json, as_msgpack = orjson.dumps(command), MSGPACK.encode(command)
    masked = Frame(Opcode.TEXT, as_json).serialize(mask=True)
    comment = PostComment(key="c-5f1e0b2a", text=TEXT)
    secret = bytes(range(32))
    tokens = Tokens([SigningKey(kid="dev", algorithm="HS256", verifying=secret, signing=secret)])
    token, _ = tokens.sign(
        tenant="demo", room="tea", viewer="viewer1234", role=Role.VIEWER, ttl_s=3600, name="viewer1234"
    )
    join = orjson.dumps({"cmd": "room.join", "id": 1, "room": "tea", "token": token})
    core = WebSocketCore(SERVER, max_size=8192, logger=core_log)
    handshake = ServerProtocol(logger=core_log)

    def receive() -> None:
        core.receive_data(masked)
        core.events_received()

    found: list[tuple[str, str, Callable[[], Any]]] = [
        ("per join", "handshake: parse the request", lambda: parse_request(HANDSHAKE)),
        ("per join", "handshake: accept", lambda: handshake.accept(parse_request(HANDSHAKE)).serialize()),
        ("per join", "core of a connection", lambda: WebSocketCore(SERVER, max_size=8192, logger=core_log)),
        ("per join", "room.join: bytes to command", lambda: ServerConnection(JSON).receive(join, True)),
        ("per join", "token: verify, HS256", lambda: tokens.verify(token, "tea")),
        (
            "per join",
            "share token: sign, HS256",
            lambda: tokens.sign_share(tenant="demo", room="tea", inviter="v", channel=None, ttl_s=3600),
        ),
        ("per command", "WebSocket frame: unmask, parse", receive),
        ("per command", "comment.send: JSON to command", lambda: read_commands(JSON, as_json, True)),
        (
            "per command",
            "comment.send: MessagePack to command",
            lambda: read_commands(MSGPACK, as_msgpack, False),
        ),
        ("per command", "comment.send: fingerprint", lambda: fingerprint(comment)),
        ("per command", "comment.send: body as JSON", lambda: comment_body(comment, SENDER)),
        ("per event", "decode a fact into the view", lambda: orjson.loads(event_bytes)),
    ]
    event_bytes = event(1)
    for size in BATCHES:
        events, payload = [event(number) for number in range(size)], batch(size)
        values = orjson.loads(payload)
        name = f"{size} events, {len(payload):,} bytes"
        found += [
            (f"per flush, {name}", "join", lambda events=events: b"[" + b",".join(events) + b"]"),
            (f"per flush, {name}", "frame", lambda payload=payload: build_frame(payload, text=True)),
            (f"per flush, {name}", "transcode to MessagePack", lambda payload=payload: transcode(payload)),
            (
                f"per viewer, {name}",
                "encode with orjson, frame",
                lambda values=values: build_frame(orjson.dumps(values), text=True),
            ),
            (
                f"per viewer, {name}",
                "frame by the library",
                lambda payload=payload: Frame(Opcode.TEXT, payload).serialize(mask=False),
            ),
        ]
        ours = deflate(payload)
        if ours is not None:
            found.append(
                (
                    f"per flush, {name}",
                    f"deflate, as the engine does: {len(ours) / len(payload):.0%} of the bytes",
                    lambda payload=payload: deflate(payload),
                )
            )
        for level in (1, 6):
            found.append(
                (
                    f"per flush, {name}",
                    f"deflate, level {level}: {len(deflated(payload, level)) / len(payload):.0%} of the bytes",
                    lambda payload=payload, level=level: deflated(payload, level),
                )
            )
    return found


def least_us(step: Callable[[], Any], seconds: float) -> float:
    """Return what a call costs at least, in microseconds, from several tries of `seconds` together."""
    count = 1
    while True:
        took = _time(step, count)
        if took > seconds / TRIES / 2:
            break
        count *= 2
    return min(_time(step, count) for _ in range(TRIES)) / count * 1e6


def _time(step: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - began


def sharing(costs: dict[tuple[str, str], float]) -> list[list[str]]:
    """Return what sharing saves in a room of 2,000 viewers: deflating once, or for each."""
    rows = []
    for (when, what), cost in costs.items():
        if what.startswith("deflate"):
            rows.append([f"{what}; {when.partition(', ')[2]}", shown(cost / 2000, 4), shown(cost, 1)])
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.4, help="of each step")
    parser.add_argument("--save", metavar="NAME", help="keep the numbers as results/codec-NAME.{json,md}")
    options = parser.parse_args()
    found = record("codec")
    # There is nothing else to run: this process is the server.
    pin(os.getpid(), SERVER_CPU)
    costs: dict[tuple[str, str], float] = {}
    for when, what, step in steps():
        costs[when, what] = least_us(step, options.seconds)
        print(f"{when}: {what}: {costs[when, what]:.2f} us", file=sys.stderr, flush=True)
    rows = [[when, what, shown(cost)] for (when, what), cost in costs.items()]
    lines = [*heading("Codec", found), "", *table(["when", "step", "µs"], rows, left=2), ""]
    lines += ["Deflate in a room of 2,000 viewers, µs of CPU per viewer and flush:", ""]
    lines += table(["batch", "once, shared", "for each connection"], sharing(costs))
    said = "\n".join(lines) + "\n"
    print(said)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        found["us"] = [{"when": when, "step": what, "us": cost} for (when, what), cost in costs.items()]
        (RESULTS / f"codec-{options.save}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        (RESULTS / f"codec-{options.save}.md").write_text(said, "utf-8")


if __name__ == "__main__":
    main()
