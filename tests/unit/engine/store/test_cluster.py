"""The links of a cluster: who is started when, and how often."""

import asyncio

import pytest

from engine.errors import StoreUnavailable
from engine.store.cluster import Cluster
from engine.store.functions import library
from engine.store.link import Acknowledged, Link
from engine.store.topology import Address

FIRST, SECOND = Address("10.0.0.1", 7001), Address("10.0.0.2", 7002)


class SlowLink:
    """A link that starts when the test lets it, or not at all."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.may_start = asyncio.Event()
        self.starts = 0
        self.running = False

    async def start(self) -> None:
        """Start late, or fail at once."""
        self.starts += 1
        if self.failure is not None:
            raise self.failure
        await self.may_start.wait()
        self.running = True


async def test_cluster_that_could_not_start_starts_no_link_twice() -> None:
    async def nothing(link: Link) -> None:
        pass

    cluster = Cluster(
        "redis+cluster://10.0.0.1:7001", library(), on_connected=nothing, acknowledged=Acknowledged()
    )
    gone, slow = SlowLink(StoreUnavailable("refused")), SlowLink(None)
    cluster._links = {FIRST: gone, SECOND: slow}  # type: ignore[dict-item]

    first = asyncio.ensure_future(cluster.start())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not first.done(), "one of its links is still on its way"
    slow.may_start.set()
    with pytest.raises(StoreUnavailable):
        await first
    gone.failure = None
    gone.may_start.set()
    await cluster.start()

    assert (gone.starts, slow.starts) == (2, 1)
