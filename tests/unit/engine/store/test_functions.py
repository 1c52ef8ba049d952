"""The function library's text: content-addressed names, one prelude, blocks that share nothing else."""

import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys

FOLDER = resources.files("engine.store") / "lua"
SOURCES = {entry.name: entry.read_text("utf-8") for entry in FOLDER.iterdir() if entry.name.endswith(".lua")}
FEATURES = sorted(set(SOURCES) - {"prelude.lua"})
REGISTERED = re.compile(r"^register\('(\w+)', (\w+)", re.MULTILINE)
ROOT = Path(__file__).parents[4]
README = (FOLDER / "README.md").read_text("utf-8")


def test_library_begins_with_its_name() -> None:
    found = library()

    assert found.text.startswith(f"#!lua name={found.name}\n")
    assert re.fullmatch(r"liveroom_[0-9a-f]{8}", found.name)


def test_names_carry_the_hash_of_the_text() -> None:
    found = library()
    digest = found.name.removeprefix("liveroom_")
    source = found.text.partition("\n")[2].replace(f"'{found.prefix}'", "'PREFIX'")

    assert hashlib.sha256(source.encode()).hexdigest()[:8] == digest
    assert found.prefix == f"lr{digest}_"
    assert found.function("room_put") == f"lr{digest}_room_put"


def test_library_is_made_once() -> None:
    assert library() is library()


def test_prelude_comes_first_and_every_file_is_in() -> None:
    text = library().text
    places = [text.index(SOURCES[name].replace("'PREFIX'", f"'{library().prefix}'")) for name in SOURCES]

    assert min(places) == text.index("\n") + 1
    assert text.index("--[[\n  prelude:") == min(places)
    assert len(set(places)) == len(SOURCES)


@pytest.mark.parametrize("name", FEATURES)
def test_features_stand_in_blocks_of_their_own(name: str) -> None:
    assert f"do\n{SOURCES[name]}\nend" in library().text


def test_no_two_functions_have_one_name() -> None:
    names = [name for source in SOURCES.values() for name, _ in REGISTERED.findall(source)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", FEATURES)
def test_function_is_registered_under_its_own_name(name: str) -> None:
    registered = REGISTERED.findall(SOURCES[name])

    # The ledger is what sales and orders share; it offers nothing to callers.
    assert bool(registered) is (name != "ledger.lua")
    assert all(called == function for called, function in registered)


@pytest.mark.parametrize("name", FEATURES)
def test_every_function_states_keys_arguments_and_reply_before_it(name: str) -> None:
    source = SOURCES[name]
    headers = re.findall(r"--\[\[(.*?)\]\]", source, re.DOTALL)
    for function, _ in REGISTERED.findall(source):
        (header,) = [
            text for text in headers if re.search(rf"^\s*(\w+, )*{function}\b[,:]", text, re.MULTILINE)
        ]
        for part in ("keys", "args", "reply"):
            assert re.search(rf"^\s*{part}\b", header, re.MULTILINE), f"{function} does not state its {part}"


@pytest.mark.parametrize("name", FEATURES)
def test_header_names_the_tests_that_exist(name: str) -> None:
    named = set(re.findall(r"tests/lua/test_\w+\.py", SOURCES[name]))

    assert named
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize("name", SOURCES)
def test_time_and_chance_come_from_outside(name: str) -> None:
    for forbidden in ("math.random", "os.time", "os.clock", "loadstring", "cjson"):
        assert forbidden not in SOURCES[name]


@pytest.mark.parametrize("name", SOURCES)
def test_keys_are_passed_in_and_never_spelled(name: str) -> None:
    code = re.sub(r"--\[\[.*?\]\]|--[^\n]*", "", SOURCES[name], flags=re.DOTALL)

    assert "lr:" not in code


@pytest.mark.parametrize("name", FEATURES)
def test_readme_lists_every_function(name: str) -> None:
    for function, _ in REGISTERED.findall(SOURCES[name]):
        assert f"`{function}`" in README, f"{function} is not in engine/store/lua/README.md"


def test_readme_lists_every_key_of_a_room() -> None:
    names = RoomKeys(RoomKey("t", "r"))
    for slot in set(RoomKeys.__slots__) - {"prefix"}:
        key = getattr(names, slot).removeprefix(names.prefix)
        assert f"`{key}`" in README, f"{key} is not in engine/store/lua/README.md"


def test_readme_names_no_function_that_does_not_exist() -> None:
    _, _, table = README.partition("## Functions")
    named = set(re.findall(r"`(\w+_\w+)`", table.partition("## Keys")[0]))
    registered = {name for source in SOURCES.values() for name, _ in REGISTERED.findall(source)}

    assert named == registered
