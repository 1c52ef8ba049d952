"""
A whole worker in the test's own process and loop, for faults that must strike at one exact moment.

The parts are the real ones, the private store included; a test reaches into them only to time what it does.
"""

import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from engine.app import App
from engine.config import load


class Engine:
    """A running `App`."""

    def __init__(self, app: App) -> None:
        self.app = app

    @property
    def url(self) -> str:
        """Where merchants call."""
        return "http://{}:{}".format(*self.app.address)

    @property
    def ws_url(self) -> str:
        """Where viewers connect."""
        return "ws://{}:{}/ws".format(*self.app.address)

    def store(self) -> "Redis[Any]":
        """Return a client of the private store."""
        return Redis.from_url(self.app.store.url, protocol=2, decode_responses=True)

    def sample(self, name: str, **labels: str) -> float:
        """Return one sample of the worker's metrics, 0 when it is not there yet."""
        return self.app.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def an_engine(folder: Path, **settings: Any) -> AsyncIterator[Engine]:
    """Run a worker with a private store in `folder` for as long as the block lasts."""
    options: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "internal_listen": "127.0.0.1:0",
        "data_dir": folder / "data",
        "dev": True,
        "drain_spread_ms": 0,
    }
    app = App(load({**options, **settings}, None))
    try:
        await app.start()
        yield Engine(app)
    finally:
        await app.stop()
        # A worker's start takes everything out of the collector's sight, which a test process outlives.
        gc.unfreeze()
