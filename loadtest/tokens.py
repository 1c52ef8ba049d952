"""
Where viewers get their tokens.

Decides how a token is signed when the signing key is at hand, which is the only way to let thousands in within a
second. Without the key, tokens come from the merchant API (`api.py`), as they would in a shop. Keys are held, never
printed. Source: docs/protocol.md, "Joining, leaving, coming back".
"""

import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jwt

AUDIENCE: Final = "liveroom"
KEY_BYTES_MIN: Final = 32


class TokenError(Exception):
    """A signing key that cannot be read. Exit code 1."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An HS256 key and the tenant it signs for."""

    kid: str
    tenant: str
    secret: bytes = field(repr=False)
    #: The file it was read from, to name it in complaints.
    source: str = field(default="", repr=False)

    @staticmethod
    def read(path: Path, tenant: str) -> "SigningKey":
        """
        Return the key in a file like `{"kid": "dev", "alg": "HS256", "key": "<base64url>"}`.

        Raises:
            TokenError: If there is no such file or it holds something else.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            kid, algorithm, encoded = str(fields["kid"]), fields["alg"], str(fields["key"])
            secret = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except OSError as error:
            raise TokenError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise TokenError(f"{path} is not a signing key file") from None
        if algorithm != "HS256" or len(secret) < KEY_BYTES_MIN:
            raise TokenError(f"{path} holds no HS256 key of at least {KEY_BYTES_MIN} bytes")
        return SigningKey(kid, tenant, secret, str(path))

    def sign(self, room: str, viewer: str, role: str, name: str, ttl_s: int) -> str:
        """Return a token that lets `viewer` into `room` for `ttl_s` seconds."""
        now = int(time.time())
        claims = {
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + ttl_s,
            "sub": viewer,
            "tenant": self.tenant,
            "room": room,
            "role": role,
            "name": name,
        }
        return jwt.encode(claims, self.secret, algorithm="HS256", headers={"kid": self.kid})
