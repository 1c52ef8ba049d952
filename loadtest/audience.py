"""
Who is in which room, from when to when.

Decides how an audience comes, stays and goes: the ramp, rooms of Zipf sizes, log-normal stays, links that bring
friends, apps put into the background, connections that break again and again, storms, a goodbye. Does not decide what
anybody says or buys (`talk.py`, `stampede.py`). Pure.

The audience is a number of seats. Whoever leaves a seat is followed by somebody else a moment later, so the load stays
what the scenario says however long people stay. Live rooms are like that: most look in for a minute, some stay all
evening, and sizes of rooms follow a power law.

Sources: Veloso et al., "A hierarchical characterization of a live streaming media workload" (log-normal stays, Zipf
interest); docs/decisions/0016-a-plan-is-a-file.md.
"""

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from loadtest import phrases
from loadtest.arrivals import US_PER_S, ramp, stream
from loadtest.plan import CONSOLE, FORGED, MAIN_ROOM, SETTLE_US, Actor, Step
from loadtest.scenario import Scenario, ScenarioError
from loadtest.sections import Arrive, Goodbye, Storm

#: The share token of somebody in another process is not at hand, so inviter and invitee are this many actors apart,
#: or a multiple: they share a process when there are 1, 2, 3, 4, 6 or 12.
INVITER_APART: Final = 12
#: Visits of one plan; a short stay in a long run makes many.
VISITS_MAX: Final = 1_000_000
#: Nobody goes sooner than this after coming, or coming back: long enough to act once.
STAY_MIN_US: Final = 3 * SETTLE_US
#: A seat stays empty for up to this long.
SEAT_EMPTY_S: Final = 1.0
#: Connections of a storm break within this time.
STORM_S: Final = 0.05

NEVER_US: Final = 2**62


class Visit(Struct):
    """One viewer's evening."""

    room: int
    comes_us: int
    #: `NEVER_US` for those who stay.
    goes_us: int = NEVER_US
    #: When the connection breaks, and when the viewer is back; apart, in order.
    away: list[tuple[int, int]] = []
    reads_bytes_s: int = 0

    def here(self, at_us: int) -> bool:
        """Tell whether the viewer has come and not gone, connected or not."""
        return self.comes_us <= at_us < self.goes_us

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the times in which the plan may count on the viewer."""
        begin = self.comes_us + SETTLE_US
        for leaves_us, back_us in self.away:
            if begin < leaves_us - SETTLE_US:
                yield begin, leaves_us - SETTLE_US
            begin = back_us + SETTLE_US
        end = self.goes_us if self.goes_us == NEVER_US else self.goes_us - SETTLE_US
        if begin < end:
            yield begin, end

    def available(self, at_us: int) -> bool:
        """Tell whether the plan may count on the viewer at a moment."""
        return any(begin <= at_us < end for begin, end in self.spans())


class Audience:
    """Everybody who comes. Viewer n of the plan is `visits[n - 1]`."""

    def __init__(self, visits: list[Visit], sizes: list[int]) -> None:
        self.visits = visits
        #: Seats by room.
        self.sizes = sizes

    def available(self, viewer: int, at_us: int) -> bool:
        """Tell whether the plan may count on `viewer` at a moment."""
        return self.visits[viewer - 1].available(at_us)

    def of_room(self, room: int) -> list[int]:
        """Return everybody who ever is in `room`."""
        return [number for number, visit in enumerate(self.visits, start=1) if visit.room == room]

    def actors(self, seed: int) -> list[Actor]:
        """Return the console of the main room, the viewers, then the consoles of the other rooms."""
        names = stream(seed, "names")
        actors = [Actor("console", "主播小北", "streamer")]
        actors += [
            Actor(f"v{number}", phrases.viewer_name(names), "viewer", visit.room, visit.reads_bytes_s)
            for number, visit in enumerate(self.visits, start=1)
        ]
        actors += [
            Actor(f"console{room}", f"主播{room}号", "streamer", room) for room in range(1, len(self.sizes))
        ]
        return actors

    def console(self, room: int) -> int:
        """Return the actor who is the console of `room`."""
        return CONSOLE if room == MAIN_ROOM else len(self.visits) + room

    def steps(self, scenario: Scenario, seed: int, end_us: int) -> list[Step]:
        """Return how everybody comes, goes and comes back; consoles first."""
        steps = [Step(0, self.console(room), "join", {}) for room in range(len(self.sizes))]
        links = _Links(scenario, seed)
        for number, visit in enumerate(self.visits, start=1):
            steps.append(Step(visit.comes_us, number, "join", links.via(number, visit)))
            for leaves_us, back_us in visit.away:
                steps.append(Step(leaves_us, number, "away", {}))
                steps.append(Step(back_us, number, "join", {}))
            if visit.goes_us < end_us:
                steps.append(Step(visit.goes_us, number, "leave", {}))
        return steps


class Sweep:
    """Those of one room who may act, moment by moment. Moments must not go back."""

    def __init__(self, audience: Audience, room: int) -> None:
        changes = [
            change
            for viewer in audience.of_room(room)
            for begin, end in audience.visits[viewer - 1].spans()
            for change in ((begin, 1, viewer), (end, 0, viewer))
        ]
        self._changes = sorted(changes, reverse=True)
        self._here: list[int] = []
        self._place: dict[int, int] = {}

    def at(self, at_us: int) -> list[int]:
        """Return who may act at a moment, in no particular order; the list is only good until the next call."""
        while self._changes and self._changes[-1][0] <= at_us:
            _, comes, viewer = self._changes.pop()
            if comes:
                self._place[viewer] = len(self._here)
                self._here.append(viewer)
            else:
                place, last = self._place.pop(viewer), self._here.pop()
                if last != viewer:
                    self._here[place] = last
                    self._place[last] = place
        return self._here


def gather(scenario: Scenario, seed: int, end_us: int) -> Audience:
    """
    Return the audience of a run that ends at `end_us`.

    Raises:
        ScenarioError: If stays are so short that there would be more than `VISITS_MAX` visits.
    """
    sizes = room_sizes(scenario)
    rooms = [room for room, size in enumerate(sizes) for _ in range(size)]
    stream(seed, "rooms").shuffle(rooms)
    goodbyes = [moment for moment in scenario.moments.values() if isinstance(moment, Goodbye)]
    closes_us = min((int(moment.at_s * US_PER_S) for moment in goodbyes), default=NEVER_US)
    stays = stream(seed, "stays")
    visits: list[Visit] = []

    def sit(room: int, comes_us: int, *, followed: bool) -> None:
        """Take a seat; whoever leaves it is followed by the next one, unless nobody comes any more."""
        while comes_us < (closes_us if room == MAIN_ROOM else end_us) and len(visits) < VISITS_MAX:
            goes_us = _goes_us(comes_us, scenario, stays.gauss(0, 1), end_us)
            visits.append(Visit(room, comes_us, goes_us))
            if goes_us == NEVER_US or not followed:
                return
            comes_us = goes_us + int(stays.random() * SEAT_EMPTY_S * US_PER_S)
            if comes_us > end_us - STAY_MIN_US:
                return

    joins = ramp(stream(seed, "joins"), scenario.viewers.count, scenario.ramp_s)
    for room, at_us in zip(rooms, joins, strict=True):
        sit(room, at_us, followed=True)
    for name, moment in scenario.moments.items():
        if isinstance(moment, Arrive):
            for at_us in ramp(stream(seed, f"{name}.joins"), moment.viewers, moment.over_s):
                sit(MAIN_ROOM, int(moment.at_s * US_PER_S) + at_us, followed=False)
    if len(visits) >= VISITS_MAX:
        raise ScenarioError(f"viewers.dwell_s: so short that there are more than {VISITS_MAX:,} visits")
    visits.sort(key=lambda visit: visit.comes_us)
    _say_goodbye(scenario, seed, visits)
    _break_connections(scenario, seed, visits, end_us)
    slow = stream(seed, "slow")
    for visit in visits:
        if slow.random() < scenario.habits.slow_share:
            visit.reads_bytes_s = scenario.habits.slow_bytes_s
    return Audience(visits, sizes)


def room_sizes(scenario: Scenario) -> list[int]:
    """Return the seats of each room, the largest first: by Zipf, and at least one each."""
    rooms, count = scenario.rooms, scenario.viewers.count
    if rooms.count > count:
        raise ScenarioError("rooms.count: more rooms than viewers")
    weights = [1 / (rank + 1) ** rooms.zipf for rank in range(rooms.count)]
    spare, total = count - rooms.count, sum(weights)
    sizes = [1 + int(spare * weight / total) for weight in weights]
    sizes[0] += count - sum(sizes)
    return sizes


def _goes_us(comes_us: int, scenario: Scenario, deviation: float, end_us: int) -> int:
    """Return when somebody goes whose stay is `deviation` standard deviations from the median."""
    viewers = scenario.viewers
    if not viewers.dwell_s:
        return NEVER_US
    stay_us = int(viewers.dwell_s * math.exp(viewers.dwell_sigma * deviation) * US_PER_S)
    goes_us = comes_us + max(STAY_MIN_US, stay_us)
    # Who would leave in the last moments stays for the end.
    return goes_us if goes_us < end_us - SETTLE_US else NEVER_US


def _say_goodbye(scenario: Scenario, seed: int, visits: list[Visit]) -> None:
    for name, moment in scenario.moments.items():
        if isinstance(moment, Goodbye):
            rng, at_us = stream(seed, f"{name}.goes"), int(moment.at_s * US_PER_S)
            for visit in visits:
                if visit.room == MAIN_ROOM and visit.here(at_us) and rng.random() < moment.share:
                    goes_us = at_us + int(rng.random() * moment.over_s * US_PER_S)
                    visit.goes_us = min(visit.goes_us, max(goes_us, visit.comes_us + STAY_MIN_US))


def _break_connections(scenario: Scenario, seed: int, visits: list[Visit], end_us: int) -> None:
    """Plan all times without a connection: storms first, then habits where there is room between them."""
    for name, moment in scenario.moments.items():
        if isinstance(moment, Storm):
            rng, at_us = stream(seed, f"{name}.storm"), int(moment.at_s * US_PER_S)
            for visit in visits:
                if visit.room == MAIN_ROOM and visit.here(at_us) and rng.random() < moment.share:
                    leaves_us = at_us + int(rng.random() * STORM_S * US_PER_S)
                    back_s = moment.away_s + STORM_S + rng.random() * moment.spread_s
                    _go_away(visit, leaves_us, at_us + int(back_s * US_PER_S), end_us)
    habits, rng = scenario.habits, stream(seed, "habits")
    for visit in visits:
        kind, until_us = rng.random(), min(visit.goes_us, end_us)
        if kind < habits.flapper_share:
            every_s, median_s, sigma = habits.flapper_every_s, habits.flapper_away_s, 0.0
        elif kind < habits.flapper_share + habits.background_share:
            every_s, median_s, sigma = habits.background_every_s, habits.background_s, 0.7
        else:
            continue
        at_us = visit.comes_us + STAY_MIN_US
        while at_us < until_us:
            at_us += int(rng.expovariate(1 / every_s) * US_PER_S)
            back_us = at_us + max(200_000, int(median_s * math.exp(rng.gauss(0, sigma)) * US_PER_S))
            _go_away(visit, at_us, back_us, end_us)
            at_us = back_us + STAY_MIN_US


def _go_away(visit: Visit, leaves_us: int, back_us: int, end_us: int) -> None:
    """Be away from `leaves_us` to `back_us`, unless that is too close to another change or to the end."""
    after = bisect_right(visit.away, (leaves_us, back_us))
    before_us = visit.away[after - 1][1] if after else visit.comes_us
    next_us = visit.away[after][0] if after < len(visit.away) else min(visit.goes_us, end_us)
    if before_us + STAY_MIN_US <= leaves_us and back_us + STAY_MIN_US <= next_us:
        insort(visit.away, (leaves_us, back_us))


class _Links:
    """
    Whose link somebody comes through.

    Of those who bring anybody, each brings `shares.branching` on average, and who has brought many is likely to bring
    the next one: the tree has a few wide branches and many thin ones.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._shares = scenario.shares
        self._rng = stream(seed, "shares")
        #: Viewers by room and place modulo `INVITER_APART`: those whose token is not known yet, those who have brought
        #: nobody, and one entry for each viewer brought.
        self._coming: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        self._fresh: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._brought: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def via(self, number: int, visit: Visit) -> dict[str, Any]:
        """Return how viewer `number` joins. Viewers must be asked for in the order in which they come."""
        rng, shares = self._rng, self._shares
        kin = (visit.room, number % INVITER_APART)
        coming, fresh, brought = self._coming[kin], self._fresh[kin], self._brought[kin]
        settled = bisect_right(coming, (visit.comes_us - SETTLE_US, number))
        fresh += [viewer for _, viewer in coming[:settled]]
        del coming[:settled]
        coming.append((visit.comes_us, number))
        how, again, place = rng.random(), rng.random(), rng.random()
        if how < shares.forged_ratio:
            return {"via": FORGED}
        if how >= shares.forged_ratio + shares.via_ratio or not (fresh or brought):
            return {}
        if brought and (not fresh or again >= 1 / shares.branching):
            inviter = brought[int(place * len(brought))]
        else:
            chosen = int(place * len(fresh))
            fresh[chosen], fresh[-1] = fresh[-1], fresh[chosen]
            inviter = fresh.pop()
        brought.append(inviter)
        return {"via": inviter}
