"""
Settings: one frozen `Config`, read once.

Decides names, defaults and which settings contradict each other. The only reader of the environment and of the
configuration file. Order: command line, `LIVEROOM_…` in the environment, the file, the default. Secrets are held in
fields that do not print themselves.

Source: README.md, "Settings".
"""

import base64
import binascii
import hashlib
import math
import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.errors import ConfigError
from engine.tokens import ALGORITHMS, SigningKey
from protocol.ids import is_id
from protocol.limits import FACTS_KEPT_MS_MIN, IDLE_TIMEOUT_MS, PING_PERIOD_MS

SECRET_BYTES_MIN: Final = 32
DEV_TENANTS: Final = {"demo": "dev-key-demo", "other": "dev-key-other"}
_DEV_KEY_FILE: Final = "dev-key.json"
_DEV_KID: Final = "dev"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_LOG_LEVELS: Final = ("debug", "info", "warning")
_STORE_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
STORE_REPLICAS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set. Times in milliseconds, rates per second."""

    #: Address of viewers, consoles and merchants.
    listen: str = "127.0.0.1:8080"
    #: Address of health, readiness and metrics; not for the public.
    internal_listen: str = "127.0.0.1:9090"
    #: Processes that share the port.
    workers: int = 1
    #: URL of an outside store: redis://, rediss:// or unix://, or redis+cluster:// or rediss+cluster:// with the nodes
    #: of a cluster joined by commas. Empty runs a private one in `data_dir`.
    store: str = ""
    #: Replicas that must hold what money or stock depends on before it is answered: as many as each primary has.
    store_replicas: int = 0
    #: Where the private store and the development key live.
    data_dir: Path = Path("liveroom-data")
    #: When the private store writes to disk: always (nothing acknowledged is ever lost) or everysec.
    appendfsync: str = "always"
    #: Known tenants and keys, demo routes. Loopback only.
    dev: bool = False
    #: debug, info or warning.
    log_level: str = "info"
    #: Values of `Origin` that browsers may connect from; empty allows all.
    allowed_origins: tuple[str, ...] = ()
    #: Offer permessage-deflate to clients that ask for it.
    compression: bool = False
    #: File of blocked words, one a line, UTF-8. Empty blocks none.
    words_file: str = ""

    #: Silence after which a connection is closed (milliseconds).
    idle_timeout_ms: int = IDLE_TIMEOUT_MS
    #: Time from the handshake to `room.join` (milliseconds).
    join_timeout_ms: int = 5_000
    #: Time a draining server spreads reconnects over (milliseconds).
    drain_spread_ms: int = 10_000
    #: Comments of one viewer below moderator: per second, and at once.
    comments_per_s: float = 1.0
    comments_burst: int = 5
    #: `like.send` of one viewer below moderator: per second, and at once.
    likes_per_s: float = 5.0
    likes_burst: int = 10
    #: Commands of one connection: per second, and at once.
    commands_per_s: float = 50.0
    commands_burst: int = 100
    #: Chat events shown in a room per second; 0 shows all.
    chat_per_s_max: float = 40.0
    #: Life of a share token (milliseconds).
    share_ttl_ms: int = 7 * 86_400_000
    #: Time a viewer who came through a link must stay before they count (milliseconds); 0 counts at once.
    share_dwell_ms: int = 0
    #: How long facts are kept for resumes and cursors (milliseconds).
    facts_kept_ms: int = 86_400_000
    #: A live room is paused when its streamer is gone this long (milliseconds); 0 never.
    streamer_grace_ms: int = 60_000
    #: A room so paused is closed after this long (milliseconds); 0 never.
    paused_close_ms: int = 600_000

    #: The first that can signs, all verify. From the file, or made with `--dev`.
    signing_keys: tuple[SigningKey, ...] = field(default=(), repr=False)
    #: Tenant → SHA-256 digests (hex) of its merchant keys.
    merchant_keys_sha256: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        public = split_address("listen", self.listen)
        if public == split_address("internal_listen", self.internal_listen) and public[1]:
            raise ConfigError(
                f"listen and internal_listen are the same, {self.listen}; each needs its own port"
            )
        if self.log_level not in _LOG_LEVELS:
            raise ConfigError(f"log_level must be one of {', '.join(_LOG_LEVELS)}, not {self.log_level!r}")
        if self.appendfsync not in ("always", "everysec"):
            raise ConfigError(f"appendfsync must be always or everysec, not {self.appendfsync!r}")
        if not 0 <= self.store_replicas <= STORE_REPLICAS_MAX:
            raise ConfigError(
                f"store_replicas must be from 0 to {STORE_REPLICAS_MAX}, not {self.store_replicas}"
            )
        if not 1 <= self.workers <= 256:
            raise ConfigError(f"workers must be from 1 to 256, not {self.workers}")
        if self.idle_timeout_ms <= 2 * PING_PERIOD_MS:
            raise ConfigError(f"idle_timeout_ms must exceed two ping periods ({2 * PING_PERIOD_MS} ms)")
        if self.facts_kept_ms < FACTS_KEPT_MS_MIN:
            raise ConfigError(f"facts_kept_ms must be at least {FACTS_KEPT_MS_MIN}")
        for name in ("comments_per_s", "likes_per_s", "commands_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a number above 0")
        for name in ("comments_burst", "likes_burst", "commands_burst", "join_timeout_ms", "share_ttl_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in (
            "chat_per_s_max",
            "streamer_grace_ms",
            "paused_close_ms",
            "drain_spread_ms",
            "share_dwell_ms",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a number from 0")
        if self.store and _scheme(self.store) not in _STORE_SCHEMES:
            raise ConfigError(f"store must be a URL with one of {', '.join(_STORE_SCHEMES)}")


def split_address(name: str, address: str) -> tuple[str, int]:
    """
    Split "host:port"; an IPv6 host stands in brackets.

    Raises:
        ConfigError: Naming the setting.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{name} must be host:port, not {address!r}")
    return host, int(port)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        # Its words would quote the URL, and so perhaps a password.
        raise ConfigError("store is not a URL; is a bracket missing?") from None


def check_data_dir(data_dir: Path) -> None:
    """
    Refuse something else in the place of the data directory; that it is missing is well, it will be made.

    Raises:
        ConfigError: If it is not a directory.
    """
    if os.path.lexists(data_dir) and not data_dir.is_dir():
        raise ConfigError(f"data_dir {data_dir} is not a directory")


def environment() -> dict[str, str]:
    """Return this process's environment, for the workers it starts."""
    return dict(os.environ)


#: Settings that stand neither on the command line nor in the environment.
_FILE_ONLY: Final = ("signing_keys", "merchant_keys_sha256")


def load(options: Mapping[str, Any], file: Path | None, *, makes_dev_key: bool = True) -> Config:
    """
    Gather the settings.

    Args:
        options: From the command line; those that were not given are None.
        file: The configuration file, if any.
        makes_dev_key: Whether a development key that is missing is made, or told.

    Raises:
        ConfigError: Naming what is wrong; secrets are never part of the message.
    """
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    signing_keys: tuple[SigningKey, ...] = ()
    tenants: dict[str, tuple[str, ...]] = {}
    names = [entry.name for entry in fields(Config) if entry.name not in _FILE_ONLY]
    if file is not None:
        document = _read_file(file)
        signing_keys = _signing_keys(document.pop("signing_keys", []), file.parent)
        tenants = _tenants(document.pop("tenants", {}))
        unknown = sorted(set(document) - set(names))
        if unknown:
            raise ConfigError(f"{file}: unknown setting {unknown[0]!r}")
        settings.update(document)
        origins.update(dict.fromkeys(document, str(file)))
    for name in names:
        value = os.environ.get(f"LIVEROOM_{name.upper()}")
        if value is not None:
            origins[name] = f"LIVEROOM_{name.upper()}"
            settings[name] = (
                [part for part in value.split(",") if part] if name == "allowed_origins" else value
            )
    for name, value in options.items():
        if value is not None:
            settings[name], origins[name] = value, f"--{name.replace('_', '-')}"
    config = _convert(settings, origins)
    if config.dev:
        return _with_dev_secrets(config, signing_keys, tenants, makes_key=makes_dev_key)
    if not signing_keys:
        raise ConfigError("no signing_keys in the configuration file; for a trial on this machine use --dev")
    if not tenants:
        raise ConfigError("no tenants in the configuration file; for a trial on this machine use --dev")
    return _with_secrets(config, signing_keys, tenants)


def _with_secrets(
    config: Config, signing_keys: tuple[SigningKey, ...], tenants: Mapping[str, tuple[str, ...]]
) -> Config:
    return replace(config, signing_keys=signing_keys, merchant_keys_sha256=dict(tenants))


#: What a person calls the type of a setting.
_KINDS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    tuple[str, ...]: "a list of texts",
}


def _convert(settings: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    kinds = {entry.name: entry.type for entry in fields(Config)}
    converted = {}
    for name, value in settings.items():
        try:
            converted[name] = msgspec.convert(value, kinds[name], strict=False, dec_hook=_decode)
        except msgspec.ValidationError:
            # A store's URL holds a password, whatever it was put into.
            shown = "what it is" if name == "store" else repr(value)
            raise ConfigError(
                f"{name} must be {_KINDS[kinds[name]]}, not {shown} ({origins[name]})"
            ) from None
    return Config(**converted)


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise NotImplementedError


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None


# --- secrets ----------------------------------------------------------------------------------------------


def _signing_keys(entries: Any, folder: Path) -> tuple[SigningKey, ...]:
    if not isinstance(entries, list):
        raise ConfigError("signing_keys must be an array of tables")
    keys = [_signing_key(entry, folder) for entry in entries]
    kids = [key.kid for key in keys]
    if len(set(kids)) != len(kids):
        raise ConfigError("two signing_keys have the same kid; one algorithm and one key per kid")
    if _DEV_KID in kids:
        raise ConfigError(f"signing key {_DEV_KID}: this kid belongs to the key that --dev makes")
    return tuple(keys)


def _signing_key(entry: Any, folder: Path) -> SigningKey:
    if not isinstance(entry, dict):
        raise ConfigError("signing_keys must be an array of tables")
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str) or not kid:
        raise ConfigError("a signing key has no kid")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"signing key {kid}: alg must be one of {', '.join(ALGORITHMS)}")
    raw = _key_bytes(entry, kid, folder)
    if algorithm == "HS256":
        return _hs256(kid, raw)
    return _eddsa(kid, raw)


def _key_bytes(entry: dict[str, Any], kid: str, folder: Path) -> bytes:
    if isinstance(entry.get("key_file"), str):
        path = folder / str(entry["key_file"])
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"signing key {kid}: cannot read {path}: {error.strerror}") from None
    if isinstance(entry.get("key"), str):
        return _decode_base64url(entry["key"], kid)
    raise ConfigError(f"signing key {kid}: needs key or key_file")


def _decode_base64url(text: str, kid: str) -> bytes:
    try:
        # Strictly: a decoder that skips what it does not know would make a shorter key of a mistyped one.
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"signing key {kid}: key is not base64url") from None


def _hs256(kid: str, raw: bytes) -> SigningKey:
    # RFC 8725 §2.1: a public key taken for a shared secret lets everybody sign.
    if b"-----BEGIN" in raw:
        raise ConfigError(f"signing key {kid}: a PEM file is no HS256 key; did you mean alg = EdDSA?")
    if len(raw) < SECRET_BYTES_MIN:
        raise ConfigError(f"signing key {kid}: an HS256 key needs at least {SECRET_BYTES_MIN} bytes")
    if len(set(raw)) < 8:
        raise ConfigError(f"signing key {kid}: the key is too regular to be a secret")
    return SigningKey(kid=kid, algorithm="HS256", verifying=raw, signing=raw)


def _eddsa(kid: str, pem: bytes) -> SigningKey:
    try:
        if b"PRIVATE KEY" in pem:
            private = serialization.load_pem_private_key(pem, password=None)
            if not isinstance(private, Ed25519PrivateKey):
                raise ConfigError(f"signing key {kid}: not an Ed25519 key")
            return SigningKey(kid=kid, algorithm="EdDSA", verifying=private.public_key(), signing=private)
        public = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"signing key {kid}: not a PEM file of an Ed25519 key") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"signing key {kid}: not an Ed25519 key")
    return SigningKey(kid=kid, algorithm="EdDSA", verifying=public, signing=None)


def _tenants(table: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        raise ConfigError("tenants must be a table")
    tenants: dict[str, tuple[str, ...]] = {}
    for tenant, entry in table.items():
        if not is_id(tenant):
            raise ConfigError(f"tenant {tenant!r} is not an id")
        digests = entry.get("merchant_keys_sha256") if isinstance(entry, dict) else None
        if not isinstance(digests, list) or not digests:
            raise ConfigError(f"tenant {tenant}: needs merchant_keys_sha256")
        for digest in digests:
            if (
                not isinstance(digest, str)
                or len(digest) != 64
                or set(digest.lower()) - set("0123456789abcdef")
            ):
                raise ConfigError(f"tenant {tenant}: merchant_keys_sha256 must be SHA-256 digests in hex")
            if digest.lower() in map(hash_merchant_key, DEV_TENANTS.values()):
                raise ConfigError(f"tenant {tenant}: a development key is not a secret")
            if any(digest.lower() in others for others in tenants.values()):
                raise ConfigError(f"tenant {tenant}: another tenant has the same merchant key")
        tenants[tenant] = tuple(digest.lower() for digest in digests)
    return tenants


def hash_merchant_key(key: str) -> str:
    """Return the digest under which a merchant key is configured."""
    return hashlib.sha256(key.encode()).hexdigest()


def _with_dev_secrets(
    config: Config,
    signing_keys: tuple[SigningKey, ...],
    tenants: dict[str, tuple[str, ...]],
    *,
    makes_key: bool,
) -> Config:
    """Add the known tenants and a key made at first start. Refused on anything but loopback."""
    for name in ("listen", "internal_listen"):
        host, _ = split_address(name, getattr(config, name))
        if host not in _LOOPBACK:
            raise ConfigError(f"--dev has known keys, so {name} must be a loopback address, not {host}")
    check_data_dir(config.data_dir)
    if not makes_key and not os.path.lexists(config.data_dir / _DEV_KEY_FILE):
        raise ConfigError(
            f"no development key in {config.data_dir.absolute()}: `liveroom serve --dev` makes it; "
            "name the directory of the service with --data-dir, or its configuration file with --config"
        )
    key = _dev_key(config.data_dir)
    known = {tenant: (hash_merchant_key(merchant_key),) for tenant, merchant_key in DEV_TENANTS.items()}
    return _with_secrets(config, (key, *signing_keys), {**tenants, **known})


def _dev_key(data_dir: Path) -> SigningKey:
    path = data_dir / _DEV_KEY_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            key = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES_MIN)).rstrip(b"=").decode()
            text = orjson.dumps({"kid": _DEV_KID, "alg": "HS256", "key": key})
            # Written aside and linked, so that two starts at once agree on one key.
            aside = path.with_suffix(f".{os.getpid()}")
            aside.touch(mode=0o600)
            aside.write_bytes(text)
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        entry = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot keep the development key in {path}: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ConfigError(f"{path} is not JSON; remove it to have a new key made") from None
    return _signing_key(entry, data_dir)
