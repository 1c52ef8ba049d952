"""What the Python client counts: every event once, in order, per connection."""

from benchmarks.crowd_slow import MARK_BYTES, Count, Seen, frame_of, mark
from benchmarks.figures import bucket_of


def a_frame(*numbers: int, due_us: int = 1_000) -> bytes:
    return b",".join(mark(number, due_us, 60).encode() for number in numbers)


def test_mark_has_the_size_asked_for_and_at_least_its_own() -> None:
    assert len(mark(1, 2, 100)) == 100
    assert len(mark(1, 2, 0)) == MARK_BYTES


def test_padding_of_a_mark_is_never_taken_for_one() -> None:
    count, seen = Count(events=1), Seen()

    count.take(seen, mark(0, 0, 4_000).encode(), 1)

    assert count.received == 1


def test_events_in_order_are_complete() -> None:
    count, seen = Count(first=5, events=3), Seen(next=5)

    count.take(seen, a_frame(5, 6), 4_000)
    count.take(seen, a_frame(7), 5_000)

    assert (count.received, count.complete, count.gaps, count.repeats, count.frames) == (3, 1, 0, 0, 2)
    assert count.delays == {bucket_of(3_000): 2, bucket_of(4_000): 1}


def test_missing_event_is_a_gap_and_the_connection_never_complete() -> None:
    count, seen = Count(events=3), Seen()

    count.take(seen, a_frame(0, 2), 2_000)

    assert (count.received, count.complete, count.gaps, count.repeats) == (2, 0, 1, 0)


def test_event_that_comes_again_counts_as_a_repeat_only() -> None:
    count, seen = Count(events=2), Seen()

    count.take(seen, a_frame(0, 0, 1), 2_000)

    assert (count.received, count.complete, count.gaps, count.repeats) == (2, 1, 0, 1)


def test_event_of_an_earlier_run_is_late() -> None:
    count, seen = Count(first=10, events=2), Seen(next=10)

    count.take(seen, a_frame(9, 10), 2_000)

    assert (count.received, count.late, count.repeats) == (1, 1, 0)


def test_frame_without_events_is_not_counted() -> None:
    count = Count(events=2)

    count.take(Seen(), b'[{"ev":"likes","total":7}]', 2_000)

    assert (count.frames, count.payload_bytes, count.received) == (0, 0, 0)


def test_frames_are_masked_text_of_both_sizes() -> None:
    assert frame_of(1, b"hi") == b"\x81\x82\0\0\0\0hi"
    assert frame_of(1, b"x" * 300)[:8] == b"\x81\xfe\x01\x2c\0\0\0\0"
