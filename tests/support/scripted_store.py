"""
A store and its bus that do what a test says, for the fan-out's unit tests only.

Holds one room as the log would, counts what is asked of it, and can be told to fail, to wait, or to lose a message on
its way. It decides nothing: facts, comments and gauges are whatever the test publishes.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import orjson

from engine.errors import StoreUnavailable
from engine.fanout.frames import Form
from engine.rooms.recovery import RoomRead
from engine.store.keys import RoomKey, RoomKeys
from protocol.view import Map, apply_event

ROOM = RoomKey("demo", "tea")
PLAIN = Form("json", deflated=False)


class ScriptedBus:
    """Stands where `engine.fanout.bus.Bus` does. Messages are delivered in the turn they are published in."""

    def __init__(
        self,
        url: str,
        on_message: Callable[[str, bytes], None],
        on_reset: Callable[[Collection[str]], None],
    ) -> None:
        self.on_message = on_message
        self.on_reset = on_reset
        self.channels: set[str] = set()
        self.refuses = False

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to drop."""

    async def subscribe(self, channel: str) -> None:
        """Deliver `channel` from now on."""
        if self.refuses:
            raise TimeoutError
        self.channels.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Deliver it no more."""
        self.channels.discard(channel)


class ScriptedStore:
    """One room. `bus` is set by whoever makes the hub."""

    url = "unix:///nowhere"
    topology = None

    def __init__(self) -> None:
        self.bus: ScriptedBus | None = None
        self.seen: Callable[[], Any] = list
        self.channel = RoomKeys(ROOM).bus
        self.exists = True
        self.epoch = "e1"
        self.log: list[tuple[int, bytes]] = []
        self.comments: list[tuple[int, bytes]] = []
        self.view: Map = {
            "room": ROOM.room, "title": "茶", "state": "live", "notice": None, "items": [], "explaining": None,
            "sales": [], "packets": [], "pinned": None, "comments": [], "muted_all": False,
        }  # fmt: skip
        self.likes, self.online, self.peak = 0, 0, 0
        #: First seq the log still holds.
        self.first = 1
        #: Raised by everything that is asked, while set.
        self.failure: Exception | None = None
        #: Cleared to make everything that is asked wait, after it was decided.
        self.answers = asyncio.Event()
        self.answers.set()
        #: What was asked, oldest first.
        self.asked: list[str] = []
        self.lapsed: list[str] = []
        self.purged: list[str] = []

    # --- what a test does -------------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        """Seq of the room."""
        return self.log[-1][0] if self.log else 0

    def fact(self, name: str = "notice", *, lost: bool = False, **fields: Any) -> bytes:
        """Append a fact and deliver it, unless it gets lost. Returns its bytes."""
        seq = self.seq + 1
        body = fields or {"text": f"公告 {seq}", "version": seq}
        event = {"ev": name, "seq": seq, "at": 1_000 + seq, **body}
        json = orjson.dumps(event)
        self.log.append((seq, json))
        apply_event(self.view, event)
        if not lost:
            self.deliver(b"f %b %d %b" % (self.epoch.encode(), seq, name.encode()), json)
        return json

    def again(self, seq: int) -> None:
        """Deliver a fact that the log holds once more, or at last."""
        json = dict(self.log)[seq]
        self.deliver(b"f %b %d x" % (self.epoch.encode(), seq), json)

    def comment(self, count: int = 1) -> list[bytes]:
        """Accept comments in one batch and deliver them. Returns the events."""
        first = (self.comments[-1][0] if self.comments else 0) + 1
        events = []
        for number in range(first, first + count):
            body = b'"comment":%d,"at":1000,"text":"%d"}' % (number, number)
            self.comments.append((number, b"{" + body))
            events.append(b'{"ev":"comment",' + body)
        self.deliver(b"c %d" % first, b"\n".join(events))
        return events

    def gauge(self, total: int) -> bytes:
        """Publish a number of likes. Returns the event."""
        self.likes = total
        json = b'{"ev":"likes","total":%d}' % total
        self.deliver(b"g likes", json)
        return json

    def personal(self, viewer: str, json: bytes) -> None:
        """Tell one viewer something."""
        self.deliver(b"p " + viewer.encode(), json)

    def deliver(self, head: bytes, payload: bytes) -> None:
        """Hand a message to the hub as the bus would."""
        assert self.bus is not None
        if self.channel in self.bus.channels:
            self.bus.on_message(self.channel, head + b"\n" + payload)

    def begin_anew(self, epoch: str) -> None:
        """Lose everything and start another line of facts."""
        self.epoch = epoch
        self.log.clear()
        self.comments.clear()

    # --- what the hub asks ------------------------------------------------------------------------------

    async def _decided(self, what: str, answer: Any) -> Any:
        self.asked.append(what)
        failure = self.failure
        # An answer takes a turn of the loop at least, as it does over a socket.
        await asyncio.sleep(0)
        await self.answers.wait()
        if failure is not None:
            raise failure
        return answer

    async def read_room(self, room: RoomKey) -> RoomRead | None:
        """Answer with the room at the moment of asking."""
        read = RoomRead(
            now_ms=1_000,
            epoch=self.epoch,
            seq=self.seq,
            view=orjson.loads(orjson.dumps({**self.view, "comments": []})),
            comments=list(self.comments[-50:]),
            facts=[(seq, json) for seq, json in self.log if seq >= self.first],
            likes=self.likes,
            online=self.online,
            peak=self.peak,
            gauges={},
            audit={"holds": True, "sales": {}, "packets": {}},
            change=0,
            sold={},
        )
        answer: RoomRead | None = await self._decided("read_room", read if self.exists else None)
        return answer

    async def facts_since(
        self, room: RoomKey, seq: int, limit: int = 1_000
    ) -> tuple[str, int, int, list[tuple[int, bytes]]] | None:
        """Answer with the facts after `seq` at the moment of asking."""
        facts = [entry for entry in self.log if entry[0] > seq and entry[0] >= self.first][:limit]
        page = (self.epoch, self.seq, self.first, facts) if self.exists else None
        answer: tuple[str, int, int, list[tuple[int, bytes]]] | None
        answer = await self._decided(f"facts_since {seq}", page)
        return answer

    async def beat(self, names: RoomKeys, worker: str) -> tuple[str, int, list[str]] | None:
        """Answer with the room's position and whose lease ran out."""
        lapsed, self.lapsed = self.lapsed, []
        stands = (self.epoch, self.seq, lapsed) if self.exists else None
        answer: tuple[str, int, list[str]] | None = await self._decided("beat", stands)
        return answer

    async def purge(self, names: RoomKeys, dead: str) -> None:
        """Note who was purged."""
        await self._decided("purge", None)
        self.purged.append(dead)


UNREACHABLE = StoreUnavailable("the store does not answer")


class RecordingMetrics:
    """What the hub counted."""

    def __init__(self) -> None:
        self.flushes: list[tuple[int, int]] = []
        self.thinned_events = 0
        self.recoveries: list[str] = []

    def flushed(self, events: int, viewers: int, cost_s: float) -> None:
        """Note a flush."""
        assert cost_s >= 0
        self.flushes.append((events, viewers))

    def thinned(self, events: int) -> None:
        """Note what was left out."""
        self.thinned_events += events

    def recovered(self, how: str) -> None:
        """Note a closed gap."""
        self.recoveries.append(how)


class ScriptedMember:
    """A connection that keeps what it is sent. `journal`, if given, sees the order across several of them."""

    def __init__(self, viewer: str, connection: int = 0, form: Form = PLAIN) -> None:
        self.viewer = viewer
        self.connection = connection
        self.form = form
        #: Payloads of the frames written and the messages sent, in order; `("close", code)` at the end.
        self.got: list[Any] = []
        self.unsent = 0
        self.rejoined = 0

    def write(self, frame: bytes) -> None:
        """Keep a frame."""
        self.got.append(frame)

    def send(self, payload: bytes) -> None:
        """Keep a message."""
        self.got.append(payload)

    def unsent_bytes(self) -> int:
        """Whatever the test says."""
        return self.unsent

    def close(self, code: int, reason: str = "") -> None:
        """Keep the code."""
        self.got.append(("close", int(code)))

    def removed(self, seq: int, code: int, reason: str) -> None:
        self.close(code, reason)

    def rejoin(self) -> None:
        """Count it."""
        self.rejoined += 1

    @property
    def codes(self) -> list[int]:
        """Close codes it was given."""
        return [entry[1] for entry in self.got if isinstance(entry, tuple)]

    @property
    def events(self) -> list[Map]:
        """Every event it was sent, in order. JSON only."""
        return [event for entry in self.got if isinstance(entry, bytes) for event in orjson.loads(entry)]

    @property
    def seqs(self) -> list[int]:
        """Seq of every fact it was sent, in order."""
        return [event["seq"] for event in self.events if "seq" in event]
