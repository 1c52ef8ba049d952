"""
Several workers on one port: viewers of one room see the same whoever holds their connection, and a worker's death is
noticed by the others.

Which worker holds a connection is the kernel's choice; the tests read it from the store and connect until it suits.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client, Closed, Refused, a_key
from tests.support.processes import Guests, House, a_house, is_gone, seqs, until

LEASE_S = 6.0
BEAT_S = 2.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # No display cap: what two moderators say in a breath, arrivals included, may be more than a second's worth.
    settings = {"comments_burst": "1000", "chat_per_s_max": "0"}
    with a_house(tmp_path_factory.mktemp("two-workers"), workers=2, **settings) as house:
        yield house


async def both_sides(guests: Guests) -> tuple[Client, Client]:
    """Return two viewers, "here" and "there", each on a worker of their own."""
    here = await guests.join("here")
    return here, await guests.join_elsewhere("there", {await guests.worker_of("here")})


async def test_viewers_of_both_workers_see_one_order(house: House) -> None:
    async with Guests(house, "order") as guests:
        await guests.open_room()
        here, there = await both_sides(guests)
        # Both workers write at the same time: the store decides the order, for everybody.
        moderators = [await guests.join("left", "moderator"), await guests.join("right", "moderator")]

        async def speak(client: Client, name: str) -> None:
            for number in range(20):
                await client.do("notice.set", text=f"{name} {number}")
                await client.do("comment.send", text=f"{name} {number}")

        await asyncio.gather(*(speak(client, str(place)) for place, client in enumerate(moderators)))
        facts = await guests.facts()
        last = facts[-1]["seq"]
        for client in (here, there):
            await client.event("notice", seq=last)
            await client.until(lambda client=client: len(client.said("comment")) == 40)  # type: ignore[misc]

        assert here.said("notice") == there.said("notice") == facts[1:]
        assert seqs(here) == seqs(there) == list(range(2, last + 1))
        assert here.said("comment") == there.said("comment")
        assert [event["comment"] for event in here.said("comment")] == list(range(1, 41))


async def test_mute_is_obeyed_on_both_workers_within_a_second(house: House) -> None:
    async with Guests(house, "mute") as guests:
        await guests.open_room()
        first = await guests.join("anna")
        second = await guests.join_elsewhere("anna", {await guests.worker_of("anna")})
        for client in (first, second):
            await client.do("comment.send", text="hallo")

        muted = time.monotonic()
        await guests.merchant.do("mute", "viewer.mute", viewer="anna", seconds=60)
        for client in (first, second):
            refused = await client.refusal("comment.send", text="hallo", key=a_key())
            assert refused["code"] == "muted"
            assert (await client.event("you.muted"))["until"] == refused["until"]
        assert time.monotonic() - muted < 5.0


async def test_kick_closes_the_sockets_on_both_workers(house: House) -> None:
    async with Guests(house, "kick") as guests:
        await guests.open_room()
        first = await guests.join("anna")
        second = await guests.join_elsewhere("anna", {await guests.worker_of("anna")})
        watcher = await guests.join("watcher")

        await guests.merchant.do("kick", "viewer.kick", viewer="anna")

        for client in (first, second):
            assert await client.close_code() == 4410
            # The one it is about has been told why.
            assert client.said("viewer.removed")[0]["viewer"] == "anna"
        await watcher.event("viewer.removed", viewer="anna", how="kick")
        await watcher.event("online", now=1)


async def test_online_counts_viewers_across_workers(house: House) -> None:
    async with Guests(house, "online") as guests:
        await guests.open_room()
        here, there = await both_sides(guests)
        again = await guests.join_elsewhere("here", {await guests.worker_of("here")})
        assert await guests.online() == 2
        await here.event("online", now=2)

        await there.socket.close()
        await here.event("online", now=1, peak=2)

        # One of the viewer's two connections is not the viewer.
        await again.socket.close()
        await here.caught_up()
        assert await guests.online() == 1


async def test_sixth_connection_closes_the_oldest_wherever_it_is(house: House) -> None:
    async with Guests(house, "six") as guests:
        await guests.open_room()
        oldest = await guests.join("anna")
        others = [await guests.join_elsewhere("anna", {await guests.worker_of("anna")})]
        others += [await guests.join("anna") for _ in range(3)]
        for client in (oldest, *others):
            await client.caught_up()

        sixth = await guests.join_elsewhere("anna", set())

        assert await oldest.close_code() == 4429
        for client in (*others, sixth):
            await client.caught_up()
        assert await guests.online() == 1


async def test_killed_worker_is_started_again_and_its_viewers_resume(house: House) -> None:
    async with Guests(house, "reborn") as guests:
        await guests.open_room()
        here, there = await both_sides(guests)
        await guests.merchant.do("reborn", "notice.set", text="vorher")
        for client in (here, there):
            await client.event("notice", text="vorher")

        before = house.worker_pids()
        survivors = await kill_worker_of(guests, house, there)
        # The supervisor has two again, and one of them is new.

        async def two_again() -> bool:
            return len(set(house.worker_pids())) == 2 and set(house.worker_pids()) != set(before)

        await until(two_again)
        await survivors.do("comment.send", text="ich bin noch da")
        for text in ("eins", "zwei"):
            await guests.merchant.do("reborn", "notice.set", text=text)

        dead, viewer = (there, "there") if survivors is here else (here, "here")
        assert await dead.close_code() == 1006
        back = await guests.come_back(dead, viewer)
        assert [fact["text"] for fact in back.joined["missed"]] == ["eins", "zwei"]
        await survivors.event("notice", text="zwei")
        assert seqs(survivors) == [2, 3, 4]


async def kill_worker_of(guests: Guests, house: House, client: Client) -> Client:
    """Kill one worker; return the viewer of the two that is still connected."""
    victim = pid_behind(house, client)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(Closed):
        await client.event("never")
    [other] = [each for each in guests.clients if each is not client and each.socket.close_code is None][:1]
    return other


def pid_behind(house: House, client: Client) -> int:
    """Return the worker that holds a connection, by the socket it has open."""
    ours, theirs = client.socket.local_address[1], client.socket.remote_address[1]
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[place].rpartition(":")[2], 16) for place in (1, 2))
        if (local, remote) == (theirs, ours):
            inodes.add(f"socket:[{fields[9]}]")
    for pid in house.worker_pids():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(entry) in inodes:
                    return pid
            except FileNotFoundError:
                continue
    raise AssertionError("no worker holds this connection")


@pytest.mark.slow
async def test_viewers_of_a_dead_worker_are_forgotten_and_those_of_a_stalled_one_return(
    tmp_path: Path,
) -> None:
    """
    A worker that does not renew its lease for 6 s is taken for dead. One that was only out of breath finds its viewers
    purged, and counts them again by itself.
    """
    with a_house(tmp_path, workers=3) as house:
        async with Guests(house, "lease") as guests:
            await guests.open_room()
            here = await guests.join("here")
            homes = {await guests.worker_of("here")}
            stalled = await guests.join_elsewhere("stalled", homes)
            homes.add(await guests.worker_of("stalled"))
            dead = await guests.join_elsewhere("dead", homes)
            await here.event("online", now=3)
            breathless = pid_behind(house, stalled)

            os.kill(pid_behind(house, dead), signal.SIGKILL)
            os.kill(breathless, signal.SIGSTOP)
            try:
                began = time.monotonic()
                await here.event("online", now=1)
                assert time.monotonic() - began < LEASE_S + 2 * BEAT_S + 5.0
            finally:
                os.kill(breathless, signal.SIGCONT)

            # The same connection, which never noticed.
            await here.event("online", now=2)
            await guests.merchant.do("lease", "notice.set", text="alle da?")
            assert (await stalled.event("notice"))["seq"] == 2
            async with house.store() as store:
                present = await store.hgetall(guests.names.present)
            assert set(present) == {"here", "stalled"}
            assert len(present["stalled"].split()) == 1


async def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:
        house.open_workers(2)
        async with Guests(house, "orphans") as guests:
            await guests.open_room()
            anna = await guests.join("anna")
            await guests.merchant.do("orphans", "notice.set", text="vorher")
            await anna.event("notice")
            workers = house.worker_pids()

            house.kill()

            # Drained, not dropped: the viewer is told to come back.
            assert await anna.close_code() == 4500

            async def gone() -> bool:
                return all(map(is_gone, workers))

            await until(gone)
            house.open_workers(2)
            await guests.merchant.do("orphans", "notice.set", text="nachher")
            back = await guests.come_back(anna, "anna")
            assert [fact["text"] for fact in back.joined["missed"]] == ["nachher"]
    finally:
        house.close()


async def test_store_killed_under_two_workers_leaves_no_viewer_behind(house: House) -> None:
    async with Guests(house, "both") as guests:
        await guests.open_room()
        here, there = await both_sides(guests)
        await asyncio.to_thread(house.kill_store)

        key = a_key()
        while True:
            try:
                console = await guests.join("console", "moderator")
                await console.ask("notice.set", key=key, text="wieder da")
                break
            except (Refused, Closed):
                continue

        for client in (here, there):
            assert (await client.event("notice"))["seq"] == 2
        assert await guests.online() == 3
