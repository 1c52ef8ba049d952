"""
A stranger's client: what docs/protocol.md says, on the `websockets` client, and a merchant's back end on aiohttp.

Uses `protocol` for the codecs and the connection's state machine and nothing of the engine. It reads only when asked to
wait for something, so a test decides when what has arrived is looked at, and nothing runs in the background.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from websockets.asyncio.client import ClientConnection as WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.codec import CODECS
from protocol.codes import ErrorCode
from protocol.connection import ClientConnection, Progress
from protocol.frames import Reply, Said
from protocol.view import apply_event

Map = dict[str, Any]

#: A test that waits this long has failed (seconds).
PATIENCE_S = 20.0

_keys = itertools.count(1)
_ids = itertools.count(1)


def a_key() -> str:
    """Return an idempotency key nobody used before."""
    return f"key-{next(_keys):08}"


class Refused(Exception):
    """A command was answered with `err`."""

    def __init__(self, err: Map) -> None:
        super().__init__(f"{err['code']}: {err['message']}")
        self.err = err
        self.code: str = err["code"]


class Closed(Exception):
    """The connection ended while a test waited for something else."""


class Client:
    """One connection. `events` holds everything said so far; `room` is the snapshot with the events folded in."""

    def __init__(self, socket: WebSocket, codec_name: str, progress: Progress | None = None) -> None:
        self.socket = socket
        self.codec = CODECS[codec_name]
        self.machine = ClientConnection(self.codec, progress)
        self.replies: dict[int, Reply] = {}
        #: Replies with `re: 0`.
        self.complaints: list[Map] = []
        self.events: list[Map] = []
        self.frames: list[bytes] = []
        #: `ok` of the join.
        self.joined: Map = {}
        self.room: Map = {}
        self.gauges: Map = {}
        self._read = 0

    @classmethod
    async def open(cls, ws_url: str, codec_name: str = "json", progress: Progress | None = None) -> Self:
        """Shake hands."""
        subprotocol = Subprotocol(CODECS[codec_name].subprotocol)
        socket = await connect(
            ws_url,
            subprotocols=[subprotocol],
            compression=None,
            ping_interval=None,
            open_timeout=PATIENCE_S,
            close_timeout=PATIENCE_S,
            max_size=None,
            # A full queue would stop the reading, and with it the closing handshake.
            max_queue=None,
        )
        assert socket.subprotocol == subprotocol
        return cls(socket, codec_name, progress)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    # --- sending ----------------------------------------------------------------------------------------

    async def send_bytes(self, data: bytes, *, text: bool | None = None) -> None:
        """Send a frame as it is; of the codec's type unless `text` says otherwise."""
        is_text = self.codec.is_text if text is None else text
        await self.socket.send(data, text=is_text)

    async def send(self, *maps: Map) -> list[int]:
        """Send maps as one frame, an array if there are several; a missing `id` is chosen. Return the ids."""
        filled = [{"id": next(_ids), **entry} for entry in maps]
        self.machine.pending.update((entry["id"], str(entry.get("cmd"))) for entry in filled)
        await self.send_bytes(self.codec.encode(filled if len(filled) > 1 else filled[0]))
        return [entry["id"] for entry in filled]

    async def ask(self, cmd: str, **fields: Any) -> Map:
        """
        Send one command and return `ok`.

        Raises:
            Refused: If it is answered with `err`.
        """
        [command_id] = await self.send({"cmd": cmd, **fields})
        return await self.answer(command_id)

    async def do(self, cmd: str, **fields: Any) -> Map:
        """As `ask`, with a fresh key."""
        return await self.ask(cmd, key=a_key(), **fields)

    async def refusal(self, cmd: str, **fields: Any) -> Map:
        """Send one command and return `err`, which it must be answered with."""
        try:
            ok = await self.ask(cmd, **fields)
        except Refused as refused:
            return refused.err
        raise AssertionError(f"{cmd} was not refused: {ok}")

    async def join(self, room: str, token: str, **fields: Any) -> Map:
        """Join and return `ok`; keeps the snapshot."""
        [command_id] = await self.send({"cmd": "room.join", "room": room, "token": token, **fields})
        return await self.answer(command_id)

    async def reply(self, command_id: int) -> Reply:
        """Return the reply to a command that was sent, whichever it is."""
        await self.until(lambda: command_id in self.replies)
        return self.replies[command_id]

    async def answer(self, command_id: int) -> Map:
        """Return `ok` of a command that was sent. Raises Refused."""
        reply = await self.reply(command_id)
        if reply.err is not None:
            raise Refused(reply.err)
        assert reply.ok is not None
        return reply.ok

    # --- receiving --------------------------------------------------------------------------------------

    async def until(self, seen: Callable[[], bool]) -> None:
        """Read frames until `seen` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                await self.take_frame()

    async def take_frame(self) -> None:
        """Read one frame."""
        try:
            data = await self.socket.recv(decode=False)
        except ConnectionClosed as error:
            raise Closed(f"closed with {self.socket.close_code}; said {self.events}") from error
        assert isinstance(data, bytes)
        self.frames.append(data)
        for message in self.machine.receive(data, self.codec.is_text):
            if isinstance(message, Reply):
                self._take_reply(message)
            else:
                self._take_event(message)

    def _take_reply(self, reply: Reply) -> None:
        if reply.id == 0:
            assert reply.err is not None
            self.complaints.append(reply.err)
            return
        assert reply.id not in self.replies, f"two replies to {reply.id}"
        self.replies[reply.id] = reply
        if reply.err is not None:
            assert reply.err["code"] in set(ErrorCode)
            assert reply.err["definite"] is (reply.err["code"] != "outcome_unknown")
        if reply.ok is not None and "epoch" in reply.ok and "missed" in reply.ok:
            self.joined = reply.ok
            self.gauges = reply.ok["gauges"]
            if reply.ok["room"] is not None:
                self.room = reply.ok["room"]
            for event in reply.ok["missed"]:
                self._take_event(Said(event["ev"], event))

    def _take_event(self, said: Said) -> None:
        self.events.append(said.body)
        if self.room:
            apply_event(self.room, said.body)

    async def event(self, name: str, **fields: Any) -> Map:
        """Return the next event of this name with these fields, counted from the last one returned."""
        found: Map = {}

        def seen() -> bool:
            for place in range(self._read, len(self.events)):
                event = self.events[place]
                if event["ev"] == name and fields.items() <= event.items():
                    self._read = place + 1
                    found.update(event)
                    return True
            return False

        await self.until(seen)
        return found

    async def caught_up(self) -> None:
        """Return once a `ping` is answered: every reply to earlier frames has been read then, events need not."""
        await self.ask("ping")

    def said(self, name: str) -> list[Map]:
        """Return every event of this name so far."""
        return [event for event in self.events if event["ev"] == name]

    async def complaint(self, number: int = 1) -> Map:
        """Return the reply with `re: 0` of this number, counted from 1."""
        await self.until(lambda: len(self.complaints) >= number)
        return self.complaints[number - 1]

    async def close_code(self) -> int:
        """Read to the end and return the close code."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.take_frame()
        except Closed:
            code = self.socket.close_code
            assert code is not None
            return code


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Merchant:
    """A merchant's back end."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str | None) -> None:
        self._http = http
        self._url = url
        self._key = key

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        """Make one call, with `body` as JSON or `data` as it is."""
        sent = dict(headers or {})
        if self._key is not None:
            sent.setdefault("Authorization", f"Bearer {self._key}")
        payload = data if data is not None else None if body is None else json.dumps(body).encode()
        async with self._http.request(
            method, self._url + path, data=payload, headers=sent, params=query
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Make one call that must be done, and return its JSON."""
        answer = await self.call(method, path, body, **options)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def put_room(self, room: str, **description: Any) -> Map:
        """Create a room or change its description."""
        body = {"title": "秋茶上新", **description}
        answer: Map = await self.ok("PUT", f"/v1/rooms/{room}", body)
        return answer

    async def room(self, room: str) -> Map:
        """Read a room's snapshot."""
        answer: Map = await self.ok("GET", f"/v1/rooms/{quote(room, safe='')}")
        return answer

    async def command(self, room: str, cmd: str, **fields: Any) -> Answer:
        """Give a console command; `key` is fresh unless given."""
        body = {"cmd": cmd, "key": a_key(), **fields}
        return await self.call("POST", f"/v1/rooms/{room}/commands", body)

    async def do(self, room: str, cmd: str, **fields: Any) -> Map:
        """Give a console command that must be done, and return `ok`."""
        answer = await self.command(room, cmd, **fields)
        assert answer.status == 200, answer.body
        done: Map = answer.json["ok"]
        return done

    async def token(self, room: str, viewer: str, role: str = "viewer", **claims: Any) -> str:
        """Return a token."""
        body = {"room": room, "viewer": viewer, "role": role, **claims}
        answer: Map = await self.ok("POST", "/v1/tokens", body)
        signed: str = answer["token"]
        return signed
