"""A room on a running service with people in it: what most tests begin with."""

import itertools
from typing import Any

from protocol.connection import Progress
from tests.support.client import Client, Map, Merchant
from tests.support.service import Service

#: For tests that speak both codecs.
CODECS = ("json", "msgpack")
ROLES = ("viewer", "agent", "moderator", "streamer", "owner")

_rooms = itertools.count(1)
_ghosts = itertools.count(1)


def a_room_id() -> str:
    """Return the id of a room nobody made yet."""
    return f"room-{next(_rooms)}"


class Stage:
    """One room. Those who entered are let go with `leave_all`."""

    def __init__(self, service: Service, merchant: Merchant, room: str) -> None:
        self.service = service
        self.merchant = merchant
        self.room = room
        self._clients: list[Client] = []

    async def connect(self, codec_name: str = "json", progress: Progress | None = None) -> Client:
        """Open a connection that has not joined."""
        client = await Client.open(self.service.ws_url, codec_name, progress)
        self._clients.append(client)
        return client

    async def enter(
        self,
        viewer: str = "anna",
        role: str = "viewer",
        *,
        codec_name: str = "json",
        progress: Progress | None = None,
        claims: Map | None = None,
        **fields: Any,
    ) -> Client:
        """Let somebody in. `claims` go into the token, `fields` into the join."""
        token = await self.merchant.token(self.room, viewer, role, **(claims or {}))
        client = await self.connect(codec_name, progress)
        await client.join(self.room, token, **fields)
        return client

    async def do(self, cmd: str, **fields: Any) -> Map:
        """Give a console command as the merchant, and return `ok`."""
        return await self.merchant.do(self.room, cmd, **fields)

    async def settled(self, *clients: Client) -> None:
        """
        Return once the clients have read everything that was said before now.

        A fact carries with it whatever is pending, so a new one (the kick of somebody who was never here) ends the
        wait; a reply would not, for replies overtake what is gathered for everybody.
        """
        ghost = f"ghost-{next(_ghosts)}"
        await self.do("viewer.kick", viewer=ghost)
        for client in clients:
            await client.until(lambda: any(event.get("viewer") == ghost for event in client.events))  # noqa: B023

    async def snapshot(self) -> Map:
        """Read the room as the merchant."""
        return await self.merchant.room(self.room)

    async def leave_all(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.socket.close()
