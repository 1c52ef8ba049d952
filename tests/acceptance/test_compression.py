"""
permessage-deflate on a worker whose operator turned it on: batches deflated once and shared, the rest plain.

The client is the library's own, which inflates by itself; what really travelled is noted beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame
from websockets.typing import Subprotocol

from engine.fanout.frames import DEFLATE_BYTES_MIN, DEFLATE_WINDOW_BITS
from protocol.codec import CODECS
from tests.support.client import PATIENCE_S, Client
from tests.support.in_process import Engine, an_engine
from tests.support.processes import Guests

NOTICE = "欢迎来到直播间" * 14


@dataclass(frozen=True)
class Noted:
    """A data frame as it came."""

    #: What was on the wire.
    body: bytes
    deflated: bool
    #: What it said.
    message: bytes


class Travelled:
    """The data frames a client received, in order; they are noted as they arrive, also while no test is waiting."""

    def __init__(self, deflate: PerMessageDeflate) -> None:
        self.frames: list[Noted] = []
        decode = deflate.decode

        def noting(frame: Frame, **options: Any) -> Frame:
            body, deflated = bytes(frame.data), frame.rsv1
            inflated = decode(frame, **options)
            self.frames.append(Noted(body, deflated, bytes(inflated.data)))
            return inflated

        deflate.decode = noting  # type: ignore[method-assign]

    def with_notice(self, text: str) -> Noted:
        """Return the one frame that carried a notice."""
        [frame] = [each for each in self.frames if text.encode() in each.message]
        return frame


async def join_deflated(
    engine: Engine, guests: Guests, viewer: str, codec_name: str = "json", window_bits: int | None = None
) -> tuple[Client, Travelled]:
    """Join and offer permessage-deflate, asking for a window if one is given."""
    socket = await connect(
        engine.ws_url,
        subprotocols=[Subprotocol(CODECS[codec_name].subprotocol)],
        compression=None,
        extensions=[ClientPerMessageDeflateFactory(server_max_window_bits=window_bits)],
        ping_interval=None,
        open_timeout=PATIENCE_S,
        max_queue=None,
    )
    [deflate] = socket.protocol.extensions
    assert isinstance(deflate, PerMessageDeflate)
    assert deflate.remote_no_context_takeover
    assert deflate.remote_max_window_bits == (window_bits or 15)
    travelled = Travelled(deflate)
    client = Client(socket, codec_name)
    guests.clients.append(client)
    await client.join(guests.room, await guests.token(viewer))
    return client, travelled


async def said(client: Client, text: str) -> None:
    """Wait until a client has been told a notice."""
    await client.until(lambda: any(event.get("text") == text for event in client.events))


async def test_viewers_who_negotiated_it_share_one_deflated_frame(tmp_path: Path) -> None:
    async with an_engine(tmp_path, compression=True) as engine, Guests(engine, "tea") as guests:
        await guests.open_room()
        plain = await guests.join("plain")
        anna, to_anna = await join_deflated(engine, guests, "anna")
        bob, to_bob = await join_deflated(engine, guests, "bob", window_bits=DEFLATE_WINDOW_BITS)
        mia, to_mia = await join_deflated(engine, guests, "mia", "msgpack")

        await guests.merchant.do(guests.room, "notice.set", text=NOTICE)
        for client in (plain, anna, bob, mia):
            await said(client, NOTICE)

        assert to_anna.with_notice(NOTICE) == to_bob.with_notice(NOTICE)
        for travelled in (to_anna, to_mia):
            frame = travelled.with_notice(NOTICE)
            assert frame.deflated
            assert len(frame.body) < len(frame.message) / 2
        assert [event for event in anna.events if "seq" in event] == [
            event for event in plain.events if "seq" in event
        ]
        assert [event for event in mia.events if "seq" in event] == [
            event for event in plain.events if "seq" in event
        ]


async def test_replies_and_small_batches_are_plain(tmp_path: Path) -> None:
    async with an_engine(tmp_path, compression=True) as engine, Guests(engine, "tea") as guests:
        await guests.open_room()
        anna, to_anna = await join_deflated(engine, guests, "anna")
        # The join reply holds a snapshot and is much larger than what batches are deflated from.
        [join] = [frame for frame in to_anna.frames if b'"re"' in frame.message]
        assert len(join.message) > DEFLATE_BYTES_MIN
        assert not join.deflated

        await guests.merchant.do(guests.room, "notice.set", text="short")
        await said(anna, "short")

        # What else is pending, an arrival say, travels in the same frame.
        for frame in to_anna.frames[1:]:
            assert frame.deflated == (len(frame.message) >= DEFLATE_BYTES_MIN)


@pytest.mark.parametrize("window_bits", [9, DEFLATE_WINDOW_BITS - 1])
async def test_viewer_with_a_smaller_window_is_sent_the_plain_frame(tmp_path: Path, window_bits: int) -> None:
    async with an_engine(tmp_path, compression=True) as engine, Guests(engine, "tea") as guests:
        await guests.open_room()
        small, to_small = await join_deflated(engine, guests, "small", window_bits=window_bits)
        anna, to_anna = await join_deflated(engine, guests, "anna")

        await guests.merchant.do(guests.room, "notice.set", text=NOTICE)
        await said(small, NOTICE)
        await said(anna, NOTICE)

        assert to_anna.with_notice(NOTICE).deflated
        assert not any(frame.deflated for frame in to_small.frames)


async def test_deflated_commands_are_limited_by_what_they_inflate_to(tmp_path: Path) -> None:
    async with an_engine(tmp_path, compression=True) as engine, Guests(engine, "tea") as guests:
        await guests.open_room()
        anna, _ = await join_deflated(engine, guests, "anna")

        # The client deflates all it sends: this is some 100 bytes on the wire, and 9,000 once inflated.
        await anna.send_bytes(b'{"cmd":"ping","id":1,"pad":"' + b"a" * 9_000 + b'"}')

        assert await anna.close_code() == 1009


async def test_nothing_is_deflated_when_it_is_off(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as engine, Guests(engine, "tea") as guests:
        await guests.open_room()
        async with connect(engine.ws_url, compression="deflate", open_timeout=PATIENCE_S) as socket:
            assert socket.protocol.extensions == []
