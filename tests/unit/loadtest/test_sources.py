"""`loadtest/sources.py`: connections to this machine leave from as many loopback addresses as they need."""

import asyncio
import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from loadtest import sources
from loadtest.sources import CONNECTIONS_PER_SOURCE, SOURCES_MAX, Sources, allow_files, processes_for


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_few_connections_leave_from_wherever_the_kernel_likes(port: int) -> None:
    few = Sources("127.0.0.1", port, CONNECTIONS_PER_SOURCE)

    assert few.count == 1
    assert all(few.plain(index) for index in range(10))


async def test_many_connections_leave_from_several_addresses(port: int) -> None:
    many = Sources("127.0.0.1", port, 3 * CONNECTIONS_PER_SOURCE)
    opened = [await many.connect(index) for index in range(6)]
    left_from = [sock.getsockname()[0] for sock in opened]
    for sock in opened:
        sock.close()

    assert left_from == ["127.0.0.1", "127.0.0.2", "127.0.0.3"] * 2
    assert [many.plain(index) for index in range(3)] == [True, False, False]


def test_server_elsewhere_has_one_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    away = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))]
    monkeypatch.setattr(sources.socket, "getaddrinfo", lambda *arguments, **options: away)
    far = Sources("live.example.com", 443, 100_000)

    assert far.count == 1
    assert far.plain(5)
    assert not far.ran_out(OSError(errno.EADDRNOTAVAIL, "no ports"))


def test_no_ports_left_takes_another_address_into_use(port: int) -> None:
    few = Sources("127.0.0.1", port, 10)

    assert not few.ran_out(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert few.ran_out(OSError(errno.EADDRNOTAVAIL, "no ports"))
    assert few.count == 2
    assert [few.plain(index) for index in (0, 1)] == [True, False]
    few.count = SOURCES_MAX
    assert not few.ran_out(OSError(errno.EADDRNOTAVAIL, "no ports"))


async def test_refused_connection_is_an_error_and_leaves_nothing_open(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        await Sources("127.0.0.1", gone, 1).connect(0)


async def test_slow_reader_has_a_small_buffer(port: int) -> None:
    sock = await Sources("127.0.0.1", port, 1).connect(0, 4096)
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sock.close()

    # Linux keeps twice what is asked for.
    assert size <= 16_384
    await asyncio.sleep(0)


def test_files_are_allowed_as_far_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 20_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))

    assert allow_files() == 20_000
    assert limits[-1] == (20_000, 20_000)
    assert processes_for(10_000, 1) == 1
    assert processes_for(10_000, 3) == 3
    assert processes_for(50_000, 1) == 3
