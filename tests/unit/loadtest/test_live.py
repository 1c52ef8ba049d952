"""`loadtest/live.py`: everything worth knowing is on the screen, and on one plain line where there is no terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from loadtest.live import LiveView
from loadtest.meter import Meter, Usage
from loadtest.planners import make
from loadtest.scenario import load
from loadtest.swarm import Swarm
from tests.unit.loadtest.test_report import a_progress


def a_view(console: Console, **figures: Any) -> LiveView:
    plan = make(load("seckill", {"viewers.count": 30, "seckill.claims": 60, "seckill.stock": 5}), 5)
    swarm, meter = Swarm([]), Meter("ws://127.0.0.1:1")
    progress = a_progress(late=2)
    progress.joined, progress.online, progress.lag_us, progress.stock = 31, 30, 7000, {"s": 3}
    progress.outcomes = {
        "comment.send ok": 1234,
        "seckill.claim ok": 2,
        "seckill.claim sold_out": 40,
    } | figures.get("outcomes", {})
    swarm.progress = {0: progress}
    for delays, delay_us in ((swarm.deliveries, 25_000), (swarm.joins, 4000), (swarm.claims, 90_000)):
        delays.record(delay_us, 10)
    meter.latest = {"server": Usage(1.0, "server", 0.42, 80 << 20, 1)}
    return LiveView(console, plan, swarm, meter)


def drawn(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=100, record=True, color_system=None)
    console.print(view.screen())
    return console.export_text()


@pytest.mark.parametrize("width", [60, 100, 240])
def test_screen_shows_everything(width: int) -> None:
    view = a_view(Console(file=io.StringIO(), width=width))
    view.phase("playing")

    text = drawn(view)

    for words in (
        "playing",
        "seed 5",
        "1,234",
        "31 of 31",
        "42 answered, 2 ok, 3 units left",
        "25.0",
        "90.0",
        "0.42",
        "80",
        "lag 7 ms",
        "seckill.claim sold_out × 40",
        "errors",
        "none",
    ):
        assert words in " ".join(text.split()) or words in text, words


def test_what_a_sale_answers_by_design_is_no_error() -> None:
    view = a_view(Console(file=io.StringIO()), outcomes={"comment.send overloaded": 3})

    line = view.line()

    assert "refused: seckill.claim sold_out × 40" in line
    assert line.endswith("errors: comment.send overloaded × 3")


def test_grabs_are_not_counted_as_claims() -> None:
    view = a_view(Console(file=io.StringIO()), outcomes={"redpacket.grab ok": 7, "redpacket.grab empty": 2})

    assert "claims 42 answered, 2 ok, 3 units left  grabs 9 answered, 7 ok  answered p50" in view.line()
    assert "grabs 9 answered, 7 ok" in " ".join(drawn(view).split())


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    with a_view(Console(file=out, force_terminal=False, width=80)) as view:
        view.phase("playing")
        view.show()
        view.phase("draining")

    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["playing", "draining"]
    assert "viewers 31" in lines[0]
    assert "delivered 0/s p50 25.0 p99 25.0 ms" in lines[0]
    assert "server 0.42 cores 80 MiB" in lines[0]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_screen_is_drawn() -> None:
    out = io.StringIO()
    with a_view(Console(file=out, force_terminal=True, width=100, height=50)) as view:
        view.phase("playing")

    assert "delivery of a comment" in out.getvalue()
