"""
Real stores for tests, and the tools to look into them.

Decides how a server is started for a test run (embedded Valkey; Debian's Redis when it is on the PATH), how functions
are called by hand, and what a room looks like as plain values. Does not know what a function should do: that is for
the tests. The fixtures stand in `tests/conftest.py`.

A server of the session runs on a thread with a loop of its own, because each test has its own loop. Rooms have fresh
random ids full of `-`, `.` and `_`, so tests share a server without seeing each other.
"""

import asyncio
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import redis
from redis.client import PubSub

from engine.clock import StoreClock
from engine.gateway.console import Actor, Console
from engine.rooms.fragments import comment_body, fingerprint
from engine.rooms.words import WordFilter
from engine.store.embedded import EmbeddedStore, parse_version
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Answer, LikesAnswer, Store
from engine.timers import Note
from protocol.commands import Command, PostComment

REDIS_VERSION_MIN: Final = (7, 0)


def find_redis() -> tuple[Path | None, str]:
    """Return Debian's redis-server when it is new enough, else None and why not."""
    found = shutil.which("redis-server")
    if found is None:
        return None, "no redis-server on the PATH"
    output = subprocess.run([found, "--version"], capture_output=True, check=True, text=True).stdout
    version = parse_version(output)
    if version is None or version[1] < REDIS_VERSION_MIN:
        return None, f"{found} is older than 7.0: {output.strip()}"
    return Path(found), ""


REDIS_SERVER, NO_REDIS = find_redis()


class ServerThread:
    """An embedded store that outlives a test's loop."""

    def __init__(self, data_dir: Path, binary: Path | None) -> None:
        self._data_dir = data_dir
        self._binary = binary
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="store-under-test")
        self.url = ""

    def start(self) -> None:
        """Return once the server answers. Raises what kept it from doing so."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End the server."""
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = EmbeddedStore(self._data_dir, binary=self._binary)
        try:
            self.url = await server.start()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await server.stop()


@asynccontextmanager
async def running_store(url: str) -> AsyncIterator[Store]:
    """A `Store` on the server at `url`, stopped at the end."""
    store = Store(url, StoreClock())
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def until(what: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for `what` to hold, looking often."""
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "deadline passed"
        await asyncio.sleep(0.002)


def until_now(what: Callable[[], bool], seconds: float = 30) -> None:
    """Do the same without a loop."""
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "deadline passed"
        time.sleep(0.002)


def fresh_room() -> RoomKey:
    """Return a room nobody else uses, with every character in its names that a Lua pattern would misread."""
    return RoomKey("t-1.a_b", f"r-{secrets.token_hex(6)}.x_y")


def fresh_key() -> str:
    """Return an idempotency key nobody else uses."""
    return f"k-{secrets.token_hex(8)}_"


# --- looking into a room --------------------------------------------------------------------------------------

_READERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "hash": lambda client, key: client.hgetall(key),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": lambda client, key: client.xrange(key),
    "string": lambda client, key: client.get(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
}


def dump_keys(client: "redis.Redis[str]", prefix: str) -> dict[str, Any]:
    """Return every key that starts with `prefix`, with its whole value."""
    found = {}
    for key in sorted(client.scan_iter(f"{prefix}*", count=1_000)):
        found[key.removeprefix(prefix)] = _READERS[client.type(key)](client, key)
    return found


class Wire:
    """What a room publishes, in order."""

    def __init__(self, client: "redis.Redis[str]", channel: str) -> None:
        self._client = client
        self._channel = channel
        self._pubsub: PubSub = client.pubsub()
        self._pubsub.ssubscribe(channel)
        self._read("ssubscribe")

    def _read(self, kind: str) -> str:
        give_up = time.monotonic() + 5
        while time.monotonic() < give_up:
            message = self._pubsub.get_message(timeout=1)
            if message is not None and message["type"] == kind:
                return str(message["data"])
        raise AssertionError(f"no {kind} within 5 s")

    def read(self) -> list[tuple[str, str]]:
        """Return the messages since the last look as (header, payload)."""
        marker = f"end {secrets.token_hex(4)}"
        self._client.spublish(self._channel, marker)
        messages = []
        while (message := self._read("smessage")) != marker:
            header, _, payload = message.partition("\n")
            messages.append((header, payload))
        return messages

    def close(self) -> None:
        """Stop listening."""
        self._pubsub.close()


#: The rank that stands for each role, as the functions see it.
VIEWER, AGENT, MODERATOR, STREAMER, OWNER = range(5)


class LuaRoom:
    """One room, its functions called by hand with the keys and arguments of their headers."""

    def __init__(
        self,
        client: "redis.Redis[str]",
        *,
        created: bool = True,
        state: str = "scheduled",
        key: RoomKey | None = None,
    ) -> None:
        self.client = client
        self.key = key or fresh_room()
        self.names = RoomKeys(self.key)
        self.replid = str(client.info("replication")["master_replid"])
        #: What the engine says of the store's history; by default it vouches for it.
        self.vouched = self.replid
        self.wire = Wire(client, self.names.bus)
        self._flush = 0
        if created:
            assert self.put() == ["created"]
        if state != "scheduled":
            client.hset(self.names.meta, "state", state)

    def call(self, function: str, keys: list[str], args: list[Any]) -> Any:
        """Call one function."""
        return self.client.fcall(library().function(function), len(keys), *keys, *args)

    @property
    def base(self) -> list[str]:
        """The three keys every function of a room begins with."""
        return [self.names.meta, self.names.log, self.names.bus]

    def now(self) -> int:
        """Return the store's time (milliseconds)."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    @property
    def board(self) -> list[str]:
        """The keys of the share board, in the order of `shares.lua`."""
        n = self.names
        return [n.inviters, n.board, n.names, n.invited, n.reached, n.dwelling, n.shares]

    # -- functions ---------------------------------------------------------------------------------------------

    def put(self, body: str = '"title":"Tea"', *, slow_ms: int = 0, kept_ms: int = 600_000) -> Any:
        return self.call("room_put", self.base, [self.vouched, "e0", body, slow_ms, kept_ms, "code0000", 0])

    def console(
        self,
        function: str,
        *args: Any,
        keys: tuple[str, ...] = (),
        actor: str = "boss-1.x",
        rank: int = STREAMER,
        key: str | None = None,
        fingerprint: str = "f1",
        command: str | None = None,
        body: str = '{"what":"asked"}',
    ) -> Any:
        """Call a console function; each call has a fresh idempotency key unless one is given."""
        command = command or function.replace("_", ".", 1)
        key = key or fresh_key()
        names = [*self.base, self.names.audit, self.names.idempotency(actor, command, key), *keys]
        who = [self.vouched, fingerprint, actor, rank, command, key, body]
        return self.call(function, names, [*who, *args])

    def step(self, origins: str, target: str, **who: Any) -> Any:
        return self.console("room_step", f",{origins},", target, **who)

    def settle(self) -> Any:
        return self.call("room_settle", [*self.base, self.names.sales, self.names.packets], [self.vouched, 0])

    def notice(self, text: str, version: int | str = "", **who: Any) -> Any:
        body = f'"text":{orjson.dumps(text).decode()}'
        return self.console("notice_set", body, int(not text), version, **who)

    def put_item(
        self, item: str, sort: int | str = "", *, cents: int = 100, most: int = 500, **who: Any
    ) -> Any:
        body = f'"item":"{item}","title":"{item}!","price_cents":{cents}'
        own = (self.names.items, self.names.shelf)
        return self.console("item_put", item, body, sort, most, keys=own, **who)

    def remove_item(self, item: str, **who: Any) -> Any:
        return self.console("item_remove", item, keys=(self.names.items, self.names.shelf), **who)

    def explain(self, item: str, **who: Any) -> Any:
        return self.console("item_explain", item, keys=(self.names.items,), **who)

    def unexplain(self, item: str, **who: Any) -> Any:
        return self.console("item_unexplain", item, **who)

    def mute(self, viewer: str, seconds: int = 0, **who: Any) -> Any:
        return self.console("viewer_mute", viewer, seconds, keys=(self.names.mutes, self.names.staff), **who)

    def unmute(self, viewer: str, **who: Any) -> Any:
        return self.console("viewer_unmute", viewer, keys=(self.names.mutes, self.names.staff), **who)

    def remove(self, viewer: str, how: str, **who: Any) -> Any:
        own = (self.names.bans, self.names.staff, *self.board)
        return self.console("viewer_remove", viewer, how, keys=own, **who)

    def unban(self, viewer: str, **who: Any) -> Any:
        return self.console(
            "viewer_unban", viewer, keys=(self.names.bans, self.names.staff, *self.names.board_keys), **who
        )

    def mute_all(self, on: bool, **who: Any) -> Any:
        return self.console("room_mute_all", int(on), **who)

    def post(
        self, *comments: tuple[str, int, str, str, str], cost_ms: int = 0, burst_ms: int = 0
    ) -> list[list[str]]:
        """Post comments, each (viewer, rank, key, fingerprint, text), in one batch; return their replies."""
        keys = [*self.base, self.names.comments, self.names.mutes, self.names.rates]
        args: list[Any] = [self.vouched, cost_ms, burst_ms]
        for viewer, rank, key, digest, text in comments:
            keys.append(self.names.idempotency(viewer, "comment.send", key))
            words = orjson.dumps(text).decode()
            args += [viewer, rank, digest, f'"from":{{"id":"{viewer}"}},"text":{words}']
        replies = self.call("comment_post", keys, args)
        assert len(replies) == len(comments) + 1
        return [list(reply) for reply in replies[1:]]

    def say(
        self, viewer: str, text: str = "hi", *, rank: int = VIEWER, key: str | None = None, fingerprint: str = "f1",
        cost_ms: int = 0, burst_ms: int = 0,
    ) -> list[str]:  # fmt: skip
        """Post one comment and return its reply."""
        comment = (viewer, rank, key or fresh_key(), fingerprint, text)
        return self.post(comment, cost_ms=cost_ms, burst_ms=burst_ms)[0]

    def delete_comment(self, comment: int | str, **who: Any) -> Any:
        return self.console("comment_delete", comment, keys=(self.names.comments,), **who)

    def pin(self, comment: int | str, **who: Any) -> Any:
        return self.console("comment_pin", comment, keys=(self.names.comments,), **who)

    def unpin(self, comment: int | str, **who: Any) -> Any:
        return self.console("comment_unpin", comment, **who)

    def like(
        self,
        likes: int,
        *rated: tuple[str, int],
        worker: str = "w",
        flush: int | None = None,
        cost_ms: int = 200,
        burst_ms: int = 1_800,
    ) -> Any:
        """Add likes of nobody in particular, and those of commands, each (viewer, likes)."""
        if flush is None:
            self._flush = flush = self._flush + 1
        keys = [*self.base, self.names.like_flushes, self.names.like_rates]
        words = [word for command in rated for word in command]
        return self.call("likes_add", keys, [self.vouched, worker, flush, likes, cost_ms, burst_ms, *words])

    def join(self, worker: str, *arrivals: tuple[str, int, int, str], most: int = 5) -> Any:
        """Let viewers in, each (viewer, connection, rank, entry); return the header and the replies."""
        n = self.names
        keys = [
            *self.base, n.present, n.leases, n.present_on(worker), n.viewers, n.entries, n.bans, n.mutes, n.staff,
            *self.board, n.viewer_orders, n.orders, n.viewer_grabs,
        ]  # fmt: skip
        args: list[Any] = [self.vouched, worker, most]
        for viewer, connection, rank, entry in arrivals:
            # Nobody comes through a share link here.
            args += [viewer, connection, rank, entry, f'"{viewer}!"', f'{{"id":"{viewer}"}}', "", "", "-"]
        return self.call("room_join", keys, args)

    def enter(
        self, worker: str, viewer: str, connection: int = 1, rank: int = VIEWER, entry: str = "app"
    ) -> Any:
        """Let one viewer in and return the reply."""
        return self.join(worker, (viewer, connection, rank, entry))[1]

    def leave(self, worker: str, *connections: tuple[str, int]) -> Any:
        keys = [*self.base, self.names.present, self.names.present_on(worker)]
        return self.call(
            "room_leave", keys, [self.vouched, worker, *(w for pair in connections for w in pair)]
        )

    def beat(self, worker: str) -> Any:
        keys = [*self.base, self.names.present, self.names.leases]
        return self.call("presence_beat", keys, [self.vouched, worker])

    def purge(self, worker: str) -> Any:
        keys = [*self.base, self.names.present, self.names.leases, self.names.present_on(worker)]
        return self.call("presence_purge", keys, [self.vouched, worker])

    def host_check(self, grace_ms: int = 60_000, patience_ms: int = 600_000) -> Any:
        keys = [*self.base, self.names.present, self.names.leases, self.names.staff]
        return self.call("host_check", keys, [self.vouched, grace_ms, patience_ms])

    def read(self, comments: int = 50, facts: int = 1_000) -> Any:
        n = self.names
        own = [n.items, n.shelf, n.comments, n.present, n.sales, n.packets, n.board, n.names]
        return self.call("room_read", [*self.base, *own], [self.vouched, comments, facts, 0])

    def since(self, seq: int, limit: int = 1_000) -> Any:
        return self.call("facts_since", [self.names.meta, self.names.log], [seq, limit])

    # -- looking -----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return every key of the room with its value."""
        return dump_keys(self.client, self.names.prefix)

    def meta(self, field: str) -> str | None:
        return self.client.hget(self.names.meta, field)

    def set_meta(self, **fields: Any) -> None:
        self.client.hset(self.names.meta, mapping=fields)

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts of the log."""
        return [orjson.loads(fields["e"]) for _, fields in self.client.xrange(self.names.log)]

    def audit(self) -> list[dict[str, str]]:
        """Return the audit trail."""
        return [fields for _, fields in self.client.xrange(self.names.audit)]

    def present(self) -> dict[str, list[str]]:
        """Return the connections of each viewer, oldest first."""
        return {viewer: words.split() for viewer, words in self.client.hgetall(self.names.present).items()}

    def expire_lease(self, worker: str) -> None:
        """Let a worker's lease have run out."""
        self.client.zadd(self.names.leases, {worker: self.now() - 1})

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that nothing is written and nothing published inside."""
        self.wire.read()
        before = self.dump()
        yield
        assert self.dump() == before
        assert self.wire.read() == []


# --- through the engine's own mapping ---------------------------------------------------------------------------


def _noted() -> Note:
    note = Note()
    note.settle(None)
    return note


class QuietTimers:
    """In the place of the timers: a room is settled when the test says so."""

    def expect_close(self, room: RoomKey) -> Note:
        """Note nothing."""
        return _noted()

    def settle(self, room: RoomKey) -> None:
        """Leave it to the test."""

    def watch_sale(self, room: RoomKey, sale: str) -> Note:
        """Note nothing."""
        return _noted()

    def watch_packet(self, room: RoomKey, packet: str) -> Note:
        """Note nothing."""
        return _noted()


async def say(
    store: Store, room: RoomKey, viewer: str, command: PostComment, *, rank: int = VIEWER, cost_ms: int = 0
) -> Answer:
    """Post a comment as the gateway does and wait for its answer."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    body = comment_body(command, orjson.dumps({"id": viewer, "name": viewer, "role": "viewer"}))
    store.post_comment(
        RoomKeys(room), viewer, rank, command.key, fingerprint(command), body, cost_ms, 0, answered.set_result
    )
    return await answered


async def like(
    store: Store, room: RoomKey, worker: str, flush: int, likes: int, *rated: tuple[str, int]
) -> LikesAnswer:
    """Send one flush of likes, of nobody in particular and of commands, and wait for its answer."""
    answered: asyncio.Future[LikesAnswer] = asyncio.get_running_loop().create_future()
    store.add_likes(RoomKeys(room), worker, flush, likes, rated, 200, 1_800, answered.set_result)
    return await answered


async def add_likes(store: Store, room: RoomKey, worker: str, flush: int, likes: int) -> Answer:
    """Send one flush of likes of nobody in particular, and return the total."""
    answer = await like(store, room, worker, flush, likes)
    return b"%d" % answer[0] if isinstance(answer, tuple) else answer


async def join(
    store: Store,
    room: RoomKey,
    worker: str,
    viewer: str,
    connection: int,
    rank: int = VIEWER,
    entry: str = "app",
) -> tuple[Any, Any, Exception | None]:
    """Let a viewer in and return the batch's header, the reply, and what went wrong."""
    answered: asyncio.Future[tuple[Any, Any, Exception | None]] = asyncio.get_running_loop().create_future()
    name = orjson.dumps(viewer)
    sender = orjson.dumps({"id": viewer, "name": viewer, "role": "viewer"})
    store.join(
        RoomKeys(room), worker, viewer, connection, rank, entry, name, sender, "", "", "-",
        lambda header, own, error: answered.set_result((header, own, error)),
    )  # fmt: skip
    return await answered


async def leave(store: Store, room: RoomKey, worker: str, viewer: str, connection: int) -> Exception | None:
    """Let a connection go and return what went wrong."""
    answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    done = RoomKeys(room), worker, viewer, connection
    store.leave(*done, lambda _header, _own, error: answered.set_result(error))
    return await answered


async def ask(store: Store, room: RoomKey, command: Command, actor: str, rank: int) -> Answer:
    """Run a console command as the gateway does and wait for its answer."""
    console = Console(store, WordFilter(()), QuietTimers())  # type: ignore[arg-type]
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    console.run(room, command, Actor(actor, rank), answered.set_result)
    return await answered
