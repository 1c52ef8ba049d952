"""
What a fault did to the viewers, and the judge of a room whose history was broken.

Decides when a viewer counts as back: with the first fact made after the fault, or a join that covers it, read or
folded into a frame. Decides, too, what still must hold when the store itself has lost what it acknowledged, where the
load test's oracle has nothing to compare with: no unit sold beyond the stock, every identity of the audit, one content
per fact, and a snapshot wherever a viewer's line of facts breaks. Everything else is judged by that oracle.

Pure: values in, values out.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from loadtest.history import (
    TICKS_PER_S,
    Dump,
    FactSeen,
    Frame,
    History,
    JoinedSeen,
    ProcessHistory,
    ViewerHistory,
    digest,
)

NEVER_S: Final = float("inf")


class Return(NamedTuple):
    """How the viewers came back."""

    viewers: int
    #: Seconds from the moment asked for until each was back, rising.
    after_s: list[float]
    #: Snapshots given to viewers who asked to resume.
    snapshots: int

    def within(self, seconds: float) -> int:
        """Return how many were back within this time."""
        return sum(after <= seconds for after in self.after_s)

    def share_s(self, share: float) -> float:
        """Return the time within which this share of all viewers was back, infinite if it never was."""
        place = max(0, min(self.viewers, -(-int(self.viewers * share * 1000) // 1000)) - 1)
        return self.after_s[place] if place < len(self.after_s) else NEVER_S


def returns(history: History, since_s: float, first_seq: int | None) -> Return:
    """
    Return when the viewers were back.

    Args:
        history: Of the run.
        since_s: The fault, seconds after the start.
        first_seq: Place of the first fact made after it, in the epoch in which the room ended; None if there was none.
    """
    since = int(since_s * TICKS_PER_S)
    epoch = last_epoch(history)
    after: list[float] = []
    viewers = snapshots = 0
    for process in history.processes:
        #: Frame → how many viewers were back with it.
        back: Counter[int] = Counter()
        for viewer in process.viewers:
            if not viewer.joined:
                continue
            viewers += 1
            joins = sum(
                isinstance(mark, JoinedSeen) and not mark.resumed
                for number in viewer.frames
                for mark in process.frames[number].marks
            )
            snapshots += max(0, joins - 1)
            if first_seq is not None:
                number = _first_back(process.frames, viewer, since, epoch, first_seq)
                if number is not None:
                    back[number] += 1
        for number, count in back.items():
            ticks = _moments(process.frames[number])
            # Those who read it but were back before are taken for the earliest, so this errs on the late side.
            after.extend(max(0.0, tick / TICKS_PER_S - since_s) for tick in ticks[-count:])
    return Return(viewers, sorted(after), snapshots)


def last_epoch(history: History) -> str:
    """Return the epoch of the join that was answered last."""
    found, latest = "", -1
    for process in history.processes:
        for frame in process.frames:
            for mark in frame.marks:
                if isinstance(mark, JoinedSeen) and max(frame.ticks, default=-1) > latest:
                    latest, found = max(frame.ticks), mark.epoch
    return found


def _moments(frame: Frame) -> list[int]:
    return [tick for tick in sorted(frame.ticks) for _ in range(frame.ticks[tick])]


def _first_back(
    frames: list[Frame], viewer: ViewerHistory, since: int, last: str, first_seq: int
) -> int | None:
    epoch = ""
    for number in viewer.frames:
        frame = frames[number]
        for mark in frame.marks:
            if isinstance(mark, JoinedSeen):
                epoch = mark.epoch
            if (
                isinstance(mark, FactSeen | JoinedSeen)
                and epoch == last
                and mark.seq >= first_seq
                and max(frame.ticks, default=0) >= since
            ):
                return number
    return None


def facts_lost(history: History) -> int:
    """Return how many facts some viewer never got although no snapshot covers them, summed over the viewers."""
    lost = 0
    for process in history.processes:
        for viewer in process.viewers:
            lost += sum(max(0, gap) for gap in _gaps(process, viewer))
    return lost


def _gaps(process: ProcessHistory, viewer: ViewerHistory) -> Iterator[int]:
    seq = 0
    for number in viewer.frames:
        for mark in process.frames[number].marks:
            if isinstance(mark, FactSeen):
                yield mark.seq - seq - 1
                seq = max(seq, mark.seq)
            elif isinstance(mark, JoinedSeen):
                if mark.resumed:
                    yield mark.seq - seq - len(mark.missed)
                seq = mark.seq


def judge_broken_line(history: History, dump: Dump, stock: dict[str, int]) -> list[str]:
    """
    Return what is wrong with a room whose store lost a part of what it had acknowledged.

    Args:
        history: What the viewers saw.
        dump: What the server says in the end, on the line that remained.
        stock: Sale → units that were put on sale, and never may be exceeded.
    """
    wrongs: list[str] = []
    contents: dict[tuple[str, int], int] = {}
    epoch = last_epoch(history)
    for process in history.processes:
        for viewer in process.viewers:
            wrongs += _line_of(process, viewer, contents, epoch, history.final_seq)
    for event in dump.events:
        seen = contents.get((epoch, event["seq"]))
        if seen is not None and seen != digest(event):
            wrongs.append(f"fact {event['seq']} was sent with other content than the room has")
    wrongs += _sold(history, dump, stock)
    return sorted(set(wrongs))


def _line_of(
    process: ProcessHistory,
    viewer: ViewerHistory,
    contents: dict[tuple[str, int], int],
    last: str,
    final_seq: int,
) -> Iterator[str]:
    epoch, seq = "", 0
    for number in viewer.frames:
        for mark in process.frames[number].marks:
            if isinstance(mark, FactSeen):
                if mark.seq != seq + 1:
                    yield f"{viewer.viewer} got fact {mark.seq} after {seq} of {epoch} without a snapshot"
                if contents.setdefault((epoch, mark.seq), mark.digest) != mark.digest:
                    yield f"fact {mark.seq} of {epoch} has two contents"
                seq = mark.seq
            elif isinstance(mark, JoinedSeen):
                if mark.resumed:
                    missed = [place for place, _ in mark.missed]
                    if mark.epoch != epoch or missed != list(range(seq + 1, mark.seq + 1)):
                        yield f"{viewer.viewer} resumed from {epoch} {seq} into {mark.epoch} {mark.seq} with {missed}"
                epoch, seq = mark.epoch, mark.seq
    if viewer.present and (epoch != last or seq < final_seq):
        yield f"{viewer.viewer} ended at {epoch} {seq}, the room at {last} {final_seq}"


def judge_kept_claims(history: History, dump: Dump) -> list[str]:
    """Return which claims and payments were acknowledged and are not in the orders, or were done twice."""
    last: dict[str, dict[str, Any]] = {}
    wrongs = []
    for change in dump.orders:
        last[change["order"]] = change
    orders_of: Counter[tuple[str, str]] = Counter()
    for change in last.values():
        # Who pays late gets the unit they paid for, whatever they hold by then.
        if change["status"] == "held":
            orders_of[change["sale"], change["viewer"]] += change["qty"]
    for process in history.processes:
        for outcome in process.outcomes:
            if outcome.command == "seckill.claim" and outcome.code == "ok":
                order = str(outcome.said["order"])
                if order not in last:
                    wrongs.append(f"order {order} was acknowledged and is lost")
    for payment in history.payments:
        order = last.get(payment.order, {})
        if payment.code == "ok" and order.get("payment_id") != payment.payment:
            wrongs.append(f"payment {payment.payment} was taken, but its order is not paid by it")
    wrongs += [
        f"{viewer} holds {units} units of {sale}" for (sale, viewer), units in orders_of.items() if units > 1
    ]
    return sorted(set(wrongs))


def _sold(history: History, dump: Dump, stock: dict[str, int]) -> Iterator[str]:
    if dump.audit.get("holds") is not True:
        yield "the server's own audit does not hold"
    won: dict[str, set[str]] = {}
    for process in history.processes:
        for outcome in process.outcomes:
            if outcome.command == "seckill.claim" and outcome.code == "ok":
                won.setdefault(str(outcome.said.get("sale", "")), set()).add(str(outcome.said["order"]))
    # Orders that were acknowledged on any line, and those that somebody holds without having been told.
    told = set().union(*won.values()) if won else set()
    told |= {change["order"] for change in dump.orders}
    returned = {change["order"] for change in dump.orders if change["status"] in ("cancelled", "expired")}
    total = sum(stock.values())
    if len(told - returned) > total:
        yield f"{len(told - returned)} orders were acknowledged and stand, of {total} units"
    for sale, units in dump.audit.get("sales", {}).items():
        if units["held"] + units["sold"] > stock.get(sale, 0) or units["left"] < 0:
            yield f"the audit of {sale} has {units}, of {stock.get(sale, 0)} units"
