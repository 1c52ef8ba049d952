"""
Namespaces of our own, so that networks can be cut and disks filled without anybody else noticing.

Decides whether this machine lets us: as root, or as a user who may be root in a namespace. Where it does not, the
faults that need it are played in another way, and the table says which.

A cut is silent: the neighbour's hardware address is replaced by one that nobody has, so frames leave and are dropped
by the other end of the pair, as by a cable that was pulled behind the switch. No connection is told.
Everything ends with the last process in it. Source: unshare(2), veth(4), ip-neighbour(8).
"""

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path
from typing import Final

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000

#: Addresses of the two ends, from the block for benchmarks of networks (RFC 2544).
HERE: Final = "198.18.0.1"
THERE: Final = "198.18.0.2"
_NOBODY: Final = "02:00:00:00:00:99"


def enter() -> str | None:
    """
    Move this process, and all it will start, into a network and mounts of its own. Call before there are threads.

    Returns:
        None, or why it could not be done.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS) != 0:
            return os.strerror(ctypes.get_errno())
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        except OSError as error:
            return str(error)
    try:
        _run("mount", "--make-rprivate", "/")
        _run("ip", "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
    return None


def _run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout


def mount_small_disk(folder: Path, size_bytes: int) -> None:
    """Mount a disk of this size at `folder`."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder))


def unmount(folder: Path) -> None:
    """Give the disk back; one that is still in use goes when its last user does."""
    with contextlib.suppress(subprocess.CalledProcessError):
        _run("umount", "--lazy", str(folder))


def _hardware_address(link: str) -> str:
    words = link.split()
    return words[words.index("link/ether") + 1]


class Cable:
    """A pair of interfaces between our network and that of one process."""

    def __init__(self, pid: int, number: int = 0) -> None:
        """Plug in a process that has a network of its own and waits."""
        self._pid = str(pid)
        self._near, self._far = f"lrn{number}", f"lrf{number}"
        _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._pid)
        _run("ip", "addr", "add", f"{HERE}/30", "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        self._there("ip", "link", "set", "lo", "up")
        self._there("ip", "addr", "add", f"{THERE}/30", "dev", self._far)
        self._there("ip", "link", "set", self._far, "up")
        # Addresses are fixed from the start, so that cutting and mending are one step each and never a question.
        self._near_mac = _hardware_address(_run("ip", "-o", "link", "show", self._near))
        self._far_mac = _hardware_address(self._there("ip", "-o", "link", "show", self._far))
        self.mend()

    def _there(self, *words: str) -> str:
        return _run("nsenter", "--target", self._pid, "--net", *words)

    def _neighbour(self, here_mac: str, there_mac: str) -> None:
        _run("ip", "neigh", "replace", THERE, "lladdr", there_mac, "dev", self._near, "nud", "permanent")
        self._there("ip", "neigh", "replace", HERE, "lladdr", here_mac, "dev", self._far, "nud", "permanent")

    def cut(self, *, requests: bool, replies: bool) -> None:
        """Lose everything towards the other end (`requests`), from it (`replies`), or both."""
        self._neighbour(_NOBODY if replies else self._near_mac, _NOBODY if requests else self._far_mac)

    def mend(self) -> None:
        """Lose nothing."""
        self._neighbour(self._near_mac, self._far_mac)

    def unplug(self) -> None:
        """Take it away."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "link", "delete", self._near)
