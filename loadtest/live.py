"""
What a run looks like while it happens.

Decides what is shown and how often: a screen that redraws itself on a terminal, one plain line every five seconds
anywhere else. Reads the swarm's latest progress and the meter; changes nothing.
"""

import time
from collections import Counter
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.latency import Delays
from loadtest.meter import Meter
from loadtest.plan import Plan
from loadtest.swarm import Swarm
from loadtest.timeline import EXPECTED_CODES

PLAIN_PERIOD_S: Final = 5.0
#: Rates are averaged over at least this.
RATE_PERIOD_S: Final = 1.0
#: Codes listed; the rest is only counted.
CODES_SHOWN_MAX: Final = 8
#: A screen wider than this is harder to read.
WIDTH_MAX: Final = 100
_CLAIM: Final = "seckill.claim "
_GRAB: Final = "redpacket.grab "
_CLAIMS: Final = (_CLAIM, _GRAB)
_MIB: Final = 1 << 20
#: Connections that ended because the plan says so.
_PLANNED: Final = ("cut_on_purpose", "away")


class LiveView:
    """The view of one run. Use as a context manager; call `show` as often as you like."""

    def __init__(self, console: Console, plan: Plan, swarm: Swarm, meter: Meter) -> None:
        self._console = console
        self._plan = plan
        self._swarm = swarm
        self._meter = meter
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._plain_s = 0.0
        self._phase = "starting"
        self._last_s = time.monotonic()
        self._last: Counter[str] = Counter()
        self._rates: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase(self, name: str) -> None:
        """Say what happens now."""
        self._phase = name
        self._plain_s = 0.0
        self.show()

    def show(self) -> None:
        """Show the latest figures, if it is time."""
        self._measure()
        if self._live is not None:
            self._live.update(self.screen())
        elif time.monotonic() - self._plain_s >= PLAIN_PERIOD_S:
            self._plain_s = time.monotonic()
            self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    # --- figures ------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Work out how much of everything came per second since the last look."""
        now_s = time.monotonic()
        if now_s - self._last_s < RATE_PERIOD_S:
            return
        totals = self._totals()
        self._rates = {
            name: (count - self._last[name]) / (now_s - self._last_s) for name, count in totals.items()
        }
        self._last_s, self._last = now_s, totals

    def _totals(self) -> Counter[str]:
        counts = self._swarm.counts("outcomes")
        totals = Counter({"deliveries": self._swarm.deliveries.count})
        for name, count in counts.items():
            command, _, code = name.partition(" ")
            if command in ("comment.send", "like.send") and code == "ok":
                totals[command] += count
            elif name.startswith(_CLAIMS):
                totals[f"{command} "] += count
        return totals

    def _elapsed_s(self) -> float:
        started_s = self._swarm.started_s
        return max(0.0, time.monotonic() - started_s) if started_s else 0.0

    def _cpu(self) -> float:
        return max((progress.cpu_share for progress in self._swarm.progress.values()), default=0.0)

    def _lag_ms(self) -> float:
        return max((progress.lag_us for progress in self._swarm.progress.values()), default=0) / 1000

    def _answered(self, command: str) -> str:
        """Return how claims or grabs go: answered, won, what is left of the stock; empty if there are none."""
        counts = self._swarm.counts("outcomes")
        asked = sum(count for name, count in counts.items() if name.startswith(command))
        if not asked:
            return ""
        left = self._swarm.stock_left() if command == _CLAIM else None
        return f"{asked:,} answered, {counts[f'{command}ok']:,} ok" + (
            "" if left is None else f", {left:,} units left"
        )

    def _codes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return refusals that a busy room gives by design, and everything else that is not ok."""
        expected: dict[str, int] = {}
        wrong: dict[str, int] = {}
        for name, count in sorted(self._swarm.counts("outcomes").items()):
            code = name.rpartition(" ")[2]
            if code != "ok":
                (expected if code in EXPECTED_CODES else wrong)[name] = count
        for name, count in sorted(self._swarm.counts("faults").items()):
            (expected if name in _PLANNED else wrong)[name] = count
        return expected, wrong

    def _used(self) -> list[tuple[str, float, float]]:
        """Return (group, cores, MiB) of every group of processes that is known."""
        return [(group, usage.cores, usage.rss_bytes / _MIB) for group, usage in self._meter.latest.items()]

    # --- one line -----------------------------------------------------------------------------------------

    def line(self) -> str:
        """Return everything on one line, for logs."""
        swarm, counts = self._swarm, self._swarm.counts("outcomes")
        claims, grabs = self._answered(_CLAIM), self._answered(_GRAB)
        parts = [
            f"{self._elapsed_s():6.1f} s  {self._phase:<8}",
            f"viewers {swarm.total('joined'):,}",
            f"comments {counts['comment.send ok']:,}",
            f"likes {counts['like.send ok']:,}",
            f"delivered {self._rates.get('deliveries', 0):,.0f}/s {_span(swarm.deliveries)}",
            f"join {_span(swarm.joins)}",
        ]
        if claims:
            parts.append(f"claims {claims}")
        if grabs:
            parts.append(f"grabs {grabs}")
        if claims or grabs:
            # One delay for both: whoever plays a sale and packets at once asks how fast an answer is.
            parts.append(f"answered {_span(swarm.claims)}")
        parts.append(f"late {swarm.total('late')}  lag {self._lag_ms():.0f} ms")
        parts += [f"{group} {cores:.2f} cores {mib:,.0f} MiB" for group, cores, mib in self._used()]
        expected, wrong = self._codes()
        if expected:
            parts.append(f"refused: {_listed(expected)}")
        parts.append(f"errors: {_listed(wrong)}")
        return "  ".join(parts)

    # --- the screen ---------------------------------------------------------------------------------------

    def screen(self) -> Panel:
        """Return the whole screen."""
        plan, length_s = self._plan, self._plan.end_us / 1e6
        elapsed_s = min(self._elapsed_s(), length_s)
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(width=10, style="bold cyan")
        head.add_column(ratio=1)
        head.add_column(justify="right")
        bar = ProgressBar(total=length_s, completed=elapsed_s, complete_style="cyan", finished_style="green")
        head.add_row(self._phase, bar, f"{elapsed_s:.0f} / {length_s:.0f} s")
        return Panel(
            Group(
                head, Text(), self._flows(), Text(), self._delays(), Text(), self._processes(), self._foot()
            ),
            title=f"[bold]{plan.scenario.name}[/] · seed {plan.seed} · plan {plan.digest()}",
            box=box.ROUNDED,
            border_style="dim",
            padding=(0, 2),
            width=min(WIDTH_MAX, self._console.width),
        )

    def _flows(self) -> Table:
        swarm, counts = self._swarm, self._swarm.counts("outcomes")
        table = _table("", "total", "per second")
        online = f"{swarm.total('joined'):,} of {len(self._plan.actors):,}"
        table.add_row("viewers in the room", online, "")
        gauge = max((progress.online for progress in swarm.progress.values()), default=0)
        table.add_row("  as the room counts them", f"{gauge:,}" if gauge else "–", "")
        for label, command in (("comments accepted", "comment.send"), ("batches of likes", "like.send")):
            table.add_row(label, f"{counts[f'{command} ok']:,}", f"{self._rates.get(command, 0):,.0f}")
        table.add_row(
            "comment deliveries", f"{swarm.deliveries.count:,}", f"{self._rates.get('deliveries', 0):,.0f}"
        )
        for label, command in (("claims", _CLAIM), ("grabs", _GRAB)):
            if answered := self._answered(command):
                table.add_row(label, answered, f"{self._rates.get(command, 0):,.0f}")
        return table

    def _delays(self) -> Table:
        swarm = self._swarm
        table = _table("delay, ms", "p50", "p99", "max")
        rows = [("delivery of a comment", swarm.deliveries), ("join", swarm.joins)]
        if swarm.claims.count:
            rows.append(("answer to a claim or grab", swarm.claims))
        for label, delays in rows:
            if delays.count:
                figures = (delays.percentile_us(50), delays.percentile_us(99), delays.max_us())
                table.add_row(label, *(f"{figure / 1000:,.1f}" for figure in figures))
            else:
                table.add_row(label, "–", "–", "–")
        return table

    def _processes(self) -> Table:
        table = _table("processes", "cores", "MiB")
        for group, cores, mib in self._used():
            table.add_row(group, f"{cores:.2f}", f"{mib:,.0f}")
        if not self._meter.latest:
            table.add_row("not measured yet", "", "")
        return table

    def _foot(self) -> Group:
        swarm = self._swarm
        late, taken, lag_ms = swarm.total("late"), swarm.total("steps_taken"), self._lag_ms()
        honest = Text(
            f"generator  {late:,} of {taken:,} steps late, lag {lag_ms:.0f} ms, busiest process {self._cpu():.0%}",
            style="yellow" if late else "dim",
        )
        expected, wrong = self._codes()
        refused = Text(f"refused    {_listed(expected)}", style="dim")
        errors = Text(f"errors     {_listed(wrong)}", style="bold red" if wrong else "green")
        return Group(honest, refused, errors)


def _table(*columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, expand=True, show_edge=False, pad_edge=False, padding=(0, 1), header_style="dim"
    )
    for place, column in enumerate(columns):
        table.add_column(
            column, justify="right" if place else "left", ratio=None if place else 1, min_width=10
        )
    return table


def _span(delays: Delays) -> str:
    p50, p99 = delays.percentile_us(50) / 1000, delays.percentile_us(99) / 1000
    return f"p50 {p50:.1f} p99 {p99:.1f} ms"


def _listed(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda entry: -entry[1])
    text = ", ".join(f"{name} × {count:,}" for name, count in shown[:CODES_SHOWN_MAX])
    rest = sum(count for _, count in shown[CODES_SHOWN_MAX:])
    return (text + (f" and {rest:,} more" if rest else "")) or "none"
