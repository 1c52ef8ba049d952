"""
What do handshakes, joins, idle viewers and commands cost the gateway, and what is left of it under stress?

Method: `liveroom serve --dev` with its private store, its CPU for itself (benchmarks/machine.py); crowds of
benchmarks/crowd.py on the other CPU. CPU is the server's from /proc; the store's is stated beside it. Parts:

- `join`: 10,000 viewers enter one room, 64 at a time, each with a token; before, 2,000 sockets that only shake hands.
  What a join costs is taken from the first 1,000, because everybody who is in is told of those who come, five times a
  second: that is fan-out, and dearer the fuller the room; what the others cost is stated beside it (`growing`). Memory
  is resident, above the server that has started and holds the open room but nobody.
- `inbound`: 500 joined connections give 2,000 commands a second in all, one kind after the other; delays from the
  intended moment to the reply. Comments: 20 connections of staff, 400 a second, since everybody hears them.
- `storm`: 5,000 viewers in a live room with 10 comments a second; then 5,000 more join within 10 s at intended
  moments, while the comments go on. A join's delay runs from its intended moment to its reply.
- `flush`: 10,000 viewers, 40 comments a second; of them 20 claim units of a seckill sale, 20 a second in all. Delays
  from the intended moment to the reply.
- `slow`: 2,000 viewers, 100 events a second; then 100 viewers more who never read, and the same again, with a fact a
  second. A few of the 100 look after themselves from time to time: the first that finds itself cut off makes all read
  what is left for them. Each must have been given facts only at some point (thinned), must have been closed with 4501
  (but probes that had read in time), and must have every fact after it resumes.
- `workers`: 2,000 viewers on one worker, then 3,600 in one room on two, each worker with a CPU. There are two CPUs
  only, so the second worker shares its own with the client and the store. What two workers carry is therefore also
  computed: twice what one carries, times how much less a frame to a viewer costs in CPU with one than with two. By the
  frame, because how many events share one is the cadence's answer to how busy a worker is.

    python -m benchmarks gateway --parts join,storm --save first
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import re
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import EngineRunning, Running, engine
from benchmarks.crowd import Crowd, CrowdFailed, Run, client_said, crowd
from benchmarks.figures import percentile_ms, shown, table, verdict
from benchmarks.machine import (
    OTHER_CPU,
    SERVER_CPU,
    cpu_us,
    heading,
    peak_kib,
    pin,
    record,
    resident_kib,
)
from loadtest.framing import OP_CLOSE, OP_TEXT, FrameReader

PARTS: Final = ("join", "inbound", "storm", "flush", "slow", "workers")
RESULTS: Final = Path(__file__).with_name("results")

JOINS: Final = 10_000
#: Joins that are counted as such; the room is still small.
EARLY_JOINS: Final = 1_000
HANDSHAKES: Final = 2_000
COMMANDERS: Final = 500
COMMANDS_PER_S: Final = 2_000.0
COMMAND_S: Final = 2.0
STORM_SEATED: Final = 5_000
STORM_JOINS: Final = 5_000
STORM_S: Final = 10.0
STORM_COMMENTS_PER_S: Final = 10.0
FLUSH_VIEWERS: Final = 10_000
FLUSH_PER_S: Final = 40.0
CLAIMERS: Final = 20
CLAIMS_PER_S: Final = 20.0
FLUSH_S: Final = 5.0
SLOW_VIEWERS: Final = 2_000
DEAF: Final = 100
#: Of the deaf, those that look up early.
PROBES: Final = 10
SLOW_PER_S: Final = 100.0
#: Text of the comments in `slow`: the longest allowed, so that the buffers of those who do not read fill sooner.
SLOW_TEXT: Final = 199
SLOW_S: Final = 24.0
#: When the first of the probes looks up: the buffers take some seconds to fill, and then it takes 10 more.
LOOK_AFTER_S: Final = 13.0
#: How long one that looks up reads, at most.
LOOK_S: Final = 4.0
#: Largest segment to those who do not read: Ethernet's.
SEGMENT_BYTES: Final = 1448
WORKER_VIEWERS: Final = 2_000
WORKERS_GAIN: Final = 1.8
WORKERS_PER_S: Final = 40.0
PATIENCE_S: Final = 60.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Figures:
    """What each part found, by name; and why a part found nothing."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def get(self, part: str, name: str) -> float | None:
        """Return a figure, None if it was not measured."""
        value = self.found.get(part, {}).get(name)
        return None if value is None else float(value)

    def as_json(self) -> dict[str, Any]:
        """Return everything for a file."""
        return {"found": self.found, "failed": self.failed}


@contextlib.contextmanager
def fresh(**options: Any) -> Iterator[EngineRunning]:
    """Run an engine of its own for a part, its data on a disk."""
    with (
        tempfile.TemporaryDirectory(prefix="liveroom-gateway-") as folder,
        engine(Path(folder), **options) as running,
    ):
        yield running


def settled(running: EngineRunning, room: str) -> Running:
    """Open a room and return how to enter it."""
    asyncio.run(running.open_room(room))
    return running.running(room)


# --- join -----------------------------------------------------------------------------------------------------


def join_part() -> dict[str, Any]:
    """Measure handshakes, joins and idle memory."""
    with fresh() as running:
        here = settled(running, "join-room")
        pids = running.pids
        empty = resident_kib(*pids)
        with crowd(running.port, mode="plain", viewers=HANDSHAKES, publishers=0, path="/ws") as shaking:
            before = cpu_us(*pids)
            shaking.open(HANDSHAKES).require_all()
            handshake_us = (cpu_us(*pids) - before) / HANDSHAKES
            shaken_kib = (resident_kib(*pids) - empty) / HANDSHAKES
        _until(lambda: _connections(running) == 0)
        with here.crowd(JOINS) as client:
            # The first of a room reads it from the store; those after find it in memory.
            client.open(1).require_all()
            before, store_before = cpu_us(*pids), cpu_us(running.store_pid)
            early = client.open(EARLY_JOINS).require_all()
            join_us = (cpu_us(*pids) - before) / EARLY_JOINS
            store_us = (cpu_us(running.store_pid) - store_before) / EARLY_JOINS
            before = cpu_us(*pids)
            opening = client.open(JOINS - 1 - EARLY_JOINS).require_all()
            growing_us = (cpu_us(*pids) - before) / opening.joined
            time.sleep(1.5)  # Idle means that nothing is left to do, the presence's beat included.
            idle_before, idle_began = cpu_us(*pids), time.monotonic()
            time.sleep(2.0)
            idle_us = (cpu_us(*pids) - idle_before) / (time.monotonic() - idle_began)
            idle_kib = (resident_kib(*pids) - empty) / JOINS
    return {
        "handshake_us": handshake_us,
        "handshake_kib": shaken_kib,
        "join_us": join_us,
        "join_store_us": store_us,
        "join_p99_ms": early.p_ms(99),
        "joins_per_s": early.joined / early.wall_us * 1e6,
        "join_growing_us": growing_us,
        "join_growing_p99_ms": opening.p_ms(99),
        "joins_growing_per_s": opening.joined / opening.wall_us * 1e6,
        "idle_kib": idle_kib,
        "idle_busy": idle_us / 1e6,
        "client_busy": opening.cpu_us / opening.wall_us,
    }


def _metrics(running: EngineRunning) -> str:
    with urllib.request.urlopen(f"{running.service.internal_url}/metrics", timeout=10) as response:
        return str(response.read().decode())


def _connections(running: EngineRunning) -> float:
    found = re.search(r"^liveroom_connections (\S+)$", _metrics(running), re.MULTILINE)
    return float(found[1]) if found else -1.0


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > until:
            raise CrowdFailed(f"what was waited for did not come within {PATIENCE_S:.0f} s")
        time.sleep(0.1)


# --- inbound --------------------------------------------------------------------------------------------------


def inbound_part() -> dict[str, Any]:
    """Measure commands of every kind that viewers send often."""
    found: dict[str, Any] = {}
    commands = {
        "ping": '{"cmd":"ping","id":@}',
        "like.send": '{"cmd":"like.send","id":@,"n":3,"batch":@}',
        "seckill.claim": '{"cmd":"seckill.claim","id":@,"key":"claim-key-@","sale":"sale1"}',
    }
    with fresh(settings={"LIVEROOM_LIKES_PER_S": "1000", "LIVEROOM_LIKES_BURST": "1000"}) as running:
        here = settled(running, "inbound-room")
        asyncio.run(_sell(running, "inbound-room"))
        with _commanding(running, "inbound-room", COMMANDERS, writers=0) as client:
            for name, template in commands.items():
                client.publish_as(template, 21)
                found[name] = _commands(client, running, COMMANDS_PER_S)
        with _commanding(running, "inbound-room", 20, writers=20) as client:
            client.publish_as(*here.templates["chat"])
            found["comment.send"] = _commands(client, running, 400.0)
    return found


@contextlib.contextmanager
def _commanding(running: EngineRunning, room: str, count: int, *, writers: int) -> Iterator[Crowd]:
    joins = running.joins(room, count, writers=writers, prefix="commander")
    with crowd(
        running.port,
        mode="liveroom",
        viewers=count,
        publishers=count,
        publishers_listen=True,
        path="/ws",
        joins=joins,
    ) as client:
        client.open(count).require_all()
        yield client


def _commands(client: Crowd, running: EngineRunning, per_s: float) -> dict[str, float]:
    client.run(per_s=per_s, events=int(per_s / 2))
    before, store_before = cpu_us(*running.pids), cpu_us(running.store_pid)
    run = client.run(per_s=per_s, events=int(per_s * COMMAND_S), grace_s=2.0)
    answered = max(run.replies, 1)
    return {
        "per_s": per_s,
        "answered": run.replies / run.events,
        "refused": run.errors,
        "server_us": (cpu_us(*running.pids) - before) / answered,
        "store_us": (cpu_us(running.store_pid) - store_before) / answered,
        "p50_ms": percentile_ms(run.reply_delays, 50),
        "p99_ms": percentile_ms(run.reply_delays, 99),
        "client_busy": run.busy,
    }


async def _sell(running: EngineRunning, room: str) -> None:
    """Open a sale that nobody empties."""
    now = int(time.time() * 1000)
    item = {"cmd": "item.put", "key": "put-item-1", "item": "bowl", "title": "Bowl", "price_cents": 100}
    sale = {
        "cmd": "seckill.schedule", "key": "schedule-1", "sale": "sale1", "item": "bowl", "price_cents": 100,
        "stock": 1_000_000, "per_viewer": 1_000, "starts_at": now, "ends_at": now + 3_600_000, "hold_s": 3_600,
    }  # fmt: skip
    async with running.api() as api:
        await api.command(room, item)
        await api.command(room, sale)


# --- storm ----------------------------------------------------------------------------------------------------


def storm_part() -> dict[str, Any]:
    """Measure 5,000 joins in 10 s into a live room."""
    room = "storm-room"
    with fresh() as running:
        here = settled(running, room)
        with here.crowd(STORM_SEATED) as seated:
            seated.open(STORM_SEATED).require_all()
            seated.publish_as(*here.templates["chat"])
            before = seated.run(per_s=STORM_COMMENTS_PER_S, events=int(STORM_COMMENTS_PER_S * 5), grace_s=2.0)
            joins = running.joins(room, STORM_JOINS, writers=0, prefix="late")
            with crowd(
                running.port, mode="liveroom", viewers=STORM_JOINS, publishers=0, path="/ws", joins=joins
            ) as late:
                cpu_before = cpu_us(*running.pids)
                seated.begin_run(
                    per_s=STORM_COMMENTS_PER_S, events=int(STORM_COMMENTS_PER_S * STORM_S), grace_s=2.0
                )
                late.begin_open(STORM_JOINS, per_s=STORM_JOINS / STORM_S)
                meanwhile = seated.finish_run()
                opening = late.finish_open()
                busy = (cpu_us(*running.pids) - cpu_before) / meanwhile.wall_us
    return {
        "joined": opening.joined,
        "failed": opening.failed,
        "join_p50_ms": opening.p_ms(50),
        "join_p99_ms": opening.p_ms(99),
        "comments_p99_before_ms": before.p_ms(99),
        "comments_p99_meanwhile_ms": meanwhile.p_ms(99),
        "comments_p99_ratio": meanwhile.p_ms(99) / before.p_ms(99) if before.p_ms(99) else None,
        "comments_whole": before.whole and meanwhile.whole,
        "server_busy": busy,
        "client_busy": meanwhile.busy + opening.cpu_us / opening.wall_us,
    }


# --- flush ----------------------------------------------------------------------------------------------------


def flush_part() -> dict[str, Any]:
    """Measure replies while a huge room is written to."""
    room = "flush-room"
    with fresh() as running:
        here = settled(running, room)
        asyncio.run(_sell(running, room))
        with (
            here.crowd(FLUSH_VIEWERS - CLAIMERS) as viewers,
            _commanding(running, room, CLAIMERS, writers=0) as claimers,
        ):
            viewers.open(FLUSH_VIEWERS - CLAIMERS).require_all()
            viewers.publish_as(*here.templates["chat"])
            claimers.publish_as('{"cmd":"seckill.claim","id":@,"key":"claim-key-@","sale":"sale1"}', 21)
            viewers.run(per_s=FLUSH_PER_S, events=int(FLUSH_PER_S))
            claimers.run(per_s=CLAIMS_PER_S, events=int(CLAIMS_PER_S))
            before = cpu_us(*running.pids)
            viewers.begin_run(per_s=FLUSH_PER_S, events=int(FLUSH_PER_S * FLUSH_S))
            claimers.begin_run(per_s=CLAIMS_PER_S, events=int(CLAIMS_PER_S * (FLUSH_S - 0.5)))
            claims = claimers.finish_run()
            comments = viewers.finish_run()
            busy = (cpu_us(*running.pids) - before) / comments.wall_us
    return {
        "claims": claims.replies,
        "claims_refused": claims.errors,
        "claim_p50_ms": percentile_ms(claims.reply_delays, 50),
        "claim_p99_ms": percentile_ms(claims.reply_delays, 99),
        "comments": comments.replies,
        "comment_p50_ms": percentile_ms(comments.reply_delays, 50),
        "comment_p99_ms": percentile_ms(comments.reply_delays, 99),
        "delivered": comments.delivered,
        "delivery_p99_ms": comments.p_ms(99),
        "server_busy": busy,
        "client_lag_p99_ms": percentile_ms(comments.lags, 99),
    }


# --- slow -----------------------------------------------------------------------------------------------------


class Deaf:
    """A viewer who joins and then never reads, until it is time to see what became of it."""

    def __init__(self, running: EngineRunning, room: str, viewer: str) -> None:
        self._running = running
        self._room = room
        self.viewer = viewer
        self.epoch = ""
        #: `seq` of the facts it has, the first after its join.
        self.facts: list[int] = []
        self.joined_seq = 0
        self.chat = 0
        #: Facts it was sent since the last comment, before it was closed.
        self.facts_after_chat = 0
        self.close_code: int | None = None
        self._enter(None)

    def _enter(self, resume: tuple[str, int] | None) -> None:
        self._socket = socket.socket()
        # Little room at this end, so that what is unread lies with the server; segments as on a real network, because
        # with loopback's of 64 KiB the kernel would hold megabytes for each.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", self._running.port))
        self._reader = FrameReader()
        self._socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self._socket.recv(1)
            if not piece:
                raise CrowdFailed("a connection ended in its handshake")
            head += piece
        join = json.loads(self._running.join(self._room, self.viewer))
        if resume is not None:
            join["resume"] = {"epoch": resume[0], "seq": resume[1]}
        text = json.dumps(join).encode()
        self._socket.sendall(b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text)
        self._answered = False
        while not self._answered:
            self._take(self._socket.recv(65536))

    def _take(self, data: bytes) -> bool:
        """Take what was read; return whether the connection goes on."""
        if not data:
            return False
        for message in self._reader.feed(data):
            if message.opcode == OP_CLOSE:
                self.close_code = int.from_bytes(message.payload[:2], "big")
                return False
            if message.opcode == OP_TEXT:
                for each in json.loads(message.payload):
                    self._message(each)
        return True

    def _message(self, message: dict[str, Any]) -> None:
        if "ok" in message:
            self._answered = True
            if not self.epoch:
                self.joined_seq = message["ok"]["seq"]
            elif not message["ok"]["resumed"]:
                raise CrowdFailed("a resume was answered with a snapshot")
            self.epoch = message["ok"]["epoch"]
            self.facts += [fact["seq"] for fact in message["ok"]["missed"]]
        elif "err" in message:
            raise CrowdFailed(f"a deaf viewer was refused: {message}")
        elif "seq" in message:
            self.facts.append(message["seq"])
            self.facts_after_chat += self.close_code is None
        elif message["ev"] == "comment":
            self.chat += 1
            self.facts_after_chat = 0

    def read_on(self) -> None:
        """Read what is left, until the connection ends; one that was not cut off goes on, and is left after a while."""
        until = time.monotonic() + LOOK_S
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.settimeout(LOOK_S)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while time.monotonic() < until and self._take(self._socket.recv(1 << 20)):
                pass

    def come_back(self) -> None:
        """Resume where it was left."""
        self._socket.close()
        self._enter((self.epoch, self.facts[-1] if self.facts else self.joined_seq))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def slow_part() -> dict[str, Any]:
    """Measure what viewers who never read do to the others, and what is done to them."""
    room = "slow-room"
    with fresh() as running:
        here = settled(running, room)
        with here.crowd(SLOW_VIEWERS) as client:
            client.open(SLOW_VIEWERS).require_all()
            client.publish_as(here.templates["chat"][0], SLOW_TEXT)
            client.run(per_s=SLOW_PER_S, events=int(SLOW_PER_S))
            before = client.run(per_s=SLOW_PER_S, events=int(SLOW_PER_S * 6))
            memory_before = resident_kib(*running.pids)
            deaf = [Deaf(running, room, f"deaf{number}") for number in range(DEAF)]
            began = time.monotonic()
            client.begin_run(per_s=SLOW_PER_S, events=int(SLOW_PER_S * SLOW_S))
            looked_up_after_s = asyncio.run(_wait_for_cut(running, room, deaf, began))
            memory_peak = peak_kib(*running.pids)
            meanwhile = client.finish_run()
        last = _last_fact(running, room)
        slow = [each for each in deaf if each.close_code is not None or each not in deaf[:PROBES]]
        for each in deaf:
            each.come_back()
            each.close()
    complete = sum(each.facts == list(range(each.joined_seq + 1, last + 1)) for each in deaf)
    return {
        "deaf": DEAF,
        "others_p99_before_ms": before.p_ms(99),
        "others_p99_meanwhile_ms": meanwhile.p_ms(99),
        "others_p99_ratio": meanwhile.p_ms(99) / before.p_ms(99) if before.p_ms(99) else None,
        "others_whole": before.whole and meanwhile.whole,
        "memory_rise_mib": max(0, memory_peak - memory_before) / 1024,
        # Probes that looked up before they were cut off were slow no longer.
        "stayed_deaf": len(slow),
        # Facts went on when chat did not: the newest fact they were sent is younger than the newest comment.
        "thinned": sum(each.facts_after_chat > 0 for each in slow),
        "cut_4501": sum(each.close_code == 4501 for each in slow),
        "looked_up_after_s": looked_up_after_s,
        "complete_after_resume": complete,
        "facts": last,
    }


async def _wait_for_cut(running: EngineRunning, room: str, deaf: list[Deaf], began: float) -> float:
    """
    State a fact a second until the deaf are cut off, then have all of them read what is left for them.

    Returns:
        Seconds from `began` until all were made to read.
    """
    probes, others = deaf[:PROBES], deaf[PROBES:]
    looks: list[asyncio.Task[None]] = []
    number = 0
    async with running.api() as api:
        while time.monotonic() - began < SLOW_S and not any(each.close_code for each in deaf):
            number += 1
            text = f"Notice {number}: " + "x" * 200
            await api.command(room, {"cmd": "notice.set", "key": f"notice-{number:04}", "text": text})
            await asyncio.sleep(1.0)
            if time.monotonic() - began > LOOK_AFTER_S and probes:
                looks.append(asyncio.create_task(asyncio.to_thread(probes.pop(0).read_on)))
    looked_up_after_s = time.monotonic() - began
    # At the same time: a connection is dropped 5 s after it was told to close.
    with concurrent.futures.ThreadPoolExecutor(DEAF) as threads:
        list(threads.map(Deaf.read_on, [*probes, *others]))
    await asyncio.gather(*looks)
    return looked_up_after_s


def _last_fact(running: EngineRunning, room: str) -> int:
    async def read() -> int:
        async with running.api() as api:
            return max(int(event["seq"]) for event in await api.events(room))

    return asyncio.run(read())


# --- workers --------------------------------------------------------------------------------------------------


def workers_part() -> dict[str, Any]:
    """Compare one worker with two."""
    room = "workers-room"
    with fresh() as running:
        here = settled(running, room)
        one, one_us = _worker_run(here, here.pids, WORKER_VIEWERS)
    with two_workers() as running:
        here = settled(running, room)
        workers = [pid for pid in running.pids if pid != running.service.process.pid]
        here.pids = workers
        two, two_us = _worker_run(here, workers, int(WORKER_VIEWERS * WORKERS_GAIN))
    return {
        "one_viewers": one.listeners,
        "two_viewers": two.listeners,
        "one_us_per_event": one_us,
        "two_us_per_event": two_us,
        "one_p99_ms": one.p_ms(99),
        "two_p99_ms": two.p_ms(99),
        "p99_ratio": two.p_ms(99) / one.p_ms(99) if one.p_ms(99) else None,
        "whole": one.whole and two.whole,
        "one_events_per_frame": one.events_per_frame,
        "two_events_per_frame": two.events_per_frame,
        "computed_gain": 2 * (one_us * one.events_per_frame) / (two_us * two.events_per_frame),
        "client_busy": two.busy,
    }


def _worker_run(here: Running, pids: list[int], viewers: int) -> tuple[Run, float]:
    with here.crowd(viewers) as client:
        client.open(viewers).require_all()
        client.publish_as(*here.templates["chat"])
        client.run(per_s=WORKERS_PER_S, events=int(WORKERS_PER_S))
        before = cpu_us(*pids)
        run = client.run(per_s=WORKERS_PER_S, events=int(WORKERS_PER_S * 5))
        if not run.received:
            raise CrowdFailed("nothing arrived")
        return run, (cpu_us(*pids) - before) / run.received


@contextlib.contextmanager
def two_workers() -> Iterator[EngineRunning]:
    """Run `liveroom serve --workers 2`, one worker on each CPU."""
    with fresh(arguments=("--workers", "2"), cpus=tuple({SERVER_CPU, OTHER_CPU})) as running:
        workers = [pid for pid in running.pids if pid != running.service.process.pid]
        for pid, cpu in zip(workers, (SERVER_CPU, OTHER_CPU), strict=True):
            pin(pid, cpu)
        yield running


# --- the run --------------------------------------------------------------------------------------------------

MEASURES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "join": join_part,
    "inbound": inbound_part,
    "storm": storm_part,
    "flush": flush_part,
    "slow": slow_part,
    "workers": workers_part,
}


def measure_parts(parts: list[str], figures: Figures, say: Say, *, until: float | None = None) -> None:
    """Measure the parts in turn, none begun after `until`; one that fails is noted and does not stop the others."""
    for part in parts:
        began = time.monotonic()
        if until is not None and began > until:
            figures.failed[part] = "no time was left"
            continue
        try:
            figures.found[part] = MEASURES[part]()
        except (
            Exception
        ) as failure:  # A store that stood still, a server that ended: whatever it was, it is said.
            figures.failed[part] = f"{type(failure).__name__}: {failure}"[:300]
        said = figures.failed.get(part) or figures.found[part]
        say(f"gateway {part} ({time.monotonic() - began:.0f} s): {said}")


def gateway_verdicts(figures: Figures) -> list[tuple[str, str, str, str]]:
    """Judge what was measured; parts that were not asked for are left out."""
    lines = []
    asked = {*figures.found, *figures.failed}
    if "join" in asked:
        lines.append(
            verdict(f"{JOINS:,} idle joined viewers, each", figures.get("join", "idle_kib"), 10, " KiB")
        )
        lines.append(verdict("join, server CPU", figures.get("join", "join_us"), 400, " µs", digits=0))
    if "storm" in asked:
        what = f"{STORM_JOINS:,} joins in {STORM_S:g} s"
        lines.append(verdict(f"{what}: failed", figures.get("storm", "failed"), 0, digits=0))
        lines.append(verdict(f"{what}: join p99", figures.get("storm", "join_p99_ms"), 1500, " ms", digits=0))
        lines.append(
            verdict(f"{what}: comments' p99 ÷ before", figures.get("storm", "comments_p99_ratio"), 2, " ×")
        )
    if "flush" in asked:
        what = f"during {FLUSH_VIEWERS:,}-viewer flushes, p99 of"
        lines.append(
            verdict(f"{what} seckill.claim", figures.get("flush", "claim_p99_ms"), 60, " ms", digits=0)
        )
        lines.append(
            verdict(f"{what} comment.send", figures.get("flush", "comment_p99_ms"), 60, " ms", digits=0)
        )
    if "slow" in asked:
        what = f"{DEAF} of {SLOW_VIEWERS:,} never read:"
        lines.append(
            verdict(f"{what} others' p99 ÷ before", figures.get("slow", "others_p99_ratio"), 1.5, " ×")
        )
        lines.append(
            verdict(f"{what} memory rise", figures.get("slow", "memory_rise_mib"), 100, " MiB", digits=0)
        )
        slow = figures.get("slow", "stayed_deaf")
        for name, said in (("thinned", "thinned"), ("cut_4501", "cut with 4501")):
            value = figures.get("slow", name)
            share = None if value is None or not slow else 100 * value / slow
            lines.append(verdict(f"{what} {said}", share, 100, " %", least=True, digits=0))
        lines.append(
            verdict(
                f"{what} with every fact after resuming",
                figures.get("slow", "complete_after_resume"),
                DEAF,
                least=True,
                digits=0,
            )
        )
    if "workers" in asked:
        lines.append(
            verdict(
                "two workers ÷ one, viewers (computed from CPU per frame)",
                figures.get("workers", "computed_gain"),
                WORKERS_GAIN,
                " ×",
                least=True,
            )
        )
        lines.append(
            verdict(
                f"two workers with {WORKERS_GAIN:g} × the viewers: p99 ÷ one's",
                figures.get("workers", "p99_ratio"),
                1.0,
                " ×",
            )
        )
    return lines


def gateway_table(figures: Figures) -> list[str]:
    """Return everything that was found, as tables."""
    lines: list[str] = []
    for part in PARTS:
        if part in figures.failed:
            lines += [f"## {part}", "", f"not measured: {figures.failed[part]}", ""]
        if part not in figures.found:
            continue
        found = figures.found[part]
        if part == "inbound":
            rows = [
                [
                    name,
                    shown(each["per_s"], 0),
                    f"{each['answered']:.1%}",
                    shown(each["refused"], 0),
                    shown(each["server_us"], 1),
                    shown(each["store_us"], 1),
                    shown(each["p50_ms"], 1),
                    shown(each["p99_ms"], 1),
                ]
                for name, each in found.items()
            ]
            columns = ["command", "a second", "answered", "refused", "server µs each", "store µs each"]
            lines += [f"## {part}", "", *table([*columns, "p50 ms", "p99 ms"], rows), ""]
        else:
            rows = [[name, _cell(value)] for name, value in found.items()]
            lines += [f"## {part}", "", *table(["figure", "value"], rows), ""]
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return shown(float(value), 0 if isinstance(value, int) else 2)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--save", metavar="NAME", help="keep the numbers as results/gateway-NAME.{json,md}")
    options = parser.parse_args()
    found = record("gateway")
    found["client"] = client_said()
    figures = Figures()
    measure_parts(options.parts.split(","), figures, lambda text: print(text, file=sys.stderr, flush=True))
    lines = [*heading("Gateway", found), f"- client: {found['client']}", ""]
    judged = gateway_verdicts(figures)
    if judged:
        lines += ["## Verdict", "", *table(["what", "asked", "measured", "verdict"], judged), ""]
    said = "\n".join([*lines, *gateway_table(figures)]) + "\n"
    print(said)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        found |= figures.as_json()
        (RESULTS / f"gateway-{options.save}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        (RESULTS / f"gateway-{options.save}.md").write_text(said, "utf-8")


if __name__ == "__main__":
    main()
