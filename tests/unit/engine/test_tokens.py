"""Tokens: which keys, algorithms and claims are accepted."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.errors import Forbidden, TokenExpired, Unauthorized
from engine.tokens import HEADERS_MAX, Claims, SigningKey, Tokens, check_profile
from protocol.codes import ErrorCode, Role
from protocol.errors import BadCommand

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))
HS256 = SigningKey(kid="h", algorithm="HS256", verifying=SECRET, signing=SECRET)
PRIVATE = Ed25519PrivateKey.generate()
EDDSA = SigningKey(kid="e", algorithm="EdDSA", verifying=PRIVATE.public_key(), signing=PRIVATE)
PUBLIC_ONLY = SigningKey(kid="p", algorithm="EdDSA", verifying=PRIVATE.public_key(), signing=None)

ANNA: dict[str, Any] = {"tenant": "shop1", "room": "r_88", "viewer": "anna", "role": Role.VIEWER, "ttl_s": 60}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "aud": "liveroom", "iat": now, "exp": now + 60, "sub": "anna", "tenant": "shop1", "room": "r_88",
        "role": "viewer", **changes,
    }  # fmt: skip
    return {name: value for name, value in whole.items() if value is not None}


def encode(body: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(body, key, algorithm=algorithm, headers={"kid": "h", **header})


@pytest.mark.parametrize("key", [HS256, EDDSA], ids=["HS256", "EdDSA"])
def test_own_tokens_are_read_back(key: SigningKey) -> None:
    tokens = Tokens([key])
    before_ms = int(time.time()) * 1_000

    token, expires_at_ms = tokens.sign(
        **{**ANNA, "role": Role.OWNER}, name="小林", avatar="https://cdn.example/a.png", level=3, tags=["vip"]
    )

    assert before_ms + 60_000 <= expires_at_ms <= before_ms + 62_000
    assert tokens.verify(token, "r_88") == Claims(
        tenant="shop1",
        room="r_88",
        viewer="anna",
        role=Role.OWNER,
        name="小林",
        avatar="https://cdn.example/a.png",
        level=3,
        tags=("vip",),
        expires_at_s=expires_at_ms // 1_000,
    )


def test_absent_claims_have_their_defaults() -> None:
    tokens = Tokens([HS256])

    read = tokens.verify(encode(claims(sub="v" * 40)), "r_88")

    assert (read.name, read.avatar, read.level, read.tags) == ("v" * 32, None, 0, ())
    assert json.loads(read.sender()) == {"id": "v" * 40, "name": "v" * 32, "role": "viewer"}


def test_sender_carries_the_avatar() -> None:
    read = Tokens([HS256]).verify(encode(claims(avatar="https://cdn.example/a.png", name="小林")), "r_88")

    assert json.loads(read.sender()) == {
        "id": "anna",
        "name": "小林",
        "role": "viewer",
        "avatar": "https://cdn.example/a.png",
    }


def test_the_first_key_that_can_sign_signs_and_all_verify() -> None:
    tokens = Tokens([PUBLIC_ONLY, HS256, EDDSA])

    token, _ = tokens.sign(**ANNA)

    assert jwt.get_unverified_header(token)["kid"] == "h"
    by_other = jwt.encode(claims(), PRIVATE, algorithm="EdDSA", headers={"kid": "p"})
    assert tokens.verify(by_other, "r_88").viewer == "anna"


def test_an_engine_that_only_verifies_signs_nothing() -> None:
    with pytest.raises(Forbidden):
        Tokens([PUBLIC_ONLY]).sign(**ANNA)


def test_a_token_for_every_room_joins_the_one_that_is_asked_for() -> None:
    tokens = Tokens([HS256])

    assert tokens.verify(encode(claims(room="*")), "r_1").room == "r_1"


def _base64url(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


FORGED = {
    "empty": "",
    "no token": "abc",
    "no header": "..",
    "alg none": f"{_base64url({'alg': 'none', 'kid': 'h'})}.{_base64url(claims())}.",
    "kid is missing": jwt.encode(claims(), SECRET, algorithm="HS256"),
    "kid is no string": f"{_base64url({'alg': 'HS256', 'kid': 7})}.{_base64url(claims())}.c2ln",
    "kid is unknown": encode(claims(), kid="x"),
    "kid of another key": encode(claims(), kid="e"),
    "another secret": encode(claims(), OTHER_SECRET),
    "another algorithm": encode(claims(), SECRET * 2, "HS512"),
    "body is no map": f"{_base64url({'alg': 'HS256', 'kid': 'h'})}.{_base64url([1])}.c2ln",
    "deep body": f"{_base64url({'alg': 'HS256', 'kid': 'h'})}.{base64.urlsafe_b64encode(b'[' * 3000).decode()}.c2ln",
    "not ascii": "令牌",
    "surrogate": "\ud800",
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_tokens_are_unauthorized_and_never_quoted(how: str) -> None:
    token = FORGED[how]

    with pytest.raises(Unauthorized) as refused:
        Tokens([HS256, EDDSA]).verify(token, "r_88")

    assert type(refused.value) is Unauthorized
    assert not token or token not in refused.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "x"}, {"aud": None}, {"aud": ["liveroom"]}, {"exp": None}, {"exp": "x"}, {"exp": float("inf")},
        {"iat": None}, {"iat": 2**40}, {"nbf": 2**40}, {"sub": None}, {"sub": 7}, {"sub": "-"}, {"sub": "a\n"},
        {"tenant": None}, {"tenant": ""}, {"tenant": 7}, {"room": None}, {"room": "r_8"}, {"room": ["r_88"]},
        {"role": None}, {"role": "VIEWER"}, {"role": 4}, {"name": "x" * 33}, {"name": "\ud800"}, {"level": True},
        {"level": 2**53}, {"tags": ["x" * 33]}, {"tags": [7]}, {"avatar": "data:image/png;base64,x"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_claims_are_unauthorized(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized) as refused:
        Tokens([HS256]).verify(encode(claims(**changes)), "r_88")

    assert not isinstance(refused.value, TokenExpired)


def test_remembered_header_does_not_make_a_forged_token_valid() -> None:
    tokens = Tokens([HS256, EDDSA])
    good = encode(claims())
    assert tokens.verify(good, "r_88").viewer == "anna"

    header, body, _ = good.split(".")
    other = encode(claims(sub="bob")).split(".")
    for token in (
        encode(claims(), OTHER_SECRET),
        f"{header}.{other[1]}.{good.split('.')[2]}",
        f"{header}.{body}.",
        header,
        jwt.encode(claims(), PRIVATE, algorithm="EdDSA", headers={"kid": "h"}),
    ):
        with pytest.raises(Unauthorized):
            tokens.verify(token, "r_88")
    assert tokens.verify(good, "r_88").viewer == "anna"


def test_remembered_headers_are_bounded_and_only_those_of_valid_tokens() -> None:
    tokens = Tokens([HS256])
    for number in range(HEADERS_MAX + 10):
        with pytest.raises(Unauthorized):
            tokens.verify(encode(claims(), OTHER_SECRET, x=number), "r_88")
    assert not tokens._by_header

    for number in range(HEADERS_MAX + 10):
        tokens.verify(encode(claims(), x=number), "r_88")
        assert len(tokens._by_header) <= HEADERS_MAX


def test_expired_is_told_apart() -> None:
    now = int(time.time())

    with pytest.raises(TokenExpired):
        Tokens([HS256]).verify(encode(claims(iat=now - 60, exp=now - 10)), "r_88")


def test_clocks_may_differ_by_five_seconds() -> None:
    now = int(time.time())
    tokens = Tokens([HS256])

    assert tokens.verify(encode(claims(iat=now + 4)), "r_88").viewer == "anna"
    assert tokens.verify(encode(claims(exp=now - 3)), "r_88").expires_at_s == now - 3


def test_keys_do_not_print_themselves() -> None:
    shown = repr(HS256) + repr(EDDSA) + repr(Tokens([HS256]))

    assert repr(SECRET) not in shown
    assert "Ed25519" not in shown


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        ((7, None, None, None), ErrorCode.BAD_COMMAND),
        (("x" * 33, None, None, None), ErrorCode.TOO_LONG),
        (("\ud800", None, None, None), ErrorCode.BAD_COMMAND),
        ((None, 7, None, None), ErrorCode.BAD_COMMAND),
        ((None, "ftp://x", None, None), ErrorCode.BAD_COMMAND),
        ((None, "https://cdn.example/" + "x" * 512, None, None), ErrorCode.TOO_LONG),
        ((None, None, -1, None), ErrorCode.BAD_COMMAND),
        ((None, None, "3", None), ErrorCode.BAD_COMMAND),
        ((None, None, None, {}), ErrorCode.BAD_COMMAND),
        ((None, None, None, ["x"] * 21), ErrorCode.BAD_COMMAND),
    ],
)
def test_wrong_profiles_are_refused(profile: tuple[Any, Any, Any, Any], code: ErrorCode) -> None:
    with pytest.raises(BadCommand) as refused:
        check_profile(*profile)
    assert refused.value.code is code


def test_name_is_cleaned_and_an_empty_one_is_none() -> None:
    assert check_profile(" 小\u200b林 ", None, None, None)[0] == "小林"
    assert check_profile("\u202e", None, None, None)[0] is None
