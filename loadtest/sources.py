"""
Where connections leave from: open files and local addresses.

Decides how many open files a process may have, and which loopback address a connection starts at. A pair of addresses
has some 28,000 ports on Linux; towards a server on this machine there are more addresses where the first one came from,
because all of 127.0.0.0/8 is here. Towards any other server there is one address per interface, and running out of its
ports is an error that says so.
"""

import asyncio
import errno
import ipaddress
import resource
import socket
from typing import Final

#: Connections from one address to one target, well below the ports there are: closed ones keep theirs for a while.
CONNECTIONS_PER_SOURCE: Final = 20_000
SOURCES_MAX: Final = 200
#: Files a process has open besides its connections, generously.
OTHER_FILES: Final = 200
#: Linux: choose the port when connecting, so that one port may serve several targets.
_IP_BIND_ADDRESS_NO_PORT: Final = 24


def allow_files() -> int:
    """Raise this process's limit of open files as far as it may go; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def processes_for(connections: int, processes: int) -> int:
    """Return how many processes it takes to hold `connections`, at least `processes`."""
    each = max(1, allow_files() - OTHER_FILES)
    return max(processes, -(-connections // each))


def loopback(place: int) -> str:
    """Return loopback address number `place`; 0 is the usual one."""
    return f"127.0.0.{1 + place}"


class Sources:
    """
    The local addresses of one process's connections.

    `connections` is how many there may be at the same time from all processes together. Bounds: `SOURCES_MAX`
    addresses.
    """

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._target: tuple[str, int] | None = None
        self._family, self._address = _resolve(host, port)
        if self._family is socket.AF_INET and ipaddress.ip_address(self._address[0]).is_loopback:
            self._target = (str(self._address[0]), port)
        self.count = 1
        if self._target is not None:
            self.count = min(SOURCES_MAX, -(-max(1, connections) // CONNECTIONS_PER_SOURCE))

    def plain(self, index: int) -> bool:
        """Tell whether connection `index` may leave from wherever the kernel likes."""
        return self._target is None or index % self.count == 0

    def ran_out(self, error: OSError) -> bool:
        """Take another address into use if `error` says that there are no ports left; tell whether that helps."""
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
            return False
        if self._target is None or self.count >= SOURCES_MAX:
            return False
        self.count += 1
        return True

    async def connect(self, index: int, receive_bytes: int = 0) -> socket.socket:
        """
        Return a socket connected to the target.

        Args:
            index: Number of the connection; says which address it leaves from.
            receive_bytes: Size of the kernel's receive buffer; 0 leaves it as it is.

        Raises:
            OSError: If it cannot be connected.

        Cancelling this is safe: the socket is closed.
        """
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if receive_bytes:
                # Before connecting, or the window is agreed on without it.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if not self.plain(index):
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((loopback(index % self.count), 0))
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        return sock


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """
    Return the first address of a host.

    Raises:
        OSError: If it has none.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, (str(address[0]), int(address[1]))
