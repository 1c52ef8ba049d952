"""The streamer is gone: the room pauses after a grace, goes on when they return, and closes if they do not."""

import time
from collections.abc import Iterator

import pytest

from tests.support.processes import Guests, House, a_house, until

GRACE_MS = 400
PATIENCE_MS = 1500


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = {"streamer_grace_ms": str(GRACE_MS), "paused_close_ms": str(PATIENCE_MS)}
    with a_house(tmp_path_factory.mktemp("streamer-gone"), **settings) as house:
        yield house


async def test_room_pauses_goes_on_and_closes(house: House) -> None:
    async with Guests(house, "gone") as guests:
        await guests.open_room()
        anna = await guests.join("anna")
        host = await guests.join("host", "streamer")
        await host.do("notice.set", text="bin gleich wieder da")

        host.socket.transport.abort()
        left = time.monotonic()
        paused = await anna.event("room.state")
        assert (paused["state"], paused["reason"]) == ("paused", "streamer_gone")
        assert time.monotonic() - left > GRACE_MS / 1000 * 0.9

        # Viewers stay and talk, and the same streamer goes on with the same room.
        await anna.do("comment.send", text="wo bist du?")
        host = await guests.join("host", "streamer")
        assert (await anna.event("room.state"))["state"] == "live"
        assert host.joined["epoch"] == anna.joined["epoch"]

        # A reload of the page is no absence.
        await host.socket.close()
        host = await guests.join("host", "streamer")
        await anna.caught_up()
        assert anna.said("room.state")[-1]["state"] == "live"

        await host.socket.close()
        for state in ("paused", "closing", "closed"):
            event = await anna.event("room.state")
            assert event["state"] == state
            assert state == "closed" or event["reason"] == "streamer_gone"
        assert await anna.close_code() == 4411
        paused_at, closing_at = [
            event["at"] for event in anna.said("room.state") if event.get("reason") == "streamer_gone"
        ][-2:]
        assert closing_at - paused_at >= PATIENCE_MS


async def test_room_of_a_killed_server_is_paused_by_the_next_one(house: House) -> None:
    """Nobody is there to see the streamer leave: their lease runs out, and the note in the store is still due."""
    async with Guests(house, "crashed") as guests:
        await guests.open_room()
        await guests.join("host", "streamer")

        house.kill()
        house.open()

        async def paused() -> bool:
            return str((await guests.merchant.room("crashed"))["state"]) != "live"

        # The lease of the dead server's presence, and of the work it had taken, run out first.
        await until(paused, 30.0)
        facts = [fact for fact in await guests.facts() if fact["ev"] == "room.state"]
        assert (facts[1]["state"], facts[1]["reason"]) == ("paused", "streamer_gone")
