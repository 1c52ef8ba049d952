"""What one viewer must not be able to do to the others, or to the books."""

import time
from pathlib import Path

import jwt
import pytest

from tests.acceptance.test_admission import dev_key
from tests.support.client import Closed, a_key
from tests.support.in_process import an_engine
from tests.support.processes import Guests
from tests.support.service import Service
from tests.support.stage import Stage


async def test_flood_is_closed_and_others_are_served(stage: Stage) -> None:
    """A thousand commands that come too fast end the connection."""
    flooder, anna = await stage.enter("flooder"), await stage.enter("anna")

    for _ in range(60):
        await flooder.send(*({"cmd": "ping"} for _ in range(32)))
    assert "now" in await anna.ask("ping")

    assert await flooder.close_code() == 4400
    assert "now" in await anna.ask("ping")


async def test_flood_that_waits_for_its_replies_is_closed_too(tmp_path: Path) -> None:
    """The bucket lets one command through every so often; that must not make all before it forgotten."""
    async with (
        an_engine(tmp_path, commands_per_s=20, commands_burst=10) as engine,
        Guests(engine, "tea") as guests,
    ):
        await guests.open_room()
        flooder = await guests.join("flooder")

        in_time = 0

        async def flood() -> None:
            nonlocal in_time
            for _ in range(1_000):
                ids = await flooder.send(*({"cmd": "ping"} for _ in range(32)))
                in_time += sum([(await flooder.reply(each)).ok is not None for each in ids])

        with pytest.raises(Closed):
            await flood()

        assert await flooder.close_code() == 4400
        assert in_time >= 10


async def test_token_with_half_a_surrogate_in_a_tag_is_refused(service: Service, stage: Stage) -> None:
    """It could not be written to the store, and would cost everybody whose call travels with it."""
    now_s = int(time.time())
    claims = {
        "aud": "liveroom",
        "iat": now_s,
        "exp": now_s + 60,
        "sub": "mallory",
        "tenant": "demo",
        "room": stage.room,
        "role": "viewer",
        "tags": ["\ud800"],
    }
    token = jwt.encode(claims, dev_key(service), algorithm="HS256", headers={"kid": "dev"})
    client = await stage.connect()

    reply = await client.refusal("room.join", room=stage.room, token=token)

    assert reply["code"] == "unauthorized"
    assert await client.close_code() == 4401


async def test_expired_token_for_another_room_is_unauthorized(service: Service, stage: Stage) -> None:
    """Its holder needs no new token of that kind."""
    now_s = int(time.time())
    claims = {
        "aud": "liveroom",
        "iat": now_s - 120,
        "exp": now_s - 60,
        "sub": "anna",
        "tenant": "demo",
        "room": "elsewhere",
        "role": "viewer",
    }
    token = jwt.encode(claims, dev_key(service), algorithm="HS256", headers={"kid": "dev"})
    client = await stage.connect()

    assert (await client.refusal("room.join", room=stage.room, token=token))["code"] == "unauthorized"
    assert await client.close_code() == 4401


async def test_used_key_is_a_conflict_even_where_the_target_does_not_exist(stage: Stage) -> None:
    """The same key with different fields is `conflict`."""
    await stage.do("item.put", item="tea", title="明前龙井", price_cents=9_900)
    now = (await stage.snapshot())["now"]
    terms = {"item": "tea", "price_cents": 100, "stock": 2, "starts_at": 0, "ends_at": now + 60_000}
    await stage.do("seckill.schedule", sale="s", **terms)
    money = {"total_cents": 200, "shares": 2, "split": "even", "expires_s": 60}
    await stage.do("redpacket.send", packet="p", **money)
    anna = await stage.enter()
    key = a_key()
    order = (await anna.ask("seckill.claim", sale="s", key=key))["order"]
    await anna.ask("redpacket.grab", packet="p", key=key)
    await anna.ask("order.cancel", order=order, key=key)

    assert (await anna.refusal("seckill.claim", sale="none", key=key))["code"] == "conflict"
    assert (await anna.refusal("redpacket.grab", packet="none", key=key))["code"] == "conflict"
    assert (await anna.refusal("order.cancel", order="none-1", key=key))["code"] == "conflict"


async def test_moderator_does_not_let_a_streamer_in_again(stage: Stage) -> None:
    await stage.enter("host", "streamer")
    moderator = await stage.enter("mona", "moderator")
    await stage.do("viewer.ban", viewer="host")

    assert (await moderator.refusal("viewer.unban", viewer="host", key=a_key()))["code"] == "forbidden"
