"""
The internal port: health, readiness, metrics.

Decides how they are asked for and answered; whether a worker, or the supervisor of several, is ready is their own
judgement. Not for the public.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web


class Internal:
    """The handlers of the internal port."""

    def __init__(
        self,
        *,
        ready: Callable[[], Awaitable[str | None]],
        render: Callable[[], Awaitable[tuple[bytes, str]]],
    ) -> None:
        """
        Prepare.

        Args:
            ready: Returns None when ready, else why not.
            render: Returns the metrics and their content type.
        """
        self._ready = ready
        self._render = render

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to an application."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    async def healthz(self, request: web.Request) -> web.Response:
        """Answer while the loop turns."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Answer 200 when viewers may come, 503 and why when not."""
        why_not = await self._ready()
        if why_not is None:
            return web.Response(text="ready\n")
        return web.Response(text=why_not + "\n", status=503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics."""
        body, content_type = await self._render()
        return web.Response(body=body, headers={"Content-Type": content_type})
