"""`loadtest/report.py`: a broken promise beats everything, a saturated generator never passes, secrets stay out."""

import orjson
import pytest

from loadtest import report, timeline
from loadtest.findings import BoardTally, Findings, PacketTally, SaleTally
from loadtest.generator import Progress
from loadtest.history import FactSeen, Frame, History, Outcome, ProcessHistory
from loadtest.oracle import FACTS
from loadtest.planners import make
from loadtest.report import Checked, Exit, Gauges, Result, judge_run
from loadtest.scenario import METRICS, Honesty, load
from loadtest.swarm import Swarm

HELD = Checked("delivery_p99_ms < 200", 100, True)
MISSED = Checked("delivery_p99_ms < 200", 300, False)


def violated() -> Findings:
    findings = Findings()
    findings.add(FACTS, "fact 3 never arrived", "v1")
    return findings


@pytest.mark.parametrize(
    ("findings", "checked", "saturated", "code"),
    [
        (Findings(), [HELD], [], Exit.PASS),
        (Findings(), [MISSED], [], Exit.MISSED),
        (Findings(), [HELD], ["late"], Exit.SATURATED),
        (Findings(), [MISSED], ["late"], Exit.SATURATED),
        (violated(), [HELD], [], Exit.VIOLATED),
        (violated(), [MISSED], ["late"], Exit.VIOLATED),
    ],
)
def test_verdict(findings: Findings, checked: list[Checked], saturated: list[str], code: Exit) -> None:
    assert judge_run(findings, checked, saturated)[0] is code


def test_reasons_name_the_violation_and_the_threshold() -> None:
    assert judge_run(violated(), [], [])[2] == ["I4 facts: fact 3 never arrived [v1]"]
    assert judge_run(Findings(), [MISSED], [])[2] == ["delivery_p99_ms < 200: 300"]


def a_progress(*, late: int = 0, left: int = 0, cpu: float = 0.1) -> Progress:
    return Progress(
        connected=1,
        joined=1,
        steps_taken=1000 - left,
        steps_left=left,
        pending=0,
        late=late,
        lag_us=0,
        lags={},
        cpu_share=cpu,
        rss_bytes=1,
        deliveries={},
        claims={},
        joins={},
        online=0,
        stock={},
        outcomes={},
        frames=0,
        faults={},
    )


def gauges(*shares: float, late: int = 0, left: int = 0) -> Gauges:
    swarm = Swarm([])
    swarm.progress = {0: a_progress(late=late, left=left)}
    swarm.cpu = [(place * 0.5, 0, share) for place, share in enumerate(shares)]
    return report.gauges(swarm, Honesty())


def test_generator_that_keeps_up_is_not_saturated() -> None:
    assert gauges(0.3, 0.99, 0.99, 0.4, 0.99, late=10).saturated(Honesty()) == []


def test_more_than_one_percent_late_is_saturated() -> None:
    [reason] = gauges(0.3, late=11).saturated(Honesty())

    assert "1.1%" in reason


def test_steps_never_taken_are_late() -> None:
    assert gauges(0.3, left=20).late == 20
    assert gauges(0.3, left=20).saturated(Honesty())


def test_core_used_up_for_seconds_is_saturated() -> None:
    assert gauges(*[0.97] * 10).saturated(Honesty()) == []
    [reason] = gauges(*[0.97] * 11).saturated(Honesty())

    assert "5.0 s" in reason


def a_result() -> Result:
    scenario = load("crowd", {"viewers.count": 3, "seconds": 1, "comments.per_s": 0})
    outcomes = [
        Outcome(0, "room.join", "ok", 0, 10, 2000),
        Outcome(1, "comment.send", "ok", 1000, 1100, 4000, 1),
        Outcome(2, "comment.send", "rate_limited", 1000, 1100, 4000),
        Outcome(3, "like.send", "unanswered", 1000, 1100, 4000, 0, 5, definite=False),
    ]
    swarm = Swarm([])
    swarm.progress = {0: a_progress()}
    return report.build(
        plan=make(scenario, 5),
        swarm=swarm,
        history=History("s", "load-s", 1, [ProcessHistory(0, [], [], outcomes)]),
        findings=Findings(),
        target="ws://127.0.0.1:8080",
        command=["liveroom-loadtest", "run", "crowd"],
        started_at="2026-11-21T20:00:00+00:00",
        seconds=3.0,
    )


def test_every_metric_a_threshold_may_name_is_computed() -> None:
    assert set(a_result().metrics) == METRICS


def test_result_counts_by_code_and_measures_from_the_intended_moment() -> None:
    result = a_result()

    assert result.outcomes == {
        "comment.send ok": 1,
        "comment.send rate_limited": 1,
        "like.send unanswered": 1,
        "room.join ok": 1,
    }
    assert (result.metrics["refused"], result.metrics["unanswered"]) == (1, 1)
    assert result.latency["join"]["max_ms"] == pytest.approx(2.0, rel=0.001)
    assert result.latency["reply"]["max_ms"] == pytest.approx(3.0, rel=0.001)
    assert result.exit_code == Exit.MISSED


def test_summary_is_json_with_machine_versions_and_seed() -> None:
    summary = orjson.loads(a_result().to_bytes())

    assert summary["version"] == report.SUMMARY_VERSION
    assert (summary["seed"], summary["scenario"]["viewers"]["count"]) == (5, 3)
    assert summary["machine"]["cores"] >= 1
    assert "python" in summary["versions"]
    assert summary["verdict"] == "threshold missed"


def test_text_shows_percentiles_refusals_and_verdict() -> None:
    text = report.text(a_result())

    assert "comment.send rate_limited × 1" in text
    assert "THRESHOLD MISSED (exit 3)" in text
    assert "unanswered == 0: 1" in text
    assert "p99.9" in text


def test_skew_of_a_fact_counts_from_its_first_sight() -> None:
    plan = make(load("crowd", {"viewers.count": 1, "seconds": 1, "comments.per_s": 0}), 1)
    frame = Frame(0, [FactSeen(1, 1, "notice")], {100: 1, 130: 4}, False)
    history = History("s", "r", 1, [ProcessHistory(0, [frame], [], [])])

    skew = report.delays(timeline.counts(plan, history))["fact"]

    assert skew.count == 5
    assert skew.max_us() == pytest.approx(3000, rel=0.001)


def a_sale_result() -> Result:
    scenario = load("seckill", {"viewers.count": 20, "seckill.claims": 40, "seckill.stock": 2})
    plan = make(scenario, 5)
    cut = {step.actor for step in plan.steps if step.verb == "cut"}
    claims = [number for number, step in enumerate(plan.steps) if step.command.get("cmd") == "seckill.claim"]
    stayed = [number for number in claims if plan.steps[number].actor not in cut]
    dropped = [number for number in claims if plan.steps[number].actor in cut]
    outcomes = [
        Outcome(stayed[0], "seckill.claim", "ok", 1000, 1000, 3000),
        Outcome(stayed[1], "seckill.claim", "sold_out", 1000, 1000, 5000),
        Outcome(stayed[2], "seckill.claim", "unanswered", 1000, 1000, 9000, definite=False),
        Outcome(dropped[0], "seckill.claim", "ok", 1000, 1000, 901_000, tries=2),
    ]
    findings = Findings()
    findings.sales["s-sale"] = SaleTally(
        stock=2, left=0, held=1, sold=1, claims=4, answers={"won": 2, "sold_out": 1}, reasked=1, payments=3
    )
    findings.packets["s-p1"] = PacketTally(
        total_cents=100, granted_cents=60, refunded_cents=40, left_cents=0, shares=2, winners=1, searched=True
    )
    findings.board = BoardTally(arrivals=3, counted=2, inviters=1, reasons={"forged": 1})
    swarm = Swarm([])
    swarm.progress = {0: a_progress()}
    return report.build(
        plan=plan,
        swarm=swarm,
        history=History("s", "load-s", 1, [ProcessHistory(0, [], [], outcomes)], faults=["at 8.0 s: killed"]),
        findings=findings,
        target="ws://127.0.0.1:8080",
        command=["liveroom-loadtest", "run", "seckill"],
        started_at="2026-11-21T20:00:00+00:00",
        seconds=3.0,
    )


def test_every_answer_to_a_claim_counts_and_those_after_a_cut_apart() -> None:
    result = a_sale_result()

    assert result.latency["claim"]["count"] == 2
    assert result.latency["claim"]["max_ms"] == pytest.approx(4, rel=0.001)
    assert result.latency["cut"]["max_ms"] == pytest.approx(900, rel=0.001)
    assert (result.metrics["claims_unanswered"], result.metrics["wins"]) == (1, 2)
    assert result.exit_code == Exit.MISSED


def test_text_shows_stock_cents_and_what_was_done_to_the_server() -> None:
    text = report.text(a_sale_result())

    assert "4 asked: won × 2, sold_out × 1; 1 asked more than once" in text
    assert "2 = 0 left + 1 held + 1 sold; 0 won early" in text
    assert "3 reported" in text
    assert "1 of 2 shares; 100 cents = 60 granted + 0 left + 40 refunded" in text
    assert "3 arrivals through links, 2 counted (forged × 1), brought by 1" in text
    assert "struck     at 8.0 s: killed" in text


@pytest.mark.parametrize(
    ("command", "replay"),
    [
        (["liveroom-loadtest", "run", "crowd"], "liveroom-loadtest run crowd --seed 5"),
        (["liveroom-loadtest", "run", "crowd", "--seed", "5"], "liveroom-loadtest run crowd --seed 5"),
        (["liveroom-loadtest", "run", "--plan=a b.gz"], "liveroom-loadtest run '--plan=a b.gz'"),
        ([], ""),
    ],
)
def test_replay_says_the_seed_unless_it_is_said_already(command: list[str], replay: str) -> None:
    assert report.replay(command, 5) == replay
