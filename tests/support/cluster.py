"""
A cluster of Valkey nodes on loopback.

Decides how the nodes are started, joined, given replicas and ended, and which rooms live on which node. Source: "Redis
cluster specification"; `CLUSTER SET-CONFIG-EPOCH` comes before `MEET`, so that no two nodes claim the same epoch.
"""

import contextlib
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
PRIMARIES: Final = 3
#: After this long without a sign of life a node's replica asks to be promoted (milliseconds).
NODE_TIMEOUT_MS: Final = 2_000
_PATIENCE_S: Final = 60.0


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, outside the range the kernel takes for others' connections from."""
    ports: list[int] = []
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def until(what: Callable[[], bool], why: str = "the cluster did not come up") -> None:
    """Look until `what` holds."""
    give_up = time.monotonic() + _PATIENCE_S
    while not what():
        assert time.monotonic() < give_up, why
        time.sleep(0.02)


class Node:
    """One process of the cluster."""

    def __init__(self, folder: Path, ports: tuple[int, int], slots: range, *, durable: bool) -> None:
        self.port, self.bus_port = ports
        #: Slots it was given at the start; none for a replica.
        self.slots = slots
        self.url = f"redis://127.0.0.1:{self.port}"
        folder.mkdir()
        options = {
            "dir": str(folder), "bind": "127.0.0.1", "port": str(self.port), "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port), "cluster-config-file": "nodes.conf", "save": "",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS), "cluster-allow-replica-migration": "no",
            "appendonly": "yes" if durable else "no", "appendfsync": "always", "repl-backlog-ttl": "0",
            "repl-diskless-sync-delay": "0", "maxmemory-policy": "noeviction",
            "logfile": str(folder / "node.log"),
        }  # fmt: skip
        self._words = [word for option, value in options.items() for word in (f"--{option}", value)]
        self.client: redis.Redis[str] = redis.Redis.from_url(self.url, protocol=2, decode_responses=True)
        self.start()

    def start(self) -> None:
        """Start the process, with whatever its folder holds."""
        self.process = subprocess.Popen([find_binary(None).path, *self._words])

    def kill(self) -> None:
        """Kill the process at once."""
        self.process.kill()
        self.process.wait(_PATIENCE_S)

    def close(self) -> None:
        """End the process."""
        self.client.close()
        if self.process.poll() is None:
            # One that was stopped (SIGSTOP) takes no other signal.
            self.process.kill()
        self.process.wait(_PATIENCE_S)

    def answers(self) -> bool:
        """Tell whether the node takes commands yet."""
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            assert self.process.poll() is None, "a node of the cluster ended"
            return False

    @property
    def id(self) -> str:
        """The node's name in the cluster."""
        return str(self.client.execute_command("CLUSTER", "MYID"))

    def is_ok(self) -> bool:
        """Tell whether the node sees all slots served."""
        info = self.client.execute_command("CLUSTER", "INFO")
        # redis-py turns it into a map on some versions and leaves the text on others.
        return (info["cluster_state"] == "ok") if isinstance(info, dict) else "cluster_state:ok" in info

    def is_primary(self) -> bool:
        """Tell whether the node takes writes."""
        return bool(self.client.info("replication")["role"] == "master")

    def follows(self, primary: "Node") -> bool:
        """Tell whether the node is a replica of `primary` and in step with it."""
        info = self.client.info("replication")
        return (
            info["role"] == "slave"
            and info["master_port"] == primary.port
            and info["master_link_status"] == "up"
        )

    def replicate(self, primary: "Node") -> None:
        """Become a replica of `primary`, and return once in step."""

        def told() -> bool:
            try:
                return bool(self.client.execute_command("CLUSTER", "REPLICATE", primary.id))
            except redis.ResponseError:  # It has not heard of the other node yet.
                return False

        until(told)
        until(lambda: self.follows(primary))

    def is_replicated(self) -> bool:
        """Tell whether a write reaches the disk of a replica; a new one rewrites its log before it says so."""
        key = next(key for key in map(str, range(SLOTS)) if key_slot(key.encode()) in self.slots)
        with self.client.pipeline(transaction=False) as pipe:
            pipe.set(key, "1", px=1000)
            pipe.execute_command("WAITAOF", 1, 1, 100)
            _, (_, replicas) = pipe.execute()
        return bool(replicas)

    def room(self) -> RoomKey:
        """Return a room nobody else uses whose keys this node owned at the start."""
        while True:
            room = RoomKey("t-1.a_b", f"r-{secrets.token_hex(6)}.x_y")
            if slot_of(room) in self.slots:
                return room


def slot_of(room: RoomKey) -> int:
    """Return the slot of all keys of a room."""
    return int(key_slot(RoomKeys(room).meta.encode()))


def cluster_url(nodes: list[Node]) -> str:
    """Return the URL of the cluster."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@contextmanager
def running_cluster(folder: Path, *, replicas: int = 0, durable: bool = False) -> Iterator[list[Node]]:
    """
    Three primaries that own all slots, for as long as the block lasts.

    Behind them in the list come the replicas, `replicas` for each: those of the first primary, of the second, of the
    third. Without replicas the functions are loaded on every node, as an engine would.
    """
    count = PRIMARIES * (1 + replicas)
    ports = _free_ports(2 * count)
    bounds = [number * SLOTS // PRIMARIES for number in range(PRIMARIES + 1)]
    nodes: list[Node] = []
    try:
        for number in range(count):
            slots = range(bounds[number], bounds[number + 1]) if number < PRIMARIES else range(0)
            pair = (ports[2 * number], ports[2 * number + 1])
            nodes.append(Node(folder / f"node-{number}", pair, slots, durable=durable))
        for number, node in enumerate(nodes, 1):
            until(node.answers)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
            if node.slots:
                node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", node.slots.start, node.slots.stop - 1)
        for node in nodes[1:]:
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        for node in nodes:
            until(node.is_ok)
        for number, node in enumerate(nodes[PRIMARIES:]):
            node.replicate(nodes[number // replicas])
        if durable and replicas:
            for node in nodes[:PRIMARIES]:
                until(node.is_replicated)
        if not replicas:
            for node in nodes:
                node.client.function_load(library().text)
        yield nodes
    finally:
        for node in nodes:
            node.close()
