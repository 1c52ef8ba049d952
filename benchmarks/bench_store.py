"""
How many steps a second does the store take, what does each cost, and how do batches grow?

Method: a private Valkey as the engine starts it, `engine.store.store.Store` in this process, as in a worker: so many
calls are kept under way, each answered one replaced by the next. One call under way shows the round trip; more show
what batching makes of it: calls that wait while a flight is under way leave together, merged into one function call
where the step allows it (joins, comments, claims, grabs), else as a pipeline. Every answer is checked. With
`appendfsync everysec`, so that the disk is not what is measured, and with `always`, the default, for what it adds.

CPU is user + system time per call, of this process (the worker's part) and of the store. The caller has the first CPU,
the store the second.

    python -m benchmarks store --under-way 1,64,1000 --save first
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from benchmarks.figures import shown, table
from benchmarks.machine import OTHER_CPU, SERVER_CPU, cpu_us, heading, pin, record
from engine.clock import StoreClock
from engine.gateway.console import Actor, Console
from engine.rooms.words import WordFilter
from engine.store.embedded import EmbeddedStore, find_servers
from engine.store.keys import RoomKey, RoomKeys
from engine.store.replies import LikesAnswer
from engine.store.store import Store
from engine.timers import Timers
from protocol.codes import Role
from protocol.commands import parse

UNDER_WAY: Final = (1, 16, 64, 256, 1_000)
MODES: Final = ("everysec", "always")
#: Calls of one measurement at most, and what it may take (seconds).
CALLS_MAX: Final = 20_000
SECONDS: Final = 1.0
TENANT: Final = "bench"
WORKER: Final = "worker0"
#: 16 characters that say what was asked; any will do.
DIGEST: Final = "0123456789abcdef"
SENDER: Final = b'{"id":"v0","name":"v0","role":"viewer"}'
OWNER: Final = Actor("owner", int(Role.OWNER))
PATIENCE_S: Final = 60.0
RESULTS: Final = Path(__file__).with_name("results")

#: Called with the code of the answer, "ok" when it is one.
Answered = Callable[[str], None]
#: Make the call with this number.
Ask = Callable[[int, Answered], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One step with so many calls under way, once."""

    step: str
    appendfsync: str
    under_way: int
    calls: int
    seconds: float
    #: Function calls of the store, flights, and flights of more than one call.
    calls_per_flight: float
    caller_us: float
    store_us: float
    codes: dict[str, int]


def plain(answered: Answered) -> Callable[[Any], None]:
    """Return what takes the answer of a step that answers bytes or a refusal."""
    return lambda answer: answered("ok" if isinstance(answer, bytes) else repr(answer))


def coded(answered: Answered) -> Callable[[Any, Any, Exception | None], None]:
    """Return what takes the answer of a step that answers a header and a reply."""

    def done(header: Any, own: Any, error: Exception | None) -> None:
        answered(own[0].decode() if error is None else repr(error))

    return done


def steps(store: Store, console: Console, room: RoomKey, salt: str) -> dict[str, Ask]:
    """Return every step that is measured, by name. `salt` makes the keys of a measurement its own."""
    names = RoomKeys(room)

    def comment(number: int, answered: Answered) -> None:
        body = b'"from":' + SENDER + b',"text":"' + b"x" * 100 + b'"'
        key = f"{salt}-{number:08}"
        viewer = f"v{number % 1000}"
        store.post_comment(names, viewer, int(Role.MODERATOR), key, DIGEST, body, 1, 1, plain(answered))

    def join(number: int, answered: Answered) -> None:
        viewer = f"{salt}-{number}"
        store.join(
            names, WORKER, viewer, number, int(Role.VIEWER), "unknown", b'"v"', SENDER, "", "", "-", coded(answered)
        )  # fmt: skip

    def likes(number: int, answered: Answered) -> None:
        def done(answer: LikesAnswer) -> None:
            answered("ok" if isinstance(answer, tuple) and not answer[1] else repr(answer))

        # A worker of its own for each measurement, because a flush number counts once; one viewer in each flush.
        store.add_likes(names, salt, number + 1, 0, [(f"{salt}-{number}", 3)], 200, 1_800, done)

    def claim(number: int, answered: Answered) -> None:
        store.claim(
            names, "sale1", f"v{number % 1000}", 1, f"{salt}-{number:08}", DIGEST, 0, ",", coded(answered)
        )

    def sold_out(number: int, answered: Answered) -> None:
        def done(header: Any, own: Any, error: Exception | None) -> None:
            wanted = error is None and own[0] == b"sold_out"
            answered("ok" if wanted else repr(error) if error else own[0].decode())

        # Keys are of a viewer, whatever the sale: with those of `claim` its orders would come back.
        store.claim(names, "sale2", f"v{number % 1000}", 1, f"out-{salt}-{number:08}", DIGEST, 0, ",", done)

    def notice(number: int, answered: Answered) -> None:
        command = parse({"cmd": "notice.set", "key": f"{salt}-{number:08}", "text": "Notice"})
        console.run(room, command, OWNER, plain(answered))

    return {
        "room_join": join,
        "comment_post": comment,
        "likes_add": likes,
        "seckill_claim, won": claim,
        "seckill_claim, sold out": sold_out,
        "notice_set (a fact)": notice,
    }


async def take(
    store: Store, store_pid: int, name: str, ask: Ask, *, mode: str, under_way: int, seconds: float
) -> Sample:
    """Keep `under_way` calls going for so long, and return what they cost."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    codes: Counter[str] = Counter()
    number, open_calls = 0, under_way
    until = loop.time() + seconds

    def next_call() -> None:
        nonlocal number
        number += 1
        ask(number - 1, answered)

    def answered(code: str) -> None:
        nonlocal open_calls
        codes[code] += 1
        if number < CALLS_MAX and loop.time() < until:
            # Not from inside the answer: those of a flight are given out in one go, as connections' commands come in.
            loop.call_soon(next_call)
            return
        open_calls -= 1
        if open_calls == 0:
            finished.set_result(None)

    before, store_before, flights = cpu_us(os.getpid()), cpu_us(store_pid), store.flights
    began = time.perf_counter()
    for _ in range(under_way):
        next_call()
    async with asyncio.timeout(PATIENCE_S):
        await finished
    took = time.perf_counter() - began
    return Sample(
        step=name,
        appendfsync=mode,
        under_way=under_way,
        calls=number,
        seconds=took,
        calls_per_flight=number / max(1, store.flights - flights),
        caller_us=(cpu_us(os.getpid()) - before) / number,
        store_us=(cpu_us(store_pid) - store_before) / number,
        codes=dict(codes),
    )


async def set_up(store: Store, room: RoomKey) -> Console:
    """Make a live room with two sales, one that nobody empties and one that is empty; return who commands it."""
    names = RoomKeys(room)
    await store.put_room(room, b'"title":"Benchmark"', slow_ms=0, facts_kept_ms=86_400_000)
    timers = Timers(store, streamer_grace_ms=0, paused_close_ms=0)
    console = Console(store, WordFilter([]), timers)
    now = int(time.time() * 1000)
    commands: list[dict[str, Any]] = [
        {"cmd": "room.open", "key": "room-open-1"},
        {"cmd": "item.put", "key": "item-put-1", "item": "bowl", "title": "Bowl", "price_cents": 100},
    ]
    for sale, stock in (("sale1", 1_000_000_000), ("sale2", 1)):
        commands.append(
            {
                "cmd": "seckill.schedule", "key": f"schedule-{sale}", "sale": sale, "item": "bowl",
                "price_cents": 100, "stock": stock, "per_viewer": 1_000, "starts_at": now,
                "ends_at": now + 3_600_000, "hold_s": 3_600,
            }
        )  # fmt: skip
    for command in commands:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        console.run(room, parse(command), OWNER, done.set_result)
        answer = await done
        assert isinstance(answer, bytes), answer
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    store.claim(names, "sale2", "early", 1, "claim-early", DIGEST, 0, ",", coded(first.set_result))
    assert await first == "ok"
    return console


async def measure(options: argparse.Namespace, say: Callable[[Sample], None]) -> list[Sample]:
    """Take every step, number of calls and mode in turn."""
    samples: list[Sample] = []
    pin(os.getpid(), SERVER_CPU)
    with tempfile.TemporaryDirectory(prefix="liveroom-store-") as folder:
        embedded = EmbeddedStore(Path(folder), appendfsync="everysec")
        url = await embedded.start()
        try:
            [server] = [found for found in find_servers(Path(folder)) if not found.is_fork]
            pin(server.pid, OTHER_CPU)
            store = Store(url, StoreClock())
            await store.start()
            try:
                room = RoomKey(TENANT, "bench-room")
                console = await set_up(store, room)
                async with Redis.from_url(url) as admin:
                    for mode in options.modes.split(","):
                        await admin.config_set("appendfsync", mode)
                        for under_way in map(int, options.under_way.split(",")):
                            salt = f"{mode}{under_way}"
                            for name, ask in steps(store, console, room, salt).items():
                                sample = await take(
                                    store, server.pid, name, ask,
                                    mode=mode, under_way=under_way, seconds=options.seconds,
                                )  # fmt: skip
                                samples.append(sample)
                                say(sample)
            finally:
                await store.stop()
        finally:
            await embedded.stop()
    return samples


def report(found: dict[str, Any], samples: list[Sample]) -> str:
    """Return the record in Markdown."""
    rows = [
        [
            sample.step,
            sample.appendfsync,
            f"{sample.under_way:,}",
            shown(sample.calls / sample.seconds, 0),
            shown(sample.under_way / (sample.calls / sample.seconds) * 1000, 1),
            shown(sample.calls_per_flight, 1),
            shown(sample.caller_us, 1),
            shown(sample.store_us, 1),
            ", ".join(f"{code} {count}" for code, count in sample.codes.items() if code != "ok") or "none",
        ]
        for sample in sorted(samples, key=lambda each: (each.step, each.appendfsync, each.under_way))
    ]
    columns = ["step", "appendfsync", "under way", "calls/s", "mean wait ms", "calls per flight"]
    columns += ["caller µs each", "store µs each", "other answers"]
    return "\n".join([*heading("Store", found), "", *table(columns, rows, left=2)]) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--under-way", default=",".join(map(str, UNDER_WAY)))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--save", metavar="NAME", help="keep the numbers as results/store-NAME.{json,md}")
    options = parser.parse_args()
    found = record("store")

    def say(sample: Sample) -> None:
        rate = sample.calls / sample.seconds
        text = f"{sample.appendfsync} {sample.step} x{sample.under_way}: {rate:,.0f}/s, "
        text += f"{sample.calls_per_flight:.1f} per flight, {sample.caller_us:.1f} + {sample.store_us:.1f} us"
        print(text, file=sys.stderr, flush=True)

    samples = uvloop.run(measure(options, say))
    said = report(found, samples)
    print(said)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        found["samples"] = [asdict(sample) for sample in samples]
        (RESULTS / f"store-{options.save}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        (RESULTS / f"store-{options.save}.md").write_text(said, "utf-8")


if __name__ == "__main__":
    main()
