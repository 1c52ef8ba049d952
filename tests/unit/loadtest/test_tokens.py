"""`loadtest/tokens.py`: tokens as docs/protocol.md wants them, from keys that are what they say."""

import base64
import json
from pathlib import Path

import jwt
import pytest

from loadtest.tokens import SigningKey, TokenError

SECRET = bytes(range(32))


def a_key_file(folder: Path, **changes: object) -> Path:
    fields = {"kid": "dev", "alg": "HS256", "key": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}
    path = folder / "key.json"
    path.write_text(json.dumps(fields | changes))
    return path


def test_token_has_every_required_claim(tmp_path: Path) -> None:
    key = SigningKey.read(a_key_file(tmp_path), "demo")

    token = key.sign("r1", "v1", "viewer", "小林", 60)

    assert jwt.get_unverified_header(token)["kid"] == "dev"
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="liveroom")
    assert claims["exp"] - claims["iat"] == 60
    del claims["exp"], claims["iat"]
    assert claims == {
        "aud": "liveroom",
        "sub": "v1",
        "tenant": "demo",
        "room": "r1",
        "role": "viewer",
        "name": "小林",
    }


def test_secret_is_not_shown(tmp_path: Path) -> None:
    shown = repr(SigningKey.read(a_key_file(tmp_path), "demo"))

    assert "secret" not in shown
    assert repr(SECRET) not in shown


@pytest.mark.parametrize("changes", [{"alg": "EdDSA"}, {"key": "c2hvcnQ"}, {"key": 5}, {"key": "ü"}])
def test_file_with_something_else_is_an_error(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(TokenError):
        SigningKey.read(a_key_file(tmp_path, **changes), "demo")


def test_absent_or_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="cannot read"):
        SigningKey.read(tmp_path / "absent.json", "demo")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TokenError, match="not a signing key"):
        SigningKey.read(tmp_path / "broken.json", "demo")
