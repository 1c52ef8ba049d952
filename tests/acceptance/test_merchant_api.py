"""The merchant API over real HTTP; every answer is one that docs/openapi.yaml describes."""

import json
from typing import Any

import jwt
import pytest

from tests.support.client import Answer, Merchant, a_key
from tests.support.described import DOCUMENT, check
from tests.support.service import Service, now_s
from tests.support.stage import ROLES, Stage, a_room_id

Map = dict[str, Any]

COMMANDS_PATH = "/v1/rooms/{room}/commands"


def refused(answer: Answer, status: int, code: str) -> Map:
    """See that an answer is this problem document, and return it."""
    assert answer.content_type == "application/problem+json", answer.body
    document: Map = answer.json
    assert (answer.status, document["status"], document["code"]) == (status, status, code), document
    assert document["type"] == f"urn:liveroom:problem:{code}"
    assert document["definite"] is True
    assert document["title"]
    assert document["detail"]
    return document


# --- who calls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic dev-key-demo",
        "dev-key-demo",
        "Bearer dev-key-demo x",
    ],
)
async def test_without_a_known_key_everything_is_401(nobody: Merchant, header: str | None) -> None:
    sent = {} if header is None else {"Authorization": header}
    for method, path in [
        ("GET", "/v1/rooms"),
        ("PUT", "/v1/rooms/x"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/x"),
    ]:
        answer = await nobody.call(method, path, {}, headers=sent)
        refused(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "dev-key" not in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("DELETE", "/v1/rooms/x"),
        ("POST", "/v1/rooms"),
        ("GET", "/v1/rooms/x/y"),
        ("PATCH", "/v1/"),
    ],
)
async def test_call_that_is_not_there_is_404(merchant: Merchant, method: str, path: str) -> None:
    refused(await merchant.call(method, path), 404, "not_found")


# --- rooms --------------------------------------------------------------------------------------------------


async def test_room_is_created_changed_and_read(merchant: Merchant) -> None:
    room = a_room_id()
    path = f"/v1/rooms/{room}"
    whole = {
        "title": " 小满茶事\u200b ",
        "cover": "https://cdn.example/c.webp",
        "playback": "https://live.example/r.m3u8?k=1",
        "starts_at": 1_795_000_000_000,
        "slow_mode_s": 3,
        "unknown": "ignored",
    }

    created = await merchant.call("PUT", path, whole)
    same = await merchant.call("PUT", path, whole)
    changed = await merchant.call("PUT", path, {"title": "返场", "cover": None})

    assert [answer.status for answer in (created, same, changed)] == [201, 200, 200]
    for answer in (created, same, changed):
        check("PUT", "/v1/rooms/{room}", answer)
    snapshot = created.json
    now, epoch = snapshot.pop("now"), snapshot.pop("epoch")
    assert abs(now - now_s() * 1000) < 5_000
    assert snapshot == {
        "room": room,
        "title": "小满茶事",
        "state": "scheduled",
        "cover": "https://cdn.example/c.webp",
        "playback": "https://live.example/r.m3u8?k=1",
        "starts_at": 1_795_000_000_000,
        "notice": None,
        "items": [],
        "explaining": None,
        "sales": [],
        "packets": [],
        "pinned": None,
        "comments": [],
        "muted_all": False,
        "seq": 0,
    }
    assert same.json["seq"] == 0
    # All of it: what is left out has no value any more. A change is a fact.
    assert {"title": "返场", "seq": 1, "epoch": epoch}.items() <= changed.json.items()
    assert not {"cover", "playback", "starts_at"} & set(changed.json)
    facts = (await merchant.ok("GET", f"{path}/events"))["data"]
    assert [(fact["ev"], fact["title"]) for fact in facts] == [("room.updated", "返场")]
    read = await merchant.call("GET", path)
    check("GET", "/v1/rooms/{room}", read)
    assert {**read.json, "now": 0} == {**changed.json, "now": 0}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"title": None}, 400, "bad_command"),
        ({"title": ""}, 400, "bad_command"),
        ({"title": "\u200b"}, 400, "bad_command"),
        ({"title": 7}, 400, "bad_command"),
        ({"title": "茶" * 61}, 422, "too_long"),
        ({"cover": "http://cdn.example/c"}, 400, "bad_command"),
        ({"cover": 7}, 400, "bad_command"),
        ({"playback": "https://live.example/" + "x" * 512}, 422, "too_long"),
        ({"starts_at": -1}, 400, "bad_command"),
        ({"starts_at": 1.5}, 400, "bad_command"),
        ({"starts_at": True}, 400, "bad_command"),
        ({"slow_mode_s": 121}, 400, "bad_command"),
        ({"slow_mode_s": "1"}, 400, "bad_command"),
    ],
    ids=str,
)
async def test_wrong_descriptions_are_refused(
    merchant: Merchant, change: Map, status: int, code: str
) -> None:
    room = a_room_id()

    answer = await merchant.call("PUT", f"/v1/rooms/{room}", {"title": "茶", **change})

    refused(answer, status, code)
    check("PUT", "/v1/rooms/{room}", answer)
    refused(await merchant.call("GET", f"/v1/rooms/{room}"), 404, "room_not_found")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'"x"', b'{"title":"\\ud800"}', b"\xff"])
async def test_body_that_is_no_object_is_a_bad_command(merchant: Merchant, body: bytes) -> None:
    for method, path in [("PUT", "/v1/rooms/x"), ("POST", "/v1/rooms/x/commands"), ("POST", "/v1/tokens")]:
        refused(await merchant.call(method, path, data=body), 400, "bad_command")


async def test_body_over_64_kib_is_413(merchant: Merchant) -> None:
    answer = await merchant.call("PUT", "/v1/rooms/x", {"title": "茶", "padding": "x" * 65_536})

    refused(answer, 413, "too_long")
    check("PUT", "/v1/rooms/{room}", answer)


@pytest.mark.parametrize("room", ["-x", "a%20b", "x" * 65, "%E8%8C%B6", "a%0A", "a%2Fb"])
async def test_room_that_is_no_id_is_refused(merchant: Merchant, room: str) -> None:
    answer = await merchant.call("GET", f"/v1/rooms/{room}")

    assert answer.content_type == "application/problem+json"
    assert answer.json["code"] in ("bad_command", "not_found")


async def test_rooms_are_listed_by_id_with_a_cursor(other_merchant: Merchant) -> None:
    rooms = [f"list-{number:02}" for number in (3, 1, 5, 2, 4)]
    for room in rooms:
        await other_merchant.put_room(room)
    await other_merchant.do("list-03", "room.open")

    pages = []
    after = "list-"
    while True:
        answer = await other_merchant.call("GET", "/v1/rooms", query={"after": after, "limit": 2})
        check("GET", "/v1/rooms", answer)
        pages.append(answer.json)
        after = answer.json["next"]
        if not answer.json["more"]:
            break

    assert [[line["room"] for line in page["data"]] for page in pages] == [
        ["list-01", "list-02"],
        ["list-03", "list-04"],
        ["list-05"],
    ]
    assert pages[1]["data"][0] == {"room": "list-03", "title": "秋茶上新", "state": "live", "online": 0}
    end = await other_merchant.ok("GET", "/v1/rooms", query={"after": "list-05"})
    assert end == {"data": [], "next": "list-05", "more": False}


async def test_tenants_see_their_own_rooms_only(merchant: Merchant, other_merchant: Merchant) -> None:
    room = a_room_id()
    await merchant.put_room(room)

    foreign = [
        await other_merchant.call("GET", f"/v1/rooms/{room}{rest}")
        for rest in ("", "/events", "/stats", "/audit", "/trail", "/orders", "/shares")
    ]
    missing = [
        await other_merchant.call("GET", f"/v1/rooms/no-such-room{rest}")
        for rest in ("", "/events", "/stats", "/audit", "/trail", "/orders", "/shares")
    ]

    assert [answer.body for answer in foreign] == [answer.body for answer in missing]
    for answer in foreign:
        refused(answer, 404, "room_not_found")
    listed = await other_merchant.ok("GET", "/v1/rooms", query={"limit": 1_000})
    assert room not in [line["room"] for line in listed["data"]]
    # The same id is another room there.
    await other_merchant.put_room(room, title="另一家")
    assert (await merchant.room(room))["title"] == "秋茶上新"


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"limit": "-1"}, {"limit": ""}, {"limit": "١"}],
)
async def test_wrong_limits_are_refused(stage: Stage, query: Map) -> None:
    for rest in (
        "",
        f"/{stage.room}/events",
        f"/{stage.room}/trail",
        f"/{stage.room}/orders",
        f"/{stage.room}/shares",
    ):
        refused(await stage.merchant.call("GET", f"/v1/rooms{rest}", query=query), 400, "bad_command")


@pytest.mark.parametrize(
    ("rest", "after"),
    [
        ("", "-x"), ("", "a b"), ("events", "x"), ("events", ":1"), ("events", "e:-1"), ("events", "e:x"),
        ("events", "e:" + "9" * 17), ("trail", "x"), ("trail", "1-x"), ("trail", "-"),
        ("orders", "x"), ("shares", "-1"),
    ],
)  # fmt: skip
async def test_wrong_cursors_are_refused(stage: Stage, rest: str, after: str) -> None:
    path = f"/v1/rooms/{stage.room}/{rest}" if rest else "/v1/rooms"

    refused(await stage.merchant.call("GET", path, query={"after": after}), 400, "bad_command")


# --- commands -----------------------------------------------------------------------------------------------


async def test_every_console_command_answers_as_described(stage: Stage) -> None:
    anna = await stage.enter("anna")
    await anna.do("comment.send", text="在吗")
    card = {"item": "tea", "title": "铁观音", "price_cents": 9_900, "cover": "https://cdn.example/t.webp"}
    now = (await anna.ask("ping"))["now"]
    sale = {
        "sale": "s-1",
        "item": "tea",
        "price_cents": 1,
        "stock": 9,
        "starts_at": now,
        "ends_at": now + 60_000,
    }
    packet = {"packet": "p-1", "total_cents": 100, "shares": 10, "split": "lucky", "expires_s": 60}
    given: list[tuple[str, Map]] = [
        ("notice.set", {"text": "八点", "card": "c-1"}),
        ("item.put", card),
        ("item.explain", {"item": "tea"}),
        ("item.unexplain", {"item": "tea"}),
        ("seckill.schedule", sale),
        ("seckill.adjust", {"sale": "s-1", "delta": 1}),
        ("seckill.end", {"sale": "s-1"}),
        ("redpacket.send", packet),
        ("redpacket.cancel", {"packet": "p-1"}),
        ("comment.pin", {"comment": 1}),
        ("comment.unpin", {"comment": 1}),
        ("comment.delete", {"comment": 1}),
        ("viewer.mute", {"viewer": "zoe", "seconds": 5}),
        ("viewer.unmute", {"viewer": "zoe"}),
        ("viewer.kick", {"viewer": "zoe"}),
        ("viewer.ban", {"viewer": "zoe", "reason": "广告"}),
        ("viewer.unban", {"viewer": "zoe"}),
        ("room.mute_all", {"on": True}),
        ("item.remove", {"item": "tea"}),
        ("stats.get", {}),
        ("audit.get", {}),
        ("room.open", {}),
        ("room.pause", {}),
        ("room.resume", {}),
        ("room.close", {}),
    ]
    for cmd, fields in given:
        answer = await stage.merchant.command(stage.room, cmd, **fields)
        assert answer.status == 200, (cmd, answer.body)
        check("POST", COMMANDS_PATH, answer)
    described = DOCUMENT["components"]["schemas"]["ConsoleCommand"]["discriminator"]["mapping"]
    assert {cmd for cmd, _ in given} == set(described)

    for rest in ("events", "stats", "audit", "trail", "orders", "shares"):
        answer = await stage.merchant.call("GET", f"/v1/rooms/{stage.room}/{rest}")
        assert answer.status == 200
        check("GET", f"/v1/rooms/{{room}}/{rest}", answer)
    check("GET", "/v1/rooms/{room}", await stage.merchant.call("GET", f"/v1/rooms/{stage.room}"))


async def test_key_may_stand_in_the_header(stage: Stage) -> None:
    path = f"/v1/rooms/{stage.room}/commands"
    header = {"Idempotency-Key": "notice-from-the-shop"}
    notice = {"cmd": "notice.set", "text": "八点"}

    first = await stage.merchant.call("POST", path, notice, headers=header)
    again = await stage.merchant.call("POST", path, notice, headers=header)
    in_map = await stage.merchant.call("POST", path, {**notice, "key": "notice-from-the-shop"})
    in_both = await stage.merchant.call(
        "POST", path, {**notice, "key": "notice-from-the-shop"}, headers=header
    )

    for answer in (first, again, in_map, in_both):
        assert answer.json == {"ok": {"version": 1}}
        check("POST", COMMANDS_PATH, answer)
    other = await stage.merchant.call("POST", path, {**notice, "text": "九点"}, headers=header)
    refused(other, 409, "conflict")
    differ = await stage.merchant.call("POST", path, {**notice, "key": "another-key"}, headers=header)
    refused(differ, 400, "bad_command")
    for wrong in ("short", "x" * 65, "with space"):
        answer = await stage.merchant.call("POST", path, notice, headers={"Idempotency-Key": wrong})
        refused(answer, 400, "bad_command")
    refused(await stage.merchant.call("POST", path, notice), 400, "bad_command")


async def test_same_key_of_a_viewer_and_of_the_merchant_are_two(stage: Stage) -> None:
    sam = await stage.enter("sam", "streamer")

    assert await sam.ask("notice.set", key="the-same-key", text="一") == {"version": 1}
    assert await stage.do("notice.set", key="the-same-key", text="二") == {"version": 2}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad_command"),
        ({"cmd": 7}, 400, "bad_command"),
        ({"cmd": "room.fly"}, 400, "unknown_command"),
        ({"cmd": "notice.set", "text": "x" * 301}, 422, "too_long"),
        ({"cmd": "notice.set"}, 400, "bad_command"),
        ({"cmd": "item.explain", "item": "nothing"}, 404, "not_found"),
        ({"cmd": "seckill.adjust", "sale": "s", "delta": "x"}, 400, "bad_quantity"),
        ({"cmd": "room.resume"}, 200, ""),
        ({"cmd": "comment.send", "text": "?"}, 403, "forbidden"),
    ],
    ids=str,
)
async def test_refusals_are_problem_documents(stage: Stage, body: Map, status: int, code: str) -> None:
    answer = await stage.merchant.call("POST", f"/v1/rooms/{stage.room}/commands", {"key": a_key(), **body})

    check("POST", COMMANDS_PATH, answer)
    if code:
        refused(answer, status, code)
    else:
        assert answer.json == {"ok": {"state": "live", "again": True}}


async def test_conflicts_say_what_is(stage: Stage) -> None:
    await stage.do("notice.set", text="八点")
    await stage.do("room.pause")

    opened = await stage.merchant.command(stage.room, "room.open")
    stale = await stage.merchant.command(stage.room, "notice.set", text="九点", version=0)

    assert refused(opened, 409, "conflict")["state"] == "paused"
    assert refused(stale, 409, "conflict")["version"] == 1
    for answer in (opened, stale):
        check("POST", COMMANDS_PATH, answer)


# --- cursors ------------------------------------------------------------------------------------------------


async def test_facts_are_pulled_with_a_cursor(stage: Stage) -> None:
    for number in range(6):
        await stage.do("notice.set", text=str(number))
    path = f"/v1/rooms/{stage.room}/events"

    pages = [await stage.merchant.ok("GET", path, query={"limit": 3})]
    while pages[-1]["more"]:
        pages.append(await stage.merchant.ok("GET", path, query={"limit": 3, "after": pages[-1]["next"]}))

    assert [[fact["seq"] for fact in page["data"]] for page in pages] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [page["gap"] for page in pages] == [False] * 3
    waiting = await stage.merchant.ok("GET", path, query={"after": pages[-1]["next"]})
    assert waiting == {"data": [], "next": pages[-1]["next"], "more": False, "gap": False}
    await stage.do("notice.set", text="新")
    news = await stage.merchant.ok("GET", path, query={"after": pages[-1]["next"]})
    assert [fact["text"] for fact in news["data"]] == ["新"]


async def test_cursor_of_another_epoch_begins_anew_with_a_gap(stage: Stage) -> None:
    path = f"/v1/rooms/{stage.room}/events"

    page = await stage.merchant.ok("GET", path, query={"after": "elsewhere:3"})

    assert ([fact["seq"] for fact in page["data"]], page["gap"]) == ([1], True)


async def test_trail_says_who_did_what_and_how_it_was_before(stage: Stage) -> None:
    mo = await stage.enter("mo", "moderator")
    await stage.do("notice.set", key="from-the-shop", text="八点")
    await mo.ask("notice.set", key="from-the-console", text="九点", version=1)
    await mo.refusal("notice.set", key="too-late", text="十点", version=1)
    path = f"/v1/rooms/{stage.room}/trail"

    first = await stage.merchant.call("GET", path, query={"limit": 2})
    rest = await stage.merchant.call("GET", path, query={"after": first.json["next"]})

    for answer in (first, rest):
        check("GET", "/v1/rooms/{room}/trail", answer)
    assert (first.json["more"], rest.json["more"]) == (True, False)
    entries = [*first.json["data"], *rest.json["data"]]
    assert [(entry["actor"], entry["cmd"], entry["key"]) for entry in entries][1:] == [
        ("~merchant", "notice.set", "from-the-shop"),
        ("mo", "notice.set", "from-the-console"),
    ]
    assert (entries[1]["before"], entries[2]["before"]) == (None, {"text": "八点", "version": 1})
    assert entries[2]["after"]["text"] == "九点"


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_token_carries_what_was_asked(merchant: Merchant, role: str) -> None:
    body = {
        "room": "r-1",
        "viewer": "anna",
        "role": role,
        "name": " 小林 ",
        "level": 3,
        "tags": ["vip"],
        "ttl_s": 60,
    }
    body["avatar"] = "https://cdn.example/a.png"

    answer = await merchant.call("POST", "/v1/tokens", body)

    check("POST", "/v1/tokens", answer)
    token = answer.json["token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "dev", "typ": "JWT"}
    issued_at = claims.pop("iat")
    assert abs(issued_at - now_s()) <= 2
    assert answer.json["expires_at"] == (issued_at + 60) * 1000 == claims.pop("exp") * 1000
    assert claims == {
        "aud": "liveroom",
        "sub": "anna",
        "tenant": "demo",
        "room": "r-1",
        "role": role,
        "name": "小林",
        "avatar": "https://cdn.example/a.png",
        "level": 3,
        "tags": ["vip"],
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"room": None}, "bad_command"),
        ({"room": "**"}, "bad_command"),
        ({"viewer": "~merchant"}, "bad_command"),
        ({"viewer": 7}, "bad_command"),
        ({"role": "admin"}, "bad_command"),
        ({"role": None}, "bad_command"),
        ({"role": {}}, "bad_command"),
        ({"ttl_s": 0}, "bad_command"),
        ({"ttl_s": 2_592_001}, "bad_command"),
        ({"ttl_s": 1.5}, "bad_command"),
        ({"ttl_s": True}, "bad_command"),
        ({"name": 7}, "bad_command"),
        ({"name": "x" * 33}, "too_long"),
        ({"avatar": "http://cdn.example/a"}, "bad_command"),
        ({"avatar": "https://cdn.example/" + "x" * 512}, "too_long"),
        ({"level": -1}, "bad_command"),
        ({"tags": "vip"}, "bad_command"),
        ({"tags": [""]}, "bad_command"),
        ({"tags": ["x"] * 21}, "bad_command"),
    ],
    ids=str,
)
async def test_wrong_token_requests_are_refused(merchant: Merchant, change: Map, code: str) -> None:
    answer = await merchant.call(
        "POST", "/v1/tokens", {"room": "r-1", "viewer": "anna", "role": "viewer", **change}
    )

    refused(answer, 400 if code == "bad_command" else 422, code)
    check("POST", "/v1/tokens", answer)


async def test_tenant_of_a_token_is_the_keys(other_merchant: Merchant) -> None:
    body = {"room": "*", "viewer": "anna", "tenant": "demo"}

    answer = await other_merchant.ok("POST", "/v1/tokens", body)

    assert jwt.decode(answer["token"], options={"verify_signature": False})["tenant"] == "other"


# --- orders -------------------------------------------------------------------------------------------------


async def test_order_is_paid_refunded_and_pulled(stage: Stage) -> None:
    anna = await stage.enter("anna")
    now = (await anna.ask("ping"))["now"]
    await stage.do("item.put", item="tea", title="铁观音", price_cents=9_900)
    await stage.do(
        "seckill.schedule",
        sale="s",
        item="tea",
        price_cents=100,
        stock=5,
        starts_at=now,
        ends_at=now + 60_000,
    )
    order = (await anna.do("seckill.claim", sale="s"))["order"]
    path = f"/v1/orders/{order}"
    payment = {"payment_id": "pay-1", "amount_cents": 100}

    wrong = await stage.merchant.call("POST", f"{path}/paid", {**payment, "amount_cents": 99})
    paid = await stage.merchant.call("POST", f"{path}/paid", payment)
    twice = await stage.merchant.call("POST", f"{path}/paid", {**payment, "payment_id": "pay-2"})
    back = await stage.merchant.call("POST", f"{path}/refunded", {"payment_id": "pay-1"})

    refused(wrong, 409, "conflict")
    for answer in (wrong, paid, twice):
        check("POST", "/v1/orders/{order}/paid", answer)
    check("POST", "/v1/orders/{order}/refunded", back)
    assert (paid.json["status"], "refund_required" in paid.json) == ("paid", False)
    assert (twice.json["status"], twice.json["refund_required"]) == ("paid", True)
    assert back.json["status"] == "refunded"
    after_all = await stage.merchant.call("POST", f"{path}/refunded", {"payment_id": "pay-9"})
    check("POST", "/v1/orders/{order}/refunded", after_all)
    pulled = await stage.merchant.call("GET", f"/v1/rooms/{stage.room}/orders")
    check("GET", "/v1/rooms/{room}/orders", pulled)
    assert [entry["status"] for entry in pulled.json["data"]][0::3] == ["held", "refunded"]


@pytest.mark.parametrize("rest", ["paid", "refunded"])
async def test_wrong_payments_are_refused(merchant: Merchant, other_merchant: Merchant, rest: str) -> None:
    path = f"/v1/orders/no-such-order/{rest}"
    payment = {"payment_id": "pay-1", "amount_cents": 1}

    missing = await merchant.call("POST", path, payment)

    refused(missing, 404, "not_found")
    check("POST", f"/v1/orders/{{order}}/{rest}", missing)
    assert (await other_merchant.call("POST", path, payment)).body == missing.body
    refused(await merchant.call("POST", f"/v1/orders/-/{rest}", payment), 400, "bad_command")


# --- ports and pages ----------------------------------------------------------------------------------------


async def test_health_and_metrics_are_on_the_internal_port_only(
    service: Service, nobody: Merchant, merchant: Merchant
) -> None:
    inside = Merchant(nobody._http, service.internal_url, None)
    for path in ("/healthz", "/readyz", "/metrics"):
        answer = await inside.call("GET", path)
        assert answer.status == 200
        check("GET", path, answer)
        assert (await nobody.call("GET", path)).status == 404
    metrics = (await inside.call("GET", "/metrics")).body.decode()
    assert "liveroom_store_up 1.0" in metrics
    assert "liveroom_connections " in metrics
    assert (
        await Merchant(nobody._http, service.internal_url, "dev-key-demo").call("GET", "/v1/rooms")
    ).status == 404
    assert (await inside.call("GET", "/r/demo")).status == 404


@pytest.mark.parametrize("path", ["/r/demo", "/console/demo", "/static/js/liveroom-client.js"])
async def test_pages_are_served_with_a_strict_policy(nobody: Merchant, path: str) -> None:
    answer = await nobody.call("GET", path)

    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/r/-", "/r/a%20b", "/console/", "/static/../../config.py", "/static/%2e%2e/%2e%2e/cli.py", "/"]
)
async def test_other_paths_are_not_found(nobody: Merchant, path: str) -> None:
    answer = await nobody.call("GET", path)

    assert answer.status in (403, 404)
    assert b"import" not in answer.body


async def test_demo_token_joins_as_viewer_or_streamer_only(nobody: Merchant, stage: Stage) -> None:
    answer = await nobody.call("POST", "/demo/token", {"room": stage.room, "name": "路人"})
    client = await stage.connect()

    joined = await client.join(stage.room, answer.json["token"])

    assert joined["you"]["name"] == "路人"
    assert joined["you"]["viewer"] == answer.json["viewer"]
    for body in ({"room": stage.room, "role": "owner"}, {"room": "-"}, [], {"room": stage.room, "role": []}):
        wrong = await nobody.call("POST", "/demo/token", data=json.dumps(body).encode())
        refused(wrong, 400, "bad_command")
