"""Settings: where they come from, which are refused, and that secrets stay unseen."""

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.config import Config, hash_merchant_key, load, split_address
from engine.errors import ConfigError
from engine.tokens import Tokens
from protocol.codes import Role

DIGEST = hash_merchant_key("a-key-of-the-shop")
KEY = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
SIGNING_KEY = f'[[signing_keys]]\nkid = "k"\nalg = "HS256"\nkey = "{KEY}"\n'
TENANT = f'[tenants.shop1]\nmerchant_keys_sha256 = ["{DIGEST}"]\n'


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LIVEROOM_")]:
        monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    path = folder / "liveroom.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(text: str, folder: Path, **options: Any) -> str:
    """Load a configuration that must be refused, and return the message."""
    with pytest.raises(ConfigError) as refused:
        load(options, written(folder, text))
    return str(refused.value)


# --- sources ------------------------------------------------------------------------------------------------


def test_command_line_before_environment_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(
        tmp_path,
        "comments_burst = 1\nlikes_burst = 1\ncommands_burst = 1\nallowed_origins = ['https://a.example']\n"
        + SIGNING_KEY
        + TENANT,
    )
    monkeypatch.setenv("LIVEROOM_LIKES_BURST", "2")
    monkeypatch.setenv("LIVEROOM_COMMANDS_BURST", "2")

    config = load({"commands_burst": 3, "listen": None}, file)

    assert (config.comments_burst, config.likes_burst, config.commands_burst) == (1, 2, 3)
    assert config.listen == "127.0.0.1:8080"
    assert config.allowed_origins == ("https://a.example",)
    assert config.merchant_keys_sha256 == {"shop1": (DIGEST,)}
    assert [key.kid for key in config.signing_keys] == ["k"]


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LIVEROOM_DEV", "true", True),
        ("LIVEROOM_DEV", "1", True),
        ("LIVEROOM_COMPRESSION", "true", True),
        ("LIVEROOM_COMMENTS_PER_S", "0.5", 0.5),
        ("LIVEROOM_CHAT_PER_S_MAX", "0", 0.0),
        (
            "LIVEROOM_ALLOWED_ORIGINS",
            "https://a.example,https://b.example",
            ("https://a.example", "https://b.example"),
        ),
        ("LIVEROOM_DATA_DIR", "somewhere", Path("somewhere")),
        ("LIVEROOM_LOG_LEVEL", "debug", "debug"),
    ],
)
def test_environment_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)

    config = load({}, written(tmp_path, SIGNING_KEY + TENANT))

    assert getattr(config, name.removeprefix("LIVEROOM_").lower()) == read


def test_unknown_setting_is_named(tmp_path: Path) -> None:
    assert "'coments_per_s'" in refusal("coments_per_s = 1\n" + SIGNING_KEY + TENANT, tmp_path)


@pytest.mark.parametrize("name", ["signing_keys", "merchant_keys_sha256"])
def test_secrets_are_not_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"LIVEROOM_{name.upper()}", "x")

    assert load({}, written(tmp_path, SIGNING_KEY + TENANT)).signing_keys[0].kid == "k"


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load({}, tmp_path / "missing.toml")
    assert "not TOML" in refusal("= 1", tmp_path)


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"listen": "8080"}, "listen"),
        ({"listen": ":8080"}, "listen"),
        ({"listen": "127.0.0.1:65536"}, "listen"),
        ({"listen": "127.0.0.1:http"}, "listen"),
        ({"internal_listen": "x"}, "internal_listen"),
        ({"log_level": "loud"}, "log_level"),
        ({"appendfsync": "no"}, "appendfsync"),
        ({"workers": 0}, "workers"),
        ({"workers": 257}, "workers"),
        ({"idle_timeout_ms": 50_000}, "idle_timeout_ms"),
        ({"facts_kept_ms": 599_999}, "facts_kept_ms"),
        ({"comments_per_s": 0.0}, "comments_per_s"),
        ({"likes_per_s": float("nan")}, "likes_per_s"),
        ({"commands_per_s": float("inf")}, "commands_per_s"),
        ({"comments_burst": 0}, "comments_burst"),
        ({"join_timeout_ms": 0}, "join_timeout_ms"),
        ({"chat_per_s_max": -1.0}, "chat_per_s_max"),
        ({"chat_per_s_max": float("nan")}, "chat_per_s_max"),
        ({"drain_spread_ms": -1}, "drain_spread_ms"),
        ({"store": "http://127.0.0.1:6379"}, "store"),
    ],
    ids=str,
)
def test_value_out_of_bounds_is_named(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Config(**setting)


def test_one_port_is_not_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"listen and internal_listen are the same, 127\.0\.0\.1:8080"):
        Config(listen="127.0.0.1:8080", internal_listen="127.0.0.1:8080")
    # The kernel picks two different ones.
    assert Config(listen="127.0.0.1:0", internal_listen="127.0.0.1:0").listen == "127.0.0.1:0"


def test_store_that_is_no_url_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="store is not a URL") as refused:
        Config(store="redis://:s3cret@[::1")
    assert "s3cret" not in str(refused.value)


def test_value_of_another_type_is_told_with_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = SIGNING_KEY + TENANT
    assert f"workers must be a whole number, not [2] ({tmp_path}/liveroom.toml)" in refusal(
        "workers = [2]\n" + keys, tmp_path
    )
    assert "compression must be true or false, not 'perhaps' (--compression)" in refusal(
        keys, tmp_path, compression="perhaps"
    )
    assert "s3cret" not in refusal('store = ["redis://:s3cret@h:1"]\n' + keys, tmp_path)
    monkeypatch.setenv("LIVEROOM_WORKERS", "many")
    assert "workers must be a whole number, not 'many' (LIVEROOM_WORKERS)" in refusal(keys, tmp_path)


@pytest.mark.parametrize(
    "setting", [{"workers": "many"}, {"comments_per_s": "fast"}, {"compression": "perhaps"}]
)
def test_value_of_another_type_is_named(tmp_path: Path, setting: dict[str, Any]) -> None:
    [name] = setting

    assert name in refusal(SIGNING_KEY + TENANT, tmp_path, **setting)


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_address_is_split(address: str, split: tuple[str, int]) -> None:
    assert split_address("listen", address) == split


# --- keys and tenants ---------------------------------------------------------------------------------------


def test_without_keys_or_tenants_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no signing_keys"):
        load({}, None)
    assert "no signing_keys" in refusal(TENANT, tmp_path)
    assert "no tenants" in refusal(SIGNING_KEY, tmp_path)


def a_key(**fields: str) -> str:
    return "[[signing_keys]]\n" + "".join(f'{name} = "{value}"\n' for name, value in fields.items()) + TENANT


SHORT = base64.urlsafe_b64encode(secrets.token_bytes(31)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (a_key(alg="HS256", key=KEY), "no kid"),
        (a_key(kid="k", key=KEY), "alg must be"),
        (a_key(kid="k", alg="none", key=KEY), "alg must be"),
        (a_key(kid="k", alg="RS256", key=KEY), "alg must be"),
        (a_key(kid="k", alg="HS256"), "needs key or key_file"),
        (a_key(kid="k", alg="HS256", key=SHORT), "at least 32 bytes"),
        (a_key(kid="k", alg="HS256", key="!" + KEY), "not base64url"),
        (a_key(kid="k", alg="HS256", key=KEY + " "), "not base64url"),
        (a_key(kid="k", alg="HS256", key="密钥" * 22), "not base64url"),
        (a_key(kid="k", alg="HS256", key="A" * 43), "too regular"),
        (a_key(kid="k", alg="HS256", key_file="missing"), "cannot read"),
        (a_key(kid="k", alg="EdDSA", key=KEY), "not a PEM file"),
        (a_key(kid="dev", alg="HS256", key=KEY), "--dev"),
        (SIGNING_KEY + SIGNING_KEY + TENANT, "same kid"),
        ("signing_keys = 7\n" + TENANT, "array of tables"),
        (SIGNING_KEY + "[tenants]\n'a b' = {}\n", "not an id"),
        (SIGNING_KEY + "[tenants.shop1]\n", "merchant_keys_sha256"),
        (SIGNING_KEY + "[tenants.shop1]\nmerchant_keys_sha256 = []\n", "merchant_keys_sha256"),
        (SIGNING_KEY + "[tenants.shop1]\nmerchant_keys_sha256 = ['xyz']\n", "SHA-256"),
        (
            SIGNING_KEY
            + f"[tenants.shop1]\nmerchant_keys_sha256 = ['{hash_merchant_key('dev-key-demo')}']\n",
            "development key",
        ),
        (SIGNING_KEY + TENANT + TENANT.replace("shop1", "shop2"), "same merchant key"),
    ],
)
def test_bad_secrets_are_refused_without_being_shown(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(text, tmp_path)

    assert said in message
    assert KEY not in message
    assert SHORT not in message


def pem_of(key: Any, *, public: bool = False) -> bytes:
    if public:
        pem: bytes = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    else:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return pem


def test_eddsa_keys_sign_and_public_ones_only_verify(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "private.pem").write_bytes(pem_of(key))
    (tmp_path / "public.pem").write_bytes(pem_of(key, public=True))
    text = "".join(
        f'[[signing_keys]]\nkid = "{kid}"\nalg = "EdDSA"\nkey_file = "{kid}.pem"\n'
        for kid in ("public", "private")
    )

    # Key files stand beside the configuration, wherever the process runs.
    config = load({}, written(tmp_path, text + TENANT))

    tokens = Tokens(list(config.signing_keys))
    token, _ = tokens.sign(tenant="shop1", room="r", viewer="v", role=Role.VIEWER, ttl_s=60)
    assert tokens.verify(token, "r").viewer == "v"
    assert config.signing_keys[0].signing is None


@pytest.mark.parametrize(
    ("algorithm", "said"), [("EdDSA", "not an Ed25519 key"), ("HS256", "a PEM file is no HS256 key")]
)
@pytest.mark.parametrize("public", [False, True])
def test_key_of_another_kind_is_refused(tmp_path: Path, algorithm: str, said: str, public: bool) -> None:
    (tmp_path / "key.pem").write_bytes(pem_of(generate_private_key(SECP256R1()), public=public))

    assert said in refusal(a_key(kid="k", alg=algorithm, key_file="key.pem"), tmp_path)


def test_configuration_does_not_print_its_secrets(tmp_path: Path) -> None:
    shown = repr(load({}, written(tmp_path, SIGNING_KEY + TENANT)))

    assert DIGEST not in shown
    assert repr(bytes(range(32))) not in shown


# --- development --------------------------------------------------------------------------------------------


def test_dev_fixes_two_tenants_and_keeps_its_key(tmp_path: Path) -> None:
    first = load({"dev": True, "data_dir": tmp_path / "data"}, None)
    second = load({"dev": True, "data_dir": tmp_path / "data"}, None)

    assert dict(first.merchant_keys_sha256) == {
        "demo": (hash_merchant_key("dev-key-demo"),),
        "other": (hash_merchant_key("dev-key-other"),),
    }
    assert first.signing_keys == second.signing_keys
    assert (first.signing_keys[0].kid, first.signing_keys[0].algorithm) == ("dev", "HS256")
    path = tmp_path / "data" / "dev-key.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["dev-key.json"]


def test_dev_keeps_the_keys_of_the_file_for_verifying(tmp_path: Path) -> None:
    config = load({"dev": True, "data_dir": tmp_path}, written(tmp_path, SIGNING_KEY + TENANT))

    assert [key.kid for key in config.signing_keys] == ["dev", "k"]
    assert set(config.merchant_keys_sha256) == {"demo", "other", "shop1"}


@pytest.mark.parametrize("name", ["listen", "internal_listen"])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "shop.example", "[::]"])
def test_dev_is_refused_on_anything_but_loopback(tmp_path: Path, name: str, host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        load({"dev": True, "data_dir": tmp_path, name: f"{host}:8080"}, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_dev_is_let_in_on_loopback(tmp_path: Path, host: str) -> None:
    assert load({"dev": True, "data_dir": tmp_path, "listen": f"{host}:0"}, None).dev


def test_dev_key_is_made_only_where_it_may_be(tmp_path: Path) -> None:
    options = {"dev": True, "data_dir": tmp_path / "data"}

    with pytest.raises(ConfigError, match=r"no development key in .*serve --dev.*--data-dir"):
        load(options, None, makes_dev_key=False)
    assert list(tmp_path.iterdir()) == []

    made = load(options, None)
    assert load(options, None, makes_dev_key=False).signing_keys == made.signing_keys


def test_file_in_the_place_of_the_data_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(ConfigError, match="data is not a directory"):
        load({"dev": True, "data_dir": tmp_path / "data"}, None)


def test_broken_dev_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "dev-key.json").write_text("{")

    with pytest.raises(ConfigError, match="remove it"):
        load({"dev": True, "data_dir": tmp_path}, None)
