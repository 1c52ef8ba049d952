"""
The two pages, and the routes that only a demo has.

Decides the addresses of the pages and the headers that keep them to themselves. The pages are plain files under
`engine/web/static`. The demo routes exist with `--dev` only: they hand out tokens to whoever asks.
"""

import secrets
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from engine.errors import LiveroomError, rejected
from engine.http.api import ok, sign_token
from engine.http.problems import problem, problem_of
from engine.store.store import Store
from engine.tokens import Tokens
from protocol.codec import JSON
from protocol.codes import ErrorCode
from protocol.errors import BadCommand, MalformedFrame
from protocol.ids import is_id

STATIC: Final = Path(__file__).parent.parent / "web" / "static"
DEMO_TENANT: Final = "demo"
_DEMO_ROLES: Final = ("viewer", "streamer")

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Pages:
    """The handlers of the pages."""

    def __init__(self, *, store: Store, tokens: Tokens, dev: bool) -> None:
        self._store = store
        self._tokens = tokens
        self._dev = dev

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes to add to an application."""
        routes: list[web.AbstractRouteDef] = [
            web.get("/r/{room}", self.viewer_page),
            web.get("/console/{room}", self.console_page),
            web.static("/static", STATIC),
        ]
        if self._dev:
            routes.append(web.post("/demo/token", self.demo_token))
            routes.append(web.post("/demo/pay", self.demo_pay))
        return routes

    async def viewer_page(self, request: web.Request) -> web.StreamResponse:
        """Return the page of a viewer."""
        return self._page(request, "viewer.html")

    async def console_page(self, request: web.Request) -> web.StreamResponse:
        """Return the page of a streamer."""
        return self._page(request, "console.html")

    @staticmethod
    def _page(request: web.Request, name: str) -> web.StreamResponse:
        if not is_id(request.match_info["room"]):
            raise web.HTTPNotFound
        return web.FileResponse(STATIC / name)

    async def demo_token(self, request: web.Request) -> web.Response:
        """Hand out a token of the demo tenant."""
        try:
            body: Any = JSON.decode(await request.read())
            if not isinstance(body, dict) or body.get("role", "viewer") not in _DEMO_ROLES:
                raise BadCommand(f"`role` must be one of {', '.join(_DEMO_ROLES)}")
            viewer = body.setdefault("viewer", f"guest-{secrets.token_hex(4)}")
            token, expires_at = sign_token(self._tokens, DEMO_TENANT, body)
        except MalformedFrame as error:
            return problem(BadCommand(str(error)).code, str(error))
        except BadCommand as error:
            return problem(error.code, error.message)
        name = body.get("name") or viewer
        return ok(
            {"token": token, "expires_at": expires_at, "viewer": viewer, "name": name, "room": body["room"]}
        )

    async def demo_pay(self, request: web.Request) -> web.Response:
        """Play the shop: pay one of the bearer's own orders, through the same step as the shop's callback."""
        try:
            body: Any = JSON.decode(await request.read())
            order = body.get("order") if isinstance(body, dict) else None
            if not is_id(order):
                raise BadCommand("`order` must be an id")
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            key = await self._store.room_of_order(DEMO_TENANT, str(order))
            if key is None:
                raise rejected(ErrorCode.NOT_FOUND)
            claims = self._tokens.verify(token, key.room)
            json, _, viewer = await self._store.read_order(key, str(order))
            if claims.tenant != DEMO_TENANT or viewer != claims.viewer:
                raise rejected(ErrorCode.NOT_FOUND)
            amount_cents = JSON.decode(json)["amount_cents"]
            paid, _ = await self._store.pay_order(
                key, str(order), f"demo-{secrets.token_hex(8)}", amount_cents
            )
        except MalformedFrame as error:
            return problem(ErrorCode.BAD_COMMAND, str(error))
        except BadCommand as error:
            return problem(error.code, error.message)
        except LiveroomError as error:
            return problem_of(error)
        return web.Response(body=paid, content_type="application/json")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the pages' headers; a signal of the application."""
    if not request.path.startswith("/v1/"):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
