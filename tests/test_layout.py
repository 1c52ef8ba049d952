"""
The layout: which package may import which, and what stands in one place only.

Decides nothing itself: docs/architecture.md draws the arrows, this reads the source with `ast` and compares. A module
that does not exist yet is simply not there.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Part → what it may import of the project besides itself. The longest prefix of a module's name is its part.
ARROWS: dict[str, set[str]] = {
    "protocol": set(),
    "loadtest": {"protocol"},
    "engine.errors": {"protocol"},
    "engine.clock": {"engine.errors"},
    "engine.tokens": {"protocol", "engine.errors"},
    "engine.config": {"protocol", "engine.errors", "engine.tokens"},
    "engine.telemetry": {"protocol", "engine.errors", "engine.config"},
    "engine.rooms": {"protocol", "engine.errors"},
    "engine.store": {
        "protocol",
        "engine.errors",
        "engine.clock",
        "engine.config",
        "engine.telemetry",
        "engine.rooms",
    },
    "engine.fanout": {
        "protocol",
        "engine.errors",
        "engine.clock",
        "engine.config",
        "engine.telemetry",
        "engine.rooms",
        # Rooms are loaded and recovered from the store, and channels are named by its keys.
        "engine.store",
    },
}
#: Gateway, HTTP, timers and the rest of the engine below `app` stand on everything above, and on each other.
_SERVING = {*ARROWS, "engine.gateway", "engine.http", "engine.timers", "engine.web"} - {"loadtest"}
ARROWS |= dict.fromkeys(("engine.gateway", "engine.http", "engine.timers", "engine.web"), _SERVING)
ARROWS["engine.app"] = _SERVING
# Above the application: the processes of `--workers`, and the demo, whose crowd is the load test's.
ARROWS["engine.workers"] = _SERVING | {"engine.app"}
ARROWS["engine.demo"] = _SERVING | {"engine.app", "loadtest"}
# The plan asks the fan-out for its rhythm and nothing else.
ARROWS["engine.plan"] = {"engine.fanout"}
ARROWS["engine.cli"] = _SERVING | {"engine.app", "engine.workers", "engine.demo", "engine.plan"}

FOLDERS = {"protocol", "engine", "loadtest", "tests", "benchmarks", "docs", ".ci"}
CODECS = {"orjson", "msgpack", "msgspec"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*packages: str) -> dict[str, ast.Module]:
    """Return the parsed modules of the packages by name."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths}


PRODUCT = sources("protocol", "engine", "loadtest")


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield every module that `name` imports, at any depth of the code; relative ones made absolute."""
    package = name if (ROOT / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            # `from engine import tokens` imports engine.tokens; `from engine.tokens import Claims` imports no more.
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in PRODUCT else base


def part_of(module: str) -> str:
    """Return the part of the project that `module` belongs to."""
    fitting = [part for part in ARROWS if module == part or module.startswith(f"{part}.")]
    return max(fitting, key=len) if fitting else module.partition(".")[0]


def is_called(tree: ast.Module, owner: str, attribute: str) -> bool:
    """Tell whether the module uses `owner.attribute`, or imports `attribute` from `owner`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=found) if (name, found) == (owner, attribute):
                return True
            case ast.ImportFrom(module=name, names=names) if name == owner:
                if any(alias.name == attribute for alias in names):
                    return True
    return False


def project_modules() -> list[str]:
    # `engine` itself and `__main__` only start what stands below them.
    return [name for name in PRODUCT if part_of(name) in ARROWS]


@pytest.mark.parametrize("name", project_modules())
def test_imports_point_one_way(name: str) -> None:
    part = part_of(name)
    found = {part_of(module) for module in imports(name, PRODUCT[name]) if module.split(".")[0] in FOLDERS}

    assert found - {part} <= ARROWS[part], f"{name} imports {sorted(found - {part} - ARROWS[part])}"


def test_engine_modules_all_have_a_place_in_the_arrows() -> None:
    entrances = {"engine", "engine.__main__"}

    assert {name for name in PRODUCT if part_of(name) not in ARROWS} <= entrances


def test_protocol_stands_on_the_standard_library_and_the_codecs() -> None:
    allowed = (
        (set(sys.stdlib_module_names) - {"asyncio", "socket", "selectors", "threading"})
        | CODECS
        | {"protocol"}
    )
    for name, tree in sources("protocol").items():
        assert {module.split(".")[0] for module in imports(name, tree)} <= allowed, name


def test_loadtest_never_imports_the_engine() -> None:
    for name, tree in sources("loadtest").items():
        assert "engine" not in {module.split(".")[0] for module in imports(name, tree)}, name


def test_product_never_imports_tests_or_benchmarks() -> None:
    for name, tree in PRODUCT.items():
        assert not {"tests", "benchmarks"} & {module.split(".")[0] for module in imports(name, tree)}, name


def test_rooms_decide_without_input_or_output() -> None:
    for name, tree in PRODUCT.items():
        if name.startswith("engine.rooms"):
            found = {module.split(".")[0] for module in imports(name, tree)}
            assert not found & {"asyncio", "redis", "socket", "aiohttp", "websockets", "time"}, name


def test_only_the_store_and_the_bus_know_redis() -> None:
    allowed = ("engine.store", "engine.fanout.bus")
    found = {
        name for name, tree in PRODUCT.items() if "redis" in {m.split(".")[0] for m in imports(name, tree)}
    }

    assert {name for name in found if not name.startswith(allowed)} == set()


def test_only_one_module_spells_key_names() -> None:
    spelled = set()
    for name, tree in PRODUCT.items():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docstrings and "lr:{" in str(node.value):
                spelled.add(name)

    assert spelled <= {"engine.store.keys"}


def test_only_the_command_lines_end_the_process() -> None:
    found = {name for name, tree in PRODUCT.items() if is_called(tree, "sys", "exit")}

    assert {
        name
        for name in found
        if name not in ("engine.cli", "loadtest.cli") and not name.endswith(".__main__")
    } == set()


def test_only_the_configuration_reads_the_environment() -> None:
    found = {
        name
        for name, tree in PRODUCT.items()
        if is_called(tree, "os", "environ") or is_called(tree, "os", "getenv")
    }

    assert found <= {"engine.config"}


def test_no_module_is_a_drawer_for_leftovers() -> None:
    names = {name.rpartition(".")[2] for name in (*PRODUCT, *sources("tests", "benchmarks"))}

    assert not names & {"helpers", "utils", "util", "misc", "common"}


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}

    assert {str(folder) for folder in folders if not (folder / "__init__.py").exists()} == set()


# --- what is committed ----------------------------------------------------------------------------------------


def committed() -> list[str]:
    """Return the paths git knows, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_top_level_folders_are_the_fixed_ones() -> None:
    assert {name.split("/")[0] for name in committed() if "/" in name} <= FOLDERS


#: Hosts that packages are downloaded from. Split so that this file does not hold what it looks for.
_REGISTRY_HOSTS = [
    "py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs", "registry." + "yarnpkg", "deb." + "debian.org",
    "proxy." + "golang.org", "crates" + ".io", "py" + "pi.tuna", "mirrors" + r"\.",
]  # fmt: skip
_REGISTRY = re.compile(r"https?://[^\s\"'<>]*(?:" + "|".join(_REGISTRY_HOSTS) + ")", re.IGNORECASE)
_MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home)/[\w.-]")


def test_no_committed_text_names_a_registry_or_a_path_of_a_machine() -> None:
    found = []
    for name in committed():
        data = (ROOT / name).read_bytes()
        if b"\0" in data[:8192]:
            continue
        text = data.decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if _REGISTRY.search(line) or _MACHINE_PATH.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")

    assert found == []


def test_patterns_find_what_they_look_for() -> None:
    assert _REGISTRY.search("see https://" + "py" + "pi.org/simple/x")
    assert _REGISTRY.search("http://" + "registry." + "npmjs.org/x")
    assert not _REGISTRY.search("https://shop.example.com/tea")
    assert _MACHINE_PATH.search('path = "' + "/ho" + 'me/somebody/x"')
    assert not _MACHINE_PATH.search("engine/work/x https://a.example/root/x")
