"""
One connection to one store node, kept busy.

Decides when a flight of calls leaves, how its failures are told apart, and how often it is tried again. One flight is
under way at a time; it carries every group that gathered meanwhile (`batch.py`) in one pipeline. Where replicas must
hold something before it is answered, the wait for them follows on the same connection, because it is about the writes
of its own connection. In a cluster, a call that belongs elsewhere is given back (`cluster.py`).

Failures: a call whose connection broke is tried again until its deadline, which is safe because every function is
idempotent. After that it fails with `StoreUnavailable`: `definite` when it cannot have reached the store. redis-py's
own retries are off, since they would re-send without knowing that. Library errors do not leave this module.

Source: engine/store/lua/README.md, "Calling convention".
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

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
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError, ResponseError

from engine.errors import EngineFault, StoreUnavailable
from engine.store import keys as names
from engine.store.batch import Done, Group, Queue, Word
from engine.store.functions import Library

log = structlog.stdlib.get_logger(__name__)

FLIGHT_GROUPS_MAX: Final = 64
#: Calls that may wait; more are refused with `overloaded` by the store's callers.
WAITING_CALLS_MAX: Final = 8_000
#: How long a call may take before its caller is told that the outcome is unknown (seconds).
CALL_TIMEOUT_S: Final = 0.9
_RECONNECT_S: Final = 0.03
#: How long replicas may take to hold what is to be acknowledged (seconds); shorter than a call.
REPLICAS_S_MAX: Final = 0.5
#: One wait for them (milliseconds).
REPLICAS_ASK_MS: Final = 50
_MARK_KEPT_MS: Final = 60_000

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


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Which functions are answered only when replicas hold what they wrote."""

    #: As they are called in the source.
    functions: frozenset[str] = frozenset()
    #: How many replicas; 0 waits for none.
    replicas: int = 0


class Surroundings(Protocol):
    """What a link of a cluster asks of the others; `cluster.py` is one."""

    def belongs(self, link: "Link", group: Group) -> bool:
        """Tell whether a link is still the one for a group."""
        ...

    def hand_over(self, group: Group) -> None:
        """Give a group to the link of its slot's present owner."""
        ...

    def moved(self, slot: int, host: str, port: int) -> None:
        """Learn that a slot is elsewhere, for good."""
        ...

    def ask_there(self, group: Group, host: str, port: int) -> None:
        """Ask one group elsewhere, this once."""
        ...

    def failed(self) -> None:
        """Learn that a node is out of reach, or may not serve."""
        ...


_PLACE: Final = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:,\s]+)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE: Final = re.compile(r"/[0-9]*")


def _refuse_odd_url(parts: SplitResult) -> None:
    """Raise ValueError for what redis-py would pass over in silence, or quote: it may be a part of the password."""
    place = parts.netloc.rpartition("@")[2]
    if parts.fragment:
        raise ValueError("the URL has a #; in a password it is written %23")
    if parts.scheme == "unix":
        if place or not parts.path.strip("/"):
            raise ValueError("the URL of a unix socket is unix:///path, with three slashes")
        return
    found = _PLACE.fullmatch(place)
    if found is None or (found["port"] and not 0 < int(found["port"]) < 65_536):
        hint = (
            "; in a password, / is written %2F, ? is %3F and # is %23"
            if "@" in parts.path + parts.query
            else ""
        )
        raise ValueError(f"what it connects to must be host:port, with a port from 1 to 65535{hint}")
    if parts.path and not _DATABASE.fullmatch(parts.path):
        raise ValueError("the path of the URL must be the number of a database, such as /0")


def make_connection(url: str) -> AbstractConnection:
    """
    Return an unconnected connection to `url`: redis://, rediss:// or unix://.

    RESP2 because push messages of RESP3 leak in hiredis-py; retries and timeouts are this module's business.

    Raises:
        ValueError: If the URL is not one of a store; nothing of it is quoted.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("it is not a URL") from None
    _refuse_odd_url(parts)
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise ValueError("the URL has an option with a value it cannot have") from None
    kind: type[AbstractConnection] = options.pop("connection_class", Connection)
    assert kind in (Connection, SSLConnection, UnixDomainSocketConnection)
    options.update(
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=CALL_TIMEOUT_S,
        socket_read_size=256 * 1024,
    )
    try:
        return kind(**options)
    except TypeError:
        raise ValueError("the URL has an option that connections do not have") from None


_ASKING: Final = pack_command(("ASKING",))


class Link:
    """Calls functions on one node. Every method but `start` and `stop` returns at once."""

    def __init__(
        self,
        url: str,
        library: Library,
        *,
        on_connected: Callable[["Link"], Awaitable[None]] | None = None,
        acknowledged: Acknowledged = Acknowledged(),
        cluster: Surroundings | None = None,
    ):
        self._url = url
        self._library = library
        self._on_connected = on_connected
        self._acknowledged = acknowledged
        self._cluster = cluster
        #: Replication id of the node, the one that functions are told is vouched for, and how replicas are waited for;
        #: set by `on_connected`.
        self.replid = ""
        self.vouched = ""
        self.wait: tuple[str | int, ...] = ()
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
        #: Whether enough replicas had the last thing they were waited for with.
        self._replicas_in_step = True
        #: Whether a restart of the node cannot lose anything it acknowledged; set by `on_connected`.
        self.durable = False
        #: False from the first failure until the next reply.
        self.healthy = False
        #: Flights and calls done, for metrics.
        self.flights = 0
        self.calls = 0

    async def prepare(self) -> None:
        """Find the nodes: there is one, and its address is known."""

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
        self.begin()

    def begin(self) -> None:
        """Begin to serve calls; connect when the first one comes, or before."""
        self._task = asyncio.create_task(self._serve(), name="store-link")
        if self._connection is None:
            self._connect_soon()

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
    def running(self) -> bool:
        """Whether calls are served."""
        return self._task is not None

    @property
    def waiting(self) -> int:
        """Calls that have not left yet."""
        return self._queue.calls

    @property
    def links(self) -> "list[Link]":
        """This one link, where a cluster has several."""
        return [self]

    def link_of(self, key: Word) -> "Link":
        """Return the link for a key: this one."""
        return self

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

    def take_over(self, group: Group) -> None:
        """Serve a group that another link has given up."""
        self._queue.put(group)
        self._wake.set()

    async def command(self, *words: Word) -> list[Any]:
        """
        Send one plain command, such as CONFIG or INFO, on a connection of its own. For start-up and checks only.

        Returns:
            The reply of each node, here one.

        Raises:
            StoreUnavailable: If the store cannot be reached or refuses the command.
        """
        return [await ask_once(self._url, *words)]

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
        await asyncio.shield(self._connect_soon())

    def _connect_soon(self) -> "asyncio.Task[None]":
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name="store-connect")
            # Whoever waits is told why it failed; that nobody waits is no error.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._connecting

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
        while flight := self._drop_late(self._keep_ours(flight)):
            try:
                async with asyncio.timeout_at(self._flight_deadline(flight)) as limit:
                    if self._connection is None:
                        await self._reconnect()
                    flight = await self._exchange(flight, limit)
                self.healthy = True
            except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
                if self.healthy:
                    log.warning("store.lost", error=str(error) or type(error).__name__)
                self.healthy = False
                await self._disconnect()
                if self._cluster is not None:
                    self._cluster.failed()
            if flight := self._keep_ours(flight):
                await asyncio.sleep(_RECONNECT_S)

    def _flight_deadline(self, flight: list[Group]) -> float:
        """
        Return when to give a flight up that gets no answer at all.

        A store that answered last time is given a full timeout, and another one after each answer: under load the
        oldest call of a flight may have waited long, and dropping a working connection for it would only make
        everybody's wait longer. A store that did not answer must not make the calls of this flight later than promised,
        connecting included.
        """
        if self.healthy:
            return self._loop.time() + CALL_TIMEOUT_S
        return min(group.deadline for group in flight)

    async def _exchange(self, flight: list[Group], limit: asyncio.Timeout) -> list[Group]:
        """Send a flight and settle the groups that got a final answer; return those to try again."""
        connection = self._connection
        assert connection is not None
        # Not by the connection: redis-py packs in Python, ten times as slowly, and a flight has thousands of words.
        packed: list[bytes] = []
        for group in list(flight):
            words = tuple(group.words(self._library.function(group.function), self.vouched))
            try:
                if group.asking:
                    packed.append(_ASKING)
                packed.append(pack_command(words))  # type: ignore[arg-type]
            except Exception:
                # A word that cannot be written costs its own group, not everybody's flight.
                log.exception("store.unwritable_call", function=group.function)
                flight.remove(group)
                _settle(group, error=EngineFault(f"{group.function} cannot be written"))
        again: list[Group] = []
        missing = demoted = False
        unanswered = list(flight)
        # Answered, and not yet known to be where it must be.
        unsafe: list[tuple[Group, Any]] = []
        watched = self._watched(flight)
        marks = [] if watched is None else self._packed_mark(watched)
        packed += marks
        try:
            await connection.send_packed_command(packed, check_health=False)
            for group in flight:
                try:
                    if group.asking:
                        group.asking = False
                        await self._read_asking(connection)
                    reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
                except ResponseError as error:
                    unanswered.remove(group)
                    text = str(error)
                    if "Function not found" in text:
                        missing = True
                        again.append(group)
                    # To redis-py, MOVED is a kind of ASK.
                    elif self._cluster is not None and isinstance(error, MovedError):
                        self._cluster.moved(error.slot_id, self._host_in(error), error.port)
                        again.append(group)
                    elif self._cluster is not None and isinstance(error, AskError):
                        self._cluster.ask_there(group, self._host_in(error), error.port)
                    elif text.startswith(_NOT_NOW) or _is_not_now(error):
                        again.append(group)
                        demoted = demoted or isinstance(error, ReadOnlyError)
                        if self._cluster is not None:
                            self._cluster.failed()
                    else:
                        log.error("store.function_failed", function=group.function, error=text)
                        _settle(group, error=EngineFault(f"{group.function} failed"))
                    continue
                # Busy is not gone.
                limit.reschedule(self._loop.time() + CALL_TIMEOUT_S)
                if marks and group.function in self._acknowledged.functions:
                    unsafe.append((group, reply))
                    continue
                unanswered.remove(group)
                self.calls += len(group.waiting)
                _settle(group, reply=reply)
            if marks:
                safe = await self._are_replicated(connection, len(marks))
                for group, reply in unsafe:
                    unanswered.remove(group)
                    self.calls += len(group.waiting)
                    if safe:
                        _settle(group, reply=reply)
                    else:
                        too_few = "too few replicas hold it yet"
                        _settle(group, error=StoreUnavailable(too_few, definite=False))
        except BaseException:
            # What got no answer may have been done, and stays so: a later "not now" says nothing about this try.
            for group in unanswered:
                group.maybe_done = True
            flight[:] = [*again, *unanswered]
            raise
        self.flights += 1
        flight[:] = again
        if demoted:
            # A replica now: by the next try the address may lead to the server that took its place.
            await self._disconnect()
        elif missing:
            await self._load_library(connection)
        return again

    def _host_in(self, error: AskError) -> str:
        """Return where a redirection leads; a node that does not know a host means the one it was reached at."""
        host: str = error.host
        return host if host not in ("", "?") else urlsplit(self._url).hostname or host

    @staticmethod
    async def _read_asking(connection: AbstractConnection) -> None:
        """Read the reply of ASKING. What the call itself is told follows it in any case, and says more."""
        try:
            await connection.read_response(disable_decoding=True, timeout=math.inf)
        except ResponseError as error:
            log.warning("store.asking_refused", error=str(error))

    def _watched(self, flight: list[Group]) -> Group | None:
        """Return a group whose answer must wait for replicas, if there is one."""
        if not self.wait:
            return None
        return next((group for group in flight if group.function in self._acknowledged.functions), None)

    def _packed_mark(self, watched: Group) -> list[bytes]:
        """
        Return the command that marks the end of what replicas must hold.

        The wait is about this connection's last write only, and a repeated call writes nothing: the write it stands for
        may have come by another connection. The mark is behind all of them.
        """
        mark: tuple[str | int, ...] = ("SET", names.mark(str(watched.keys[0])), 1, "PX", _MARK_KEPT_MS)
        packed = pack_command(mark)  # type: ignore[arg-type]
        return [_ASKING, packed] if watched.asking else [packed]

    async def _are_replicated(self, connection: AbstractConnection, marks: int) -> bool:
        """
        Read the `marks` replies of the mark, then wait; tell whether enough replicas hold what was written.

        The wait follows the answers: asked in one breath with the writes, a replica tells what it had on disk before
        them, and tells again only after a second (Valkey 9.1). Each wait asks it anew.
        """
        marked = True
        for _ in range(marks):
            try:
                await connection.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as error:
                log.warning("store.not_marked", error=str(error))
                marked = False
        if not marked:
            return False
        # A replica that was missing a moment ago is asked for once: what needs none must not wait behind it.
        patience_s = REPLICAS_S_MAX if self._replicas_in_step else 0.0
        deadline = self._loop.time() + patience_s
        while True:
            await connection.send_command(*self.wait, check_health=False)
            held = await connection.read_response(disable_decoding=True, timeout=math.inf)
            if isinstance(held, list):
                enough = int(held[0]) >= 1 and int(held[1]) >= self._acknowledged.replicas
            else:
                enough = int(held) >= self._acknowledged.replicas
            if enough or self._loop.time() >= deadline:
                if enough != self._replicas_in_step:
                    log.warning("store.replicas", in_step=enough, wanted=self._acknowledged.replicas)
                self._replicas_in_step = enough
                return enough

    def _keep_ours(self, flight: list[Group]) -> list[Group]:
        """Return the groups that still belong here; the others go to the node that owns them now."""
        if self._cluster is None:
            return flight
        kept = []
        for group in flight:
            if self._cluster.belongs(self, group):
                kept.append(group)
            else:
                self._cluster.hand_over(group)
        return kept

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


async def ask_once(url: str, *words: Word, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """
    Send one plain command on a connection of its own and return the reply. For start-up and checks only.

    Raises:
        StoreUnavailable: If the node cannot be reached or refuses the command.
    """
    connection = make_connection(url)
    try:
        async with asyncio.timeout(timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*words)
            return await connection.read_response(disable_decoding=True, timeout=math.inf)
    except (RedisError, OSError, TimeoutError) as error:
        # Which command met it says something only when the node refused that command.
        refused = f"{words[0]!s}: " if isinstance(error, ResponseError) else ""
        raise StoreUnavailable(refused + (str(error) or "no answer in time")) from error
    finally:
        await connection.disconnect()


def _is_not_now(error: ResponseError) -> bool:
    """Tell whether redis-py turned the reply's code into the error's class and dropped it from the text."""
    name = type(error).__name__.upper()
    return any(
        name.startswith(code)
        for code in ("BUSYLOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OUTOFMEMORY", "TRYAGAIN")
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
