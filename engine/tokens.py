"""
Tokens: who a viewer is, signed by the merchant's side.

Decides which claims a token must have and which keys may have signed it: one algorithm per key id, `HS256` or `EdDSA`,
nothing else. Does not decide what a role may do. Tokens and keys never reach a log.

Source: RFC 7519, RFC 8725 (best current practices); docs/protocol.md, "Token".
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.errors import Forbidden, TokenExpired, Unauthorized
from protocol import limits, text
from protocol.codes import ROLE_BY_NAME, ErrorCode, Role
from protocol.commands import check_url
from protocol.errors import BadCommand
from protocol.ids import is_id

AUDIENCE: Final = "liveroom"
SHARE_AUDIENCE: Final = "liveroom-share"
ALGORITHMS: Final = ("HS256", "EdDSA")
_REQUIRED: Final = ["exp", "iat", "sub", "aud"]
#: Clocks of the merchant's servers may differ from ours by this much (seconds).
LEEWAY_S: Final = 5
#: Token headers remembered; a full memory starts over.
HEADERS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key: its id, its only algorithm, and what verifies and signs."""

    kid: str
    algorithm: str
    verifying: bytes | Ed25519PublicKey = field(repr=False)
    #: None when this engine only verifies.
    signing: bytes | Ed25519PrivateKey | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a viewer is, as their token says."""

    tenant: str
    room: str
    viewer: str
    role: Role
    name: str
    avatar: str | None
    level: int
    tags: tuple[str, ...]
    #: Seconds since 1970-01-01 UTC.
    expires_at_s: int

    def sender(self) -> bytes:
        """Return the viewer as they appear in comments, as JSON."""
        sender: dict[str, Any] = {"id": self.viewer, "name": self.name, "role": self.role.wire}
        if self.avatar is not None:
            sender["avatar"] = self.avatar
        return orjson.dumps(sender)


@dataclass(frozen=True, slots=True)
class Share:
    """What a share token says."""

    inviter: str
    channel: str
    #: "" when good, "forged", "expired", or "-" when there was none.
    flaw: str


NO_SHARE: Final = Share("", "", "-")
FORGED: Final = Share("", "", "forged")


class Tokens:
    """Signs with the first key, verifies with all."""

    def __init__(self, keys: list[SigningKey]) -> None:
        self._keys: Mapping[str, SigningKey] = {key.kid: key for key in keys}
        self._first = next((key for key in keys if key.signing is not None), None)
        #: Header of a token as it was sent → its key. An issuer's tokens all begin with the same header, and a join
        #: should not pay for reading it twice. Only headers of valid tokens get in, at most `HEADERS_MAX`.
        self._by_header: dict[str, SigningKey] = {}

    def sign(
        self,
        *,
        tenant: str,
        room: str,
        viewer: str,
        role: Role,
        ttl_s: int,
        name: str | None = None,
        avatar: str | None = None,
        level: int | None = None,
        tags: list[str] | None = None,
    ) -> tuple[str, int]:
        """
        Make a token.

        Returns:
            The token, and when it expires (milliseconds since 1970-01-01 UTC).

        Raises:
            Forbidden: If this engine has no key that signs.
        """
        if self._first is None:
            raise Forbidden("this engine has no key to sign with")
        issued_at_s = int(time.time())
        claims: dict[str, Any] = {
            "aud": AUDIENCE,
            "iat": issued_at_s,
            "exp": issued_at_s + ttl_s,
            "sub": viewer,
            "tenant": tenant,
            "room": room,
            "role": role.wire,
        }
        optional = {"name": name, "avatar": avatar, "level": level, "tags": tags}
        claims.update({claim: value for claim, value in optional.items() if value is not None})
        assert self._first.signing is not None
        token = jwt.encode(
            claims, self._first.signing, algorithm=self._first.algorithm, headers={"kid": self._first.kid}
        )
        return token, claims["exp"] * 1000

    def sign_share(self, *, tenant: str, room: str, inviter: str, channel: str | None, ttl_s: int) -> str:
        """Make a share token: it names room and inviter and opens nothing. Raises Unauthorized without a key."""
        if self._first is None:
            raise Unauthorized("this engine has no key to sign with")
        assert self._first.signing is not None
        claims: dict[str, Any] = {
            "aud": SHARE_AUDIENCE,
            "exp": int(time.time()) + ttl_s,
            "sub": inviter,
            "tenant": tenant,
            "room": room,
        }
        if channel is not None:
            claims["ch"] = channel
        return jwt.encode(
            claims, self._first.signing, algorithm=self._first.algorithm, headers={"kid": self._first.kid}
        )

    def _named_in(self, token: str) -> SigningKey | None:
        """Return the key that a token says has signed it. Raises PyJWTError if it is no token."""
        kid = jwt.get_unverified_header(token).get("kid")
        return self._keys.get(kid) if isinstance(kid, str) else None

    def read_share(self, token: str, *, tenant: str, room: str) -> Share:
        """Read a share token for a room. One that is forged, or for elsewhere, is told apart, never refused."""
        try:
            key = self._named_in(token)
            if key is None:
                return FORGED
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                audience=SHARE_AUDIENCE,
                options={"require": ["exp", "sub", "aud"], "strict_aud": True, "verify_exp": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return FORGED
        inviter, channel = claims.get("sub"), claims.get("ch", "")
        if claims.get("tenant") != tenant or claims.get("room") != room or not isinstance(inviter, str):
            return FORGED
        if not is_id(inviter):
            return FORGED
        expired = not isinstance(claims["exp"], int) or time.time() >= claims["exp"]
        return Share(inviter, channel if is_id(channel) else "", "expired" if expired else "")

    def verify(self, token: str, room: str) -> Claims:
        """
        Read a token for a room.

        Raises:
            TokenExpired: If only its time is up.
            Unauthorized: If anything else is wrong with it. The message never holds a part of the token.
        """
        header = token.partition(".")[0]
        try:
            key = self._by_header.get(header) or self._named_in(token)
            if key is None:
                raise Unauthorized("the token's key is not known here")
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED, "strict_aud": True, "verify_exp": False},
            )
            expired = time.time() >= int(claims["exp"]) + LEEWAY_S
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is not valid ({type(error).__name__})") from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized("the token is not valid") from None
        if header not in self._by_header:
            if len(self._by_header) >= HEADERS_MAX:
                self._by_header.clear()
            self._by_header[header] = key
        read = _read(claims, room)
        # Last: a new token would not help whoever holds one for another room.
        if expired:
            raise TokenExpired
        return read


def _read(claims: dict[str, Any], room: str) -> Claims:
    viewer, tenant, for_room = claims.get("sub"), claims.get("tenant"), claims.get("room")
    role = claims.get("role")
    if not isinstance(viewer, str) or not is_id(viewer) or not isinstance(tenant, str) or not is_id(tenant):
        raise Unauthorized("the token's `sub` or `tenant` is not an id")
    if for_room not in ("*", room):
        raise Unauthorized("the token is for another room")
    if not isinstance(role, str) or role not in ROLE_BY_NAME:
        raise Unauthorized("the token's `role` is not one of version 1")
    try:
        name, avatar, level, tags = check_profile(
            claims.get("name"), claims.get("avatar"), claims.get("level"), claims.get("tags")
        )
    except BadCommand as error:
        raise Unauthorized(f"the token's {error.message}") from None
    return Claims(
        tenant=tenant,
        room=room,
        viewer=viewer,
        role=ROLE_BY_NAME[role],
        name=name or viewer[: limits.NAME_CHARS_MAX],
        avatar=avatar,
        level=level or 0,
        tags=tuple(tags or ()),
        expires_at_s=int(claims["exp"]),
    )


def check_profile(
    name: Any, avatar: Any, level: Any, tags: Any
) -> tuple[str | None, str | None, int | None, list[str] | None]:
    """
    Check the optional claims about a person; absent ones stay None. The name is cleaned.

    Raises:
        BadCommand: Naming the claim that is wrong.
    """
    if name is not None:
        if not isinstance(name, str):
            raise BadCommand("`name` must be text")
        try:
            name = text.clean(name) or None
        except text.LoneSurrogate as error:
            raise BadCommand(f"`name`: {error}") from None
        if name is not None and len(name) > limits.NAME_CHARS_MAX:
            raise BadCommand(f"`name` is longer than {limits.NAME_CHARS_MAX} code points", ErrorCode.TOO_LONG)
    if avatar is not None:
        if not isinstance(avatar, str):
            raise BadCommand("`avatar` must be a URL")
        check_url("avatar", avatar)
    if level is not None and (type(level) is not int or not 0 <= level <= limits.INTEGER_MAX):
        raise BadCommand("`level` must be a whole number, 0 or more")
    if tags is not None:
        good = isinstance(tags, list) and len(tags) <= limits.TAGS_MAX
        if not good or not all(isinstance(tag, str) and 0 < len(tag) <= 32 for tag in tags):
            raise BadCommand(f"`tags` must be at most {limits.TAGS_MAX} strings of 1–32 characters")
        if any(text.has_lone_surrogate(tag) for tag in tags):
            raise BadCommand("`tags`: text holds a lone surrogate")
    return name, avatar, level, tags
