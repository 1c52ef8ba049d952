"""What the answers of a crowd mean, and when its client was the bottleneck."""

from typing import Any

import pytest

from benchmarks.crowd import CrowdFailed, Run, read_opening, read_run
from benchmarks.figures import bucket_of

ANSWER: dict[str, Any] = {
    "events": 10, "listeners": 4, "received": 40, "complete": 4, "gaps": 0, "repeats": 0, "late": 0, "frames": 20,
    "bytes": 8_000, "replies": 10, "errors": 0, "blocked": 0, "lost": 0, "last_close_code": 0, "wall_us": 1_000_000,
    "cpu_us": 250_000, "delays": [[bucket_of(2_000), 40]], "lags": [[bucket_of(100), 10]], "reply_delays": [],
}  # fmt: skip


def a_run(**changes: Any) -> Run:
    return read_run({**ANSWER, **changes})


def test_run_with_every_event_everywhere_is_whole() -> None:
    run = a_run()

    assert run.whole
    assert run.delivered == 1.0
    assert run.events_per_frame == 2.0
    assert run.busy == 0.25
    assert 2.0 <= run.p_ms(99) <= 2.1


def test_run_is_not_whole_when_something_came_twice_or_not_or_to_nobody() -> None:
    assert not a_run(repeats=1).whole
    assert not a_run(gaps=1).whole
    assert not a_run(received=39, complete=3).whole
    assert not a_run(listeners=0, received=0, complete=0).whole


def test_lost_connections_count_as_undelivered() -> None:
    run = a_run(listeners=3, lost=1, received=30, complete=3)

    assert run.delivered == 0.75
    assert not run.whole


def test_client_is_saturated_when_busy_or_late() -> None:
    assert not a_run().saturated
    assert a_run(cpu_us=950_000).saturated
    assert a_run(lags=[[bucket_of(50_000), 10]]).saturated


OPENING: dict[str, Any] = {
    "joined": 3, "failed": 0, "lost": 0, "last_close_code": 0, "wall_us": 2_000_000, "cpu_us": 1,
    "delays": [[bucket_of(700), 3]],
}  # fmt: skip


def test_opening_keeps_its_delays() -> None:
    opening = read_opening(OPENING)

    assert opening.require_all() is opening
    assert 0.7 <= opening.p_ms(50) <= 0.72


def test_opening_that_left_somebody_out_is_refused_with_what_is_known() -> None:
    opening = read_opening({**OPENING, "joined": 2, "failed": 1, "lost": 1, "last_close_code": 4502})

    with pytest.raises(
        CrowdFailed, match="1 of 3 connections were not made after 2 s; 1 lost, last close code 4502"
    ):
        opening.require_all()
