"""
A watcher from outside: is the service ready, and does it take commands?

Asks every worker for its readiness, and the merchant API for one small fact after the other, from before the fault to
the end. Decides from that when the service was healthy again: the first moment after which nothing failed any more.
Its facts are commands like any other: each is repeated with its key until the answer is definite, and goes into the
history that the oracle judges.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from loadtest.history import Outcome
from tests.chaos.site import Site
from tests.support.service import DEMO_KEY

#: Between two looks (seconds).
READY_PERIOD_S: Final = 0.05
FACT_PERIOD_S: Final = 0.2
#: Longer than the engine may take to answer, shorter than a look at the table (seconds).
TIMEOUT_S: Final = 3.0
#: Steps of the probe begin here; no plan has that many.
FIRST_STEP: Final = 900_000_000
_AGAIN: Final = frozenset({"outcome_unknown", "unavailable", "overloaded"})


@dataclass(frozen=True, slots=True)
class Look:
    """One question and how it was answered; moments on `time.monotonic()`."""

    asked_s: float
    done_s: float
    well: bool
    #: The code of the answer, or the kind of silence.
    said: str


class Probe:
    """Looks from `open` to `close`."""

    def __init__(self, site: Site, run: str, room: str) -> None:
        self._site = site
        self._run = run
        self._room = room
        self._tasks: list[asyncio.Task[None]] = []
        self._open = True
        self.started_s = 0.0
        self.readiness: list[Look] = []
        self.facts: list[Look] = []
        #: The facts as outcomes of a run.
        self.outcomes: list[Outcome] = []

    def open(self, started_s: float) -> None:
        """Begin; `started_s` is the start of the run on `time.monotonic()`."""
        self.started_s = started_s
        self._tasks = [asyncio.create_task(self._ask_ready()), asyncio.create_task(self._make_facts())]

    async def close(self) -> None:
        """Look no more; what is under way is finished."""
        self._open = False
        await asyncio.gather(*self._tasks)

    async def _ask_ready(self) -> None:
        timeout = aiohttp.ClientTimeout(total=1.0)
        workers = self._site.layout.workers
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while self._open:
                asked_s = time.monotonic()
                said = await asyncio.gather(
                    *(_ready(http, node.internal_urls[-1], workers) for node in self._site.nodes)
                )
                worst = next((word for word in said if word != "ready"), "ready")
                self.readiness.append(Look(asked_s, time.monotonic(), worst == "ready", worst))
                await asyncio.sleep(READY_PERIOD_S)

    async def _make_facts(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {DEMO_KEY}"}
        number = 0
        # A connection each: what is to be seen is whether a stranger who comes now is served.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as http:
            while self._open:
                await self._make_fact(http, FIRST_STEP + number)
                number += 1
                await asyncio.sleep(FACT_PERIOD_S)

    async def _make_fact(self, http: aiohttp.ClientSession, step: int) -> None:
        command = {"cmd": "notice.set", "key": f"{self._run}-{step}", "text": f"巡检 #{self._run}.{step}"}
        sent_us, tries = self._now_us(), 0
        while True:
            node = self._site.nodes[(step + tries) % len(self._site.nodes)]
            tries += 1
            asked_s = time.monotonic()
            code = await _command(http, f"{node.url}/v1/rooms/{self._room}/commands", command)
            self.facts.append(Look(asked_s, time.monotonic(), code == "ok", code))
            silent = code not in _AGAIN and code.startswith("no answer")
            if code in _AGAIN or silent:
                if not self._open and tries > 1:
                    code = "unanswered"
                else:
                    await asyncio.sleep(READY_PERIOD_S)
                    continue
            now_us = self._now_us()
            self.outcomes.append(
                Outcome(
                    step,
                    "notice.set",
                    code,
                    sent_us,
                    sent_us,
                    now_us,
                    definite=code != "unanswered",
                    tries=tries,
                )
            )
            return

    def _now_us(self) -> int:
        return int((time.monotonic() - self.started_s) * 1_000_000)

    # --- what it saw ------------------------------------------------------------------------------------

    def healthy_s(self, since_s: float) -> float | None:
        """
        Return how long after `since_s` all was well for good (seconds), None if it was not in the end.

        Well is: every worker ready, and a fact asked for since then made.
        """
        moments = []
        for looks in (self.readiness, self.facts):
            if not looks or not looks[-1].well:
                return None
            bad_s = max((look.done_s for look in looks if not look.well and look.done_s > since_s), default=0)
            good = (look.done_s for look in looks if look.well and look.asked_s >= max(since_s, bad_s))
            moments.append(next(good, None))
        known = [moment for moment in moments if moment is not None]
        return max(known) - since_s if len(known) == len(moments) else None

    def troubles(self, since_s: float) -> dict[str, int]:
        """Return what was seen since then that was not well, and how often."""
        looks = [*self.readiness, *self.facts]
        return dict(Counter(look.said for look in looks if not look.well and look.done_s > since_s))

    def unready_after_s(self, since_s: float) -> float | None:
        """Return how long after `since_s` it was first seen not ready (seconds), None if it never was."""
        bad = (look.done_s for look in self.readiness if not look.well and look.done_s > since_s)
        moment = next(bad, None)
        return None if moment is None else moment - since_s

    def slowest_answer_s(self, since_s: float) -> float:
        """Return how long the slowest answered command took (seconds); silence is not an answer."""
        took = (
            look.done_s - look.asked_s
            for look in self.facts
            if look.done_s > since_s and not look.said.startswith("no answer")
        )
        return max(took, default=0.0)


async def _ready(http: aiohttp.ClientSession, url: str, workers: int) -> str:
    """Ask one service; with several workers it is well only when none is missing, though one is enough to serve."""
    try:
        async with http.get(f"{url}/readyz") as answer:
            said = (await answer.text()).strip()
        return "ready" if said == f"ready: {workers} of {workers} workers" else said
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"no answer: {type(error).__name__}"


async def _command(http: aiohttp.ClientSession, url: str, command: dict[str, Any]) -> str:
    """Give a command and return the code of the answer, `ok`, or what kind of silence there was."""
    try:
        async with http.post(url, json=command) as answer:
            body = await answer.json(content_type=None)
            return "ok" if answer.status == 200 else str(body.get("code", answer.status))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return f"no answer: {type(error).__name__}"
