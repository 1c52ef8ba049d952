"""The judge of a broken line finds what it is there to find, and nothing in a run that is right."""

from array import array
from typing import Any

import pytest

from loadtest.history import (
    TICKS_PER_S,
    Dump,
    FactSeen,
    Frame,
    History,
    JoinedSeen,
    Outcome,
    Payment,
    ProcessHistory,
    Seen,
    ViewerHistory,
    digest,
)
from tests.chaos import verdict
from tests.chaos.verdict import NEVER_S

SALE = "run-sale"


def fact(seq: int, text: str = "") -> dict[str, Any]:
    return {"ev": "notice", "seq": seq, "at": 1, "text": text or f"notice {seq}", "version": seq}


def seen(seq: int, text: str = "") -> FactSeen:
    return FactSeen(seq, digest(fact(seq, text)), "notice")


def joined(epoch: str, seq: int, *, resumed: bool = False, missed: list[int] | None = None) -> JoinedSeen:
    places = [(place, digest(fact(place))) for place in missed or []]
    return JoinedSeen(epoch, seq, resumed, "" if resumed else "room", 0, places, 0, 0, "v")


class Story:
    """Builds a history: each viewer reads frames of its own at moments given in seconds."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._viewers: list[ViewerHistory] = []
        self.outcomes: list[Outcome] = []

    def viewer(self, *read: tuple[float, Seen]) -> None:
        numbers = array("I")
        for at_s, mark in read:
            frame = Frame(len(self._frames), [mark], {int(at_s * TICKS_PER_S): 1}, True)
            self._frames.append(frame)
            numbers.append(frame.number)
        self._viewers.append(ViewerHistory(f"v{len(self._viewers)}", 0, numbers, [], True, True))

    def won(self, order: str) -> None:
        said = {"order": order, "status": "held"}
        self.outcomes.append(Outcome(len(self.outcomes), "seckill.claim", "ok", 0, 0, 0, said=said))

    def history(self, final_seq: int) -> History:
        process = ProcessHistory(0, self._frames, self._viewers, self.outcomes)
        return History("run", "room", final_seq, [process])


def a_dump(last: int, orders: list[str] | None = None, **units: int) -> Dump:
    sale = {"stock": 5, "left": 5, "held": 0, "sold": 0, "holds": True, **units}
    changes = [{"order": order, "status": "held"} for order in orders or []]
    audit = {"holds": True, "sales": {SALE: sale}}
    return Dump("room", [fact(seq) for seq in range(1, last + 1)], {}, {}, audit, changes)


def judge(story: Story, dump: Dump, final_seq: int) -> list[str]:
    return verdict.judge_broken_line(story.history(final_seq), dump, {SALE: 5})


def test_line_that_breaks_with_a_snapshot_is_right() -> None:
    story = Story()
    story.viewer((0, joined("e1", 3)), (1, seen(4)), (2, joined("e2", 1)), (3, seen(2)))
    story.won("o1")

    assert judge(story, a_dump(2, ["o1"], held=1, left=4), 2) == []


def test_fact_that_was_skipped_is_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)), (1, seen(3)))

    [wrong] = judge(story, a_dump(3), 3)

    assert "fact 3 after 1" in wrong


def test_resuming_into_another_line_is_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)), (1, joined("e2", 2, resumed=True, missed=[2])))

    [wrong] = judge(story, a_dump(2), 2)

    assert "resumed from e1" in wrong


def test_two_contents_of_a_fact_are_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)), (1, seen(2)))
    story.viewer((0, joined("e1", 1)), (1, seen(2, "other")))

    assert any("two contents" in wrong for wrong in judge(story, a_dump(2), 2))


def test_viewer_left_on_the_old_line_is_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))
    story.viewer((0, joined("e1", 1)), (2, joined("e2", 1)))

    [wrong] = judge(story, a_dump(1), 1)

    assert "v0 ended at e1" in wrong


def test_more_acknowledged_orders_than_units_are_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))
    for number in range(4):
        story.won(f"lost-{number}")

    wrongs = judge(story, a_dump(1, ["new-1", "new-2"], held=2, left=3), 1)

    assert wrongs == ["6 orders were acknowledged and stand, of 5 units"]


def test_audit_beyond_the_stock_is_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))

    [wrong] = judge(story, a_dump(1, held=6, left=-1), 1)

    assert "of 5 units" in wrong


@pytest.mark.parametrize(("resumed", "missed"), [(True, [3, 4]), (False, None)])
def test_viewer_is_back_with_the_first_join_that_covers_the_fact(
    resumed: bool, missed: list[int] | None
) -> None:
    story = Story()
    story.viewer((0, joined("e1", 2)), (7, joined("e1", 4, resumed=resumed, missed=missed)))
    story.viewer((0, joined("e1", 2)), (5.5, seen(3)), (6, seen(4)))
    story.viewer((0, joined("e1", 2)), (5.5, seen(3)))

    back = verdict.returns(story.history(4), since_s=5, first_seq=4)

    assert [round(after, 1) for after in back.after_s] == [1.0, 2.0]
    assert (back.viewers, back.within(1.5), back.share_s(0.5), back.share_s(0.99)) == (3, 1, 2.0, NEVER_S)
    assert back.snapshots == (0 if resumed else 1)


def test_viewer_of_another_epoch_is_back_with_its_snapshot() -> None:
    story = Story()
    story.viewer((0, joined("e1", 8)), (5.1, seen(9)), (7, joined("e2", 2)))

    back = verdict.returns(story.history(2), since_s=5, first_seq=2)

    assert [round(after, 1) for after in back.after_s] == [2.0]
    assert back.snapshots == 1


def test_lost_facts_are_counted_where_no_snapshot_covers_them() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)), (1, seen(4)), (2, joined("e1", 9)), (3, seen(10)))

    assert verdict.facts_lost(story.history(10)) == 2


def test_acknowledged_claims_and_payments_that_are_gone_are_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))
    story.won("o1")
    story.won("o2")
    history = story.history(1)
    history.payments = [
        Payment(order="o1", payment="p1", amount_cents=100, sent_us=0, done_us=1, code="ok"),
        Payment(order="o1", payment="p2", amount_cents=100, sent_us=0, done_us=0, code="unanswered"),
    ]
    dump = a_dump(1)
    dump.orders = [
        {"order": "o1", "sale": SALE, "viewer": "v0", "qty": 1, "status": "paid", "payment_id": "p0"}
    ]

    assert verdict.judge_kept_claims(history, dump) == [
        "order o2 was acknowledged and is lost",
        "payment p1 was taken, but its order is not paid by it",
    ]


def test_kept_claims_are_right() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))
    story.won("o1")
    dump = a_dump(1)
    dump.orders = [{"order": "o1", "sale": SALE, "viewer": "v0", "qty": 1, "status": "held"}]

    assert verdict.judge_kept_claims(story.history(1), dump) == []


def test_two_units_held_by_one_viewer_are_named() -> None:
    story = Story()
    story.viewer((0, joined("e1", 1)))
    dump = a_dump(1)
    dump.orders = [
        {"order": order, "sale": SALE, "viewer": "v0", "qty": 1, "status": "held"} for order in ("o1", "o2")
    ]

    assert verdict.judge_kept_claims(story.history(1), dump) == [f"v0 holds 2 units of {SALE}"]
