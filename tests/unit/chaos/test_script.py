"""What a trial will do is decided by its name and seed alone."""

from loadtest.arrivals import US_PER_S
from tests.chaos import script
from tests.chaos.faults import catalogue
from tests.chaos.script import Shape

SMALL = Shape(viewers=40)


def test_same_seed_and_name_give_the_same_plan_and_moment() -> None:
    one, other = script.write(SMALL, 7, "kill-store"), script.write(SMALL, 7, "kill-store")

    assert one.plan.digest() == other.plan.digest()
    assert one.moment_s == other.moment_s


def test_another_seed_or_name_gives_another_moment() -> None:
    moments = {script.write(SMALL, seed, name).moment_s for seed in (1, 2) for name in ("a", "b")}

    assert len(moments) == 4


def test_fault_strikes_while_the_sale_runs_and_a_packet_is_grabbed() -> None:
    for seed in range(20):
        written = script.write(SMALL, seed, "kill-store")
        moment_us = written.moment_s * US_PER_S
        for cmd in ("seckill.claim", "redpacket.grab"):
            asked = [step.at_us for step in written.plan.steps if step.command.get("cmd") == cmd]
            assert any(at_us < moment_us for at_us in asked), cmd
            assert any(at_us > moment_us for at_us in asked), cmd


def test_longer_fault_leaves_as_much_sale_after_it() -> None:
    short, long = script.write(SMALL, 3, "freeze"), script.write(Shape(viewers=40, fault_s=15), 3, "freeze")

    assert long.moment_s == short.moment_s
    assert long.plan.end_us >= short.plan.end_us + 15 * US_PER_S


def test_items_of_the_console_are_not_those_of_the_sale() -> None:
    steps = script.write(SMALL, 1, "kill-store").plan.steps
    items = [step.command["item"] for step in steps if step.command.get("cmd") == "item.put"]

    assert items.count("{run}-sale-item") == 1
    assert len(items) > 1


def test_names_of_faults_differ() -> None:
    for secluded in (True, False):
        names = [fault.name for fault in catalogue(secluded=secluded)]
        assert len(set(names)) == len(names)
