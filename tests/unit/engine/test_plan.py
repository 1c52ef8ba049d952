"""The plan follows from the costs it names, and the document names the same ones."""

import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.cli import cli
from engine.plan import (
    CORE_FILL_MAX,
    DELAY_S_MAX,
    FRAME_OVERHEAD_BYTES,
    MEASURED,
    WORKERS_MAX,
    Costs,
    Load,
    plan,
    rhythm,
)

DOCUMENT = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
COSTS = DOCUMENT.partition("\n## What things cost\n")[2].partition("\n## ")[0]

SHOW = Load(viewers=10_000, comments_per_s=40)

loads = st.builds(
    Load,
    viewers=st.integers(1, 300_000),
    comments_per_s=st.floats(0, 3_000),
    rooms=st.integers(1, 300),
    joins_per_s=st.floats(0, 3_000),
    chat_per_s_max=st.sampled_from([0.0, 40.0]),
    compression=st.booleans(),
)


@pytest.mark.parametrize("cost", [field.name for field in fields(Costs)])
def test_document_gives_every_cost_with_its_value(cost: str) -> None:
    [row] = [line for line in COSTS.splitlines() if line.startswith(f"| `{cost}` |")]

    value = row.split("|")[2].strip().replace(",", "")
    assert float(value) == getattr(MEASURED, cost)


@settings(max_examples=50, deadline=None)
@given(load=loads)
def test_plan_fits_or_says_that_it_does_not(load: Load) -> None:
    needed = plan(load)

    fits = needed.worker_fill <= CORE_FILL_MAX and needed.delay_ms_max <= DELAY_S_MAX * 1000
    assert fits or (needed.workers == WORKERS_MAX and needed.warnings)
    assert needed.cores > needed.workers
    assert needed.store_fill <= CORE_FILL_MAX or needed.warnings
    assert needed.shown_per_s_and_room <= load.comments_per_s / load.rooms


@settings(max_examples=30, deadline=None)
@given(load=loads)
def test_one_worker_fewer_would_not_do(load: Load) -> None:
    needed = plan(load)
    if 1 < needed.workers < WORKERS_MAX:
        fewer = rhythm(load, needed.workers - 1)
        assert fewer.worker_fill > CORE_FILL_MAX or fewer.delay_s_max > DELAY_S_MAX


@settings(max_examples=30, deadline=None)
@given(load=loads.map(lambda load: replace(load, rooms=1)))
def test_more_viewers_of_a_room_never_need_less(load: Load) -> None:
    less, more = plan(load), plan(replace(load, viewers=2 * load.viewers))

    assert more.workers >= less.workers
    assert more.memory_gib > less.memory_gib


def test_memory_is_the_workers_and_the_viewers() -> None:
    needed = plan(SHOW)

    expected_kib = needed.workers * MEASURED.worker_kib + 10_000 * (MEASURED.viewer_kib + MEASURED.socket_kib)
    assert needed.memory_gib * 1024 * 1024 == pytest.approx(expected_kib)


def test_bandwidth_is_frames_times_viewers() -> None:
    of_room, needed = rhythm(SHOW, 1), plan(SHOW)

    assert needed.workers == 1
    assert of_room.frame_bytes > FRAME_OVERHEAD_BYTES
    expected_bits = 10_000 * of_room.frames_per_s * of_room.frame_bytes * 8
    assert needed.bandwidth_mbit_per_s * 1e6 == pytest.approx(expected_bits)


def test_deflate_saves_bandwidth_and_no_worker_more() -> None:
    plain, deflated = plan(SHOW), plan(replace(SHOW, compression=True))

    assert deflated.bandwidth_mbit_per_s < plain.bandwidth_mbit_per_s / 2
    assert deflated.workers <= plain.workers


def test_thinning_is_announced_and_can_be_turned_off() -> None:
    capped = plan(replace(SHOW, comments_per_s=100))
    whole = plan(replace(SHOW, comments_per_s=100, chat_per_s_max=0))

    assert capped.shown_per_s_and_room == 40
    assert any("thinned" in warning for warning in capped.warnings)
    assert whole.shown_per_s_and_room == 100
    assert not whole.warnings


def test_small_room_speaks_at_once() -> None:
    of_room = rhythm(Load(viewers=100, comments_per_s=1), 1)

    assert of_room.frames_per_s == pytest.approx(1)
    assert of_room.delay_s_max < 0.05


def test_command_prints_a_table() -> None:
    shown = CliRunner().invoke(cli, ["plan", "--viewers", "10000", "--comments-per-s", "100"])

    assert shown.exit_code == 0
    lines = dict(
        re.split(r"\s{2,}", line, maxsplit=1) for line in shown.stdout.splitlines() if line[0] != "!"
    )
    assert lines["cores"].startswith("2: 1 worker and 1 for the store")
    assert lines["chat shown in a room"] == "40 events a second"
    assert shown.stdout.splitlines()[-1].startswith("! a room shows 40 chat events a second")


def test_command_prints_json_with_the_costs_it_rests_on() -> None:
    arguments = ["plan", "--viewers", "10000", "--comments-per-s", "40", "--rooms", "2", "--json"]
    printed = orjson.loads(CliRunner().invoke(cli, arguments).stdout)

    load = replace(SHOW, rooms=2)
    assert printed == orjson.loads(orjson.dumps({**asdict(plan(load)), "costs": asdict(MEASURED)}))


@pytest.mark.parametrize(
    "wrong", [["--viewers", "0"], ["--rooms", "0"], ["--comments-per-s", "-1"], ["--viewers", "many"]]
)
def test_command_refuses_what_makes_no_sense(wrong: list[str]) -> None:
    right = ["--viewers", "10", "--comments-per-s", "1"]

    assert CliRunner().invoke(cli, ["plan", *right, *wrong]).exit_code == 2
