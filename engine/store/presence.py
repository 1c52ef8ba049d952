"""
Steps of presence and of timers: who is here, and what is due.

Decides how each step is called, line by line beside its header in `lua/`. What can race is decided there.
"""

from collections.abc import Callable
from typing import Any, Final

from engine.errors import Overloaded
from engine.store import keys
from engine.store.base import StoreBase
from engine.store.batch import Done
from engine.store.keys import RoomKey, RoomKeys
from engine.store.link import WAITING_CALLS_MAX
from engine.store.replies import pairs
from protocol.limits import CONNECTIONS_PER_VIEWER_MAX

DUE_LEASE_MS: Final = 5_000


class PresenceSteps(StoreBase):
    """Leases of connections, and due work."""

    # --- presence ---------------------------------------------------------------------------------------

    def join(
        self,
        names: RoomKeys,
        worker: str,
        viewer: str,
        connection: int,
        rank: int,
        entry: str,
        name: bytes,
        sender: bytes,
        inviter: str,
        channel: str,
        link: str,
        done: Done,
    ) -> None:
        """
        Let a viewer in.

        Args:
            name: Of the viewer, as JSON.
            inviter: Of the share token they came with, or ''.
            channel: Of that token, or ''.
            link: '-' without one, '' when it is good, 'forged' or 'expired'.
            done: The header is (now, epoch, seq, online, peak, likes), the reply (code, muted until, open orders as
                JSON, grabs as JSON, rank or 0, viewers brought).
        """
        if self._link.waiting >= WAITING_CALLS_MAX:
            done(None, None, Overloaded())
            return
        self._link.merge(
            "room_join",
            (
                names.meta,
                names.log,
                names.bus,
                names.present,
                names.leases,
                names.present_on(worker),
                names.viewers,
                names.entries,
                names.bans,
                names.mutes,
                names.staff,
                *names.board_keys,
                names.viewer_orders,
                names.orders,
                names.viewer_grabs,
            ),
            (self._vouch(names), worker, CONNECTIONS_PER_VIEWER_MAX),
            (),
            (viewer, connection, rank, entry, name, sender, inviter, channel, link),
            done,
        )

    def leave(self, names: RoomKeys, worker: str, viewer: str, connection: int, done: Done) -> None:
        """Let a connection go."""
        self._link.merge(
            "room_leave",
            (names.meta, names.log, names.bus, names.present, names.present_on(worker)),
            (self._vouch(names), worker),
            (),
            (viewer, connection),
            done,
        )

    async def beat(self, names: RoomKeys, worker: str) -> tuple[str, int, list[str]] | None:
        """
        Renew a worker's lease in a room.

        Returns:
            (epoch, seq, workers whose lease ran out, this one included), or None when there is no such room.
        """
        shared = (names.meta, names.log, names.bus, names.present, names.leases)
        reply = await self._call("presence_beat", shared, (self._vouch(names), worker))
        if not reply:
            return None
        self._clock.observe(int(reply[0]))
        return reply[1].decode(), int(reply[2]), [dead.decode() for dead in reply[7:]]

    async def purge(self, names: RoomKeys, dead: str) -> None:
        """Forget every viewer of a worker that stopped renewing its lease."""
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.present_on(dead))
        while True:
            reply = await self._call("presence_purge", shared, (self._vouch(names), dead))
            if reply[0] != b"ok" or reply[1] == 0:
                return

    async def check_host(self, room: RoomKey, *, grace_ms: int, patience_ms: int) -> tuple[str, int]:
        """Pause a room whose streamer is gone, close one that stays so. Returns (what happened, next look in ms)."""
        names = RoomKeys(room)
        shared = (names.meta, names.log, names.bus, names.present, names.leases, names.staff)
        reply = await self._call("host_check", shared, (self._vouch(names), grace_ms, patience_ms))
        return str(reply[0], "ascii"), int(reply[1]) if len(reply) > 1 else 0

    # --- timers -----------------------------------------------------------------------------------------

    def due_add(self, member: str, in_ms: int, done: Callable[[Exception | None], None]) -> None:
        """Note that something is due in `in_ms` milliseconds; an earlier time already noted wins."""

        def answered(header: Any, own: Any, error: Exception | None) -> None:
            done(error)

        self._link.call("due_add", (keys.due(_partition(member)),), (member, in_ms), answered)

    async def due_claim(self, partition: int, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Take what is due for a while. Returns (milliseconds until the next or -1, [(member, lease)])."""
        reply = await self._call("due_claim", (keys.due(partition),), (limit, DUE_LEASE_MS))
        return int(reply[0]), [(member.decode(), lease.decode()) for member, lease in pairs(reply[1:])]

    async def due_done(self, member: str, lease: str, again_in_ms: int | None) -> None:
        """Drop a member, or move it, unless another worker has taken it meanwhile."""
        again = "" if again_in_ms is None else again_in_ms
        await self._call("due_done", (keys.due(_partition(member)),), (member, lease, again))


def _partition(member: str) -> int:
    return sum(member.encode()) % keys.DUE_PARTITIONS
