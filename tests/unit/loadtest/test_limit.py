"""`loadtest/limit.py`: the search ends where it should, and names what gave out."""

from typing import Any

import pytest

from loadtest.limit import STEPS_MAX, Culprit, Search, culprit
from loadtest.report import Exit
from loadtest.scenario import METRICS
from loadtest.watch import Usage
from tests.unit.loadtest.test_report import a_result


def tried(limit: float, **numbers: Any) -> tuple[list[float], Search]:
    """Return the values tried against a server that holds up to `limit`, and the search."""
    search = Search(**({"first": 250, "highest": 20_000, "precision": 0.1, "whole": True} | numbers))
    values = []
    for value in search.values():
        values.append(value)
        search.held(value <= limit)
    return values, search


def test_search_doubles_then_halves_the_gap() -> None:
    values, search = tried(1700)

    assert values == [250, 500, 1000, 2000, 1500, 1750, 1625]
    assert (search.best, search.failed) == (1625, 1750)


def test_search_stops_at_the_highest_that_holds() -> None:
    values, search = tried(1e9, highest=900)

    assert values == [250, 500, 900]
    assert (search.best, search.failed) == (900, None)


def test_search_below_the_first_value_goes_down_to_nothing() -> None:
    values, search = tried(0)

    assert values[0] == 250
    assert search.best == 0
    assert len(values) < STEPS_MAX
    assert search.failed == 1


def test_search_over_a_rate_need_not_be_whole() -> None:
    values, search = tried(1.3, first=1, whole=False, precision=0.05)

    assert search.best <= 1.3 < (search.failed or 0)
    assert any(value != int(value) for value in values)


def a_step(code: Exit, reasons: list[str], **metrics: float) -> Any:
    result = a_result()
    result.exit_code, result.reasons = int(code), reasons
    result.metrics = dict.fromkeys(METRICS, 0.0) | metrics
    result.faults = {}
    return result


MISSED = a_step(Exit.MISSED, ["delivery_p99_ms < 200: 900"])
FREE = {"server_share": 0.3, "store_share": 0.1, "idle_share": 0.5, "probe_p50_ms": 2.0}


@pytest.mark.parametrize(
    ("usage", "part"),
    [
        ({"server_share": 0.97}, "server loop"),
        ({"store_share": 0.95}, "store"),
        ({"store_share": 0.95, "server_share": 0.97}, "store"),
        ({"probe_p50_ms": 400.0}, "server loop"),
        ({"listen_drops": 3}, "network"),
        ({"retransmitted_share": 0.05}, "network"),
        ({"idle_share": 0.01}, "processor"),
        ({"server_share": None, "store_share": None, "probe_p50_ms": 900.0}, "server loop"),
        ({}, "unknown"),
    ],
)
def test_what_was_short_gave_out(usage: dict[str, Any], part: str) -> None:
    found = culprit(MISSED, Usage(**(FREE | usage)))

    assert found.part == part
    assert "delivery_p99_ms < 200: 900" in found.why


def test_saturated_generator_gave_out_whatever_else_was_busy() -> None:
    step = a_step(Exit.SATURATED, ["12.0% of the steps were over 250 ms late"])

    assert culprit(step, Usage(server_share=0.99)) == Culprit("generator", step.reasons[0])


def test_slow_answers_with_a_free_loop_are_the_stores() -> None:
    step = a_step(Exit.MISSED, ["claim_p99_ms < 200: 800"], claim_p99_ms=800)

    assert culprit(step, Usage(**FREE)).part == "store"


def test_refused_connections_are_the_networks() -> None:
    step = a_step(Exit.MISSED, ["lost_viewers == 0: 5"])
    step.faults = {"connect_ConnectionRefusedError": 5, "closed_1006": 2}

    assert culprit(step, Usage(**FREE)).part == "network"
