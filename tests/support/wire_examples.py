"""
One example of every command, reply, refusal and event.

Decides what the golden bytes under `tests/wire/golden/` say and what the schema tests validate. Each example fills
every optional field, so that a field cannot be lost unseen; `tests/wire/frozen/` holds the opposite, messages with
only what version 1.0 required. Not random: random messages are made where they are used.
"""

from typing import Any, Final

import msgspec

from protocol.codes import ErrorCode
from protocol.commands import (
    COMMANDS,
    AdjustSeckill,
    BanViewer,
    CancelOrder,
    CancelRedPacket,
    ClaimSeckill,
    CloseRoom,
    Command,
    DeleteComment,
    EndSeckill,
    ExplainItem,
    GetAudit,
    GetOrder,
    GetShareRank,
    GetStats,
    GrabRedPacket,
    JoinRoom,
    KickViewer,
    LeaveRoom,
    MakeShareToken,
    MuteAll,
    MuteViewer,
    OpenRoom,
    PauseRoom,
    PinComment,
    Ping,
    PostComment,
    PutItem,
    RemoveItem,
    Resume,
    ResumeRoom,
    ScheduleSeckill,
    SendLikes,
    SendRedPacket,
    SetNotice,
    UnbanViewer,
    UnexplainItem,
    UnmuteViewer,
    UnpinComment,
    to_map,
)
from protocol.events import (
    EVENTS,
    CommentDeleted,
    CommentPinned,
    CommentPosted,
    Event,
    ItemExplaining,
    ItemPut,
    ItemRemoved,
    LikesChanged,
    NoticeSet,
    OnlineChanged,
    PacketChanged,
    RankChanged,
    Reconnect,
    RedPacketClosed,
    RedPacketGrabbed,
    RedPacketOpened,
    RoomMutedAll,
    RoomStateChanged,
    RoomUpdated,
    SeckillAdjusted,
    SeckillBack,
    SeckillEnded,
    SeckillScheduled,
    SeckillSoldOut,
    StockChanged,
    Thinned,
    ViewerArrived,
    ViewerRemoved,
    YourGrab,
    YourMute,
    YourOrder,
)
from protocol.objects import (
    Audit,
    BestGrab,
    Comment,
    Eligibility,
    Gauges,
    Item,
    Notice,
    OnlineGauge,
    Order,
    OrderCounts,
    OwnRank,
    Packet,
    PacketAudit,
    PacketGauge,
    RankEntry,
    RoomSnapshot,
    Sale,
    SaleAudit,
    Sender,
    Stats,
    StockGauge,
    WireObject,
    You,
)
from protocol.replies import (
    REPLIES,
    CommentAccepted,
    Done,
    Joined,
    LikesTotal,
    MutedUntil,
    NoticeVersion,
    Pong,
    ShareGrabbed,
    ShareRank,
    ShareToken,
    StateNow,
    UnitsHeld,
    error_reply,
)

NOW_MS: Final = 1_795_000_000_000
KEY: Final = "c-5f1e0b2a"
COVER: Final = "https://img.example.com/tea.webp"

ELIGIBLE: Final = Eligibility(tags=["vip", "老客"], level_min=2, dwell_s=60, first_order=True, shared=3)
SENDER: Final = Sender(id="u_7", name="小林", role="viewer", avatar="https://img.example.com/u7.webp")
COMMENT: Final = Comment(comment=901, at=NOW_MS + 123, sender=SENDER, text="多少钱?", reply_to=888)
ITEM: Final = Item(
    item="tea", title="明前龙井 50 g", price_cents=9900, sort=10, sold_out=False, cover=COVER,
    url="https://shop.example.com/tea",
)  # fmt: skip
_SALE: Final[dict[str, Any]] = {
    "sale": "s_1", "item": "tea", "price_cents": 4900, "stock": 100, "per_viewer": 2, "starts_at": NOW_MS + 60_000,
    "ends_at": NOW_MS + 360_000, "hold_s": 300, "state": "scheduled", "eligible": ELIGIBLE,
}  # fmt: skip
SALE: Final = Sale(**_SALE)
_PACKET: Final[dict[str, Any]] = {
    "packet": "p_1", "total_cents": 10_000, "shares": 100, "split": "lucky", "min_cents": 1,
    "opens_at": NOW_MS + 5_000, "expires_at": NOW_MS + 65_000, "state": "scheduled", "eligible": ELIGIBLE,
}  # fmt: skip
PACKET: Final = Packet(**_PACKET)
_ORDER: Final[dict[str, Any]] = {
    "order": "o_1", "sale": "s_1", "item": "tea", "viewer": "u_7", "qty": 2, "price_cents": 4900,
    "amount_cents": 9800, "status": "paid", "held_at": NOW_MS, "pay_by": NOW_MS + 300_000, "inviter": "u_3",
    "payment_id": "wx-42", "refund_required": ["wx-43"],
}  # fmt: skip
ORDER: Final = Order(**_ORDER)
TOP: Final = [RankEntry(viewer="u_3", name="阿May", count=12), RankEntry(viewer="u_7", name="小林", count=3)]
GAUGES: Final = Gauges(
    likes=48_211,
    online=OnlineGauge(now=1_024, peak=2_048),
    stock={"s_1": StockGauge(left=97, held=2, sold=1)},
    packets={"p_1": PacketGauge(left=40, grabbed=60)},
    rank=TOP,
)
YOU: Final = You(
    viewer="u_7", name="小林", role="viewer", muted_until=0, orders=[ORDER], grabs={"p_0": 88},
    rank=OwnRank(rank=2, count=3), invited=3, share="st.eyJyIjoicl84OCJ9.c2ln",
)  # fmt: skip
ROOM: Final = RoomSnapshot(
    room="r_88", title="春茶专场", state="live", cover=COVER, playback="https://live.example.com/r_88.m3u8",
    starts_at=NOW_MS, notice=Notice(text="今晚八点开抢", version=3, card="wxgroup"), items=[ITEM], explaining="tea",
    sales=[SALE], packets=[PACKET], pinned=COMMENT, comments=[COMMENT], muted_all=False,
)  # fmt: skip

_COMMANDS: Final[list[Command]] = [
    JoinRoom(
        room="r_88", token="eyJhbGciOiJIUzI1NiJ9.e30.c2ln", resume=Resume(epoch="k3v9", seq=1041),
        via="st.eyJyIjoicl84OCJ9.c2ln", entry="official_account",
    ),
    LeaveRoom(),
    Ping(),
    PostComment(key=KEY, text="多少钱?👨‍👩‍👧", reply_to=888),
    SendLikes(n=50, batch=12),
    MakeShareToken(channel="wechat_group"),
    GetShareRank(around=True),
    ClaimSeckill(key=KEY, sale="s_1", qty=2),
    GetOrder(order="o_1"),
    CancelOrder(key=KEY, order="o_1"),
    GrabRedPacket(key=KEY, packet="p_1"),
    OpenRoom(key=KEY),
    PauseRoom(key=KEY),
    ResumeRoom(key=KEY),
    CloseRoom(key=KEY),
    SetNotice(key=KEY, text="今晚八点开抢", card="wxgroup", version=2),
    PutItem(
        key=KEY, item="tea", title="明前龙井 50 g", price_cents=9900, cover=COVER,
        url="https://shop.example.com/tea", sort=10,
    ),
    RemoveItem(key=KEY, item="tea"),
    ExplainItem(key=KEY, item="tea"),
    UnexplainItem(key=KEY, item="tea"),
    ScheduleSeckill(
        key=KEY, sale="s_1", item="tea", price_cents=4900, stock=100, per_viewer=2, starts_at=NOW_MS + 60_000,
        ends_at=NOW_MS + 360_000, hold_s=300, eligible=ELIGIBLE,
    ),
    AdjustSeckill(key=KEY, sale="s_1", delta=-5),
    EndSeckill(key=KEY, sale="s_1"),
    SendRedPacket(
        key=KEY, packet="p_1", total_cents=10_000, shares=100, split="lucky", min_cents=1,
        opens_at=NOW_MS + 5_000, expires_s=60, eligible=ELIGIBLE,
    ),
    CancelRedPacket(key=KEY, packet="p_1"),
    MuteViewer(key=KEY, viewer="u_9", seconds=600),
    UnmuteViewer(key=KEY, viewer="u_9"),
    KickViewer(key=KEY, viewer="u_9", reason="广告"),
    BanViewer(key=KEY, viewer="u_9", reason="广告"),
    UnbanViewer(key=KEY, viewer="u_9"),
    MuteAll(key=KEY, on=True),
    DeleteComment(key=KEY, comment=901),
    PinComment(key=KEY, comment=901),
    UnpinComment(key=KEY, comment=901),
    GetStats(),
    GetAudit(),
]  # fmt: skip

_FACT: Final[dict[str, Any]] = {"seq": 1042, "at": NOW_MS + 500}

_EVENTS: Final[list[Event]] = [
    RoomStateChanged(**_FACT, state="paused", reason="streamer_lost"),
    RoomUpdated(**_FACT, title="春茶专场", cover=COVER, playback="https://live.example.com/2", starts_at=NOW_MS),
    NoticeSet(**_FACT, text="今晚八点开抢", version=3, card="wxgroup"),
    ItemPut(**_FACT, **msgspec.structs.asdict(ITEM)),
    ItemRemoved(**_FACT, item="tea"),
    ItemExplaining(**_FACT, item=None),
    SeckillScheduled(**_FACT, **_SALE),
    SeckillAdjusted(**_FACT, **{**_SALE, "stock": 95, "state": "open"}),
    SeckillEnded(**_FACT, **{**_SALE, "state": "ended"}),
    SeckillSoldOut(**_FACT, sale="s_1", final=False),
    SeckillBack(**_FACT, sale="s_1"),
    RedPacketOpened(**_FACT, **_PACKET),
    RedPacketClosed(
        **_FACT, **{**_PACKET, "state": "closed"}, granted_cents=9_000, refunded_cents=1_000, grabbed=90,
        best=BestGrab(viewer="u_7", name="小林", amount_cents=666),
    ),
    RoomMutedAll(**_FACT, on=True),
    CommentDeleted(**_FACT, comment=901),
    CommentPinned(**_FACT, comment=COMMENT),
    ViewerRemoved(**_FACT, viewer="u_9", how="ban"),
    CommentPosted(comment=901, at=NOW_MS + 123, sender=SENDER, text="多少钱?", reply_to=888),
    ViewerArrived(at=NOW_MS, sender=SENDER, via="阿May"),
    RedPacketGrabbed(at=NOW_MS, packet="p_1", sender=SENDER, amount_cents=88),
    LikesChanged(total=48_211),
    OnlineChanged(now=1_024, peak=2_048),
    StockChanged(sale="s_1", left=97, held=2, sold=1),
    PacketChanged(packet="p_1", left=40, grabbed=60),
    RankChanged(top=TOP),
    YourOrder(**_ORDER),
    YourMute(until=0),
    YourGrab(packet="p_1", amount_cents=88),
    Thinned(dropped=17),
    Reconnect(after_ms=4_200),
]  # fmt: skip


def plain(value: Any) -> Any:
    """Return `value` as the maps that travel."""
    return msgspec.to_builtins(value)


#: Command → example.
COMMAND_EXAMPLES: Final[dict[str, Command]] = {command.name(): command for command in _COMMANDS}
#: Event → example.
EVENT_EXAMPLES: Final[dict[str, Event]] = {event.name(): event for event in _EVENTS}
#: Command → example of its `ok`.
REPLY_EXAMPLES: Final[dict[str, WireObject]] = {
    "room.join": Joined(
        now=NOW_MS, epoch="k3v9", seq=1044, resumed=False, you=YOU, gauges=GAUGES, room=ROOM, missed=[],
        ping_ms=25_000,
    ),
    "ping": Pong(now=NOW_MS),
    "comment.send": CommentAccepted(comment=901),
    "like.send": LikesTotal(total=48_211),
    "share.token": ShareToken(token="st.eyJyIjoicl84OCJ9.c2ln"),
    "share.rank": ShareRank(top=TOP, me=OwnRank(rank=None, count=0)),
    "seckill.claim": UnitsHeld(order="o_1", status="held", pay_by=NOW_MS + 300_000, stock_left=97, again=True),
    "order.get": ORDER,
    "order.cancel": ORDER,
    "redpacket.grab": ShareGrabbed(amount_cents=88, again=False),
    "room.open": StateNow(state="live", again=True),
    "room.pause": StateNow(state="paused"),
    "room.resume": StateNow(state="live"),
    "room.close": StateNow(state="closing"),
    "notice.set": NoticeVersion(version=3),
    "item.put": ITEM,
    "seckill.schedule": SALE,
    "seckill.adjust": SALE,
    "seckill.end": SALE,
    "redpacket.send": PACKET,
    "redpacket.cancel": PACKET,
    "viewer.mute": MutedUntil(until=NOW_MS + 600_000),
    "stats.get": Stats(
        online=1_024, peak=2_048, viewers=5_000, likes=48_211, comments=901, shares=77,
        orders=OrderCounts(held=2, paid=1, cancelled=4, expired=3, refunded=1), sold_cents=9_800,
        entries={"official_account": 3_000, "unknown": 2_000},
    ),
    "audit.get": Audit(
        holds=True,
        sales={"s_1": SaleAudit(stock=100, left=97, held=2, sold=1, holds=True)},
        packets={
            "p_1": PacketAudit(
                total_cents=10_000, granted_cents=6_000, left_cents=4_000, refunded_cents=0, shares=100,
                grabbed=60, holds=True,
            )
        },
    ),
    **{name: Done() for name, kind in REPLIES.items() if kind is Done},
}  # fmt: skip

#: What a code adds to its refusal.
ERROR_FIELDS: Final[dict[ErrorCode, dict[str, Any]]] = {
    ErrorCode.RATE_LIMITED: {"retry_ms": 800},
    ErrorCode.OVERLOADED: {"retry_ms": 1_000},
    ErrorCode.UNAVAILABLE: {"retry_ms": 1_000},
    ErrorCode.NOT_STARTED: {"starts_at": NOW_MS + 60_000, "now": NOW_MS},
    ErrorCode.SOLD_OUT: {"final": False},
    ErrorCode.LIMIT_REACHED: {"left": 1},
    ErrorCode.ROOM_NOT_LIVE: {"state": "closed"},
    ErrorCode.CONFLICT: {"version": 3},
    ErrorCode.MUTED: {"until": 0, "all": True},
}

REQUEST_ID: Final = 7


def golden_values() -> dict[str, Any]:
    """Return the value of every golden frame by its path without ending, such as `events/likes`."""
    values: dict[str, Any] = {}
    for name in REPLIES:
        values[f"commands/{name}"] = to_map(COMMAND_EXAMPLES[name], REQUEST_ID)
        values[f"replies/{name}"] = [{"re": REQUEST_ID, "ok": plain(REPLY_EXAMPLES[name])}]
    for code in ErrorCode:
        message_id = 0 if code is ErrorCode.BAD_FRAME else REQUEST_ID
        fields = ERROR_FIELDS.get(code, {})
        values[f"errors/{code}"] = [error_reply(message_id, code, f"an example of {code}", **fields)]
    for name, event in EVENT_EXAMPLES.items():
        values[f"events/{name}"] = [plain(event)]
    values["frames/many_commands"] = [
        to_map(COMMAND_EXAMPLES[name], i) for i, name in enumerate(COMMANDS, 1)
    ][:32]
    values["frames/busy_room"] = [
        {"re": REQUEST_ID, "ok": {"comment": 901}},
        *(plain(EVENT_EXAMPLES[name]) for name in ("comment", "item.put", "likes", "thinned")),
    ]
    missed = plain(EVENT_EXAMPLES["room.state"])
    resumed = {**plain(REPLY_EXAMPLES["room.join"]), "resumed": True, "room": None, "missed": [missed]}
    values["frames/resumed"] = [{"re": 1, "ok": resumed}]
    assert set(EVENT_EXAMPLES) == set(EVENTS), "an event has no example"
    return values
