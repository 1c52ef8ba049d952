"""
The crowd in Python, for machines without a C compiler.

Takes the same options and commands and gives the same answers as `crowd.c`, as benchmarks/crowd.py describes them. One
raw protocol per connection on uvloop, no tasks; several times heavier than the C one, so a busy load saturates it, as
its own CPU time in each answer shows. What it decides about deliveries is `Count`, which is pure.
"""

import asyncio
import json
import os
import re
import resource
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.figures import bucket_of
from loadtest.framing import OP_CLOSE, OP_PING, OP_PONG, OP_TEXT, FrameReader

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
JOINED_BINARY: Final = b"\x91\x82\xa2re\x01\xa2ok"
MARK: Final = re.compile(rb"~([0-9a-f]{8})([0-9a-f]{12})")
MARK_BYTES: Final = 21
REPLY: Final = re.compile(rb'\{"re":(\d+),"(ok|err)"')
_OP_BINARY: Final = 2


def now_us() -> int:
    """Return the clock that marks are made of."""
    return time.monotonic_ns() // 1000


def cpu_us() -> int:
    """Return the CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e6)


def mark(number: int, due_us: int, size: int) -> str:
    """Return the mark of an event, padded to `size`."""
    text = f"~{number:08x}{due_us:012x}"
    return text + "".join(chr(97 + (at * 7 + number) % 26) for at in range(len(text), size))


def frame_of(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame, masked with zeros."""
    if len(payload) < 126:
        return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload
    return bytes((0x80 | opcode, 0x80 | 126)) + len(payload).to_bytes(2, "big") + bytes(4) + payload


@dataclass(slots=True)
class Count:
    """What a run has seen, over all connections."""

    first: int = 0
    events: int = 0
    received: int = 0
    complete: int = 0
    gaps: int = 0
    repeats: int = 0
    late: int = 0
    frames: int = 0
    payload_bytes: int = 0
    delays: Counter[int] = field(default_factory=Counter)

    def take(self, seen: "Seen", payload: bytes, now: int) -> None:
        """Take the events of a frame that reached a connection."""
        here = 0
        for found in MARK.finditer(payload):
            number, due = int(found[1], 16), int(found[2], 16)
            if number < self.first:
                self.late += 1
            elif number < seen.next:
                self.repeats += 1
            else:
                self.gaps += number - seen.next
                seen.next = number + 1
                seen.got += 1
                here += 1
                self.delays[bucket_of(now - due)] += 1
                self.complete += seen.got == self.events
        if here:
            self.received += here
            self.frames += 1
            self.payload_bytes += len(payload)


@dataclass(slots=True)
class Seen:
    """What one connection has got of a run: the event that must come next, and how many came."""

    next: int = 0
    got: int = 0


class Connection(asyncio.Protocol):
    """One viewer, or one who writes."""

    def __init__(self, crowd: "SlowCrowd", number: int, due: int) -> None:
        self.crowd = crowd
        self.due = due
        self.publishes = number < crowd.publishers
        self.listens = crowd.publishers_listen or not self.publishes
        self.binary = bool(crowd.options["binary_subprotocol"]) and not self.publishes
        self.join = crowd.joins[number] if crowd.joins else ""
        self.seen = Seen()
        self.state = "shaking"
        self.head = b""
        self.reader = FrameReader()
        self.close_code = 0

    def connection_made(self, transport: Any) -> None:
        """Ask for the WebSocket."""
        self.transport = transport
        options = self.crowd.options
        path = options["publish_path"] if self.publishes and not self.listens else options["path"]
        spoken = options["binary_subprotocol"] if self.binary else options["subprotocol"]
        offered = f"Sec-WebSocket-Protocol: {spoken}\r\n" if spoken else ""
        transport.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        now = now_us()
        if self.state == "shaking":
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head:
                print(f"crowd: handshake refused: {head[:60]!r}", file=sys.stderr)
                self.transport.abort()
                return
            self._shaken(now)
        for message in self.reader.feed(data):
            self._take(message.opcode, message.payload, now)

    def _shaken(self, now: int) -> None:
        if self.crowd.mode == "plain":
            self.crowd.now_joined(self, now)
            return
        self.state = "joining"
        if self.crowd.mode == "liveroom":
            payload = bytes.fromhex(self.join) if self.binary else self.join.encode()
            self.transport.write(frame_of(_OP_BINARY if self.binary else OP_TEXT, payload))

    def _take(self, opcode: int, payload: bytes, now: int) -> None:
        crowd = self.crowd
        if opcode == OP_CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or 1005
            self.transport.abort()
        elif opcode == OP_PING:
            self.transport.write(frame_of(OP_PONG, payload))
        elif crowd.mode == "socketio" and payload == b"2":
            self.transport.write(frame_of(OP_TEXT, b"3"))
        elif self.state == "joining":
            self._take_answer(payload, now)
        elif opcode != OP_PONG:
            if self.publishes and payload.startswith(b'[{"re":'):
                crowd.take_replies(payload, now)
            if self.listens:
                crowd.count.take(self.seen, payload, now)

    def _take_answer(self, payload: bytes, now: int) -> None:
        if self.crowd.mode == "socketio":
            if payload.startswith(b"0"):
                self.transport.write(frame_of(OP_TEXT, b"40"))
            elif payload.startswith(b"40"):
                self.crowd.now_joined(self, now)
        elif payload.startswith(JOINED_BINARY if self.binary else b'[{"re":1,"ok"'):
            self.crowd.now_joined(self, now)
        else:
            print(f"crowd: refused: {payload[:300]!r}", file=sys.stderr)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the loss."""
        self.crowd.lost_one(self)


class SlowCrowd:
    """Every connection, and the run under way."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.mode = options["mode"]
        self.publishers = int(options["publishers"])
        self.publishers_listen = options["publishers_listen"] == "1"
        viewers = int(options["viewers"])
        self.total = viewers if self.publishers_listen else viewers + self.publishers
        self.joins = Path(options["joins"]).read_text("utf-8").splitlines() if options["joins"] else []
        self.opened = self.joined = self.lost = self.listeners = self.numbered = self.turn = 0
        self.last_close_code = 0
        self.template, self.event_bytes = "", 200
        self.connections: list[Connection] = []
        self.join_delays: Counter[int] = Counter()
        self.count = Count()
        self.start = self.replies = self.errors = 0
        self.interval_us = 0.0
        self.reply_delays: Counter[int] = Counter()
        self.changed = asyncio.Event()

    def now_joined(self, connection: Connection, now: int) -> None:
        """Note a connection that is ready."""
        connection.state = "joined"
        connection.seen = Seen(next=self.numbered)
        self.joined += 1
        self.listeners += connection.listens
        self.join_delays[bucket_of(now - connection.due)] += 1
        self.changed.set()

    def lost_one(self, connection: Connection) -> None:
        """Note a connection that is gone."""
        self.listeners -= connection.state == "joined" and connection.listens
        connection.state = "lost"
        self.last_close_code = connection.close_code or self.last_close_code
        self.lost += 1
        self.changed.set()

    def take_replies(self, payload: bytes, now: int) -> None:
        """Count answers to commands of this run."""
        for found in REPLY.finditer(payload):
            self.errors += found[2] == b"err"
            place = int(found[1]) - 1 - self.count.first
            if 0 <= place < self.count.events:
                self.replies += 1
                self.reply_delays[bucket_of(now - int(self.start + place * self.interval_us))] += 1

    async def open_more(self, wanted: int, per_s: float, at_once: int, patience_s: float) -> dict[str, Any]:
        """Open connections and wait for them."""
        loop = asyncio.get_running_loop()
        joined, lost = self.joined, self.lost
        self.join_delays = Counter()
        wanted = min(wanted, self.total - self.opened)
        began, cpu = now_us(), cpu_us()
        opening: set[asyncio.Task[None]] = set()
        place = 0
        while now_us() < began + patience_s * 1e6:
            done = self.joined - joined + self.lost - lost
            if done >= wanted:
                break
            now = now_us()
            due = int(began + place / per_s * 1e6) if per_s else now
            if place < wanted and due <= now and (per_s or place - done < at_once):
                task = loop.create_task(self._connect(self.opened, due))
                opening.add(task)
                task.add_done_callback(opening.discard)
                self.opened += 1
                place += 1
                continue
            self.changed.clear()
            try:
                async with asyncio.timeout(min(0.01, max(0.0, (due - now) / 1e6)) or 0.01):
                    await self.changed.wait()
            except TimeoutError:
                pass
        return {
            "joined": self.joined - joined,
            "failed": wanted - (self.joined - joined),
            "lost": self.lost - lost,
            "last_close_code": self.last_close_code,
            "wall_us": now_us() - began,
            "cpu_us": cpu_us() - cpu,
            "delays": sorted(self.join_delays.items()),
        }

    async def _connect(self, number: int, due: int) -> None:
        connection = Connection(self, number, due)
        self.connections.append(connection)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, "127.0.0.1", int(self.options["port"]), family=socket.AF_INET
            )
        except OSError:
            self.lost_one(connection)

    def publish(self, due: int) -> bool:
        """Send one event; return whether it could be."""
        number, self.numbered = self.numbered, self.numbered + 1
        text = self.template.replace("@", str(number + 1)).replace("#", mark(number, due, self.event_bytes))
        # Those who write were opened first.
        connection = self.connections[self.turn % self.publishers]
        self.turn += 1
        if connection.state != "joined":
            return False
        connection.transport.write(frame_of(OP_TEXT, text.encode()))
        return True

    async def run(self, per_s: float, events: int, grace_s: float) -> dict[str, Any]:
        """Publish and watch."""
        for connection in self.connections:
            connection.seen = Seen(next=self.numbered)
        count = self.count = Count(first=self.numbered, events=events)
        self.replies = self.errors = blocked = published = 0
        self.reply_delays = Counter()
        lags: Counter[int] = Counter()
        self.interval_us = 1e6 / per_s
        lost, cpu = self.lost, cpu_us()
        self.start = now_us() + 20_000
        until = self.start + events * self.interval_us + grace_s * 1e6
        while (now := now_us()) < until:
            while published < events and (due := int(self.start + published * self.interval_us)) <= now:
                blocked += not self.publish(due)
                lags[bucket_of(now_us() - due)] += 1
                published += 1
            answered = self.mode != "liveroom" or self.replies >= events - blocked
            if published == events and answered and count.complete >= self.listeners:
                break
            following = self.start + published * self.interval_us if published < events else now + 1000
            await asyncio.sleep(max(0.0, (following - now_us()) / 1e6))
        return {
            "events": events,
            "listeners": self.listeners,
            **{
                name: getattr(count, name)
                for name in ("received", "complete", "gaps", "repeats", "late", "frames")
            },
            "bytes": count.payload_bytes,
            "replies": self.replies,
            "errors": self.errors,
            "blocked": blocked,
            "lost": self.lost - lost,
            "last_close_code": self.last_close_code,
            "wall_us": now_us() - self.start,
            "cpu_us": cpu_us() - cpu,
            "delays": sorted(count.delays.items()),
            "lags": sorted(lags.items()),
            "reply_delays": sorted(self.reply_delays.items()),
        }

    async def obey(self, line: str) -> dict[str, Any]:
        """Carry out one command."""
        name, _, rest = line.rstrip("\n").partition(" ")
        if name == "open":
            count, per_s, at_once, patience_s = rest.split()
            return await self.open_more(int(count), float(per_s), int(at_once), float(patience_s))
        if name == "run":
            rate, events, grace_s = rest.split()
            return await self.run(float(rate), int(events), float(grace_s))
        if name == "template":
            self.template = rest
        elif name == "event_bytes":
            self.event_bytes = int(rest)
        else:
            raise ValueError(f"unknown command {line!r}")
        return {}


DEFAULTS: Final = {
    "port": "0",
    "mode": "plain",
    "viewers": "0",
    "publishers": "0",
    "publishers_listen": "0",
    "path": "/",
    "publish_path": "/",
    "subprotocol": "",
    "binary_subprotocol": "",
    "joins": "",
}


async def main() -> None:
    """Obey standard input until it closes."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = SlowCrowd({**DEFAULTS, **words})
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(0, "rb", closefd=False)
    )
    while line := await lines.readline():
        print(json.dumps(await crowd.obey(line.decode())), flush=True)
    for connection in crowd.connections:
        if connection.state != "lost" and hasattr(connection, "transport"):
            connection.transport.abort()


if __name__ == "__main__":
    uvloop.run(main())
