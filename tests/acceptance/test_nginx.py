"""The configuration for nginx in docs/operations.md, with a real nginx in front of two nodes."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from tests.support.client import Client, Closed
from tests.support.nodes import Node, some_nodes
from tests.support.processes import Guests, metric
from tests.support.stores import until_now

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/sbin:/bin")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on this machine")


class Front:
    """Where nginx listens; a `Place` for guests."""

    def __init__(self, address: str, node: Node) -> None:
        self.url = f"http://{address}"
        self.ws_url = f"ws://{address}/ws"
        self._node = node

    def store(self) -> "Redis[Any]":
        """Return a client of the store."""
        return self._node.store()


def configuration(folder: Path, address: str, nodes: list[Node]) -> str:
    """Return what the document says, with our addresses, without TLS, and with files where we may write them."""
    [text] = re.findall(r"^```nginx\n(.*?)^```", OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for there, here in zip(("10.0.0.11:8080", "10.0.0.12:8080"), nodes, strict=True):
        assert there in text
        text = text.replace(there, here.url.removeprefix("http://"))
    text = text.replace("listen 443 ssl", f"listen {address}")
    text = re.sub(r"^ *ssl_certificate.*\n", "", text, flags=re.MULTILINE)
    # As many files as the machine allows anybody.
    text = re.sub(r"^worker_rlimit_nofile.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("worker_connections 100000;", "worker_connections 500;")
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"  {name}_temp_path {folder / name};\n" for name in paths)
    assert "http {\n" in text
    return f"daemon off;\npid {folder / 'nginx.pid'};\n" + text.replace("http {\n", "http {\n" + own)


@contextmanager
def running_nginx(folder: Path, nodes: list[Node]) -> Iterator[Front]:
    """Run nginx in front of two nodes for as long as the block lasts."""
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as place:
        address = "{}:{}".format(*place.getsockname())
    file = folder / "nginx.conf"
    file.write_text(configuration(folder, address, nodes), "utf-8")
    log = folder / "nginx.log"
    tested = subprocess.run(
        [NGINX, "-t", "-c", str(file), "-e", str(log)], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stderr
    process = subprocess.Popen([NGINX, "-c", str(file), "-e", str(log)])
    try:
        until_now(lambda: _listens(address), 20)
        yield Front(address, nodes[0])
    finally:
        process.terminate()
        process.wait(20)


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True


async def is_gone(viewer: Client) -> bool:
    """Tell whether a viewer's connection has ended."""
    try:
        await viewer.caught_up()
    except (Closed, ConnectionClosed):
        return True
    return False


async def connections(node: Node) -> float:
    """Return how many WebSockets a node has."""
    return await metric(node.internal_url, "liveroom_connections")


async def test_viewers_come_through_nginx_go_elsewhere_and_return_to_a_node_that_is_back(
    tmp_path: Path,
) -> None:
    """Calls and handshakes on the connections nginx keeps, a node that dies, and one that comes back."""
    with some_nodes(tmp_path, drain_spread_ms="0") as (_, nodes), running_nginx(tmp_path, nodes) as front:
        async with Guests(front, "behind") as guests:
            await guests.open_room()
            viewers = [await guests.join(f"v-{number}") for number in range(8)]
            assert sorted([await connections(node) for node in nodes]) == [4, 4]

            nodes[0].kill()
            lost = [viewer for viewer in viewers if await is_gone(viewer)]
            assert len(lost) == 4
            others = [await guests.join(f"w-{number}") for number in range(4)]
            assert await connections(nodes[1]) == 8

            await asyncio.to_thread(nodes[0].start)
            # Those that come now go to the node with fewer viewers, from the first one on.
            late = [await guests.join(f"x-{number}") for number in range(6)]
            assert await connections(nodes[0]) == 6
            last = (await guests.facts())[-1]["seq"]
            await guests.merchant.do("behind", "notice.set", text="alle da")
            for client in (*others, *late):
                assert (await client.event("notice", text="alle da"))["seq"] == last + 1


async def test_rolling_node_behind_nginx_is_left_politely(tmp_path: Path) -> None:
    with some_nodes(tmp_path, drain_spread_ms="500") as (_, nodes), running_nginx(tmp_path, nodes) as front:
        async with Guests(front, "polite") as guests:
            await guests.open_room()
            viewers = [await guests.join(f"v-{number}") for number in range(6)]
            await nodes[0].restart()
            left = 0
            for number, viewer in enumerate(viewers):
                if await is_gone(viewer):
                    left += 1
                    assert await viewer.close_code() == 4500
                    assert len(viewer.said("reconnect")) == 1
                    back = await guests.come_back(viewer, f"v-{number}")
                    assert back.joined["resumed"] is True

            assert left == 3
            assert sorted([await connections(node) for node in nodes]) == [3, 3]
