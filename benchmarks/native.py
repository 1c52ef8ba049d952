"""
Our C programs, compiled where they are needed.

Decides which compiler is used, with what options, and where the result is kept: in `.build/`, under the hash of source
and command, so a changed source is compiled anew. No compiler is no error: the caller has another way or says so.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
BUILD: Final = HERE / ".build"
_OPTIONS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


class NotCompiled(Exception):
    """There is no C compiler, or it refused."""


def compiled(source: Path) -> Path:
    """
    Return the program compiled from `source`.

    Raises:
        NotCompiled: With the reason.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotCompiled("no C compiler (gcc or cc) on the PATH")
    digest = hashlib.sha256(source.read_bytes() + " ".join((compiler, *_OPTIONS)).encode()).hexdigest()[:16]
    program = BUILD / digest / source.stem
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        aside = program.with_suffix(".new")
        done = subprocess.run(
            [compiler, *_OPTIONS, "-o", str(aside), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotCompiled(f"{Path(compiler).name} refused {source.name}: {done.stderr.strip()[-300:]}")
        aside.rename(program)
    return program
