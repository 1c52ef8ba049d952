"""
The command line: arguments, signals, exit codes.

Decides what `liveroom serve`, `token`, `plan` and `demo` read and print. The only place that ends the process. Exit
codes: 0 stopped as asked, 2 wrong usage, 78 (EX_CONFIG) the operator has to act.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Protocol

import orjson
import structlog
import typer
import uvloop

from engine.app import App, check_store
from engine.config import Config, environment, load
from engine.errors import EXIT_CONFIG, ConfigError, LiveroomError
from engine.http.api import sign_token
from engine.plan import Load, describe
from engine.plan import plan as make_plan
from engine.telemetry import set_up_logs
from engine.tokens import Tokens
from engine.workers import Workers
from protocol.errors import BadCommand

log = structlog.stdlib.get_logger(__name__)

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Listen = Annotated[
    str | None, typer.Option(help="Address of viewers, consoles and merchants. [127.0.0.1:8080]")
]
InternalListen = Annotated[str | None, typer.Option(help="Address of health and metrics. [127.0.0.1:9090]")]
WorkersOption = Annotated[int | None, typer.Option(help="Processes that share the port. [1]")]
StoreUrl = Annotated[
    str | None,
    typer.Option(help="redis://, rediss://, unix:// or redis+cluster://; none runs a private store."),
]
DataDir = Annotated[Path | None, typer.Option(help="Home of the private store. [./liveroom-data]")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with keys, tenants and settings.")
]
Dev = Annotated[bool | None, typer.Option("--dev", help="Known tenants and keys; loopback only.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info or warning. [info]")]
SharedPort = Annotated[int | None, typer.Option("--shared-port", hidden=True)]


class Service(Protocol):
    """Something that runs until it is told to stop."""

    async def start(self) -> None:
        """Start; ready when this returns."""
        ...

    async def stop(self) -> None:
        """Stop politely."""
        ...


async def run_until_signal(
    service: Service,
    started: Callable[[], Awaitable[None] | None],
    hangup: Callable[[], None] | None = None,
) -> None:
    """
    Start a service, say so, and stop it on SIGTERM or SIGINT. A second signal ends the process at once.

    Args:
        started: Called once the service is started.
        hangup: Called for every SIGHUP; without it, a SIGHUP ends the process.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_once, loop, told, number)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup)
    try:
        await service.start()
        said = started()
        if said is not None:
            await said
        await told.wait()
    finally:
        await service.stop()


def _stop_once(loop: asyncio.AbstractEventLoop, told: asyncio.Event, number: signal.Signals) -> None:
    told.set()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(each)


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        uvloop.run(main)
    except ConfigError as error:
        fail(error)


def fail(error: ConfigError) -> None:
    """Say what the operator has to do, and end the process."""
    print(f"liveroom: {error}", file=sys.stderr)
    sys.exit(EXIT_CONFIG)


def read_config(file: Path | None, *, makes_dev_key: bool = True, **options: Any) -> Config:
    """Read the settings or end the process."""
    try:
        return load(options, file, makes_dev_key=makes_dev_key)
    except ConfigError as error:
        fail(error)
        raise


@cli.command()
def serve(
    listen: Listen = None,
    internal_listen: InternalListen = None,
    workers: WorkersOption = None,
    store: StoreUrl = None,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
    dev: Dev = None,
    log_level: LogLevel = None,
    shared_port: SharedPort = None,
) -> None:
    """Run the service."""
    config = read_config(
        config_file,
        listen=listen,
        internal_listen=internal_listen,
        workers=workers,
        store=store,
        data_dir=data_dir,
        dev=dev,
        log_level=log_level,
    )
    try:
        # Here, so that a supervisor does not start workers that must all refuse.
        check_store(config)
    except ConfigError as error:
        fail(error)
    set_up_logs(config.log_level)
    if config.workers > 1 and shared_port is None:
        arguments = ["serve", "--listen", config.listen, "--log-level", config.log_level]
        arguments += ["--data-dir", str(config.data_dir)]
        arguments += ["--dev"] if config.dev else []
        arguments += ["--config", str(config_file)] if config_file else []
        supervisor = Workers(config, arguments, environment())
        _run(run_until_signal(supervisor, lambda: announce(supervisor), supervisor.roll))
        return
    shared = socket.socket(fileno=shared_port) if shared_port is not None else None
    app = App(config, shared=shared)
    _run(run_until_signal(app, lambda: announce(app), _nothing_to_roll))


def _nothing_to_roll() -> None:
    log.warning("roll.ignored", reason="a rolling restart takes --workers 2 or more")


def announce(service: App | Workers) -> None:
    """Say where the service is, on standard output: one line a program can read."""
    addresses = ["{}:{}".format(*address) for address in (service.address, service.internal_address)]
    print("liveroom listening on http://{} internal http://{}".format(*addresses), flush=True)


@cli.command()
def token(
    tenant: Annotated[str, typer.Option(help="Tenant of the room.")],
    room: Annotated[str, typer.Option(help="Room id, or * for every room of the tenant.")],
    viewer: Annotated[str, typer.Option(help="Viewer id.")],
    role: Annotated[str, typer.Option(help="viewer, agent, moderator, streamer or owner.")] = "viewer",
    name: Annotated[str | None, typer.Option(help="Name to show.")] = None,
    ttl_s: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
    dev: Dev = None,
) -> None:
    """Print a token."""
    # Without a configuration file the only keys there can be are those of --dev.
    # One that is made here would sign tokens that no service knows.
    config = read_config(
        config_file, makes_dev_key=False, data_dir=data_dir, dev=dev or config_file is None or None
    )
    body: dict[str, Any] = {"room": room, "viewer": viewer, "role": role, "ttl_s": ttl_s, "name": name}
    try:
        signed, _ = sign_token(Tokens(list(config.signing_keys)), tenant, body)
    except BadCommand as error:
        raise typer.BadParameter(error.message) from None
    except LiveroomError as error:
        fail(ConfigError(str(error)))
        raise
    print(signed)


@cli.command()
def plan(
    viewers: Annotated[int, typer.Option(min=1, help="Viewers of all rooms together.")],
    comments_per_s: Annotated[float, typer.Option(min=0, help="Comments of all rooms together, per second.")],
    rooms: Annotated[int, typer.Option(min=1, help="Rooms they spread over.")] = 1,
    joins_per_s: Annotated[float, typer.Option(min=0, help="Viewers who come in, per second.")] = 0.0,
    chat_per_s_max: Annotated[float, typer.Option(min=0, help="Chat shown in a room; 0 shows all.")] = 40.0,
    compression: Annotated[bool, typer.Option("--compression", help="Viewers negotiate deflate.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the machine a show needs, from measured costs (docs/performance.md)."""
    needed = make_plan(
        Load(
            viewers=viewers,
            comments_per_s=comments_per_s,
            rooms=rooms,
            joins_per_s=joins_per_s,
            chat_per_s_max=chat_per_s_max,
            compression=compression,
        )
    )
    if json:
        print(orjson.dumps(needed.to_map(), option=orjson.OPT_INDENT_2).decode())
        return
    lines = describe(needed)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    for warning in needed.warnings:
        print(f"! {warning}")


@cli.command()
def demo(
    listen: Listen = None,
    internal_listen: InternalListen = None,
    data_dir: DataDir = None,
    viewers: Annotated[int, typer.Option(help="Simulated viewers.")] = 40,
    log_level: LogLevel = None,
) -> None:
    """Run a live room with a lively simulated crowd, and print the addresses of its pages."""
    from engine.demo import Demo  # The load test's crowd is not needed to serve.

    config = read_config(
        None,
        listen=listen,
        internal_listen=internal_listen,
        data_dir=data_dir,
        dev=True,
        log_level=log_level or "warning",
        # Closing the console's page must not end the show.
        streamer_grace_ms=0,
        drain_spread_ms=0,
    )
    set_up_logs(config.log_level)
    show = Demo(config, viewers=viewers)
    _run(run_until_signal(show, show.announce))


def main() -> None:
    """Run the command line."""
    cli()
