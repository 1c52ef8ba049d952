"""
`liveroom demo`: one command, and a live room runs.

Decides what is on sale, what the host explains and when, and which addresses are printed. The service is the real one
with `--dev`; the crowd is the load test's, on real connections. This is the only module of the engine that imports
`loadtest`.
"""

import asyncio
import secrets
from typing import Final

from engine.app import App
from engine.config import Config
from engine.errors import LiveroomError
from engine.gateway.console import Actor
from engine.http.api import check_description
from engine.http.pages import DEMO_TENANT
from engine.rooms.fragments import inside
from engine.store.keys import RoomKey
from engine.store.store import MERCHANT_ACTOR, MERCHANT_RANK, Answer
from loadtest.crowd import play_demo_crowd
from protocol.codes import Role, RoomState
from protocol.commands import (
    Command,
    ExplainItem,
    OpenRoom,
    PutItem,
    ScheduleSeckill,
    SendRedPacket,
    SetNotice,
)

TITLE: Final = "小满茶事 · 秋茶上新专场"
NOTICE: Final = "今晚 8 点整点秒杀,关注不迷路。全场顺丰包邮,七天无理由退换。"
ITEMS: Final = (
    ("tea-tieguanyin", "安溪铁观音 清香型 250g 礼盒", 12_900),
    ("tea-puer", "云南古树普洱 熟茶饼 357g", 26_800),
    ("honey-linden", "长白山椴树蜜 500g 原蜜", 6_980),
    ("orange-gannan", "赣南脐橙 5 斤装 现摘现发", 3_990),
    ("bowl-jian", "建盏主人杯 手工烧制", 19_900),
    ("noodle-hand", "手工空心挂面 400g × 3", 2_990),
    ("gift-spring", "茶点礼盒 八味装", 8_800),
)
#: Time for one item (seconds). A round is: explain, seckill, explain, red packet.
EXPLAIN_S: Final = 20.0
SECKILL_STOCK: Final = 12
SECKILL_AHEAD_MS: Final = 12_000
SECKILL_MS: Final = 55_000
PACKET_CENTS: Final = 6_666
PACKET_SHARES: Final = 20
PACKET_AHEAD_MS: Final = 8_000
_TOKEN_TTL_S: Final = 6 * 3600


class Demo:
    """The service, a room on show, a host and a crowd."""

    def __init__(self, config: Config, *, viewers: int) -> None:
        self._app = App(config)
        self._viewers = viewers
        self._room = RoomKey(DEMO_TENANT, "demo")
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the service, set the stage, let the crowd in."""
        await self._app.start()
        self._room = await self._find_room()
        await self._set_stage()
        host, port = self._app.address
        crowd = play_demo_crowd(
            f"ws://{host}:{port}",
            self._room.room,
            self._token,
            viewers=self._viewers,
            stop=self._stop,
            seed=secrets.randbits(32),
        )
        self._tasks = [
            asyncio.create_task(crowd, name="crowd"),
            asyncio.create_task(self._host(), name="host"),
        ]

    async def stop(self) -> None:
        """Let the crowd leave, then stop the service."""
        self._stop.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=3)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._app.stop()

    def announce(self) -> None:
        """Print the addresses of the pages."""
        base = "http://{}:{}".format(*self._app.address)
        print(f"观众页  Viewer   {base}/r/{self._room.room}")
        print(f"控制台  Console  {base}/console/{self._room.room}")
        print("(?lang=en for English; Ctrl-C ends the show)", flush=True)

    def _token(self, viewer: str, name: str) -> str:
        token, _ = self._app.tokens.sign(
            tenant=DEMO_TENANT,
            room=self._room.room,
            viewer=viewer,
            role=Role.VIEWER,
            ttl_s=_TOKEN_TTL_S,
            name=name,
        )
        return token

    async def _find_room(self) -> RoomKey:
        """Return the first demo room that is not over: one that was closed stays closed."""
        number = 1
        while True:
            room = RoomKey(DEMO_TENANT, "demo" if number == 1 else f"demo-{number}")
            read = await self._app.store.read_room(room)
            if read is None or read.view["state"] not in (RoomState.CLOSING, RoomState.CLOSED):
                return room
            number += 1

    async def _set_stage(self) -> None:
        description, slow_ms = check_description({"title": TITLE})
        await self._app.store.put_room(
            self._room, inside(description), slow_ms=slow_ms, facts_kept_ms=self._app.config.facts_kept_ms
        )
        read = await self._app.store.read_room(self._room)
        assert read is not None
        if not read.view["items"]:
            for item, title, price_cents in ITEMS:
                await self._command(PutItem(key=_key(), item=item, title=title, price_cents=price_cents))
        if read.view["notice"] is None:
            await self._command(SetNotice(key=_key(), text=NOTICE))
        if read.view["state"] == RoomState.SCHEDULED:
            await self._command(OpenRoom(key=_key()))

    async def _command(self, command: Command) -> None:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        actor = Actor(MERCHANT_ACTOR, MERCHANT_RANK)
        self._app.console.run(self._room, command, actor, answered.set_result)
        answer = await answered
        if isinstance(answer, LiveroomError):
            raise answer

    async def _act(self, turn: int, item: str, price_cents: int) -> None:
        """Explain an item; every other time, put it on sale or send a red packet."""
        await self._command(ExplainItem(key=_key(), item=item))
        now_ms = self._app.clock.now_ms()
        if turn % 4 == 1:
            await self._command(
                ScheduleSeckill(
                    key=_key(),
                    sale=f"sale-{_key()[:8]}",
                    item=item,
                    price_cents=price_cents // 3,
                    stock=SECKILL_STOCK,
                    starts_at=now_ms + SECKILL_AHEAD_MS,
                    ends_at=now_ms + SECKILL_AHEAD_MS + SECKILL_MS,
                    hold_s=30,
                )
            )
        elif turn % 4 == 3:
            await self._command(
                SendRedPacket(
                    key=_key(),
                    packet=f"packet-{_key()[:8]}",
                    total_cents=PACKET_CENTS,
                    shares=PACKET_SHARES,
                    split="lucky",
                    opens_at=now_ms + PACKET_AHEAD_MS,
                    expires_s=45,
                )
            )

    async def _host(self) -> None:
        """Go from item to item, for as long as there are any."""
        turn = 0
        while not self._stop.is_set():
            try:
                read = await self._app.store.read_room(self._room)
                items = read.view["items"] if read is not None else []
                if items:
                    item = items[turn % len(items)]
                    turn += 1
                    await self._act(turn, item["item"], item["price_cents"])
            except LiveroomError:
                pass  # The console may have closed the room or removed the item.
            try:
                async with asyncio.timeout(EXPLAIN_S):
                    await self._stop.wait()
            except TimeoutError:
                pass


def _key() -> str:
    return secrets.token_hex(8)
