"""
A headless browser that opens one page and tells what happened in it.

Speaks the DevTools protocol over a WebSocket: navigation, what the page logged or threw, what it asked the network for,
values of expressions, pictures. Starts its own browser with a profile of its own, and ends it. Without Chromium on the
machine there is none: tests skip then.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "there is no Chromium on this machine"
PATIENCE_S = 60.0

_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session = ""
        self._loaded = asyncio.Event()
        #: Errors in the console and uncaught exceptions.
        self.errors: list[str] = []
        #: Addresses the page asked for, itself included.
        self.requests: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def read(self) -> None:
        """Take in what the browser says, until it goes away."""
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                answer = self._answers.pop(message["id"])
                if "error" in message:
                    answer.set_exception(AssertionError(message["error"]))
                else:
                    answer.set_result(message["result"])
            else:
                self._event(message["method"], message["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(params["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def open(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Open a page and wait until it has loaded."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        # Nothing but the disk: a page that wants more has to fail.
        await self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def hover(self, x: float, y: float) -> None:
        """Move the pointer to a place."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def picture(self, *, top: float = 0, height: float | None = None) -> bytes:
        """Return a PNG of the page, or of a strip of it."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {
            "x": 0,
            "y": top,
            "width": size["width"],
            "height": height or size["height"] - top,
            "scale": 1,
        }
        shot = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.asynccontextmanager
async def a_page(
    url: str, *, width: int = 1180, height: int = 900, dark: bool = False
) -> AsyncIterator[Page]:
    """Open `url` in a browser that lives as long as the block."""
    assert PROGRAM is not None, NO_CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-dev-shm-usage", "--disable-background-networking", "--remote-debugging-port=0"),
            f"--user-data-dir={profile}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert browser.stderr is not None
        draining: asyncio.Task[bytes] | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    line = await browser.stderr.readline()
                    assert line, "Chromium ended before it listened"
                    if (match := _LISTENING.search(line)) is not None:
                        break
            draining = asyncio.ensure_future(browser.stderr.read())
            async with connect(match[1].decode(), max_size=None, compression=None) as socket:
                page = Page(socket)
                reading = asyncio.ensure_future(page.read())
                try:
                    await page.open(url, width=width, height=height, dark=dark)
                    yield page
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
        finally:
            if browser.returncode is None:
                browser.terminate()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await browser.wait()
            except TimeoutError:
                browser.kill()
                await browser.wait()
            if draining is not None:
                await draining
