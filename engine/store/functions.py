"""
The function library: Lua files → one text with a name made from its hash.

Decides the library's name, the names of its functions and the order in which files are joined. Each feature's file is
wrapped in its own block, so only `prelude.lua` is shared. Content-addressed names let two versions of the engine
share a store during a deploy; loading is without REPLACE, and "already exists" is success.

Does not talk to the store (`engine/store/link.py` loads it).
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

_PRELUDE = "prelude.lua"


@dataclass(frozen=True, slots=True)
class Library:
    """The text to load and the prefix of its functions."""

    name: str
    prefix: str
    text: str

    def function(self, name: str) -> str:
        """Return the registered name of a function as it is called in the source."""
        return self.prefix + name


@cache
def library() -> Library:
    """Return the library of this version of the engine."""
    folder = resources.files("engine.store") / "lua"
    sources = {
        entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".lua")
    }
    body = [sources.pop(_PRELUDE)]
    # In order of name: `ledger` stands before `orders` and `seckill`, which take it apart while they load.
    body.extend(f"do\n{sources[name]}\nend" for name in sorted(sources))
    joined = "\n".join(body)
    digest = hashlib.sha256(joined.encode()).hexdigest()[:8]
    name, prefix = f"liveroom_{digest}", f"lr{digest}_"
    assert "'PREFIX'" in joined
    text = f"#!lua name={name}\n" + joined.replace("'PREFIX'", f"'{prefix}'")
    return Library(name=name, prefix=prefix, text=text)
