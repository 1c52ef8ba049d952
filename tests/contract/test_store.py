"""
What `Store` promises, on every server it supports.

Each step of the functions is tested in `tests/lua/`; here is what the Python side adds: types, errors, the mapping of
commands to functions, and what the store refuses to start on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import redis
from structlog.testing import capture_logs

from engine.clock import StoreClock
from engine.errors import CommandRejected, ConfigError, Overloaded, StoreUnavailable
from engine.store import keys, link
from engine.store.functions import library
from engine.store.keys import RoomKey, RoomKeys
from engine.store.link import WAITING_CALLS_MAX
from engine.store.store import MERCHANT_ACTOR, MERCHANT_RANK, Answer, Store
from protocol import commands as c
from protocol.codes import ErrorCode
from tests.support.stores import (
    MODERATOR,
    OWNER,
    STREAMER,
    VIEWER,
    add_likes,
    ask,
    fresh_key,
    fresh_room,
    join,
    leave,
    like,
    running_store,
    say,
    until,
)

BIG = 2**53 - 1
BODY = '"title":"茶"'.encode()


async def a_room(store: Store, *, live: bool = True) -> RoomKey:
    room = fresh_room()
    assert await store.put_room(room, BODY, slow_ms=0, facts_kept_ms=600_000) == "created"
    if live:
        await ok(store, room, c.OpenRoom(key=fresh_key()))
    return room


async def ok(store: Store, room: RoomKey, command: c.Command, rank: int = STREAMER) -> dict[str, Any]:
    """Run a command that must succeed and return its `ok`."""
    answer = await ask(store, room, command, "boss-1.x", rank)
    assert isinstance(answer, bytes), answer
    decoded: dict[str, Any] = orjson.loads(answer)
    return decoded


def code_of(answer: Answer) -> ErrorCode:
    assert isinstance(answer, CommandRejected), answer
    return answer.code


# --- reading --------------------------------------------------------------------------------------------------


async def test_room_is_created_updated_and_read_back(store: Store) -> None:
    room = await a_room(store, live=False)

    assert await store.put_room(room, BODY, slow_ms=0, facts_kept_ms=600_000) == "unchanged"
    assert await store.put_room(room, b'"title":"Tea"', slow_ms=0, facts_kept_ms=600_000) == "updated"

    read = await store.read_room(room)
    assert read is not None
    assert (read.view["room"], read.view["title"], read.view["state"]) == (room.room, "Tea", "scheduled")
    assert read.seq == 1
    assert len(read.epoch) <= 32


async def test_missing_room_is_none_everywhere(store: Store) -> None:
    room = fresh_room()

    assert await store.read_room(room) is None
    assert await store.facts_since(room, 0) is None
    assert await store.stats(room) is None
    assert await store.audit_trail(room, "", 10) is None
    assert await store.beat(RoomKeys(room), "w") is None


async def test_snapshot_holds_everything_a_screen_shows(store: Store) -> None:
    room = await a_room(store)
    await ok(store, room, c.SetNotice(key=fresh_key(), text="公告", card="c_1"))
    await ok(store, room, c.PutItem(key=fresh_key(), item="tea-1.x", title="龙井", price_cents=BIG))
    await ok(store, room, c.ExplainItem(key=fresh_key(), item="tea-1.x"))
    comment = c.PostComment(key=fresh_key(), text="多少钱?")
    assert await say(store, room, "anna", comment) == b"1"
    await ok(store, room, c.PinComment(key=fresh_key(), comment=1))
    await ok(store, room, c.MuteAll(key=fresh_key(), on=True))

    read = await store.read_room(room)

    assert read is not None
    view = read.view
    assert view["notice"] == {"text": "公告", "card": "c_1", "version": 1}
    assert view["items"] == [
        {"item": "tea-1.x", "title": "龙井", "price_cents": BIG, "sort": 1, "sold_out": False}
    ]
    assert view["explaining"] == "tea-1.x"
    assert view["pinned"]["text"] == "多少钱?"
    assert view["muted_all"] is True
    assert [(number, orjson.loads(json)["text"]) for number, json in read.comments] == [(1, "多少钱?")]
    assert [number for number, _ in read.facts] == list(range(1, read.seq + 1))


async def test_facts_are_paged_and_tell_where_the_room_is(store: Store) -> None:
    room = await a_room(store)
    for number in range(4):
        await ok(store, room, c.SetNotice(key=fresh_key(), text=f"n{number}"))

    page = await store.facts_since(room, 1, 2)

    assert page is not None
    epoch, seq, first, facts = page
    read = await store.read_room(room)
    assert read is not None
    assert (epoch, seq, first) == (read.epoch, 5, 1)
    assert [number for number, _ in facts] == [2, 3]
    assert [orjson.loads(json)["seq"] for _, json in facts] == [2, 3]


async def test_stats_have_the_shape_of_the_protocol(store: Store) -> None:
    room = await a_room(store)
    await join(store, room, "w", "anna", 1)
    await join(store, room, "w", "ben", 2, entry="official_account")
    await leave(store, room, "w", "ben", 2)
    await say(store, room, "anna", c.PostComment(key=fresh_key(), text="hi"))
    assert await add_likes(store, room, "w", 1, 7) == b"7"

    stats = await store.stats(room)

    assert stats == {
        "online": 1, "peak": 2, "viewers": 2, "likes": 7, "comments": 1, "shares": 0,
        "orders": {"held": 0, "paid": 0, "cancelled": 0, "expired": 0, "refunded": 0}, "sold_cents": 0,
        "entries": {"app": 1, "official_account": 1},
    }  # fmt: skip


async def test_audit_trail_is_paged_with_values_decoded(store: Store) -> None:
    room = await a_room(store)
    await ok(store, room, c.SetNotice(key="key-0001", text="one"))
    await ok(store, room, c.SetNotice(key="key-0002", text="two"))

    trail = await store.audit_trail(room, "", 2)
    assert trail is not None
    rest = await store.audit_trail(room, trail[-1]["place"], 10)

    assert rest is not None
    assert [entry["cmd"] for entry in trail + rest] == ["room.open", "notice.set", "notice.set"]
    (last,) = rest
    assert (last["actor"], last["key"]) == ("boss-1.x", "key-0002")
    assert last["before"] == {"text": "one", "version": 1}
    assert last["after"]["text"] == "two"


async def test_rooms_of_a_tenant_are_listed_in_pages(store: Store) -> None:
    tenant = fresh_room().room
    for name in ("b-1", "a.1", "a"):
        await store.put_room(RoomKey(tenant, name), BODY, slow_ms=0, facts_kept_ms=600_000)

    assert await store.list_rooms(tenant, "", 2) == ["a", "a.1"]
    assert await store.list_rooms(tenant, "a.1", 2) == ["b-1"]
    assert await store.list_rooms("another-tenant", "", 2) == []


async def test_tenants_with_the_same_room_id_share_nothing(store: Store) -> None:
    one = await a_room(store)
    two = RoomKey("t-1.a_b2", one.room)
    assert await store.read_room(two) is None
    await store.put_room(two, BODY, slow_ms=0, facts_kept_ms=600_000)

    await ok(store, one, c.SetNotice(key=fresh_key(), text="mine"))

    read = await store.read_room(two)
    assert read is not None
    assert read.view["notice"] is None


async def test_room_that_is_over_is_not_described_anew(store: Store) -> None:
    room = await a_room(store)
    await ok(store, room, c.CloseRoom(key=fresh_key()))

    with pytest.raises(CommandRejected) as refused:
        await store.put_room(room, b'"title":"x"', slow_ms=0, facts_kept_ms=600_000)
    assert refused.value.code is ErrorCode.ROOM_NOT_LIVE
    assert refused.value.extra == {"state": "closing"}

    assert (await store.settle(room))[0] == "closed"
    assert (await store.settle(room))[0] == "not_closing"


# --- commands -------------------------------------------------------------------------------------------------


async def test_every_console_command_reaches_its_function(store: Store) -> None:
    room = await a_room(store, live=False)
    comment = c.PostComment(key=fresh_key(), text="hi")
    await ok(store, room, c.OpenRoom(key=fresh_key()))
    await say(store, room, "anna", comment)
    key = fresh_key

    told = [
        await ok(store, room, command)
        for command in (
            c.PauseRoom(key=key()), c.ResumeRoom(key=key()), c.SetNotice(key=key(), text="n"),
            c.PutItem(key=key(), item="tea", title="Tea", price_cents=1, sort=5), c.ExplainItem(key=key(), item="tea"),
            c.UnexplainItem(key=key(), item="tea"), c.RemoveItem(key=key(), item="tea"),
            c.MuteViewer(key=key(), viewer="anna", seconds=0), c.UnmuteViewer(key=key(), viewer="anna"),
            c.KickViewer(key=key(), viewer="anna"), c.BanViewer(key=key(), viewer="anna", reason="spam"),
            c.UnbanViewer(key=key(), viewer="anna"), c.MuteAll(key=key(), on=True), c.PinComment(key=key(), comment=1),
            c.UnpinComment(key=key(), comment=1), c.DeleteComment(key=key(), comment=1), c.CloseRoom(key=key()),
        )
    ]  # fmt: skip

    assert told == [
        {"state": "paused"}, {"state": "live"}, {"version": 1},
        {"item": "tea", "title": "Tea", "price_cents": 1, "sort": 5, "sold_out": False}, {}, {}, {}, {"until": 0}, {},
        {}, {}, {}, {}, {}, {}, {}, {"state": "closing"},
    ]  # fmt: skip
    page = await store.facts_since(room, 0)
    assert page is not None
    assert [orjson.loads(json)["ev"] for _, json in page[3]] == [
        "room.state", "room.state", "room.state", "notice", "item.put", "item.explaining", "item.explaining",
        "item.removed", "viewer.removed", "viewer.removed", "room.muted_all", "comment.pinned", "comment.pinned",
        "comment.deleted", "room.state",
    ]  # fmt: skip


async def test_refusals_carry_their_code_and_extra(store: Store) -> None:
    room = await a_room(store)
    key = fresh_key()
    await ok(store, room, c.SetNotice(key=key, text="one"))
    stale = c.SetNotice(key=fresh_key(), text="two", version=7)

    async def refused(
        command: c.Command, rank: int = STREAMER, where: RoomKey = room
    ) -> tuple[ErrorCode, Any]:
        answer = await ask(store, where, command, "boss-1.x", rank)
        return code_of(answer), getattr(answer, "extra", None)

    assert await refused(stale) == (ErrorCode.CONFLICT, {"version": 1})
    assert await refused(c.SetNotice(key=key, text="other")) == (ErrorCode.CONFLICT, {})
    assert await refused(c.OpenRoom(key=fresh_key()), VIEWER) == (ErrorCode.FORBIDDEN, {})
    assert await refused(c.RemoveItem(key=fresh_key(), item="x")) == (ErrorCode.NOT_FOUND, {})
    scheduled = await a_room(store, live=False)
    pause = c.PauseRoom(key=fresh_key())
    assert await refused(pause, where=scheduled) == (ErrorCode.CONFLICT, {"state": "scheduled"})
    assert await refused(c.OpenRoom(key=fresh_key()), where=fresh_room()) == (ErrorCode.ROOM_NOT_FOUND, {})


async def test_command_repeated_with_its_key_is_told_the_same(store: Store) -> None:
    room = await a_room(store)
    command = c.SetNotice(key=fresh_key(), text="one")
    first = await ok(store, room, command)
    await ok(store, room, c.SetNotice(key=fresh_key(), text="two"))

    assert await ok(store, room, command) == first
    read = await store.read_room(room)
    assert read is not None
    assert read.view["notice"]["text"] == "two"


async def test_merchant_acts_on_every_role(store: Store) -> None:
    room = await a_room(store)
    await join(store, room, "w", "owner-1", 1, OWNER)
    command = c.MuteViewer(key=fresh_key(), viewer="owner-1", seconds=60)

    assert code_of(await ask(store, room, command, "boss-1.x", OWNER)) is ErrorCode.FORBIDDEN
    assert isinstance(await ask(store, room, command, MERCHANT_ACTOR, MERCHANT_RANK), bytes)


# --- viewers --------------------------------------------------------------------------------------------------


async def test_join_and_leave_are_told_to_each_caller_of_a_batch(store: Store) -> None:
    room = await a_room(store)
    await ok(store, room, c.BanViewer(key=fresh_key(), viewer="bad"))
    viewers = [f"u{number}" for number in range(20)] + ["bad"]

    told = await asyncio.gather(*(join(store, room, "w", viewer, n) for n, viewer in enumerate(viewers)))

    assert [own[0] for _, own, _ in told] == [b"ok"] * 20 + [b"banned"]
    assert {error for *_, error in told} == {None}
    header = told[0][0]
    assert (int(header[2]), header[3], header[4], header[5]) == (2, 20, 20, b"0")
    assert await asyncio.gather(*(leave(store, room, "w", f"u{n}", n) for n in range(20))) == [None] * 20
    stats = await store.stats(room)
    assert stats is not None
    assert (stats["online"], stats["peak"]) == (0, 20)


async def test_beat_names_dead_workers_and_purge_forgets_their_viewers(
    store: Store, client: "redis.Redis[str]"
) -> None:
    room = await a_room(store)
    names = RoomKeys(room)
    await asyncio.gather(*(join(store, room, "a", f"u{number}", number) for number in range(700)))
    await join(store, room, "ab", "stays", 1)
    client.zadd(names.leases, {"a": 1})

    stands = await store.beat(names, "ab")
    assert stands is not None
    assert stands[1:] == (1, ["a"])
    await store.purge(names, "a")

    stats = await store.stats(room)
    assert stats is not None
    assert stats["online"] == 1


async def test_room_without_its_streamer_is_paused_at_once_when_there_is_no_grace(store: Store) -> None:
    room = await a_room(store)
    await join(store, room, "w", "host", 1, STREAMER)
    assert (await store.check_host(room, grace_ms=60_000, patience_ms=0))[0] == "watch"
    await leave(store, room, "w", "host", 1)

    happened, _ = await store.check_host(room, grace_ms=0, patience_ms=60_000)

    assert happened == "paused"
    assert await store.check_host(fresh_room(), grace_ms=0, patience_ms=0) == ("done", 0)


async def test_likes_of_those_who_are_too_fast_are_told_apart(store: Store) -> None:
    room = await a_room(store)
    sent = [("bela", 3), *[("anna", 1)] * 11, ("carla", 2)]

    answer = await like(store, room, "w", 1, 5, *sent)
    again = await like(store, room, "w", 1, 5, *sent)

    assert isinstance(answer, tuple)
    total, refused = answer
    assert total == 5 + 3 + 10 + 2
    assert list(refused) == [11]
    assert again == answer


@pytest.mark.parametrize("viewers_count", [1, 1_200])
async def test_counts_leave_out_viewers_of_workers_whose_lease_ran_out(
    store: Store, viewers_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads a count purges them: no worker that holds the room may be left to do it."""
    # What a thousand calls at once do to a busy machine is not what this is about.
    monkeypatch.setattr(link, "CALL_TIMEOUT_S", 60.0)
    room = await a_room(store)
    names = RoomKeys(room)
    joins = [join(store, room, "dead", f"v-{number}", number) for number in range(viewers_count)]
    await asyncio.gather(*joins)
    await join(store, room, "alive", "anna", 1)
    await store._link.command("ZADD", names.leases, 1, "dead")

    briefs = await asyncio.gather(*(store.brief(room) for _ in range(4)))
    stats = await store.stats(room)

    assert [brief["online"] for brief in briefs if brief is not None] == [1] * 4
    assert stats is not None
    assert (stats["online"], stats["peak"]) == (1, viewers_count + 1)


async def test_likes_are_counted_once_for_each_flush(store: Store) -> None:
    room = await a_room(store)

    assert await add_likes(store, room, "w", 1, 5) == b"5"
    assert await add_likes(store, room, "w", 1, 5) == b"5"
    assert await add_likes(store, room, "v", 1, 2) == b"7"


async def test_comment_refusals_carry_what_the_viewer_needs(store: Store) -> None:
    room = await a_room(store)
    first = c.PostComment(key=fresh_key(), text="hi")
    await say(store, room, "anna", first, cost_ms=60_000)

    limited = await say(store, room, "anna", c.PostComment(key=fresh_key(), text="again"), cost_ms=60_000)
    await ok(store, room, c.MuteViewer(key=fresh_key(), viewer="anna", seconds=0), MODERATOR)
    muted = await say(store, room, "anna", c.PostComment(key=fresh_key(), text="hello"))
    conflict = await say(store, room, "anna", c.PostComment(key=first.key, text="other"))

    assert code_of(limited) is ErrorCode.RATE_LIMITED
    assert isinstance(limited, CommandRejected)
    assert 0 < limited.extra["retry_ms"] <= 60_000
    assert code_of(muted) is ErrorCode.MUTED
    assert isinstance(muted, CommandRejected)
    assert muted.extra == {"until": 0}
    assert code_of(conflict) is ErrorCode.CONFLICT


async def test_due_work_is_noted_claimed_and_done(store: Store) -> None:
    member = f"host|t|{fresh_room().room}"
    noted: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.due_add(member, 0, noted.set_result)
    assert await noted is None

    claimed = [
        (partition, lease)
        for partition in range(keys.DUE_PARTITIONS)
        for found, lease in (await store.due_claim(partition, 50))[1]
        if found == member
    ]
    ((_, lease),) = claimed

    await store.due_done(member, lease, None)
    for partition in range(keys.DUE_PARTITIONS):
        assert member not in [found for found, _ in (await store.due_claim(partition, 50))[1]]


async def test_replies_that_carry_the_time_set_the_clock(server: str) -> None:
    clock = StoreClock(wall=lambda: 0.0)
    store = Store(server, clock)
    await store.start()
    room = await a_room(store)

    read = await store.read_room(room)
    await store.stop()

    assert read is not None
    assert abs(clock.now_ms() - read.now_ms) < 10_000


async def test_ping_is_answered(store: Store) -> None:
    await store.ping()

    assert store.healthy


async def test_callers_are_refused_when_too_many_wait(store: Store) -> None:
    room = await a_room(store)
    names = RoomKeys(room)
    answers: list[Answer] = []
    body = b'"from":{},"text":"x"'
    for number in range(WAITING_CALLS_MAX + 5):
        store.post_comment(names, "anna", OWNER, f"k{number:08}", "f", body, 0, 0, answers.append)

    # Nobody has been answered but those that were refused.
    assert len(answers) == 5
    assert all(isinstance(answer, Overloaded) for answer in answers)
    _, _, error = await join(store, room, "w", "anna", 1)
    assert isinstance(error, Overloaded)
    await until(lambda: len(answers) == WAITING_CALLS_MAX + 5, seconds=30)
    # Those whose turn came too late are told so; none is lost.
    assert not [a for a in answers if not isinstance(a, (bytes, Overloaded, StoreUnavailable))]


# --- what it refuses to start on ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_store_that_may_evict_is_refused(server: str, client: "redis.Redis[str]", policy: str) -> None:
    client.config_set("maxmemory-policy", policy)
    try:
        store = Store(server, StoreClock())
        with pytest.raises(ConfigError, match=policy):
            await store.start()
        await store.stop()
    finally:
        client.config_set("maxmemory-policy", "noeviction")


async def test_store_that_cannot_be_reached_is_unavailable(tmp_path: Any) -> None:
    store = Store(f"unix://{tmp_path}/nobody.sock", StoreClock())

    with pytest.raises(StoreUnavailable) as failed:
        await store.start()
    assert failed.value.definite
    assert not str(failed.value).startswith("INFO")
    await store.stop()


@asynccontextmanager
async def a_server_that_says(info: str) -> AsyncIterator[str]:
    """A server that answers INFO with `info` and does not know functions; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0] == b"INFO":
                writer.write(b"$%d\r\n%s\r\n" % (len(info), info.encode()))
            else:
                writer.write(b"-ERR unknown command\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "redis://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


@pytest.mark.parametrize("version", ["6.2.14", "5.0.7"])
async def test_store_too_old_for_functions_is_refused_with_its_version(version: str) -> None:
    async with a_server_that_says(f"redis_version:{version}\r\nrole:master\r\n") as url:
        store = Store(url, StoreClock())
        with pytest.raises(ConfigError, match=version):
            await store.start()
        await store.stop()


@pytest.mark.parametrize("wanted", [0, 2])
async def test_start_warns_of_replicas_that_are_missing(server: str, wanted: int) -> None:
    store = Store(server, StoreClock(), replicas=wanted)
    with capture_logs() as lines:
        await store.start()
    await store.stop()

    told = [line for line in lines if line["event"] == "store.too_few_replicas"]
    assert [(line["connected"], line["wanted"], line["primaries"]) for line in told] == (
        [(0, 2, 1)] if wanted else []
    )


async def test_store_that_keeps_everything_is_known_as_durable(
    server: str, client: "redis.Redis[str]"
) -> None:
    async with running_store(server) as store:
        assert store.durable

    client.config_set("appendfsync", "everysec")
    try:
        async with running_store(server) as store:
            assert not store.durable
    finally:
        client.config_set("appendfsync", "always")


# --- the library ----------------------------------------------------------------------------------------------


async def test_missing_library_is_loaded_again_unnoticed(store: Store, client: "redis.Redis[str]") -> None:
    room = await a_room(store)
    client.function_flush()

    comments = [say(store, room, "anna", c.PostComment(key=fresh_key(), text="hi")) for _ in range(3)]
    notice = ask(store, room, c.SetNotice(key=fresh_key(), text="n"), "boss", STREAMER)
    told = await asyncio.gather(*comments, notice)

    assert told == [b"1", b"2", b"3", b'{"version":1}']
    assert store.healthy


async def test_two_engines_share_one_library(server: str, store: Store) -> None:
    async with running_store(server) as other:
        room = await a_room(store)
        assert (await other.read_room(room)) is not None


async def test_another_version_of_the_library_may_stand_beside_ours(
    server: str, client: "redis.Redis[str]"
) -> None:
    ours = library()
    older = ours.text.replace(ours.name, "liveroom_00000000").replace(ours.prefix, "lr00000000_")
    client.function_load(older)
    try:
        async with running_store(server) as store:
            await a_room(store)
    finally:
        client.function_delete("liveroom_00000000")
