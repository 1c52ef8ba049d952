"""
How `Store` travels: batches without a timer, and what a broken store does to those who wait.

Each failure happens to a real server of the test's own: stopped (SIGSTOP), killed, gone for good.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import orjson
import pytest

from engine.clock import StoreClock
from engine.errors import EngineFault, StoreUnavailable
from engine.store import link
from engine.store.batch import GROUP_CALLS_MAX
from engine.store.embedded import EmbeddedStore
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Answer, Store
from protocol import commands as c
from tests.support.stores import (
    NO_REDIS,
    OWNER,
    REDIS_SERVER,
    STREAMER,
    add_likes,
    ask,
    fresh_key,
    fresh_room,
    running_store,
    say,
    until,
)

CALL_S_MAX = 0.9


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thousand calls at once do to a busy machine is not what these tests are about."""
    monkeypatch.setattr(link, "CALL_TIMEOUT_S", 60.0)


@pytest.fixture(params=["valkey", "redis"])
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    """A server that this test may hurt."""
    if request.param == "redis" and REDIS_SERVER is None:
        pytest.skip(NO_REDIS)
    server = EmbeddedStore(tmp_path / "data", binary=REDIS_SERVER if request.param == "redis" else None)
    await server.start()
    yield server
    await server.stop()


async def a_room(store: Store) -> RoomKey:
    room = fresh_room()
    await store.put_room(room, b'"title":"Tea"', slow_ms=0, facts_kept_ms=600_000)
    await ask(store, room, c.OpenRoom(key=fresh_key()), "boss", STREAMER)
    return room


def comments(count: int) -> list[c.PostComment]:
    return [c.PostComment(key=fresh_key(), text=f"comment {number}") for number in range(count)]


async def texts(store: Store, room: RoomKey) -> list[str]:
    """Return the texts of the newest comments, oldest first."""
    read = await store.read_room(room)
    assert read is not None
    return [orjson.loads(json)["text"] for _, json in read.comments]


async def insist(attempt: Callable[[], Awaitable[Answer]]) -> bytes:
    """Ask until the store answers, and return what it says."""
    async with asyncio.timeout(20):
        while True:
            answer = await attempt()
            if isinstance(answer, bytes):
                return answer
            assert isinstance(answer, StoreUnavailable), answer
            await asyncio.sleep(0.01)


async def in_the_end(store: Store, room: RoomKey, command: c.PostComment) -> int:
    """Post a comment again with its key until it is answered; return its number."""
    return int(await insist(lambda: say(store, room, "anna", command, rank=OWNER)))


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patience")
async def test_a_thousand_comments_at_once_travel_in_few_flights_and_keep_their_order(store: Store) -> None:
    room = await a_room(store)
    flights, calls = store.flights, store.calls
    sent = comments(1_000)

    told = await asyncio.gather(*(say(store, room, "anna", command, rank=OWNER) for command in sent))

    assert told == [str(number).encode() for number in range(1, 1_001)]
    assert store.flights - flights <= 5
    assert store.calls - calls == 1_000
    assert await texts(store, room) == [command.text for command in sent[-50:]]


@pytest.mark.usefixtures("patience")
async def test_calls_that_come_while_one_flies_gather_for_the_next(store: Store) -> None:
    room = await a_room(store)
    flights = store.flights
    told = [asyncio.ensure_future(say(store, room, "anna", comments(1)[0], rank=OWNER))]
    await asyncio.sleep(0)
    told += [asyncio.ensure_future(say(store, room, "ben", command, rank=OWNER)) for command in comments(100)]

    assert await asyncio.gather(*told) == [str(number).encode() for number in range(1, 102)]
    assert store.flights - flights <= 3


@pytest.mark.usefixtures("patience")
async def test_group_never_holds_more_than_five_hundred_calls(store: Store) -> None:
    room = await a_room(store)
    count = 2 * GROUP_CALLS_MAX + 1

    told = await asyncio.gather(
        *(say(store, room, "anna", command, rank=OWNER) for command in comments(count))
    )

    times: Counter[int] = Counter()
    for number in range(1, count + 1, 100):
        assert told[number - 1] == str(number).encode()
        times[number] += 1
    assert len(times) == 11


@pytest.mark.usefixtures("patience")
async def test_replies_reach_their_callers_when_rooms_and_outcomes_are_mixed(store: Store) -> None:
    rooms = [await a_room(store) for _ in range(3)]
    muted = c.MuteViewer(key=fresh_key(), viewer="bad", seconds=0)
    await ask(store, rooms[1], muted, "boss", STREAMER)
    asked = [
        (room, viewer, command)
        for command in comments(20)
        for room in (*rooms, RoomKey("t", "missing"))
        for viewer in ("good", "bad")
    ]

    told = await asyncio.gather(*(say(store, room, viewer, command) for room, viewer, command in asked))

    counted: Counter[RoomKey] = Counter()
    for (room, viewer, _), answer in zip(asked, told, strict=True):
        if room.room == "missing":
            assert str(getattr(answer, "code", "")) == "room_not_found"
        elif (room, viewer) == (rooms[1], "bad"):
            assert str(getattr(answer, "code", "")) == "muted"
        else:
            counted[room] += 1
            assert answer == str(counted[room]).encode()


async def test_idle_store_is_asked_at_once(store: Store) -> None:
    room = await a_room(store)
    began_s = time.monotonic()
    for command in comments(50):
        await say(store, room, "anna", command, rank=OWNER)

    assert time.monotonic() - began_s < 5


async def test_stop_finishes_what_waits(server: str) -> None:
    async with running_store(server) as first:
        room = await a_room(first)
        store = Store(server, first._clock)
        await store.start()
        told: list[Answer] = []
        for number in range(700):
            key, body = f"key-{number:06}", b'"from":{},"text":"x"'
            store.post_comment(RoomKeys(room), "anna", OWNER, key, "f", body, 0, 0, told.append)

        await store.stop()

        assert len(told) == 700
        assert all(isinstance(answer, bytes) for answer in told)


# --- failures -------------------------------------------------------------------------------------------------


async def test_caller_that_fails_takes_nobody_along(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    room = await a_room(store)

    def fail(answer: Answer) -> None:
        raise ZeroDivisionError

    told: list[Answer] = []
    names, body = RoomKeys(room), b'"from":{},"text":"x"'
    for answered in (told.append, fail, told.append):
        store.post_comment(names, "anna", OWNER, fresh_key(), "f", body, 0, 0, answered)
    await until(lambda: len(told) == 2)

    assert told == [b"1", b"3"]
    await store.ping()


async def test_function_that_fails_is_a_fault_of_ours_and_others_go_on(store: Store) -> None:
    room = await a_room(store)
    fine = say(store, room, "anna", comments(1)[0])

    with pytest.raises(EngineFault, match="facts_since"):
        # An engine never asks for that: `after` is checked where it comes in.
        await store._call("facts_since", (RoomKeys(room).meta, RoomKeys(room).log), ("x", "y"))
    assert await fine == b"1"
    await store.ping()


async def test_stopped_server_leaves_the_outcome_unknown_within_a_second(own: EmbeddedStore) -> None:
    async with running_store(own.url) as store:
        room = await a_room(store)
        first, second = comments(2)
        assert own.pid is not None
        os.kill(own.pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            flying = asyncio.ensure_future(say(store, room, "anna", first, rank=OWNER))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(say(store, room, "anna", second, rank=OWNER))

            answer = await flying
            assert isinstance(answer, StoreUnavailable)
            assert not answer.definite
            assert CALL_S_MAX - 0.1 < time.monotonic() - began_s < CALL_S_MAX + 2.0
            assert not store.healthy

            # The one that waited behind it is not told later than promised.
            late = await waiting
            assert isinstance(late, StoreUnavailable)
            assert late.definite
            assert time.monotonic() - began_s < 0.05 + CALL_S_MAX + 2.0
        finally:
            os.kill(own.pid, signal.SIGCONT)

        # Asked again with the same keys, each comment is there once.
        assert {await in_the_end(store, room, first), await in_the_end(store, room, second)} == {1, 2}
        assert sorted(await texts(store, room)) == ["comment 0", "comment 1"]
        assert store.healthy


async def test_stopped_server_keeps_no_socket_of_ours_open(own: EmbeddedStore) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    store = Store(own.url, StoreClock())
    await store.start()
    room = await a_room(store)
    assert own.pid is not None
    os.kill(own.pid, signal.SIGSTOP)
    try:
        # More than the kernel takes, so that some of it is left unsent.
        sent = [c.PostComment(key=fresh_key(), text="字" * 200) for _ in range(5_000)]
        told = await asyncio.gather(*(say(store, room, "anna", command, rank=OWNER) for command in sent))
        assert all(isinstance(answer, StoreUnavailable) for answer in told)
        await store.stop()

        await until(lambda: open_files() <= before)
    finally:
        os.kill(own.pid, signal.SIGCONT)


async def test_store_that_is_gone_refuses_definitely(own: EmbeddedStore) -> None:
    async with running_store(own.url) as store:
        room = await a_room(store)
        first, second = comments(2)
        await own.stop()

        assert isinstance(await say(store, room, "anna", first), StoreUnavailable)
        began_s = time.monotonic()
        answer = await say(store, room, "anna", second)

        # It cannot have reached anybody: there was nobody to connect to.
        assert isinstance(answer, StoreUnavailable)
        assert answer.definite
        assert time.monotonic() - began_s < CALL_S_MAX + 2.0

        await own.start()
        assert await in_the_end(store, room, second) == 1


async def test_killed_server_loses_nothing_and_doubles_nothing(own: EmbeddedStore) -> None:
    async with running_store(own.url) as store:
        room = await a_room(store)
        before = await store.read_room(room)
        assert before is not None
        sent = comments(400)
        told = [asyncio.ensure_future(in_the_end(store, room, command)) for command in sent[:200]]
        pid = own.pid
        assert pid is not None
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        for command in sent[200:]:
            told.append(asyncio.ensure_future(in_the_end(store, room, command)))
            await asyncio.sleep(0)

        numbers = await asyncio.gather(*told)

        assert own.pid != pid
        assert sorted(numbers) == list(range(1, 401))
        # Asked once more, each comment still has its number.
        assert await asyncio.gather(*(in_the_end(store, room, command) for command in sent)) == numbers
        stats = await store.stats(room)
        assert stats is not None
        assert stats["comments"] == 400
        after = await store.read_room(room)
        assert after is not None
        assert (after.epoch, after.seq) == (before.epoch, before.seq)


async def test_facts_go_on_in_the_same_epoch_after_a_kill(own: EmbeddedStore) -> None:
    async with running_store(own.url) as store:
        assert store.durable
        room = await a_room(store)
        await ask(store, room, c.SetNotice(key=fresh_key(), text="before"), "boss", STREAMER)
        before = await store.facts_since(room, 0)
        assert before is not None
        pid = own.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        # Asked while the server is away, so it waits for the one that comes next.
        command = c.SetNotice(key=fresh_key(), text="after")
        await insist(lambda: ask(store, room, command, "boss", STREAMER))

        after = await store.facts_since(room, 0)
        assert after is not None
        assert own.pid != pid
        assert (after[0], after[1]) == (before[0], before[1] + 1)
        assert after[3][: len(before[3])] == before[3]


async def test_likes_flushed_during_a_kill_count_once(own: EmbeddedStore) -> None:
    async with running_store(own.url) as store:
        room = await a_room(store)
        for flush in range(1, 31):
            if flush == 10:
                assert own.pid is not None
                os.kill(own.pid, signal.SIGKILL)
            answer = await insist(partial(add_likes, store, room, "w", flush, 7))
            assert answer == str(7 * flush).encode()


async def test_connection_that_is_cut_is_made_again(store: Store, server: str) -> None:
    room = await a_room(store)
    other = Store(server, store._clock)
    await other.start()
    await other._link.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert await in_the_end(store, room, comments(1)[0]) == 1
    await other.stop()
