"""
One worker: builds the parts, starts them in order, stops them in reverse.

Decides who knows whom and the order of life. Each part gets what it needs as values; none reads the configuration.
"""

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
from pathlib import Path

import structlog
from aiohttp import web

from engine.clock import StoreClock
from engine.config import Config, check_data_dir, split_address
from engine.errors import ConfigError, StoreUnavailable
from engine.fanout.hub import Hub
from engine.gateway.console import Console
from engine.gateway.listener import Listener
from engine.gateway.parts import Limits
from engine.gateway.server import Gateway
from engine.gateway.transport import Timeouts, build_frame
from engine.http.api import BODY_BYTES_MAX, MerchantApi
from engine.http.internal import Internal
from engine.http.pages import Pages, add_headers
from engine.rooms.words import WordFilter
from engine.store.embedded import EmbeddedStore
from engine.store.link import make_connection
from engine.store.store import Store
from engine.store.topology import ClusterUrl, is_cluster
from engine.telemetry import Metrics, without_password
from engine.timers import Timers
from engine.tokens import Tokens

log = structlog.stdlib.get_logger(__name__)

_PROBE_S = 1.0
#: Patience with a store that is still starting (seconds).
_STORE_START_S = 10.0
_BACKLOG = 4096
#: How long those who were accepted last may take to say what they want (seconds).
_LAST_ARRIVALS_S = 0.5
#: How long requests under way may take to finish when draining (seconds).
_REQUESTS_S_MAX = 5.0


class App:
    """One worker of the service."""

    def __init__(self, config: Config, *, shared: socket.socket | None = None) -> None:
        """
        Prepare.

        Args:
            shared: The bound socket of a worker that has a supervisor, which keeps another descriptor of it.
        """
        self.config = config
        self._shared = shared
        self.worker = secrets.token_hex(4)
        self.metrics = Metrics(self.worker)
        self._embedded: EmbeddedStore | None = None
        self._runner: web.AppRunner | None = None
        self._internal: web.AppRunner | None = None
        self._probe: asyncio.Task[None] | None = None
        self._store_answers = False
        #: Bound addresses, known once started.
        self.address: tuple[str, int] = ("", 0)
        self.internal_address: tuple[str, int] = ("", 0)

    async def start(self) -> None:
        """
        Start everything; viewers can come when this returns.

        Raises:
            ConfigError: If the operator has to act.
        """
        config = self.config
        check_store(config)
        self.words = words = WordFilter(_read_words(config.words_file))
        url = config.store
        if not url:
            self._embedded = EmbeddedStore(config.data_dir, appendfsync=config.appendfsync)
            url = await self._embedded.start()
        self.clock = StoreClock()
        self.store = Store(url, self.clock, replicas=config.store_replicas)
        await self._start_store(url)
        self._store_answers = True
        self.tokens = Tokens(list(config.signing_keys))
        self.hub = Hub(
            self.store,
            clock=self.clock,
            worker=self.worker,
            build_frame=build_frame,
            metrics=self.metrics,
            chat_per_s_max=config.chat_per_s_max,
        )
        await self.hub.start()
        self.timers = Timers(
            self.store, streamer_grace_ms=config.streamer_grace_ms, paused_close_ms=config.paused_close_ms
        )
        await self.timers.start()
        self.console = Console(self.store, words, self.timers)
        self.gateway = Gateway(
            store=self.store,
            hub=self.hub,
            console=self.console,
            timers=self.timers,
            tokens=self.tokens,
            words=words,
            clock=self.clock,
            metrics=self.metrics,
            limits=Limits(
                comments_per_s=config.comments_per_s,
                comments_burst=config.comments_burst,
                likes_per_s=config.likes_per_s,
                likes_burst=config.likes_burst,
                commands_per_s=config.commands_per_s,
                commands_burst=config.commands_burst,
                share_ttl_s=config.share_ttl_ms // 1000,
            ),
        )
        await self._start_http()
        self._probe = asyncio.create_task(self._probe_store(), name="store-probe")
        if self._shared is not None:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._supervisor_gone)
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        log.info("ready", listen=self.address, internal=self.internal_address, worker=self.worker)

    def _supervisor_gone(self) -> None:
        """Our end of the supervisor's pipe says that it is gone: stop as if told to, since nobody else would tell."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        log.warning("supervisor.gone", worker=self.worker)
        os.kill(os.getpid(), signal.SIGTERM)

    async def _start_store(self, url: str) -> None:
        deadline = asyncio.get_running_loop().time() + _STORE_START_S
        while True:
            try:
                await self.store.start()
                return
            except StoreUnavailable as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise ConfigError(f"no store at {without_password(url)}: {error}") from None
            await asyncio.sleep(0.1)

    async def _start_http(self) -> None:
        config = self.config
        api = MerchantApi(
            store=self.store,
            console=self.console,
            tokens=self.tokens,
            merchant_keys_sha256=config.merchant_keys_sha256,
            facts_kept_ms=config.facts_kept_ms,
            share_dwell_ms=config.share_dwell_ms,
            words=self.words,
        )
        public = web.Application(client_max_size=BODY_BYTES_MAX)
        public.add_routes(api.routes())
        public.add_routes(Pages(store=self.store, tokens=self.tokens, dev=config.dev).routes())
        public.router.add_get("/ws", self._upgrade, allow_head=False)
        public.on_response_prepare.append(add_headers)
        public.on_response_prepare.append(self._part_ways)
        # Requests are not logged: paths carry viewers' ids.
        self._runner = web.AppRunner(
            public,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=75,
            shutdown_timeout=_REQUESTS_S_MAX,
        )
        await self._runner.setup()
        self.listener = Listener(
            open_session=self.gateway.open_session,
            http_server=self._runner.server,
            timeouts=Timeouts(join_timeout_ms=config.join_timeout_ms, idle_timeout_ms=config.idle_timeout_ms),
            compression=config.compression,
            allowed_origins=frozenset(config.allowed_origins) or None,
        )
        internal = web.Application()
        internal.add_routes(
            Internal(ready=self.readiness, render=self._render_metrics).routes(),
        )
        self._internal = web.AppRunner(
            internal, access_log=None, handle_signals=False, shutdown_timeout=_REQUESTS_S_MAX
        )
        await self._internal.setup()
        try:
            host, port = split_address("internal_listen", config.internal_listen)
            site = web.TCPSite(self._internal, host, port)
            await site.start()
            self.internal_address = self._internal.addresses[0][:2]
            host, port = split_address("listen", config.listen)
            self.address = await self.listener.start(host, port, sock=self._shared, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        return await self.listener.upgrade(request)

    async def _part_ways(self, request: web.Request, response: web.StreamResponse) -> None:
        """Have the client ask its next question elsewhere: on this connection it could come too late to be read."""
        if self.gateway.draining:
            response.force_close()

    async def stop(self) -> None:
        """Drain, then stop everything in reverse order. Safe after a start that failed half-way."""
        if hasattr(self, "listener"):
            self.gateway.draining = True
            await self.listener.accept_rest(_LAST_ARRIVALS_S)
            await self.gateway.drain(self.config.drain_spread_ms)
            await self.listener.stop()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        for runner in (self._runner, self._internal):
            if runner is not None:
                await runner.cleanup()
        if hasattr(self, "gateway"):
            self.gateway.stop()
        if hasattr(self, "timers"):
            await self.timers.stop()
        if hasattr(self, "hub"):
            await self.hub.stop()
        if hasattr(self, "store"):
            await self.store.stop()
        if self._embedded is not None:
            await self._embedded.stop()

    async def readiness(self) -> tuple[bool, str]:
        """Return whether viewers may come, and how it stands in words."""
        if self.gateway.draining:
            return False, "draining"
        if not self._store_answers:
            return False, "the store does not answer"
        return True, "ready"

    async def _probe_store(self) -> None:
        while True:
            try:
                await self.store.ping()
                self._store_answers = True
            except StoreUnavailable:
                self._store_answers = False
            except Exception:
                log.exception("store.probe_failed")
                self._store_answers = False
            await asyncio.sleep(_PROBE_S)

    async def _render_metrics(self) -> tuple[bytes, str]:
        self.metrics.rooms.set(len(self.hub.rooms))
        self.metrics.store_calls.set(self.store.calls)
        self.metrics.store_flights.set(self.store.flights)
        self.metrics.store_waiting.set(self.store.waiting)
        self.metrics.store_up.set(int(self._store_answers))
        return self.metrics.render()


def check_store(config: Config) -> None:
    """
    Refuse settings of the store that can never work, before anything is started.

    Raises:
        ConfigError: Saying what is wrong. The URL is not quoted: it may hold a password.
    """
    if not config.store:
        if config.store_replicas:
            raise ConfigError(
                f"store_replicas is {config.store_replicas}, but the private store has no replicas: "
                "name a store of your own with --store, or set store_replicas to 0"
            )
        check_data_dir(config.data_dir)
        return
    try:
        if is_cluster(config.store):
            nodes = ClusterUrl(config.store)
            urls = [nodes.of(address) for address in nodes.seeds]
        else:
            urls = [config.store]
        for url in urls:
            make_connection(url)
    except ValueError as error:
        raise ConfigError(f"store: {error}") from None


def _read_words(file: str) -> list[str]:
    if not file:
        return []
    try:
        return Path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read words_file {file}: {error}") from None
