"""
From a scenario and a seed to a plan.

Decides the order of things in each kind of run: a crowd with the named moments of its show, one sale, a row of red
packets. Who comes is decided in `audience.py`, what they say in `talk.py`, how they rush in `stampede.py`. Pure: the
same scenario and seed give the same plan, byte for byte.
"""

from collections.abc import Callable
from typing import Final

from loadtest.arrivals import US_PER_S, stream
from loadtest.audience import Audience, gather
from loadtest.plan import SETTLE_US, Mark, Plan, Step
from loadtest.scenario import Scenario, ScenarioError
from loadtest.sections import Explain, Goodbye, Habits, Notice, Packets, Quiz, Rooms, Sale, Storm
from loadtest.stampede import claims, grabs, last_word, packet_command, sale_cues
from loadtest.talk import Cue, changes, comments, likes

#: Seconds a packet lasts that is meant to be emptied.
PACKET_EXPIRES_S: Final = 60
#: After the last packet has expired: time for grabs that come too late, and for the refund.
PACKET_OVER_S: Final = 2.0
#: After a sale of a show has ended: time for claims that come too late.
SALE_OVER_US: Final = US_PER_S
#: The last moment of a show is over this long before the end.
SHOW_OVER_US: Final = 2 * US_PER_S


def make(scenario: Scenario, seed: int) -> Plan:
    """
    Return the plan of `scenario` under `seed`.

    Raises:
        ScenarioError: If no planner is called `scenario.plays`, or the scenario asks for more than its viewers may
            do under the server's limits.
    """
    planner = PLANNERS.get(scenario.plays)
    if planner is None:
        raise ScenarioError(f"plays: no planner {scenario.plays!r}; there are {', '.join(PLANNERS)}")
    return planner(scenario, seed)


def _plan(
    scenario: Scenario,
    seed: int,
    audience: Audience,
    steps: list[Step],
    end_us: int,
    peak_us: int,
    marks: list[Mark],
) -> Plan:
    steps += audience.steps(scenario, seed, end_us)
    # Steps of one moment keep an order that does not depend on how the plan was put together.
    steps.sort(key=lambda step: (step.at_us, step.verb != "join", step.actor))
    marks.sort(key=lambda mark: mark.at_us)
    actors = audience.actors(seed)
    return Plan(scenario, seed, actors, steps, end_us, peak_us, len(audience.sizes), marks)


# --- a crowd, and its show ------------------------------------------------------------------------------------


def _crowd(scenario: Scenario, seed: int) -> Plan:
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    audience = gather(scenario, seed, end_us)
    show = _Show(scenario, seed, audience, end_us)
    steps = show.steps
    steps += comments(scenario, seed, audience, end_us)
    steps += likes(scenario, seed, audience, end_us)
    steps += changes(scenario, seed, audience, end_us, show.cues)
    if scenario.shares.via_ratio:
        steps.append(last_word(end_us))
    return _plan(scenario, seed, audience, steps, end_us, show.peak_us, show.marks)


class _Show:
    """The moments of a scenario as steps of viewers, cues of the console, and marks."""

    def __init__(self, scenario: Scenario, seed: int, audience: Audience, end_us: int) -> None:
        self._seed = seed
        self._audience = audience
        self.steps: list[Step] = []
        self.cues: list[Cue] = []
        self.marks: list[Mark] = []
        #: The first moment at which many want the same.
        self.peak_us = 0
        for place, (name, moment) in enumerate(scenario.moments.items()):
            at_us = int(moment.at_s * US_PER_S)
            over_us = at_us
            if isinstance(moment, Sale):
                over_us = self._sale(moment, name, f"s{place}c", at_us)
            elif isinstance(moment, Packets):
                over_us = self._packets(moment, name, f"s{place}g", at_us)
            else:
                self.marks.append(Mark(at_us, name))
            if isinstance(moment, Storm):
                over_us += int((moment.away_s + moment.spread_s) * US_PER_S)
                self._peak(at_us)
            elif isinstance(moment, Notice):
                self.cues.append(Cue(at_us, "notice", moment.text))
            elif isinstance(moment, Quiz):
                self.cues.append(Cue(at_us, "notice", moment.question))
                over_us += int((1 + moment.lasts_s) * US_PER_S)
            elif isinstance(moment, Explain):
                every_us = int(moment.every_s * US_PER_S)
                self.cues += [Cue(at_us + item * every_us, "explain") for item in range(moment.items)]
                over_us += moment.items * every_us
            elif isinstance(moment, Goodbye):
                over_us += int(moment.over_s * US_PER_S)
            if over_us > end_us - SHOW_OVER_US:
                raise ScenarioError(
                    f"moments.{name}: over at {over_us / US_PER_S:g} s, "
                    f"but the run ends at {end_us / US_PER_S:g} s; `seconds` is too short"
                )
        if scenario.moments:
            self.marks.append(Mark(0, "doors_open"))

    def _peak(self, at_us: int) -> None:
        self.peak_us = min(at_us, self.peak_us or at_us)

    def _sale(self, sale: Sale, name: str, keys: str, announced_us: int) -> int:
        starts_us = announced_us + int(sale.notice_s * US_PER_S)
        over_us = starts_us + int(sale.lasts_s * US_PER_S)
        if sale.lasts_s < sale.burst_s:
            raise ScenarioError(f"moments.{name}: lasts_s is shorter than burst_s")
        self._peak(starts_us)
        self.marks += [Mark(announced_us, f"{name} announced"), Mark(starts_us, name)]
        self.cues += sale_cues(sale, name, announced_us, over_us)
        until_us = over_us + SALE_OVER_US
        self.steps += claims(sale, name, keys, self._seed, self._audience, announced_us, until_us)
        return until_us

    def _packets(self, packets: Packets, name: str, keys: str, announced_us: int) -> int:
        cents = stream(self._seed, f"{name}.cents")
        first_us = announced_us + int(packets.notice_s * US_PER_S)
        self._peak(first_us)
        self.marks += [Mark(announced_us, f"{name} announced"), Mark(first_us, name)]
        opens_us = first_us
        for number in range(packets.packets):
            opens_us = first_us + int(number * packets.every_s * US_PER_S)
            packet = f"{{run}}-{name}-{number + 1}"
            command = packet_command(packets, packet, number, cents, opens_us, packets.expires_s)
            self.cues.append(Cue(opens_us - int(packets.notice_s * US_PER_S), "send", command=command))
            self.steps += grabs(
                packets,
                packet,
                f"{name}.{number + 1}",
                f"{keys}{number + 1}",
                self._seed,
                self._audience,
                opens_us,
                0,
            )
        return opens_us + int(2 * packets.burst_s * US_PER_S)


# --- one campaign alone ---------------------------------------------------------------------------------------


def _check_plain(scenario: Scenario) -> None:
    """
    Check that everybody stays in one room: these planners are about a single campaign.

    Raises:
        ScenarioError: If the scenario asks for more.
    """
    rest = {
        "rooms": scenario.rooms == Rooms(),
        "viewers.dwell_s": not scenario.viewers.dwell_s,
        "habits": scenario.habits == Habits(),
        "moments": not scenario.moments,
    }
    for name, plain in rest.items():
        if not plain:
            raise ScenarioError(f'{name}: plays = "{scenario.plays}" does not know it; "crowd" does')


def _seckill(scenario: Scenario, seed: int) -> Plan:
    """One sale announced ahead: shots before its start, a stampede, stragglers until after its end."""
    _check_plain(scenario)
    sale = scenario.seckill
    announced_us = int(scenario.ramp_s * US_PER_S) + SETTLE_US
    start_us = announced_us + int(sale.notice_s * US_PER_S)
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    over_us = end_us - int(sale.over_s * US_PER_S)
    if over_us <= start_us + int(sale.burst_s * US_PER_S):
        raise ScenarioError("seconds: too short for seckill.notice_s, burst_s and over_s")
    audience = gather(scenario, seed, end_us)
    cues = sale_cues(sale, "sale", announced_us, over_us)
    try:
        steps = list(claims(sale, "sale", "c", seed, audience, announced_us, end_us))
    except ScenarioError as error:
        raise ScenarioError(f"seckill.claims: {error}") from None
    return _campaign(scenario, seed, audience, steps, cues, end_us, start_us)


def _redpacket(scenario: Scenario, seed: int) -> Plan:
    """Packets announced ahead, each grabbed by many at once, and one that expires with shares left."""
    _check_plain(scenario)
    packets = scenario.redpacket
    if packets.grabbers > scenario.viewers.count:
        raise ScenarioError("redpacket.grabbers: more than there are viewers")
    first_us = int((scenario.ramp_s + packets.notice_s) * US_PER_S) + SETTLE_US
    end_us = int((scenario.ramp_s + scenario.seconds) * US_PER_S)
    last_us = first_us + int(packets.packets * packets.every_s * US_PER_S)
    if packets.expire_one:
        last_us += packets.expires_s * US_PER_S
    end_us = max(end_us, last_us + int(PACKET_OVER_S * US_PER_S))
    audience = gather(scenario, seed, end_us)
    cents = stream(seed, "packets")
    steps: list[Step] = []
    cues: list[Cue] = []
    for number in range(packets.packets + packets.expire_one):
        expires = number == packets.packets
        opens_us = first_us + int(number * packets.every_s * US_PER_S)
        expires_s = packets.expires_s if expires else PACKET_EXPIRES_S
        packet, name = f"{{run}}-p{number + 1}", f"p{number + 1}"
        command = packet_command(packets, packet, number, cents, opens_us, expires_s)
        cues.append(Cue(opens_us - int(packets.notice_s * US_PER_S), "send", command=command))
        over_us = opens_us + expires_s * US_PER_S if expires else 0
        steps += grabs(packets, packet, name, f"g{number + 1}", seed, audience, opens_us, over_us)
    return _campaign(scenario, seed, audience, steps, cues, end_us, first_us)


def _campaign(
    scenario: Scenario,
    seed: int,
    audience: Audience,
    steps: list[Step],
    cues: list[Cue],
    end_us: int,
    peak_us: int,
) -> Plan:
    """Return the plan of one campaign among comments and likes."""
    steps += comments(scenario, seed, audience, end_us)
    steps += likes(scenario, seed, audience, end_us)
    steps += changes(scenario, seed, audience, end_us, cues)
    steps.append(last_word(end_us))
    name = "start of the sale" if scenario.plays == "seckill" else "first packet opens"
    return _plan(scenario, seed, audience, steps, end_us, peak_us, [Mark(peak_us, name)])


#: Name in a scenario's `plays` → what makes its plan.
PLANNERS: Final[dict[str, Callable[[Scenario, int], Plan]]] = {
    "crowd": _crowd,
    "seckill": _seckill,
    "redpacket": _redpacket,
}
