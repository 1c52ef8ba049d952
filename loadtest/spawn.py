"""
A dev server for one run.

Decides how `liveroom serve --dev` is started beside the load test and ended after it, on a port of its own and with a
data directory that is thrown away, and how it or its store is killed in the middle of a run. It is the program, not its
code: nothing of the engine is imported.

Only processes known by their id are signalled: the server, which is our child, and the store that wrote its id into our
data directory and whose command line names that directory.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

Victim = Literal["server", "store"]

#: What `serve --dev` knows without being told.
DEV_MERCHANT_KEY: Final = "dev-key-demo"
DEV_TENANT: Final = "demo"
DEV_SIGNING_KEY: Final = Path("liveroom-data/dev-key.json")

READY_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 20.0
_LISTENING: Final = re.compile(rb"liveroom listening on http://(\S+)")
#: Lines of the server's output shown if it does not start.
_LINES_SHOWN: Final = 5


class SpawnError(Exception):
    """The server did not start. Exit code 1."""


class DevServer:
    """A server of our own: where it listens, what signs its tokens, and how to kill it."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        self._program = program
        self._folder = folder
        self._data = folder / "data"
        self._address = f"127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def target(self) -> str:
        """Return where the server listens."""
        return f"ws://{self._address}"

    @property
    def signing_key(self) -> Path:
        """Return the file with the key that signs its tokens."""
        return self._data / "dev-key.json"

    async def start(self) -> None:
        """
        Start the server and wait until it listens.

        Raises:
            SpawnError: If it does not in time.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            self._program,
            *("serve", "--dev", "--listen", self._address, "--internal-listen", "127.0.0.1:0"),
            *("--data-dir", str(self._data), "--log-level", "warning"),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        await _listening(process.stdout)
        # A pipe that nobody reads fills up and stops the server.
        self._reading = asyncio.create_task(self._read_on(process.stdout))

    async def _read_on(self, output: asyncio.StreamReader) -> None:
        """Keep what the server says beside its data, which is where to look while the folder lasts."""
        with (self._folder / "server.log").open("ab") as log:
            while line := await output.read(65_536):
                log.write(line)
                log.flush()

    def log(self) -> str:
        """Return what the server has said so far: warnings and errors."""
        try:
            return (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    async def kill(self, victim: Victim) -> str:
        """
        End the server or its store with SIGKILL; start a killed server again. The server itself restarts its store.

        Returns:
            What was done, in words.

        Raises:
            SpawnError: If there is no such process, or the server does not come back.
        """
        if victim == "store":
            pid = self._store_pid()
            if pid is None:
                raise SpawnError("--kill store: no store of ours is running")
            os.kill(pid, signal.SIGKILL)
            return f"killed the store, process {pid}"
        process, began_s = self._process, time.monotonic()
        if process is None or process.returncode is not None:
            raise SpawnError("--kill server: it is not running")
        process.kill()
        await process.wait()
        await self._end_reading()
        await self.start()
        return f"killed the server, process {process.pid}, which was back after {time.monotonic() - began_s:.1f} s"

    async def freeze(self, seconds: float) -> str:
        """
        Stop the server with SIGSTOP, and let it go on after `seconds`. Its store goes on all the time.

        Returns:
            What was done, in words.

        Raises:
            SpawnError: If there is no such process.
        """
        process = self._process
        if process is None or process.returncode is not None:
            raise SpawnError("--freeze: the server is not running")
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)
        return f"stopped the server, process {process.pid}, for {seconds:g} s"

    def pids(self) -> dict[str, int]:
        """Return the ids of the processes there are: "server" and "store"."""
        found = {}
        if self._process is not None and self._process.returncode is None:
            found["server"] = self._process.pid
        if (store := self._store_pid()) is not None:
            found["store"] = store
        return found

    def _store_pid(self) -> int | None:
        """Return the id of the store in our data directory, None if there is none."""
        try:
            pid = int((self._data / "valkey.pid").read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._data) in command else None

    async def stop(self) -> None:
        """End the server, and with it its store."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._end_reading()
        # A killed server leaves its store behind.
        pid = self._store_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    async def _end_reading(self) -> None:
        if self._reading is not None:
            await self._reading
            self._reading = None


@contextlib.asynccontextmanager
async def dev_server() -> AsyncIterator[DevServer]:
    """
    Run a dev server while the context lasts.

    Raises:
        SpawnError: If there is no `liveroom` beside this Python or on the PATH, or it does not start in time.

    Cancelling this is safe: the server is told to stop, and killed if it does not.
    """
    beside = Path(sys.executable).with_name("liveroom")
    program = str(beside) if beside.exists() else shutil.which("liveroom")
    if program is None:
        raise SpawnError("--spawn: there is no `liveroom` beside this Python or on the PATH")
    with tempfile.TemporaryDirectory(prefix="liveroom-loadtest-") as folder:
        # A server that is started again has to listen where its viewers look for it, so the kernel's choice of a
        # port is made once, here.
        with socket.create_server(("127.0.0.1", 0)) as place:
            port = place.getsockname()[1]
        server = DevServer(program, Path(folder), port)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


async def _listening(output: asyncio.StreamReader) -> None:
    """Read until the server says that it listens."""
    said: list[str] = []
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            async for line in output:
                if _LISTENING.search(line) is not None:
                    return
                said.append(line.decode("utf-8", "replace").rstrip())
    except TimeoutError:
        said.append(f"not ready after {READY_TIMEOUT_S:g} s")
    raise SpawnError("--spawn: the server did not start: " + " / ".join(said[-_LINES_SHOWN:]))
