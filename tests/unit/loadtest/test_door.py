"""`loadtest/door.py`: a server that would not let viewers in is found out before anything is made there."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from loadtest.api import ApiError
from loadtest.door import knock
from loadtest.tokens import SigningKey
from protocol.codec import JSON

KEY = SigningKey("k1", "demo", b"k" * 32, "some/key.json")


@asynccontextmanager
async def a_server(
    code: str | None,
    refuse: Callable[[ServerConnection, Request], Response | None] | None = None,
    speaks: str = JSON.subprotocol,
) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve whoever joins with the refusal `code`, or hang up; yield the target and the rooms asked for."""
    asked: list[str] = []

    async def handle(socket: ServerConnection) -> None:
        async for data in socket:
            [command] = [json.loads(data)] if data[:1] == "{" else json.loads(data)
            asked.append(command["room"])
            if code is None:
                return
            await socket.send(json.dumps([{"re": command["id"], "err": {"code": code, "definite": True}}]))

    async with serve(
        handle, "127.0.0.1", 0, process_request=refuse, subprotocols=[Subprotocol(speaks)], compression=None
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_server_that_misses_only_the_room_would_let_viewers_in() -> None:
    async with a_server("room_not_found") as (target, asked):
        await knock(target, "load-1", "v", KEY)

    assert asked == ["load-1"]


async def test_without_a_key_nothing_is_asked() -> None:
    async with a_server("unauthorized") as (target, asked):
        await knock(target, "load-1", "v", None)

    assert asked == []


async def test_refused_token_names_the_file_of_its_key() -> None:
    async with a_server("unauthorized") as (target, _):
        with pytest.raises(ApiError, match="does not accept tokens signed with some/key"):
            await knock(target, "load-1", "v", KEY)


async def test_server_that_hangs_up_is_named() -> None:
    async with a_server(None) as (target, _):
        with pytest.raises(ApiError, match="closed with 1000"):
            await knock(target, "load-1", "v", KEY)


async def test_web_server_without_rooms_is_named() -> None:
    def missing(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.NOT_FOUND, "nothing here")

    async with a_server("room_not_found", missing) as (target, _):
        with pytest.raises(ApiError, match=f"no room server at {target}: /ws answers HTTP 404"):
            await knock(target, "load-1", "v", KEY)
