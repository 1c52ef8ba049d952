"""
The README says what the program does: every setting with its default and variable, every exit code.

A setting that is added, renamed or given another default fails here until its row says so.
"""

import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from engine.cli import EXIT_CONFIG
from engine.config import Config

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
SETTINGS = README.partition("\n## Settings\n")[2].partition("\n## ")[0]
ROWS = {
    row[0].strip("`"): row
    for line in SETTINGS.splitlines()
    if line.startswith("| `") and (row := [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
}
FILE_ONLY = {"signing_keys", "merchant_keys_sha256"}


def shown(value: Any) -> str:
    """Return a default as a reader would write it into the TOML file."""
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value, default=str)}`"


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_every_setting_has_a_row_with_its_default_and_variable(field: Field[Any]) -> None:
    _, _, default, variable, meaning = ROWS[field.name]

    assert meaning
    if field.name in FILE_ONLY:
        assert (default, variable) == ("", "file only")
    else:
        assert field.default is not MISSING
        assert default == shown(field.default)
        assert variable == f"`LIVEROOM_{field.name.upper()}`"


def test_table_has_no_setting_that_does_not_exist() -> None:
    assert set(ROWS) == {field.name for field in fields(Config)}


def test_table_has_a_unit_wherever_the_name_promises_one() -> None:
    units = {"_ms": "ms", "_per_s": "per second", "_per_s_max": "per second"}

    for name, row in ROWS.items():
        for ending, unit in units.items():
            if name.endswith(ending):
                assert row[1] == unit, name


def test_exit_code_of_a_bad_configuration_is_told() -> None:
    assert f"| | {EXIT_CONFIG} |" in README
