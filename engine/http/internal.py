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
        ready: Callable[[], Awaitable[tuple[bool, str]]],
        render: Callable[[], Awaitable[tuple[bytes, str]]],
    ) -> None:
        """
        Prepare.

        Args:
            ready: Returns whether viewers may come, and how it stands in words.
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
        is_ready, words = await self._ready()
        return web.Response(text=words + "\n", status=200 if is_ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics."""
        body, content_type = await self._render()
        return web.Response(body=body, headers={"Content-Type": content_type})
