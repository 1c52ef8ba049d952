"""The estimate of the store's clock."""

from engine.clock import StoreClock


class Clocks:
    """The two clocks of this machine, moved by hand (seconds)."""

    def __init__(self) -> None:
        self.monotonic_s = 1_000.0
        self.wall_s = 1_795_000_000.0

    def make(self) -> StoreClock:
        return StoreClock(monotonic=lambda: self.monotonic_s, wall=lambda: self.wall_s)


def test_follows_the_system_clock_before_the_first_observation() -> None:
    clocks = Clocks()

    assert clocks.make().now_ms() == 1_795_000_000_000


def test_carries_on_between_observations_whatever_the_system_clock_does() -> None:
    clocks = Clocks()
    clock = clocks.make()
    clock.observe(1_800_000_000_000)

    clocks.monotonic_s += 2.5
    clocks.wall_s -= 3_600

    assert clock.now_ms() == 1_800_000_002_500


def test_an_observation_far_behind_is_believed() -> None:
    """A store whose clock was set back, or one behind this machine's, is right: its clock decides."""
    clocks = Clocks()
    clock = clocks.make()

    clock.observe(1_794_999_000_000)

    assert clock.now_ms() == 1_794_999_000_000


def test_a_reply_that_travelled_long_does_not_set_the_clock_back() -> None:
    clocks = Clocks()
    clock = clocks.make()
    clock.observe(1_795_000_010_000)
    clocks.monotonic_s += 1.0

    # Read by the store 40 ms ago.
    clock.observe(1_795_000_010_960)

    assert clock.now_ms() == 1_795_000_011_000


def test_a_fresher_reply_moves_the_estimate_forward() -> None:
    clocks = Clocks()
    clock = clocks.make()
    clock.observe(1_795_000_010_000)

    clock.observe(1_795_000_010_030)

    assert clock.now_ms() == 1_795_000_010_030


def test_reads_whole_milliseconds_of_the_real_clock() -> None:
    clock = StoreClock()

    first, second = clock.now_ms(), clock.now_ms()

    assert type(first) is int
    assert first <= second
