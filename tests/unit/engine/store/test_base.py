"""What is asked of a node on a new connection, before anything else."""

from typing import Any

from engine.clock import StoreClock
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Seen, Store
from engine.store.topology import slot_of

TEA, NUTS = RoomKeys(RoomKey("demo", "tea")), RoomKeys(RoomKey("demo", "nuts"))
SLOT = slot_of(TEA.meta)


class Promoted:
    """A link to a replica that was promoted, and holds less than was seen."""

    replid = vouched = ""
    wait: tuple[str | int, ...] = ()
    durable = False

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def ask(self, *words: Any) -> Any:
        """Answer as a node would."""
        self.asked.append(words)
        if words == ("INFO",):
            return b"role:master\r\naof_enabled:1\r\nmaster_replid:b2\r\nmaster_replid2:a1\r\n"
        if words[0] == "CONFIG":
            return [b"appendfsync", b"always"]
        if words == ("CLUSTER", "NODES"):
            return f"b2 10.0.0.2:7002@17002 myself,master - 0 0 2 connected {SLOT}\n".encode()
        if words[1] == library().function("room_position"):
            return [b"e0", b"4", b"1"]
        if words[1] == library().function("campaigns_list"):
            return [[b"s"], []]
        assert words[1] == library().function("seckill_distrust")
        return [b"ok"]


async def test_promoted_node_is_told_what_was_seen_of_its_rooms_before_their_slots_are_known_to_be_there() -> (
    None
):
    store = Store("redis+cluster://10.0.0.1:7001", StoreClock())
    seen = Seen("e0", 9, 6, {"s": (5, 2)})
    store.seen = lambda: [(TEA, seen), (NUTS, seen)]
    link: Any = Promoted()

    await store._on_connected(link)

    told = [words for words in link.asked if words[1:2] == (library().function("seckill_distrust"),)]
    assert [(words[3], words[-2:]) for words in told] == [(TEA.meta, (5, 2))]
    assert link.vouched == ""
