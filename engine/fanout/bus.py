"""
Room channels → this worker: one plain connection that subscribes to every room it serves.

Decides when a subscription counts as made, and notices when the connection has died, silently or not. Messages are
handed on as bytes in the order they came; a room that may have missed some is told by `on_reset`. Does not read them.
A node of a cluster may give a channel away; where it went is `cluster_bus.py`'s.

Library errors do not leave this module. Bounds: none of its own; the store cuts off a reader that falls 64 MiB
behind for 60 s, which is a reset like any other.

Source: docs/decisions/0005-bus.md.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import MovedError, RedisError

from engine.store.link import make_connection
from engine.store.topology import slot_of

log = structlog.stdlib.get_logger(__name__)

#: An idle connection is asked for a sign of life this often, and given as long to answer (seconds).
PROBE_S: Final = 5.0
_RECONNECT_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
#: As long as a call to the store may take.
SUBSCRIBE_S_MAX: Final = 0.9


class Bus:
    """Subscriptions of one worker on one store node."""

    def __init__(
        self,
        url: str,
        on_message: Callable[[str, bytes], None],
        on_reset: Callable[[Collection[str]], None],
        *,
        on_moved: Callable[[str], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """
        Prepare; `start` connects.

        Args:
            url: Of the node.
            on_message: Called with channel and payload, in order.
            on_reset: Called when all these channels are subscribed again after a break: messages may be missing.
            on_moved: Called with a channel that the node gave away. It is forgotten here.
            on_lost: Called whenever the node could not be reached or the connection broke.
        """
        self._url = url
        self._on_message = on_message
        self._on_reset = on_reset
        self._on_moved = on_moved
        self._on_lost = on_lost
        self._connection: AbstractConnection | None = None
        #: Channel → waits for its confirmation, done once it is there.
        self._channels: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        #: Channels of a new connection that are not confirmed yet; when none is left, the rooms are told.
        self._unconfirmed: set[str] = set()
        self._broken: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Begin to connect, and to reconnect for as long as it takes."""
        self._task = asyncio.create_task(self._run(), name="bus")

    async def stop(self) -> None:
        """Drop the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def subscribe(self, channel: str) -> None:
        """
        Receive what is published on `channel` from now on. Returns once the store has confirmed it.

        Raises:
            TimeoutError: If the store does not confirm within 0.9 s. The subscription stays wanted.
        """
        confirmed = self._channels.get(channel)
        if confirmed is None:
            confirmed = asyncio.get_running_loop().create_future()
            self._channels[channel] = confirmed
            await self._send("SSUBSCRIBE", channel)
        async with asyncio.timeout(SUBSCRIBE_S_MAX):
            await asyncio.shield(confirmed)

    async def unsubscribe(self, channel: str) -> None:
        """Stop receiving `channel`."""
        if self._channels.pop(channel, None) is not None:
            self._settle(channel)
            await self._send("SUNSUBSCRIBE", channel)

    async def _send(self, *words: str) -> None:
        if self._connection is None or not self._connected.is_set():
            return  # The next connection subscribes to all that is wanted.
        try:
            await self._connection.send_command(*words, check_health=False)
        except (RedisError, OSError):
            pass  # The reader notices too, and reconnects.

    async def _run(self) -> None:
        attempt = 0
        while True:
            broken = attempt > 0
            try:
                connection = make_connection(self._url)
                try:
                    async with asyncio.timeout(PROBE_S):
                        await connection.connect()  # type: ignore[no-untyped-call]
                    self._connection = connection
                    await self._subscribe_all(connection)
                    attempt = 0
                    if broken:
                        log.info("bus.restored", channels=len(self._channels))
                    await self._read(connection)
                finally:
                    self._connection = None
                    self._connected.clear()
                    await connection.disconnect(nowait=True)
            except (RedisError, OSError, TimeoutError) as error:
                if attempt == 0:
                    log.warning("bus.lost", error=str(error) or type(error).__name__)
                if self._on_lost is not None:
                    self._on_lost()
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1

    async def _subscribe_all(self, connection: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        wanted = list(self._channels)
        # A channel whose confirmation never came on the last connection has missed as much as a confirmed one.
        again = bool(self._unconfirmed) or any(future.done() for future in self._channels.values())
        for channel in wanted:
            if self._channels[channel].done():
                self._channels[channel] = loop.create_future()
        self._connected.set()
        self._unconfirmed = set(wanted) if again else set()
        self._broken = frozenset(self._unconfirmed)
        for channel in wanted:
            if channel in self._channels:  # Not given up meanwhile.
                await connection.send_command("SSUBSCRIBE", channel, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand on messages until the connection breaks or stays silent after being asked for a sign of life."""
        asked = False
        while True:
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=PROBE_S)
            except MovedError as error:
                self._give_away(
                    name
                    for name, confirmed in self._channels.items()
                    if not confirmed.done() and slot_of(name) == error.slot_id
                )
                continue
            if reply is None:
                if asked:
                    raise TimeoutError(f"no sign of life for {2 * PROBE_S:.0f} s")
                asked = True
                await connection.send_command("PING", check_health=False)
                continue
            asked = False
            kind = reply[0]
            if kind == b"smessage":
                self._on_message(reply[1].decode(), reply[2])
            elif kind == b"ssubscribe":
                self._confirm(reply[1].decode())
            elif kind == b"sunsubscribe" and reply[1] is not None:
                # Asked for, it is forgotten already. Else the slot of the channel has left this node.
                self._give_away([reply[1].decode()])

    def _give_away(self, channels: Iterable[str]) -> None:
        if self._on_moved is None:
            return
        for channel in list(channels):
            confirmed = self._channels.pop(channel, None)
            if confirmed is not None:
                if not confirmed.done():
                    confirmed.set_exception(TimeoutError("the channel has moved"))
                    confirmed.exception()  # Nobody may be waiting for it.
                self._settle(channel)
                self._on_moved(channel)

    def _confirm(self, channel: str) -> None:
        future = self._channels.get(channel)
        if future is not None and not future.done():
            future.set_result(None)
        self._settle(channel)

    def _settle(self, channel: str) -> None:
        """A channel of a new connection waits for its confirmation no more; with the last one the rooms are told."""
        if channel in self._unconfirmed:
            self._unconfirmed.discard(channel)
            if not self._unconfirmed:
                self._on_reset(self._broken)
