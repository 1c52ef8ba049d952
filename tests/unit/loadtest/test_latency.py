"""`loadtest/latency.py`: delays count from the intended moment, and histograms add up."""

from hdrh.histogram import HdrHistogram

from loadtest.history import CommentSeen, Frame, LikesSeen
from loadtest.latency import HIGHEST_US, Delays, delivery_counts, from_ticks


def test_percentiles_are_three_digits_exact() -> None:
    delays = Delays()
    for delay_ms in range(1, 1001):
        delays.record(delay_ms * 1000)

    figures = delays.figures()

    assert figures["count"] == 1000
    for name, expected in {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "max_ms": 1000}.items():
        assert abs(figures[name] / expected - 1) < 0.001


def test_empty_histogram_has_no_figures() -> None:
    assert Delays().figures() == {"count": 0}
    assert Delays().percentile_us(99) == 0


def test_values_outside_the_range_are_kept_at_its_ends() -> None:
    delays = Delays()
    delays.record(-5)
    delays.record(HIGHEST_US * 2)

    assert delays.count == 2
    assert abs(delays.max_us() / HIGHEST_US - 1) < 0.001


def test_histograms_of_two_processes_add_up_and_can_be_read_by_others() -> None:
    one, other = from_ticks({10: 3}), from_ticks({500: 1})
    one.add(other)

    read: HdrHistogram = HdrHistogram.decode(one.encoded())
    assert one.count == read.get_total_count() == 4
    assert abs(read.get_max_value() / 50_000 - 1) < 0.001


def test_delivery_is_counted_per_viewer_from_the_intended_moment() -> None:
    frame = Frame(
        0,
        [
            CommentSeen(1, 11, "a", 7, 0),
            LikesSeen(5),
            CommentSeen(2, 12, "b", 8, 0),
            CommentSeen(3, 13, "c", -1, 0),
        ],
        {1000: 2, 1030: 1},
        False,
    )

    # Step 7 was due at tick 900, step 8 at tick 1,000; the comment of nobody's step is not ours to time.
    assert delivery_counts([frame], {7: 90_000, 8: 100_000}) == {100: 2, 130: 1, 0: 2, 30: 1}


def test_server_that_stands_still_shows_in_everything_that_was_due() -> None:
    """No coordinated omission: 5 s of silence at 10 comments/s are 50 delays from 5 s down."""
    steps = {step: step * 100_000 for step in range(100)}
    frames = [
        Frame(
            step,
            [CommentSeen(step, step, "a", step, 0)],
            {max(step * 1000, 70_000 if step >= 20 else 0): 1},
            False,
        )
        for step in range(100)
    ]

    delays = from_ticks(delivery_counts(frames, steps))

    assert delays.max_us() > 4_900_000
    assert delays.percentile_us(75) > 2_000_000
