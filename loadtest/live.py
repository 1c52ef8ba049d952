"""
What a run looks like while it happens.

Decides what is shown and how often: a table that redraws itself on a terminal, one plain line every five seconds
anywhere else. Reads the swarm's latest progress; changes nothing.
"""

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.plan import Plan
from loadtest.swarm import Swarm

PLAIN_PERIOD_S: Final = 5.0
_CLAIMS: Final = ("seckill.claim ", "redpacket.grab ")


class LiveView:
    """The view of one run. Use as a context manager; call `show` as often as you like."""

    def __init__(self, console: Console, plan: Plan, swarm: Swarm) -> None:
        self._console = console
        self._plan = plan
        self._swarm = swarm
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._plain_s = 0.0
        self._phase = "starting"
        self._last: tuple[float, int] = (time.monotonic(), 0)
        self._rate = 0.0

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
            self._live.update(self._table())
        elif time.monotonic() - self._plain_s >= PLAIN_PERIOD_S:
            self._plain_s = time.monotonic()
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _measure(self) -> None:
        then_s, then_count = self._last
        now_s, count = time.monotonic(), self._swarm.deliveries.count
        if now_s - then_s >= 1:
            self._rate = (count - then_count) / (now_s - then_s)
            self._last = (now_s, count)

    def _elapsed_s(self) -> float:
        started_s = self._swarm.started_s
        return max(0.0, time.monotonic() - started_s) if started_s else 0.0

    def _delivery_ms(self) -> tuple[float, float]:
        deliveries = self._swarm.deliveries
        return deliveries.percentile_us(50) / 1000, deliveries.percentile_us(99) / 1000

    def _cpu(self) -> float:
        return max((progress.cpu_share for progress in self._swarm.progress.values()), default=0.0)

    def _lag_ms(self) -> float:
        return max((progress.lag_us for progress in self._swarm.progress.values()), default=0) / 1000

    def _claims(self) -> str:
        """Return how claims and grabs go: answered, won, the delay of the answers, what is left."""
        counts, swarm = self._swarm.counts("outcomes"), self._swarm
        asked = sum(count for name, count in counts.items() if name.startswith(_CLAIMS))
        if not asked:
            return ""
        ok = sum(counts[f"{command}ok"] for command in _CLAIMS)
        p50, p99 = swarm.claims.percentile_us(50) / 1000, swarm.claims.percentile_us(99) / 1000
        left = swarm.stock_left()
        stock = "" if left is None else f"  left {left:,}"
        return f"{asked:,} answered  {ok:,} ok  p50 {p50:.1f} ms  p99 {p99:.1f} ms{stock}"

    def _refusals(self) -> str:
        counts = self._swarm.counts("outcomes") + self._swarm.counts("faults")
        bad = {name: count for name, count in counts.items() if not name.endswith(" ok")}
        return ", ".join(f"{name} × {count}" for name, count in sorted(bad.items())) or "none"

    def _line(self) -> str:
        swarm, counts = self._swarm, self._swarm.counts("outcomes")
        p50, p99 = self._delivery_ms()
        claims = self._claims()
        return (
            f"{self._elapsed_s():6.1f} s  {self._phase:<8}  viewers {swarm.total('joined'):,}  "
            f"comments {counts['comment.send ok']:,}  likes {counts['like.send ok']:,}  "
            f"delivered {self._rate:,.0f}/s  p50 {p50:.1f} ms  p99 {p99:.1f} ms  "
            f"{f'claims {claims}  ' if claims else ''}"
            f"late {swarm.total('late')}  lag {self._lag_ms():.0f} ms  cpu {self._cpu():.0%}  "
            f"errors: {self._refusals()}"
        )

    def _table(self) -> Table:
        swarm, counts = self._swarm, self._swarm.counts("outcomes")
        p50, p99 = self._delivery_ms()
        length_s = self._plan.end_us / 1e6
        table = Table(title=f"{self._plan.scenario.name} · seed {self._plan.seed}", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_row("phase", f"{self._phase}  {min(self._elapsed_s(), length_s):.0f} / {length_s:.0f} s")
        table.add_row("viewers in the room", f"{swarm.total('joined'):,} of {len(self._plan.actors):,}")
        table.add_row("comments accepted", f"{counts['comment.send ok']:,}")
        table.add_row("batches of likes accepted", f"{counts['like.send ok']:,}")
        table.add_row("comment deliveries", f"{swarm.deliveries.count:,}  ({self._rate:,.0f}/s)")
        table.add_row("delivery p50 / p99", f"{p50:.1f} / {p99:.1f} ms")
        if claims := self._claims():
            table.add_row("claims and grabs", claims)
        table.add_row("late steps", f"{swarm.total('late'):,} of {swarm.total('steps_taken'):,}")
        table.add_row("generator lag / CPU", f"{self._lag_ms():.0f} ms / {self._cpu():.0%}")
        table.add_row("errors", self._refusals())
        return table
