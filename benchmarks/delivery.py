"""
One measurement of fan-out: a crowd on a running server, events at a steady rate, and what they cost.

Decides what is read before and after (CPU time of server and store, resident memory) and how a sample is made of it.
The window of CPU time is that of the run: from just before its first event to the last delivery, or to the end of the
grace for servers that do not keep up. Source: benchmarks/README.md.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.contenders import Running
from benchmarks.crowd import Crowd, Run
from benchmarks.figures import percentile_ms
from benchmarks.machine import cpu_us, peak_kib, resident_kib

#: Events of a warm-up, in seconds of the rate; and what a server may take to be done with them.
WARM_UP_S: Final = 1.0
WARM_UP_GRACE_S: Final = 5.0
#: How long after the last intended moment a delivery still counts.
GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """Viewers in one room, and events a second to each of them."""

    name: str
    title: str
    viewers: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A load on a server, once. CPU in microseconds, times in milliseconds, memory in KiB."""

    viewers: int
    events: int
    #: Share of the deliveries that were made within the grace, 0 to 1; and whether all were, once and in order.
    delivered: float
    whole: bool
    gaps: int
    repeats: int
    refused: int
    lost: int
    cpu_us_per_event: float | None
    store_us_per_event: float | None
    #: Share of its CPU that the server used.
    server_busy: float
    p50_ms: float
    p99_ms: float
    events_per_frame: float
    bytes_per_event: float
    #: At the end of the run, and the highest so far.
    resident_kib: int
    peak_kib: int
    #: Time from a command to its reply, for servers that answer.
    reply_p99_ms: float
    client_busy: float
    client_lag_p99_ms: float
    client_saturated: bool


def open_up_to(client: Crowd, running: Running, already: int, viewers: int) -> int:
    """
    Open connections until `viewers` listen; return how many there are now.

    Raises:
        CrowdFailed: If some did not join.
    """
    wanted = viewers - already + (running.publishers_apart if not already else 0)
    client.open(wanted).require_all()
    return viewers


def measure(
    client: Crowd, running: Running, *, kind: str, per_s: float, seconds: float, warm_up: bool = True
) -> Sample:
    """Publish events of a kind for so long, after a warm-up, and return what came of it."""
    client.publish_as(*running.templates[kind])
    if warm_up:
        client.run(per_s=per_s, events=max(2, int(per_s * WARM_UP_S)), grace_s=WARM_UP_GRACE_S)
    pids, store = running.pids, running.store_pid
    server_before = cpu_us(*pids)
    store_before = cpu_us(store) if store else 0.0
    run = client.run(per_s=per_s, events=int(per_s * seconds), grace_s=GRACE_S)
    server_us = cpu_us(*pids) - server_before
    store_us = cpu_us(store) - store_before if store else None
    return sample_of(run, server_us, store_us, resident=resident_kib(*pids), peak=peak_kib(*pids))


def sample_of(run: Run, server_us: float, store_us: float | None, *, resident: int, peak: int) -> Sample:
    """
    Return what a run and the readings around it say.

    A server that is still busy with events of the warm-up spends CPU time on them too, so they share it.
    """
    received = run.received
    paid_for = received + run.late
    return Sample(
        viewers=run.listeners,
        events=run.events,
        delivered=run.delivered,
        whole=run.whole,
        gaps=run.gaps,
        repeats=run.repeats,
        refused=run.errors + run.blocked,
        lost=run.lost,
        cpu_us_per_event=server_us / paid_for if paid_for else None,
        store_us_per_event=store_us / paid_for if paid_for and store_us is not None else None,
        server_busy=server_us / run.wall_us,
        p50_ms=run.p_ms(50),
        p99_ms=run.p_ms(99),
        events_per_frame=run.events_per_frame,
        bytes_per_event=run.bytes / received if received else 0.0,
        resident_kib=resident,
        peak_kib=peak,
        reply_p99_ms=percentile_ms(run.reply_delays, 99),
        client_busy=run.busy,
        client_lag_p99_ms=percentile_ms(run.lags, 99),
        client_saturated=run.saturated,
    )
