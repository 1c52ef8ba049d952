"""Generated documents: not stale, true of what travels, and sound as AsyncAPI 3.0."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from protocol import schema
from protocol.codes import CloseCode, ErrorCode, EventClass
from protocol.commands import COMMANDS
from protocol.events import EVENTS
from protocol.replies import REPLIES
from tests.support.wire_examples import golden_values

DOCS = Path(__file__).parents[3] / "docs"
GENERATED = schema.files()
SCHEMAS = schema.schemas()
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(contents)) for name, contents in SCHEMAS.items()
)
GOLDEN_VALUES = golden_values()
DOCUMENT = yaml.safe_load(GENERATED["asyncapi.yaml"])


def validator(name: str, part: str = "") -> Draft202012Validator:
    """Return a validator for a schema file or, with `part`, for one of its definitions."""
    reference = f"{name}#/$defs/{part}" if part else name
    return Draft202012Validator({"$ref": reference}, registry=REGISTRY)


# --- drift --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_committed_file_is_what_the_types_generate(name: str) -> None:
    """When this fails: `make docs`, and read what changed."""
    assert (DOCS / name).read_text(encoding="utf-8") == GENERATED[name]


def test_no_schema_file_is_left_over() -> None:
    # The schema of scenarios is the load test's: tests/unit/loadtest/test_template.py.
    wire = {path.name for path in (DOCS / "schemas").iterdir()} - {"scenario.json"}

    assert {f"schemas/{name}" for name in wire} == set(GENERATED) - {"asyncapi.yaml"}


def test_generating_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    written = schema.write(tmp_path)

    assert {
        str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in written
    } == schema.files()


# --- the schemas are true -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schema_is_valid_itself(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", sorted(GOLDEN_VALUES))
def test_golden_frame_is_valid(name: str) -> None:
    client = name.startswith("commands/") or name == "frames/many_commands"

    validator("client-frame.json" if client else "server-frame.json").validate(GOLDEN_VALUES[name])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_golden_command_is_valid_against_its_own_schema(name: str) -> None:
    validator("commands.json", COMMANDS[name].__name__).validate(GOLDEN_VALUES[f"commands/{name}"])


@pytest.mark.parametrize("name", sorted(REPLIES))
def test_golden_reply_is_valid_against_its_own_schema(name: str) -> None:
    [message] = GOLDEN_VALUES[f"replies/{name}"]

    validator("replies.json", f"reply.{name}").validate(message)


@pytest.mark.parametrize("code", ErrorCode)
def test_golden_refusal_is_valid_against_its_own_schema(code: ErrorCode) -> None:
    [message] = GOLDEN_VALUES[f"errors/{code}"]

    validator("replies.json", "error").validate(message)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_golden_event_is_valid_against_its_own_schema(name: str) -> None:
    [message] = GOLDEN_VALUES[f"events/{name}"]

    validator("events.json", EVENTS[name].__name__).validate(message)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_without_a_required_field_is_invalid(name: str) -> None:
    definition = SCHEMAS["commands.json"]["$defs"][COMMANDS[name].__name__]
    check = validator("commands.json", COMMANDS[name].__name__)

    assert {"cmd", "id"} <= set(definition["required"])
    for field in definition["required"]:
        message = {key: value for key, value in GOLDEN_VALUES[f"commands/{name}"].items() if key != field}
        assert not check.is_valid(message), field


@pytest.mark.parametrize(
    "change",
    [
        {"id": 0},
        {"id": 2**32},
        {"id": "1"},
        {"key": "short"},
        {"sale": "a b"},
        {"sale": "a\n"},
        {"qty": 0},
        {"qty": 2**53},
    ],
    ids=repr,
)
def test_command_out_of_bounds_is_invalid(change: dict[str, Any]) -> None:
    message = {**GOLDEN_VALUES["commands/seckill.claim"], **change}

    assert not validator("client-frame.json").is_valid(message)


def test_frames_have_their_shape() -> None:
    ping = {"cmd": "ping", "id": 1}
    client, server = validator("client-frame.json"), validator("server-frame.json")

    assert client.is_valid([])
    assert client.is_valid([ping] * 32)
    assert not client.is_valid([ping] * 33)
    assert not client.is_valid([[ping]])
    assert server.is_valid([{"ev": "from.a.later.version", "x": 1}])
    assert not server.is_valid([{"ev": "likes"}])
    assert not server.is_valid({"ev": "likes", "total": 1})


# --- AsyncAPI 3.0 ---------------------------------------------------------------------------------------------
# docs/decisions/0004-asyncapi-validation.md says why these rules are spelled here.


def walk(value: Any, path: str = "#") -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}/{index}")


def resolve(reference: str) -> Any:
    """Return what a local reference points at. Raises KeyError."""
    assert reference.startswith("#/"), reference
    value = DOCUMENT
    for part in reference[2:].split("/"):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    return value


#: Object of the specification → (required fields, other fields we use). "Fixed Fields" of AsyncAPI 3.0.0.
FIXED_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "root": ({"asyncapi", "info"}, {"defaultContentType", "servers", "channels", "operations", "components"}),
    "info": ({"title", "version"}, {"description", "license"}),
    "license": ({"name"}, {"url"}),
    "server": ({"host", "protocol"}, {"description"}),
    "channel": (set(), {"address", "title", "description", "servers", "messages", "bindings"}),
    "operation": ({"action", "channel"}, {"summary", "messages", "reply"}),
    "reply": (set(), {"channel", "messages"}),
    "message": (set(), {"name", "title", "summary", "payload", "correlationId", "tags"}),
    "correlationId": ({"location"}, {"description"}),
    "tag": ({"name"}, {"description"}),
    "components": (set(), {"messages", "schemas"}),
    "ws": (set(), {"method", "query", "headers", "bindingVersion"}),
}


def objects_of_the_document() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (kind, place, object) for every specification object in the document."""
    yield "root", "#", DOCUMENT
    yield "info", "info", DOCUMENT["info"]
    yield "license", "info/license", DOCUMENT["info"]["license"]
    yield "components", "components", DOCUMENT["components"]
    for name, server in DOCUMENT["servers"].items():
        yield "server", name, server
    for name, channel in DOCUMENT["channels"].items():
        yield "channel", name, channel
        yield "ws", name, channel["bindings"]["ws"]
    for name, operation in DOCUMENT["operations"].items():
        yield "operation", name, operation
        if "reply" in operation:
            yield "reply", name, operation["reply"]
    for name, message in DOCUMENT["components"]["messages"].items():
        yield "message", name, message
        for tag in message["tags"]:
            yield "tag", name, tag
        if "correlationId" in message:
            yield "correlationId", name, message["correlationId"]


def test_every_object_has_its_required_fields_and_no_unknown_ones() -> None:
    for kind, place, found in objects_of_the_document():
        required, optional = FIXED_FIELDS[kind]
        fields = {field for field in found if not field.startswith("x-")}
        assert required <= fields <= required | optional, (kind, place)


def test_every_reference_resolves() -> None:
    references = [value["$ref"] for _, value in walk(DOCUMENT) if isinstance(value, dict) and "$ref" in value]

    assert len(references) > 300
    assert all(resolve(reference) is not None for reference in references)


def test_reference_object_has_nothing_beside_the_reference() -> None:
    """AsyncAPI 3.0.0, Reference Object: "This object cannot be extended with additional properties"."""
    for path, value in walk(DOCUMENT):
        if isinstance(value, dict) and "$ref" in value and not path.startswith("#/components/schemas"):
            assert set(value) == {"$ref"}, path


def test_names_in_components_are_allowed() -> None:
    for kind in ("messages", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert name.replace(".", "").replace("-", "").replace("_", "").isalnum(), name


def test_operations_speak_messages_of_their_channel() -> None:
    """AsyncAPI 3.0.0: operation messages "MUST contain a subset of the messages defined in the channel"."""
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] in ("send", "receive")
        for side in (operation, operation.get("reply", operation)):
            channel = side["channel"]["$ref"]
            assert channel == "#/channels/room"
            assert side["messages"], name
            assert all(message["$ref"].startswith(f"{channel}/messages/") for message in side["messages"])


def test_every_message_of_the_channel_is_spoken_in_exactly_one_direction() -> None:
    received, sent = [], []
    for operation in DOCUMENT["operations"].values():
        (received if operation["action"] == "receive" else sent).extend(
            m["$ref"] for m in operation["messages"]
        )
        sent.extend(m["$ref"] for m in operation.get("reply", {}).get("messages", []))

    channel = {f"#/channels/room/messages/{name}" for name in DOCUMENT["channels"]["room"]["messages"]}
    assert set(received) | set(sent) == channel
    assert not set(received) & set(sent)
    assert len(received) == len(COMMANDS)


def test_every_command_reply_and_event_is_a_message() -> None:
    messages = DOCUMENT["components"]["messages"]

    assert set(messages) == {
        *(f"command.{name}" for name in COMMANDS),
        *(f"reply.{name}" for name in REPLIES),
        *(f"event.{name}" for name in EVENTS),
        "error",
    }
    assert all(message["summary"] for message in messages.values())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_says_role_and_key(name: str) -> None:
    message = DOCUMENT["components"]["messages"][f"command.{name}"]

    assert message["x-role"] == COMMANDS[name].role.wire
    assert message["x-idempotency-key"] is ("key" in COMMANDS[name].__struct_fields__)
    assert message["x-merchant-api"] is COMMANDS[name].console


@pytest.mark.parametrize("delivery", EventClass)
def test_events_are_sent_by_class(delivery: EventClass) -> None:
    operation = DOCUMENT["operations"][f"send.{delivery.value}"]
    names = {
        message["$ref"].removeprefix("#/channels/room/messages/event.") for message in operation["messages"]
    }

    assert names == {name for name, event in EVENTS.items() if event.delivery is delivery}


def test_payload_schemas_are_those_of_the_schema_files() -> None:
    """AsyncAPI's schema objects and the JSON Schema files come from one place and say the same."""
    parts = DOCUMENT["components"]["schemas"]
    for name in ("commands.json", "events.json"):
        for part, contents in SCHEMAS[name]["$defs"].items():
            text = repr({key: value for key, value in contents.items() if key != "x-delivery"})
            assert text.replace("#/$defs/", "#/components/schemas/") == repr(parts[part])


def test_document_holds_every_code() -> None:
    codes = DOCUMENT["components"]["schemas"]["ErrorBody"]["properties"]["code"]["enum"]

    assert codes == [code.value for code in ErrorCode]
    assert set(DOCUMENT["channels"]["room"]["x-close-codes"]) == {str(code.value) for code in CloseCode}


def test_yaml_has_no_anchors() -> None:
    assert "&id0" not in GENERATED["asyncapi.yaml"]
