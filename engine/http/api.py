"""
The merchant API: rooms, commands, tokens, cursors.

Decides what each call reads from a request and writes into a response. Console commands go through the same `Console`
as those of a streamer's connection. A merchant key names its tenant, and every key of the store is made from it, so a
call cannot reach another tenant's room: it answers exactly as if the room did not exist.

Source: docs/protocol.md, "Merchant HTTP API"; docs/openapi.yaml is generated from `openapi.py`.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from engine.errors import BlockedText, Forbidden, LiveroomError, RoomNotFound, Unauthorized, rejected
from engine.gateway.console import Actor, Console
from engine.http.problems import problem, problem_of
from engine.rooms.fragments import inside
from engine.rooms.recovery import decode
from engine.rooms.words import WordFilter
from engine.store.keys import RoomKey
from engine.store.store import MERCHANT_ACTOR, MERCHANT_RANK, Answer, Store
from engine.tokens import Tokens, check_profile
from protocol import limits, text
from protocol.codec import JSON
from protocol.codes import ROLE_BY_NAME, ErrorCode
from protocol.commands import GetAudit, GetStats, check_url, parse
from protocol.errors import BadCommand, MalformedFrame
from protocol.ids import is_id, is_idempotency_key

log = structlog.stdlib.get_logger(__name__)

BODY_BYTES_MAX: Final = 64 * 1024
TTL_S_DEFAULT: Final = 3600
TTL_S_MAX: Final = 30 * 86_400
SLOW_MODE_S_MAX: Final = 120
PAGE_DEFAULT: Final = 100
#: Rooms of a list asked for at once, so that a long list does not stand in the way of everybody else's calls.
BRIEFS_AT_ONCE: Final = 50
#: Payment ids are the shop's; the look-ahead keeps out the final newline that `$` would let pass.
PAYMENT_PATTERN: Final = r"^[A-Za-z0-9_.:@/+=-]{1,128}$(?!\n)"

TENANT: Final = web.RequestKey("tenant", str)


def ok(value: Any, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


class MerchantApi:
    """The handlers of `/v1`."""

    def __init__(
        self,
        *,
        store: Store,
        console: Console,
        tokens: Tokens,
        merchant_keys_sha256: Mapping[str, tuple[str, ...]],
        facts_kept_ms: int,
        share_dwell_ms: int,
        words: WordFilter,
    ) -> None:
        self._store = store
        self._console = console
        self._tokens = tokens
        self._tenant_by_digest = {
            digest: tenant for tenant, digests in merchant_keys_sha256.items() for digest in digests
        }
        self._facts_kept_ms = facts_kept_ms
        self._share_dwell_ms = share_dwell_ms
        self._words = words

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to an application."""
        return [
            web.get("/v1/rooms", self._handle(self.list_rooms)),
            web.put("/v1/rooms/{room}", self._handle(self.put_room)),
            web.get("/v1/rooms/{room}", self._handle(self.get_room)),
            web.post("/v1/rooms/{room}/commands", self._handle(self.command)),
            web.get("/v1/rooms/{room}/events", self._handle(self.events)),
            web.get("/v1/rooms/{room}/stats", self._handle(self.stats)),
            web.get("/v1/rooms/{room}/audit", self._handle(self.audit)),
            web.get("/v1/rooms/{room}/trail", self._handle(self.trail)),
            web.get("/v1/rooms/{room}/orders", self._handle(self.orders)),
            web.get("/v1/rooms/{room}/shares", self._handle(self.shares)),
            web.post("/v1/orders/{order}/paid", self._handle(self.paid)),
            web.post("/v1/orders/{order}/refunded", self._handle(self.refunded)),
            web.post("/v1/tokens", self._handle(self.make_token)),
            web.route("*", "/v1/{rest:.*}", self._handle(self.no_such_call)),
        ]

    def _handle(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                request[TENANT] = self._authenticate(request)
                return await handler(request)
            except LiveroomError as error:
                return problem_of(error)
            except BadCommand as error:
                return problem(error.code, error.message)
            except web.HTTPRequestEntityTooLarge:
                return problem(
                    ErrorCode.TOO_LONG,
                    f"the body is larger than {BODY_BYTES_MAX} bytes",
                    status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                )

        return handle

    def _authenticate(self, request: web.Request) -> str:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("send the merchant key as `Authorization: Bearer`")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        tenant = self._tenant_by_digest.get(digest)
        if tenant is None:
            raise Unauthorized("the merchant key is not known here")
        return tenant

    @staticmethod
    def _room(request: web.Request) -> RoomKey:
        room = request.match_info["room"]
        if not is_id(room):
            raise BadCommand("the room's id must be 1–64 of A-Za-z0-9_.-, the first a letter or digit")
        return RoomKey(request[TENANT], room)

    @staticmethod
    async def _body(request: web.Request) -> dict[str, Any]:
        try:
            body = JSON.decode(await request.read())
        except MalformedFrame as error:
            raise BadCommand(str(error)) from None
        if not isinstance(body, dict):
            raise BadCommand("the body must be a JSON object")
        return body

    @staticmethod
    def _page(request: web.Request) -> tuple[str, int]:
        limit = request.query.get("limit", str(PAGE_DEFAULT))
        if (
            len(limit) > 4
            or not limit.isascii()
            or not limit.isdigit()
            or not 1 <= int(limit) <= limits.PAGE_MAX
        ):
            raise BadCommand(f"`limit` must be from 1 to {limits.PAGE_MAX}")
        return request.query.get("after", ""), int(limit)

    # --- rooms ------------------------------------------------------------------------------------------

    async def put_room(self, request: web.Request) -> web.Response:
        """Create a room or change its description: all of it, as in the body."""
        room = self._room(request)
        body = await self._body(request)
        description, slow_ms = check_description(body)
        if self._words.blocks(description["title"]):
            raise BlockedText
        happened = await self._store.put_room(
            room,
            inside(description),
            slow_ms=slow_ms,
            facts_kept_ms=self._facts_kept_ms,
            dwell_ms=self._share_dwell_ms,
        )
        snapshot = await self._snapshot(room)
        return ok(snapshot, HTTPStatus.CREATED if happened == "created" else HTTPStatus.OK)

    async def get_room(self, request: web.Request) -> web.Response:
        """Read a room's snapshot, with the `epoch` and `seq` it stands for."""
        return ok(await self._snapshot(self._room(request)))

    async def _snapshot(self, room: RoomKey) -> dict[str, Any]:
        read = await self._store.read_room(room)
        if read is None:
            raise RoomNotFound
        comments = [orjson.loads(json) for _, json in read.comments]
        place = {"now": read.now_ms, "epoch": read.epoch, "seq": read.seq}
        return {**read.view, "comments": comments, **place}

    async def list_rooms(self, request: web.Request) -> web.Response:
        """List the tenant's rooms by id."""
        after, limit = self._page(request)
        if after and not is_id(after):
            raise BadCommand("`after` is not a cursor of this list")
        tenant = request[TENANT]
        ids = await self._store.list_rooms(tenant, after, limit + 1)
        page = ids[:limit]
        data: list[dict[str, Any]] = []
        for start in range(0, len(page), BRIEFS_AT_ONCE):
            some = page[start : start + BRIEFS_AT_ONCE]
            briefs = await asyncio.gather(*(self._store.brief(RoomKey(tenant, room)) for room in some))
            data.extend(brief for brief in briefs if brief is not None)
        return ok({"data": data, "next": page[-1] if page else after, "more": len(ids) > limit})

    async def command(self, request: web.Request) -> web.Response:
        """Give a console command, above every role."""
        room = self._room(request)
        body = await self._body(request)
        header = request.headers.get("Idempotency-Key")
        if header is not None:
            if not is_idempotency_key(header):
                raise BadCommand("`Idempotency-Key` must be 8–64 of A-Za-z0-9_-")
            if body.setdefault("key", header) != header:
                raise BadCommand("`key` and `Idempotency-Key` differ")
        try:
            command = parse(body)
        except MalformedFrame as error:
            raise BadCommand(str(error)) from None
        if not command.console:
            raise Forbidden(f"{command.name()} is a viewer's command")
        if isinstance(command, GetStats):
            return ok({"ok": await self._stats(room)})
        if isinstance(command, GetAudit):
            return ok({"ok": await self._audit(room)})
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def tell(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._console.run(room, command, Actor(MERCHANT_ACTOR, MERCHANT_RANK), tell)
        answer = await answered
        if isinstance(answer, bytes):
            return web.Response(body=b'{"ok":' + answer + b"}", content_type="application/json")
        raise answer

    # --- reading ----------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.Response:
        """Pull facts after a cursor. `gap` is true when facts before `data` are no longer held."""
        room = self._room(request)
        after, limit = self._page(request)
        epoch, _, seq = after.rpartition(":")
        if after and (not epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 16):
            raise BadCommand("`after` is not a cursor of these events")
        since = int(seq) if after else 0
        page = await self._store.facts_since(room, since, limit)
        if page is None:
            raise RoomNotFound
        gap = False
        if after and page[0] != epoch:
            # The facts of the cursor's epoch are gone; the new line of facts starts at 1.
            gap, since = True, 0
            page = await self._store.facts_since(room, since, limit)
            if page is None:
                raise RoomNotFound
        now_epoch, room_seq, first, facts = page
        gap = gap or first > since + 1
        last = facts[-1][0] if facts else max(since, first - 1)
        data = [decode(json) for _, json in facts]
        return ok({"data": data, "next": f"{now_epoch}:{last}", "more": last < room_seq, "gap": gap})

    async def _stats(self, room: RoomKey) -> dict[str, Any]:
        stats = await self._store.stats(room)
        if stats is None:
            raise RoomNotFound
        return stats

    async def stats(self, request: web.Request) -> web.Response:
        """Read the live totals."""
        return ok(await self._stats(self._room(request)))

    async def _audit(self, room: RoomKey) -> dict[str, Any]:
        read = await self._store.read_room(room)
        if read is None:
            raise RoomNotFound
        return read.audit

    async def audit(self, request: web.Request) -> web.Response:
        """Read the conservation identities."""
        return ok(await self._audit(self._room(request)))

    async def trail(self, request: web.Request) -> web.Response:
        """Pull the console commands that were carried out: who, key, before, after."""
        room = self._room(request)
        after, limit = self._page(request)
        if after and not _is_stream_place(after):
            raise BadCommand("`after` is not a cursor of this trail")
        entries = await self._store.audit_trail(room, after, limit + 1)
        if entries is None:
            raise RoomNotFound
        page = entries[:limit]
        last = page[-1]["place"] if page else after
        return ok({"data": page, "next": last, "more": len(entries) > limit})

    # --- orders and shares ------------------------------------------------------------------------------

    async def paid(self, request: web.Request) -> web.Response:
        """Take the shop's word that an order was paid."""
        room, order = await self._order(request)
        body = await self._body(request)
        payment = _payment_of(body)
        amount_cents = body.get("amount_cents")
        if type(amount_cents) is not int or not 0 <= amount_cents <= limits.INTEGER_MAX:
            raise BadCommand("`amount_cents` must be whole cents", ErrorCode.BAD_QUANTITY)
        json, refund = await self._store.pay_order(room, order, payment, amount_cents)
        document = orjson.loads(json)
        if refund:
            # The list in the order names every payment to give back; this one is among them.
            document["refund_required"] = True
        return ok(document)

    async def refunded(self, request: web.Request) -> web.Response:
        """Take the shop's word that a payment was given back."""
        room, order = await self._order(request)
        body = await self._body(request)
        restock = body.get("restock", True)
        if type(restock) is not bool:
            raise BadCommand("`restock` must be true or false")
        json = await self._store.refund_order(room, order, _payment_of(body), restock=restock)
        return web.Response(body=json, content_type="application/json")

    async def _order(self, request: web.Request) -> tuple[RoomKey, str]:
        order = request.match_info["order"]
        if not is_id(order):
            raise BadCommand("the order's id must be 1–64 of A-Za-z0-9_.-, the first a letter or digit")
        room = await self._store.room_of_order(request[TENANT], order)
        if room is None:
            raise rejected(ErrorCode.NOT_FOUND, "there is no such order")
        return room, order

    async def orders(self, request: web.Request) -> web.Response:
        """Pull order changes after a cursor, oldest first: each with the order as it was then."""
        return await self._pull(request, self._store.order_changes)

    async def shares(self, request: web.Request) -> web.Response:
        """Pull share records after a cursor, oldest first."""
        return await self._pull(request, self._store.share_records)

    async def _pull(
        self,
        request: web.Request,
        read: Callable[[RoomKey, int, int], Awaitable[tuple[int, list[tuple[int, bytes]]] | None]],
    ) -> web.Response:
        room = self._room(request)
        after, limit = self._page(request)
        if after and (not after.isascii() or not after.isdigit() or len(after) > 16):
            raise BadCommand("`after` is not a cursor of this list")
        page = await read(room, int(after or 0), limit)
        if page is None:
            raise RoomNotFound
        newest, entries = page
        last = entries[-1][0] if entries else int(after or 0)
        data = [orjson.Fragment(json) for _, json in entries]
        return ok({"data": data, "next": str(last), "more": bool(entries) and last < newest})

    # --- tokens -----------------------------------------------------------------------------------------

    async def make_token(self, request: web.Request) -> web.Response:
        """Sign a token for one of the tenant's viewers."""
        body = await self._body(request)
        token, expires_at = sign_token(self._tokens, request[TENANT], body)
        return ok({"token": token, "expires_at": expires_at})

    async def no_such_call(self, request: web.Request) -> web.Response:
        """Answer a path or method that is not part of the API."""
        raise rejected(ErrorCode.NOT_FOUND, "there is no such call")


_PAYMENT = re.compile(PAYMENT_PATTERN)


def _payment_of(body: dict[str, Any]) -> str:
    payment = body.get("payment_id")
    if not isinstance(payment, str) or _PAYMENT.match(payment) is None:
        raise BadCommand("`payment_id` must be 1–128 of A-Za-z0-9_.:@/+=-")
    return payment


def sign_token(tokens: Tokens, tenant: str, body: dict[str, Any]) -> tuple[str, int]:
    """
    Sign what a request for a token asks.

    Raises:
        BadCommand: Naming the field that is wrong.
    """
    room, viewer, role = body.get("room"), body.get("viewer"), body.get("role", "viewer")
    if room != "*" and not is_id(room):
        raise BadCommand("`room` must be an id or *")
    if not is_id(viewer):
        raise BadCommand("`viewer` must be an id")
    if not isinstance(role, str) or role not in ROLE_BY_NAME:
        raise BadCommand(f"`role` must be one of {', '.join(ROLE_BY_NAME)}")
    ttl_s = body.get("ttl_s", TTL_S_DEFAULT)
    if type(ttl_s) is not int or not 1 <= ttl_s <= TTL_S_MAX:
        raise BadCommand(f"`ttl_s` must be from 1 to {TTL_S_MAX}")
    name, avatar, level, tags = check_profile(
        body.get("name"), body.get("avatar"), body.get("level"), body.get("tags")
    )
    return tokens.sign(
        tenant=tenant,
        room=str(room),
        viewer=str(viewer),
        role=ROLE_BY_NAME[role],
        ttl_s=ttl_s,
        name=name,
        avatar=avatar,
        level=level,
        tags=tags,
    )


def check_description(body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """
    Check what describes a room.

    Returns:
        Title, cover, playback and starts_at, and the slow mode in milliseconds.

    Raises:
        BadCommand: Naming the field that is wrong.
    """
    title = body.get("title")
    if not isinstance(title, str):
        raise BadCommand("`title` must be text")
    try:
        title = text.clean(title)
    except text.LoneSurrogate as error:
        raise BadCommand(f"`title`: {error}") from None
    if not title:
        raise BadCommand("`title` is empty")
    if len(title) > limits.TITLE_CHARS_MAX:
        raise BadCommand(f"`title` is longer than {limits.TITLE_CHARS_MAX} code points", ErrorCode.TOO_LONG)
    for field in ("cover", "playback"):
        if body.get(field) is not None:
            if not isinstance(body[field], str):
                raise BadCommand(f"`{field}` must be a URL")
            check_url(field, body[field])
    starts_at = body.get("starts_at")
    if starts_at is not None and (type(starts_at) is not int or not 0 <= starts_at <= limits.INTEGER_MAX):
        raise BadCommand("`starts_at` must be milliseconds since 1970-01-01 UTC")
    slow_mode_s = body.get("slow_mode_s", 0)
    if type(slow_mode_s) is not int or not 0 <= slow_mode_s <= SLOW_MODE_S_MAX:
        raise BadCommand(f"`slow_mode_s` must be from 0 to {SLOW_MODE_S_MAX}")
    description = {
        "title": title,
        "cover": body.get("cover"),
        "playback": body.get("playback"),
        "starts_at": starts_at,
    }
    return description, slow_mode_s * 1000


def _is_stream_place(place: str) -> bool:
    at, dash, number = place.partition("-")
    return (
        bool(dash)
        and at.isascii()
        and at.isdigit()
        and number.isascii()
        and number.isdigit()
        and len(place) < 40
    )
