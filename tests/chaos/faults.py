"""
What can go wrong, one entry each.

Decides what is done to the site, how hard and for how long, and in which layout. The moment is the script's, chance is
the trial's, so a seed repeats both. What must hold afterwards is the same for all and stands in `trial.py`; an entry
only says which of it the fault makes impossible, such as facts that an older copy of the store no longer has.

Where a machine does not allow a fault as it should be (namespaces, mounts, a library that shifts clocks), another way
is taken and noted in the table.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import aiohttp

from tests.chaos.customers import Doubles, Shufflers, SlowReaders, Talker
from tests.chaos.script import Shape
from tests.chaos.site import Layout
from tests.chaos.trial import Fault, Trial, until
from tests.support.client import Client, Closed, Merchant, Refused
from tests.support.service import DEMO_KEY
from tests.support.store_wire import Point

#: The crowd that a kill -9 is shown with.
MANY: Final = 2_000
#: The claim at which a point of it is struck: one of the first this many after the moment.
CLAIMS_MAX: Final = 12
#: What a caller is told at the latest without a store: the engine's 0.9 s, and the way there and back (seconds).
ANSWER_S_MAX: Final = 1.5
#: For how long stores are full and wires are silent (seconds).
FULL_S: Final = 3.0
SILENT_S: Final = 5.0
#: How many bytes the end of the append-only file may lose.
CUT_BYTES: Final = (1, 20_000)
#: The beginning of a command, right as far as it goes: wherever it ends, something is missing.
TORN: Final = b"*4\r\n$7\r\nHINCRBY\r\n$10\r\nlr:{a/b}:m"
#: The disk that is filled: some times what a trial writes (bytes).
DISK_BYTES: Final = 24 << 20
CLOCK_OFF_S: Final = 3_600
_SHIFTED: Final = Path(__file__).with_name("shifted_clock")
_LONG_HOLD: Final = 600
#: How long slow readers do not read, and in which time of that everything is said (seconds); beyond 10 s they are cut
#: off.
NAP_S: Final = 14.0
TALK_S: Final = 6.0
#: All that is said is shown, however fast.
_NO_RATES: Final = {
    "LIVEROOM_CHAT_PER_S_MAX": "0",
    "LIVEROOM_COMMANDS_PER_S": "100000",
    "LIVEROOM_COMMANDS_BURST": "100000",
}


# --- kill -9 ----------------------------------------------------------------------------------------------------


async def _kill_server(trial: Trial) -> None:
    trial.site.kill(trial.site.nodes[0].pid)


async def _kill_worker(trial: Trial) -> None:
    pids = trial.site.nodes[0].worker_pids()
    trial.site.kill(trial.rng.choice(pids))


async def _kill_store(trial: Trial) -> None:
    trial.site.kill(trial.site.store_pid())


def _kill_primary(frozen_s: float) -> Callable[[Trial], Awaitable[None]]:
    """Return what kills the room's primary, after having frozen it for a moment; its init system brings it back."""

    async def strike(trial: Trial) -> None:
        primary = trial.site.primary_of(trial.room.room)
        replica = trial.site.replica_of(primary)
        if frozen_s:
            # What was sent to it meanwhile dies with it unread.
            trial.site.freeze(primary.process.pid)
            await asyncio.sleep(frozen_s)
        trial.begins()
        primary.kill()

        async def promoted() -> bool:
            return await asyncio.to_thread(replica.is_primary)

        promoted_s = await until(promoted)
        primary.start()
        trial.notes.append(f"replica promoted after {promoted_s:.1f} s")

    return strike


def _at_a_claim(victim: str, point: Point) -> Callable[[Trial], Awaitable[None]]:
    """Return what kills `victim` when a claim is at `point`."""

    async def strike(trial: Trial) -> None:
        site, number = trial.site, trial.rng.randint(1, CLAIMS_MAX)
        assert site.wire is not None

        def blow(engine_pid: int) -> None:
            trial.begins()
            site.kill(site.store_pid() if victim == "store" else engine_pid)

        site.wire.strike(point, number, blow)
        async with asyncio.timeout(10):
            await site.wire.struck.wait()
        trial.notes.append(f"at claim {number} after the moment")

    return strike


def _kills_at_points() -> Iterator[Fault]:
    for victim, layout in (
        ("store", Layout(store="watched")),
        ("server", Layout(store="watched")),
        ("worker", Layout(store="watched", workers=2)),
    ):
        for point in Point:
            yield Fault(
                name=f"kill-{victim}-{point.name.lower()}",
                what=f"kill -9 of the {victim}, a claim {point.value}",
                strike=_at_a_claim(victim, point),
                layout=layout,
                back_in_time=True,
            )


# --- frozen and silent ------------------------------------------------------------------------------------------


def _freeze_store(seconds: float) -> Callable[[Trial], Awaitable[None]]:
    async def strike(trial: Trial) -> None:
        pid = trial.site.store_pid()
        trial.site.freeze(pid)
        await asyncio.sleep(seconds)
        trial.site.thaw(pid)
        trial.ends()

    return strike


async def _freeze_worker(trial: Trial) -> None:
    pid = trial.rng.choice(trial.site.nodes[0].worker_pids())
    trial.site.freeze(pid)
    await asyncio.sleep(SILENT_S)
    trial.site.thaw(pid)
    trial.ends()


def _partition(*, requests: bool, replies: bool) -> Callable[[Trial], Awaitable[None]]:
    async def strike(trial: Trial) -> None:
        line = trial.site.cable
        wire = trial.site.wire
        if line is not None:
            line.cut(requests=requests, replies=replies)
        else:
            assert wire is not None
            wire.silence(requests=requests, replies=replies)
            trial.notes.append("no namespaces here: a proxy that forwards nothing and closes nothing")
        await asyncio.sleep(SILENT_S)
        if line is not None:
            line.mend()
        else:
            assert wire is not None
            wire.speak()
        trial.ends()

    return strike


# --- clients ----------------------------------------------------------------------------------------------------


async def _doubled(trial: Trial) -> None:
    doubles = Doubles(trial.room, trial.seed)
    await doubles.act(trial.started_s)
    trial.ends()
    trial.outcomes += doubles.outcomes
    trial.steps += doubles.steps
    trial.afterwards.append(doubles.wrongs)
    trial.notes.append(f"{len(doubles.told)} commands sent twice")


async def _shuffled(trial: Trial) -> None:
    shufflers = Shufflers(trial.room, trial.seed, trial.script.moment_s)
    await shufflers.act(trial.started_s)
    trial.ends()
    trial.outcomes += shufflers.outcomes
    trial.wrongs += shufflers.wrongs()
    trial.notes.append(f"{len(shufflers.outcomes)} viewers with commands out of order")


async def _slow(trial: Trial) -> None:
    first_s = trial.script.moment_s
    slow = SlowReaders(trial.room, trial.seed, first_s, first_s + NAP_S)
    talker = Talker(trial.room, first_s + 1, TALK_S)
    await asyncio.gather(slow.act(trial.started_s), talker.act(trial.started_s))
    trial.ends()
    trial.wrongs += slow.wrongs()
    trial.steps += talker.steps
    trial.outcomes += talker.outcomes
    trial.notes.append(f"{slow.cut_off} slow readers cut off, {slow.thinned} told that chat was left out")
    if not slow.cut_off + slow.thinned:
        trial.wrongs.append("nobody was slow enough for anything to happen")


# --- the store's memory and disk --------------------------------------------------------------------------------


async def _store_full(trial: Trial) -> None:
    async with trial.site.store() as store:
        await store.config_set("maxmemory", "1mb")
        await asyncio.sleep(FULL_S)
        await store.config_set("maxmemory", "0")
    trial.ends()


async def _disk_full(trial: Trial) -> None:
    if trial.site.layout.disk_bytes:
        ballast = trial.site.data / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        await asyncio.sleep(FULL_S)
        ballast.unlink()
    else:
        trial.notes.append("no mounts here: a limit on the size of the store's files")
        pid = trial.site.store_pid()
        size = max(file.stat().st_size for file in (trial.site.data / "appendonlydir").iterdir())
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
        await asyncio.sleep(FULL_S)
    trial.ends()


async def _flush_all(trial: Trial) -> None:
    """Empty the store; when everybody has been told, open the room again and sell."""
    async with trial.site.store() as store:
        await store.flushall()
    assert trial.swarm is not None
    swarm = trial.swarm

    async def nobody() -> bool:
        return all(word.joined == 0 for word in swarm.progress.values())

    told_s = await until(nobody)
    trial.notes.append(f"every viewer told after {told_s:.1f} s")
    await _sell_anew(trial)
    trial.ends()
    trial.healthy_s = trial.relief_s - trial.blow_s


async def _sell_anew(trial: Trial) -> None:
    """Make the room anew and sell all of ten units to twelve viewers; note what is wrong with that."""
    room, api = trial.room.room, trial.api

    async def made() -> bool:
        await api.create_room(room, "anew")
        return True

    await until(made)
    item = {"cmd": "item.put", "key": "anew-item", "item": "tea", "title": "茶", "price_cents": 200}
    await api.command(room, item)
    ends_at = (int(time.time()) + 3_600) * 1_000
    sale = {"cmd": "seckill.schedule", "key": "anew-sale", "sale": "anew", "item": "tea", "price_cents": 100}
    await api.command(room, {**sale, "stock": 10, "starts_at": 0, "ends_at": ends_at})
    clients = await asyncio.gather(*(trial.room.join(f"anew-{number}", number) for number in range(12)))
    told = await asyncio.gather(
        *(_claim(client, f"anew-key-{number}") for number, client in enumerate(clients))
    )
    await asyncio.gather(*(client.socket.close() for client in clients))
    if sorted(told) != ["sold_out"] * 2 + ["won"] * 10:
        trial.wrongs.append(f"the room made anew sold ten units with the answers {sorted(told)}")
    if len({client.joined["epoch"] for client in clients}) != 1:
        trial.wrongs.append("the room made anew has several epochs")


async def _claim(client: Client, key: str) -> str:
    try:
        await client.ask("seckill.claim", sale="anew", key=key)
    except Refused as refused:
        return refused.code
    except Closed:
        return "closed"
    return "won"


async def _old_copy(trial: Trial) -> None:
    """Bring back the files of some seconds ago; the sale must wait until it is armed again."""
    site = trial.site
    live, older = site.store_data / "appendonlydir", site.folder / "older"
    shutil.copytree(live, older)
    await asyncio.sleep(trial.rng.uniform(0.5, 1.5))
    trial.begins()
    # Nothing is awaited in between, so who would start the store again does so when the files are the older ones.
    site.kill(site.store_pid())
    shutil.rmtree(live)
    shutil.copytree(older, live)
    await _arm(trial, must_pause=True)


async def _cut_tail(trial: Trial) -> None:
    """Take away the end of the append-only file, acknowledged or not."""
    site = trial.site
    cut = trial.rng.randint(*CUT_BYTES)
    site.kill(site.store_pid())
    newest = max((site.store_data / "appendonlydir").glob("*.incr.aof"))
    size = newest.stat().st_size
    os.truncate(newest, max(0, size - cut))
    trial.notes.append(f"{cut} of {size} bytes cut")
    await _arm(trial, must_pause=False)


async def _torn_tail(trial: Trial) -> None:
    """Leave half a command at the end of the append-only file, as a power cut in the middle of a write does."""
    site = trial.site
    site.kill(site.store_pid())
    newest = max((site.store_data / "appendonlydir").glob("*.incr.aof"))
    torn = TORN[: trial.rng.randint(1, len(TORN))]
    with newest.open("ab") as file:
        file.write(torn)
    trial.notes.append(f"{len(torn)} bytes of a command that was never acknowledged")


async def _arm(trial: Trial, *, must_pause: bool) -> None:
    """Arm the sale again as a streamer does, once it waits for that."""
    room = trial.room.room
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        merchant = Merchant(http, trial.site.nodes[0].url, DEMO_KEY)

        async def known() -> bool:
            answer = await merchant.call("GET", f"/v1/rooms/{room}")
            if answer.status != 200:
                return False
            states = {sale["sale"]: sale["state"] for sale in answer.json["sales"]}
            if must_pause:
                return states.get(trial.sale) == "paused"
            return trial.sale in states

        paused_s = await until(known)
        states = {each["sale"]: each["state"] for each in (await merchant.room(room))["sales"]}
        if states.get(trial.sale) != "paused":
            trial.notes.append(f"the sale went on by itself ({states.get(trial.sale)})")
            return
        command = {"cmd": "seckill.adjust", "key": f"arm-{room}"[:64], "sale": trial.sale, "delta": 0}
        await trial.api.command(room, command)
        trial.notes.append(
            f"paused after {paused_s:.1f} s, armed again after {time.monotonic() - trial.blow_s:.1f} s"
        )


# --- what the store knows of us ---------------------------------------------------------------------------------


async def _kill_subscriptions(trial: Trial) -> None:
    killed = 0
    async with trial.site.store() as store:
        for _ in range(3):
            killed += int(await store.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
            await asyncio.sleep(trial.rng.uniform(0.1, 0.6))
    trial.ends()
    trial.notes.append(f"{killed} subscriptions killed")
    if not killed:
        trial.wrongs.append("there was no subscription to kill")


async def _delete_functions(trial: Trial) -> None:
    async with trial.site.store() as store:
        for _ in range(3):
            await store.execute_command("FUNCTION", "FLUSH")
            await asyncio.sleep(trial.rng.uniform(0.1, 0.6))
    trial.ends()


# --- clocks -----------------------------------------------------------------------------------------------------


def _shifted_clock() -> tuple[dict[str, str], str]:
    """Return the environment of a node whose clock is an hour ahead, and how that is done."""
    for library in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"+{CLOCK_OFF_S}",
            # Waiting and measuring go by the monotonic clock, which no wrong date moves.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return environment, "libfaketime"
    return {"PYTHONPATH": str(_SHIFTED)}, "time.time shifted when Python starts"


async def _clock_off(trial: Trial) -> None:
    """Nothing happens at the moment: the second node's clock is wrong from the start."""
    trial.notes.append(f"node 1 an hour ahead, by {_shifted_clock()[1]}")


def catalogue(*, secluded: bool) -> list[Fault]:
    """Return every fault, in the order of the table; `secluded` tells whether there are namespaces of our own."""
    far = Layout(store="far" if secluded else "watched")
    broken = Shape(hold_s=_LONG_HOLD, pay_ratio=0)
    return [
        Fault(
            name="kill-server",
            what="kill -9 of the only server, started again as by systemd",
            strike=_kill_server,
            shape=Shape(viewers=MANY),
            back_in_time=True,
        ),
        Fault(
            name="kill-worker",
            what="kill -9 of one worker of two",
            strike=_kill_worker,
            layout=Layout(workers=2),
            shape=Shape(viewers=MANY),
            back_in_time=True,
        ),
        Fault(
            name="kill-store",
            what="kill -9 of the store",
            strike=_kill_store,
            shape=Shape(viewers=MANY),
            back_in_time=True,
        ),
        Fault(
            name="kill-primary",
            what="kill -9 of the room's primary in a cluster; its replica is promoted",
            strike=_kill_primary(0),
            layout=Layout(store="cluster"),
            shape=Shape(viewers=MANY),
            keeps=False,
            claims_kept=True,
            back_in_time=True,
        ),
        Fault(
            name="kill-primary-frozen",
            what="the same, with claims in flight that it never read",
            strike=_kill_primary(0.3),
            layout=Layout(store="cluster"),
            keeps=False,
            claims_kept=True,
            back_in_time=True,
        ),
        *_kills_at_points(),
        *(
            Fault(
                name=f"freeze-store-{seconds}",
                what=f"SIGSTOP of the store for {seconds} s",
                strike=_freeze_store(seconds),
                shape=Shape(fault_s=seconds, cut_share=0),
                drops=False,
                healthy_s_max=2,
                unready_s_max=3 if seconds > 3 else None,
                answer_s_max=ANSWER_S_MAX,
            )
            for seconds in (1, 5, 15)
        ),
        Fault(
            name="freeze-worker-5",
            what="SIGSTOP of one worker of two for 5 s",
            strike=_freeze_worker,
            layout=Layout(workers=2),
            shape=Shape(fault_s=SILENT_S),
        ),
        Fault(
            name="partition-both",
            what="engine and store cut off from each other for 5 s, silently",
            strike=_partition(requests=True, replies=True),
            layout=far,
            shape=Shape(fault_s=SILENT_S),
        ),
        Fault(
            name="partition-requests",
            what="what the engine sends to the store is lost for 5 s, silently",
            strike=_partition(requests=True, replies=False),
            layout=far,
            shape=Shape(fault_s=SILENT_S),
        ),
        Fault(
            name="partition-replies",
            what="what the store sends to the engine is lost for 5 s, silently",
            strike=_partition(requests=False, replies=True),
            layout=far,
            shape=Shape(fault_s=SILENT_S),
        ),
        Fault(
            name="clients-slow",
            what="viewers that do not read for seconds, with small buffers",
            strike=_slow,
            layout=Layout(environment={0: _NO_RATES}),
            shape=Shape(fault_s=NAP_S - 5),
        ),
        Fault(
            name="clients-doubled",
            what="the same command with the same key on two connections",
            strike=_doubled,
        ),
        Fault(
            name="clients-reordered",
            what="commands in a shuffled order",
            strike=_shuffled,
        ),
        Fault(
            name="store-full",
            what=f"maxmemory below what is used for {FULL_S:g} s",
            strike=_store_full,
            shape=Shape(fault_s=FULL_S),
        ),
        Fault(
            name="disk-full",
            what=f"no space for the append-only file for {FULL_S:g} s",
            strike=_disk_full,
            layout=Layout(disk_bytes=DISK_BYTES if secluded else 0),
            shape=Shape(fault_s=FULL_S),
        ),
        Fault(
            name="flush-all",
            what="FLUSHALL in mid-sale; the room is made anew",
            strike=_flush_all,
            shape=Shape(patience_s=1),
            keeps=False,
            room_lives=False,
        ),
        Fault(
            name="old-copy",
            what="the store comes back with files of seconds ago",
            strike=_old_copy,
            layout=Layout(store="watched"),
            shape=broken,
            keeps=False,
            cancels=False,
        ),
        Fault(
            name="cut-tail",
            what="kill -9 of the store, and the end of its append-only file is gone",
            strike=_cut_tail,
            layout=Layout(store="watched"),
            shape=broken,
            keeps=False,
            cancels=False,
        ),
        Fault(
            name="torn-tail",
            what="kill -9 of the store, and half a command at the end of its append-only file",
            strike=_torn_tail,
            layout=Layout(store="watched"),
        ),
        Fault(
            name="kill-subscriptions",
            what="CLIENT KILL TYPE pubsub, three times",
            strike=_kill_subscriptions,
            drops=False,
            shape=Shape(cut_share=0),
        ),
        Fault(
            name="delete-functions",
            what="FUNCTION FLUSH, three times",
            strike=_delete_functions,
            drops=False,
            shape=Shape(cut_share=0),
        ),
        Fault(
            name="clock-ahead",
            what="two nodes, the clock of one an hour ahead",
            strike=_clock_off,
            layout=Layout(nodes=2, store="watched", environment={1: _shifted_clock()[0]}),
        ),
    ]
