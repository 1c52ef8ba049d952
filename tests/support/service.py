"""
`liveroom serve` as a process of its own, for tests that are strangers to it.

Starts the program on ports the kernel picks, waits for the one line it prints, keeps what it logs, and ends it by its
process id. Knows nothing about the protocol (`client.py`).
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

#: Patience with a process on a busy machine (seconds).
PATIENCE_S = 30.0
#: The known merchant keys of `--dev`.
DEMO_KEY = "dev-key-demo"
OTHER_KEY = "dev-key-other"

_ANNOUNCED = re.compile(r"liveroom listening on (http://\S+) internal (http://\S+)\n")


class Finished(NamedTuple):
    """A program that ended by itself."""

    code: int
    stdout: str
    stderr: str


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIVEROOM_")}
    return {**inherited, **settings}


def run_liveroom(*arguments: str, settings: Mapping[str, str] | None = None) -> Finished:
    """Run the program to its end. `settings` are added to its environment."""
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        env=_environment(settings or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


class Service:
    """A running `liveroom serve`."""

    def __init__(self, process: "subprocess.Popen[str]", log_file: Path, url: str, internal_url: str) -> None:
        self.process = process
        self.log_file = log_file
        self.url = url
        self.internal_url = internal_url

    @property
    def ws_url(self) -> str:
        """Where viewers connect."""
        return self.url.replace("http://", "ws://") + "/ws"

    def log(self) -> str:
        """Return everything the process has logged."""
        return self.log_file.read_text("utf-8")

    def terminate(self) -> None:
        """Ask it to end politely."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait(PATIENCE_S)


def start_service(folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Service:
    """
    Start `liveroom serve` with its data below `folder` and wait until it says where it listens.

    Args:
        folder: A fresh one; holds data and log.
        arguments: On top of the ports and the data directory, such as `--dev`.
        settings: Added to its environment.
    """
    log_file = folder / "liveroom.log"
    command = [sys.executable, "-m", "engine", "serve", "--listen", "127.0.0.1:0"]
    command += ["--internal-listen", "127.0.0.1:0", "--data-dir", str(folder / "data"), *arguments]
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command, env=_environment(settings or {}), stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    with process.stdout as stdout:
        # Ends at once when the process does.
        line = stdout.readline()
    announced = _ANNOUNCED.fullmatch(line)
    if announced is None:
        process.kill()
        process.wait(PATIENCE_S)
        raise AssertionError(f"liveroom said {line!r} and logged:\n{log_file.read_text('utf-8')}")
    return Service(process, log_file, *announced.groups())


@contextmanager
def running_service(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Run `liveroom serve` for as long as the block lasts, then end it and see that it ended well."""
    service = start_service(folder, *arguments, settings=settings)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.terminate()
        try:
            code = service.wait()
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.process.wait(PATIENCE_S)
            raise
    assert code == 0, f"exit code {code}; logged:\n{service.log()}"


def write_config(
    folder: Path, *, kid: str, algorithm: str, key_file: str, tenants: Mapping[str, str]
) -> Path:
    """Write a configuration file with one signing key and a merchant key for each tenant."""
    lines = ["[[signing_keys]]", f'kid = "{kid}"', f'alg = "{algorithm}"', f'key_file = "{key_file}"', ""]
    for tenant, merchant_key in tenants.items():
        digest = hashlib.sha256(merchant_key.encode()).hexdigest()
        lines += [f"[tenants.{tenant}]", f'merchant_keys_sha256 = ["{digest}"]', ""]
    path = folder / "liveroom.toml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def now_s() -> int:
    """Return the wall clock in whole seconds, as in tokens."""
    return int(time.time())
