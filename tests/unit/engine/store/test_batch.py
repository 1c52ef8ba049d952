"""How waiting calls are grouped and answered, without a store."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.batch import GROUP_CALLS_MAX, Group, LateWord, Queue

ALL = 10_000
FAILURE = RuntimeError("the store is gone")


class Caller:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, Any, Exception | None]] = []

    def __call__(self, header: Any, own: Any, error: Exception | None) -> None:
        self.told.append((header, own, error))


def merge(
    queue: Queue, number: int, *, room: str = "r1", args: tuple[Any, ...] = ("x",), deadline: float = 1.0
) -> Caller:
    caller = Caller()
    queue.merge("post", (room, "log"), args, (f"key{number}",), (number, "text"), caller, deadline)
    return caller


def answer(group: Group, reply: Any, error: Exception | None = None) -> None:
    for done, header, own in group.answers(reply, error):
        done(header, own, error)


def test_empty_queue_has_nothing_to_take() -> None:
    queue = Queue()

    assert not queue
    assert queue.calls == 0
    assert queue.take(ALL) == []


def test_calls_of_one_room_leave_as_one_command_in_order() -> None:
    queue = Queue()
    for number in range(3):
        merge(queue, number)

    (group,) = queue.take(ALL)

    assert group.words("lr_post", "") == [
        "FCALL", "lr_post", 5, "r1", "log", "key0", "key1", "key2", "x", 0, "text", 1, "text", 2, "text",
    ]  # fmt: skip


def test_call_alone_never_merges_and_gets_the_whole_reply() -> None:
    queue = Queue()
    callers = [Caller(), Caller()]
    for caller in callers:
        queue.add("read", ("r1",), ("a", 1), caller, 1.0)

    groups = queue.take(ALL)

    assert [group.words("lr_read", "") for group in groups] == [["FCALL", "lr_read", 1, "r1", "a", 1]] * 2
    answer(groups[0], ["whole", "reply"])
    assert callers[0].told == [(None, ["whole", "reply"], None)]
    assert callers[1].told == []


@pytest.mark.parametrize(
    "other", [{"room": "r2"}, {"args": ("y",)}], ids=["another room", "other shared arguments"]
)
def test_calls_that_differ_in_what_they_share_travel_apart(other: dict[str, Any]) -> None:
    queue = Queue()
    merge(queue, 0)
    merge(queue, 1, **other)

    assert [len(group.waiting) for group in queue.take(ALL)] == [1, 1]


def test_other_functions_of_the_room_do_not_split_a_group() -> None:
    queue = Queue()
    merge(queue, 0)
    queue.add("read", ("r1",), (), Caller(), 1.0)
    merge(queue, 1)

    assert [(group.function, len(group.waiting)) for group in queue.take(ALL)] == [("post", 2), ("read", 1)]


def test_name_of_a_group_parts_calls_of_one_function_and_room() -> None:
    queue = Queue()
    for sale in ("s1", "s2", "s1"):
        queue.merge("claim", ("r1", sale), (), (), ("anna",), Caller(), 1.0, sale)

    assert [(group.keys, len(group.waiting)) for group in queue.take(ALL)] == [
        (("r1", "s1"), 2),
        (("r1", "s2"), 1),
    ]


def test_late_word_is_looked_up_each_time_the_call_leaves() -> None:
    values = {"r1": "old"}

    def look_up(about: str, vouched: str) -> str:
        return values[about] + vouched

    queue = Queue()
    for number in range(2):
        merge(queue, number, args=(LateWord("r1", look_up),))

    (group,) = queue.take(ALL)

    assert group.words("f", "-1")[7] == "old-1"
    values["r1"] = "new"
    assert group.words("f", "-2")[7] == "new-2"


def test_group_holds_five_hundred_calls_and_another_follows() -> None:
    queue = Queue()
    for number in range(2 * GROUP_CALLS_MAX + 1):
        merge(queue, number)

    groups = queue.take(ALL)

    assert GROUP_CALLS_MAX == 500
    assert [len(group.waiting) for group in groups] == [500, 500, 1]
    numbers = [number for group in groups for number in group.item_args[::2]]
    assert numbers == list(range(2 * GROUP_CALLS_MAX + 1))


def test_group_that_has_left_takes_no_more_calls() -> None:
    queue = Queue()
    merge(queue, 0)
    (left,) = queue.take(ALL)
    merge(queue, 1)

    (next_one,) = queue.take(ALL)
    assert left.item_args == [0, "text"]
    assert next_one.item_args == [1, "text"]


def test_flight_takes_the_oldest_groups_and_leaves_the_rest_open() -> None:
    queue = Queue()
    for room in ("r1", "r2", "r3"):
        merge(queue, 1, room=room)

    assert [group.keys[0] for group in queue.take(2)] == ["r1", "r2"]
    assert queue.calls == 1
    merge(queue, 2, room="r3")
    merge(queue, 2, room="r1")
    assert [(group.keys[0], len(group.waiting)) for group in queue.take(2)] == [("r3", 2), ("r1", 1)]
    assert not queue


def test_waiting_calls_are_counted() -> None:
    queue = Queue()
    merge(queue, 0)
    merge(queue, 1)
    queue.add("read", ("r1",), (), Caller(), 1.0)

    assert queue.calls == 3
    assert queue
    queue.take(1)
    assert queue.calls == 1


def test_each_caller_gets_the_shared_header_and_its_own_reply() -> None:
    queue = Queue()
    callers = [merge(queue, number) for number in range(3)]
    (group,) = queue.take(ALL)

    answer(group, ["header", "a", "b", "c"])

    assert [caller.told for caller in callers] == [
        [("header", "a", None)],
        [("header", "b", None)],
        [("header", "c", None)],
    ]


def test_failure_is_told_to_every_caller() -> None:
    queue = Queue()
    callers = [merge(queue, number) for number in range(3)]
    (group,) = queue.take(ALL)

    answer(group, None, FAILURE)

    assert [caller.told for caller in callers] == [[(None, None, FAILURE)]] * 3


def test_reply_with_too_few_answers_is_a_bug() -> None:
    queue = Queue()
    merge(queue, 0)
    merge(queue, 1)
    (group,) = queue.take(ALL)

    with pytest.raises(AssertionError, match="post"):
        answer(group, ["header", "a"])


def test_group_waits_no_longer_than_its_first_call() -> None:
    queue = Queue()
    merge(queue, 0, deadline=1.0)
    merge(queue, 1, deadline=2.0)

    (group,) = queue.take(ALL)
    assert group.deadline == 1.0


@given(
    calls=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=60),
    flights=st.lists(st.integers(0, 4), max_size=30),
)
def test_every_call_leaves_once_and_in_the_order_of_its_room_and_arguments(
    calls: list[tuple[str, str]], flights: list[int]
) -> None:
    queue = Queue()
    left: list[Group] = []
    for number, (room, args) in enumerate(calls):
        merge(queue, number, room=room, args=(args,))
        if number < len(flights):
            left += queue.take(flights[number])
    left += queue.take(ALL)

    sent = [(group.keys[0], group.args[0], number) for group in left for number in group.item_args[::2]]
    assert sorted(number for _, _, number in sent) == list(range(len(calls)))
    for room, args in set(calls):
        ours = [number for r, a, number in sent if (r, a) == (room, args)]
        assert ours == sorted(ours)
    assert queue.calls == 0
