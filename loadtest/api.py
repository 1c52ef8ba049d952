"""
The merchant's side of a run, over HTTP.

Decides which calls set a room up and which read it back at the end. The dump it returns is what the oracle compares
the viewers' memories with. The merchant key goes into a header and nowhere else. Source: docs/protocol.md, "Merchant
HTTP API".
"""

import asyncio
import json
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import aiohttp

from loadtest.history import Dump
from protocol.limits import PAGE_MAX

REQUEST_TIMEOUT_S: Final = 30
#: Tokens asked for at the same time.
TOKENS_AT_ONCE_MAX: Final = 16
#: Dumps tried until one finds the room still.
DUMPS_MAX: Final = 20


class ApiError(Exception):
    """The merchant API did not answer, or refused."""


class Refused(ApiError):
    """The server understood and said no."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(ApiError):
    """Nobody listens at the target."""


def http_url(target: str) -> str:
    """
    Return the HTTP origin of a WebSocket target such as ws://127.0.0.1:8080.

    Raises:
        ValueError: If it is not a ws, wss, http or https URL with a host.
    """
    parts = urlsplit(target)
    scheme = {"ws": "http", "wss": "https", "http": "http", "https": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{target!r} is not a URL like ws://127.0.0.1:8080")
    return f"{scheme}://{parts.netloc}"


def ws_url(target: str) -> str:
    """
    Return the WebSocket origin of a target; http and https become ws and wss.

    Raises:
        ValueError: If it is not such a URL, or has more than a host and a port.
    """
    scheme, _, rest = http_url(target).partition("://")
    parts = urlsplit(target)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{target!r} has more than a host and a port; rooms are at /ws of a server")
    # Asked for because it is only then that a number too large is noticed.
    if parts.port == 0:
        raise ValueError(f"{target!r} has port 0")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}"


class MerchantApi:
    """A merchant's back end. Use as an async context manager."""

    def __init__(self, target: str, merchant_key: str) -> None:
        self._origin = http_url(target)
        self._headers = {"Authorization": f"Bearer {merchant_key}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        assert self._session is not None
        try:
            async with self._session.request(method, self._origin + path, **options) as response:
                body = await response.read()
                if response.status >= 400:
                    message = f"{method} {path}: HTTP {response.status} {_problem(body)}"
                    code = _code(body)
                    raise Refused(code, message) if code else ApiError(message)
                return await response.json(content_type=None)
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no server answers at {self._origin}: {error.strerror or error}") from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(f"{method} {path}: {type(error).__name__} {error}") from None

    async def create_room(self, room: str, title: str) -> None:
        """Create the room and open it."""
        await self._call("PUT", _room(room), json={"title": title})
        await self.command(room, {"cmd": "room.open", "key": f"open-{room}"[:64]})

    async def close_room(self, room: str) -> None:
        """End the show, so that nothing of a run goes on in the server."""
        await self.command(room, {"cmd": "room.close", "key": f"end-{room}"[:64]})

    async def command(self, room: str, command: dict[str, Any]) -> dict[str, Any]:
        """Give a console command; return the body of its `ok`."""
        answer = await self._call("POST", f"{_room(room)}/commands", json=command)
        ok = answer.get("ok")
        if not isinstance(ok, dict):
            raise ApiError(f"{command['cmd']}: an answer without `ok`")
        return ok

    async def tokens(self, wanted: list[dict[str, Any]]) -> list[str]:
        """
        Return one token for each of the maps of `POST /v1/tokens`, in order.

        Cancelling this is safe: the tokens made so far are forgotten.
        """
        gate = asyncio.Semaphore(TOKENS_AT_ONCE_MAX)

        async def one(body: dict[str, Any]) -> str:
            async with gate:
                answer = await self._call("POST", "/v1/tokens", json=body)
                return str(answer["token"])

        return list(await asyncio.gather(*(one(body) for body in wanted)))

    async def _pull(self, what: str, room: str, after: str = "") -> tuple[list[dict[str, Any]], str]:
        """Return everything after a cursor, oldest first, and the next cursor."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"limit": str(PAGE_MAX)} | ({"after": after} if after else {})
            page = await self._call("GET", f"{_room(room)}/{what}", params=query)
            found.extend(page["data"])
            if not page["more"]:
                return found, str(page["next"])
            if page["next"] == after:
                raise ApiError(f"GET {what}: `more` without progress")
            after = page["next"]

    async def events(self, room: str) -> list[dict[str, Any]]:
        """Return every fact of the room, oldest first."""
        return (await self._pull("events", room))[0]

    async def orders(self, room: str, after: str = "") -> tuple[list[dict[str, Any]], str]:
        """Return every change of an order after a cursor, oldest first, and the next cursor."""
        return await self._pull("orders", room, after)

    async def pay(self, order: str, payment: str, amount_cents: int) -> dict[str, Any]:
        """
        Report a payment; return the order.

        Raises:
            Refused: If the server says no, with its code.
        """
        body = {"payment_id": payment, "amount_cents": amount_cents}
        answer = await self._call("POST", f"/v1/orders/{quote(order, safe='')}/paid", json=body)
        return dict(answer)

    async def stats(self, room: str) -> dict[str, Any]:
        """Return the live totals."""
        stats = await self._call("GET", f"{_room(room)}/stats")
        return dict(stats)

    async def dump(self, room: str) -> Dump:
        """
        Return everything the server says about the room, all of one moment.

        Holds expire and packets are settled whenever their time has come, so what was read first is looked at again
        at the end; if the room has changed, all of it is read anew.

        Raises:
            ApiError: If the room changes every time.
        """
        for _ in range(DUMPS_MAX):
            events, fact = await self._pull("events", room)
            orders, change = await self._pull("orders", room)
            shares, arrival = await self._pull("shares", room)
            dump = Dump(
                room=room,
                events=events,
                stats=await self.stats(room),
                snapshot=dict(await self._call("GET", _room(room))),
                audit=dict(await self._call("GET", f"{_room(room)}/audit")),
                orders=orders,
                shares=shares,
            )
            places = {"events": fact, "orders": change, "shares": arrival}
            if not any([(await self._pull(what, room, after))[0] for what, after in places.items()]):
                return dump
        raise ApiError(f"the room changed during each of {DUMPS_MAX} dumps")


def _room(room: str) -> str:
    return f"/v1/rooms/{quote(room, safe='')}"


def _problem(body: bytes) -> str:
    return body[:300].decode("utf-8", "replace")


def _code(body: bytes) -> str:
    """Return the code in a problem document, empty if there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("code", "")) if isinstance(document, dict) else ""
