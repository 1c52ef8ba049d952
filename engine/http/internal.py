"""
The internal port: health, readiness, metrics.

Decides when a worker says it can serve: its store answers and it is not draining. Not for the public.
"""

from collections.abc import Callable

from aiohttp import web

from engine.telemetry import Metrics


class Internal:
    """The handlers of the internal port."""

    def __init__(
        self, *, metrics: Metrics, ready: Callable[[], str | None], refresh: Callable[[], None]
    ) -> None:
        """
        Prepare.

        Args:
            ready: Returns None when ready, else why not.
            refresh: Called before metrics are shown, to read what is not counted on the way.
        """
        self._metrics = metrics
        self._ready = ready
        self._refresh = refresh

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
        why_not = self._ready()
        if why_not is None:
            return web.Response(text="ready\n")
        return web.Response(text=why_not + "\n", status=503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics of this worker."""
        self._refresh()
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})
