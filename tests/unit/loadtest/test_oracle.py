"""`loadtest/oracle.py`: every planted fault is named, with its invariant and its viewer; a clean run raises nothing."""

from typing import Any

import pytest

from loadtest.findings import VIOLATIONS_MAX, Findings, Violation
from loadtest.history import (
    BrokenSeen,
    CommentSeen,
    FactSeen,
    Folded,
    JoinedSeen,
    LikesSeen,
    OrderSeen,
    OtherChatSeen,
    Outcome,
    Seen,
    StockSeen,
    ThinnedSeen,
    digest,
)
from loadtest.oracle import ANSWERED_WITHIN_US, FACTS, LIKES, ORDER, TENANTS, WIRE, _ended_by_removal
from tests.unit.loadtest.a_run import (
    EVENTS,
    RUN,
    ARun,
    comment,
    fact,
    joined,
    resumed,
    snapshot,
    viewer,
)


def named(findings: Findings, invariant: str, message: str) -> Violation:
    """Return the one violation that says this."""
    found = [
        violation
        for violation in findings.violations
        if violation.invariant == invariant and message in violation.message
    ]
    assert len(found) == 1, [str(violation) for violation in findings.violations]
    return found[0]


@pytest.fixture
def run() -> ARun:
    return ARun()


def test_clean_run_raises_nothing(run: ARun) -> None:
    findings = run.judged()

    assert findings.violations == []
    assert findings.total == 0
    assert (findings.facts, findings.facts_delivered, findings.snapshots_checked) == (4, 12, 4)
    assert (findings.comments_accepted, findings.comments_delivered, findings.comments_thinned) == (3, 12, 0)
    assert (findings.likes_acknowledged, findings.likes_unknown, findings.likes_final) == (12, 0, 12)
    assert findings.viewers_checked == 4


# --- I3 order -------------------------------------------------------------------------------------------------


def test_swapped_facts_are_out_of_order(run: ARun) -> None:
    frames = run.seen[2]
    frames[1], frames[3] = [fact(3), comment(2, 6)], [fact(2)]
    frames[2], frames[3] = frames[3], frames[2]
    frames[1], frames[3] = [fact(3)], [comment(1, 5), LikesSeen(7), comment(2, 6)]

    violation = named(run.judged(), ORDER, "fact 2 came after fact 3")

    assert violation.named == [viewer(2)]


def test_other_content_for_one_seq_is_named(run: ARun) -> None:
    run.seen[1][1] = [FactSeen(2, 999, "notice")]

    findings = run.judged()

    # Whoever is replayed first sets the content; either way the place is named.
    assert any(v.invariant == ORDER and "fact 2" in v.message for v in findings.violations)
    assert all("fact 2" in v.message for v in findings.violations)


def test_content_that_the_dump_does_not_have_is_named(run: ARun) -> None:
    run.everywhere(lambda frames: frames.__setitem__(1, [FactSeen(2, 999, "notice")]))

    violation = named(run.judged(), ORDER, "fact 2 was sent with other content than the room has")

    assert violation.viewers == 4


def test_fact_that_the_room_never_had_is_named(run: ARun) -> None:
    run.seen[3].append([FactSeen(5, 5, "notice")])

    assert named(run.judged(), ORDER, "no such fact").named == [viewer(3)]


def test_gap_in_the_dump_is_named(run: ARun) -> None:
    del run.events[2]

    assert named(run.judged(), ORDER, "4 where 3 should be").viewers == 0


def test_comment_twice_is_named(run: ARun) -> None:
    run.seen[1][3].append(comment(2, 6))

    assert named(run.judged(), ORDER, "comment 2 came twice").named == [viewer(1)]


def test_comments_in_another_order_are_named(run: ARun) -> None:
    run.seen[1][2], run.seen[1][3] = [comment(2, 6), LikesSeen(7)], [fact(3), comment(1, 5)]

    assert named(run.judged(), ORDER, "comment 1 came after comment 2").named == [viewer(1)]


def test_comment_with_other_content_is_named(run: ARun) -> None:
    seen = comment(2, 6)
    run.seen[3][3][1] = CommentSeen(seen.comment, 77, seen.sender, seen.step, seen.text_crc)

    assert named(run.judged(), ORDER, "comment 2 has different content").named == [viewer(3)]


# --- I4 facts -------------------------------------------------------------------------------------------------


def test_dropped_fact_is_named(run: ARun) -> None:
    del run.seen[2][3][0]

    violation = named(run.judged(), FACTS, "fact 3 never arrived")

    assert violation.named == [viewer(2)]
    assert str(violation) == f"I4 facts: fact 3 never arrived [{viewer(2)}]"


def test_fact_missing_at_the_end_is_named(run: ARun) -> None:
    del run.seen[2][5]

    assert named(run.judged(), FACTS, "fact 4 never arrived").named == [viewer(2)]


def test_viewer_who_was_gone_is_not_owed_the_rest(run: ARun) -> None:
    del run.seen[2][4:]
    run.present.discard(2)

    assert run.judged().violations == []


def test_fact_made_after_the_end_is_owed_to_nobody(run: ARun) -> None:
    run.events.append({"ev": "room.state", "seq": 5, "at": 50, "state": "paused"})
    run.final["state"] = "paused"

    assert run.judged().violations == []


def test_fact_twice_is_named(run: ARun) -> None:
    run.seen[1][3].append(fact(3))

    assert named(run.judged(), FACTS, "fact 3 came twice").named == [viewer(1)]


def test_fact_before_the_join_is_named(run: ARun) -> None:
    run.seen[1].insert(0, [fact(1)])

    assert named(run.judged(), FACTS, "fact 1 came before the join").named == [viewer(1)]


def test_late_joiner_is_covered_by_the_snapshot(run: ARun) -> None:
    run.seen[3] = [[joined(3, 3, last_comment=2, likes=7)], *run.seen[3][4:]]

    findings = run.judged()

    assert findings.violations == []
    assert findings.facts_delivered == 10


def test_snapshot_that_says_something_else_is_named(run: ARun) -> None:
    early = joined(3, 1)
    late = JoinedSeen(early.epoch, 3, False, early.room, early.factual, [], 2, 7, early.viewer)
    run.seen[3] = [[late], *run.seen[3][4:]]

    assert named(run.judged(), FACTS, "the snapshot at 3 does not say").named == [viewer(3)]


def test_fact_that_the_snapshot_held_already_is_named(run: ARun) -> None:
    run.seen[3] = [[joined(3, 3, last_comment=2, likes=7)], [fact(3)], *run.seen[3][4:]]

    assert named(run.judged(), FACTS, "fact 3 came again after a snapshot at 3").named == [viewer(3)]


def test_final_snapshot_is_compared_with_the_facts(run: ARun) -> None:
    run.final["notice"] = None

    assert named(run.judged(), FACTS, "the final snapshot does not say").viewers == 0


def test_resume_with_everything_missed_is_right(run: ARun) -> None:
    run.seen[1] = [*run.seen[1][:3], [resumed(1, 2, 3, likes=7)], *run.seen[1][4:]]

    assert run.judged().violations == []


def test_resume_that_leaves_a_fact_out_is_named(run: ARun) -> None:
    whole = resumed(1, 2, 3, likes=7)
    hole = JoinedSeen(whole.epoch, 3, True, "", 0, [], -1, 7, whole.viewer)
    run.seen[1] = [*run.seen[1][:3], [hole], *run.seen[1][4:]]

    assert named(run.judged(), FACTS, "resumed after fact 2 at 3 with facts []").named == [viewer(1)]


def test_comment_that_vanished_without_a_word_is_named(run: ARun) -> None:
    run.thin(2, frame=2, mark=0, announce=0)

    assert named(run.judged(), FACTS, "1 comments neither arrived nor").named == [viewer(2)]


def test_last_comment_that_vanished_is_named(run: ARun) -> None:
    run.thin(2, frame=4, mark=1, announce=0)

    assert named(run.judged(), FACTS, "1 comments neither arrived nor").named == [viewer(2)]


def test_announced_thinning_is_counted_and_no_violation(run: ARun) -> None:
    run.thin(2, frame=2, mark=0, announce=1)
    run.thin(3, frame=4, mark=1, announce=2)

    findings = run.judged()

    assert findings.violations == []
    assert findings.comments_thinned == 2
    assert findings.comments_delivered + findings.comments_thinned == 12


def test_more_thinned_than_there_was_is_named(run: ARun) -> None:
    run.seen[2][2].append(ThinnedSeen(50))

    assert named(run.judged(), FACTS, "50 chat events announced").named == [viewer(2)]


def test_comment_shown_though_refused_is_named(run: ARun) -> None:
    run.outcomes[6] = Outcome(6, "comment.send", "muted", 3000, 3000, 3500)
    run.stats["comments"] = 2

    assert named(run.judged(), FACTS, "comment 2 was shown, but refused with muted").viewers == 0


def test_comment_of_unknown_outcome_may_or_may_not_be_there(run: ARun) -> None:
    run.outcomes[6] = Outcome(6, "comment.send", "unanswered", 3000, 3000, 3500, definite=False)

    assert run.judged().violations == []


def test_comment_that_nobody_sent_is_named(run: ARun) -> None:
    del run.outcomes[6]

    assert named(run.judged(), FACTS, "step 6 was never taken")


def test_acknowledged_comment_missing_in_the_room_is_named(run: ARun) -> None:
    run.stats["comments"] = 2

    assert named(run.judged(), FACTS, "3 comments acknowledged and 0 unknown, but the room counts 2")


def test_two_senders_told_the_same_comment_are_named(run: ARun) -> None:
    run.outcomes[8] = Outcome(8, "comment.send", "ok", 5000, 5000, 5500, 2)

    assert named(run.judged(), FACTS, "steps 6 and 8 were both told comment 2")


def test_comment_with_another_text_or_author_is_named(run: ARun) -> None:
    seen = comment(2, 6)
    other = CommentSeen(seen.comment, seen.digest, viewer(3), seen.step, 1)
    run.everywhere(lambda frames: frames[3].__setitem__(1, other))

    findings = run.judged()

    assert named(findings, FACTS, "comment 2 does not say what step 6 said")
    assert named(findings, FACTS, f"{viewer(2)} wrote it")


def test_command_without_its_fact_is_named(run: ARun) -> None:
    run.outcomes.append(Outcome(7, "item.put", "ok", 4000, 4000, 4500))
    run.outcomes.append(Outcome(11, "item.put", "ok", 4000, 4000, 4500))

    assert named(run.judged(), FACTS, "2 × item.put acknowledged, but the room has 1")


# --- I5 likes -------------------------------------------------------------------------------------------------


def test_falling_likes_are_named(run: ARun) -> None:
    run.seen[1][4].append(LikesSeen(11))

    assert named(run.judged(), LIKES, "the total fell from 12 to 11").named == [viewer(1)]


def test_likes_above_the_end_are_named(run: ARun) -> None:
    run.seen[1][4].append(LikesSeen(13))

    assert named(run.judged(), LIKES, "the gauge said 13, the end 12").named == [viewer(1)]


@pytest.mark.parametrize("final", [7, 11, 13])
def test_likes_that_are_not_the_acknowledged_sum_are_named(run: ARun, final: int) -> None:
    run.stats["likes"] = final

    assert named(run.judged(), LIKES, f"12 likes acknowledged, but the room has {final}").viewers == 0


@pytest.mark.parametrize(("final", "right"), [(6, False), (7, True), (12, True), (13, False)])
def test_unknown_likes_count_at_most_once(run: ARun, final: int, right: bool) -> None:
    run.outcomes[10] = Outcome(10, "like.send", "unanswered", 7000, 7000, 7500, 0, 5, definite=False)
    run.stats["likes"] = final
    run.everywhere(lambda frames: frames[4].pop())
    run.everywhere(lambda frames: frames[2].pop())

    assert (run.judged().violations == []) is right


def test_skipped_gauges_are_no_violation(run: ARun) -> None:
    run.seen[1][2].pop()
    run.seen[2][4].pop()

    assert run.judged().violations == []


# --- I8 tenants, wire -----------------------------------------------------------------------------------------


def test_foreign_comment_is_named(run: ARun) -> None:
    run.seen[1][4].append(CommentSeen(4, 5, "stranger", -1, 0))

    assert named(run.judged(), TENANTS, "comment 4 of stranger").named == [viewer(1)]


def test_foreign_arrival_is_named(run: ARun) -> None:
    run.seen[1][4].append(OtherChatSeen("arrived", "stranger"))

    assert named(run.judged(), TENANTS, "arrived of stranger").named == [viewer(1)]


def test_foreign_snapshot_is_named(run: ARun) -> None:
    own = joined(1, 1)
    run.seen[1][0] = [JoinedSeen(own.epoch, own.seq, False, "other-room", own.factual, [], 0, 0, own.viewer)]

    assert named(run.judged(), TENANTS, "'other-room'").named == [viewer(1)]


def test_joined_as_somebody_else_is_named(run: ARun) -> None:
    run.seen[1][0] = [joined(2, 1)]
    run.seen[2][0] = [joined(2, 1)]

    assert named(run.judged(), TENANTS, f"joined as {viewer(2)}").named == [viewer(1)]


@pytest.mark.parametrize(
    "event",
    [
        {"ev": "notice", "seq": 5, "at": 50, "text": "hello", "version": 3},
        {"ev": "item.explaining", "seq": 5, "at": 50, "item": "somebody-elses"},
    ],
)
def test_foreign_fact_in_the_room_is_named(run: ARun, event: dict[str, Any]) -> None:
    run.events.append(event)

    assert named(run.judged(), TENANTS, "fact 5").viewers == 0


def test_unreadable_frame_is_named(run: ARun) -> None:
    run.seen[2].append([BrokenSeen("MalformedFrame: a server's frame is an array")])

    assert named(run.judged(), WIRE, "a server's frame is an array").named == [viewer(2)]


@pytest.mark.parametrize(("code", "fault"), [(1011, True), (4400, True), (1006, False), (4501, False)])
def test_close_that_blames_a_lawful_client_is_named(run: ARun, code: int, fault: bool) -> None:
    run.lost[2] = [code]

    findings = run.judged()

    assert [violation.named for violation in findings.violations] == ([[viewer(2)]] if fault else [])


# --- the list -------------------------------------------------------------------------------------------------


def test_same_violation_at_many_viewers_is_listed_once(run: ARun) -> None:
    run.everywhere(lambda frames: frames[3].pop(0))

    findings = run.judged()

    violation = named(findings, FACTS, "fact 3 never arrived")
    assert violation.viewers == 4
    assert violation.named == [viewer(actor) for actor in range(4)]
    assert findings.total == 4


def test_list_of_violations_has_an_end() -> None:
    findings = Findings()
    for number in range(VIOLATIONS_MAX + 50):
        findings.add(ORDER, f"number {number}", "v")

    assert len(findings.violations) == VIOLATIONS_MAX
    assert findings.total == VIOLATIONS_MAX + 50


# --- sampled viewers ------------------------------------------------------------------------------------------


def after_a_break(run: ARun, content: int) -> None:
    """Let everybody have come back into another epoch, whose first facts only snapshots tell of."""
    for actor in range(4):
        old = joined(actor, 1)
        before = JoinedSeen("old", 7, False, old.room, 42, [], 0, 0, old.viewer)
        run.seen[actor].insert(0, [before])
        back = JoinedSeen(old.epoch, 1, False, old.room, content, [], 0, 0, old.viewer)
        run.seen[actor][1] = [back]
    run.final["title"] = "what the old epoch said"


def test_room_that_went_on_in_another_epoch_need_not_follow_from_its_facts(run: ARun) -> None:
    after_a_break(run, 43)

    found = run.judged()

    assert found.violations == []
    assert found.epochs == 2


def test_snapshots_of_another_epoch_must_agree(run: ARun) -> None:
    after_a_break(run, 43)
    back = run.seen[3][1][0]
    assert isinstance(back, JoinedSeen)
    run.seen[3][1] = [JoinedSeen(back.epoch, 1, False, back.room, 44, [], 0, 0, back.viewer)]

    [violation] = run.judged().violations

    assert violation.message == "the snapshot at 1 does not say what the facts up to it say"


def test_folded_view_is_compared_with_the_snapshot(run: ARun) -> None:
    room = snapshot(4)

    def judged(folded: Folded) -> Findings:
        run.folded[1] = folded
        return run.judged()

    assert judged(Folded("k3v9", 4, room, False, 0)).violations == []
    assert judged(Folded("k3v9", 4, room, False, 0)).views_checked == 1
    assert named(judged(Folded("k3v9", 4, {**room, "items": []}, False, 0)), FACTS, "'items'")
    assert named(judged(Folded("k3v9", 4, {**room, "comments": [1]}, False, 0)), FACTS, "'comments'")
    # With comments thinned, the two may differ there.
    assert judged(Folded("k3v9", 4, {**room, "comments": [1]}, False, 3)).violations == []
    assert named(judged(Folded("k3v9", 3, room, False, 0)), FACTS, "the folded view at 3")
    assert named(judged(Folded("k3v9", 4, room, True, 0)), ORDER, "saw a gap")


def test_the_run_under_test_is_what_it_says() -> None:
    assert [event["seq"] for event in EVENTS] == [1, 2, 3, 4]
    assert snapshot(4)["notice"]["text"].endswith(f"#{RUN}.999999999")


# --- neighbours -----------------------------------------------------------------------------------------------


def test_neighbours_who_see_only_their_own_raise_nothing(run: ARun) -> None:
    run.move_in()

    findings = run.judged()

    assert (findings.total, findings.neighbours_checked) == (0, 1)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (fact(3), "fact 3 (item.put)"),
        (comment(1, 5), f"something that {viewer(1)} said"),
        (OtherChatSeen("arrived", viewer(3)), f"something that {viewer(3)} said"),
        (joined(1, 1), f"the place of {viewer(1)}"),
        (StockSeen("x", 1, 0, 0), "a campaign"),
        (OrderSeen("o", viewer(1), 1), "a campaign"),
    ],
)
def test_anything_of_ours_next_door_is_a_leak(run: ARun, seen: Seen, words: str) -> None:
    run.move_in(seen)

    violation = named(run.judged(), TENANTS, words)

    assert violation.named == [f"{RUN}n-v1"]


def test_fact_that_is_nobodys_next_door_is_out_of_order(run: ARun) -> None:
    run.move_in(FactSeen(2, 12345, "notice"))

    named(run.judged(), ORDER, "not among the facts of its room")


def test_fact_of_next_door_here_is_a_leak_and_nothing_else(run: ARun) -> None:
    run.move_in()
    [theirs] = run.neighbour_events
    run.seen[2][2].append(FactSeen(1, digest(theirs), "notice"))

    findings = run.judged()

    assert named(findings, TENANTS, "fact 1 (notice) of another tenant's room").named == [viewer(2)]
    assert findings.total == 1


def test_comment_of_next_door_here_is_a_leak_and_nothing_else(run: ARun) -> None:
    run.move_in()
    run.seen[2][3].append(CommentSeen(1, 77, f"{RUN}n-v1", -1, 0))

    findings = run.judged()

    assert named(findings, TENANTS, "who is another tenant's").named == [viewer(2)]
    assert findings.total == 1


# --- answers --------------------------------------------------------------------------------------------------


def unanswered(run: ARun, *, asked_us: int, done_us: int) -> None:
    """Let the batch of step 9 be asked at one moment and given up at another."""
    run.outcomes[9] = Outcome(
        9, "like.send", "unanswered", 6000, asked_us, done_us, 0, 7, definite=False, asked_us=asked_us
    )


def test_command_never_answered_on_a_standing_connection_is_named(run: ARun) -> None:
    unanswered(run, asked_us=20_000, done_us=20_000 + ANSWERED_WITHIN_US + 1)

    assert named(run.judged(), WIRE, "step 9 (like.send) was not answered").named == [viewer(1)]


def test_command_asked_just_before_the_end_may_stay_open(run: ARun) -> None:
    unanswered(run, asked_us=20_000, done_us=20_000 + ANSWERED_WITHIN_US)

    assert run.judged().total == 0


def test_command_lost_with_its_connection_is_owed_nothing(run: ARun) -> None:
    # The join, and the return, are told at 10 ms.
    run.lost[1] = [1006]
    unanswered(run, asked_us=9_000, done_us=9_000 + 2 * ANSWERED_WITHIN_US)

    assert run.judged().total == 0


def test_command_asked_after_the_return_is_owed_an_answer(run: ARun) -> None:
    run.lost[1] = [1006]
    unanswered(run, asked_us=11_000, done_us=11_000 + 2 * ANSWERED_WITHIN_US)

    named(run.judged(), WIRE, "was not answered")


def test_command_that_never_left_is_owed_nothing(run: ARun) -> None:
    unanswered(run, asked_us=20_000, done_us=20_000 + 2 * ANSWERED_WITHIN_US)
    run.outcomes[9].tries = 0

    assert run.judged().total == 0


def test_slow_reader_may_not_have_come_to_the_answer(run: ARun) -> None:
    unanswered(run, asked_us=20_000, done_us=20_000 + 2 * ANSWERED_WITHIN_US)
    run.slow = {1}

    assert run.judged().total == 0


# --- what facts bring with them -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([("item.explaining", "a"), ("item.explaining", None), ("item.removed", "a")], 1),
        ([("item.explaining", "a"), ("item.explaining", None), ("item.removed", "b")], 0),
        ([("item.explaining", "a"), ("item.removed", "b"), ("item.explaining", None)], 0),
        ([("item.explaining", None), ("item.removed", "a")], 0),
    ],
)
def test_removing_what_is_explained_may_say_so_first(
    events: list[tuple[str, str | None]], ended: int
) -> None:
    """docs/protocol.md: `item.remove` of the item being explained says `item.explaining` null first."""
    assert _ended_by_removal([{"ev": name, "item": item} for name, item in events]) == ended
