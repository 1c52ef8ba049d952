"""
A crowd for the demo: some dozen people who come, talk, tap and go, for as long as somebody watches.

Decides how a small audience behaves so that a room looks alive: names, words, bursts of likes when something happens,
answers to what others said, people who leave and come back, links passed on to friends. They take part in sales and
red packets the way people do: half of them, each after a moment of their own within some seconds, so that whoever
watches has a chance too; most pay what they hold, some let it go. Does not measure or judge anything; for that, a
scenario plays viewers by a plan (`plan.py`). Follows the protocol as any client would: `ping` while silent, `resume` on
return, no return where the close code says so, moments on the store's clock.

Paying goes through the demo's own button, `POST /demo/pay`, with the viewer's token.

Bounds: one task and one connection per viewer; each remembers the last `HEARD_MAX` comments and `MET_MAX` sales and
packets, and has at most `WISHES_MAX` things in mind.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from websockets.asyncio.client import ClientConnection as Socket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from loadtest import phrases
from loadtest.api import http_url
from loadtest.arrivals import stream
from protocol import commands
from protocol.codec import JSON
from protocol.codes import CloseCode
from protocol.commands import (
    ClaimSeckill,
    GrabRedPacket,
    JoinRoom,
    LeaveRoom,
    Ping,
    PostComment,
    Resume,
    SendLikes,
)
from protocol.connection import ClientConnection
from protocol.errors import ProtocolError
from protocol.frames import Reply, Said
from protocol.limits import COMMENT_CHARS_MAX, LIKES_PER_COMMAND_MAX, PING_PERIOD_MS

#: Viewer and name → token.
Tokens = Callable[[str, str], str]

HEARD_MAX: Final = 20
#: Mean seconds between two comments of one viewer; with 40 viewers, some three comments a second.
COMMENT_PAUSE_S: Final = 14.0
LIKES_PAUSE_S: Final = 9.0
#: Mean seconds somebody stays, and stays away.
STAY_S: Final = 150.0
AWAY_S: Final = 12.0
#: Seconds over which the first ones arrive.
ARRIVAL_S: Final = 8.0
RECONNECT_MIN_S: Final = 0.5
RECONNECT_MAX_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 10.0
#: Of those who are there: who wants an item on sale, a share of a red packet, stock that came back.
CLAIM_SHARE: Final = 0.45
GRAB_SHARE: Final = 0.6
BACK_SHARE: Final = 0.25
#: Seconds between the moment something unlocks and somebody's finger.
CLAIM_DELAY_S: Final = (0.6, 6.5)
BACK_DELAY_S: Final = (1.5, 6.0)
#: Of the orders: those that are paid, and how many seconds after they were won.
PAY_SHARE: Final = 0.75
PAY_DELAY_S: Final = (2.0, 6.0)
#: Of those who come for the first time: who comes through somebody's link.
LINK_SHARE: Final = 0.4
#: Of the winners: who says so.
BOAST_SHARE: Final = 0.35
#: Something meant for longer ago than this is let go: the viewer was away.
LATE_S: Final = 15.0
WISHES_MAX: Final = 16
MET_MAX: Final = 200
#: Links the crowd passes around.
LINKS_MAX: Final = 100
PAY_TIMEOUT_S: Final = 10
#: Events that make a room tap and talk.
EXCITING: Final = frozenset({"item.explaining", "redpacket.opened", "seckill.scheduled", "room.state"})


@dataclass(slots=True)
class _Wish:
    """Something somebody means to do at a moment of the loop's clock."""

    at_s: float
    what: str
    #: Id of the sale, packet or order.
    about: str


@dataclass(slots=True)
class _Party:
    """What the whole crowd shares."""

    url: str
    origin: str
    room: str
    tokens: Tokens
    stop: asyncio.Event
    http: aiohttp.ClientSession
    rng: random.Random
    #: Links of those who have been in the room: viewer and share token.
    links: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=LINKS_MAX))


@dataclass(slots=True)
class _Person:
    """One viewer of the demo."""

    id: str
    name: str
    rng: random.Random
    #: How talkative: multiplies the pauses between comments.
    shyness: float
    resume: Resume | None = None
    heard: deque[int] = field(default_factory=lambda: deque(maxlen=HEARD_MAX))
    said: int = 0
    came_before: bool = False
    token: str = ""
    #: Milliseconds of the store's clock at second 0 of the loop's.
    clock_ms: float = 0
    wishes: list[_Wish] = field(default_factory=list)
    #: Sales and packets thought about already, the oldest first, and whether something was won.
    met: dict[str, bool] = field(default_factory=dict)
    #: Command of this connection → the wish it came from.
    asked: dict[int, _Wish] = field(default_factory=dict)
    #: Set when there is a new wish.
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    #: Told to stay away, by the close code.
    banished: bool = False


async def play_demo_crowd(
    target: str, room: str, tokens: Tokens, *, viewers: int, stop: asyncio.Event, seed: int
) -> None:
    """
    Fill `room` with `viewers` lively people until `stop` is set.

    Returns only after everybody has left. Connections that fail are tried again for ever, with growing pauses; a
    server that is not there yet, or restarts, is waited for. Nothing is printed and no error escapes.

    Args:
        target: Where the server listens, such as "ws://127.0.0.1:8080".
        room: The room's id.
        tokens: Called with viewer id and name for each new connection; returns a token for `room`, role viewer.
        viewers: How many people; 30 to 60 look natural.
        stop: Set it to make everybody leave.
        seed: Same seed, same people and words; their moments also depend on the server.

    Cancelling this is safe: connections are dropped without a goodbye.
    """
    names = stream(seed, "demo.names")
    people = []
    for number in range(1, viewers + 1):
        rng = stream(seed, f"demo.{number}")
        people.append(
            _Person(f"demo-{number}", phrases.viewer_name(names), rng, shyness=rng.lognormvariate(0, 0.6))
        )
    timeout = aiohttp.ClientTimeout(total=PAY_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
        links = stream(seed, "demo.links")
        party = _Party(target.rstrip("/") + "/ws", http_url(target), room, tokens, stop, http, links)
        for person in people:
            group.create_task(_live(person, party))


async def _live(person: _Person, party: _Party) -> None:
    """Come, stay a while, go, come back."""
    rng, stop = person.rng, party.stop
    await _pause(rng.uniform(0, ARRIVAL_S), stop)
    retry_s = RECONNECT_MIN_S
    while not stop.is_set() and not person.banished:
        try:
            async with connect(
                party.url,
                subprotocols=[Subprotocol(JSON.subprotocol)],
                compression=None,
                open_timeout=CONNECT_TIMEOUT_S,
                close_timeout=1,
                proxy=None,
            ) as socket:
                stayed = await _visit(person, socket, party)
        except (OSError, InvalidHandshake, ConnectionClosed, ProtocolError, TimeoutError):
            stayed = False
        if stayed:
            retry_s = RECONNECT_MIN_S
            await _pause(rng.expovariate(1 / AWAY_S), stop)
        else:
            await _pause(retry_s * rng.uniform(0.5, 1.5), stop)
            retry_s = min(RECONNECT_MAX_S, retry_s * 2)


async def _visit(person: _Person, socket: Socket, party: _Party) -> bool:
    """Be in the room until it is time to go. Return whether the viewer left by choice."""
    rng, stop = person.rng, party.stop
    client = ClientConnection(JSON)
    if person.resume is not None:
        client.progress.epoch, client.progress.seq = person.resume.epoch, person.resume.seq
    excited = asyncio.Event()
    joined = asyncio.Event()
    person.token = party.tokens(person.id, person.name)
    person.asked.clear()
    join = JoinRoom(
        room=party.room,
        token=person.token,
        resume=person.resume,
        via=_link(person, party),
        entry="official_account",
    )
    await _send(client, socket, join)
    listening = asyncio.create_task(_listen(person, client, socket, party, joined, excited))
    try:
        await _pause(CONNECT_TIMEOUT_S, joined, listening)
        if not joined.is_set():
            return False
        loop = asyncio.get_running_loop()
        leave_s = loop.time() + rng.expovariate(1 / STAY_S)
        acting = _Acting(person, client, socket, party)
        while not stop.is_set() and not listening.done() and loop.time() < leave_s:
            if excited.is_set():
                excited.clear()
                acting.hurry()
            person.stirred.clear()
            await acting.act()
            pause_s = min(acting.next_s() - loop.time(), leave_s - loop.time())
            await _pause(pause_s, stop, listening, excited, person.stirred)
        if listening.done():
            return False
        await _send(client, socket, LeaveRoom())
        return True
    finally:
        person.resume = None
        if client.progress.epoch:
            person.resume = Resume(epoch=client.progress.epoch, seq=client.progress.seq)
        listening.cancel()
        await asyncio.wait([listening])
        if not listening.cancelled():
            # Looked at so that it counts as handled: how the connection ended is in the close code.
            listening.exception()
        person.banished = socket.close_code in (CloseCode.BANNED, CloseCode.ROOM_CLOSED)


def _link(person: _Person, party: _Party) -> str | None:
    """Return the link somebody comes through the first time, if they do."""
    others = [token for viewer, token in party.links if viewer != person.id]
    if person.came_before or not others or party.rng.random() >= LINK_SHARE:
        return None
    return party.rng.choice(others)


class _Acting:
    """When somebody in the room does what next."""

    def __init__(self, person: _Person, client: ClientConnection, socket: Socket, party: _Party) -> None:
        self._person = person
        self._party = party
        self._client = client
        self._socket = socket
        self._batch = 0
        self._loop = asyncio.get_running_loop()
        now_s, rng = self._loop.time(), person.rng
        self._comment_s = now_s + rng.expovariate(1 / (COMMENT_PAUSE_S * person.shyness))
        self._likes_s = now_s + rng.expovariate(1 / LIKES_PAUSE_S)
        self._taps_left = 0
        self._ping_s = now_s + PING_PERIOD_MS / 1000

    def next_s(self) -> float:
        """Return the moment of the next thing to do, on the loop's clock."""
        wishes = (wish.at_s for wish in self._person.wishes)
        return min(self._comment_s, self._likes_s, self._ping_s, *wishes)

    def hurry(self) -> None:
        """Something happened: most tap within a second or two, some speak."""
        rng, now_s = self._person.rng, self._loop.time()
        if rng.random() < 0.7:
            self._likes_s = min(self._likes_s, now_s + rng.uniform(0.2, 2.5))
        if rng.random() < 0.25:
            self._comment_s = min(self._comment_s, now_s + rng.uniform(0.8, 5))

    async def act(self) -> None:
        """Do everything that is due."""
        person, now_s = self._person, self._loop.time()
        rng = person.rng
        if now_s >= self._comment_s:
            await self._send(self._comment())
            # Never below the second that one viewer's comments must be apart.
            self._comment_s = now_s + 1.5 + rng.expovariate(1 / (COMMENT_PAUSE_S * person.shyness))
        if now_s >= self._likes_s:
            if not self._taps_left:
                self._taps_left = rng.randint(1, 4)
            self._batch += 1
            taps = min(LIKES_PER_COMMAND_MAX, 1 + round(rng.expovariate(1 / 6)))
            await self._send(SendLikes(n=taps, batch=self._batch))
            self._taps_left -= 1
            pause_s = rng.uniform(0.4, 1.2) if self._taps_left else rng.expovariate(1 / LIKES_PAUSE_S)
            self._likes_s = now_s + pause_s
        due = [wish for wish in person.wishes if wish.at_s <= now_s]
        person.wishes = [wish for wish in person.wishes if wish.at_s > now_s]
        for wish in due:
            if now_s - wish.at_s < LATE_S:
                await self._grant(wish)
        if now_s >= self._ping_s:
            await self._send(Ping())

    async def _grant(self, wish: _Wish) -> None:
        """Do what somebody meant to do."""
        person = self._person
        # A new key each time: what is tried again was refused, and refusals are not remembered.
        key = f"{person.id}-{person.rng.getrandbits(64):016x}"
        if wish.what == "pay":
            await self._pay(wish.about)
        elif wish.what == "boast":
            await self._send(PostComment(key=key, text=wish.about))
        elif wish.what == "claim":
            person.asked[await self._send(ClaimSeckill(key=key, sale=wish.about))] = wish
        else:
            person.asked[await self._send(GrabRedPacket(key=key, packet=wish.about))] = wish

    async def _pay(self, order: str) -> None:
        """Press the demo's payment button. If that fails the hold expires, as it does for people."""
        party = self._party
        headers = {"Authorization": f"Bearer {self._person.token}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with party.http.post(
                f"{party.origin}/demo/pay", json={"order": order}, headers=headers
            ) as response:
                await response.read()

    async def _send(self, command: commands.Command) -> int:
        self._ping_s = self._loop.time() + PING_PERIOD_MS / 1000
        return await _send(self._client, self._socket, command)

    def _comment(self) -> PostComment:
        person, rng = self._person, self._person.rng
        person.said += 1
        # Unique per person and life of the demo: a key used before would be answered, not said.
        key = f"{person.id}-{rng.getrandbits(48):012x}-{person.said}"
        if person.heard and rng.random() < 0.18:
            return PostComment(key=key, text=rng.choice(phrases.ANSWERS), reply_to=rng.choice(person.heard))
        return PostComment(key=key, text=rng.choice(phrases.COMMENTS)[:COMMENT_CHARS_MAX])


async def _listen(
    person: _Person,
    client: ClientConnection,
    socket: Socket,
    party: _Party,
    joined: asyncio.Event,
    excited: asyncio.Event,
) -> None:
    """Read until the connection ends."""
    async for data in socket:
        is_text = isinstance(data, str)
        for message in client.receive(data.encode() if isinstance(data, str) else data, is_text):
            if isinstance(message, Said):
                _hear(person, message.name, message.body, excited)
            elif message.ok is not None and "epoch" in message.ok:
                _arrive(person, party, message.ok, excited)
                joined.set()
            else:
                _told(person, message)


def _arrive(person: _Person, party: _Party, ok: dict[str, Any], excited: asyncio.Event) -> None:
    """Look around: what is on sale, what was missed, one's own link to pass on."""
    person.came_before = True
    person.clock_ms = ok["now"] - asyncio.get_running_loop().time() * 1000
    if ok["you"]["share"] is not None and all(viewer != person.id for viewer, _ in party.links):
        party.links.append((person.id, ok["you"]["share"]))
    if ok["room"] is not None:
        for sale in ok["room"]["sales"]:
            _notice_sale(person, sale)
        for packet in ok["room"]["packets"]:
            _notice_packet(person, packet)
    for fact in ok["missed"]:
        _hear(person, fact["ev"], fact, excited)


def _hear(person: _Person, name: str, body: dict[str, Any], excited: asyncio.Event) -> None:
    if name == "comment" and body["from"]["id"] != person.id:
        person.heard.append(body["comment"])
    elif name in EXCITING:
        excited.set()
    if name == "seckill.scheduled":
        _notice_sale(person, body)
    elif name == "redpacket.opened":
        _notice_packet(person, body)
    elif name == "seckill.back" and not person.met.get(body["sale"]) and person.rng.random() < BACK_SHARE:
        _wish(person, "claim", body["sale"], person.rng.uniform(*BACK_DELAY_S))


def _notice_sale(person: _Person, sale: dict[str, Any]) -> None:
    """Decide, once per sale, whether to want it, and when to press."""
    if _meet(person, sale["sale"]) and person.rng.random() < CLAIM_SHARE:
        _wish(person, "claim", sale["sale"], _until_s(person, sale["starts_at"]) + _moment_s(person.rng))


def _notice_packet(person: _Person, packet: dict[str, Any]) -> None:
    """Decide, once per packet, whether to grab."""
    if _meet(person, packet["packet"]) and person.rng.random() < GRAB_SHARE:
        _wish(person, "grab", packet["packet"], _until_s(person, packet["opens_at"]) + _moment_s(person.rng))


def _meet(person: _Person, about: str) -> bool:
    """Return whether a sale or packet is new to somebody, and remember it."""
    if about in person.met:
        return False
    person.met[about] = False
    if len(person.met) > MET_MAX:
        del person.met[next(iter(person.met))]
    return True


def _told(person: _Person, reply: Reply) -> None:
    """Take the answer to a claim or grab."""
    wish, rng = person.asked.pop(reply.id, None), person.rng
    if wish is None or reply.ok is None:
        return
    first = not person.met.get(wish.about)
    person.met[wish.about] = True
    if first and rng.random() < BOAST_SHARE:
        _wish(person, "boast", rng.choice(phrases.BOASTS[wish.what]), rng.uniform(1.5, 6))
    if wish.what == "claim" and reply.ok.get("status") == "held" and first and rng.random() < PAY_SHARE:
        _wish(person, "pay", reply.ok["order"], rng.uniform(*PAY_DELAY_S))


def _moment_s(rng: random.Random) -> float:
    """Return how long after the unlocking somebody presses: a few at once, most within the next seconds."""
    first, last = CLAIM_DELAY_S
    return rng.triangular(first, last, first + (last - first) * 0.3)


def _until_s(person: _Person, moment_ms: int) -> float:
    """Return the seconds until a moment of the store's clock, 0 if it is past."""
    loop = asyncio.get_running_loop()
    return max(0.0, (moment_ms - person.clock_ms) / 1000 - loop.time())


def _wish(person: _Person, what: str, about: str, in_s: float) -> None:
    if len(person.wishes) < WISHES_MAX:
        person.wishes.append(_Wish(asyncio.get_running_loop().time() + in_s, what, about))
        person.stirred.set()


async def _send(client: ClientConnection, socket: Socket, command: commands.Command) -> int:
    command_id, frame = client.send(command)
    await socket.send(frame, text=True)
    return command_id


async def _pause(seconds: float, *until: "asyncio.Event | asyncio.Task[None]") -> None:
    """Wait `seconds`, or until one of the events is set or one of the tasks is done."""
    waits = [
        asyncio.ensure_future(entry.wait()) if isinstance(entry, asyncio.Event) else entry for entry in until
    ]
    try:
        await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait, entry in zip(waits, until, strict=True):
            if wait is not entry:
                wait.cancel()
