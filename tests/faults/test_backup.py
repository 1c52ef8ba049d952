"""Backup and restore of the private store as docs/operations.md says, with the shell it names."""

import asyncio
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.client import Refused
from tests.support.processes import Guests, House, a_house

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
STOCK = 20

pytestmark = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="no redis-cli on the PATH")


def backup(data_dir: Path, to: Path) -> Path:
    """Run the script of the document; return the copy."""
    [script] = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```", OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        if "redis-cli" in block
    ]
    assert "/var/lib/liveroom" in script
    assert "/backup/" in script
    to.mkdir()
    script = script.replace("/var/lib/liveroom", str(data_dir)).replace("/backup/", f"{to}/")
    subprocess.run(["sh", "-eu", "-c", script], check=True, capture_output=True, timeout=30)
    [copy] = to.iterdir()
    return copy


async def claim(guests: Guests, viewer: str) -> str:
    """Claim one unit, and return the order or why there is none."""
    client = await guests.join(viewer)
    try:
        return str((await client.do("seckill.claim", sale="s-1", qty=1))["order"])
    except Refused as refused:
        return refused.code


async def reopen(house: House, appendfsync: str) -> None:
    """Stop the service and start it with another setting."""
    assert house.service is not None
    house.service.terminate()
    assert await asyncio.to_thread(house.service.wait) == 0
    house.settings["LIVEROOM_APPENDFSYNC"] = appendfsync
    await asyncio.to_thread(house.open)


async def test_older_copy_restored_on_purpose_sells_nothing_before_a_streamer_has_looked(
    tmp_path: Path,
) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "backup") as guests:
            await guests.open_room()
            await guests.merchant.do("backup", "item.put", item="tea", title="Tee", price_cents=1000)
            times = {"starts_at": 1, "ends_at": int(time.time() * 1000) + 600_000}
            sale = {"sale": "s-1", "item": "tea", "price_cents": 500, "stock": STOCK, **times}
            await guests.merchant.do("backup", "seckill.schedule", **sale)
            before = {await claim(guests, f"early-{number}") for number in range(5)}

            # While somebody buys.
            copying = asyncio.to_thread(backup, tmp_path / "data", tmp_path / "copies")
            copy, *_ = await asyncio.gather(
                copying, *(claim(guests, f"while-{number}") for number in range(3))
            )
            for number in range(4):
                await claim(guests, f"later-{number}")
            page = await guests.merchant.ok("GET", "/v1/rooms/backup/orders", query={"limit": 1000})
            known_to_the_shop = {order["order"] for order in page["data"]}
            assert len(known_to_the_shop) == 12
            epoch = guests.clients[0].joined["epoch"]

            assert house.service is not None
            house.service.terminate()
            assert await asyncio.to_thread(house.service.wait) == 0
            (tmp_path / "data" / "appendonlydir").rename(tmp_path / "before")
            shutil.copytree(copy, tmp_path / "data" / "appendonlydir")
            house.settings["LIVEROOM_APPENDFSYNC"] = "everysec"
            await asyncio.to_thread(house.open)

        async with Guests(house, "backup") as guests:
            assert await claim(guests, "eager") == "paused"
            page = await guests.merchant.ok("GET", "/v1/rooms/backup/orders", query={"limit": 1000})
            restored = {order["order"] for order in page["data"]}
            assert before <= restored <= known_to_the_shop
            missing = len(known_to_the_shop - restored)
            assert 4 <= missing <= 7
            await guests.merchant.do("backup", "seckill.adjust", sale="s-1", delta=-missing)
            await reopen(house, "always")

        async with Guests(house, "backup") as guests:
            bought = [await claim(guests, f"after-{number}") for number in range(STOCK - 12 + 1)]
            audit = await guests.merchant.ok("GET", "/v1/rooms/backup/audit")

            assert guests.clients[0].joined["epoch"] != epoch
            assert bought[-1] == "sold_out"
            # No order has a number that the shop knows already.
            assert not known_to_the_shop & set(bought)
            assert len(set(bought[:-1])) == STOCK - 12
            assert audit["holds"] is True
            assert audit["sales"]["s-1"]["stock"] == STOCK - missing
