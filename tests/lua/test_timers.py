"""Functions of `timers.lua`: due times with a lease."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from engine.store.functions import library

LEASE_MS = 5_000


class Due:
    """One set of due times."""

    def __init__(self, client: "redis.Redis[str]") -> None:
        self.client = client
        self.key = f"lr:{{due.{secrets.token_hex(4)}}}:due"

    def call(self, function: str, *args: Any) -> Any:
        return self.client.fcall(library().function(function), 1, self.key, *args)

    def now(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def add(self, member: str, in_ms: int) -> int:
        code, at = self.call("due_add", member, in_ms)
        assert code == "ok"
        return int(at)

    def claim(self, limit: int = 50) -> tuple[int, list[tuple[str, str]]]:
        next_ms, *taken = self.call("due_claim", limit, LEASE_MS)
        return int(next_ms), list(zip(taken[::2], taken[1::2], strict=True))

    def done(self, member: str, lease: str, again_ms: int | str = "") -> str:
        (code,) = self.call("due_done", member, lease, again_ms)
        return str(code)

    def put(self, member: str, at: int) -> None:
        """Let a member be due at a time."""
        self.client.zadd(self.key, {member: at})

    def at(self, member: str) -> int | None:
        score = self.client.zscore(self.key, member)
        return None if score is None else int(score)


@pytest.fixture
def due(client: "redis.Redis[str]") -> Iterator[Due]:
    due = Due(client)
    yield due
    client.delete(due.key)


# --- due_add --------------------------------------------------------------------------------------------------


def test_due_time_is_counted_from_the_stores_clock(due: Due) -> None:
    before = due.now()
    at = due.add("host|t-1.x|r_1", 60_000)

    assert before + 60_000 <= at <= due.now() + 60_000
    assert due.at("host|t-1.x|r_1") == at


def test_earlier_time_replaces_a_later_one(due: Due) -> None:
    due.add("m", 60_000)

    assert due.add("m", 1_000) == due.at("m")
    assert (due.at("m") or 0) <= due.now() + 1_000


def test_later_time_leaves_the_earlier_one_standing(due: Due) -> None:
    first = due.add("m", 1_000)

    # It moves by a millisecond, so that a claim that is under way does not take the note with it.
    assert due.add("m", 60_000) == first - 1


# --- due_claim ------------------------------------------------------------------------------------------------


def test_nothing_noted_has_no_next(due: Due) -> None:
    assert due.claim() == (-1, [])


def test_what_is_not_due_yet_is_not_taken(due: Due) -> None:
    due.add("m", 60_000)

    next_ms, taken = due.claim()

    assert taken == []
    assert 50_000 < next_ms <= 60_000


def test_due_member_is_taken_by_one_and_stays_until_done(due: Due) -> None:
    due.add("m", 0)
    before = due.now()

    _, ((member, lease),) = due.claim()

    assert member == "m"
    assert before + LEASE_MS <= int(lease) <= due.now() + LEASE_MS
    assert due.claim()[1] == []
    assert due.at("m") == int(lease)


def test_next_is_told_when_something_waits_behind_what_was_taken(due: Due) -> None:
    due.put("a", due.now() - 10)
    due.add("b", 2_000)

    next_ms, taken = due.claim()

    assert [member for member, _ in taken] == ["a"]
    assert 1_000 < next_ms <= 2_000


def test_oldest_are_taken_first_and_no_more_than_asked(due: Due) -> None:
    now = due.now()
    for number in range(5):
        due.put(f"m{number}", now - 100 + number)

    next_ms, taken = due.claim(2)

    assert [member for member, _ in taken] == ["m0", "m1"]
    assert next_ms == 0
    assert [member for member, _ in due.claim(50)[1]] == ["m2", "m3", "m4"]


def test_claiming_none_takes_none(due: Due) -> None:
    due.put("m", 1)

    assert due.call("due_claim", 0, 0) == [0]
    assert due.at("m") == 1


def test_member_of_a_worker_that_died_comes_due_again(due: Due) -> None:
    ended = due.now() - 1
    due.put("m", ended)

    _, ((_, lease),) = due.claim()

    assert due.done("m", str(ended)) == "lost"
    assert due.done("m", lease) == "ok"
    assert due.at("m") is None


# --- due_done -------------------------------------------------------------------------------------------------


def test_done_member_is_dropped(due: Due) -> None:
    due.add("m", 0)
    _, ((_, lease),) = due.claim()

    assert due.done("m", lease) == "ok"
    assert due.at("m") is None


def test_done_member_may_be_due_again(due: Due) -> None:
    due.add("m", 0)
    _, ((_, lease),) = due.claim()
    before = due.now()

    assert due.done("m", lease, 7_000) == "ok"
    assert before + 7_000 <= (due.at("m") or 0) <= due.now() + 7_000


@pytest.mark.parametrize("again_ms", ["", 7_000])
def test_member_another_worker_took_meanwhile_is_left_to_it(due: Due, again_ms: int | str) -> None:
    due.add("m", 0)
    _, ((_, lease),) = due.claim()
    due.put("m", int(lease) + 1)

    assert due.done("m", lease, again_ms) == "lost"
    assert due.at("m") == int(lease) + 1


def test_doing_it_twice_is_harmless(due: Due) -> None:
    due.add("m", 0)
    _, ((_, lease),) = due.claim()
    due.done("m", lease)

    assert due.done("m", lease) == "lost"
    assert due.at("m") is None


@pytest.mark.parametrize("in_ms", [0, 3_000, 600_000])
def test_note_made_during_a_claim_is_not_dropped_with_it(due: Due, in_ms: int) -> None:
    due.add("m", 0)
    _, ((_, lease),) = due.claim()
    due.add("m", in_ms)

    assert due.done("m", lease) == "lost"
    assert (due.at("m") or 0) < int(lease)
