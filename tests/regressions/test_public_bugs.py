"""
Bugs of other people's published campaigns, one named test each (some need two).

They are not ours; they are what everybody who writes a seckill or a red packet gets wrong first. Each docstring says
what the bug was, each test does what triggered it.
"""

import random
import re
import threading
from collections.abc import Iterator
from importlib import resources
from typing import Any

import orjson
import pytest
import redis

from engine.errors import CommandRejected
from engine.rooms.red_packets import check, split_even, split_lucky
from protocol.codes import ErrorCode
from protocol.commands import parse
from protocol.errors import BadCommand
from tests.support.campaign_room import MINUTE_MS, CampaignRoom, ok, said
from tests.support.stores import fresh_key

BIG = 2**53 - 1


@pytest.fixture
def fair(client: "redis.Redis[str]") -> Iterator[CampaignRoom]:
    """A live room for campaigns."""
    room = CampaignRoom(client, state="live")
    yield room
    room.wire.close()


# --- seckill ----------------------------------------------------------------------------------------------------


def test_bug_01_zero_is_truthy_in_lua_so_every_buyer_was_a_duplicate(fair: CampaignRoom) -> None:
    """`if redis.call('sismember', k, u) then`: 0 is true in Lua."""
    fair.sell(stock=3)

    for viewer in ("anna", "bo", "cy"):
        code, body = fair.claim(viewer)
        assert (code, body.get("again")) == ("ok", None)


def test_bug_02_sold_out_tested_as_below_zero_sold_one_too_many(fair: CampaignRoom) -> None:
    """`tonumber(GET) < 0` as the test for sold out."""
    fair.sell(stock=3)

    codes = [fair.claim(f"v{number}")[0] for number in range(5)]

    assert codes == ["ok", "ok", "ok", "sold_out", "sold_out"]
    assert fair.units() == {"stock": 3, "left": 0, "held": 3, "sold": 0}


def test_bug_03_set_command_on_the_stock_key_failed_with_wrongtype(fair: CampaignRoom) -> None:
    """`sismember` on the key of the stock: every key must be of the kind its commands expect, on every path."""
    fair.sell(stock=2, per_viewer=2)
    order = fair.hold("anna")
    fair.hold("anna")
    fair.claim("bo")
    fair.pay(order, "pay-1", 4_900)
    fair.refund(order, "pay-1")

    names = fair.names
    kinds = {
        key: fair.client.type(key) for key in (names.sale("s"), names.sale_buyers("s"), names.sale_holds("s"))
    }
    assert list(kinds.values()) == ["hash", "hash", "zset"]


def test_bug_04_missing_stock_was_a_script_error_or_ghost_stock(fair: CampaignRoom) -> None:
    """`tonumber(nil)` compared when the key is missing; a restore that `SET`s a missing key."""
    fair.sell()
    order, late = fair.hold("anna"), fair.hold("bo")
    fair.cancel("bo", late)
    fair.client.delete(fair.names.sale("s"))

    with fair.unchanged():
        assert fair.claim("cy")[0] == "not_found"
        assert fair.cancel("anna", order)[0] == "not_found"
        assert fair.pay(late, "pay-1", 4_900)[0] == "not_found"
        assert fair.refund(order, "pay-1")[0] == "not_found"
        assert fair.tick("s") == ["not_found"]
        assert said(fair.adjust("s", 5))[0] == "not_found"
    assert not fair.client.exists(fair.names.sale("s"))


def test_bug_05_keys_built_inside_the_script_broke_on_a_cluster() -> None:
    """Every key a function touches is one it was given: never text, never joined from parts."""
    folder = resources.files("engine.store") / "lua"
    calls = 0
    for entry in folder.iterdir():
        if not entry.name.endswith(".lua"):
            continue
        text = entry.read_text("utf-8")
        assert "lr:" not in text
        for command, key in re.findall(r"\brc\('([A-Z]+)', ([^,)]+)", text):
            if command == "INFO":
                continue
            calls += 1
            assert ".." not in key, (entry.name, command, key)
            assert "'" not in key, (entry.name, command, key)
    assert calls > 150


def test_bug_06_last_unit_was_consumed_and_reported_as_failed(fair: CampaignRoom) -> None:
    """`return DECRBY … else 0`, tested `> 0`."""
    fair.sell(stock=1)

    code, body = fair.claim("anna")

    assert (code, body["stock_left"], body["status"]) == ("ok", 0, "held")
    assert fair.units()["held"] == 1


@pytest.mark.parametrize("qty", [-5, -1, 0, BIG + 1, 1.5, 1.0, "1", "１", True, None, [], {}])
def test_bug_07_negative_quantity_added_stock(qty: Any) -> None:
    """No check that the quantity is above 0: nothing but a whole number from 1 gets as far as the store."""
    with pytest.raises(BadCommand) as refused:
        parse({"cmd": "seckill.claim", "id": 1, "key": "key-00001", "sale": "s", "qty": qty})

    assert refused.value.code is ErrorCode.BAD_QUANTITY


def test_bug_08_stock_read_and_lowered_in_two_steps_was_sold_twice(fair: CampaignRoom, server: str) -> None:
    """GET … DECR apart; stock that is locked for orders and never compared."""
    fair.sell(stock=20)
    codes: list[str] = []

    def shop(number: int) -> None:
        room = CampaignRoom.__new__(CampaignRoom)
        room.__dict__.update(fair.__dict__)
        room.client = redis.Redis.from_url(server, protocol=2, decode_responses=True)
        codes.extend(room.claim(f"v{number}-{viewer}")[0] for viewer in range(25))
        room.client.close()

    threads = [threading.Thread(target=shop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == ["ok"] * 20 + ["sold_out"] * 80
    assert fair.units() == {"stock": 20, "left": 0, "held": 20, "sold": 0}


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_bug_09_buyer_stayed_locked_out_after_the_stock_was_restored(fair: CampaignRoom, how: str) -> None:
    """The buyer was remembered at the click, and no inverse script forgot them."""
    fair.sell(stock=1)
    order = fair.hold("anna")
    if how == "cancel":
        fair.cancel("anna", order)
    else:
        fair.pass_time(5 * MINUTE_MS)
        fair.tick("s")

    assert fair.units()["left"] == 1
    code, body = fair.claim("anna")
    assert (code, body.get("again")) == ("ok", None)


# --- red packets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "shares", "least"), [(10, 10, 1), (11, 10, 1), (20, 10, 1), (100, 3, 33), (2, 2, 1)]
)
def test_bug_10_shares_of_nothing(total: int, shares: int, least: int) -> None:
    """`nextInt(2 * money / people)` and a cut at 0 make shares of 0; more people than cents was an endless loop."""
    for seed in range(200):
        parts = split_lucky(total, shares, least, random.Random(seed))
        assert (sum(parts), len(parts), min(parts) >= least) == (total, shares, True)
    with pytest.raises(CommandRejected) as refused:
        check(shares * least - 1, shares, least)
    assert refused.value.code is ErrorCode.BAD_QUANTITY


@pytest.mark.parametrize("least", [1, 100])
def test_bug_11_packet_of_exactly_the_minimum_had_no_shares(least: int) -> None:
    """`make([]int64, 0, n); for i := range` never runs when the money is n times the minimum."""
    assert split_lucky(50 * least, 50, least, random.Random(1)) == [least] * 50
    assert split_even(50 * least, 50) == [least] * 50


def test_bug_12_floats_for_money(fair: CampaignRoom) -> None:
    """Sums at the edge of what a float holds stay exact, from the split to the last share."""
    for total in (BIG, BIG - 1, 10_000_000_000_000_01):
        for parts in (split_lucky(total, 7, 1, random.Random(7)), split_even(total, 7)):
            assert {type(part) for part in parts} == {int}
            assert sum(parts) == total
    parts = split_even(BIG, 7)
    ok(fair.send(parts=tuple(parts)))
    assert [fair.grab(f"v{number}")[1]["amount_cents"] for number in range(7)] == parts
    assert fair.money()["granted"] == BIG


def test_bug_13_one_viewer_drained_the_packet_and_the_rest_vanished(fair: CampaignRoom, server: str) -> None:
    """No check per viewer; a part popped whose grant was lost; a list that expired; a guard in two steps."""
    for _ in range(2):
        fair.send(parts=(10, 20, 30), expires_s=60)
    assert [fact["ev"] for fact in fair.facts()] == ["redpacket.opened"]
    # One viewer gets one share, however often they ask.
    assert {fair.grab("anna")[1]["amount_cents"] for _ in range(5)} == {10}
    # What left the list stands in the grants: both are written by one call.
    assert fair.grants() == [{"packet": "p", "viewer": "anna", "amount": "10"}]
    # No key of the packet forgets the money by itself.
    names = fair.names
    assert [
        fair.client.ttl(key) for key in (names.packet("p"), names.packet_parts("p"), names.packet_grabs("p"))
    ] == [-1] * 3
    fair.pass_time(MINUTE_MS)
    fair.tick_packet()
    assert fair.grants()[-1] == {"packet": "p", "refund": "50"}
    assert fair.money() == {"total": 60, "granted": 10, "refunded": 50, "shares": 3, "grabbed": 1, "left": 0}
    # Less money than people is a refusal, not an exception.
    with pytest.raises(CommandRejected):
        check(9, 10, 1)


def test_bug_14_already_and_empty_were_the_same_answer(fair: CampaignRoom) -> None:
    """nil for both, so a retry could not learn what it had won."""
    fair.send(parts=(10,))
    first = fair.grab("anna")

    assert fair.grab("anna") == ("ok", {**first[1], "again": True})
    assert fair.grab("bo") == ("empty", {})


def test_bug_15_failed_tries_burned_the_quota(fair: CampaignRoom) -> None:
    """The count of tries was raised before anything was won."""
    fair.sell(stock=1, starts_in=MINUTE_MS, gates=("vip", "", "", "", ""))
    fair.send(parts=(10,), opens_in=MINUTE_MS, gates=("vip", "", "", "", ""))
    for _ in range(3):
        assert fair.claim("anna", tags=",vip,")[0] == fair.grab("anna", tags=",vip,")[0] == "not_started"
    fair.pass_time(MINUTE_MS)
    for _ in range(3):
        assert fair.claim("anna")[0] == fair.grab("anna")[0] == "not_eligible"
    taken = fair.hold("bo", tags=",vip,")
    for _ in range(3):
        assert fair.claim("anna", tags=",vip,")[0] == "sold_out"
    fair.cancel("bo", taken)

    assert fair.claim("anna", tags=",vip,")[0] == "ok"
    assert fair.grab("anna", tags=",vip,") == ("ok", {"amount_cents": 10, "again": False})


# --- rank -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 511, 512, 5_000])
def test_bug_16_ties_by_name_and_milliseconds_lost_in_fractions(fair: CampaignRoom, count: int) -> None:
    """Equal scores ordered by name; `count + (1 - ms / 10^13)` loses milliseconds from 512 on."""
    inviters = ["zed", "mia", "amy"]
    for at, inviter in enumerate(inviters):
        fair.come(inviter)
        fair.client.hset(fair.names.invited, inviter, count - 1)
        fair.client.hincrby(fair.names.meta, "created", -1)
        fair.come(f"guest-{at}", inviter)

    top, _, _ = fair.rank()
    assert [line["viewer"] for line in top] == inviters
    assert [line["count"] for line in top] == [count] * 3


def test_bug_16_clicks_on_share_were_counted(fair: CampaignRoom) -> None:
    """Only people who came count: the same one twice, oneself and those who were here are none."""
    fair.come("ivy")
    fair.come("bo")
    for viewer in ("anna", "anna", "anna", "ivy", "bo"):
        fair.come(viewer, "ivy")

    assert fair.rank("ivy")[1:] == (1, 1)


# --- delivery -------------------------------------------------------------------------------------------------------


def test_bug_17_state_was_known_only_to_those_who_heard_the_broadcast(fair: CampaignRoom) -> None:
    """The packet was announced to whoever was online at that moment, and to nobody after it."""
    fair.send(parts=(10, 20))
    fair.sell(stock=2)
    fair.hold("anna")
    fair.wire.read()

    _, _, _, _, _, _, sales, packets, _ = fair.read_room()
    assert orjson.loads(packets[0])["state"] == "open"
    assert (orjson.loads(sales[0])["state"], sales[3], sales[4]) == ("open", "1", "1")
    assert fair.grab("late") == ("ok", {"amount_cents": 10, "again": False})


def test_bug_17_cumulative_counts_were_added_up_again(fair: CampaignRoom) -> None:
    """A repeated batch of a count is the same batch."""
    assert fair.like(12, flush=1) == ["ok", "12"]
    assert fair.like(12, flush=1) == ["ok", "12"]
    assert fair.like(3, flush=2) == ["ok", "15"]


def test_every_bug_of_the_list_has_a_test() -> None:
    numbers = {int(name[9:11]) for name in globals() if name.startswith("test_bug_")}
    assert numbers == set(range(1, 18))


def test_a_key_is_as_good_as_any(fair: CampaignRoom) -> None:
    """Keys hold `-` and `_`, which patterns of Lua would misread."""
    fair.sell(stock=3)
    key = f"a-%_.{fresh_key()}"[:64].replace("%", "-").replace(".", "_")
    first = fair.claim("anna", key=key)
    assert fair.claim("anna", key=key) == first
