"""Who gets in: the handshake, the join, tokens, and what is closed with which code."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import socket
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.client import Client, Merchant, Refused
from tests.support.service import DEMO_KEY, Service, now_s, running_service
from tests.support.stage import CODECS, Stage

Map = dict[str, Any]


def dev_key(service: Service) -> bytes:
    """Return the signing key of the service: only its operator could."""
    entry = json.loads((service.log_file.parent / "data" / "dev-key.json").read_bytes())
    return base64.urlsafe_b64decode(entry["key"] + "=")


def signed(
    service: Service, stage: Stage, *, kid: str = "dev", key: bytes | None = None, **claims: Any
) -> str:
    """Return a token as a merchant's side would sign it; a claim that is None is left out."""
    now = now_s()
    whole = {
        "aud": "liveroom",
        "iat": now,
        "exp": now + 60,
        "sub": "anna",
        "tenant": "demo",
        "room": stage.room,
        "role": "viewer",
        **claims,
    }
    kept = {claim: value for claim, value in whole.items() if value is not None}
    return jwt.encode(kept, key or dev_key(service), algorithm="HS256", headers={"kid": kid})


async def refused_join(client: Client, room: str, token: str, **fields: Any) -> tuple[str, int]:
    """Join, which must fail; return the code of the reply and of the close."""
    with pytest.raises(Refused) as refused:
        await client.join(room, token, **fields)
    return refused.value.code, await client.close_code()


# --- the handshake ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["liveroom.v1.json"], "liveroom.v1.json"),
        (["liveroom.v1.msgpack"], "liveroom.v1.msgpack"),
        (["liveroom.v2.cbor", "liveroom.v1.msgpack"], "liveroom.v1.msgpack"),
    ],
)
async def test_subprotocol_is_chosen(service: Service, offered: list[Any] | None, chosen: str | None) -> None:
    async with connect(service.ws_url, subprotocols=offered, compression="deflate") as socket:
        assert socket.subprotocol == chosen
        # permessage-deflate is off unless the operator turns it on.
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        message = (
            b'{"cmd":"ping","id":1}' if chosen != "liveroom.v1.msgpack" else b"\x82\xa3cmd\xa4ping\xa2id\x01"
        )
        await socket.send(message, text=chosen != "liveroom.v1.msgpack")
        answer = await socket.recv()
        assert isinstance(answer, bytes) is (chosen == "liveroom.v1.msgpack")
        assert b"not_joined" in (answer if isinstance(answer, bytes) else answer.encode())


async def test_only_unknown_subprotocols_are_refused_with_400(service: Service) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await connect(service.ws_url, subprotocols=["graphql-ws"])  # type: ignore[list-item]
    assert refusal.value.response.status_code == 400


async def test_ws_without_an_upgrade_is_not_found(nobody: Merchant) -> None:
    assert (await nobody.call("GET", "/ws")).status == 404


async def test_without_a_join_in_time_the_connection_is_closed_with_4401(folder: Path) -> None:
    settings = {"LIVEROOM_JOIN_TIMEOUT_MS": "300"}
    with running_service(folder, "--dev", settings=settings) as quick:
        async with aiohttp.ClientSession() as http:
            merchant = Merchant(http, quick.url, DEMO_KEY)
            await merchant.put_room("r-1")
            async with await Client.open(quick.ws_url) as silent, await Client.open(quick.ws_url) as talker:
                token = await merchant.token("r-1", "anna")
                joined = await Client.open(quick.ws_url)
                await joined.join("r-1", token)
                # Talking is not joining.
                assert (await talker.refusal("ping"))["code"] == "not_joined"

                assert await silent.close_code() == 4401
                assert await talker.close_code() == 4401
                await joined.ask("ping")
                await joined.socket.close()


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
async def test_good_token_of_the_shops_own_making_joins(
    service: Service, stage: Stage, codec_name: str
) -> None:
    client = await stage.connect(codec_name)
    token = signed(service, stage, room="*", name="小林", avatar="https://cdn.example/a.png", role="agent")

    joined = await client.join(stage.room, token)

    share = joined["you"].pop("share")
    assert isinstance(share, str)
    assert joined["you"] == {
        "viewer": "anna",
        "name": "小林",
        "role": "agent",
        "muted_until": None,
        "orders": [],
        "grabs": {},
        "rank": None,
        "invited": 0,
    }
    assert joined["resumed"] is False
    assert joined["missed"] == []
    assert joined["ping_ms"] == 25_000
    assert joined["room"]["state"] == "live"
    assert abs(joined["now"] - now_s() * 1000) < 5_000


#: Claims that make a token bad; None leaves the claim out.
BAD_CLAIMS: list[Map] = [
    {"aud": "somebody-else"},
    {"aud": ["liveroom", "somebody-else"]},
    {"aud": None},
    {"exp": None},
    {"exp": "soon"},
    {"exp": 1e400},
    {"iat": None},
    {"iat": now_s() + 3_600},
    {"nbf": now_s() + 3_600},
    {"sub": None},
    {"sub": "-"},
    {"sub": "a b"},
    {"tenant": None},
    {"tenant": "~merchant"},
    {"role": None},
    {"role": "admin"},
    {"role": ["owner"]},
    {"room": None},
    {"room": "another-room"},
    {"room": ["*"]},
    {"name": "x" * 33},
    {"name": 7},
    {"avatar": "http://cdn.example/a.png"},
    {"level": -1},
    {"tags": "vip"},
    {"tags": ["x"] * 21},
]


@pytest.mark.parametrize("claims", BAD_CLAIMS, ids=str)
async def test_bad_claim_is_unauthorized_and_4401(service: Service, stage: Stage, claims: Map) -> None:
    client = await stage.connect()

    assert await refused_join(client, stage.room, signed(service, stage, **claims)) == ("unauthorized", 4401)


def unsigned(token: str, header: Map) -> str:
    """Return the token under another header and without a signature."""
    return f"{_base64url(json.dumps(header).encode())}.{token.split('.')[1]}."


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("codec_name", CODECS)
async def test_forged_tokens_are_unauthorized_and_4401(
    service: Service, stage: Stage, codec_name: str
) -> None:
    good = signed(service, stage, role="owner")
    head, body, signature = good.split(".")
    no_kid = _base64url(b'{"alg":"HS256","typ":"JWT"}') + "." + body
    mac = hmac.new(dev_key(service), no_kid.encode(), hashlib.sha256).digest()
    forged = {
        "none": unsigned(good, {"alg": "none", "kid": "dev"}),
        "None": unsigned(good, {"alg": "None", "kid": "dev", "typ": "JWT"}),
        "another algorithm of the kid": jwt.encode(
            {}, dev_key(service) * 2, algorithm="HS512", headers={"kid": "dev"}
        ),
        "another key": signed(service, stage, key=secrets.token_bytes(32)),
        "unknown kid": signed(service, stage, kid="2019-01"),
        "without kid": f"{no_kid}.{_base64url(mac)}",
        "kid is a path": signed(service, stage, kid="../../dev-key.json"),
        "changed": f"{head}.{_base64url(b'{}')}.{signature}",
        "cut": good[:-4],
        "not a token": "x",
        "dots": "...",
        "text": "令牌",
    }
    for how, token in forged.items():
        client = await stage.connect(codec_name)
        assert await refused_join(client, stage.room, token) == ("unauthorized", 4401), how


async def test_forged_token_for_a_missing_room_is_unauthorized_too(service: Service, stage: Stage) -> None:
    """Whether or not the room exists."""
    token = signed(service, stage, key=secrets.token_bytes(32))

    here = await stage.connect()
    there = await stage.connect()
    with pytest.raises(Refused) as at_home:
        await here.join(stage.room, token)
    with pytest.raises(Refused) as nowhere:
        await there.join("no-such-room", token)

    assert at_home.value.err == nowhere.value.err


async def test_expired_token_is_unauthorized_and_4402(service: Service, stage: Stage) -> None:
    client = await stage.connect()
    token = signed(service, stage, iat=now_s() - 60, exp=now_s() - 30)

    assert await refused_join(client, stage.room, token) == ("unauthorized", 4402)


async def test_expired_token_with_a_bad_signature_is_only_bad(service: Service, stage: Stage) -> None:
    client = await stage.connect()
    token = signed(service, stage, exp=now_s() - 30, key=secrets.token_bytes(32))

    assert await refused_join(client, stage.room, token) == ("unauthorized", 4401)


async def test_token_that_expires_in_the_room_closes_with_4402(stage: Stage) -> None:
    client = await stage.enter(claims={"ttl_s": 1})
    await client.ask("ping")

    assert await client.close_code() == 4402


# --- rooms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
async def test_foreign_room_answers_exactly_like_a_missing_one(
    service: Service, stage: Stage, other_merchant: Merchant, codec_name: str
) -> None:
    """Tenants never see each other: a foreign room answers exactly like a missing one."""
    frames = []
    for room in (stage.room, "no-such-room"):
        client = await stage.connect(codec_name)
        [command_id] = await client.send(
            {"cmd": "room.join", "id": 77, "room": room, "token": await other_merchant.token("*", "anna")}
        )
        with pytest.raises(Refused) as refused:
            await client.answer(command_id)
        assert refused.value.code == "room_not_found"
        assert await client.close_code() == 4404
        frames.append(client.frames)

    assert frames[0] == frames[1]
    assert len(frames[0]) == 1


# --- the join as a command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec_name", CODECS)
@pytest.mark.parametrize(
    "change",
    [
        {"room": "-"},
        {"room": None},
        {"token": ""},
        {"token": "x" * 4_097},
        {"resume": {"epoch": "e"}},
        {"resume": {"epoch": "e", "seq": -1}},
        {"resume": {"epoch": "e", "seq": "1"}},
        {"resume": 7},
        {"via": "x" * 1025},
        {"entry": "x" * 65},
        {"entry": 5},
    ],
    ids=str,
)
async def test_malformed_join_is_a_bad_command_and_4400(stage: Stage, codec_name: str, change: Map) -> None:
    client = await stage.connect(codec_name)
    good = await stage.merchant.token(stage.room, "anna")

    whole = {"room": stage.room, "token": good, **change}
    assert await refused_join(client, whole.pop("room"), **whole) == ("bad_command", 4400)


async def test_join_without_an_id_is_complained_about_and_4400(stage: Stage) -> None:
    client = await stage.connect()
    await client.send_bytes(b'{"cmd":"room.join","room":"r"}')

    assert (await client.complaint())["code"] == "bad_command"
    assert await client.close_code() == 4400


async def test_second_join_is_refused_and_nothing_else(stage: Stage) -> None:
    client = await stage.enter()
    token = await stage.merchant.token(stage.room, "anna")

    err = await client.refusal("room.join", room=stage.room, token=token)

    assert err["code"] == "already_joined"
    await client.ask("ping")


async def test_malformed_second_join_is_only_refused(stage: Stage) -> None:
    client = await stage.enter()

    assert (await client.refusal("room.join", room="-", token=""))["code"] == "bad_command"
    await client.ask("ping")


async def test_commands_behind_a_join_wait_for_it(stage: Stage) -> None:
    client = await stage.connect()
    token = await stage.merchant.token(stage.room, "anna")

    ids = await client.send(
        {"cmd": "room.join", "room": stage.room, "token": token},
        {"cmd": "comment.send", "key": "behind-01", "text": "一进来就说"},
        {"cmd": "like.send", "n": 3, "batch": 1},
        {"cmd": "room.leave"},
        {"cmd": "comment.send", "key": "behind-02", "text": "走了以后"},
    )

    assert (await client.answer(ids[0]))["room"]["room"] == stage.room
    assert await client.answer(ids[3]) == {}
    assert await client.close_code() == 1000
    texts = [comment["text"] for comment in (await stage.snapshot())["comments"]]
    assert "走了以后" not in texts


async def test_commands_before_the_join_are_refused(stage: Stage) -> None:
    client = await stage.connect()

    assert (await client.refusal("ping"))["code"] == "not_joined"
    assert (await client.refusal("comment.send", key="before-01", text="?"))["code"] == "not_joined"
    assert (await client.refusal("room.fly"))["code"] == "unknown_command"
    assert (await client.refusal("comment.send"))["code"] == "bad_command"
    # None of them was a violation.
    token = await stage.merchant.token(stage.room, "anna")
    assert (await client.join(stage.room, token))["you"]["viewer"] == "anna"


async def test_leaving_is_answered_and_closed_with_1000(stage: Stage) -> None:
    client = await stage.enter()

    assert await client.ask("room.leave") == {}
    assert await client.close_code() == 1000


@pytest.mark.parametrize("before", [1, 3])
async def test_handshake_on_a_connection_that_carried_http_before(
    service: Service, stage: Stage, before: int
) -> None:
    """RFC 9112 §9.3: a connection may carry any number of requests; balancers send handshakes on those they keep."""
    host, port = service.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    for _ in range(before):
        await loop.sock_sendall(sock, b"GET /v1/rooms HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(sock, 65_536)
        assert answer.startswith(b"HTTP/1.1 401")

    async with connect(service.ws_url, sock=sock, subprotocols=[Subprotocol("liveroom.v1.json")]) as client:
        token = await stage.merchant.token(stage.room, "anna")
        await client.send(json.dumps({"cmd": "room.join", "id": 1, "room": stage.room, "token": token}))
        [joined, *_] = json.loads(await client.recv())
        assert joined["ok"]["you"]["viewer"] == "anna"
        # Long after aiohttp would have ended a connection whose handler is done.
        await client.send(json.dumps({"cmd": "ping", "id": 2}))
        while (replies := json.loads(await client.recv()))[0].get("re") != 2:
            pass
        assert "now" in replies[0]["ok"]
