"""
A rolling restart, and what may happen during one: nobody is refused, nothing is lost, and whatever goes wrong leaves
workers that serve.
"""

import asyncio
import os
import signal
import socket
from pathlib import Path

import aiohttp

from tests.support.client import Client, a_key
from tests.support.processes import Guests, House, a_house, is_gone, metric, seqs, until
from tests.support.service import run_liveroom


def hang_up(house: House) -> None:
    """Ask for a rolling restart."""
    assert house.service is not None
    house.service.process.send_signal(signal.SIGHUP)


async def rolls(house: House, outcome: str = "done") -> float:
    """Return how many rolling restarts have ended so."""
    return await metric(house.internal_urls[0], f'liveroom_rolls_total{{outcome="{outcome}"}}')


async def starts(house: House, reason: str) -> list[float]:
    """Return how many workers have been started for a reason, by place."""
    name = "liveroom_worker_starts_total"
    return [
        await metric(house.internal_urls[0], f'{name}{{reason="{reason}",worker="{place}"}}')
        for place in (0, 1)
    ]


async def until_rolled(house: House, times: int = 1) -> None:
    """Wait until a rolling restart is done."""

    async def done() -> bool:
        return await rolls(house) == times

    await until(done, seconds=40)


async def until_successor(house: House) -> int:
    """Wait until a third worker is on its way in, and return its process id."""
    before = set(house.worker_pids())

    async def third() -> bool:
        return len(set(house.worker_pids()) - before) == 1

    await until(third)
    [pid] = set(house.worker_pids()) - before
    return pid


async def test_rolling_restart_under_connection_load_refuses_nobody(tmp_path: Path) -> None:
    """Workers go one by one; whoever connects meanwhile is let in, and whoever was there comes back to every fact."""
    with a_house(tmp_path, workers=2, drain_spread_ms="300") as house:
        async with Guests(house, "roll") as guests:
            await guests.open_room()
            viewers = {f"v-{number}": await guests.join(f"v-{number}") for number in range(12)}
            before = house.worker_pids()
            over = asyncio.Event()
            served = 0

            async def keep_connecting() -> None:
                nonlocal served
                while not over.is_set():
                    # Raises if the handshake fails; being told to come back at once is an answer.
                    async with await Client.open(house.ws_url):
                        served += 1

            async def keep_asking() -> None:
                async with aiohttp.ClientSession() as http:
                    while not over.is_set():
                        async with http.get(house.internal_urls[0] + "/readyz") as answer:
                            assert answer.status == 200, await answer.text()

            async def keep_telling() -> int:
                told = 0
                while not over.is_set():
                    key = a_key()
                    while True:
                        try:
                            await guests.merchant.do("roll", "notice.set", key=key, text=f"Nummer {told}")
                            break
                        except aiohttp.ClientError:
                            # The worker closed the idle connection this was sent on: RFC 9112 §9.3.1 leaves it to the
                            # client to ask again, which the key makes safe.
                            continue
                    told += 1
                return told

            async def stay(viewer: str) -> list[int]:
                client, seen = viewers[viewer], []
                while not over.is_set():
                    closing = asyncio.ensure_future(client.close_code())
                    ended = asyncio.ensure_future(over.wait())
                    await asyncio.wait([closing, ended], return_when=asyncio.FIRST_COMPLETED)
                    if not closing.done():
                        closing.cancel()
                    await asyncio.gather(closing, return_exceptions=True)
                    ended.cancel()
                    if client.socket.close_code is not None:
                        assert client.socket.close_code == 4500
                        [said] = client.said("reconnect")
                        await asyncio.sleep(said["after_ms"] / 1000)
                        seen += seqs(client)
                        client = await guests.come_back(client, viewer)
                        assert client.joined["resumed"] is True
                viewers[viewer] = client
                return seen

            async def roll() -> int:
                hang_up(house)
                await until_rolled(house)
                over.set()
                return 0

            tasks = [keep_connecting(), keep_connecting(), keep_asking(), keep_telling(), roll()]
            outcomes = await asyncio.gather(*tasks, *map(stay, viewers))
            await guests.merchant.do("roll", "notice.set", text="zu Ende")

            assert outcomes[3] > 0
            assert served > 0
            assert not set(before) & set(house.worker_pids())
            last = (await guests.facts())[-1]["seq"]
            for (viewer, client), seen in zip(viewers.items(), outcomes[5:], strict=True):
                await client.event("notice", seq=last)
                assert seen + seqs(client) == list(range(2, last + 1)), viewer
            assert await starts(house, "died") == [0, 0]


async def test_connection_that_waits_for_a_killed_worker_is_served_by_its_successor(tmp_path: Path) -> None:
    """The queue of the listening socket outlives the worker that accepted from it."""
    with a_house(tmp_path, workers=2) as house:
        victim = house.worker_pids()[0]
        os.kill(victim, signal.SIGSTOP)
        handshakes = [asyncio.ensure_future(Client.open(house.ws_url)) for _ in range(24)]
        try:
            await asyncio.wait(handshakes, timeout=1.0)
            waiting = [task for task in handshakes if not task.done()]
            assert 0 < len(waiting) < 24
        finally:
            os.kill(victim, signal.SIGKILL)

        for client in await asyncio.gather(*handshakes):
            await client.socket.close()
        assert sum(await starts(house, "died")) == 1


async def test_second_hangup_during_a_roll_is_done_afterwards_once(tmp_path: Path) -> None:
    with a_house(tmp_path, workers=2) as house:
        hang_up(house)
        await until_successor(house)
        for _ in range(3):
            hang_up(house)

        await until_rolled(house, 2)

        assert await starts(house, "rolled") == [2, 2]
        assert len(house.worker_pids()) == 2


async def test_successor_that_cannot_start_stops_the_roll_and_the_old_workers_stay(tmp_path: Path) -> None:
    """A new configuration is tried by one worker; if it is refused, everybody goes on as before."""
    config = tmp_path / "liveroom.toml"
    config.write_text("comments_burst = 5\n")
    with a_house(tmp_path, "--config", str(config), workers=2) as house:
        async with Guests(house, "broken") as guests:
            await guests.open_room()
            anna = await guests.join("anna")
            before = sorted(house.worker_pids())
            config.write_text("comments_burst = 0\n")

            hang_up(house)

            async def stopped() -> bool:
                return await rolls(house, "stopped") == 1

            await until(stopped)
            assert sorted(house.worker_pids()) == before
            await anna.do("comment.send", text="noch da")

            config.write_text("comments_burst = 1\n")
            hang_up(house)
            await until_rolled(house)
            assert await anna.close_code() == 4500
            back = await guests.come_back(anna, "anna")
            # The new setting holds now: the burst is one.
            ids = await back.send(
                *({"cmd": "comment.send", "key": f"burst-{n:04}", "text": "hallo"} for n in range(3))
            )
            refused = [(await back.reply(command)).err for command in ids]
            assert [err["code"] for err in refused if err is not None][-1] == "rate_limited"


async def test_terminated_during_a_roll_drains_everybody_and_leaves_no_process(tmp_path: Path) -> None:
    with a_house(tmp_path, workers=2, drain_spread_ms="5000") as house:
        async with Guests(house, "ended") as guests:
            await guests.open_room()
            viewers = [await guests.join(f"v-{number}") for number in range(4)]
            before = house.worker_pids()
            store = house.store_pid()
            hang_up(house)
            successor = await until_successor(house)

            assert house.service is not None
            house.service.terminate()

            codes = await asyncio.gather(*(viewer.close_code() for viewer in viewers))
            assert await asyncio.to_thread(house.service.wait) == 0
            assert set(codes) == {4500}
            assert all(map(is_gone, [*before, successor, store]))


async def test_worker_that_dies_during_a_roll_does_not_stop_it(tmp_path: Path) -> None:
    """Old or new, of the place in turn or of another: in the end every place has a worker."""
    with a_house(tmp_path, workers=2) as house:
        old = house.worker_pids()
        hang_up(house)
        await until_successor(house)
        for pid in old:
            os.kill(pid, signal.SIGKILL)

        await until_rolled(house)

        async def two() -> bool:
            return len(house.worker_pids()) == 2

        await until(two)
        assert not set(old) & set(house.worker_pids())
        assert await starts(house, "rolled") == [1, 1]
        async with Guests(house, "after") as guests:
            await guests.open_room()
            await (await guests.join("anna")).do("comment.send", text="alles gut")

        # A successor that dies before it is ready stops the roll, and no more than that.
        staying = sorted(house.worker_pids())
        hang_up(house)
        os.kill(await until_successor(house), signal.SIGKILL)

        async def stopped() -> bool:
            return await rolls(house, "stopped") == 1

        await until(stopped)
        assert sorted(house.worker_pids()) == staying


async def test_one_internal_port_speaks_for_all_workers(tmp_path: Path) -> None:
    """Ready while one worker is; every sample has the number of its worker's place."""
    with a_house(tmp_path, workers=2) as house:
        async with Guests(house, "counted") as guests, aiohttp.ClientSession() as http:
            await guests.open_room()
            here = await guests.join("here")
            there = await guests.join_elsewhere("there", {await guests.worker_of("here")})
            url = house.internal_urls[0]

            connections = [await metric(url, f'liveroom_connections{{worker="{place}"}}') for place in (0, 1)]
            joins = [await metric(url, f'liveroom_joins_total{{worker="{place}"}}') for place in (0, 1)]
            assert min(connections) >= 1
            assert sum(joins) >= sum(connections) == len({here, there})
            async with http.get(url + "/healthz") as answer:
                assert answer.status == 200
            async with http.get(url + "/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ready: 2 of 2 workers\n")
            async with http.get(url + "/metrics") as answer:
                text = await answer.text()
            helps = [line for line in text.splitlines() if line.startswith("# HELP")]
            assert len(helps) == len(set(helps))

            stalled, other = house.worker_pids()
            os.kill(stalled, signal.SIGSTOP)
            try:
                async with http.get(url + "/readyz") as answer:
                    assert (answer.status, await answer.text()) == (200, "ready: 1 of 2 workers\n")
                ups = [await metric(url, f'liveroom_worker_ready{{worker="{place}"}}') for place in (0, 1)]
                assert sorted(ups) == [0, 1]
                os.kill(other, signal.SIGSTOP)
                async with http.get(url + "/readyz") as answer:
                    assert (answer.status, await answer.text()) == (503, "no worker is ready\n")
            finally:
                for pid in (stalled, other):
                    os.kill(pid, signal.SIGCONT)


async def test_hangup_of_a_single_worker_is_harmless(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        async with Guests(house, "alone") as guests:
            await guests.open_room()
            anna = await guests.join("anna")
            hang_up(house)

            async def said() -> bool:
                assert house.service is not None
                return "roll.ignored" in house.service.log()

            await until(said)
            await anna.do("comment.send", text="noch da")


def test_workers_that_cannot_start_end_the_service_with_78(tmp_path: Path) -> None:
    words = {"LIVEROOM_WORDS_FILE": str(tmp_path / "missing.txt")}
    data = ("--data-dir", str(tmp_path / "data"), "--internal-listen", "127.0.0.1:0")

    unreadable = run_liveroom(
        "serve", "--dev", "--workers", "2", "--listen", "127.0.0.1:0", *data, settings=words
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        occupied = run_liveroom("serve", "--dev", "--workers", "2", "--listen", port, *data)

    assert (unreadable.code, occupied.code) == (78, 78)
    assert "missing.txt" in unreadable.stderr
    assert f"cannot listen on {port}" in occupied.stderr
