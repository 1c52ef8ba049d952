"""
How much does the engine cost beside the best there is, in one run, on one machine, under the same loads?

Method: every server gets the same crowd (benchmarks/crowd.py) and the same events, one server at a time, its CPU for
itself (benchmarks/machine.py says who is pinned where). Loads: (a) 2,000 viewers, 30 events/s, each in a frame of its
own; (b) a busy room, 2,000 viewers, 100 events/s; (c) a huge room, 10,000 viewers, 40 events/s. An event is about 200
bytes. CPU is the server's, per delivered event; "delivered" counts what arrived within a second of the last intended
moment, over all viewers, once and in order; delays run from the intended moment. In (a) the engine's events are
notices: facts never wait, so each makes a frame; its comments, which it coalesces, stand beside. A round takes every
server through every load, each round starting with another server; ratios are taken within a round, and everything
shown is a median over the rounds. What only the engine does (joins, idle memory, replies during a flush, slow
viewers, two workers) is measured by `bench_gateway.py` after the first round, in the same run.

Peers are installed on demand into `.peers/` (benchmarks/peers.py); what cannot be installed stands in the table with
the reason. Ends by itself: no round is begun that would not fit into the budget, and nothing at all beyond it.

    python -m benchmarks compare
    python -m benchmarks compare --only "this engine,ws" --loads a,b --rounds 1
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from benchmarks.bench_gateway import PARTS, Figures, gateway_table, gateway_verdicts, measure_parts
from benchmarks.contenders import BARE, CONTENDERS, ENGINE, Contender, Running, started
from benchmarks.crowd import Crowd, CrowdFailed, client_said
from benchmarks.delivery import Load, Sample, measure, open_up_to
from benchmarks.figures import median, ratio_within_rounds, shown, table, verdict
from benchmarks.machine import heading, record, resident_kib
from benchmarks.peers import NotInstalled

LOADS: Final = (
    Load("a", "(a) One event per frame", 2_000, 30.0),
    Load("b", "(b) Busy room", 2_000, 100.0),
    Load("c", "(c) Huge room", 10_000, 40.0),
)
#: How the engine's comments are called in (a), where its facts are compared.
COMMENTS: Final = f"{ENGINE.name}, comments"
#: Seconds after which nothing more is begun.
BUDGET_S: Final = 690.0
#: Events per frame up to which an engine's events count as alone in theirs.
TOGETHER_MAX: Final = 1.1
#: 1-minute load average before a run above which its numbers are said to be no evidence.
LOAD_MAX: Final = 1.0
#: Share of the deliveries below which a server is spared the heavier loads.
HOPELESS: Final = 0.5
RESULTS: Final = Path(__file__).with_name("results")


@dataclass(slots=True)
class Results:
    """Samples by load, name and round; and what went wrong."""

    samples: dict[tuple[str, str], dict[int, Sample]] = field(default_factory=dict)
    #: Name → resident KiB per viewer above the empty server, by round.
    idle_kib: dict[str, dict[int, float]] = field(default_factory=dict)
    #: (load or "", name) → why there is no sample.
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    #: Names that count as peers.
    peers: set[str] = field(default_factory=set)

    def of(self, load: str, name: str, what: Callable[[Sample], float | None]) -> dict[int, float | None]:
        """Return a figure of every round."""
        return {number: what(sample) for number, sample in self.samples.get((load, name), {}).items()}

    def middle(self, load: str, name: str, what: Callable[[Sample], float | None]) -> float | None:
        """Return the median of a figure over the rounds."""
        return median(value for value in self.of(load, name, what).values() if value is not None)

    def ratio(self, load: str, name: str, other: str) -> float | None:
        """Return how much more CPU an event costs `name` than `other`, within rounds."""
        return ratio_within_rounds(self.of(load, name, cpu), self.of(load, other, cpu))

    def best_peer(self, load: str, *, whole_only: bool = False) -> str | None:
        """Return the peer with the least CPU per delivered event, of all or of those that deliver everything."""
        costs = {}
        for name in self.peers:
            cost, share = self.middle(load, name, cpu), self.middle(load, name, delivered)
            if cost is not None and share is not None and (share >= 1 or not whole_only):
                costs[name] = cost
        return min(costs, key=lambda name: costs[name]) if costs else None


def cpu(sample: Sample) -> float | None:
    """Return the figure everything is compared by."""
    return sample.cpu_us_per_event


def delivered(sample: Sample) -> float | None:
    """Return the share of deliveries made."""
    return sample.delivered


def p99(sample: Sample) -> float | None:
    """Return the delay that one delivery in a hundred exceeds."""
    return sample.p99_ms


# --- measuring ------------------------------------------------------------------------------------------------


def take(contender: Contender, loads: list[Load], number: int, seconds: float, results: Results) -> None:
    """Take one server through the loads, in one life as long as it keeps up, and note what came of it."""
    left = list(loads)
    while left:
        try:
            with started(contender) as running:
                _take_while_it_keeps_up(contender, running, left, number, seconds, results)
        except NotInstalled as reason:
            results.missing["", contender.name] = str(reason)
            say(f"{contender.name}: {reason}")
            return
        except Exception as failure:  # One server's end is no reason to lose what the others have shown.
            why = f"{type(failure).__name__}: {failure}"[:300]
            _leave_out(results, contender, loads, why)
            say(f"round {number}: {contender.name}: {why}")
            return


def _take_while_it_keeps_up(
    contender: Contender, running: Running, left: list[Load], number: int, seconds: float, results: Results
) -> None:
    """Take loads off `left` until one is not delivered whole, after which only a new life would be fair."""
    empty = resident_kib(*running.pids)
    with running.crowd(max(load.viewers for load in left)) as client:
        viewers = 0
        while left:
            load = left.pop(0)
            try:
                viewers = open_up_to(client, running, viewers, load.viewers)
                each = (resident_kib(*running.pids) - empty) / viewers
                results.idle_kib.setdefault(contender.name, {}).setdefault(number, each)
                taken = take_load(client, contender, running, load, number, seconds, results)
            except CrowdFailed as failure:
                _leave_out(results, contender, [load], str(failure))
                say(f"round {number} {load.title}: {contender.name}: {failure}")
                return
            best = max(sample.delivered for sample in taken)
            if best < HOPELESS:
                # Heavier loads would show the same, for minutes.
                _leave_out(results, contender, left, f"delivered {best:.0%} of {load.title}")
                left.clear()
            if min(sample.delivered for sample in taken) < 1:
                return


def take_load(
    client: Crowd,
    contender: Contender,
    running: Running,
    load: Load,
    number: int,
    seconds: float,
    results: Results,
) -> list[Sample]:
    """Measure one load, with every kind of event that is asked for, and note the samples."""
    taken = []
    for name, kind in kinds(contender, load):
        sample = measure(client, running, kind=kind, per_s=load.per_s, seconds=seconds)
        results.samples.setdefault((load.name, name), {})[number] = sample
        say(f"round {number} {load.title}: {name}: {line(sample)}")
        taken.append(sample)
    return taken


def _leave_out(results: Results, contender: Contender, loads: list[Load], why: str) -> None:
    """Say why loads were not measured, where no other round has."""
    for load in loads:
        if (load.name, contender.name) not in results.samples:
            results.missing[load.name, contender.name] = why


def kinds(contender: Contender, load: Load) -> list[tuple[str, str]]:
    """Return under which names which kinds of event are measured."""
    if contender is not ENGINE:
        return [(contender.name, "chat")]
    if load.name == "a":
        return [(ENGINE.name, "fact"), (COMMENTS, "chat")]
    return [(ENGINE.name, "chat")]


def line(sample: Sample) -> str:
    """Return a sample in a few words."""
    return (
        f"{shown(sample.cpu_us_per_event)} us/event, {sample.delivered:.1%}, p99 {sample.p99_ms:.0f} ms,"
        f" client {sample.client_busy:.0%}"
    )


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> tuple[Results, Figures, int]:
    """Measure everything; return it with the number of whole rounds."""
    results, figures = Results(), Figures()
    wanted = [name.strip() for name in options.only.split(",")] if options.only else None
    contenders = [each for each in CONTENDERS if wanted is None or each.name in wanted]
    loads = [load for load in LOADS if load.name in options.loads.split(",")]
    results.peers = {each.name for each in contenders if each.is_peer}
    parts = [part for part in options.gateway.split(",") if part]
    began = time.monotonic()
    longest, number = 0.0, 0
    while number < options.rounds and contenders and loads:
        spent = time.monotonic() - began
        if number and spent + longest > options.budget:
            say(f"{number} of {options.rounds} rounds: another would not fit into {options.budget:.0f} s")
            break
        number += 1
        round_began = time.monotonic()
        for place in range(len(contenders)):
            contender = contenders[(place + number - 1) % len(contenders)]
            if time.monotonic() - began > options.budget:
                _leave_out(results, contender, loads, f"the {options.budget:.0f} s were used up")
            elif ("", contender.name) not in results.missing:
                take(contender, loads, number, options.seconds, results)
        longest = max(longest, time.monotonic() - round_began)
        if number == 1 and parts:
            measure_parts(parts, figures, say, until=began + options.budget)
    if not number and parts:
        measure_parts(parts, figures, say, until=began + options.budget)
    return results, figures, number


# --- the report -----------------------------------------------------------------------------------------------


def load_table(load: Load, results: Results, names: list[str]) -> list[str]:
    """Return one load as a table, cheapest first; who is missing stands last, with the reason."""
    rows, without = [], []
    for name in names:
        if (load.name, name) not in results.samples:
            reason = results.missing.get((load.name, name)) or results.missing.get(("", name))
            if reason:
                without.append([name, f"not measured: {reason}", *[""] * 9])
            continue
        taken = results.samples[load.name, name]
        idle = median(results.idle_kib.get(name.partition(",")[0] if name == COMMENTS else name, {}).values())
        share = results.middle(load.name, name, delivered) or 0.0
        faulty = any(sample.gaps or sample.repeats for sample in taken.values())
        rows.append(
            (
                results.middle(load.name, name, cpu),
                [
                    name,
                    shown(results.middle(load.name, name, cpu)),
                    shown(results.ratio(load.name, name, BARE.name)),
                    f"{share:.1%}" + (" (!)" if faulty else ""),
                    shown(results.middle(load.name, name, lambda each: each.p50_ms), 0),
                    shown(results.middle(load.name, name, p99), 0),
                    shown(results.middle(load.name, name, lambda each: each.events_per_frame), 1),
                    shown(results.middle(load.name, name, lambda each: each.bytes_per_event), 0),
                    shown(results.middle(load.name, name, lambda each: each.peak_kib / 1024), 0),
                    shown(idle, 1),
                    shown(results.middle(load.name, name, lambda each: each.client_busy * 100), 0)
                    + " %"
                    + (" ‡" if any(sample.client_saturated for sample in taken.values()) else ""),
                ],
            )
        )
    rows.sort(key=lambda pair: float("inf") if pair[0] is None else pair[0])
    columns = [
        "server",
        "CPU µs per delivered event",
        "× bare",
        "delivered",
        "p50 ms",
        "p99 ms",
        "events per frame",
    ]
    columns += ["bytes per event", "peak MiB", "idle KiB per viewer", "client busy"]
    return [
        f"## {load.title}: {load.viewers:,} viewers, {load.per_s:g} events/s",
        "",
        *table(columns, [row for _, row in rows] + without),
        "",
    ]


Line = tuple[str, str, str, str]


def verdicts(results: Results, figures: Figures) -> list[Line]:
    """Judge what was measured, line by line."""
    lines: list[Line] = []
    engine = ENGINE.name
    measured = {load for load, name in results.samples if name == engine}
    if "a" in measured:
        together = results.middle("a", engine, lambda each: each.events_per_frame)
        lines.append(verdict("(a) events per frame", together, TOGETHER_MAX))
        if together is None or together > TOGETHER_MAX:
            # It is then cheaper for another reason than the one that is asked about.
            reason = "not comparable: the engine's events shared frames"
            lines.append(("(a) CPU per event ÷ bare transport", "≤ 1.25 ×", "–", reason))
            lines.append(("(a) below every peer: CPU per event ÷ best peer", "≤ 1 ×", "–", reason))
        else:
            ratio = results.ratio("a", engine, BARE.name)
            lines.append(verdict("(a) CPU per event ÷ bare transport", ratio, 1.25, " ×"))
            lines += _against_best(results, "a", "(a) below every peer: CPU per event ÷ best peer", 1.0)
    if "b" in measured:
        lines += _whole(results, "b")
        lines += _against_best(results, "b", "(b) CPU per event ÷ best peer", 0.35)
        lines.append(verdict("(b) p99", results.middle("b", engine, p99), 200, " ms", digits=0))
    if "c" in measured:
        lines += _whole(results, "c")
        lines.append(verdict("(c) p99", results.middle("c", engine, p99), 400, " ms", digits=0))
        lines += _against_best(
            results, "c", "(c) CPU per event ÷ best peer that delivers all", 0.5, whole_only=True
        )
    return lines + gateway_verdicts(figures)


def _whole(results: Results, load: str) -> list[Line]:
    share = results.middle(load, ENGINE.name, lambda each: each.delivered * 100)
    return [verdict(f"({load}) delivered", share, 100, " %", least=True, digits=2)]


def _against_best(
    results: Results, load: str, what: str, limit: float, *, whole_only: bool = False
) -> list[Line]:
    best = results.best_peer(load, whole_only=whole_only)
    if best is None:
        reason = (
            "not measured"
            if not results.peers
            else "no peer delivered all"
            if whole_only
            else "no peer measured"
        )
        return [(what, f"≤ {limit:g} ×", "–", reason)]
    return [verdict(f"{what} ({best})", results.ratio(load, ENGINE.name, best), limit, " ×")]


def report(found: Mapping[str, Any], results: Results, figures: Figures, rounds: int) -> str:
    """Return the run in Markdown."""
    lines = heading("Comparison", dict(found))
    lines += [
        f"- {rounds} rounds of {found['seconds']:g} s a load, medians; ratios within a round",
        f"- client: {found['client']}",
        f"- Node.js {found['node'] or 'absent'}; {found['nginx'] or 'no nginx'}",
    ]
    if found["load_before"] > LOAD_MAX:
        lines.append("- **The machine had other work: delays and ratios below are no evidence.**")
    lines.append("")
    judged = verdicts(results, figures)
    if judged:
        lines += ["## Verdict", "", *table(["what", "asked", "measured", "verdict"], judged), ""]
    names = [ENGINE.name, COMMENTS, *(each.name for each in CONTENDERS if each is not ENGINE)]
    for load in LOADS:
        if any(name == load.name for name, _ in results.samples):
            lines += load_table(load, results, names)
    store = results.middle("b", ENGINE.name, lambda each: each.store_us_per_event)
    lines += gateway_table(figures)
    lines += ["## Notes", ""]
    lines += [f"- **{each.name}**: {each.note}" for each in CONTENDERS]
    lines += [
        "- **Events.** 200 bytes of JSON each, written by one WebSocket connection at intended moments. Socket.IO's "
        "are a few bytes longer by its own prefix, arrays of one by their brackets.",
        f"- **Events of {ENGINE.name} in (a)** are notices, that is facts, which leave at once; `{COMMENTS}` are "
        "what a user sees by default: coalesced. A fact costs the engine more: it is also logged and audited.",
        "- **Delivered** within 1 s of the last intended moment, of all events times all viewers; (!) marks events "
        "that came twice, out of order or not at all although later ones did.",
        "- **CPU** is user and system time of the server's processes, kernel work for its sockets included; on "
        "loopback a `send` also pays for the receiver's side of the kernel."
        + (
            f" The engine's store, on the other CPU, adds {shown(store, 3)} µs per delivered event in (b)."
            if store
            else ""
        ),
        "- **Memory** is resident; sockets' buffers are the kernel's and in nobody's figure. Idle: 2,000 joined "
        "viewers above the empty server.",
        "- ‡ The client used more than 90 % of its CPU or published late: delays are then its own too. CPU per event "
        "of the server still holds.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--loads", default="a,b,c")
    parser.add_argument(
        "--only", help="servers by their names in the table, comma-separated; all if not given"
    )
    parser.add_argument(
        "--gateway",
        default=",".join(PARTS),
        help=f"parts of bench_gateway.py, or none with --gateway '': {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, help="seconds beyond which nothing more is begun"
    )
    parser.add_argument(
        "--save", metavar="NAME", default="", help="results/compare-NAME.{json,md}; else the commit"
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    found: dict[str, Any] = record("compare")
    found["client"], found["seconds"] = client_said(), options.seconds
    began = time.monotonic()
    results, figures, rounds = run(options)
    found["node"] = peers.version_of_node()
    found["nginx"] = peers.version_of_nginx(peers.PEERS / "debian" / "root")
    found["took_s"] = round(time.monotonic() - began, 1)
    said = report(found, results, figures, rounds)
    print(said)
    if options.no_save:
        return
    name = options.save or found["commit"][:7]
    RESULTS.mkdir(exist_ok=True)
    found["samples"] = [
        {
            "load": load,
            "server": server,
            "rounds": {number: asdict(sample) for number, sample in taken.items()},
        }
        for (load, server), taken in results.samples.items()
    ]
    found["idle_kib_per_viewer"] = results.idle_kib
    found["missing"] = [
        {"load": load, "server": server, "why": why} for (load, server), why in results.missing.items()
    ]
    found["gateway"] = figures.as_json()
    found["verdict"] = [
        dict(zip(("what", "asked", "measured", "verdict"), each, strict=True))
        for each in verdicts(results, figures)
    ]
    (RESULTS / f"compare-{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (RESULTS / f"compare-{name}.md").write_text(said, "utf-8")
    say(f"saved as {RESULTS.name}/compare-{name}.{{json,md}} after {found['took_s']:.0f} s")


if __name__ == "__main__":
    main()
