"""
A scenario: who comes, how much they do, and what counts as good enough.

Decides how a scenario is read, how a command line overrides its numbers, and what its thresholds may be about. A
misspelt number is an error, never a silent default. The numbers themselves are in `sections.py`. Does not decide single
moments (`planners.py`) and runs nothing.

A scenario is a TOML file. `plays` names the planner that reads it; the sections a planner does not use keep their
defaults. Scenarios shipped with the package live in `scenarios/`.
"""

import difflib
import operator
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from loadtest.sections import (
    AnyMoment,
    Comments,
    Drain,
    Facts,
    Habits,
    Honesty,
    Likes,
    RedPacket,
    Rooms,
    Seckill,
    Section,
    Shares,
    Viewers,
)

SCENARIOS_DIR: Final = Path(__file__).parent / "scenarios"

#: Names of moments become parts of the ids of sales and packets.
MOMENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,23}")

#: What a threshold may be about; `report.py` computes each of them.
METRICS: Final = frozenset(
    f"{subject}_{figure}_ms"
    for subject in ("delivery", "fact", "join", "resume", "reply", "claim", "grab", "cut", "lag")
    for figure in ("p50", "p90", "p99", "p999", "max")
) | {
    *("lost_viewers", "unanswered", "refused", "thinned_share", "late_share", "comments_per_s"),
    *("claims_unanswered", "grabs_unanswered", "wins", "early_wins", "stock_left", "grab_winners"),
}

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


class ScenarioError(Exception):
    """A scenario that does not exist, cannot be read, or asks for something impossible. Exit code 1."""


class Scenario(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything a run depends on besides its seed and its target."""

    name: Annotated[str, Meta(min_length=1, max_length=40, description="What results are filed under.")]
    plays: Annotated[str, Meta(description="The planner: crowd, seckill or redpacket.")]
    description: Annotated[str, Meta(description="One line for the list of scenarios.")] = ""
    seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="Length of everything between the ramp and the drain.")
    ] = 60
    viewers: Viewers = Viewers()
    rooms: Rooms = Rooms()
    comments: Comments = Comments()
    likes: Likes = Likes()
    facts: Facts = Facts()
    shares: Shares = Shares()
    habits: Habits = Habits()
    seckill: Seckill = Seckill()
    redpacket: RedPacket = RedPacket()
    drain: Drain = Drain()
    honesty: Honesty = Honesty()
    moments: Annotated[
        dict[str, AnyMoment], Meta(description="Name → what happens then; `does` says what kind it is.")
    ] = msgspec.field(default_factory=dict)
    thresholds: Annotated[
        dict[str, str], Meta(description='Metric → comparison and number, such as "< 200".')
    ] = msgspec.field(default_factory=dict)

    @property
    def ramp_s(self) -> float:
        """Return the length of the ramp in seconds."""
        if self.viewers.ramp_s >= 0:
            return self.viewers.ramp_s
        return min(10.0, self.seconds / 6)


class Threshold(Struct, frozen=True):
    """One bound on one metric."""

    metric: str
    comparison: str
    bound: float

    def holds(self, value: float) -> bool:
        """Tell whether `value` is within the bound."""
        return _COMPARISONS[self.comparison](value, self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.bound:g}"


def thresholds(scenario: Scenario) -> list[Threshold]:
    """
    Return the bounds of `scenario`.

    Raises:
        ScenarioError: If one names an unknown metric, or is not a comparison and a number.
    """
    found = []
    for metric, rule in scenario.thresholds.items():
        if metric not in METRICS:
            raise ScenarioError(f"thresholds: no metric {metric!r}; there are {', '.join(sorted(METRICS))}")
        comparison, _, number = rule.strip().partition(" ")
        try:
            bound = float(number)
        except ValueError:
            bound = float("nan")
        if comparison not in _COMPARISONS or bound != bound:
            raise ScenarioError(f'thresholds.{metric}: {rule!r} is not like "< 200"')
        found.append(Threshold(metric, comparison, bound))
    return found


def available() -> list[str]:
    """Return the names of the scenarios shipped with the package."""
    return sorted(path.stem for path in SCENARIOS_DIR.glob("*.toml"))


def load(name_or_path: str, overrides: Mapping[str, Any]) -> Scenario:
    """
    Return a scenario by its name or file, with `overrides` ("comments.per_s" → 80) laid over it.

    Raises:
        ScenarioError: If there is no such scenario, or a number is unknown, of the wrong type or out of bounds.
    """
    path = Path(name_or_path)
    if not name_or_path.endswith(".toml"):
        path = SCENARIOS_DIR / f"{name_or_path}.toml"
        if name_or_path not in available():
            raise ScenarioError(f"no scenario {name_or_path!r}; there are {', '.join(available())}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} is not TOML: {error}") from None
    for dotted, value in overrides.items():
        _override(tree, dotted, value)
    _check_names(tree, name_or_path)
    try:
        given = msgspec.convert(tree, Scenario, strict=True)
        # Once more, so that a default of 0 and a 0.0 that was read from a plan are the same bytes.
        scenario = msgspec.convert(msgspec.to_builtins(given), Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"scenario {name_or_path}: {error}") from None
    thresholds(scenario)
    return scenario


def _check_names(tree: dict[str, Any], source: str) -> None:
    """
    Check the names in a scenario against those there are, and suggest what may have been meant.

    Raises:
        ScenarioError: If there is no such name.
    """
    moments = tree.get("moments", {})
    known = set(names())
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(AnyMoment)}
    for name, moment in moments.items() if isinstance(moments, dict) else ():
        if MOMENT_NAME.fullmatch(name) is None:
            raise ScenarioError(f"moments.{name}: a name is up to 24 of a-z, 0-9 and _, a letter first")
        does = moment.get("does") if isinstance(moment, dict) else None
        if does not in kinds:
            raise ScenarioError(f"moments.{name}.does: {does!r} is not one of {', '.join(sorted(kinds))}")
        known |= {f"moments.{name}.does", *_dotted(kinds[does], f"moments.{name}.")}
    for dotted in _leaves(tree, ""):
        if dotted in known or dotted.startswith("thresholds."):
            continue
        meant = difflib.get_close_matches(dotted, known, n=3) or difflib.get_close_matches(
            dotted.rpartition(".")[2], known, n=3, cutoff=0.4
        )
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
        raise ScenarioError(f"scenario {source}: there is no number {dotted!r}{hint}")


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def names() -> list[str]:
    """Return the dotted name of every number outside `moments` and `thresholds`."""
    return [name for name in _dotted(Scenario, "") if name not in ("moments", "thresholds")]


def _dotted(section: type[Struct], prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        kind = field.type
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from _dotted(kind, f"{prefix}{field.encode_name}.")
        else:
            yield prefix + field.encode_name


def parse_override(text: str) -> tuple[str, Any]:
    """
    Return ("comments.per_s", 80) for "comments.per_s=80". The value is read as TOML, else as plain text.

    Raises:
        ScenarioError: If there is no `=`.
    """
    dotted, equals, value = text.partition("=")
    if not equals or not dotted.strip():
        raise ScenarioError(f"--set {text!r} is not like comments.per_s=80")
    try:
        return dotted.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return dotted.strip(), value.strip()


def _override(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, field = dotted.split(".")
    place = tree
    for section in sections:
        below = place.setdefault(section, {})
        if not isinstance(below, dict):
            raise ScenarioError(f"{dotted}: {section} is a number, not a section")
        place = below
    place[field] = value
