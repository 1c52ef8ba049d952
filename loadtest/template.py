"""
A commented scenario, and the JSON Schema of scenarios, made from the numbers' own descriptions.

Decides their form. `python -m loadtest.template docs` writes docs/schemas/scenario.json. Pure but for that.
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from loadtest.scenario import METRICS, Scenario
from loadtest.sections import AnyMoment

_WIDTH: Final = 100
#: What the template shows instead of a default, so that it runs in a minute on a laptop.
_SHOWN: Final[dict[str, Any]] = {
    "description": "A scenario of our own.",
    "viewers.count": 300,
    "viewers.ramp_s": 10,
    "comments.per_s": 8,
    "likes.per_s": 60,
    "seconds": 70,
}
#: One of each kind of moment, with what it shows instead of defaults.
_MOMENTS: Final[dict[str, dict[str, Any]]] = {
    "welcome": {"does": "notice", "at_s": 12},
    "first_items": {"does": "explain", "at_s": 14, "items": 2},
    "warm_up": {"does": "rush", "at_s": 16, "likes_per_s": 200, "comments_per_s": 5},
    "push_message": {"does": "arrive", "at_s": 22, "viewers": 100},
    "seckill": {"does": "sale", "at_s": 25, "stock": 50, "claims": 1000, "lasts_s": 8},
    "rain": {"does": "packets", "at_s": 40, "shares": 50, "grabbers": 200, "expires_s": 10},
    "quiz": {"does": "quiz", "at_s": 50, "lasts_s": 5},
    "proxy_restarts": {"does": "storm", "at_s": 60, "share": 0.5},
    "goodbye": {"does": "goodbye", "at_s": 70, "over_s": 6},
}
_THRESHOLDS: Final = {"lost_viewers": "== 0", "claims_unanswered": "== 0", "delivery_p99_ms": "< 1000"}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file."""
    made = msgspec.json.schema(Scenario)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Liveroom load test scenario",
        **made,
    }


def commented(name: str) -> str:
    """Return a scenario called `name` in TOML: every number with its meaning, and one of each kind of moment."""
    lines = [
        f"# {name}: a scenario for `liveroom-loadtest run`.",
        "# Durations are seconds, `at_s` counts from the start of the run, money is cents. What is left out keeps",
        '# its default. Numbers for `plays = "seckill"` and "redpacket" are left out here, see docs/loadtest.md.',
        "",
    ]
    sections: list[FieldInfo] = []
    for field in msgspec.structs.fields(Scenario):
        if _section(field) is not None:
            sections.append(field)
        elif field.name not in ("moments", "thresholds"):
            value = {"name": name, "plays": "crowd"}.get(field.name, _SHOWN.get(field.name))
            lines += _number(field, value)
    for field in sections:
        section = _section(field)
        # A crowd has sales and packets among its moments.
        if section is None or field.name in ("seckill", "redpacket"):
            continue
        lines += ["", *_comment(_doc(section)), f"[{field.name}]"]
        for number in msgspec.structs.fields(section):
            lines += _number(number, _SHOWN.get(f"{field.name}.{number.name}"))
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(AnyMoment)}
    lines += ["", "# What happens when, in the main room. Any name, any number of each kind."]
    for moment, shown in _MOMENTS.items():
        kind = kinds[shown["does"]]
        lines += ["", *_comment(_doc(kind)), f"[moments.{moment}]", f'does = "{shown["does"]}"']
        for number in sorted(msgspec.structs.fields(kind), key=lambda field: field.name != "at_s"):
            lines += _number(number, shown.get(number.name))
    lines += ["", '# "<metric>" = "<comparison> <number>". Broken promises fail a run without any threshold.']
    lines += [f"# There are: {line}" if not place else f"# {line}" for place, line in enumerate(_metrics())]
    lines += ["[thresholds]", *(f'{metric} = "{rule}"' for metric, rule in _THRESHOLDS.items())]
    return "\n".join(lines) + "\n"


def _metrics() -> list[str]:
    return textwrap.wrap(", ".join(sorted(METRICS)) + ".", _WIDTH - 12)


def _section(field: FieldInfo) -> type[Struct] | None:
    return field.type if isinstance(field.type, type) and issubclass(field.type, Struct) else None


def _doc(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _number(field: FieldInfo, shown: Any) -> list[str]:
    described = msgspec.json.schema(field.type).get("description", "")
    value = field.default if shown is None else shown
    assert value is not msgspec.NODEFAULT, field.name
    return [*_comment(described), f"{field.encode_name} = {json.dumps(value, ensure_ascii=False)}"]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)]


def main(folder: str) -> None:
    """Write the schema below `folder`."""
    path = Path(folder) / "schemas" / "scenario.json"
    path.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs")
