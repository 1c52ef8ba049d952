"""Snapshots from what the store keeps, and the newest facts in memory."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rooms.recovery import (
    RING_BYTES_MAX,
    RING_FACTS_MAX,
    FactRing,
    decode,
    fits_resume,
    read_view,
)
from protocol.limits import FACTS_KEPT_MIN, RESUME_BYTES_MAX

META = {b"body": '"title":"茶","cover":"https://a.example/1"'.encode(), b"state": b"live"}


def a_fact(seq: int, size: int = 0) -> bytes:
    return b'{"ev":"notice","seq":%d,"text":"%s"}' % (seq, b"x" * size)


def filled(first: int, last: int) -> FactRing:
    ring = FactRing()
    ring.reset([(seq, a_fact(seq)) for seq in range(first, last + 1)], last)
    return ring


def seqs(facts: list[bytes] | None) -> list[int] | None:
    return None if facts is None else [decode(fact)["seq"] for fact in facts]


# --- read_view ------------------------------------------------------------------------------------------------


def test_new_room_is_bare() -> None:
    assert read_view("r_1", META, [], [], []) == {
        "room": "r_1", "title": "茶", "cover": "https://a.example/1", "state": "live", "notice": None, "items": [],
        "explaining": None, "sales": [], "packets": [], "pinned": None, "comments": [], "muted_all": False,
    }  # fmt: skip


def test_everything_the_room_keeps_is_in_the_snapshot() -> None:
    meta = {
        **META,
        b"notice": b'{"text":"hi","version":2}',
        b"explaining": b"tea-1.x",
        b"pinned_json": b'{"comment":3,"text":"hi"}',
        b"muted_all": b"1",
    }

    view = read_view("r_1", meta, [b'{"item":"b"}', b'{"item":"a"}'], [], [])

    assert view["notice"] == {"text": "hi", "version": 2}
    assert view["explaining"] == "tea-1.x"
    assert view["pinned"] == {"comment": 3, "text": "hi"}
    assert view["muted_all"] is True
    assert [item["item"] for item in view["items"]] == ["b", "a"], "the store gives the order"


def test_cleared_notice_and_ended_mute_all_are_nothing() -> None:
    view = read_view("r_1", {**META, b"notice": b"", b"muted_all": b"0"}, [], [], [])

    assert view["notice"] is None
    assert view["muted_all"] is False


# --- FactRing -------------------------------------------------------------------------------------------------


def test_empty_ring_has_missed_nothing_after_its_place() -> None:
    ring = FactRing()
    ring.reset([], 41)

    assert ring.first == 42
    assert ring.since(41) == []
    assert ring.since(40) is None


def test_facts_after_a_place_are_given_in_order() -> None:
    ring = filled(5, 9)

    assert ring.first == 5
    assert seqs(ring.since(6)) == [7, 8, 9]
    assert seqs(ring.since(4)) == [5, 6, 7, 8, 9]
    assert ring.since(9) == []


def test_place_before_the_oldest_fact_asks_the_log() -> None:
    assert filled(5, 9).since(3) is None


def test_appended_fact_is_the_next() -> None:
    ring = filled(5, 9)
    ring.append(a_fact(10))

    assert seqs(ring.since(8)) == [9, 10]


def test_ring_begun_anew_forgets_the_old_facts() -> None:
    ring = filled(5, 9)
    ring.reset([(1, a_fact(1))], 1)

    assert seqs(ring.since(0)) == [1]
    assert ring.first == 1


def test_ring_holds_twice_what_a_resume_is_promised() -> None:
    ring = filled(1, RING_FACTS_MAX + 10)

    assert ring.first == 11
    assert len(ring.since(10) or []) == RING_FACTS_MAX == 2 * FACTS_KEPT_MIN
    assert ring.since(9) is None


def test_ring_is_bounded_in_bytes() -> None:
    ring = FactRing()
    for seq in range(1, 40):
        ring.append(a_fact(seq, size=RING_BYTES_MAX // 10))

    kept = ring.since(ring.first - 1)
    assert kept is not None
    assert sum(map(len, kept)) <= RING_BYTES_MAX
    assert seqs(kept) == list(range(ring.first, 40))


def test_fact_larger_than_the_ring_is_not_held() -> None:
    ring = filled(1, 3)
    ring.append(a_fact(4, size=RING_BYTES_MAX))
    ring.append(a_fact(5))

    assert ring.first == 5
    assert seqs(ring.since(4)) == [5]
    assert ring.since(3) is None


@given(
    first=st.integers(1, 50),
    held=st.integers(0, 30),
    appended=st.integers(0, 30),
    asked=st.integers(0, 120),
)
def test_ring_answers_exactly_the_missed_facts_or_none(
    first: int, held: int, appended: int, asked: int
) -> None:
    last = first + held - 1
    ring = filled(first, last)
    for seq in range(last + 1, last + appended + 1):
        ring.append(a_fact(seq))
    newest = last + appended

    found = seqs(ring.since(asked))

    if asked < first - 1:
        assert found is None
    else:
        assert found == list(range(asked + 1, newest + 1))


# --- sizes ----------------------------------------------------------------------------------------------------


def test_resume_of_256_kib_fits_and_one_byte_more_does_not() -> None:
    # Each fact is followed by a comma or the closing bracket.
    assert fits_resume([b"x" * (RESUME_BYTES_MAX - 1)])
    assert not fits_resume([b"x" * RESUME_BYTES_MAX])
    assert fits_resume([b"x" * (RESUME_BYTES_MAX // 2 - 1)] * 2)
    assert not fits_resume([b"x" * (RESUME_BYTES_MAX // 2)] * 2)
    assert fits_resume([])


def test_fact_that_is_no_map_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        decode(b"[1]")
    fact: dict[str, Any] = {"ev": "notice", "seq": 1}
    assert decode(orjson.dumps(fact)) == fact
