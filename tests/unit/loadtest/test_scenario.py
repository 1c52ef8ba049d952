"""`loadtest/scenario.py`: every number can be overridden, and a wrong one is an error, never a silent default."""

from pathlib import Path
from typing import Any

import pytest

from loadtest import scenario as scenarios
from loadtest.scenario import ScenarioError, Threshold, load, parse_override, thresholds


def test_crowd_ships_with_the_package() -> None:
    crowd = load("crowd", {})

    assert "crowd" in scenarios.available()
    assert (crowd.viewers.count, crowd.comments.per_s, crowd.seconds) == (2000, 40, 60)
    assert crowd.ramp_s == 10


def test_campaigns_ship_with_the_package() -> None:
    sale, packets = load("seckill", {}), load("redpacket", {})

    assert (sale.seckill.stock, sale.seckill.claims, sale.viewers.count) == (100, 20_000, 2000)
    assert (packets.redpacket.packets, packets.redpacket.shares, packets.redpacket.grabbers) == (3, 200, 2000)
    assert sale.thresholds["claims_unanswered"] == packets.thresholds["grabs_unanswered"] == "== 0"


def test_overrides_are_laid_over_the_file() -> None:
    crowd = load("crowd", {"viewers.count": 200, "comments.per_s": 4.5, "viewers.ramp_s": 0, "seconds": 10})

    assert (crowd.viewers.count, crowd.comments.per_s, crowd.ramp_s) == (200, 4.5, 0)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"viewers.cuont": 5}, "cuont"),
        ({"viewer.count": 5}, "viewer"),
        ({"viewers.count": "many"}, "int"),
        ({"viewers.count": 0}, "1"),
        ({"comments.per_s": -1}, "0"),
        ({"comments.arrivals": "bursty"}, "bursty"),
        ({"seconds.long": 5}, "seconds"),
        ({"thresholds.delivery_p98_ms": "< 5"}, "delivery_p98_ms"),
        ({"thresholds.delivery_p99_ms": "about 5"}, "about 5"),
        ({"thresholds.delivery_p99_ms": "< soon"}, "< soon"),
    ],
)
def test_wrong_override_is_an_error_that_says_which(overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        load("crowd", overrides)


def test_unknown_scenario_lists_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="crowd"):
        load("crwod", {})


def test_file_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "mine.toml"
    broken.write_text("seconds = = 5")

    with pytest.raises(ScenarioError, match="not TOML"):
        load(str(broken), {})
    with pytest.raises(ScenarioError, match="cannot read"):
        load(str(tmp_path / "absent.toml"), {})


def test_own_file_is_a_scenario(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\nplays = "crowd"\nseconds = 5\n[viewers]\ncount = 3\n')

    assert load(str(mine), {}).viewers.count == 3


def test_override_text_is_read_as_toml_or_plain_text() -> None:
    assert parse_override("comments.per_s=80") == ("comments.per_s", 80)
    assert parse_override("likes.batch_mean = 2.5") == ("likes.batch_mean", 2.5)
    assert parse_override("comments.arrivals=uniform") == ("comments.arrivals", "uniform")
    assert parse_override("thresholds.delivery_p99_ms=< 200") == ("thresholds.delivery_p99_ms", "< 200")
    with pytest.raises(ScenarioError):
        parse_override("comments.per_s")


def test_threshold_compares() -> None:
    [bound] = [
        threshold
        for threshold in thresholds(load("crowd", {"thresholds.delivery_p99_ms": "< 200"}))
        if threshold.metric == "delivery_p99_ms"
    ]

    assert bound == Threshold("delivery_p99_ms", "<", 200)
    assert bound.holds(199.9)
    assert not bound.holds(200)
