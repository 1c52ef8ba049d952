"""`loadtest/template.py`: what `new` writes is a scenario, and the schema in docs is the one the code has."""

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from loadtest import scenario as scenarios
from loadtest.planners import make
from loadtest.scenario import METRICS, SCENARIOS_DIR, ScenarioError, load
from loadtest.template import commented, schema

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "schemas" / "scenario.json"


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(commented("mine"), encoding="utf-8")
    return str(path)


def test_new_scenario_is_read_and_planned(written: str) -> None:
    scenario = load(written, {})
    plan = make(scenario, 1)

    assert scenario.name == "mine"
    assert {type(moment).__struct_config__.tag for moment in scenario.moments.values()} == {
        "notice", "explain", "rush", "arrive", "sale", "packets", "quiz", "storm", "goodbye",
    }  # fmt: skip
    assert plan.end_us == 80_000_000


def test_new_scenario_shows_every_number_of_a_crowd_with_its_meaning() -> None:
    text = commented("mine")
    shown = set(scenarios._leaves(tomllib.loads(text), ""))
    lines = text.splitlines()

    assert {name for name in scenarios.names() if not name.startswith(("seckill.", "redpacket."))} <= shown
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith(("does", "#")) and "[thresholds]" not in lines[:number]:
            assert lines[number - 1].startswith("# "), line
    assert all(metric in text for metric in METRICS)


def test_schema_in_docs_is_the_one_the_code_has() -> None:
    """When this fails: `make docs`, and read what changed."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == schema()


def test_schema_agrees_with_the_reader(written: str) -> None:
    validator = Draft202012Validator(schema())
    paths = [*SCENARIOS_DIR.glob("*.toml"), Path(written)]
    for path in paths:
        validator.validate(tomllib.loads(path.read_text(encoding="utf-8")))

    assert len(paths) == 7
    wrong = tomllib.loads(Path(written).read_text(encoding="utf-8"))
    wrong["moments"]["quiz"]["share"] = 2
    assert list(validator.iter_errors(wrong))
    with pytest.raises(ScenarioError):
        load(written, {"moments.quiz.share": 2})


def test_every_number_has_a_description() -> None:
    for name, part in schema()["$defs"].items():
        for field, described in part.get("properties", {}).items():
            # A section's own docstring describes it.
            assert "description" in described or "$ref" in str(described) or field == "does", (name, field)
