"""What the embedded store decides without a process: settings, paths, versions, who is who."""

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.store import embedded
from engine.store.embedded import (
    EmbeddedStore,
    ServerProcess,
    exit_reason,
    log_tail,
    parse_version,
    restart_delay_s,
    server_arguments,
    socket_path,
)

DATA_DIR = Path("/srv/live room")
SOCKET = DATA_DIR / "valkey.sock"
TEMP_DIR = Path("/tmp")


def a_server(*argv: str) -> ServerProcess:
    return ServerProcess(pid=4711, argv=argv)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=15", ("Valkey", (9, 1, 2))),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", ("Redis", (7, 0, 15))),
        ("Redis server v=255.255.255 sha=1", ("Redis", (255, 255, 255))),
        ("GNU bash, version 5.2.15(1)-release", None),
        ("", None),
    ],
)
def test_version_is_read_from_what_the_server_prints(
    output: str, version: tuple[str, tuple[int, ...]] | None
) -> None:
    assert parse_version(output) == version


def test_first_restart_is_immediate_and_later_ones_wait_longer_up_to_two_seconds() -> None:
    delays = [restart_delay_s(count) for count in range(50)]

    assert delays[0] == 0
    assert delays[1] == 0.1
    assert delays == sorted(delays)
    assert delays[-1] == 2


def test_socket_is_in_the_data_directory_when_the_path_is_short_enough() -> None:
    assert socket_path(DATA_DIR, TEMP_DIR, uid=7) == SOCKET


def test_socket_path_of_107_bytes_is_used_and_one_of_108_is_not() -> None:
    longest = Path("/" + "d" * (107 - len("//valkey.sock")))

    assert len(bytes(socket_path(longest, TEMP_DIR, uid=7))) == 107
    assert socket_path(longest, TEMP_DIR, uid=7).parent == longest
    assert socket_path(Path(f"{longest}d"), TEMP_DIR, uid=7).parent.parent == TEMP_DIR


def test_socket_path_is_measured_in_bytes_not_characters() -> None:
    """41 characters of three bytes each: short to read, too long for the kernel."""
    assert socket_path(Path("/" + "直" * 40), TEMP_DIR, uid=7).parent.parent == TEMP_DIR


def test_private_socket_directory_depends_on_directory_and_user_only() -> None:
    deep, other = Path("/" + "d" * 200), Path("/" + "e" * 200)

    assert socket_path(deep, TEMP_DIR, uid=7) == socket_path(deep, TEMP_DIR, uid=7)
    assert len({socket_path(d, TEMP_DIR, uid=u) for d in (deep, other) for u in (7, 8)}) == 4


def test_no_short_enough_socket_path_is_the_operators_problem() -> None:
    with pytest.raises(ConfigError, match="no short enough path"):
        socket_path(Path("/" + "d" * 200), Path("/" + "t" * 200), uid=7)


def test_server_has_no_port_and_keeps_every_write() -> None:
    words = server_arguments(DATA_DIR, SOCKET, appendfsync="always")
    options = {words[at]: words[at + 1] for at in range(len(words)) if words[at].startswith("--")}

    assert options["--port"] == "0"
    assert options["--unixsocketperm"] == "700"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--save"] == ""
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--dir"] == str(DATA_DIR)


def test_server_is_known_by_the_command_line_we_give_it() -> None:
    ours = a_server("/usr/bin/valkey-server", *server_arguments(DATA_DIR, SOCKET, appendfsync="no"))

    assert ours.is_ours(DATA_DIR, SOCKET)
    assert not ours.is_ours(Path("/srv/live"), SOCKET)
    assert not ours.is_fork


def test_rewriting_fork_is_known_by_its_title() -> None:
    """The server pads titles with blanks and ends them with its (empty) mode."""
    fork = a_server(f"valkey-aof-rewrite unixsocket:{SOCKET}      ")

    assert fork.is_fork
    assert fork.is_ours(DATA_DIR, SOCKET)
    assert not fork.is_ours(DATA_DIR, Path("/srv/other/valkey.sock"))


@pytest.mark.parametrize(
    "argv",
    [
        ("valkey-server *:6379",),
        ("redis-server unixsocket:/srv/live room/valkey.sock",),
        ("/usr/bin/valkey-server", "/etc/valkey.conf"),
        ("/usr/bin/valkey-server", "--dir"),
        ("/usr/bin/valkey-server", "--dir", str(DATA_DIR)),
        ("redis-aof-rewrite *:6379",),
        ("",),
    ],
)
def test_server_of_somebody_else_is_not_ours(argv: tuple[str, ...]) -> None:
    assert not a_server(*argv).is_ours(DATA_DIR, SOCKET)


def test_log_tail_is_short_and_ends_with_the_end() -> None:
    text = "".join(f"line {number} {'x' * 500}\n" for number in range(100))

    tail = log_tail(text + "FATAL: the reason\n")

    assert tail.endswith("FATAL: the reason")
    assert len(tail) <= embedded.LOG_TAIL_CHARS
    assert len(log_tail("a\n" * 100).splitlines()) == embedded.LOG_TAIL_LINES
    assert log_tail("") == ""


def test_exit_is_told_in_words() -> None:
    assert exit_reason(1) == "exited with code 1"
    assert exit_reason(-9) == "was killed by signal 9"
    assert exit_reason(None) == "ended"


def test_unknown_appendfsync_is_refused_before_anything_happens(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="appendfsync must be one of always, everysec, no, not 'sometimes'"):
        EmbeddedStore(tmp_path / "data", appendfsync="sometimes")

    assert not (tmp_path / "data").exists()


def test_url_escapes_what_a_url_cannot_hold(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "a #1?")

    assert store.url.startswith("unix:///")
    assert store.url.endswith("/a%20%231%3F/valkey.sock")
    assert store.pid is None
