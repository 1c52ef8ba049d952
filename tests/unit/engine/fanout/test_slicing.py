"""How much of a flush one turn of the loop may write."""

from engine.fanout.slicing import SLICE_WRITES_MAX, SLICE_WRITES_MIN, Slicer


def test_slices_stay_short_while_others_need_less_than_the_flush() -> None:
    slicer = Slicer()

    sizes = [slicer.first()]
    for turn in range(5):
        slicer.wrote(turn, turn + 0.002)
        sizes.append(slicer.following(turn + 0.003))

    assert sizes == [SLICE_WRITES_MIN] * 6


def test_slices_double_while_others_need_more_up_to_a_maximum() -> None:
    slicer = Slicer()

    sizes = [slicer.first()]
    for turn in range(5):
        slicer.wrote(turn, turn + 0.002)
        sizes.append(slicer.following(turn + 0.5))

    assert sizes == [200, 400, 800, 1_600, SLICE_WRITES_MAX, SLICE_WRITES_MAX]


def test_calm_turn_makes_them_short_again() -> None:
    slicer = Slicer()
    slicer.first()
    slicer.wrote(0.0, 0.002)
    slicer.following(1.0)
    slicer.wrote(1.0, 1.004)

    assert slicer.following(1.005) == SLICE_WRITES_MIN


def test_flush_begins_with_a_short_slice_whatever_the_last_one_ended_with() -> None:
    slicer = Slicer()
    slicer.first()
    slicer.wrote(0.0, 0.002)
    assert slicer.following(1.0) == 2 * SLICE_WRITES_MIN

    assert slicer.first() == SLICE_WRITES_MIN
