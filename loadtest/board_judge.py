"""
The judge of the share board: who brought whom.

Decides what of I6 of `conservation.py` was broken: each counted arrival came through the link it is counted for, once
and not in a circle; each arrival that surely came through a link was counted; the board and the totals are what the
records say, with whoever reached a count first before the others. Pure.
"""

from collections import Counter, defaultdict
from typing import Any

from loadtest.asks import BOARD
from loadtest.findings import BoardTally, Findings
from loadtest.history import Dump, History
from loadtest.plan import FORGED, Plan


def check_board(plan: Plan, history: History, dump: Dump, found: Findings) -> None:
    """Add everything that is wrong with the board to `found`, and its figures."""
    tally = found.board = BoardTally(arrivals=len(dump.shares))
    tally.reasons = dict(
        sorted(Counter(str(record["reason"]) for record in dump.shares if "reason" in record).items())
    )
    came, certain = _links(plan, history)
    counts, reached, inviter_of = Counter[str](), dict[str, int](), dict[str, str]()
    forged: set[str] = set()
    for record in dump.shares:
        inviter, invitee = record["inviter"], record["invitee"]
        if not record["counted"]:
            if record.get("reason") == "forged":
                forged.add(invitee)
            if record.get("reason") == "banned" and inviter_of.pop(invitee, None) is not None:
                counts[inviter] -= 1
            continue
        if invitee in inviter_of:
            found.add(BOARD, "counted twice", invitee)
            continue
        if "reason" in record:
            found.add(BOARD, f"counted, though {record['reason']}", invitee)
        if inviter == invitee:
            found.add(BOARD, "counted as brought by themselves", invitee)
        elif inviter not in came[invitee]:
            found.add(
                BOARD, f"counted as brought by {inviter}, whose link they did not come through", invitee
            )
        inviter_of[invitee] = inviter
        counts[inviter] += 1
        reached[inviter] = record["at"]
        tally.counted += 1
    tally.inviters = len(+counts)
    for invitee in inviter_of:
        above, seen = inviter_of.get(invitee), {invitee}
        while above is not None and above not in seen:
            seen.add(above)
            above = inviter_of.get(above)
        if above == invitee:
            found.add(BOARD, "is in a circle of inviters", invitee)
    for invitee, inviter in certain.items():
        if inviter == "?":
            if invitee not in forged:
                found.add(BOARD, "came through a forged link, and there is no record of it", invitee)
        elif inviter_of.get(invitee) != inviter:
            found.add(BOARD, f"came through the link of {inviter}, and was not counted", invitee)
    if dump.shares and dump.stats.get("shares") != tally.counted:
        found.add(BOARD, f"the totals count {dump.stats.get('shares')} arrivals, the records {tally.counted}")
    for process in history.processes:
        for outcome in process.outcomes:
            if outcome.command == "share.rank" and outcome.code == "ok":
                _check_top(outcome.said.get("top", []), counts, reached, found)


def _links(plan: Plan, history: History) -> tuple[defaultdict[str, set[str]], dict[str, str]]:
    """Return viewer → those whose link they may have come through, and viewer → whose they certainly did."""
    came: defaultdict[str, set[str]] = defaultdict(set)
    certain: dict[str, str] = {}
    for process in history.processes:
        for outcome in process.outcomes:
            if outcome.command != "room.join" or outcome.step < 0:
                continue
            step = plan.steps[outcome.step]
            viewer = f"{history.run}-{plan.actors[step.actor].id}"
            # A join that was lost is made again through the same link.
            via = outcome.said.get("via")
            if via is None and outcome.code != "ok" and step.command.get("via", FORGED) != FORGED:
                via = f"{history.run}-{plan.actors[step.command['via']].id}"
            if via is not None:
                came[viewer].add(via)
                if outcome.code == "ok" and outcome.tries == 1:
                    certain[viewer] = via
    return came, certain


def _check_top(
    top: list[dict[str, Any]], counts: Counter[str], reached: dict[str, int], found: Findings
) -> None:
    """Compare the head of the board with the records: most first, among equals who got there first."""
    lines = sorted(((-count, reached[inviter]) for inviter, count in counts.items() if count > 0))
    expected = lines[: len(top)]
    shown = []
    for line in top:
        viewer, count = line["viewer"], line["count"]
        if counts[viewer] != count:
            found.add(BOARD, f"the board says {count}, the records {counts[viewer]}", viewer)
        shown.append((-count, reached.get(viewer, 0)))
    if shown != expected or len(top) < min(len(lines), len(top) + 1, 10):
        found.add(BOARD, f"the head of the board is {shown}, by the records it is {expected}")
