"""
Other people's servers, installed on demand.

Decides which packages, at which versions, from which registry, and that they land in `.peers/`, which git does not see
and which may be deleted at any time. Nothing is installed into the system and no install script is run. What cannot be
installed is no error: the reason stands in the report.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.native import HERE

PEERS: Final = HERE / ".peers"
#: npm packages. uWebSockets.js is not in the registry under its own name; this package carries its builds.
NPM: Final = {
    "ws": "8.23.0",
    "socket.io": "4.8.4",
    "uwebsockets": "3.0.6",
}
PIP: Final = {"python-socketio": "5.18.1"}
#: Debian packages: nginx itself, and nchan as a module for it.
DEBIAN: Final = ("nginx", "libnginx-mod-nchan")
_PATIENCE_S: Final = 180


class NotInstalled(Exception):
    """A peer that is not to be had on this machine, and why."""


def npm(package: str) -> Path:
    """
    Return the `node_modules` that holds an npm package.

    Raises:
        NotInstalled: Without Node.js or npm, or if the registry does not give it.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalled("no Node.js with npm on the PATH")
    version = NPM[package]
    folder = PEERS / "npm" / f"{package.replace('/', '+')}-{version}"
    modules = folder / "node_modules"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        _run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{package}@{version}"], folder
        )
        if not (modules / package).exists():
            raise NotInstalled(f"npm installed no {package}")
        (folder / "complete").touch()
    return modules


def pip(package: str) -> Path:
    """
    Return a folder for PYTHONPATH that holds a Python package and what it needs.

    Raises:
        NotInstalled: If the registry does not give it.
    """
    version = PIP[package]
    folder = PEERS / "pip" / f"{package}-{version}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*command, "--target", str(folder), f"{package}=={version}"], folder)
        (folder / "complete").touch()
    return folder


def debian() -> Path:
    """
    Return the root under which nginx and its nchan module are unpacked.

    Raises:
        NotInstalled: Where there is no apt, or it does not give them.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotInstalled("no apt on this machine")
    folder = PEERS / "debian"
    root = folder / "root"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run(["apt-get", "download", "-q", *DEBIAN], folder)
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(root)], folder)
        (folder / "complete").touch()
    return root


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{' '.join(command[:2])} did not end within {_PATIENCE_S} s") from None
    except OSError as error:
        raise NotInstalled(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        # Without the addresses of registries, which belong into no report.
        words = " ".join(word for word in " ".join(said[-3:]).split() if "://" not in word)
        raise NotInstalled(f"{' '.join(command[:2])} failed: {words[:200]}")


def version_of_node() -> str:
    """Return the version of Node.js, or "" without one."""
    node = shutil.which("node")
    if node is None:
        return ""
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def version_of_nginx(root: Path) -> str:
    """Return the versions of nginx and its module, from the names of their packages."""
    names = sorted(path.name for path in root.parent.glob("*.deb"))
    return ", ".join(" ".join(name.replace("%3a", ":").split("_")[:2]) for name in names)
