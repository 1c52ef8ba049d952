"""docs/openapi.yaml: valid, up to date, and about the calls there are."""

from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from engine.http import openapi
from engine.http.api import MerchantApi
from engine.http.internal import Internal
from engine.http.problems import status_of
from engine.rooms.words import WordFilter
from engine.tokens import Tokens
from protocol.codes import ErrorCode
from protocol.commands import COMMANDS

DOCS = Path(__file__).parents[4] / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load(openapi.text())


def routes() -> set[tuple[str, str]]:
    """Return the method and path of every call the engine has, less the one that answers unknown calls."""
    nothing: Any = None
    api = MerchantApi(
        store=nothing,
        console=nothing,
        tokens=Tokens([]),
        merchant_keys_sha256={},
        facts_kept_ms=0,
        share_dwell_ms=0,
        words=WordFilter([]),
    )
    internal = Internal(ready=nothing, render=nothing)
    defined: list[web.RouteDef] = [*api.routes(), *internal.routes()]
    return {(route.method, route.path) for route in defined if route.method != "*"}


def test_committed_document_is_what_the_code_says() -> None:
    """Drifted? Run `make docs`."""
    assert (DOCS / "openapi.yaml").read_text("utf-8") == openapi.text()


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_call_is_described_and_every_description_is_a_call() -> None:
    described = {
        (method.upper(), path)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method not in ("parameters", "servers")
    }

    assert described == routes()


def test_operation_ids_are_unique() -> None:
    ids = [call.handler.__name__ for call in openapi.CALLS]

    assert len(set(ids)) == len(ids)


def test_every_code_of_a_call_has_its_status_described() -> None:
    described: set[str] = set()
    for response in DOCUMENT["components"]["responses"].values():
        [media] = response["content"].values()
        described |= set(media["schema"]["allOf"][1]["properties"]["code"]["enum"])
    for call in openapi.CALLS:
        operation = DOCUMENT["paths"][call.path][call.method.lower()]
        for code in operation.get("x-codes", []):
            assert str(status_of(ErrorCode(code)).value) in operation["responses"], (call.path, code)

    connection_only = {"bad_frame", "not_joined", "already_joined"}
    assert described == {code.value for code in ErrorCode} - connection_only


def test_merchant_calls_need_a_key_and_internal_ones_do_not() -> None:
    assert DOCUMENT["security"] == [{"merchantKey": []}]
    for call in openapi.CALLS:
        operation = DOCUMENT["paths"][call.path][call.method.lower()]
        assert call.internal is (not call.path.startswith("/v1/"))
        assert operation.get("security") == ([] if call.internal else None)


def test_commands_are_the_console_ones_without_id_and_without_need_of_a_key() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    mapping = schemas["ConsoleCommand"]["discriminator"]["mapping"]

    assert set(mapping) == {name for name, command in COMMANDS.items() if command.console}
    for name, reference in mapping.items():
        schema = schemas[reference.rpartition("/")[2]]
        assert "id" not in schema["properties"], name
        assert "key" not in schema.get("required", []), name


def test_the_file_is_written(tmp_path: Path) -> None:
    assert openapi.write(tmp_path / "docs").read_text("utf-8") == openapi.text()
