"""
Viewers beside the crowd, who do what no plan of the load test does: give back what they hold, say everything twice, mix
up their commands, read slowly.

All are second connections of viewers of the crowd, or say only what they are told here, so the oracle can judge
everything they cause. Decides who does it and when, from the seed. Each remembers what it was told and can say what is
wrong with that.

Bounds: one connection at a time per cancelled order, `DOUBLES` + `SHUFFLERS` + `SLOW` connections besides.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from loadtest.api import ApiError, MerchantApi
from loadtest.arrivals import US_PER_S, stream
from loadtest.history import Dump, History, Outcome
from loadtest.plan import CONSOLE, Plan, Step, fill
from loadtest.tokens import SigningKey
from protocol.limits import COMMANDS_PER_FRAME_MAX
from tests.support.client import Client, Closed, Map, Refused
from tests.support.processes import seqs

#: Of the orders that will not be paid: those given back, and when (seconds).
CANCEL_RATIO: Final = 0.4
CANCEL_DELAY_S: Final = (0.05, 1.5)
POLL_S: Final = 0.2
RETRY_S: Final = 0.3
#: How long whatever is under way at the end may take (seconds).
PATIENCE_S: Final = 20.0
DOUBLES: Final = 20
SHUFFLERS: Final = 20
SLOW: Final = 10
#: What slow readers do not read: more than a megabyte, about what the kernel holds for one connection.
COMMENTS: Final = 4_000
LONG: Final = "慢" * 150
#: Steps of people who are not of the plan begin here; the probe's come after.
FIRST_STEP: Final = 800_000_000
_AGAIN: Final = frozenset({"outcome_unknown", "unavailable", "overloaded", "rate_limited", "not_joined"})
_GONE = (Closed, ConnectionClosed, InvalidHandshake, OSError, TimeoutError)


class Room:
    """Where everybody goes: the target, the room, and who signs their tokens."""

    def __init__(self, targets: list[str], room: str, key: SigningKey, run: str, plan: Plan) -> None:
        self.targets = targets
        self.room = room
        self.run = run
        self.plan = plan
        self._key = key

    def token(self, viewer: str, role: str = "viewer", name: str = "") -> str:
        """Return a token of a viewer of this run."""
        return self._key.sign(self.room, viewer, role, name or viewer[:32], 3 * 3600)

    async def join(
        self, viewer: str, place: int = 0, *, role: str = "viewer", name: str = "", resume: Map | None = None
    ) -> Client:
        """Open a connection and join with it."""
        client = await Client.open(self.targets[place % len(self.targets)] + "/ws")
        try:
            fields = {"resume": resume} if resume is not None else {}
            await client.join(self.room, self.token(viewer, role, name), **fields)
        except BaseException:
            await client.socket.close()
            raise
        return client


class Cancellers:
    """Give back a part of the orders, each until there is an answer."""

    def __init__(self, room: Room, api: MerchantApi, seed: int) -> None:
        self._room = room
        self._api = api
        self._seed = seed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._open = True
        self._polling: asyncio.Task[None] | None = None
        #: Order → the last answer: a status, or the code of the refusal.
        self.told: dict[str, str] = {}

    def open(self) -> None:
        """Begin."""
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Begin no more; wait for what is under way."""
        self._open = False
        if self._polling is not None:
            await self._polling
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=PATIENCE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _poll(self) -> None:
        after = ""
        while self._open:
            with contextlib.suppress(ApiError):
                orders, after = await self._api.orders(self._room.room, after)
                for order in orders:
                    if order["status"] == "held" and order["order"] not in self._tasks:
                        self._meet(order)
            await asyncio.sleep(POLL_S)

    def _meet(self, order: Map) -> None:
        viewer = str(order["viewer"]).removeprefix(f"{self._room.run}-")
        rng = stream(self._seed, f"cancel.{viewer}")
        # The oracle takes an order that is paid in the end for one that was held until then, so those whom the shop
        # lets pay do not give back (`loadtest/shop.py` draws from the same stream).
        pays = stream(self._seed, f"pay.{viewer}").random() < self._room.plan.scenario.seckill.pay_ratio
        if not pays and rng.random() < CANCEL_RATIO:
            work = self._cancel(order["order"], order["viewer"], rng.uniform(*CANCEL_DELAY_S))
            self._tasks[order["order"]] = asyncio.create_task(work)

    async def _cancel(self, order: str, viewer: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        command = {"cmd": "order.cancel", "order": order, "key": f"{self._room.run}-x-{order}"[:64]}
        self.told[order] = "unanswered"
        place = 0
        while self._open or place == 0:
            try:
                client = await self._room.join(viewer, place)
                async with client:
                    self.told[order] = await _insist(client, command)
                    return
            except (*_GONE, Refused):
                place += 1
                await asyncio.sleep(RETRY_S)

    def wrongs(self, dump: Dump) -> list[str]:
        """Return what is wrong with the orders that were acknowledged as cancelled."""
        last = {change["order"]: change["status"] for change in dump.orders}
        return [
            f"order {order} was acknowledged as cancelled and is {last.get(order, 'lost')}"
            for order, told in self.told.items()
            if told == "cancelled" and last.get(order) != "cancelled"
        ]


async def _insist(client: Client, command: Map) -> str:
    """Ask until the answer is definite; return the order's status or the code of the refusal."""
    while True:
        try:
            ok = await client.ask(**command)
            return str(ok.get("status", "ok"))
        except Refused as refused:
            if refused.code not in _AGAIN:
                return refused.code
            await asyncio.sleep(RETRY_S)


class Doubles:
    """Send again, from a second connection of the same viewer and with the same key, what the crowd sends."""

    def __init__(self, room: Room, seed: int) -> None:
        rng = stream(seed, "doubles")
        self._room = room
        keyed = {"seckill.claim", "redpacket.grab", "comment.send"}
        steps: dict[int, list[int]] = {}
        for number, step in enumerate(room.plan.steps):
            if step.command.get("cmd") in keyed:
                steps.setdefault(step.actor, []).append(number)
        who = rng.sample(sorted(steps), min(DOUBLES, len(steps)))
        #: Actor → (step, moment in seconds): a little before, at, or after the other one.
        self._doubled = {
            actor: sorted(
                (max(0.0, room.plan.steps[number].at_us / US_PER_S + rng.uniform(-0.02, 0.02)), number)
                for number in steps[actor]
            )
            for actor in who
        }
        #: Step → what this connection was told.
        self.told: dict[int, Map | str] = {}
        #: The claims and grabs once more, as steps behind those of the plan, and how they ended.
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []

    async def act(self, started_s: float) -> None:
        """Do everything; returns when all is answered."""
        await asyncio.gather(*(self._double(actor, started_s) for actor in self._doubled))

    async def _double(self, actor: int, started_s: float) -> None:
        room = self._room
        joined_s = max(step.at_us for step in room.plan.steps if step.actor == actor and step.verb == "join")
        await _at(started_s + joined_s / US_PER_S + 0.8)
        client = await room.join(f"{room.run}-{room.plan.actors[actor].id}")
        async with client:
            for moment_s, number in self._doubled[actor]:
                await _at(started_s + moment_s)
                command = fill(room.plan.steps[number].command, room.run, number, lambda moment_us: 0)
                sent_us, code = _us_since(started_s), "ok"
                try:
                    said = self.told[number] = await client.ask(**command)
                except Refused as refused:
                    code = self.told[number] = refused.code
                    said = refused.err
                if command["cmd"] != "comment.send":
                    self._note(number, command, code, sent_us, _us_since(started_s), said)

    def _note(self, number: int, command: Map, code: str, sent_us: int, done_us: int, said: Map) -> None:
        """Let the judge see this ask beside those of the plan."""
        step = self._room.plan.steps[number]
        again = Step(step.at_us, step.actor, "send", {**step.command, "key": command["key"]})
        place = len(self._room.plan.steps) + len(self.steps)
        answer = {name: value for name, value in said.items() if name != "message"}
        definite = bool(said.get("definite", True))
        self.steps.append(again)
        self.outcomes.append(
            Outcome(
                place,
                command["cmd"],
                code,
                step.at_us,
                sent_us,
                done_us,
                definite=definite,
                asked_us=sent_us,
                said=answer,
            )
        )

    def wrongs(self, history: History) -> list[str]:
        """Return where the two connections were told different things."""
        outcomes = {outcome.step: outcome for process in history.processes for outcome in process.outcomes}
        wrongs = []
        for number, told in self.told.items():
            other = outcomes.get(number)
            if other is None or other.code != "ok" or not isinstance(told, dict):
                continue
            mine, theirs = (
                _answer(told),
                other.value if other.command == "comment.send" else _answer(other.said),
            )
            if mine != theirs:
                wrongs.append(f"step {number} was answered {theirs} on one connection and {mine} on another")
        return wrongs


def _answer(said: Map) -> object:
    """Return what must be the same however often it is asked."""
    if "comment" in said:
        return said["comment"]
    # Whose key won is told what was left when it did; whose did not, what is left now and how the order stands.
    return said.get("order", said) if said.get("again") else said


class Shufflers:
    """Send what belongs together in the wrong order: cancel before claim, likes with batches that do not rise."""

    def __init__(self, room: Room, seed: int, first_s: float) -> None:
        self._room = room
        self._first_s = first_s
        self._rngs = [stream(seed, f"shuffler.{number}") for number in range(SHUFFLERS)]
        self.outcomes: list[Outcome] = []
        self._wrongs: list[str] = []

    async def act(self, started_s: float) -> None:
        """Do everything; returns when all is answered."""
        await _at(started_s + self._first_s)
        await asyncio.gather(
            *(self._shuffle(number, rng, started_s) for number, rng in enumerate(self._rngs))
        )

    async def _shuffle(self, number: int, rng: random.Random, started_s: float) -> None:
        viewer = f"{self._room.run}-{self._room.plan.actors[1 + number].id}"
        client = await self._room.join(viewer, number)
        async with client:
            batches = list(range(1, 9))
            rng.shuffle(batches)
            likes = [{"cmd": "like.send", "n": 3, "batch": batch} for batch in batches]
            other: list[Map] = [{"cmd": "ping"}, {"cmd": "share.rank"}]
            other += [{"cmd": "order.get", "order": f"nobody-{number}"}]
            other += [
                {"cmd": "order.cancel", "order": f"nobody-{number}", "key": f"{self._room.run}-z{number}-00"}
            ]
            frame = [*likes, *other]
            rng.shuffle(frame)
            highest, rising = 0, 0
            for command in frame:
                if command.get("batch", 0) > highest:
                    highest = command["batch"]
                    rising += 1
            ids = await client.send(*frame)
            replies = [await client.reply(command_id) for command_id in ids]
            for command, reply in zip(frame, replies, strict=True):
                code = "ok" if reply.err is None else str(reply.err["code"])
                expected = "not_found" if command["cmd"].startswith("order.") else "ok"
                if code not in (expected, *_AGAIN):
                    self._wrongs.append(f"{command['cmd']} out of order was answered {code}")
            # Only what rises counts, so the room's total must have exactly these.
            now_us = _us_since(started_s)
            step = FIRST_STEP + number
            self.outcomes.append(
                Outcome(step, "like.send", "ok", now_us, now_us, now_us, value=0, taps=3 * rising)
            )

    def wrongs(self) -> list[str]:
        """Return what was answered wrongly."""
        return self._wrongs


class Talker:
    """Says more long comments, from a second connection of the streamer, than the kernel holds for a slow reader."""

    def __init__(self, room: Room, first_s: float, seconds: float) -> None:
        self._room = room
        self._first_s = first_s
        self._seconds = seconds
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []

    async def act(self, started_s: float) -> None:
        """Do everything; returns when all is answered."""
        await _at(started_s + self._first_s)
        room = self._room
        console = room.plan.actors[CONSOLE]
        client = await room.join(f"{room.run}-{console.id}", role=console.role, name=console.name)
        async with client:
            for batch in range(0, COMMENTS, COMMANDS_PER_FRAME_MAX):
                await _at(started_s + self._first_s + self._seconds * batch / COMMENTS)
                await self._say(client, min(COMMANDS_PER_FRAME_MAX, COMMENTS - batch), started_s)

    async def _say(self, client: Client, count: int, started_s: float) -> None:
        room, sent_us = self._room, _us_since(started_s)
        first = len(room.plan.steps) + len(self.steps)
        commands = []
        for number in range(first, first + count):
            step = Step(
                sent_us, CONSOLE, "send", {"cmd": "comment.send", "text": f"{LONG} #{{run}}.{{step}}"}
            )
            self.steps.append(step)
            commands.append(fill(step.command, room.run, number, lambda moment_us: 0))
        for place, command_id in enumerate(await client.send(*commands)):
            reply = await client.reply(command_id)
            code = "ok" if reply.ok is not None else str((reply.err or {})["code"])
            comment = int((reply.ok or {}).get("comment", 0))
            done_us = _us_since(started_s)
            self.outcomes.append(
                Outcome(first + place, "comment.send", code, sent_us, sent_us, done_us, value=comment)
            )


class SlowReaders:
    """Join with small buffers, read nothing for a while, then everything; come back if cut off."""

    def __init__(self, room: Room, seed: int, first_s: float, last_s: float) -> None:
        self._room = room
        rng = stream(seed, "slow")
        self._naps = [
            (first_s + rng.uniform(0, 1), last_s - first_s + rng.uniform(-1, 1)) for _ in range(SLOW)
        ]
        self._wrongs: list[str] = []
        #: How many lost their connection for being slow, how many were told that chat was left out, and the facts read.
        self.cut_off = 0
        self.thinned = 0
        self.facts = 0

    async def act(self, started_s: float) -> None:
        """Do everything; returns when all have read to the end of their nap."""
        await asyncio.gather(*(self._nap(number, started_s, *nap) for number, nap in enumerate(self._naps)))

    async def _nap(self, number: int, started_s: float, first_s: float, nap_s: float) -> None:
        await _at(started_s + first_s)
        viewer = f"{self._room.run}-{self._room.plan.actors[1 + number].id}"
        async with _small_pockets(self._room, viewer, number) as client:
            await asyncio.sleep(max(0.5, nap_s))
            seen = client
            try:
                await client.ask("ping")
            except Closed:
                self.cut_off += 1
                seen = await self._room.join(viewer, number, resume=client.machine.resume())
            found = seqs(client) + (seqs(seen) if seen is not client else [])
            joined = client.joined["seq"]
            covered = seen is not client and not seen.joined["resumed"]
            self.facts += len(found)
            self.thinned += bool(client.said("thinned"))
            if not covered and found != list(range(joined + 1, joined + 1 + len(found))):
                self._wrongs.append(f"a slow reader got facts {found} after {joined}")
            if seen is not client:
                await seen.socket.close()

    def wrongs(self) -> list[str]:
        """Return what was missing."""
        return self._wrongs


@contextlib.asynccontextmanager
async def _small_pockets(room: Room, viewer: str, place: int) -> AsyncIterator[Client]:
    """Join on a socket that holds little, and takes from it only while something is waited for."""
    pocket = socket.socket()
    pocket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pocket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    pocket.setblocking(False)
    target = room.targets[place % len(room.targets)]
    host, port = target.removeprefix("ws://").split(":")
    await asyncio.get_running_loop().sock_connect(pocket, (host, int(port)))
    websocket = await connect(
        f"{target}/ws",
        sock=pocket,
        subprotocols=[Subprotocol("liveroom.v1.json")],
        compression=None,
        ping_interval=None,
        max_queue=1,
        max_size=None,
        close_timeout=0.5,
    )
    client = Client(websocket, "json")
    try:
        await client.join(room.room, room.token(viewer))
        yield client
    finally:
        websocket.transport.abort()


async def _at(moment_s: float) -> None:
    """Wait until a moment of `time.monotonic()`."""
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))


def _us_since(started_s: float) -> int:
    return int((time.monotonic() - started_s) * US_PER_S)
