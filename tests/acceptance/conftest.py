"""One service for all tests that need no settings of their own, and rooms on it."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.client import Merchant
from tests.support.service import DEMO_KEY, OTHER_KEY, Service, running_service
from tests.support.stage import Stage, a_room_id

BLOCKED_WORD = "加微信"

_LOG_CHARS_SHOWN = 4_000


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in development mode that logs all it can and blocks one word."""
    folder = tmp_path_factory.mktemp("service")
    words_file = folder / "words.txt"
    words_file.write_text(f"{BLOCKED_WORD}\n", "utf-8")
    settings = {"LIVEROOM_WORDS_FILE": str(words_file)}
    with running_service(folder, "--dev", "--log-level", "debug", settings=settings) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    """Show the end of the service's log beside a failure."""
    report = yield
    running = getattr(item, "funcargs", {}).get("service")
    if report.failed and isinstance(running, Service):
        report.sections.append(("liveroom's log", running.log()[-_LOG_CHARS_SHOWN:]))
    return report


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def merchant(service: Service, http: aiohttp.ClientSession) -> Merchant:
    """The tenant `demo`."""
    return Merchant(http, service.url, DEMO_KEY)


@pytest.fixture
def other_merchant(service: Service, http: aiohttp.ClientSession) -> Merchant:
    """The tenant `other`."""
    return Merchant(http, service.url, OTHER_KEY)


@pytest.fixture
def nobody(service: Service, http: aiohttp.ClientSession) -> Merchant:
    """Somebody without a merchant key."""
    return Merchant(http, service.url, None)


@pytest.fixture
async def scheduled(service: Service, merchant: Merchant) -> AsyncIterator[Stage]:
    """A room that is not open yet."""
    stage = Stage(service, merchant, a_room_id())
    await merchant.put_room(stage.room)
    yield stage
    await stage.leave_all()


@pytest.fixture
async def stage(scheduled: Stage) -> Stage:
    """A live room."""
    await scheduled.do("room.open")
    return scheduled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a service of the test's own."""
    return tmp_path
