"""
List the benchmarks, or run one: `python -m benchmarks`, `python -m benchmarks claims --rounds 5`.

The comparison with other servers is one of them: `python -m benchmarks compare`.

Decides nothing else: each benchmark reads its own arguments. Source: benchmarks/README.md.
"""

import ast
import runpy
import sys
from pathlib import Path


def questions() -> dict[str, str]:
    """Return the question of each benchmark by its short name; nothing is imported for it."""
    here = Path(__file__).parent
    found = {}
    for path in [*sorted(here.glob("bench_*.py")), here / "compare.py"]:
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "(no question)"
        found[path.stem.removeprefix("bench_")] = said.splitlines()[0]
    return found


def main() -> None:
    """Run from the command line."""
    found = questions()
    if len(sys.argv) < 2:
        width = max(map(len, found), default=0)
        for name, question in found.items():
            print(f"{name:<{width}}  {question}")
        return
    name = sys.argv[1]
    if name not in found:
        sys.exit(f"no benchmark {name!r}; there is: {', '.join(found)}")
    del sys.argv[1]
    module = "benchmarks.compare" if name == "compare" else f"benchmarks.bench_{name}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
