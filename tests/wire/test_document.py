"""docs/protocol.md says what the types say: every name is in it, and its examples are valid."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from protocol.codec import JSON
from protocol.commands import COMMANDS, KeyedCommand
from protocol.events import EVENTS
from protocol.frames import Refusal, Reply, read_commands, read_messages
from protocol.objects import WireObject
from protocol.replies import REPLIES
from protocol.schema import schemas

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
SCHEMAS = schemas()
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(contents)) for name, contents in SCHEMAS.items()
)
EXAMPLES = re.findall(r"^([→←]) (.+)$", DOCUMENT, re.MULTILINE)
BLOCKS = re.findall(r"^```text\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def row(name: str, column: int) -> list[str]:
    """Return the cells of the table row that starts with `name`, of the table that has `column` cells."""
    rows = [line.strip("|").split("|") for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |")]
    [cells] = [[cell.strip() for cell in cells] for cells in rows if len(cells) == column]
    return cells


def fields_in(cell: str) -> set[str]:
    return {name.rstrip("?") for name in re.findall(r"`([a-z_]+\??)`", cell)}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_has_a_row_with_its_fields_role_and_key(name: str) -> None:
    command = COMMANDS[name]
    cells = row(name, 5 if command.console else 4)
    role, key, fields = cells[1:4] if command.console else ("viewer", *cells[1:3])

    assert role == command.role.wire
    assert key == ("K" if issubclass(command, KeyedCommand) else "")
    assert set(command.__struct_fields__) - {"key"} <= fields_in(fields)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_event_has_a_row_with_its_class(name: str) -> None:
    assert row(name, 3)[1] == EVENTS[name].delivery.value


@pytest.mark.parametrize("kind", sorted(set(REPLIES.values()), key=lambda kind: kind.__name__))
def test_every_field_of_a_reply_is_mentioned(kind: type[WireObject]) -> None:
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", DOCUMENT))))

    assert set(kind.__struct_fields__) <= words


@pytest.mark.parametrize(("arrow", "frame"), EXAMPLES)
def test_example_is_a_valid_frame(arrow: str, frame: str) -> None:
    name = "client-frame.json" if arrow == "→" else "server-frame.json"

    Draft202012Validator({"$ref": name}, registry=REGISTRY).validate(json.loads(frame))


@pytest.mark.parametrize("frame", [frame for arrow, frame in EXAMPLES if arrow == "→"])
def test_example_from_a_client_is_accepted(frame: str) -> None:
    assert not [entry for entry in read_commands(JSON, frame.encode(), True) if isinstance(entry, Refusal)]


@pytest.mark.parametrize("block", [block for block in BLOCKS if "→" in block])
def test_every_command_of_an_exchange_is_answered_with_its_reply(block: str) -> None:
    asked: dict[int, str] = {}
    for arrow, frame in re.findall(r"^([→←]) (.+)$", block, re.MULTILINE):
        if arrow == "→":
            maps = json.loads(frame)
            asked |= {entry["id"]: entry["cmd"] for entry in (maps if isinstance(maps, list) else [maps])}
            continue
        for message in read_messages(JSON, frame.encode(), True):
            if isinstance(message, Reply) and message.ok is not None:
                definition = f"replies.json#/$defs/reply.{asked[message.id]}"
                value = {"re": message.id, "ok": message.ok}
                Draft202012Validator({"$ref": definition}, registry=REGISTRY).validate(value)
            if isinstance(message, Reply):
                del asked[message.id]

    # The command that introduces the frame's shape stands alone; its answer is the next block.
    assert asked in ({}, {7: "comment.send"})


def test_links_inside_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= headings
