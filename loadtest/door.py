"""
A knock at the server's door before a run.

Decides whether viewers would get in: whether a room server answers at the target, and whether it accepts the tokens
that are about to be signed. The room that is asked for does not exist yet, so a server that would let viewers in says
that there is none, and nothing is made. Decides nothing about the merchant key, which the first call of a run shows.
Source: docs/protocol.md, "Joining, leaving, coming back".
"""

import asyncio
from typing import Final

from websockets.asyncio.client import ClientConnection as Socket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from loadtest.api import ApiError, http_url
from loadtest.tokens import SigningKey
from protocol.codec import JSON
from protocol.commands import JoinRoom
from protocol.connection import ClientConnection
from protocol.errors import ProtocolError
from protocol.frames import Reply

#: Seconds for the handshake, and for an answer.
KNOCK_TIMEOUT_S: Final = 10.0
TOKEN_TTL_S: Final = 60
#: What a server says to somebody whose token it does not accept.
_NOT_ACCEPTED: Final = ("unauthorized", "forbidden")


async def knock(target: str, room: str, viewer: str, key: SigningKey | None) -> None:
    """
    Connect to the server at `target`, and ask for `room` as `viewer` if there is a key to sign a token with.

    Raises:
        ApiError: If no room server answers there, or it does not accept the token.
    """
    try:
        async with connect(
            f"{target}/ws",
            subprotocols=[Subprotocol(JSON.subprotocol)],
            compression=None,
            open_timeout=KNOCK_TIMEOUT_S,
            close_timeout=1,
            proxy=None,
        ) as socket:
            if socket.subprotocol != JSON.subprotocol:
                raise ApiError(f"no room server at {target}: it does not speak {JSON.subprotocol}")
            if key is not None:
                token = key.sign(room, viewer, "viewer", viewer, TOKEN_TTL_S)
                code = await _answer(socket, room, token)
                if code in _NOT_ACCEPTED:
                    raise ApiError(f"the server does not accept tokens signed with {key.source or key.kid}")
    except InvalidStatus as error:
        raise ApiError(f"no room server at {target}: /ws answers HTTP {error.response.status_code}") from None
    except TimeoutError:
        raise ApiError(f"no room server at {target}: no answer within {KNOCK_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise ApiError(f"no server answers at {http_url(target)}: {error.strerror or error}") from None
    except (InvalidHandshake, ConnectionClosed, ProtocolError) as error:
        raise ApiError(f"no room server at {target}: {type(error).__name__} {error}") from None


async def _answer(socket: Socket, room: str, token: str) -> str:
    """Ask to be let into a room; return the code of the refusal, empty if there is none."""
    client = ClientConnection(JSON)
    command_id, frame = client.send(JoinRoom(room=room, token=token))
    await socket.send(frame, text=True)
    async with asyncio.timeout(KNOCK_TIMEOUT_S):
        async for data in socket:
            is_text = isinstance(data, str)
            for said in client.receive(data.encode() if isinstance(data, str) else data, is_text):
                if isinstance(said, Reply) and said.id == command_id:
                    return str(said.err["code"]) if said.err is not None else ""
    raise ApiError(f"no room server: the connection was closed with {socket.close_code} instead of an answer")
