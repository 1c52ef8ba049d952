"""
A cluster of three Valkey nodes on loopback.

Decides how the nodes are started, joined and ended, and which rooms live on which node. Functions are loaded on every
node, as an engine would. Source: "Redis cluster specification"; `CLUSTER SET-CONFIG-EPOCH` comes before `MEET`, so
that no two nodes claim the same epoch.
"""

import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis
from redis.crc import key_slot

from engine.store.embedded import find_binary
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys

SLOTS: Final = 16_384
NODES: Final = 3
_PATIENCE_S: Final = 30.0


def _free_ports(count: int) -> list[int]:
    """Return ports that the kernel picked; all are held until the last one is known, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _until(what: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while not what():
        assert time.monotonic() < give_up, "the cluster did not come up"
        time.sleep(0.02)


class Node:
    """One primary and the slots it owns."""

    def __init__(self, folder: Path, port: int, bus_port: int, slots: range) -> None:
        self.port = port
        self.slots = slots
        self.url = f"redis://127.0.0.1:{port}"
        options = {
            "dir": str(folder), "bind": "127.0.0.1", "port": str(port), "cluster-enabled": "yes",
            "cluster-port": str(bus_port), "cluster-config-file": "nodes.conf", "cluster-node-timeout": "5000",
            "save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "logfile": str(folder / "node.log"),
        }  # fmt: skip
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        self.process = subprocess.Popen([find_binary(None).path, *words])
        self.client: redis.Redis[str] = redis.Redis.from_url(self.url, protocol=2, decode_responses=True)

    def answers(self) -> bool:
        """Tell whether the node takes commands yet."""
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            assert self.process.poll() is None, "a node of the cluster ended"
            return False

    def room(self) -> RoomKey:
        """Return a room nobody else uses whose keys this node owns."""
        while True:
            room = RoomKey("t-1.a_b", f"r-{secrets.token_hex(6)}.x_y")
            if key_slot(RoomKeys(room).meta.encode()) in self.slots:
                return room


@contextmanager
def running_cluster(folder: Path) -> Iterator[list[Node]]:
    """Three primaries that own all slots, for as long as the block lasts."""
    ports = _free_ports(2 * NODES)
    bounds = [number * SLOTS // NODES for number in range(NODES + 1)]
    nodes: list[Node] = []
    try:
        for number in range(NODES):
            home = folder / f"node-{number}"
            home.mkdir()
            slots = range(bounds[number], bounds[number + 1])
            nodes.append(Node(home, ports[2 * number], ports[2 * number + 1], slots))
        for number, node in enumerate(nodes, 1):
            _until(node.answers)
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", node.slots.start, node.slots.stop - 1)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
            node.client.function_load(library().text)
        for number, node in enumerate(nodes[1:], 1):
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, ports[2 * number + 1])
        for node in nodes:
            _until(lambda node=node: "cluster_state:ok" in _info(node))  # type: ignore[misc]
        yield nodes
    finally:
        for node in nodes:
            node.client.close()
            node.process.terminate()
        for node in nodes:
            node.process.wait(_PATIENCE_S)


def _info(node: Node) -> str:
    info = node.client.execute_command("CLUSTER", "INFO")
    # redis-py turns it into a map on some versions and leaves the text on others.
    return info if isinstance(info, str) else "\n".join(f"{name}:{value}" for name, value in info.items())
