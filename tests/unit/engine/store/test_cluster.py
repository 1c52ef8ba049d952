"""The links of a cluster: who is started when, and how often."""

import asyncio

import pytest

from engine.errors import StoreUnavailable
from engine.store.batch import Group
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


class Taker:
    """Takes groups over and counts them."""

    def __init__(self) -> None:
        self.taken = 0
        self.was_given = asyncio.Event()

    def take_over(self, group: Group) -> None:
        """Take one."""
        self.taken += 1
        self.was_given.set()


async def test_group_that_is_passed_on_again_waits_a_moment() -> None:
    """Two nodes that disagree about a slot must not have a call go back and forth as fast as the wire allows."""

    async def nothing(link: Link) -> None:
        pass

    cluster = Cluster(
        "redis+cluster://10.0.0.1:7001", library(), on_connected=nothing, acknowledged=Acknowledged()
    )
    taker = Taker()
    cluster._links = {FIRST: taker}  # type: ignore[dict-item]
    group = Group("room_read", ("lr:{t/r}:meta",), (), 1.0, merged=False)

    cluster.hand_over(group)
    assert taker.taken == 1
    cluster.hand_over(group)
    assert taker.taken == 1
    taker.was_given.clear()
    await taker.was_given.wait()

    assert (taker.taken, group.hops) == (2, 2)
