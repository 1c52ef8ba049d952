"""
How much machine a show needs: viewers and comments in, cores, memory, bandwidth and store load out.

Decides nothing at run time; an estimate from costs that were measured, one by one, on one machine. The rhythm of a room
is not estimated but asked of `fanout/cadence.py`, so that the plan and the engine cannot disagree about it. Pure.

What it leaves out: TLS, a proxy in front, a machine that is busy with other things. Measure your own.

Source: docs/performance.md, "What things cost", whose table holds the same numbers.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from engine.fanout.cadence import GAUGE_PERIOD_S, Cadence


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What things cost, as measured. CPU in microseconds of one core, memory in KiB."""

    #: One frame to one viewer: Python, event loop and kernel.
    frame_us: float = 10.5
    #: And for each KiB in it.
    frame_kib_us: float = 1.5
    #: One comment, from the sender's frame to the store and back, on the sender's worker.
    comment_us: float = 400.0
    #: One comment that another worker accepted, off the bus.
    bus_us: float = 60.0
    #: One join: handshake, token, place in the room, snapshot.
    join_us: float = 350.0
    #: One comment, one join in the store, synced to disk and published.
    store_comment_us: float = 140.0
    store_join_us: float = 100.0
    #: A worker without viewers; a joined viewer who is idle; what the kernel holds for their socket.
    worker_kib: float = 79_000.0
    viewer_kib: float = 9.0
    socket_kib: float = 5.5
    #: A deflated batch of comments, as a part of the plain one.
    deflated: float = 0.35


MEASURED: Final = Costs()
#: Size of a comment on the wire (bytes).
EVENT_BYTES: Final = 200
#: Likes, online and the like, sent together with a batch (bytes).
GAUGES_BYTES: Final = 120
#: Headers of a frame: WebSocket, TCP and IP (bytes).
FRAME_OVERHEAD_BYTES: Final = 60
#: Part of a core that a plan fills. The rest is for facts, claims, bursts and a worker that is restarted.
CORE_FILL_MAX: Final = 0.6
#: Longest delay that a plan accepts (seconds).
DELAY_S_MAX: Final = 1.0
WORKERS_MAX: Final = 256
_KIB_PER_GIB: Final = 1024 * 1024
_ROUNDS: Final = 60
_OTHERS_FILL_MAX: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A show, or several at once."""

    #: Viewers of all rooms together.
    viewers: int
    #: Comments of all rooms together, per second.
    comments_per_s: float
    #: Rooms they spread over evenly.
    rooms: int = 1
    #: Viewers who come in, per second.
    joins_per_s: float = 0.0
    #: Chat shown in a room, per second; 0 shows all.
    chat_per_s_max: float = 40.0
    #: Whether viewers negotiate permessage-deflate and the operator offers it.
    compression: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """One room on one worker, among others."""

    #: Flushes per second, each a frame to every viewer.
    frames_per_s: float
    frame_bytes: float
    #: Chat events shown, per second.
    shown_per_s: float
    #: Longest time from a comment's arrival to the last viewer's write (seconds).
    delay_s_max: float
    #: Part of its core that the worker uses for everything.
    worker_fill: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a load needs."""

    load: Load
    #: Worker processes, a core each.
    workers: int
    #: Part of its core that a worker uses.
    worker_fill: float
    #: Part of a core that the store uses; its one thread has no more than one.
    store_fill: float
    cores: int
    memory_gib: float
    bandwidth_mbit_per_s: float
    shown_per_s_and_room: float
    frames_per_s_and_viewer: float
    delay_ms_max: float
    store_calls_per_s_max: float
    #: What does not fit, in words.
    warnings: tuple[str, ...]

    def to_map(self) -> dict[str, Any]:
        """Return the plan as plain values, the costs it rests on included."""
        return {**asdict(self), "costs": asdict(MEASURED)}


def rhythm(load: Load, workers: int) -> Rhythm:
    """Return how each room is sent to by each worker, when viewers, comments and joins spread evenly over them."""
    viewers = load.viewers / load.rooms / workers
    comments_per_s = load.comments_per_s / load.rooms
    shown_per_s = min(comments_per_s, load.chat_per_s_max) if load.chat_per_s_max else comments_per_s
    commands_fill = _commands_fill(load, workers)
    period_s, fanout_fill = GAUGE_PERIOD_S, 0.0
    # A longer pause makes a larger frame, which costs more, which makes a longer pause; and what a room's flush is
    # stretched by is what the other rooms take of the loop. All of it settles in a few rounds.
    for _ in range(_ROUNDS):
        payload_bytes = shown_per_s * period_s * EVENT_BYTES + GAUGES_BYTES
        frame_bytes = payload_bytes * (MEASURED.deflated if load.compression else 1.0)
        flush_s = viewers * (MEASURED.frame_us + MEASURED.frame_kib_us * frame_bytes / 1024) / 1e6
        others_fill = min(commands_fill + fanout_fill * (load.rooms - 1) / load.rooms, _OTHERS_FILL_MAX)
        takes_s = flush_s / (1 - others_fill)
        cadence = Cadence()
        cadence.flushed(0.0, takes_s, with_gauges=True)
        ready_s = cadence.next_flush_at(takes_s, facts=False, chat=shown_per_s > 0, gauges=True) or 0.0
        # A room in which somebody speaks less often than it could send is sent to once for each comment.
        period_s = max(ready_s, min(1 / shown_per_s, 1.0) if shown_per_s else GAUGE_PERIOD_S)
        fanout_fill = (fanout_fill + load.rooms * flush_s / period_s) / 2
    return Rhythm(
        frames_per_s=1 / period_s,
        frame_bytes=frame_bytes + FRAME_OVERHEAD_BYTES,
        shown_per_s=shown_per_s,
        delay_s_max=ready_s + takes_s,
        worker_fill=commands_fill + load.rooms * flush_s / period_s,
    )


def _commands_fill(load: Load, workers: int) -> float:
    """Return the part of its core that each worker uses for comments and joins."""
    comments_per_s = load.comments_per_s / workers
    elsewhere_per_s = load.comments_per_s - comments_per_s
    joins_per_s = load.joins_per_s / workers
    used_us = (
        comments_per_s * MEASURED.comment_us
        + elsewhere_per_s * MEASURED.bus_us
        + joins_per_s * MEASURED.join_us
    )
    return used_us / 1e6


def plan(load: Load) -> Plan:
    """Return the smallest number of workers that carries `load` with room to spare, and what goes with it."""
    workers = 1
    while True:
        of_room = rhythm(load, workers)
        fits = of_room.worker_fill <= CORE_FILL_MAX and of_room.delay_s_max <= DELAY_S_MAX
        if fits or workers == WORKERS_MAX:
            break
        workers += 1
    store_us = load.comments_per_s * MEASURED.store_comment_us + load.joins_per_s * MEASURED.store_join_us
    store_fill = store_us / 1e6
    warnings = []
    if not fits:
        warnings.append(f"{WORKERS_MAX} workers are not enough: split the viewers over more rooms")
    if store_fill > CORE_FILL_MAX:
        warnings.append("one store is too busy: use a cluster, which spreads rooms over its nodes")
    if of_room.shown_per_s < load.comments_per_s / load.rooms:
        warnings.append(
            f"a room shows {load.chat_per_s_max:g} chat events a second; the rest is thinned, and all get their replies"
        )
    memory_kib = workers * MEASURED.worker_kib + load.viewers * (MEASURED.viewer_kib + MEASURED.socket_kib)
    bits_per_s = load.viewers * of_room.frames_per_s * of_room.frame_bytes * 8
    return Plan(
        load=load,
        workers=workers,
        worker_fill=of_room.worker_fill,
        store_fill=store_fill,
        cores=workers + max(1, math.ceil(store_fill / CORE_FILL_MAX)),
        memory_gib=memory_kib / _KIB_PER_GIB,
        bandwidth_mbit_per_s=bits_per_s / 1e6,
        shown_per_s_and_room=of_room.shown_per_s,
        frames_per_s_and_viewer=of_room.frames_per_s,
        delay_ms_max=of_room.delay_s_max * 1000,
        store_calls_per_s_max=load.comments_per_s + load.joins_per_s,
        warnings=tuple(warnings),
    )


def describe(needed: Plan) -> list[tuple[str, str]]:
    """Return the plan as lines of a table: what, and how much."""
    workers = "1 worker" if needed.workers == 1 else f"{needed.workers} workers"
    store = needed.cores - needed.workers
    return [
        ("cores", f"{needed.cores}: {workers} and {store} for the store"),
        ("each worker uses", f"{needed.worker_fill:.0%} of a core"),
        ("the store uses", f"{needed.store_fill:.0%} of a core"),
        ("memory", f"{needed.memory_gib:.2f} GiB, sockets included, the store's data not"),
        ("bandwidth out", f"{needed.bandwidth_mbit_per_s:,.0f} Mbit/s"),
        ("frames per viewer", f"{needed.frames_per_s_and_viewer:.1f} a second"),
        ("chat shown in a room", f"{needed.shown_per_s_and_room:g} events a second"),
        ("longest delay", f"{needed.delay_ms_max:.0f} ms from the bus to the last viewer of a room"),
        ("store calls", f"at most {needed.store_calls_per_s_max:,.0f} a second, fewer when they batch"),
    ]
