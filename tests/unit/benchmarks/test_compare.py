"""How the comparison judges: best peer, ratios, what is missing, what is saved."""

import json
from dataclasses import replace
from typing import Any

from benchmarks.bench_gateway import Figures, gateway_table, gateway_verdicts
from benchmarks.compare import LOADS, Results, load_table, verdicts
from benchmarks.delivery import Sample, sample_of
from tests.unit.benchmarks.test_crowd import a_run

A_SAMPLE = sample_of(a_run(), 80.0, 4.0, resident=1_024, peak=2_048)


def a_sample(cpu_us: float | None, **changes: Any) -> Sample:
    return replace(A_SAMPLE, cpu_us_per_event=cpu_us, **changes)


def a_busy_room(engine: float, **peers: float) -> Results:
    results = Results(peers=set(peers))
    results.samples["b", "this engine"] = {1: a_sample(engine)}
    for name, cost in peers.items():
        results.samples["b", name] = {1: a_sample(cost)}
    return results


def said(results: Results, figures: Figures | None = None) -> dict[str, str]:
    return {line[0]: line[3] for line in verdicts(results, figures or Figures())}


def test_sample_divides_cpu_by_deliveries() -> None:
    assert A_SAMPLE.cpu_us_per_event == 2.0
    assert A_SAMPLE.store_us_per_event == 0.1
    assert A_SAMPLE.bytes_per_event == 200.0


def test_late_events_share_the_cpu_they_cost() -> None:
    sample = sample_of(a_run(received=20, late=20), 80.0, None, resident=0, peak=0)

    assert sample.cpu_us_per_event == 2.0
    assert sample.store_us_per_event is None


def test_engine_is_judged_by_the_cheapest_peer() -> None:
    assert said(a_busy_room(1.0, ws=9.0, uws=4.0))["(b) CPU per event ÷ best peer (uws)"] == "met"
    assert said(a_busy_room(2.0, ws=9.0, uws=4.0))["(b) CPU per event ÷ best peer (uws)"] == "**missed**"


def test_huge_room_is_judged_by_peers_that_deliver_everything() -> None:
    results = Results(peers={"fast", "whole"})
    results.samples["c", "this engine"] = {1: a_sample(1.0)}
    results.samples["c", "fast"] = {1: a_sample(1.0, delivered=0.9)}
    results.samples["c", "whole"] = {1: a_sample(4.0)}

    assert said(results)["(c) CPU per event ÷ best peer that delivers all (whole)"] == "met"


def test_one_event_per_frame_is_judged_only_when_it_was_so() -> None:
    """Sharing frames is cheaper, so it must not pass for cheap frames."""
    results = a_busy_room(1.0, ws=9.0)
    for name, cost in (("this engine", 1.0), ("bare transport", 2.0), ("ws", 9.0)):
        results.samples["a", name] = {1: a_sample(cost, events_per_frame=1.0)}
    assert said(results)["(a) CPU per event ÷ bare transport"] == "met"

    results.samples["a", "this engine"] = {1: a_sample(1.0, events_per_frame=3.0)}

    lines = said(results)
    assert lines["(a) events per frame"] == "**missed**"
    assert lines["(a) CPU per event ÷ bare transport"].startswith("not comparable")
    assert lines["(a) below every peer: CPU per event ÷ best peer"].startswith("not comparable")


def test_without_a_peer_nothing_is_met() -> None:
    assert said(a_busy_room(1.0))["(b) CPU per event ÷ best peer"] == "not measured"


def test_incomplete_delivery_is_missed() -> None:
    results = Results()
    results.samples["b", "this engine"] = {1: a_sample(1.0, delivered=0.999)}

    assert said(results)["(b) delivered"] == "**missed**"


def test_missing_peer_stands_in_the_table_with_its_reason() -> None:
    results = a_busy_room(1.0, ws=9.0)
    results.missing["", "nchan"] = "no apt on this machine"
    results.missing["b", "slow"] = "3 of 2001 connections were not made"

    lines = load_table(LOADS[1], results, ["ws", "this engine", "nchan", "slow"])

    rows = [line for line in lines if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| this engine", "| ws", "| nchan", "| slow"]
    assert "not measured: no apt on this machine" in rows[2]
    assert "not measured: 3 of 2001 connections" in rows[3]


def test_events_out_of_order_are_marked() -> None:
    results = Results()
    results.samples["b", "ws"] = {1: a_sample(1.0, repeats=1)}

    assert "100.0% (!)" in "\n".join(load_table(LOADS[1], results, ["ws"]))


def test_gateway_part_that_failed_is_shown_and_not_met() -> None:
    figures = Figures(
        found={"join": {"idle_kib": 8.5, "join_us": 500.0}}, failed={"storm": "CrowdFailed: 3 did not join"}
    )

    lines = {line[0]: line[3] for line in gateway_verdicts(figures)}

    assert lines["10,000 idle joined viewers, each"] == "met"
    assert lines["join, server CPU"] == "**missed**"
    assert lines["5,000 joins in 10 s: failed"] == "not measured"
    assert "not measured: CrowdFailed: 3 did not join" in gateway_table(figures)
    assert json.loads(json.dumps(figures.as_json()))["failed"] == figures.failed
