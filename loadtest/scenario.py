"""
A scenario: who comes, how much they do, and what counts as good enough.

Decides which numbers a scenario has, their bounds, and how a command line overrides them. A misspelt number is an
error, never a silent default. Does not decide single moments (`plan.py`) and runs nothing.

A scenario is a TOML file. `plays` names the planner that reads it; the sections a planner does not use keep their
defaults. Scenarios shipped with the package live in `scenarios/`.
"""

import operator
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from loadtest.arrivals import ArrivalProcess

SCENARIOS_DIR: Final = Path(__file__).parent / "scenarios"

Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]

#: What a threshold may be about; `report.py` computes each of them.
METRICS: Final = frozenset(
    f"{subject}_{figure}_ms"
    for subject in ("delivery", "fact", "join", "reply", "claim", "grab", "cut", "lag")
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


class _Section(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Base of every section: a field it does not have is an error."""


class Viewers(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many come, and how fast."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000
    #: Seconds over which they join. Below zero: a sixth of the steady phase, at most 10.
    ramp_s: float = -1


class Comments(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Comments over all viewers."""

    per_s: Rate = 40
    arrivals: ArrivalProcess = "poisson"


class Likes(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Taps over all viewers, sent in batches of `batch_mean` on average, 50 at most."""

    per_s: Rate = 200
    batch_mean: Annotated[float, Meta(ge=1, le=50)] = 10
    arrivals: ArrivalProcess = "poisson"


class Facts(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Commands of one console that change the room."""

    per_s: Rate = 1
    items: Annotated[int, Meta(ge=1, le=400)] = 12


class Shares(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Viewers who come through somebody's link."""

    #: Of all viewers, how many join with the share token of one who is there already.
    via_ratio: Share = 0
    #: And how many with a token that nobody signed.
    forged_ratio: Share = 0


class Seckill(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One sale, and the stampede for it."""

    stock: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    #: Claims over all viewers; repeated ones are among them.
    claims: Annotated[int, Meta(ge=1, le=2_000_000)] = 20_000
    per_viewer: Annotated[int, Meta(ge=1, le=1000)] = 1
    price_cents: Annotated[int, Meta(ge=0, le=100_000_000)] = 4900
    hold_s: Annotated[int, Meta(ge=1, le=86_400)] = 300
    #: Seconds between announcing the sale and its start.
    notice_s: Annotated[float, Meta(ge=0.5, le=600)] = 3
    #: Seconds after the start in which `burst_share` of the claims come.
    burst_s: Annotated[float, Meta(gt=0, le=600)] = 2
    burst_share: Share = 0.9
    #: Of all claims: those before the start.
    early_share: Share = 0.02
    #: Of the claims of somebody who has claimed already: those that repeat a key, the rest have new ones.
    same_key_share: Share = 0.3
    #: Of the claims that are likely to win: those whose connection is cut right after sending.
    cut_share: Share = 0.2
    #: Seconds between the end of the sale and the end of the run: claims that come too late.
    over_s: Annotated[float, Meta(ge=0.5, le=600)] = 1.5
    #: Of the viewers: those who pay what they hold.
    pay_ratio: Share = 0
    #: Of those who pay: those who do it after their hold has ended.
    pay_late_ratio: Share = 0.1


class RedPacket(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Red packets one after the other, and who grabs."""

    packets: Annotated[int, Meta(ge=1, le=100)] = 3
    shares: Annotated[int, Meta(ge=1, le=100_000)] = 200
    total_cents: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 20_000
    #: Viewers who grab each of them.
    grabbers: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000
    #: Seconds between announcing a packet and its opening, and between two openings.
    notice_s: Annotated[float, Meta(ge=0.5, le=600)] = 1.5
    every_s: Annotated[float, Meta(ge=0.5, le=600)] = 2.5
    #: Seconds after the opening in which everybody grabs.
    burst_s: Annotated[float, Meta(gt=0, le=600)] = 1
    early_share: Share = 0.02
    #: Of the grabbers: those who grab once more, half of them with the same key.
    again_share: Share = 0.2
    cut_share: Share = 0.1
    #: One packet more, of which only a quarter of the shares is grabbed before it expires.
    expire_one: bool = True
    #: Seconds until that one expires; the others have a minute.
    expires_s: Annotated[int, Meta(ge=1, le=600)] = 3


class Drain(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long the end may take."""

    deadline_s: Seconds = 20


class Honesty(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When the generator itself was too slow for its result to count."""

    late_ms: Annotated[int, Meta(ge=1)] = 250
    late_share_max: Share = 0.01
    cpu_share_max: Annotated[float, Meta(gt=0)] = 0.95
    cpu_sustained_s: Annotated[int, Meta(ge=1)] = 5


class Scenario(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything a run depends on besides its seed and its target."""

    name: str
    #: The planner: a key of `plan.PLANNERS`.
    plays: str
    description: str = ""
    seconds: Seconds = 60
    viewers: Viewers = Viewers()
    comments: Comments = Comments()
    likes: Likes = Likes()
    facts: Facts = Facts()
    shares: Shares = Shares()
    seckill: Seckill = Seckill()
    redpacket: RedPacket = RedPacket()
    drain: Drain = Drain()
    honesty: Honesty = Honesty()
    #: Metric → comparison and number, such as "< 200".
    thresholds: dict[str, str] = {}

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
    try:
        scenario = msgspec.convert(tree, Scenario, strict=True)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"scenario {name_or_path}: {error}") from None
    thresholds(scenario)
    return scenario


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
