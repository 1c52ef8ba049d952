"""
List the benchmarks, or run one: `python -m benchmarks`, `python -m benchmarks claims --rounds 5`.

Decides nothing else: each benchmark reads its own arguments. Source: benchmarks/README.md.
"""

import ast
import runpy
import sys
from pathlib import Path


def questions() -> dict[str, str]:
    """Return the question of each benchmark by its short name; nothing is imported for it."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
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
    runpy.run_module(f"benchmarks.bench_{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
