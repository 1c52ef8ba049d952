"""
docs/openapi.yaml as a judge of answers.

An answer is judged by the schema its call and status have in the document, with every object closed: a field that the
document does not name is a mistake of one of the two.
"""

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.support.client import Answer

Map = dict[str, Any]

DOCUMENT: Map = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text("utf-8"))


def _closed(value: Any, *, inside_all_of: bool = False) -> Any:
    """Return the schema with no room for fields it does not name."""
    if isinstance(value, list):
        return [_closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    closed = {
        key: [_closed(each, inside_all_of=True) for each in inner] if key == "allOf" else _closed(inner)
        for key, inner in value.items()
    }
    names_fields = isinstance(value.get("properties"), dict) and value.get("type") == "object"
    if names_fields and "additionalProperties" not in value and not inside_all_of:
        closed["additionalProperties"] = False
    return closed


_COMPONENTS = {**DOCUMENT["components"], "schemas": _closed(DOCUMENT["components"]["schemas"])}


def check(method: str, path: str, answer: Answer) -> None:
    """
    See that an answer is one the document describes.

    Args:
        method: Of the call.
        path: As in the document, such as `/v1/rooms/{room}`.
        answer: What came.
    """
    described = DOCUMENT["paths"][path][method.lower()]["responses"].get(str(answer.status))
    assert described is not None, (
        f"{method} {path} is not described to answer {answer.status}: {answer.body!r}"
    )
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    assert answer.content_type in described["content"], answer.content_type
    for header in described.get("headers", {}):
        assert header in answer.headers
    if answer.content_type != "text/plain":
        schema = {"components": _COMPONENTS, **_closed(described["content"][answer.content_type]["schema"])}
        Draft202012Validator(schema).validate(answer.json)
