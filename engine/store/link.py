"""
One connection to one store node, kept busy.

Decides when a flight of calls leaves, how its failures are told apart, and how often it is tried again. One flight is
under way at a time; it carries every group that gathered meanwhile (`batch.py`) in one pipeline.

Failures: a call whose connection broke is tried again until its deadline, which is safe because every function is
idempotent. After that it fails with `StoreUnavailable`: `definite` when it cannot have reached the store. redis-py's
own retries are off, since they would re-send without knowing that. Library errors do not leave this module.

Source: engine/store/lua/README.md, "Calling convention".
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from hiredis import pack_command
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from engine.errors import EngineFault, StoreUnavailable
from engine.store.batch import Done, Group, Queue, Word
from engine.store.functions import Library

log = structlog.stdlib.get_logger(__name__)

FLIGHT_GROUPS_MAX: Final = 64
#: Calls that may wait; more are refused with `overloaded` by the store's callers.
WAITING_CALLS_MAX: Final = 8_000
#: How long a call may take before its caller is told that the outcome is unknown (seconds).
CALL_TIMEOUT_S: Final = 0.9
_RECONNECT_S: Final = 0.03

#: Error replies that say "not now", before anything ran.
_NOT_NOW: Final = (
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "READONLY",
    "TRYAGAIN",
    "NOREPLICAS",
    "MISCONF",
    "OOM",
)


def make_connection(url: str) -> AbstractConnection:
    """
    Return an unconnected connection to `url`: redis://, rediss:// or unix://.

    RESP2 because push messages of RESP3 leak in hiredis-py; retries and timeouts are this module's business.

    Raises:
        ValueError: If the URL is not one of a store.
    """
    options: dict[str, Any] = dict(parse_url(url))
    kind: type[AbstractConnection] = options.pop("connection_class", Connection)
    assert kind in (Connection, SSLConnection, UnixDomainSocketConnection)
    options.update(
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=CALL_TIMEOUT_S,
        socket_read_size=256 * 1024,
    )
    return kind(**options)


class Link:
    """Calls functions on one node. Every method but `start` and `stop` returns at once."""

    def __init__(
        self, url: str, library: Library, *, on_connected: Callable[["Link"], Awaitable[None]] | None = None
    ):
        self._url = url
        self._library = library
        self._on_connected = on_connected
        self._connection: AbstractConnection | None = None
        #: Of the connection, which forgets it when a send is cancelled.
        self._transport: asyncio.WriteTransport | None = None
        #: The connection being made, until it is fit for flights.
        self._opening: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._queue = Queue()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        #: False from the first failure until the next reply.
        self.healthy = False
        #: Flights and calls done, for metrics.
        self.flights = 0
        self.calls = 0

    async def start(self) -> None:
        """
        Connect, load the library, begin to serve calls.

        Raises:
            StoreUnavailable: If the store cannot be reached.
        """
        try:
            await self._connect()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"cannot reach the store: {error}") from error
        self._task = asyncio.create_task(self._serve(), name="store-link")

    async def stop(self) -> None:
        """Finish the flight under way and what has gathered, then disconnect. Not safe to call twice at once."""
        task, self._task = self._task, None
        if task is not None:
            self._wake.set()
            await task
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._disconnect()

    @property
    def waiting(self) -> int:
        """Calls that have not left yet."""
        return self._queue.calls

    def call(self, function: str, keys: tuple[Word, ...], args: tuple[Word, ...], done: Done) -> None:
        """Call a function alone. `done` is called once, later."""
        self._queue.add(function, keys, args, done, self._loop.time() + CALL_TIMEOUT_S)
        self._wake.set()

    def merge(
        self,
        function: str,
        keys: tuple[Word, ...],
        args: tuple[Word, ...],
        item_keys: tuple[Word, ...],
        item_args: tuple[Word, ...],
        done: Done,
        group: Word = "",
    ) -> None:
        """Call a function together with other callers of it. `done` is called once, later."""
        deadline = self._loop.time() + CALL_TIMEOUT_S
        self._queue.merge(function, keys, args, item_keys, item_args, done, deadline, group)
        self._wake.set()

    async def command(self, *words: Word) -> Any:
        """
        Send one plain command on a connection of its own, such as CONFIG or INFO. For start-up and checks only.

        Raises:
            StoreUnavailable: If the store cannot be reached or refuses the command.
        """
        connection = make_connection(self._url)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command(*words)
                return await connection.read_response(timeout=math.inf)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"{words[0]!s}: {error}") from error
        finally:
            await connection.disconnect()

    async def ask(self, *words: Word) -> Any:
        """
        Send one plain command ahead of every flight; for `on_connected` only.

        Raises:
            StoreUnavailable: If the store refuses the command.
        """
        assert self._opening is not None
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._opening.send_command(*words, check_health=False)
            try:
                return await self._opening.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as error:
                raise StoreUnavailable(f"{words[0]!s}: {error}") from error

    async def _connect(self) -> None:
        connection = make_connection(self._url)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
            await self._load_library(connection)
            if self._on_connected is not None:
                self._opening = connection
                await self._on_connected(self)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._opening = None
        assert connection._writer is not None
        self._connection, self._transport = connection, connection._writer.transport
        self.healthy = True

    async def _reconnect(self) -> None:
        """Connect in a task of its own: a flight may run out of time meanwhile, and the next one waits on."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name="store-connect")
            # Whoever waits is told why it failed; that nobody waits is no error.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._connecting)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if self._transport is not None:
            # Closing would wait until the store has taken what is still unsent, which a stopped one never does.
            self._transport.abort()
            self._transport = None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _load_library(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await connection.send_command("FUNCTION", "LOAD", self._library.text)
            try:
                await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                if "already exists" not in str(error):
                    raise

    async def _serve(self) -> None:
        while True:
            if not self._queue:
                if self._task is None:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            flight = self._queue.take(FLIGHT_GROUPS_MAX)
            try:
                await self._fly(flight)
            except Exception:
                # Without this task nobody is ever answered again, so a bug costs its flight and no more.
                log.exception("store.flight_failed")
                await self._disconnect()
                for group in flight:
                    _settle(group, error=EngineFault("the flight failed"))

    async def _fly(self, flight: list[Group]) -> None:
        """Carry a flight to the store and back, again if need be, until each group is answered or too late."""
        while flight := self._drop_late(flight):
            try:
                async with asyncio.timeout_at(self._flight_deadline(flight)):
                    if self._connection is None:
                        await self._reconnect()
                    flight = await self._exchange(flight)
                self.healthy = True
            except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
                if self.healthy:
                    log.warning("store.lost", error=str(error) or type(error).__name__)
                self.healthy = False
                await self._disconnect()
            if flight:
                await asyncio.sleep(_RECONNECT_S)

    def _flight_deadline(self, flight: list[Group]) -> float:
        """
        Return when to give a flight up.

        A store that answered last time is given a full timeout: under load the oldest call of a flight may have waited
        long, and dropping a working connection for it would only make everybody's wait longer. A store that did not
        answer must not make the calls of this flight later than promised, connecting included.
        """
        if self.healthy:
            return self._loop.time() + CALL_TIMEOUT_S
        return min(group.deadline for group in flight)

    async def _exchange(self, flight: list[Group]) -> list[Group]:
        """Send a flight and settle the groups that got a final answer; return those to try again."""
        connection = self._connection
        assert connection is not None
        # Not by the connection: redis-py packs in Python, ten times as slowly, and a flight has thousands of words.
        packed: list[bytes] = []
        for group in list(flight):
            words = tuple(group.words(self._library.function(group.function)))
            try:
                packed.append(pack_command(words))  # type: ignore[arg-type]
            except Exception:
                # A word that cannot be written costs its own group, not everybody's flight.
                log.exception("store.unwritable_call", function=group.function)
                flight.remove(group)
                _settle(group, error=EngineFault(f"{group.function} cannot be written"))
        again: list[Group] = []
        missing = False
        unanswered = list(flight)
        try:
            await connection.send_packed_command(packed, check_health=False)
            for group in flight:
                try:
                    reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
                except ResponseError as error:
                    unanswered.remove(group)
                    text = str(error)
                    if "Function not found" in text:
                        missing = True
                        again.append(group)
                    elif text.startswith(_NOT_NOW) or _is_not_now(error):
                        again.append(group)
                    else:
                        log.error("store.function_failed", function=group.function, error=text)
                        _settle(group, error=EngineFault(f"{group.function} failed"))
                    continue
                unanswered.remove(group)
                self.calls += len(group.waiting)
                _settle(group, reply=reply)
        except BaseException:
            # What got no answer may have been done, and stays so: a later "not now" says nothing about this try.
            for group in unanswered:
                group.maybe_done = True
            flight[:] = [*again, *unanswered]
            raise
        self.flights += 1
        flight[:] = again
        if missing:
            await self._load_library(connection)
        return again

    def _drop_late(self, flight: list[Group]) -> list[Group]:
        now = self._loop.time()
        kept = []
        for group in flight:
            if group.deadline > now:
                kept.append(group)
            else:
                _settle(
                    group, error=StoreUnavailable("the store does not answer", definite=not group.maybe_done)
                )
        return kept


async def _drop(connection: AbstractConnection) -> None:
    """Close a connection and forget what it has not sent: a stopped server would keep it open for that."""
    if connection._writer is not None:
        connection._writer.transport.abort()
    await connection.disconnect(nowait=True)


def _is_not_now(error: ResponseError) -> bool:
    """Tell whether redis-py turned the reply's code into the error's class and dropped it from the text."""
    name = type(error).__name__.upper()
    return any(
        name.startswith(code)
        for code in ("BUSYLOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OUTOFMEMORY")
    )


def _settle(group: Group, reply: Any = None, error: Exception | None = None) -> None:
    """Answer a group's callers; a bug in one of them must not take the others, or the link, down."""
    try:
        answers = list(group.answers(reply, error))
    except Exception as fault:
        log.exception("store.bad_reply", function=group.function)
        error = EngineFault(f"{group.function} failed: {fault}")
        answers = list(group.answers(None, error))
    for done, header, own in answers:
        try:
            done(header, own, error)
        except Exception:
            log.exception("store.callback_failed", function=group.function)
