"""`loadtest/rooms.py`: a run of several rooms is judged room by room, and nothing of one is excused by another."""

from array import array

from loadtest.history import Dump, Frame, History, Payment, ProcessHistory, ViewerHistory
from loadtest.plan import Actor, Plan
from loadtest.rooms import judge
from loadtest.scenario import Scenario
from tests.unit.loadtest.a_run import EVENTS, ROOM, RUN, STEPS, fact, joined, snapshot, viewer


def process(room: int, seqs: list[int]) -> ProcessHistory:
    """Return what one viewer of a room saw: a join at 1, then these facts."""
    marks = [[joined(1, 1)], *([fact(seq)] for seq in seqs)]
    frames = [Frame(number, seen, {100: 1}, number == 0) for number, seen in enumerate(marks)]
    seen_by = ViewerHistory(viewer(1), 1, array("I", range(len(frames))), [], True, True)
    return ProcessHistory(0, frames, [seen_by], [], room=room)


PLAN = Plan(
    Scenario(name="crowd", plays="crowd"),
    1,
    [Actor("console", "主播", "streamer"), Actor("v1", "观众", "viewer")],
    STEPS,
    8000,
    rooms=2,
)
#: Nobody of the two rooms commented or tapped, and no console was heard.
DUMP = Dump(ROOM, EVENTS, {"likes": 0, "comments": 0}, snapshot(4))


def history(first: list[int], second: list[int]) -> History:
    processes = [process(0, first), process(1, second)]
    payment = Payment(order="o", payment="p", amount_cents=1, sent_us=0, done_us=0, code="unanswered")
    return History(RUN, ROOM, 4, processes, [payment], [], places=[(ROOM, 4), (ROOM, 4)])


def missing(seen: History) -> list[str]:
    found = judge(PLAN, seen, [DUMP, DUMP])
    return [violation.message for violation in found.violations if "never arrived" in violation.message]


def test_whole_rooms_miss_nothing() -> None:
    assert missing(history([2, 3, 4], [2, 3, 4])) == []


def test_fact_missing_in_one_room_is_not_excused_by_the_other() -> None:
    assert missing(history([2, 3, 4], [2, 3])) == ["fact 4 never arrived"]
    assert missing(history([2, 3], [2, 3, 4])) == ["fact 4 never arrived"]


def test_room_apart_has_its_own_viewers_and_end() -> None:
    both = history([2, 3, 4], [2])
    both.places[1] = ("other", 2)
    second = both.apart(1)

    assert (second.room, second.final_seq, len(second.processes), second.payments) == ("other", 2, 1, [])
    assert both.apart(0).payments == both.payments
    assert second.apart(0) is second


def test_counts_of_all_rooms_add_up() -> None:
    found = judge(PLAN, history([2, 3, 4], [2, 3, 4]), [DUMP, DUMP])

    assert found.viewers_checked == 2
    assert found.facts == 8
    assert found.facts_delivered == 6
