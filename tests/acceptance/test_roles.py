"""Who may do what: every console command against every lower role, and nobody against an equal or higher one."""

from typing import Any

import pytest

from protocol.codes import Role
from protocol.commands import COMMANDS, KeyedCommand
from tests.support.client import a_key
from tests.support.stage import ROLES, Stage

Map = dict[str, Any]

#: Fields that make each console command well-formed.
FIELDS: dict[str, Map] = {
    "notice.set": {"text": "今晚八点"},
    "item.put": {"item": "tea", "title": "铁观音", "price_cents": 100},
    "item.remove": {"item": "tea"},
    "item.explain": {"item": "tea"},
    "item.unexplain": {"item": "tea"},
    "seckill.schedule": {
        "sale": "s", "item": "tea", "price_cents": 1, "stock": 1, "starts_at": 0, "ends_at": 1,
    },
    "seckill.adjust": {"sale": "s", "delta": 1},
    "seckill.end": {"sale": "s"},
    "redpacket.send": {"packet": "p", "total_cents": 1, "shares": 1, "split": "even", "expires_s": 1},
    "redpacket.cancel": {"packet": "p"},
    "viewer.mute": {"viewer": "zoe", "seconds": 1},
    "viewer.unmute": {"viewer": "zoe"},
    "viewer.kick": {"viewer": "zoe"},
    "viewer.ban": {"viewer": "zoe"},
    "viewer.unban": {"viewer": "zoe"},
    "room.mute_all": {"on": True},
    "comment.delete": {"comment": 1},
    "comment.pin": {"comment": 1},
    "comment.unpin": {"comment": 1},
}  # fmt: skip

CONSOLE = sorted(name for name, command in COMMANDS.items() if command.console)


def a_command(cmd: str) -> Map:
    """Return a well-formed map of this command."""
    keyed = {"key": a_key()} if issubclass(COMMANDS[cmd], KeyedCommand) else {}
    return {"cmd": cmd, **keyed, **FIELDS.get(cmd, {})}


@pytest.mark.parametrize("role", ["viewer", "agent", "moderator"])
async def test_commands_above_the_role_are_forbidden_and_change_nothing(stage: Stage, role: str) -> None:
    client = await stage.enter("somebody", role)
    before = await stage.snapshot()
    refused = [name for name in CONSOLE if COMMANDS[name].role > Role[role.upper()]]

    for name in refused:
        assert (await client.refusal(**a_command(name)))["code"] == "forbidden", name

    assert len(refused) == {"viewer": len(CONSOLE), "agent": len(CONSOLE), "moderator": 14}[role]
    after = await stage.snapshot()
    assert {**after, "now": 0} == {**before, "now": 0}


@pytest.mark.parametrize("role", ["moderator", "streamer", "owner"])
async def test_commands_of_the_role_are_never_forbidden(stage: Stage, role: str) -> None:
    client = await stage.enter("somebody", role)
    allowed = [name for name in CONSOLE if COMMANDS[name].role <= Role[role.upper()] and name != "room.close"]

    for name in allowed:
        [command_id] = await client.send(a_command(name))
        err = (await client.reply(command_id)).err
        assert err is None or err["code"] != "forbidden", name


@pytest.mark.parametrize("cmd", ["viewer.mute", "viewer.unmute", "viewer.kick", "viewer.ban"])
async def test_nobody_acts_on_an_equal_or_higher_role(stage: Stage, cmd: str) -> None:
    """Nobody acts on an equal or higher role (`forbidden`)."""
    acting = {role: await stage.enter(f"a-{role}", role) for role in ("moderator", "streamer", "owner")}
    targets = {role: await stage.enter(f"t-{role}", role) for role in ROLES}
    # Absent, but known by their last join.
    for role in ROLES:
        gone = await stage.enter(f"gone-{role}", role)
        await gone.ask("room.leave")

    for role, client in acting.items():
        for target in ROLES:
            if ROLES.index(target) < ROLES.index(role):
                continue
            for viewer in (f"t-{target}", f"gone-{target}"):
                err = await client.refusal(**{**a_command(cmd), "viewer": viewer})
                assert err["code"] == "forbidden", (role, viewer)
        assert (await client.refusal(**{**a_command(cmd), "viewer": f"a-{role}"}))["code"] == "forbidden"
    for client in targets.values():
        await client.ask("ping")


async def test_each_acts_on_lower_roles(stage: Stage) -> None:
    mo, sam = await stage.enter("mo", "moderator"), await stage.enter("sam", "streamer")
    gus = await stage.enter("gus", "agent")

    await mo.do("viewer.mute", viewer="gus", seconds=0)
    await sam.do("viewer.kick", viewer="mo")

    assert (await gus.event("you.muted"))["until"] == 0
    assert await mo.close_code() == 4410


async def test_comment_of_a_higher_role_is_not_deleted(stage: Stage) -> None:
    mo, sam = await stage.enter("mo", "moderator"), await stage.enter("sam", "streamer")
    numbers = [(await client.do("comment.send", text="话"))["comment"] for client in (sam, mo, mo)]
    mia = await stage.enter("mia", "moderator")

    assert (await mo.refusal("comment.delete", key=a_key(), comment=numbers[0]))["code"] == "forbidden"
    assert (await mia.refusal("comment.delete", key=a_key(), comment=numbers[1]))["code"] == "forbidden"
    await mo.do("comment.delete", comment=numbers[1])
    await sam.do("comment.delete", comment=numbers[2])


async def test_the_merchant_acts_above_every_role(stage: Stage) -> None:
    olga = await stage.enter("olga", "owner")
    number = (await olga.do("comment.send", text="话"))["comment"]

    await stage.do("viewer.mute", viewer="olga", seconds=0)
    await stage.do("comment.delete", comment=number)
    await stage.do("viewer.ban", viewer="olga")

    assert await olga.close_code() == 4403


async def test_merchants_give_console_commands_only(stage: Stage) -> None:
    for name in sorted(set(COMMANDS) - set(CONSOLE)):
        body: Map = {"cmd": name, "key": a_key(), "text": "?", "n": 1, "batch": 1, "sale": "s", "order": "o"}
        body |= {"packet": "p", "room": stage.room, "token": "x"}
        answer = await stage.merchant.call("POST", f"/v1/rooms/{stage.room}/commands", body)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), name
