"""`loadtest/crowd.py`: what people of the demo want, and when."""

import asyncio
import random
from typing import Any

from loadtest import crowd
from loadtest.crowd import CLAIM_DELAY_S, MET_MAX, WISHES_MAX, _Person, _Wish
from protocol.frames import Reply

NOW_MS = 1_795_000_000_000


def people(count: int = 200) -> list[_Person]:
    """Return people who know the store's clock."""
    found = []
    for seed in range(count):
        person = _Person(f"demo-{seed}", "x", random.Random(seed), 1.0)
        person.clock_ms = NOW_MS - asyncio.get_running_loop().time() * 1000
        found.append(person)
    return found


def heard(person: _Person, name: str, **body: Any) -> None:
    crowd._hear(person, name, body, asyncio.Event())


async def test_part_of_the_crowd_wants_a_sale_seconds_after_its_start() -> None:
    crowd_ = people()
    for person in crowd_:
        heard(person, "seckill.scheduled", sale="s1", starts_at=NOW_MS + 10_000)
        # Seen once more in a snapshot: nobody decides twice.
        crowd._notice_sale(person, {"sale": "s1", "starts_at": NOW_MS + 10_000})

    now_s = asyncio.get_running_loop().time()
    waits = [wish.at_s - now_s - 10 for person in crowd_ for wish in person.wishes]
    assert 60 < len(waits) < 120
    assert min(waits) > CLAIM_DELAY_S[0] - 0.2
    assert max(waits) < CLAIM_DELAY_S[1]
    # Whoever watches has a chance: less than half of them within the first two seconds.
    assert sum(wait < 2 for wait in waits) < len(waits) / 2


async def test_packet_seen_late_is_grabbed_soon() -> None:
    crowd_ = people()
    for person in crowd_:
        crowd._notice_packet(person, {"packet": "p1", "opens_at": NOW_MS - 5000})

    now_s = asyncio.get_running_loop().time()
    waits = [wish.at_s - now_s for person in crowd_ for wish in person.wishes]
    assert 90 < len(waits) < 150
    assert all(0 < wait < CLAIM_DELAY_S[1] for wait in waits)


async def test_most_winners_pay_and_nobody_pays_twice() -> None:
    crowd_ = people()
    for person in crowd_:
        for _ in range(2):
            person.asked[3] = _Wish(0, "claim", "s1")
            crowd._told(person, Reply(3, {"order": "o-1", "status": "held"}, None))

    pays = [wish for person in crowd_ for wish in person.wishes if wish.what == "pay"]
    assert 120 < len(pays) < 180
    assert {wish.about for wish in pays} == {"o-1"}


async def test_some_of_those_without_one_try_when_stock_is_back() -> None:
    crowd_ = people()
    for person in crowd_[:100]:
        person.met["s1"] = True
    for person in crowd_:
        heard(person, "seckill.back", sale="s1")

    assert not any(person.wishes for person in crowd_[:100])
    assert 10 < sum(bool(person.wishes) for person in crowd_[100:]) < 45


async def test_refusal_is_taken_calmly() -> None:
    [person] = people(1)
    person.asked[3] = _Wish(0, "claim", "s1")
    crowd._told(person, Reply(3, None, {"code": "sold_out"}))

    assert person.wishes == []
    assert "s1" not in person.met


async def test_what_people_keep_in_mind_has_an_end() -> None:
    [person] = people(1)
    for number in range(MET_MAX + 50):
        crowd._notice_sale(person, {"sale": f"s{number}", "starts_at": NOW_MS})

    assert len(person.met) == MET_MAX
    assert len(person.wishes) == WISHES_MAX
