"""
`python -m tests.chaos`: arguments, order, exit code.

Decides which faults are played: all, or those named. Exit codes as of the load test: 0 all survived, 1 usage, 2 a
promise was broken, 4 a bound on time was missed while the generator itself was too slow for that to say anything.
"""

import argparse
import asyncio
import resource
import signal
import sys
from datetime import datetime
from pathlib import Path

import structlog
from rich.console import Console

from loadtest.report import Exit
from tests.chaos import seclusion, table, trial
from tests.chaos.faults import catalogue
from tests.chaos.trial import Fault, Result

#: Thousands of connections are thousands of open files.
FILES_MIN = 16_384
#: Exit code of a program that was told to stop.
INTERRUPTED = 130
#: Width of the table where there is no terminal.
LOG_COLUMNS = 150


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides every plan and moment")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="may be repeated")
    parser.add_argument("--viewers", type=int, help="how many come, instead of each fault's own number")
    parser.add_argument("--out", type=Path, help="folder of the results; default below chaos-out")
    parser.add_argument("--list", action="store_true", help="show the faults and end")
    return parser.parse_args()


def _play(faults: list[Fault], arguments: argparse.Namespace, out: Path, console: Console) -> list[Result]:
    results: list[Result] = []
    for fault in faults:
        console.print(f"{datetime.now().astimezone():%H:%M:%S} {fault.name}: {fault.what}", markup=False)
        # A loop each: whatever a trial that broke off has left running ends with it.
        result = asyncio.run(_play_one(fault, arguments, out / fault.name))
        results.append(result)
        healthy = "never healthy" if result.healthy_s is None else f"healthy after {result.healthy_s:.1f} s"
        said = "; ".join([result.verdict, *result.wrongs[:3], *result.missed, healthy])
        console.print(f"         {said}; took {result.took_s:.0f} s", markup=False)
        # Whatever happens next, what is known is on the disk.
        table.write(results, out)
    return results


async def _play_one(fault: Fault, arguments: argparse.Namespace, keep: Path) -> Result:
    # Told to stop, it ends what it has started first, as it does on Ctrl-C.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await trial.play(fault, arguments.seed, arguments.viewers, keep)


def main() -> int:
    """Play, show, write down. Returns the exit code."""
    arguments = _arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_COLUMNS)
    refused = None if arguments.list else seclusion.enter()
    faults = catalogue(secluded=refused is None)
    if arguments.list:
        for fault in faults:
            console.print(f"{fault.name:24} {fault.what}", markup=False, soft_wrap=True)
        return 0
    unknown = set(arguments.only) - {fault.name for fault in faults}
    if unknown:
        console.print(f"no such fault: {', '.join(sorted(unknown))}; --list shows them", markup=False)
        return Exit.USAGE
    if refused is not None:
        console.print(f"no namespaces of our own ({refused}); some faults are played in another way")
    if arguments.only:
        faults = [fault for fault in faults if fault.name in arguments.only]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_MIN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES_MIN, hard), hard))
    out = (
        arguments.out
        or Path("chaos-out") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-seed-{arguments.seed}"
    )
    out.mkdir(parents=True, exist_ok=True)
    with (out / "stores.log").open("w") as log:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=log))
        try:
            results = _play(faults, arguments, out, console)
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print(f"told to stop; what is known so far is in {out}", markup=False)
            return INTERRUPTED
    table.show(console, results)
    console.print(f"written to {out}", markup=False)
    if all(result.passed for result in results):
        return Exit.PASS
    told = any(result.wrongs or (result.missed and not result.saturated) for result in results)
    return Exit.VIOLATED if told else Exit.SATURATED


if __name__ == "__main__":
    sys.exit(main())
