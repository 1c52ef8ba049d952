"""Identifiers: the one alphabet, and the ways around it."""

import pytest

from protocol.ids import is_id, is_idempotency_key

NOT_IDS = [
    "",
    "_a",
    ".a",
    "-a",
    "a b",
    "a/b",
    "a:b",
    "a{b}",
    "a\n",
    "\na",
    "a\x00",
    "ａ",
    "１",
    "房间",
    "é",
    "a\u200d",
    "a" * 65,
    "a" * 64 + "\n",
]


@pytest.mark.parametrize("value", ["a", "A", "0", "r_88", "a.b-c_d", "9" * 64, "a" + "." * 63])
def test_well_formed_id_is_accepted(value: str) -> None:
    assert is_id(value)


@pytest.mark.parametrize("value", NOT_IDS, ids=ascii)
def test_malformed_id_is_refused(value: str) -> None:
    assert not is_id(value)


@pytest.mark.parametrize("value", [None, 1, True, b"a", ["a"], {"a": 1}, 1.5])
def test_value_that_is_not_text_is_no_id(value: object) -> None:
    assert not is_id(value)
    assert not is_idempotency_key(value)


@pytest.mark.parametrize("value", ["a" * 8, "a" * 64, "-_-_-_-_", "00000000", "c-5f1e0b2a"])
def test_well_formed_key_is_accepted(value: str) -> None:
    assert is_idempotency_key(value)


@pytest.mark.parametrize(
    "value",
    ["", "a" * 7, "a" * 65, "a" * 8 + "\n", "a" * 64 + "\n", "abcdefg.", "１２３４５６７８", "abcd efgh"],
    ids=ascii,
)
def test_malformed_key_is_refused(value: str) -> None:
    assert not is_idempotency_key(value)
