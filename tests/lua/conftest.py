"""Stores for rooms with campaigns: the packaged Valkey, Debian's Redis, and one node of a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from engine.store.functions import library
from engine.store.keys import RoomKey
from tests.support.campaign_room import CampaignRoom
from tests.support.cluster import running_cluster
from tests.support.stores import NO_REDIS, REDIS_SERVER, ServerThread, fresh_room

#: A client, and rooms whose keys it reaches.
Shop = tuple["redis.Redis[str]", Callable[[], RoomKey]]


@pytest.fixture(scope="session", params=["valkey", "redis", "cluster"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A store that all tests of campaigns share."""
    folder: Path = tmp_path_factory.mktemp("shop")
    if request.param == "cluster":
        with running_cluster(folder) as nodes:
            yield nodes[1].client, nodes[1].room
        return
    if request.param == "redis" and REDIS_SERVER is None:
        pytest.skip(NO_REDIS)
    thread = ServerThread(folder, REDIS_SERVER if request.param == "redis" else None)
    thread.start()
    client: redis.Redis[str] = redis.Redis.from_url(thread.url, protocol=2, decode_responses=True)
    client.function_load(library().text)
    yield client, fresh_room
    client.close()
    thread.stop()


@pytest.fixture
def fair(shop: Shop) -> Iterator[CampaignRoom]:
    """A live room for campaigns."""
    client, a_room = shop
    room = CampaignRoom(client, state="live", key=a_room())
    yield room
    room.wire.close()


@pytest.fixture
def no_fair(shop: Shop) -> Iterator[CampaignRoom]:
    """A room that was never created."""
    client, a_room = shop
    room = CampaignRoom(client, created=False, key=a_room())
    yield room
    room.wire.close()
