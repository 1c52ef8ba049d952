"""Which node owns which slot: URLs, replies of CLUSTER SLOTS, redirections, and who is asked when."""

import asyncio
from typing import Any

import pytest

from engine.errors import StoreUnavailable
from engine.store.topology import (
    Address,
    ClusterUrl,
    SlotMap,
    Topology,
    is_cluster,
    own_slots,
    slot_of,
)

ONE, TWO, SPARE = Address("10.0.0.1", 7001), Address("10.0.0.2", 7002), Address("10.0.0.3", 7003)


def node(address: Address) -> list[Any]:
    return [address.host.encode(), address.port, b"id", []]


REPLY = [[0, 8191, node(ONE), node(SPARE)], [8192, 16383, node(TWO)]]


@pytest.mark.parametrize(
    ("url", "node", "expected"),
    [
        ("redis+cluster://a:1,b:2", Address("a", 1), "redis://a:1"),
        ("rediss+cluster://me:p%40ss@a:1/?ssl_cert_reqs=none", TWO, "rediss://me:p%40ss@10.0.0.2:7002/?ssl_cert_reqs=none"),
        ("redis+cluster://[::1]:7000", Address("::1", 7000), "redis://[::1]:7000"),
    ],
)  # fmt: skip
def test_nodes_are_reached_with_the_login_and_options_of_the_cluster(
    url: str, node: Address, expected: str
) -> None:
    assert ClusterUrl(url).of(node) == expected


def test_url_names_its_nodes() -> None:
    assert ClusterUrl("redis+cluster://u:p@a:1,[::1]:2").seeds == [Address("a", 1), Address("::1", 2)]
    assert is_cluster("redis+cluster://a:1")
    assert not is_cluster("redis://a:1")


@pytest.mark.parametrize(
    "places", ["", "a", "a:", ":1", "a:0", "a:65536", "a:1,b", "a:x", "a:²", "[::1:1", "[]:1"]
)
def test_url_without_a_reachable_node_is_refused(places: str) -> None:
    with pytest.raises(ValueError, match=r"node|host:port"):
        ClusterUrl(f"redis+cluster://{places}")


@pytest.mark.parametrize("rest", ["/0", "/abc", "?db=1", "/?db=0"])
def test_url_with_a_database_is_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="no numbered databases"):
        ClusterUrl(f"redis+cluster://a:1{rest}")


@pytest.mark.parametrize("places", [":s3cret/x@a:1", ":s3cret", "s3cret:x@a:y", ":s3cret@[a:1"])
def test_refused_url_is_not_quoted(places: str) -> None:
    with pytest.raises(ValueError) as refused:
        ClusterUrl(f"redis+cluster://{places}")
    assert "s3cret" not in str(refused.value)


def test_slot_of_a_room_is_that_of_its_tag() -> None:
    assert slot_of("lr:{demo/tea}:meta") == slot_of("{demo/tea}")
    # From the specification's reference implementation.
    assert slot_of("123456789") == 12739


def test_node_tells_its_own_slots() -> None:
    nodes = (
        "07c3 127.0.0.1:7004@17004,a.example master - 0 1426238317239 4 connected 5461-10922\n"
        "e7d1 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460 7000 [93->-07c3]\n"
    )

    assert own_slots(nodes) == [range(5461), range(7000, 7001)]
    assert own_slots("e7d1 127.0.0.1:7001@17001 myself,slave 07c3 0 0 1 connected\n") == []


def test_map_tells_owners_replicas_and_news() -> None:
    slots = SlotMap()

    assert slots.load(REPLY, ONE)
    assert not slots.load(REPLY, TWO)

    assert [slots.owner(slot) for slot in (0, 8191, 8192, 16383)] == [ONE, ONE, TWO, TWO]
    assert (slots.primaries, slots.replicas, slots.replicas_min) == ({ONE, TWO}, {SPARE}, 0)


def test_node_that_does_not_know_its_address_is_the_one_that_was_asked() -> None:
    slots = SlotMap()
    slots.load([[0, 16383, [b"", 7001, b"id"]]], Address("10.0.0.9", 7001))

    assert slots.owner(5) == Address("10.0.0.9", 7001)


def test_slot_that_nobody_serves_has_no_owner() -> None:
    slots = SlotMap()
    slots.load(REPLY[:1], ONE)

    assert slots.owner(9000) is None


def test_redirection_is_news_once() -> None:
    slots = SlotMap()
    slots.load(REPLY, ONE)

    assert slots.learn(3, SPARE)
    assert not slots.learn(3, SPARE)
    assert (slots.owner(3), slots.owner(4)) == (SPARE, ONE)
    assert SPARE in slots.primaries


class Network:
    """Nodes that answer, or do not."""

    def __init__(self) -> None:
        self.reply: list[Any] = REPLY
        self.down: set[str] = set()
        self.asked: list[str] = []

    async def ask(self, url: str, *words: str, timeout_s: float) -> Any:
        """Answer CLUSTER SLOTS."""
        assert words == ("CLUSTER", "SLOTS")
        self.asked.append(url)
        if url in self.down:
            raise StoreUnavailable("gone")
        return self.reply


async def test_any_node_that_answers_will_do() -> None:
    network = Network()
    network.down = {"redis://10.0.0.1:7001"}
    topology = Topology("redis+cluster://10.0.0.1:7001,10.0.0.2:7002", network.ask)
    await topology.start()

    assert network.asked == ["redis://10.0.0.1:7001", "redis://10.0.0.2:7002"]
    assert topology.owner_of("123456789") == TWO
    await topology.stop()


async def test_cluster_of_which_nobody_answers_is_unavailable() -> None:
    network = Network()
    network.down = {"redis://10.0.0.1:7001"}
    topology = Topology("redis+cluster://10.0.0.1:7001", network.ask)

    with pytest.raises(StoreUnavailable):
        await topology.start()
    await topology.stop()


async def test_redirection_is_followed_at_once_and_the_rest_asked_for() -> None:
    network = Network()
    topology = Topology("redis+cluster://10.0.0.1:7001", network.ask)
    await topology.start()
    told: list[Address | None] = []
    changed = asyncio.Event()

    def on_change() -> None:
        told.append(topology.slots.owner(0))
        if len(told) == 2:
            changed.set()

    topology.on_change.append(on_change)
    network.reply = [[0, 16383, node(SPARE)]]

    topology.learn(0, TWO)
    assert told == [TWO]
    async with asyncio.timeout(20):
        await changed.wait()

    assert told == [TWO, SPARE]
    await topology.stop()


async def test_many_hints_ask_once() -> None:
    network = Network()
    topology = Topology("redis+cluster://10.0.0.1:7001", network.ask)
    await topology.start()
    changed = asyncio.Event()
    topology.on_change.append(changed.set)
    network.reply = [[0, 16383, node(SPARE)]]

    for _ in range(100):
        topology.refresh_soon()
    async with asyncio.timeout(20):
        await changed.wait()

    assert len(network.asked) == 2
    await topology.stop()
