"""Functions of `red_packets.lua`: money in shares that were split before, one share a viewer."""

import orjson
import pytest

from tests.support.campaign_room import MINUTE_MS, CampaignRoom, Claim, ok, said
from tests.support.stores import fresh_key

BIG = 2**53 - 1


def a_grab(viewer: str, key: str | None = None) -> Claim:
    return (viewer, 1, key or fresh_key(), "f1", 0, ",,")


def closed_facts(room: CampaignRoom) -> list[dict[str, object]]:
    return [fact for fact in room.facts() if fact["ev"] == "redpacket.closed"]


# --- packet_send ----------------------------------------------------------------------------------------------


def test_packet_is_answered_and_told_without_its_parts(fair: CampaignRoom) -> None:
    packet = ok(fair.send(parts=(30, 50, 20), least=10, eligible='{"level_min":1}'))

    assert packet | {"opens_at": 0, "expires_at": 0} == {
        "packet": "p", "total_cents": 100, "shares": 3, "split": "lucky", "min_cents": 10, "opens_at": 0,
        "expires_at": 0, "state": "open", "eligible": {"level_min": 1},
    }  # fmt: skip
    assert packet["expires_at"] - packet["opens_at"] == 600_000
    fact = fair.facts()[-1]
    assert fact["ev"] == "redpacket.opened"
    assert {name: fact[name] for name in packet} == packet
    assert fair.money() == {"total": 100, "granted": 0, "refunded": 0, "shares": 3, "grabbed": 0, "left": 100}


@pytest.mark.parametrize(("parts", "total", "shares", "least"), [
    ((30, 50), 81, 2, 1), ((30, 50), 79, 2, 1), ((30, 50), 80, 3, 1), ((30, 50), 80, 1, 1), ((30, 50), 80, 2, 31),
    ((0, 80), 80, 2, 1), ((), 80, 2, 1),
])  # fmt: skip
def test_parts_that_are_not_the_money_are_refused(
    fair: CampaignRoom, parts: tuple[int, ...], total: int, shares: int, least: int
) -> None:
    with fair.unchanged():
        assert said(fair.send(parts=parts, total=total, shares=shares, least=least))[0] == "bad_quantity"


def test_largest_packet_adds_up_exactly(fair: CampaignRoom) -> None:
    parts = (BIG // 2, BIG // 4, BIG - BIG // 2 - BIG // 4)
    ok(fair.send(parts=parts))

    for number, cents in enumerate(parts):
        assert fair.grab(f"v{number}") == ("ok", {"amount_cents": cents, "again": False})
    assert fair.money()["granted"] == BIG


def test_packet_of_ten_thousand_shares_is_taken_whole(fair: CampaignRoom) -> None:
    ok(fair.send(parts=(1,) * 10_000))

    assert fair.client.llen(fair.names.packet_parts("p")) == 10_000


def test_taken_packet_id_is_a_conflict_and_the_same_key_gets_its_answer(fair: CampaignRoom) -> None:
    key = fresh_key()
    first = fair.send(key=key)

    with fair.unchanged():
        assert said(fair.send())[0] == "conflict"
        assert fair.send(key=key) == first
        assert said(fair.send(key=key, fingerprint="f2"))[0] == "conflict"


def test_opening_in_the_past_means_now(fair: CampaignRoom) -> None:
    before = fair.now()

    packet = ok(fair.send(opens_in=-MINUTE_MS))

    assert before <= packet["opens_at"] <= fair.now()


# --- packet_grab ------------------------------------------------------------------------------------------------


def test_shares_are_handed_out_in_their_order_one_a_viewer(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50, 20))

    assert fair.grab("anna") == ("ok", {"amount_cents": 30, "again": False})
    assert fair.grab("bo") == ("ok", {"amount_cents": 50, "again": False})
    assert fair.money() == {"total": 100, "granted": 80, "refunded": 0, "shares": 3, "grabbed": 2, "left": 20}
    assert fair.grants() == [
        {"packet": "p", "viewer": "anna", "amount": "30"},
        {"packet": "p", "viewer": "bo", "amount": "50"},
    ]


def test_grab_is_told_to_the_viewer_and_shown_to_the_room(fair: CampaignRoom) -> None:
    fair.send()
    fair.wire.read()

    fair.grab("anna")

    told = dict(fair.wire.read())
    assert orjson.loads(told["p anna"]) == {"ev": "you.grab", "packet": "p", "amount_cents": 30}
    shown = orjson.loads(told["c 0"])
    assert (shown["ev"], shown["packet"], shown["amount_cents"]) == ("grabbed", "p", 30)
    assert shown["from"]["id"] == "anna"
    assert orjson.loads(told["g packet:p"]) == {"ev": "packet", "packet": "p", "left": 2, "grabbed": 1}


def test_at_most_three_grabs_of_a_batch_are_shown(fair: CampaignRoom) -> None:
    fair.send(parts=(1,) * 9)
    fair.wire.read()

    fair.grabs("p", *(a_grab(f"v{number}") for number in range(8)))

    (shown,) = [payload for header, payload in fair.wire.read() if header == "c 0"]
    assert len(shown.splitlines()) == 3


@pytest.mark.parametrize("after", ["open", "empty", "cancelled", "expired", "closing"])
def test_repeated_grab_gets_the_first_amount_whatever_became_of_the_packet(
    fair: CampaignRoom, after: str
) -> None:
    fair.send(parts=(30, 50))
    key = fresh_key()
    first = fair.grab("anna", key=key)
    if after == "empty":
        fair.grab("bo")
    elif after == "cancelled":
        fair.cancel_packet()
    elif after == "expired":
        fair.pass_time(10 * MINUTE_MS)
        fair.tick_packet()
    elif after == "closing":
        fair.set_meta(state="closing")

    with fair.unchanged():
        assert fair.grab("anna", key=key) == first
        assert fair.grab("anna") == ("ok", {"amount_cents": 30, "again": True})


def test_grabs_of_one_viewer_in_one_batch_get_one_share(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50))
    key = fresh_key()

    replies = fair.grabs("p", a_grab("anna", key), a_grab("anna", key), a_grab("anna"))

    assert [body for _, body in replies] == [
        {"amount_cents": 30, "again": False}, {"amount_cents": 30, "again": False}, {"amount_cents": 30, "again": True},
    ]  # fmt: skip
    assert fair.money()["grabbed"] == 1


def test_key_of_a_grab_with_another_packet_is_a_conflict(fair: CampaignRoom) -> None:
    fair.send("p")
    fair.send("p2")
    key = fresh_key()
    fair.grab("anna", "p", key=key)

    with fair.unchanged():
        assert fair.grab("anna", "p2", key=key, fingerprint="f2")[0] == "conflict"


def test_empty_ended_and_not_started_are_told_apart(fair: CampaignRoom) -> None:
    fair.send("empty", parts=(5,))
    fair.grab("anna", "empty")
    fair.send("cancelled")
    fair.cancel_packet("cancelled")
    fair.send("expired", expires_s=60)
    fair.pass_time(MINUTE_MS)
    packet = ok(fair.send("later", opens_in=5 * MINUTE_MS))

    with fair.unchanged():
        assert fair.grab("bo", "empty") == ("empty", {})
        assert fair.grab("bo", "cancelled") == ("ended", {})
        assert fair.grab("bo", "expired") == ("ended", {})
        assert fair.grab("bo", "ghost") == ("not_found", {})
        code, body = fair.grab("bo", "later")
    assert (code, body["starts_at"]) == ("not_started", packet["opens_at"])
    assert body["now"] < packet["opens_at"]


def test_batch_beyond_the_last_share_is_told_it_is_empty(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50))

    replies = fair.grabs("p", *(a_grab(f"v{number}") for number in range(4)))

    assert [code for code, _ in replies] == ["ok", "ok", "empty", "empty"]


def test_five_hundred_grabbers_of_a_hundred_shares(fair: CampaignRoom) -> None:
    fair.send(parts=tuple(range(1, 101)))

    replies = fair.grabs("p", *(a_grab(f"v{number}") for number in range(500)))

    won = [body["amount_cents"] for code, body in replies if code == "ok"]
    assert won == list(range(1, 101))
    assert fair.money() == {
        "total": 5_050, "granted": 5_050, "refunded": 0, "shares": 100, "grabbed": 100, "left": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("state", "code"), [
    ("scheduled", "room_not_live"), ("live", "ok"), ("paused", "ok"), ("closing", "ended"), ("closed", "ended"),
])  # fmt: skip
def test_room_decides_whether_anything_is_granted(fair: CampaignRoom, state: str, code: str) -> None:
    fair.send()
    fair.set_meta(state=state)

    assert fair.grab("anna")[0] == code


def test_banned_viewer_gets_nothing_new(fair: CampaignRoom) -> None:
    fair.send()
    fair.remove("anna", "ban")

    with fair.unchanged():
        assert fair.grab("anna") == ("forbidden", {})


@pytest.mark.parametrize(("gates", "level", "tags", "code"), [
    (("vip", "", "", "", ""), 0, ",vip,", "ok"),
    (("vip", "", "", "", ""), 0, ",new,", "not_eligible"),
    (("", 3, "", "", ""), 3, ",,", "ok"),
    (("", 3, "", "", ""), 2, ",,", "not_eligible"),
    (("", "", "", "1", ""), 0, ",,", "ok"),
    (("", "", 60, "", ""), 0, ",,", "not_eligible"),
    (("", "", "", "", 1), 0, ",,", "not_eligible"),
])  # fmt: skip
def test_gates_are_looked_at_when_somebody_grabs(
    fair: CampaignRoom, gates: tuple[object, ...], level: int, tags: str, code: str
) -> None:
    fair.send(gates=gates)

    assert fair.grab("anna", level=level, tags=tags)[0] == code


def test_gates_open_with_what_the_viewer_does(fair: CampaignRoom) -> None:
    fair.send(gates=("", "", 60, "", 1), expires_s=3_600)
    fair.come("anna")
    assert fair.grab("anna")[0] == "not_eligible"
    fair.come("bo", "anna")
    assert fair.grab("anna")[0] == "not_eligible"

    fair.pass_time(MINUTE_MS)

    assert fair.grab("anna")[0] == "ok"


def test_missing_room_or_packet_is_not_created(fair: CampaignRoom, no_fair: CampaignRoom) -> None:
    assert no_fair.grab("anna") == ("room_not_found", {})
    assert said(no_fair.send())[0] == "room_not_found"
    assert no_fair.tick_packet() == ["not_found"]
    assert no_fair.dump() == {}
    with fair.unchanged():
        assert fair.grab("anna", "ghost")[0] == "not_found"
        assert said(fair.cancel_packet("ghost"))[0] == "not_found"
        assert fair.tick_packet("ghost") == ["not_found"]


def test_packet_opens_to_the_millisecond_without_a_timer(fair: CampaignRoom) -> None:
    fair.send(parts=(1,) * 200, opens_in=MINUTE_MS)
    opens_at = fair.now() + 30
    fair.client.hset(fair.names.packet("p"), "opens_at", opens_at)

    codes = []
    for number in range(100_000):
        before = fair.now()
        code, body = fair.grab(f"v{number}")
        codes.append(code)
        if code == "ok":
            assert fair.now() >= opens_at
            break
        assert before < opens_at
        assert body["now"] < body["starts_at"] == opens_at
    assert codes[-1] == "ok"
    assert set(codes[:-1]) == {"not_started"}


# --- settling -----------------------------------------------------------------------------------------------------


def test_last_share_settles_the_packet_with_nothing_to_refund(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50))
    fair.grab("anna")
    fair.grab("bo")

    (fact,) = closed_facts(fair)
    assert (fact["granted_cents"], fact["refunded_cents"], fact["grabbed"], fact["state"]) == (
        80,
        0,
        2,
        "closed",
    )
    assert fact["best"] == {"viewer": "bo", "name": "bo!", "amount_cents": 50}
    with fair.unchanged():
        assert fair.tick_packet() == ["done"]


def test_best_luck_is_the_earliest_of_equals(fair: CampaignRoom) -> None:
    fair.send(parts=(10, 40, 40, 10))
    fair.grabs("p", a_grab("anna"), a_grab("bo"))
    fair.grabs("p", a_grab("cy"), a_grab("dee"))

    assert closed_facts(fair)[0]["best"] == {"viewer": "bo", "name": "bo!", "amount_cents": 40}


def test_expired_packet_refunds_the_remainder_once(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50, 20), expires_s=60)
    fair.grab("anna")
    with fair.unchanged():
        code, wait = fair.tick_packet()
    assert (code, 0 < int(wait) <= 60_000) == ("again", True)

    fair.pass_time(MINUTE_MS)
    assert fair.tick_packet() == ["done"]

    (fact,) = closed_facts(fair)
    assert (fact["granted_cents"], fact["refunded_cents"], fact["grabbed"]) == (30, 70, 1)
    assert fair.money() == {"total": 100, "granted": 30, "refunded": 70, "shares": 3, "grabbed": 1, "left": 0}
    with fair.unchanged():
        fair.tick_packet()
    assert fair.grants()[-1] == {"packet": "p", "refund": "70"}
    with fair.unchanged():
        assert fair.grab("bo")[0] == "ended"


def test_expired_packet_that_nobody_grabbed_names_no_best(fair: CampaignRoom) -> None:
    fair.send(expires_s=60)
    fair.pass_time(MINUTE_MS)
    fair.tick_packet()

    assert "best" not in closed_facts(fair)[0]


def test_expired_packet_reads_as_closed_before_any_timer_looks(fair: CampaignRoom) -> None:
    fair.send(expires_s=60)
    fair.pass_time(MINUTE_MS)

    assert orjson.loads(fair.read_room()[7][0])["state"] == "closed"


def test_cancelled_packet_refunds_once_and_granted_shares_stand(fair: CampaignRoom) -> None:
    fair.send(parts=(30, 50, 20))
    fair.grab("anna")
    key = fresh_key()

    first = fair.cancel_packet(key=key)

    assert ok(first)["state"] == "closed"
    with fair.unchanged():
        assert fair.cancel_packet(key=key) == first
    ok(fair.cancel_packet())
    fair.pass_time(10 * MINUTE_MS)
    fair.tick_packet()
    assert len(closed_facts(fair)) == 1
    assert [entry for entry in fair.grants() if "refund" in entry] == [{"packet": "p", "refund": "70"}]


def test_scheduled_packet_can_be_cancelled(fair: CampaignRoom) -> None:
    fair.send(opens_in=5 * MINUTE_MS)

    ok(fair.cancel_packet())

    assert fair.money()["refunded"] == 100
    fair.pass_time(5 * MINUTE_MS)
    assert fair.grab("anna")[0] == "ended"


def test_closing_room_refunds_its_packets_and_closes(fair: CampaignRoom) -> None:
    fair.send("p")
    fair.send("p2", opens_in=5 * MINUTE_MS)
    fair.grab("anna", "p")
    fair.set_meta(state="closing")

    assert fair.settle_all([], ["p", "p2"]) == ["closed"]
    assert fair.money("p")["refunded"] == 70
    assert fair.money("p2")["refunded"] == 100
    assert fair.settle_all([], ["p", "p2"]) == ["not_closing"]
    assert len(closed_facts(fair)) == 2


def test_room_is_not_closed_while_a_packet_is_open(fair: CampaignRoom) -> None:
    fair.send("p")
    fair.set_meta(state="closing")
    keys = [*fair.base, fair.names.sales, fair.names.packets, fair.names.packet("p")]

    assert fair.call("room_settle", keys, [fair.vouched, 0, "p"]) == ["open"]


def test_grabs_are_told_to_a_viewer_who_joins_again(fair: CampaignRoom) -> None:
    fair.come("anna")
    for packet in ("p-1.x", "p2"):
        fair.send(packet)
        fair.grab("anna", packet)

    assert orjson.loads(fair.come("anna")[3]) == {"p-1.x": 30, "p2": 30}
    assert orjson.loads(fair.come("bo")[3]) == {}
