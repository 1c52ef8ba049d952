"""The bus against a connection that does what the test says: confirmations, breaks, silence."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError

from engine.fanout import bus
from engine.fanout.bus import Bus
from engine.store.topology import slot_of

SILENCE = object()


class ScriptedConnection:
    """One connection to a store. What is put into `replies` is read, in order."""

    def __init__(self, network: "Network") -> None:
        self._network = network
        self.sent: list[tuple[str, ...]] = []
        self.was_sent = asyncio.Event()
        self.replies: asyncio.Queue[Any] = asyncio.Queue()
        self.disconnected = False

    async def connect(self) -> None:
        if self._network.down:
            raise RedisConnectionError("refused")
        self._network.connections.append(self)
        self._network.connected.release()

    async def disconnect(self, nowait: bool = False) -> None:
        self.disconnected = True

    async def send_command(self, *words: str, check_health: bool = True) -> None:
        assert not check_health
        self.sent.append(words)
        self.was_sent.set()
        if words[0] == "SSUBSCRIBE" and self._network.confirms:
            self.confirm(words[1])

    async def read_response(self, *, disable_decoding: bool, timeout: float) -> Any:
        reply = await self.replies.get()
        if isinstance(reply, Exception):
            raise reply
        return None if reply is SILENCE else reply

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.sent) < count:
                self.was_sent.clear()
                await self.was_sent.wait()

    def confirm(self, channel: str) -> None:
        self.replies.put_nowait([b"ssubscribe", channel.encode(), 1])

    def publish(self, channel: str, message: bytes) -> None:
        self.replies.put_nowait([b"smessage", channel.encode(), message])

    def fail(self) -> None:
        self.replies.put_nowait(RedisConnectionError("gone"))


class Network:
    """Every connection made, oldest first."""

    def __init__(self) -> None:
        self.connections: list[ScriptedConnection] = []
        self.connected = asyncio.Semaphore(0)
        self.down = False
        #: Whether subscriptions are confirmed at once.
        self.confirms = True

    async def next(self) -> ScriptedConnection:
        """Return the next connection once it is made."""
        async with asyncio.timeout(20):
            await self.connected.acquire()
        return self.connections[-1]


class Heard:
    """What the bus handed on, in order: messages and resets with their channels."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.changed = asyncio.Event()

    def message(self, channel: str, payload: bytes) -> None:
        self.all.append((channel, payload))
        self.changed.set()

    def reset(self, channels: Collection[str]) -> None:
        self.all.append(("reset", sorted(channels)))
        self.changed.set()

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(20):
            while len(self.all) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.all


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(bus, "make_connection", lambda url: ScriptedConnection(network))
    monkeypatch.setattr(bus, "_RECONNECT_S", (0.0,))
    return network


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def started(network: Network, heard: Heard) -> AsyncIterator[Bus]:
    started = Bus("unix:///nowhere", heard.message, heard.reset)
    await started.start()
    yield started
    await started.stop()


async def test_subscribe_returns_once_it_is_confirmed(network: Network, started: Bus) -> None:
    connection = await network.next()
    network.confirms = False
    subscribing = asyncio.ensure_future(started.subscribe("a"))
    await connection.until_sent(1)
    assert connection.sent == [("SSUBSCRIBE", "a")]
    assert not subscribing.done()

    connection.confirm("a")

    await subscribing


async def test_two_who_want_a_channel_share_one_subscription(network: Network, started: Bus) -> None:
    connection = await network.next()

    await asyncio.gather(started.subscribe("a"), started.subscribe("a"))

    assert connection.sent == [("SSUBSCRIBE", "a")]


async def test_subscription_that_is_not_confirmed_in_time_is_told(
    network: Network, started: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "SUBSCRIBE_S_MAX", 0.01)
    await network.next()
    network.confirms = False

    with pytest.raises(TimeoutError):
        await started.subscribe("a")


async def test_channel_wanted_before_there_is_a_connection_is_subscribed_by_it(
    network: Network, heard: Heard
) -> None:
    network.down = True
    late = Bus("unix:///nowhere", heard.message, heard.reset)
    await late.start()
    subscribing = asyncio.ensure_future(late.subscribe("a"))
    await asyncio.sleep(0)
    network.down = False

    await subscribing

    assert (await network.next()).sent == [("SSUBSCRIBE", "a")]
    # Nothing was heard before, so nothing can be missing.
    assert heard.all == []
    await late.stop()


async def test_messages_are_handed_on_in_order(network: Network, started: Bus, heard: Heard) -> None:
    connection = await network.next()
    await started.subscribe("a")
    for number in range(5):
        connection.publish("a", b"%d" % number)

    assert await heard.until(5) == [("a", b"%d" % number) for number in range(5)]


async def test_break_is_told_once_every_channel_is_back(network: Network, started: Bus, heard: Heard) -> None:
    first = await network.next()
    await started.subscribe("a")
    await started.subscribe("b")
    network.confirms = False

    first.fail()
    second = await network.next()
    await second.until_sent(2)
    assert second.sent == [("SSUBSCRIBE", "a"), ("SSUBSCRIBE", "b")]
    assert first.disconnected
    second.confirm("a")
    second.publish("a", b"early")
    assert await heard.until(1) == [("a", b"early")]
    second.confirm("b")

    assert await heard.until(2) == [("a", b"early"), ("reset", ["a", "b"])]


async def test_break_before_the_channels_were_back_is_still_told(
    network: Network, started: Bus, heard: Heard
) -> None:
    """The second connection breaks without having confirmed anything: what the first one missed is missing still."""
    first = await network.next()
    await started.subscribe("a")
    network.confirms = False
    first.fail()
    second = await network.next()

    second.fail()
    third = await network.next()
    await third.until_sent(1)
    third.confirm("a")

    assert await heard.until(1) == [("reset", ["a"])]


@pytest.mark.parametrize("how", ["moved", "unsubscribed"])
async def test_break_is_told_to_the_others_when_a_channel_does_not_come_back(
    network: Network, heard: Heard, how: str
) -> None:
    moved: list[str] = []
    started = Bus("unix:///nowhere", heard.message, heard.reset, on_moved=moved.append)
    await started.start()
    first = await network.next()
    await started.subscribe("a")
    await started.subscribe("b")
    network.confirms = False
    first.fail()
    second = await network.next()
    await second.until_sent(2)

    second.confirm("a")
    if how == "moved":
        second.replies.put_nowait(MovedError(f"{slot_of('b')} 127.0.0.1:7001"))
    else:
        await started.unsubscribe("b")

    assert await heard.until(1) == [("reset", ["a", "b"])]
    assert moved == (["b"] if how == "moved" else [])
    await started.stop()


async def test_silent_connection_is_asked_and_then_given_up(
    network: Network, started: Bus, heard: Heard
) -> None:
    first = await network.next()
    await started.subscribe("a")
    first.replies.put_nowait(SILENCE)
    first.replies.put_nowait([b"pong", b""])
    first.replies.put_nowait(SILENCE)
    first.replies.put_nowait(SILENCE)

    second = await network.next()

    assert first.sent == [("SSUBSCRIBE", "a"), ("PING",), ("PING",)]
    assert first.disconnected
    await heard.until(1)
    assert (second.sent, heard.all) == ([("SSUBSCRIBE", "a")], [("reset", ["a"])])


async def test_unsubscribed_channel_is_not_wanted_by_the_next_connection(
    network: Network, started: Bus
) -> None:
    first = await network.next()
    await started.subscribe("a")
    await started.subscribe("b")
    await started.unsubscribe("a")
    assert first.sent[-1] == ("SUNSUBSCRIBE", "a")

    first.fail()
    second = await network.next()
    await started.subscribe("a")

    assert second.sent == [("SSUBSCRIBE", "b"), ("SSUBSCRIBE", "a")]
