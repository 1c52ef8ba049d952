"""Running it: configuration, keys, the command line, draining, and what never reaches the log."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.client import Client, Closed, Merchant, Refused
from tests.support.service import (
    DEMO_KEY,
    OTHER_KEY,
    Service,
    run_liveroom,
    running_service,
    start_service,
    write_config,
)
from tests.support.stage import Stage

SHOP_KEY = "a-merchant-key-of-the-shop"


def write_key(folder: Path, name: str = "key.pem") -> Ed25519PrivateKey:
    """Make an Ed25519 key and write it as PEM."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / name).write_bytes(pem)
    return key


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service as a shop runs it: its own keys from a file, nothing of `--dev`."""
    folder = tmp_path_factory.mktemp("shop")
    write_key(folder)
    config = write_config(
        folder, kid="2026-11", algorithm="EdDSA", key_file="key.pem", tenants={"shop1": SHOP_KEY}
    )
    with running_service(folder, "--config", str(config)) as running:
        yield running


# --- a shop's own service -----------------------------------------------------------------------------------


async def test_eddsa_keys_from_a_file_sign_and_verify(shop: Service, http: aiohttp.ClientSession) -> None:
    merchant = Merchant(http, shop.url, SHOP_KEY)
    await merchant.put_room("r-1")
    token = await merchant.token("r-1", "anna")
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))

    async with await Client.open(shop.ws_url, "msgpack") as anna:
        joined = await anna.join("r-1", token)

    assert header == {"alg": "EdDSA", "kid": "2026-11", "typ": "JWT"}
    assert joined["you"]["viewer"] == "anna"


async def test_token_signed_with_the_public_key_as_a_secret_is_refused(
    shop: Service, http: aiohttp.ClientSession
) -> None:
    """RFC 8725 §2.1: one algorithm per key."""
    merchant = Merchant(http, shop.url, SHOP_KEY)
    await merchant.put_room("r-2")
    pem = (shop.log_file.parent / "key.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    good = await merchant.token("r-2", "anna", "owner")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"2026-11"}').rstrip(b"=").decode()
    signed = f"{head}.{good.split('.')[1]}"
    mac = base64.urlsafe_b64encode(hmac.new(public, signed.encode(), hashlib.sha256).digest()).rstrip(b"=")

    async with await Client.open(shop.ws_url) as client:
        with pytest.raises(Refused) as refused:
            await client.join("r-2", f"{signed}.{mac.decode()}")
        assert refused.value.code == "unauthorized"
        assert await client.close_code() == 4401


async def test_without_dev_there_are_no_known_keys_and_no_demo_routes(
    shop: Service, http: aiohttp.ClientSession
) -> None:
    for key in (DEMO_KEY, OTHER_KEY):
        assert (await Merchant(http, shop.url, key).call("GET", "/v1/rooms")).status == 401
    for path in ("/demo/token", "/demo/pay"):
        assert (await Merchant(http, shop.url, None).call("POST", path, {"room": "r-1"})).status == 404
    assert not (shop.log_file.parent / "data" / "dev-key.json").exists()


async def test_token_command_with_a_configuration_file(shop: Service, http: aiohttp.ClientSession) -> None:
    await Merchant(http, shop.url, SHOP_KEY).put_room("r-3")
    config = str(shop.log_file.parent / "liveroom.toml")

    arguments = ("--tenant", "shop1", "--room", "*", "--viewer", "anna", "--role", "streamer")
    done = run_liveroom("token", "--config", config, *arguments)

    assert (done.code, done.stderr) == (0, "")
    async with await Client.open(shop.ws_url) as client:
        assert (await client.join("r-3", done.stdout.strip()))["you"]["role"] == "streamer"


# --- the command line ---------------------------------------------------------------------------------------


async def test_token_command_prints_a_token_that_joins(service: Service, stage: Stage) -> None:
    data_dir = str(service.log_file.parent / "data")
    arguments = ("--tenant", "demo", "--room", stage.room, "--viewer", "anna", "--name", "小林")

    done = run_liveroom("token", "--data-dir", data_dir, *arguments)

    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    client = await stage.connect()
    joined = await client.join(stage.room, done.stdout.strip())
    assert (joined["you"]["viewer"], joined["you"]["name"]) == ("anna", "小林")


def test_token_command_makes_no_key_of_its_own(folder: Path) -> None:
    arguments = ("--tenant", "demo", "--room", "r", "--viewer", "anna")

    done = run_liveroom("token", "--data-dir", str(folder / "data"), *arguments)

    assert (done.code, done.stdout) == (78, "")
    assert "liveroom serve --dev" in done.stderr
    assert not (folder / "data").exists()


def test_wrong_usage_is_told_and_exits_with_2() -> None:
    token = run_liveroom(
        "token", "--tenant", "demo", "--room", "r", "--viewer", "-", "--data-dir", "/nonexistent"
    )
    unknown = run_liveroom("serve", "--no-such-option")

    assert unknown.code == 2
    assert "no-such-option" in unknown.stderr
    # Keys are looked for before the viewer's name is.
    assert token.code in (2, 78)


# --- starts that are refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([], {}, "signing_keys"),
        (["--dev", "--listen", "0.0.0.0:0"], {}, "loopback"),
        (["--dev"], {"LIVEROOM_INTERNAL_LISTEN": "192.0.2.1:0"}, "loopback"),
        (["--dev", "--listen", "127.0.0.1"], {}, "listen"),
        (["--dev"], {"LIVEROOM_COMMENTS_PER_S": "fast"}, "comments_per_s"),
        (["--dev", "--config", "missing.toml"], {}, "missing.toml"),
        (["--dev"], {"LIVEROOM_WORDS_FILE": "missing.txt"}, "missing.txt"),
        (["--dev"], {"LIVEROOM_STORE_REPLICAS": "1"}, "the private store has no replicas"),
        (["--dev", "--workers", "2"], {"LIVEROOM_STORE_REPLICAS": "1"}, "the private store has no replicas"),
        (["--dev", "--data-dir", __file__], {}, "is not a directory"),
    ],
    ids=[
        "no-keys", "dev-public", "dev-internal", "no-port", "no-number", "no-file", "no-words",
        "no-replicas", "no-replicas-for-workers", "data-in-a-file",
    ],
)  # fmt: skip
def test_refused_start_says_what_to_do_and_exits_with_78(
    folder: Path, arguments: list[str], settings: dict[str, str], said: str
) -> None:
    listens = ["--data-dir", str(folder / "data")]
    if "--listen" not in arguments:
        listens += ["--listen", "127.0.0.1:0"]
    if "LIVEROOM_INTERNAL_LISTEN" not in settings:
        listens += ["--internal-listen", "127.0.0.1:0"]

    done = run_liveroom("serve", *listens, *arguments, settings=settings)

    assert (done.code, done.stdout) == (78, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("liveroom: ")]
    assert said in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@127.0.0.1:abc",
        "redis://:s3cret@127.0.0.1:6379:1",
        "rediss://:s3cret@127.0.0.1:bad",
        "redis://:s3cret%zz@[::1",
        "redis://:s3cret@127.0.0.1:1/abc",
        "redis+cluster://:s3cret@[::1",
        "redis+cluster://:s3cret@127.0.0.1:1/0",
    ],
)
def test_store_that_can_never_be_reached_is_refused_at_once(folder: Path, url: str, workers: str) -> None:
    ports = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--workers", workers]

    done = run_liveroom("serve", "--dev", "--data-dir", str(folder / "data"), *ports, "--store", url)

    assert (done.code, done.stdout) == (78, "")
    # One line, and nothing of workers that were started.
    [line] = done.stderr.splitlines()
    assert line.startswith("liveroom: store")
    assert "s3cret" not in line


def test_bad_store_is_refused_wherever_it_is_set(folder: Path) -> None:
    write_key(folder)
    config = write_config(folder, kid="k", algorithm="EdDSA", key_file="key.pem", tenants={"shop1": SHOP_KEY})
    bad = "redis://:s3cret@127.0.0.1:abc"

    from_environment = run_liveroom("serve", "--config", str(config), settings={"LIVEROOM_STORE": bad})
    config.write_text(f'store = "{bad}"\n' + config.read_text("utf-8"), "utf-8")
    from_file = run_liveroom("serve", "--config", str(config))

    assert from_environment == from_file
    assert from_file.code == 78
    assert from_file.stderr.startswith("liveroom: store: ")
    assert "s3cret" not in from_file.stderr


def test_short_secret_refuses_the_start_without_being_shown(folder: Path) -> None:
    (folder / "short.key").write_bytes(b"only-thirty-one-bytes-long-key!")
    config = write_config(
        folder, kid="k", algorithm="HS256", key_file="short.key", tenants={"shop1": SHOP_KEY}
    )

    done = run_liveroom("serve", "--config", str(config), "--listen", "127.0.0.1:0")

    assert done.code == 78
    assert "at least 32 bytes" in done.stderr
    assert "only-thirty-one" not in done.stderr


def test_taken_port_refuses_the_start(service: Service, folder: Path) -> None:
    taken = service.url.removeprefix("http://")

    done = run_liveroom(
        "serve",
        "--dev",
        "--listen",
        taken,
        "--internal-listen",
        "127.0.0.1:0",
        "--data-dir",
        str(folder / "data"),
    )

    assert done.code == 78
    assert f"cannot listen on {taken}" in done.stderr


# --- the end ------------------------------------------------------------------------------------------------


async def test_sigterm_drains_with_reconnect_and_4500(folder: Path, http: aiohttp.ClientSession) -> None:
    """Draining servers send `reconnect` with `after_ms` spread evenly, and then close with 4500."""
    service = start_service(folder, "--dev", settings={"LIVEROOM_DRAIN_SPREAD_MS": "1000"})
    try:
        merchant = Merchant(http, service.url, DEMO_KEY)
        await merchant.put_room("r-1")
        await merchant.do("r-1", "room.open")
        clients = []
        for number in range(20):
            client = await Client.open(service.ws_url, "msgpack" if number % 2 else "json")
            await client.join("r-1", await merchant.token("r-1", f"v-{number}"))
            clients.append(client)
        stranger = await Client.open(service.ws_url)
        [last] = await clients[0].send({"cmd": "comment.send", "key": "last-words", "text": "再见"})
        await clients[0].answer(last)

        service.terminate()

        codes = await asyncio.gather(*(client.close_code() for client in (*clients, stranger)))
        code = await asyncio.to_thread(service.wait)
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()

    assert set(codes) == {4500}
    assert code == 0
    after = sorted(client.said("reconnect")[0]["after_ms"] for client in (*clients, stranger))
    assert after == [place * 1_000 // 21 for place in range(21)]
    # Stopped last: what was acknowledged is there when it comes back.
    with running_service(folder, "--dev") as again:
        merchant = Merchant(http, again.url, DEMO_KEY)
        comments = (await merchant.room("r-1"))["comments"]
        assert [comment["text"] for comment in comments] == ["再见"]
        resumed = await Client.open(again.ws_url)
        token = await merchant.token("r-1", "v-0")
        joined = await resumed.join("r-1", token, resume=clients[0].machine.resume())
        assert (joined["resumed"], joined["missed"]) == (True, [])
        await resumed.socket.close()


# --- secrets ------------------------------------------------------------------------------------------------


async def test_no_secret_reaches_the_log(service: Service, stage: Stage, nobody: Merchant) -> None:
    """Tokens and keys are never logged, at the most talkative level, whatever is sent wherever."""
    good = await stage.merchant.token(stage.room, "anna", "owner")
    foreign = f"wrong-key-{secrets.token_hex(8)}"
    share = (await (await stage.enter("sharer")).ask("share.token"))["token"]
    anna = await stage.enter("anna", via=share)
    for token in (good, good[:-3], foreign):
        client = await stage.connect()
        try:
            await client.join("no-such-room", token)
        except (Refused, Closed):
            pass
        await client.close_code()
    await stage.connect()
    await anna.refusal("comment.send", key=good[:64].replace(".", "-"))
    await anna.send_bytes(good.encode())
    await nobody.call("GET", f"/v1/rooms?token={good}", headers={"Authorization": f"Bearer {foreign}"})
    await nobody.call(
        "POST", "/v1/tokens", data=good.encode(), headers={"Authorization": f"Bearer {foreign}"}
    )
    await stage.merchant.call("POST", f"/v1/rooms/{stage.room}/commands", data=good.encode())
    host, port = service.url.removeprefix("http://").split(":")
    for request in (
        f"GET /v1/rooms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {DEMO_KEY}\r\nContent-Length: {foreign}\r\n\r\n",
        f"GET /v1/{good} HTTP/9.9\r\nAuthorization: Bearer {DEMO_KEY}\r\n\r\n",
        f"GET /v1/rooms HTTP/1.1\r\nAuthoriza tion: Bearer {DEMO_KEY}{foreign}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nAuthorization: Bearer {good}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.")
        writer.close()
        await writer.wait_closed()
    await anna.ask("ping")

    log = service.log()

    signing_key = json.loads((service.log_file.parent / "data" / "dev-key.json").read_bytes())["key"]
    secret = [DEMO_KEY, OTHER_KEY, signing_key, foreign, share]
    secret += [part for part in good.split(".") if len(part) > 8]
    assert "viewer.joined" in log
    assert [each for each in secret if each in log] == []
    # Every token of every test: a JWT begins like this.
    assert "eyJ" not in log


async def test_secrets_on_disk_are_the_owners_only(service: Service) -> None:
    data = service.log_file.parent / "data"

    assert (data / "dev-key.json").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o077 == 0
