"""
The rooms of one run, from opening to verdict.

Decides how they are named, opened, closed with one last fact and read back, and that each is judged alone, because
nothing in one may depend on what happens in another. Judges nothing itself (`oracle.py`).
"""

import asyncio
import contextlib
from typing import Final

from loadtest import oracle
from loadtest.api import ApiError, MerchantApi
from loadtest.findings import Findings
from loadtest.history import Dump, History, Payment, ProcessHistory
from loadtest.plan import MAIN_ROOM, Plan

_CLOSING_TEXT: Final = "散场"


class Rooms:
    """All rooms of the run `run`. Room 0 is the main one."""

    def __init__(self, api: MerchantApi, plan: Plan, run: str) -> None:
        self._api = api
        self._plan = plan
        self._run = run
        main = f"load-{run}"
        self.ids = [main if number == MAIN_ROOM else f"{main}-{number}" for number in range(plan.rooms)]

    @property
    def main(self) -> str:
        """Return the id of the main room."""
        return self.ids[MAIN_ROOM]

    async def open(self) -> None:
        """Create all rooms and open them."""
        for room in self.ids:
            await self._api.create_room(room, f"{self._plan.scenario.name} {self._run}")

    async def close_with_a_fact(self) -> list[tuple[int, int]]:
        """
        Make the facts that everybody is waited for with: whoever holds it has been sent everything before it.

        Returns:
            The last fact and the last comment of each room.
        """
        text = f"{_CLOSING_TEXT} #{self._run}.{oracle.CLOSING_STEP}"
        places = []
        for room in self.ids:
            key = f"close-{self._run}"
            await self._api.command(room, {"cmd": "notice.set", "key": key, "text": text})
            seq = max(event["seq"] for event in await self._api.events(room))
            places.append((seq, int((await self._api.stats(room))["comments"])))
        return places

    async def dump(self) -> list[Dump]:
        """Return what the server says about each room."""
        return [await self._api.dump(room) for room in self.ids]

    async def end(self) -> None:
        """End the shows."""
        for room in self.ids:
            await self._api.close_room(room)

    async def abandon(self) -> None:
        """End the shows that can be ended, and say nothing of those that cannot."""
        await asyncio.gather(*(self._abandon(room) for room in self.ids))

    async def _abandon(self, room: str) -> None:
        with contextlib.suppress(ApiError):
            await self._api.close_room(room)

    def history(
        self,
        places: list[tuple[int, int]],
        processes: list[ProcessHistory],
        payments: list[Payment],
        faults: list[str],
    ) -> History:
        """Return everything that was seen of all rooms as one history."""
        last = [(room, seq) for room, (seq, _) in zip(self.ids, places, strict=True)]
        return History(self._run, self.main, places[MAIN_ROOM][0], processes, payments, faults, places=last)


def judge(plan: Plan, history: History, dumps: list[Dump]) -> Findings:
    """Return what is wrong with any room of a run, judged one by one. `dumps` are by room."""
    found: Findings | None = None
    for number, dump in enumerate(dumps):
        findings = oracle.judge(plan, history.apart(number), dump)
        if found is None:
            found = findings
        else:
            found.absorb(findings)
    assert found is not None, "a run without rooms"
    return found
