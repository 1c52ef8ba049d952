"""
Metrics and logs: names, units, set-up.

Decides what is counted and how lines look. Anything per message is a metric, not a line. Secrets do not reach a log:
tokens, keys and texts are never passed to one, and addresses of stores are stripped of their password.

Source: https://prometheus.io/docs/practices/naming/.
"""

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one worker. Every method is cheap enough for the hot path."""

    def __init__(self, worker: str) -> None:
        self.registry = CollectorRegistry()
        self.worker = worker
        make: dict[str, Any] = {"registry": self.registry}
        self.connections = Gauge("liveroom_connections", "Open connections.", **make)
        self.rooms = Gauge("liveroom_rooms", "Rooms held by this worker.", **make)
        self.joins = Counter("liveroom_joins_total", "Joins accepted.", **make)
        self.closes = Counter("liveroom_closes_total", "Connections closed, by close code.", ["code"], **make)
        self.commands = Counter("liveroom_commands_total", "Commands of joined connections.", ["cmd"], **make)
        self.refusals = Counter("liveroom_refusals_total", "Commands refused, by code.", ["code"], **make)
        self.events = Counter("liveroom_events_total", "Events sent to rooms, once per flush.", **make)
        self.deliveries = Counter(
            "liveroom_deliveries_total", "Events times viewers they were sent to.", **make
        )
        self.thinned_events = Counter(
            "liveroom_thinned_total", "Chat events left out by the display cap.", **make
        )
        self.recoveries = Counter("liveroom_recoveries_total", "Gaps closed, by source.", ["source"], **make)
        self.flush_cost = Histogram(
            "liveroom_flush_cost_seconds", "From the first write of a flush to the end of its last.",
            buckets=_DELAY_BUCKETS, **make,
        )  # fmt: skip
        self.store_calls = Gauge("liveroom_store_calls", "Calls the store answered so far.", **make)
        self.store_flights = Gauge("liveroom_store_flights", "Pipelines sent to the store so far.", **make)
        self.store_waiting = Gauge("liveroom_store_waiting", "Calls that wait for the store.", **make)
        self.store_up = Gauge("liveroom_store_up", "1 while the store answers.", **make)
        # CPU, memory and open files of the process, read when the metrics are.
        ProcessCollector(registry=self.registry)
        self._by_command: dict[str, Any] = {}

    def command(self, name: str) -> None:
        """Count a command."""
        counter = self._by_command.get(name)
        if counter is None:
            counter = self._by_command[name] = self.commands.labels(name)
        counter.inc()

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self.refusals.labels(str(code)).inc()

    def flushed(self, events: int, viewers: int, cost_s: float) -> None:
        """Count a flush of `events` to `viewers`."""
        self.events.inc(events)
        self.deliveries.inc(events * viewers)
        self.flush_cost.observe(cost_s)

    def thinned(self, events: int) -> None:
        """Count chat events that were left out."""
        self.thinned_events.inc(events)

    def recovered(self, how: str) -> None:
        """Count a closed gap."""
        self.recoveries.labels(how).inc()

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class SupervisorMetrics:
    """What the process that looks after several workers knows of them. `worker` is the number of a place, from 0."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make: dict[str, Any] = {"registry": self.registry}
        self.ready = Gauge("liveroom_worker_ready", "1 while the worker is ready.", ["worker"], **make)
        self.starts = Counter(
            "liveroom_worker_starts_total", "Workers started, by reason: start, died, rolled.",
            ["worker", "reason"], **make,
        )  # fmt: skip
        self.rolls = Counter(
            "liveroom_rolls_total", "Rolling restarts, by outcome: done, stopped.", ["outcome"], **make
        )
        for outcome in ("done", "stopped"):
            self.rolls.labels(outcome)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def merge_metrics(own: CollectorRegistry, label: str, texts: Mapping[str, str]) -> tuple[bytes, str]:
    """
    Return one exposition of several, as text, and its content type.

    Args:
        own: Samples that are shown as they are.
        label: Added to every sample of `texts`; its value is their key.
        texts: Expositions of the same program in the Prometheus text format.
    """
    families: dict[str, Metric] = {}
    for value, text in texts.items():
        for family in text_string_to_metric_families(text):
            # A family is written once, however many give samples of it.
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.samples.append(sample._replace(labels={**sample.labels, label: value}))
    merged = _Families([*own.collect(), *families.values()])
    return generate_latest(merged), CONTENT_TYPE_LATEST


def without_password(url: str) -> str:
    """Return a store URL that may be shown."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        parts = parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2])
        url = urlunsplit(parts)
    # Its options may name a password as well.
    return url.partition("?")[0]


class _PeersFaults(logging.Filter):
    """Drops aiohttp's lines about requests that are not HTTP: they quote what was sent, keys and tokens included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line may be shown."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_PEERS_FAULTS = _PeersFaults()


def set_up_logs(level: str) -> None:
    """Send lines of `level` and above to standard error: readable on a terminal, JSON elsewhere."""
    # Adding the same filter twice is adding it once.
    logging.getLogger("aiohttp.server").addFilter(_PEERS_FAULTS)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
