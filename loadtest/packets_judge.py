"""
The judge of red packets: cents, shares and grabs.

Decides what of I2 (cents) and I7 (one at a time) of `conservation.py` was broken, from the grabs with their answers,
the facts, the audit and what winners were told. No list of the server says which viewer has which share, so that is
what they were told themselves. Pure.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Any, Final

from loadtest.asks import ASIDE, CENTS, SERIAL, Ask, answers_of, first_sent_us, keyed, last_us, private
from loadtest.findings import Findings, PacketTally
from loadtest.history import Dump, GrabSeen, History, JoinedSeen, PacketSeen
from loadtest.linear import NEVER_US, OPERATIONS_MAX, Operation, linearisable
from loadtest.plan import Plan

#: A packet whose time is up is settled within this; nobody is told when timers run, only that they do.
SETTLED_WITHIN_US: Final = 1_500_000


class Packets:
    """All red packets of a run."""

    def __init__(self, plan: Plan, history: History, dump: Dump, found: Findings, asks: list[Ask]) -> None:
        self._plan = plan
        self._history = history
        self._dump = dump
        self._found = found
        self._asks = asks
        #: (packet, viewer) → cents, as first told.
        self._amounts: dict[tuple[str, str], int] = {}

    def check(self) -> None:
        """Check every packet, then what viewers were told alone."""
        opened: dict[str, dict[str, Any]] = {}
        closed: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in self._dump.events:
            if event["ev"] == "redpacket.opened":
                opened[event["packet"]] = event
            elif event["ev"] == "redpacket.closed":
                closed[event["packet"]].append(event)
        audited = self._dump.audit.get("packets", {})
        for ask in self._asks:
            if ask.code == "ok":
                self._learn(ask.target, ask.viewer, ask.said.get("amount_cents", 0))
        self._check_private()
        for packet in sorted(opened.keys() | audited.keys() | {ask.target for ask in self._asks}):
            asks = [ask for ask in self._asks if ask.target == packet]
            if packet not in opened or packet not in audited:
                if packet in opened or packet in audited or any(ask.code == "ok" for ask in asks):
                    self._found.add(CENTS, f"packet {packet} is missing from the facts or from the audit")
                continue
            self._check_packet(packet, opened[packet], closed[packet], asks, audited[packet])

    def _add(self, packet: str, message: str, viewer: str = "", invariant: str = CENTS) -> None:
        self._found.add(invariant, f"packet {packet}: {message}", viewer)

    def _learn(self, packet: str, viewer: str, cents: int) -> None:
        known = self._amounts.setdefault((packet, viewer), cents)
        if known != cents:
            self._add(packet, f"told {known} cents, and {cents} cents", viewer)

    def _check_private(self) -> None:
        told: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for ask in self._asks:
            if ask.code == "ok":
                told[ask.viewer].append((ask.done_us, ask.target))
        for viewer, at_us, mark in private(self._history):
            if isinstance(mark, GrabSeen):
                self._learn(mark.packet, viewer, mark.amount_cents)
            elif isinstance(mark, JoinedSeen):
                for packet, cents in mark.grabs.items():
                    self._learn(packet, viewer, cents)
                for done_us, packet in told[viewer]:
                    if done_us <= at_us and packet not in mark.grabs:
                        self._add(packet, "came back and did not find what was grabbed", viewer)

    def _check_packet(
        self,
        packet: str,
        body: dict[str, Any],
        closed: list[dict[str, Any]],
        asks: list[Ask],
        audit: dict[str, Any],
    ) -> None:
        winners = {viewer: cents for (name, viewer), cents in self._amounts.items() if name == packet}
        attempts = {ask.viewer for ask in asks if ask.sent}
        #: Viewers who may have a share and know nothing of it.
        unknown = {ask.viewer for ask in asks if not ask.definite} - winners.keys()
        self._check_shares(packet, body, audit, winners, attempts, len(unknown))
        self._check_settled(packet, body, closed, audit, winners, len(unknown))
        by_key = keyed(asks)
        for (viewer, key), same in by_key.items():
            first = [ask for ask in same if ask.code == "ok" and not ask.said.get("again")]
            for ask in same:
                late = first and ask.definite and ask.asked_us > first[0].done_us
                if late and ask.code not in ASIDE and ask.said != first[0].said:
                    self._add(packet, f"key {key} was answered {first[0].said}, then {ask.said}", viewer)
        self._check_owners(packet, by_key)
        self._check_times(packet, body, closed, asks, by_key)
        wins = self._wins(packet, asks, winners)
        self._check_empty(packet, body, asks, wins, len(unknown))
        searched = self._search(packet, body, asks, wins) if not unknown else False
        self._found.packets[packet] = PacketTally(
            total_cents=audit["total_cents"],
            granted_cents=audit["granted_cents"],
            refunded_cents=audit["refunded_cents"],
            left_cents=audit["left_cents"],
            shares=audit["shares"],
            winners=audit["grabbed"],
            grabs=len(asks),
            answers=answers_of(asks),
            reasked=sum(ask.tries > 1 for ask in asks),
            searched=searched,
        )
        self._check_gauges(packet, body)

    def _check_shares(
        self,
        packet: str,
        body: dict[str, Any],
        audit: dict[str, Any],
        winners: dict[str, int],
        attempts: set[str],
        unknown: int,
    ) -> None:
        total, shares = body["total_cents"], body["shares"]
        if audit["total_cents"] != total or audit["shares"] != shares:
            self._add(packet, f"announced with {total} cents in {shares} shares, the audit has others")
        sums = audit["granted_cents"] + audit["left_cents"] + audit["refunded_cents"]
        if sums != total or audit.get("holds") is not True:
            self._add(
                packet,
                f"{audit['granted_cents']} granted + {audit['left_cents']} left + {audit['refunded_cents']} refunded "
                f"are not {total} cents",
            )
        if min(audit["granted_cents"], audit["left_cents"], audit["refunded_cents"]) < 0:
            self._add(packet, "the audit counts cents below zero")
        if not len(winners) <= audit["grabbed"] <= min(shares, len(winners) + unknown):
            self._add(
                packet,
                f"{len(winners)} of {shares} shares were told to viewers, {unknown} may be unknown, "
                f"the audit counts {audit['grabbed']}",
            )
        granted = sum(winners.values())
        if granted > audit["granted_cents"] or (not unknown and granted != audit["granted_cents"]):
            self._add(
                packet, f"{granted} cents were told to viewers, the audit granted {audit['granted_cents']}"
            )
        even = body["split"] == "even"
        for viewer, cents in winners.items():
            if cents < body["min_cents"]:
                self._add(packet, f"a share of {cents} cents, the least is {body['min_cents']}", viewer)
            if even and cents not in (total // shares, -(-total // shares)):
                self._add(packet, f"a share of {cents} cents of {total} split evenly by {shares}", viewer)
            if viewer not in attempts:
                self._add(packet, "has a share without ever grabbing", viewer)

    def _check_settled(
        self,
        packet: str,
        body: dict[str, Any],
        closed: list[dict[str, Any]],
        audit: dict[str, Any],
        winners: dict[str, int],
        unknown: int,
    ) -> None:
        clock = min((process.clock for process in self._history.processes), key=lambda clock: clock.error_us)
        over_us = clock.store_us(last_us(self._plan, self._history)) - clock.error_us - SETTLED_WITHIN_US
        due = audit["grabbed"] == body["shares"] or over_us > body["expires_at"] * 1000
        if len(closed) > 1:
            self._add(packet, f"settled {len(closed)} times")
        if not closed:
            if due:
                self._add(packet, "not settled, though it is empty or over")
            if audit["refunded_cents"]:
                self._add(packet, "refunded without being settled")
            return
        end = closed[0]
        if audit["left_cents"]:
            self._add(packet, f"settled with {audit['left_cents']} cents left")
        for name in ("granted_cents", "refunded_cents", "grabbed"):
            if end[name] != audit[name]:
                self._add(packet, f"settled with {name} {end[name]}, the audit has {audit[name]}")
        if end["grabbed"] < body["shares"] and end["at"] < body["expires_at"] and not self._cancelled(packet):
            self._add(packet, f"settled {body['expires_at'] - end['at']} ms before it expires")
        best = end.get("best")
        if winners and best is None:
            self._add(packet, "settled without naming the luckiest")
        elif best is not None:
            known = winners.get(best["viewer"])
            wrong = known is not None and known != best["amount_cents"]
            if (
                wrong
                or (known is None and not unknown)
                or best["amount_cents"] < max(winners.values(), default=0)
            ):
                self._add(
                    packet, f"the luckiest is said to be {best['viewer']} with {best['amount_cents']} cents"
                )

    def _cancelled(self, packet: str) -> bool:
        command = "redpacket.cancel"
        return any(
            outcome.command == command for process in self._history.processes for outcome in process.outcomes
        )

    def _check_owners(self, packet: str, by_key: dict[tuple[str, str], list[Ask]]) -> None:
        """A viewer wins once: with one key, and `again` with every other."""
        won: defaultdict[str, set[str]] = defaultdict(set)
        for (viewer, key), asks in by_key.items():
            if any(ask.code == "ok" and not ask.said.get("again") for ask in asks):
                won[viewer].add(key)
        for viewer, keys in won.items():
            if len(keys) > 1:
                self._add(packet, f"won with {len(keys)} keys", viewer)

    def _check_times(
        self,
        packet: str,
        body: dict[str, Any],
        closed: list[dict[str, Any]],
        asks: list[Ask],
        by_key: dict[tuple[str, str], list[Ask]],
    ) -> None:
        over = min([body["expires_at"], *(end["at"] for end in closed)])
        for ask in asks:
            if ask.code in ASIDE:
                continue
            if ask.code != "not_started" and ask.surely_before(body["opens_at"]):
                self._add(packet, f"answered {ask.code} before it opened", ask.viewer)
            if ask.code == "not_started":
                if ask.surely_after(body["opens_at"], ask.asked_us):
                    self._add(packet, "answered not_started after it opened", ask.viewer)
                if (
                    ask.said.get("now", 0) >= body["opens_at"]
                    or ask.said.get("starts_at") != body["opens_at"]
                ):
                    self._add(packet, f"not_started was said at {ask.said.get('now')}", ask.viewer)
            if ask.code == "ended" and ask.surely_before(over):
                self._add(packet, "answered ended before it was over", ask.viewer)
            first = first_sent_us(by_key[ask.viewer, ask.key])
            if ask.code == "ok" and not ask.said.get("again") and ask.surely_after(body["expires_at"], first):
                self._add(packet, "granted after it expired", ask.viewer)

    def _wins(self, packet: str, asks: list[Ask], winners: dict[str, int]) -> list[Operation]:
        """Return when each winner asked and was first told."""
        told: dict[str, int] = {}
        sent: dict[str, int] = {}
        for ask in asks:
            if not ask.sent or ask.viewer not in winners:
                continue
            if ask.code == "ok":
                told[ask.viewer] = min(ask.done_us, told.get(ask.viewer, NEVER_US))
            if ask.code == "ok" or not ask.definite:
                sent[ask.viewer] = min(ask.sent_us, sent.get(ask.viewer, NEVER_US))
        return [
            Operation("won", viewer, sent[viewer], told.get(viewer, NEVER_US))
            for viewer in winners
            if viewer in sent
        ]

    def _check_empty(
        self, packet: str, body: dict[str, Any], asks: list[Ask], wins: list[Operation], unknown: int
    ) -> None:
        """Nothing left is said only after as many had asked as there are shares, and is true for ever."""
        sent_at = sorted(won.begin_us for won in wins)
        earliest_us = NEVER_US
        for ask in asks:
            if ask.code != "empty":
                continue
            earliest_us = min(earliest_us, ask.done_us)
            asked = bisect_left(sent_at, ask.done_us)
            if asked + unknown < body["shares"]:
                self._add(
                    packet,
                    f"answered empty when only {asked} of {body['shares']} winners had asked",
                    ask.viewer,
                )
        for won in wins:
            if won.begin_us > earliest_us:
                self._add(packet, "won after somebody was told that it is empty", won.viewer, SERIAL)

    def _search(self, packet: str, body: dict[str, Any], asks: list[Ask], wins: list[Operation]) -> bool:
        operations = list(wins)
        for ask in asks:
            if ask.code == "empty":
                operations.append(Operation("nothing_left", ask.viewer, ask.asked_us, ask.done_us))
            elif ask.code == "ok" and ask.said.get("again"):
                operations.append(Operation("again", ask.viewer, ask.asked_us, ask.done_us))
            if len(operations) > OPERATIONS_MAX:
                return False
        explained = linearisable(body["shares"], 1, operations)
        if explained is False:
            self._add(packet, "no order of single grabs explains the answers", invariant=SERIAL)
        return explained is not None

    def _check_gauges(self, packet: str, body: dict[str, Any]) -> None:
        for process in self._history.processes:
            for frame in process.frames:
                for mark in frame.marks:
                    if not isinstance(mark, PacketSeen) or mark.packet != packet:
                        continue
                    if mark.left + mark.grabbed != body["shares"] or min(mark.left, mark.grabbed) < 0:
                        self._add(
                            packet,
                            f"the gauge said {mark.left} left and {mark.grabbed} grabbed of {body['shares']}",
                        )
