"""Functions of `shares.lua`: who brought whom, and the board."""

import orjson
import pytest

from tests.support.campaign_room import MINUTE_MS, CampaignRoom, Map

SCALE = 2**32


def board(room: CampaignRoom) -> list[tuple[str, int]]:
    return [(line["viewer"], line["count"]) for line in room.rank()[0]]


def reasons(room: CampaignRoom) -> list[str | None]:
    return [record.get("reason") for record in room.records()]


def rank_gauges(room: CampaignRoom) -> list[Map]:
    return [orjson.loads(payload) for header, payload in room.wire.read() if header == "g rank"]


def stand_at(room: CampaignRoom, inviter: str, count: int, since_ms: int) -> None:
    """Let an inviter have reached a count so long after the room was made."""
    created = int(room.meta("created") or 0)
    room.client.zadd(room.names.board, {inviter: count * SCALE + SCALE - 1 - since_ms})
    room.client.hset(room.names.invited, inviter, count)
    room.client.hset(room.names.reached, f"{inviter}|{count}", created + since_ms)


# --- what counts --------------------------------------------------------------------------------------------------


def test_arrival_through_a_link_counts_for_its_inviter(fair: CampaignRoom) -> None:
    fair.come("ivy")

    reply = fair.come("anna", "ivy", channel="wechat_group")

    assert reply[4:] == [0, 0]
    assert board(fair) == [("ivy", 1)]
    assert fair.rank("ivy")[1:] == (1, 1)
    assert fair.records() == [
        {"inviter": "ivy", "invitee": "anna", "counted": True, "channel": "wechat_group"}
    ]
    assert fair.come("ivy")[4:] == [1, 1]
    assert fair.meta("shares") == "1"


def test_arrival_is_shown_with_the_name_of_who_brought_it(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.wire.read()
    fair.come("anna", "ivy")

    (shown,) = [orjson.loads(payload) for header, payload in fair.wire.read() if header == "c 0"]
    assert (shown["ev"], shown["via"]) == ("arrived", "ivy!")


def test_link_to_oneself_does_not_count(fair: CampaignRoom) -> None:
    fair.come("ivy", "ivy")

    assert board(fair) == []
    assert fair.records() == [{"inviter": "ivy", "invitee": "ivy", "counted": False, "reason": "self"}]


def test_viewer_counts_once_however_often_they_come(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.come("anna", "ivy")
    fair.come("anna", "ivy")
    fair.come("anna", "ivy", connection=2)

    assert board(fair) == [("ivy", 1)]
    assert reasons(fair) == [None, "again", "again"]


def test_first_touch_is_never_bound_anew(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.come("mal")
    fair.come("anna", "ivy")
    fair.come("anna", "mal")

    assert board(fair) == [("ivy", 1)]
    assert fair.client.hgetall(fair.names.inviters) == {"anna": "ivy"}
    assert reasons(fair) == [None, "again"]


def test_viewer_who_came_by_themselves_is_not_bound_later(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.come("anna")
    fair.come("anna", "ivy")

    assert board(fair) == []
    assert reasons(fair) == ["already_here"]
    assert fair.client.hgetall(fair.names.inviters) == {}


@pytest.mark.parametrize("length", [1, 2, 5, 15])
def test_cycle_does_not_count_however_long_the_chain(fair: CampaignRoom, length: int) -> None:
    """x is brought by the last of those whom x brought."""
    chain = [f"c{number}" for number in range(length)]
    for invitee, inviter in zip(chain, ["x", *chain], strict=False):
        fair.come(invitee, inviter)

    fair.come("x", chain[-1])

    assert reasons(fair) == [None] * length + ["cycle"]
    assert "x" not in fair.client.hgetall(fair.names.inviters)
    assert fair.client.hget(fair.names.invited, chain[-1]) is None


@pytest.mark.parametrize("flaw", ["forged", "expired"])
def test_flawed_link_is_recorded_and_lets_the_viewer_in(fair: CampaignRoom, flaw: str) -> None:
    fair.come("ivy")
    inviter = None if flaw == "forged" else "ivy"

    assert fair.come("anna", inviter, flaw=flaw)[0] == "ok"

    assert board(fair) == []
    assert fair.records() == [{"inviter": inviter, "invitee": "anna", "counted": False, "reason": flaw}]
    fair.come("anna", "ivy")
    assert reasons(fair)[-1] == "already_here"


def test_banned_inviter_brings_nobody(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.remove("ivy", "ban")

    fair.come("anna", "ivy")

    assert reasons(fair) == ["banned"]
    assert board(fair) == []


def test_join_without_a_link_leaves_no_record(fair: CampaignRoom) -> None:
    fair.come("anna")

    assert fair.records() == []


# --- dwell ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_fair(fair: CampaignRoom) -> CampaignRoom:
    """A room in which an arrival counts after a minute."""
    fair.set_meta(dwell_ms=MINUTE_MS)
    fair.come("ivy")
    return fair


def test_arrival_is_pending_until_the_viewer_was_here_long_enough(slow_fair: CampaignRoom) -> None:
    slow_fair.come("anna", "ivy", channel="group")
    assert (slow_fair.mature(), board(slow_fair)) == (0, [])

    slow_fair.pass_time(MINUTE_MS)

    assert slow_fair.mature() == 1
    with slow_fair.unchanged():
        assert slow_fair.mature() == 0
    assert board(slow_fair) == [("ivy", 1)]
    assert slow_fair.records() == [
        {"inviter": "ivy", "invitee": "anna", "counted": False, "channel": "group", "reason": "dwell"},
        {"inviter": "ivy", "invitee": "anna", "counted": True, "channel": "group"},
    ]


def test_viewer_who_left_too_early_counts_once_they_stayed(slow_fair: CampaignRoom) -> None:
    slow_fair.come("anna", "ivy", channel="group")
    slow_fair.leave("w", ("anna", 1))
    slow_fair.pass_time(MINUTE_MS)
    assert slow_fair.mature() == 0
    assert slow_fair.mature() == 0

    slow_fair.come("anna")
    assert slow_fair.mature() == 0
    slow_fair.pass_time(MINUTE_MS)
    assert slow_fair.mature() == 1

    assert slow_fair.records()[-1] == {
        "inviter": "ivy",
        "invitee": "anna",
        "counted": True,
        "channel": "group",
    }
    slow_fair.come("anna")
    slow_fair.pass_time(MINUTE_MS)
    assert slow_fair.mature() == 0


def test_inviter_is_bound_while_the_arrival_is_pending(slow_fair: CampaignRoom) -> None:
    slow_fair.sell()
    slow_fair.come("anna", "ivy")

    assert slow_fair.order(slow_fair.hold("anna"))["inviter"] == "ivy"
    slow_fair.come("mal")
    slow_fair.come("anna", "mal")
    assert reasons(slow_fair) == ["dwell", "again"]


def test_pending_arrival_of_a_banned_viewer_never_counts(slow_fair: CampaignRoom) -> None:
    slow_fair.come("bo", "ivy")
    slow_fair.pass_time(MINUTE_MS)
    slow_fair.mature()
    slow_fair.come("anna", "ivy")
    slow_fair.remove("anna", "ban")
    slow_fair.leave("w", ("anna", 1))

    # Nor does it take away what others count.
    assert board(slow_fair) == [("ivy", 1)]
    slow_fair.pass_time(MINUTE_MS)
    assert slow_fair.mature() == 0


def test_pending_arrival_does_not_put_a_banned_inviter_on_the_board(slow_fair: CampaignRoom) -> None:
    slow_fair.come("anna", "ivy")
    slow_fair.remove("ivy", "ban")
    slow_fair.pass_time(MINUTE_MS)

    slow_fair.mature()

    assert board(slow_fair) == []


# --- bans -----------------------------------------------------------------------------------------------------------


def test_banned_viewer_no_longer_counts_and_stands_nowhere(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.come("anna", "ivy")
    fair.come("bo", "anna")
    assert board(fair) == [("ivy", 1), ("anna", 1)]
    fair.wire.read()

    fair.remove("anna", "ban")

    assert board(fair) == []
    assert rank_gauges(fair)[-1]["top"] == []
    assert fair.records()[-1] == {"inviter": "ivy", "invitee": "anna", "counted": False, "reason": "banned"}
    assert fair.meta("shares") == "1"
    with_repeat = len(fair.records())
    fair.remove("anna", "ban")
    assert len(fair.records()) == with_repeat


def test_ban_of_an_invitee_does_not_bring_a_banned_inviter_back(fair: CampaignRoom) -> None:
    fair.come("ivy")
    for invitee in ("anna", "bo"):
        fair.come(invitee, "ivy")
    fair.remove("ivy", "ban")

    fair.remove("anna", "ban")

    assert board(fair) == []


def test_unbanned_inviter_stands_where_they_stood(fair: CampaignRoom) -> None:
    stand_at(fair, "anna", 2, 100)
    stand_at(fair, "ben", 2, 200)
    fair.remove("anna", "ban")
    assert board(fair) == [("ben", 2)]

    fair.unban("anna")

    assert board(fair) == [("anna", 2), ("ben", 2)]


def test_count_that_shrinks_stands_where_the_smaller_one_was_reached(fair: CampaignRoom) -> None:
    for inviter in ("ivy", "jo"):
        fair.come(inviter)
    fair.come("anna", "ivy")
    reached = fair.client.hget(fair.names.reached, "ivy|1")
    fair.come("bo", "jo")
    fair.come("cy", "ivy")
    fair.client.hset(fair.names.reached, "jo|1", int(reached or 0) + 5)
    stand_at(fair, "jo", 1, int(reached or 0) + 5 - int(fair.meta("created") or 0))

    fair.remove("cy", "ban")

    assert board(fair) == [("ivy", 1), ("jo", 1)]
    assert fair.rank("ivy")[1:] == (1, 1)


# --- the board ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 511, 512, 5_000, 2**21 - 2])
def test_ties_of_adjacent_milliseconds_are_told_apart_at_any_count(fair: CampaignRoom, count: int) -> None:
    """Who reached a count first stands first; no digit is lost at 512, where fractions of a score lose milliseconds."""
    order = [f"v{number:02}" for number in range(9, -1, -1)]
    for place, inviter in enumerate(order):
        stand_at(fair, inviter, count, 3_600_000 + place)

    assert board(fair) == [(inviter, count) for inviter in order]


@pytest.mark.parametrize("count", [511, 512, 5_000])
def test_score_after_an_arrival_holds_count_and_moment_exactly(fair: CampaignRoom, count: int) -> None:
    fair.come("ivy")
    stand_at(fair, "ivy", count, 10)

    fair.come("anna", "ivy")

    score = fair.client.zscore(fair.names.board, "ivy")
    reached = int(fair.client.hget(fair.names.reached, f"ivy|{count + 1}") or 0)
    assert score == (count + 1) * SCALE + SCALE - 1 - (reached - int(fair.meta("created") or 0))


def test_whoever_reaches_the_count_first_stands_first(fair: CampaignRoom) -> None:
    for inviter in ("zed", "amy"):
        fair.come(inviter)
    fair.come("a", "zed")
    fair.client.hincrby(fair.names.meta, "created", -10)
    fair.come("b", "amy")

    assert board(fair) == [("zed", 1), ("amy", 1)]


def test_room_hears_of_the_head_only_when_it_changes(fair: CampaignRoom) -> None:
    fair.client.hincrby(fair.names.meta, "created", -MINUTE_MS)
    for number in range(10):
        stand_at(fair, f"top{number}", 100, number)
    for inviter in ("ivy", "jo"):
        fair.come(inviter)
    fair.wire.read()

    fair.come("anna", "ivy")
    assert rank_gauges(fair) == []
    stand_at(fair, "ivy", 99, 50)
    fair.come("bo", "ivy")
    assert rank_gauges(fair) == []
    fair.come("cy", "ivy")
    (gauge,) = rank_gauges(fair)
    assert gauge["top"][0] == {"viewer": "ivy", "name": "ivy!", "count": 101}
    assert len(gauge["top"]) == 10
    fair.come("dee", "jo")
    fair.come("eve", "ivy", flaw="expired")
    assert rank_gauges(fair) == []


def test_viewer_outside_the_head_knows_their_place(fair: CampaignRoom) -> None:
    for number in range(12):
        stand_at(fair, f"top{number}", 100, number)
    fair.come("ivy")
    fair.come("anna", "ivy")

    top, rank, count = fair.rank("ivy")
    assert (len(top), rank, count) == (10, 13, 1)
    assert fair.rank("nobody")[1:] == (0, 0)


@pytest.mark.parametrize("state", ["closing", "closed"])
def test_board_is_frozen_when_the_room_is_over(fair: CampaignRoom, state: str) -> None:
    fair.set_meta(dwell_ms=MINUTE_MS)
    for viewer in ("ivy", "jo"):
        fair.come(viewer)
    fair.come("anna", "ivy")
    fair.set_meta(state=state, dwell_ms=0)
    fair.pass_time(MINUTE_MS)
    fair.wire.read()

    fair.come("bo", "ivy")
    assert fair.mature() == 0

    assert board(fair) == []
    assert reasons(fair) == ["dwell"]
    assert rank_gauges(fair) == []


# --- records --------------------------------------------------------------------------------------------------------


def test_records_are_pulled_from_a_cursor(fair: CampaignRoom, no_fair: CampaignRoom) -> None:
    fair.come("ivy")
    for number in range(5):
        fair.come(f"v{number}", "ivy")
    keys = [fair.names.meta, fair.names.shares]

    page = fair.call("shares_page", keys, [2, 2])

    assert (page[0], page[1::2]) == ("5", ["3", "4"])
    assert fair.call("shares_page", keys, [5, 2]) == ["5"]
    assert no_fair.call("shares_page", [no_fair.names.meta, no_fair.names.shares], [0, 2]) == []


def test_numbers_of_records_are_not_given_again_on_another_line_of_history(fair: CampaignRoom) -> None:
    fair.come("ivy")
    fair.come("anna", "ivy")
    fair.restart()

    fair.come("bo", "ivy")

    numbers = fair.call("shares_page", [fair.names.meta, fair.names.shares], [0, 10])[1::2]
    assert numbers[0] == "1"
    assert int(numbers[1]) > 1_000_000
