"""
Fixtures shared by the tests: real stores.

Every test that takes `server`, `client` or `store` runs once on the packaged Valkey and once on Debian's Redis.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from engine.store.functions import library
from engine.store.store import Store
from tests.support.stores import NO_REDIS, REDIS_SERVER, LuaRoom, ServerThread, running_store

SERVERS: dict[str, Path | None] = {"valkey": None, "redis": REDIS_SERVER}


@pytest.fixture(scope="session", params=list(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server that all tests share."""
    if request.param == "redis" and REDIS_SERVER is None:
        pytest.skip(NO_REDIS)
    thread = ServerThread(tmp_path_factory.mktemp(request.param), SERVERS[request.param])
    thread.start()
    yield thread.url
    thread.stop()


@pytest.fixture(scope="session")
def client(server: str) -> Iterator["redis.Redis[str]"]:
    """A plain client of the server, with the library loaded."""
    client = redis.Redis.from_url(server, protocol=2, decode_responses=True)
    client.function_load(library().text, replace=True)
    yield client
    client.close()


@pytest.fixture
def room(client: "redis.Redis[str]") -> Iterator[LuaRoom]:
    """A live room."""
    room = LuaRoom(client, state="live")
    yield room
    room.wire.close()


@pytest.fixture
def nowhere(client: "redis.Redis[str]") -> Iterator[LuaRoom]:
    """A room that was never created."""
    room = LuaRoom(client, created=False)
    yield room
    room.wire.close()


@pytest.fixture
async def store(server: str) -> AsyncIterator[Store]:
    """A `Store` on the shared server."""
    async with running_store(server) as store:
        yield store
