"""
A result as a value: a sale with a kill in the middle, everything a page can show.

Tests change what they are about.
"""

from collections import Counter
from typing import Any

from loadtest import timeline
from loadtest.findings import BoardTally, Findings, PacketTally, SaleTally
from loadtest.history import CommentSeen, FactSeen, Frame, History, Outcome, ProcessHistory
from loadtest.latency import Delays
from loadtest.meter import Usage
from loadtest.planners import make
from loadtest.report import Result, build
from loadtest.scenario import load
from loadtest.swarm import Swarm
from loadtest.timeline import Counts, Pulse
from tests.unit.loadtest.test_report import a_progress


def a_result(
    *,
    findings: Findings | None = None,
    scale: float = 1.0,
    late: int = 0,
    overrides: dict[str, Any] | None = None,
) -> Result:
    """Return a result whose delays are those of a quiet run times `scale`."""
    small = {"viewers.count": 30, "seckill.claims": 60, "seckill.stock": 5, "seconds": 9, "comments.per_s": 4}
    plan = make(load("seckill", small | (overrides or {})), 5)
    found = findings or Findings()
    if findings is None:
        found.viewers_checked, found.facts_delivered, found.comments_delivered = 31, 210, 900
        found.neighbours_checked, found.facts = 4, 7
    found.sales["s-sale"] = SaleTally(
        stock=5, left=0, held=5, sold=0, claims=60, answers={"won": 5, "sold_out": 55}, searched=True
    )
    found.packets["s-p1"] = PacketTally(
        total_cents=100, granted_cents=60, refunded_cents=40, left_cents=0, shares=2, winners=1, grabs=3
    )
    found.board = BoardTally(arrivals=3, counted=2, inviters=1, reasons={"forged": 1})
    outcomes, frames = [], []
    for number, step in enumerate(plan.steps):
        cmd = "room.join" if step.verb == "join" else step.command.get("cmd", "")
        done_us = step.at_us + int(2_000 * scale * (1 + number % 7))
        code = "sold_out" if cmd == "seckill.claim" and number % 5 else "ok"
        if step.verb in ("join", "send"):
            outcomes.append(Outcome(number, cmd, code, step.at_us, step.at_us, done_us))
        if cmd == "comment.send":
            ticks = {done_us // 100 + place * 10: 1 for place in range(30)}
            frames.append(Frame(len(frames), [CommentSeen(number, number, "s-v1", number, 0)], ticks, False))
    frames += [
        Frame(
            len(frames) + seq, [FactSeen(seq, seq, "notice")], {seq * 10_000: 3, seq * 10_000 + 20: 5}, False
        )
        for seq in (1, 2, 3)
    ]
    history = History(
        "s",
        "load-s",
        3,
        [ProcessHistory(0, frames, [], outcomes)],
        faults=["at 8.00 s: killed the store, process 7"],
    )
    swarm = Swarm([])
    swarm.progress = {0: a_progress(late=late)}
    counts: Counts = timeline.counts(plan, history)
    lags = Delays()
    for delay_us, times in Counter({300: 900, 4000: 30}).items():
        lags.record(delay_us, times)
    swarm.lags = lags
    return build(
        plan=plan,
        swarm=swarm,
        history=history,
        findings=found,
        target="ws://127.0.0.1:8080",
        command=["liveroom-loadtest", "run", "seckill", "--viewers", "30"],
        started_at="2026-11-21T20:00:00+00:00",
        seconds=14.0,
        counts=counts,
        pulses=[
            Pulse(float(second), min(30, 8 * second), 1.5, 5 if second < 8 else 0) for second in range(1, 14)
        ],
        usage=[
            Usage(float(second), group, cores, size << 20, 1)
            for second in range(1, 14)
            for group, cores, size in (("generator", 0.2, 60), ("server", 0.3 * scale, 80), ("store", 0.1, 9))
        ],
    )
