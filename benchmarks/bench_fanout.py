"""
What does it cost the engine to deliver one event to one viewer, by size of the room, rate, codec and kind of event?

Method: one `liveroom serve --dev` with its private store, its CPU for itself (benchmarks/machine.py). A crowd
(benchmarks/crowd.py) joins a room with a token each; one moderator among it writes at a steady rate over WebSocket:
comments of 200 bytes, or notices, which are facts and so each make a flush of their own. For every size the rates
follow each other on the same connections, each after a second of warm-up. Every event must arrive at every viewer, once
and in order; delays count from the intended moment. CPU is the server's, per delivered event, from /proc.

What depends on the viewers and what does not is separated by the last two columns: CPU per frame, and the server's
share of its CPU.

    python -m benchmarks fanout --viewers 100,2000 --rates 30,100 --save first
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import engine
from benchmarks.crowd import CrowdFailed, client_said
from benchmarks.delivery import Sample, measure, open_up_to
from benchmarks.figures import shown, table
from benchmarks.machine import heading, record

VIEWERS: Final = (100, 1_000, 2_000, 10_000)
RATES: Final = (10.0, 40.0, 100.0)
#: Deliveries a second above which one worker is not asked: two thirds of a core at the cheapest measured.
DELIVERIES_PER_S_MAX: Final = 500_000.0
RESULTS: Final = Path(__file__).with_name("results")


def sweep(
    viewers: list[int], rates: list[float], codecs: list[str], kinds: list[str], seconds: float
) -> list[dict[str, Any]]:
    """Measure every combination; return a row for each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="liveroom-fanout-") as folder, engine(Path(folder)) as running:
        for codec in codecs:
            for size in viewers:
                room = f"room-{codec}-{size}"
                asyncio.run(running.open_room(room))
                here = running.running(room, codec=codec)
                with here.crowd(size) as client:
                    open_up_to(client, here, 0, size)
                    for kind in kinds:
                        for rate in rates:
                            if size * rate > DELIVERIES_PER_S_MAX:
                                continue
                            sample = measure(client, here, kind=kind, per_s=rate, seconds=seconds)
                            row = {"codec": codec, "viewers": size, "kind": kind, "per_s": rate}
                            rows.append({**row, **asdict(sample)})
                            print(_line(rows[-1], sample), file=sys.stderr, flush=True)
    return rows


def _line(row: dict[str, Any], sample: Sample) -> str:
    return (
        f"{row['codec']} {row['viewers']} viewers {row['kind']} {row['per_s']:g}/s:"
        f" {shown(sample.cpu_us_per_event)} us/event, {sample.delivered:.1%}, p99 {sample.p99_ms:.0f} ms"
    )


def report(found: dict[str, Any]) -> str:
    """Return the record in Markdown."""
    rows = []
    for row in found["rows"]:
        each, per_frame = row["cpu_us_per_event"], row["events_per_frame"]
        rows.append(
            [
                row["codec"],
                row["kind"],
                f"{row['viewers']:,}",
                f"{row['per_s']:g}",
                shown(each),
                f"{row['delivered']:.1%}" + ("" if row["whole"] or row["delivered"] < 1 else " (!)"),
                shown(row["p50_ms"], 1),
                shown(row["p99_ms"], 1),
                shown(per_frame, 1),
                shown(each * per_frame if each is not None else None),
                f"{row['server_busy']:.0%}",
                f"{row['client_busy']:.0%}" + (" ‡" if row["client_saturated"] else ""),
            ]
        )
    columns = ["codec", "kind", "viewers", "events/s", "CPU µs per delivered event", "delivered", "p50 ms"]
    columns += ["p99 ms", "events per frame", "CPU µs per frame", "server busy", "client busy"]
    lines = [*heading("Fan-out", found), f"- client: {found['client']}", ""]
    lines += table(columns, rows, left=2)
    lines += [
        "",
        "‡ the client was near its limit or published late, so delays are its own too. A fact is a `notice`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--viewers", default=",".join(map(str, VIEWERS)))
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES))
    parser.add_argument("--codecs", default="json,msgpack")
    parser.add_argument("--kinds", default="chat,fact")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--save", metavar="NAME", help="keep the numbers as results/fanout-NAME.{json,md}")
    options = parser.parse_args()
    found = record("fanout")
    found["client"] = client_said()
    try:
        found["rows"] = sweep(
            [int(each) for each in options.viewers.split(",")],
            [float(each) for each in options.rates.split(",")],
            options.codecs.split(","),
            options.kinds.split(","),
            options.seconds,
        )
    except CrowdFailed as failure:
        sys.exit(f"fanout: {failure}")
    said = report(found)
    print(said)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"fanout-{options.save}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        (RESULTS / f"fanout-{options.save}.md").write_text(said, "utf-8")


if __name__ == "__main__":
    main()
