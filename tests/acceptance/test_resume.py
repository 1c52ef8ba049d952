"""Coming back: exactly the facts that were missed, or a snapshot; and snapshot + facts == a later snapshot."""

import random
from typing import Any

import pytest

from protocol.connection import Progress
from protocol.view import apply_event
from tests.support.client import Map, Refused, a_key
from tests.support.stage import CODECS, Stage

#: Fields of a merchant's read of a room that a snapshot of a join does not have.
_PLACE = ("now", "epoch", "seq")


def as_snapshot(read: Map) -> Map:
    return {name: value for name, value in read.items() if name not in _PLACE}


async def make_facts(stage: Stage, count: int) -> None:
    for number in range(count):
        await stage.do("notice.set", text=f"第 {number} 条")


@pytest.mark.parametrize("codec_name", CODECS)
async def test_resume_gives_exactly_the_missed_facts(stage: Stage, codec_name: str) -> None:
    anna = await stage.enter("anna", codec_name=codec_name)
    stayed = await stage.enter("bela", codec_name=codec_name)
    await make_facts(stage, 2)
    await anna.event("notice", version=2)
    await anna.socket.close()
    await make_facts(stage, 3)
    await stayed.event("notice", version=5)
    resume = anna.machine.resume()

    back = await stage.enter("anna", codec_name=codec_name, resume=resume)

    assert resume is not None
    assert back.joined["resumed"] is True
    assert back.joined["room"] is None
    assert back.joined["seq"] == resume["seq"] + 3
    assert back.joined["missed"] == [event for event in stayed.said("notice") if event["version"] > 2]
    # And from there on nothing is missing or twice.
    await make_facts(stage, 1)
    assert (await back.event("notice", version=6))["seq"] == back.joined["seq"] + 1
    assert not back.machine.gap


async def test_resume_without_a_gap_misses_nothing(stage: Stage) -> None:
    anna = await stage.enter("anna")
    back = await stage.enter("anna", resume=anna.machine.resume())

    assert (back.joined["resumed"], back.joined["missed"], back.joined["room"]) == (True, [], None)


async def test_resume_from_the_beginning_is_a_resume(stage: Stage) -> None:
    epoch = (await stage.enter("anna")).joined["epoch"]

    back = await stage.enter("anna", resume={"epoch": epoch, "seq": 0})

    assert back.joined["resumed"] is True
    assert [event["ev"] for event in back.joined["missed"]] == ["room.state"]


@pytest.mark.parametrize("codec_name", CODECS)
async def test_resume_that_cannot_be_gets_a_snapshot(stage: Stage, codec_name: str) -> None:
    """A `resume` from another epoch, or from a `seq` the room has not reached, gets a snapshot."""
    anna = await stage.enter("anna", codec_name=codec_name)
    epoch, seq = anna.joined["epoch"], anna.joined["seq"]

    for resume in ({"epoch": "unknown", "seq": seq}, {"epoch": epoch, "seq": seq + 1}):
        back = await stage.enter("anna", codec_name=codec_name, resume=resume)
        assert (back.joined["resumed"], back.joined["missed"]) == (False, [])
        assert as_snapshot(await stage.snapshot()) == back.joined["room"]
        assert (back.joined["epoch"], back.joined["seq"]) == (epoch, seq)


async def test_resume_larger_than_256_kib_gets_a_snapshot(stage: Stage) -> None:
    anna = await stage.enter("anna")
    card = {"title": "茶" * 60, "url": "https://shop.example/" + "x" * 480, "price_cents": 1}
    card["cover"] = card["url"]
    sam = await stage.enter("sam", "streamer")
    for number in range(220):
        try:
            await sam.do("item.put", item=f"i-{number}", **card)
        except Refused:
            await stage.do("item.put", item=f"i-{number}", **card)
    resume = anna.machine.resume()

    back = await stage.enter("anna", resume=resume)

    assert (back.joined["resumed"], back.joined["missed"]) == (False, [])
    assert len(back.joined["room"]["items"]) == 220


# --- the rule -----------------------------------------------------------------------------------------------


async def do_something(stage: Stage, chance: random.Random, items: list[str]) -> None:
    """Give a random console command; refusals are part of the game."""
    item = chance.choice(items)
    comment = chance.randint(1, 12)
    commands: list[Map] = [
        {"cmd": "notice.set", "text": chance.choice(["", "八点", "九点"])},
        {"cmd": "item.put", "item": item, "title": "茶", "price_cents": chance.randint(0, 9), "sort": 3},
        {"cmd": "item.put", "item": item, "title": "叶", "price_cents": 5},
        {"cmd": "item.remove", "item": item},
        {"cmd": "item.explain", "item": item},
        {"cmd": "item.unexplain", "item": item},
        {"cmd": "comment.pin", "comment": comment},
        {"cmd": "comment.unpin", "comment": comment},
        {"cmd": "comment.delete", "comment": comment},
        {"cmd": "room.mute_all", "on": chance.random() < 0.5},
        {"cmd": "room.pause"},
        {"cmd": "room.resume"},
        {"cmd": "viewer.kick", "viewer": "nobody"},
    ]
    answer = await stage.merchant.command(stage.room, **chance.choice(commands))
    assert answer.status == 200 or answer.json["code"] in ("not_found", "conflict"), answer.body


@pytest.mark.parametrize(("codec_name", "seed"), [("json", 1), ("json", 2), ("msgpack", 3)])
async def test_snapshot_and_the_facts_after_it_are_a_later_snapshot(
    stage: Stage, codec_name: str, seed: int
) -> None:
    """Rule: snapshot + the facts after it == a later snapshot."""
    chance = random.Random(seed)
    items = ["a", "b", "c"]
    mo = await stage.enter("mo", "moderator")
    watching = await stage.enter("anna", codec_name=codec_name)
    for step in range(60):
        if step % 5 == 0:
            await mo.do("comment.send", text=f"第 {step} 句")
        if step % 20 == 10:
            title: dict[str, Any] = {"title": f"专场 {step}"}
            if chance.random() < 0.5:
                title |= {"cover": "https://cdn.example/c.webp", "starts_at": 1_795_000_000_000}
            await stage.merchant.put_room(stage.room, **title)
        await do_something(stage, chance, items)
    later = await stage.snapshot()
    await watching.until(lambda: watching.machine.progress.seq >= later["seq"])
    await mo.event("comment", comment=12)
    await watching.until(lambda: any(event.get("comment") == 12 for event in watching.said("comment")))

    assert watching.room == as_snapshot(later)
    assert not watching.machine.gap
    # The same from the merchant's cursor, over a room read at the start.
    facts = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/events", query={"limit": 1_000})
    assert [fact["seq"] for fact in facts["data"]] == list(range(1, later["seq"] + 1))
    folded = {**as_snapshot(later), "state": "scheduled", "notice": None, "items": [], "explaining": None}
    folded |= {"pinned": None, "muted_all": False}
    for fact in facts["data"]:
        apply_event(folded, fact)
    assert folded == as_snapshot(later)


async def test_every_viewer_gets_the_same_bytes(stage: Stage) -> None:
    """The same bytes for a `seq`, whoever reads them and whichever way they come."""
    clients = [await stage.enter(f"v-{number}", codec_name=CODECS[number % 2]) for number in range(4)]
    await make_facts(stage, 5)
    for client in clients:
        await client.event("notice", version=5)

    facts = [[event for event in client.events if "seq" in event] for client in clients]

    assert facts[0] == facts[1] == facts[2] == facts[3]
    pulled = await stage.merchant.ok("GET", f"/v1/rooms/{stage.room}/events")
    assert [list(fact.items()) for fact in pulled["data"]][1:] == [list(fact.items()) for fact in facts[0]]


async def test_progress_outlives_a_connection(stage: Stage) -> None:
    progress = Progress()
    anna = await stage.enter("anna", progress=progress)
    await make_facts(stage, 1)
    await anna.event("notice")
    await anna.socket.close()
    await make_facts(stage, 1)

    back = await stage.enter("anna", progress=progress, resume=anna.machine.resume())

    assert [event["version"] for event in back.joined["missed"]] == [2]
    assert progress.seq == back.joined["seq"]


async def test_malformed_resume_closes_even_with_a_good_token(stage: Stage) -> None:
    client = await stage.connect()
    token = await stage.merchant.token(stage.room, "anna")

    with pytest.raises(Refused) as refused:
        await client.join(stage.room, token, resume={"epoch": "", "seq": 0})

    assert refused.value.code == "bad_command"
    assert await client.close_code() == 4400


async def test_comments_are_not_facts(stage: Stage) -> None:
    anna = await stage.enter("anna")
    await anna.do(
        "comment.send",
        text="在吗",
    )
    comment = await anna.event("comment")

    assert "seq" not in comment
    before = (await stage.snapshot())["seq"]
    await anna.ask("comment.send", key=a_key(), text="?")
    assert (await stage.snapshot())["seq"] == before
