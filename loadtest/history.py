"""
What happened in a run, as the generator saw it.

Decides what is recorded and how little that costs. A busy room sends the same bytes to everybody, so the meaning of a
frame is worked out once per process and kept under its bytes; a viewer only notes the frame's number. Nothing is
sampled away by that: each viewer's list of numbers and the table of frames together say exactly which facts,
comments and totals that viewer saw, in which order.

Does not judge (`oracle.py`) and does not do I/O. Clocks are passed in.

Bounds: the table of meanings grows with the distinct frames of a run (some dozen per second and room, plus one per
reply), the lists with frames × viewers at 4 bytes; the cache of raw bytes is capped.
"""

import gzip
import hashlib
import re
import zlib
from array import array
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson
from msgspec import Struct

from protocol.codec import Codec
from protocol.errors import MalformedFrame
from protocol.frames import Reply, Said, read_messages

if TYPE_CHECKING:
    Numbers = array[int]
else:
    # Python 3.11's arrays take no parameter, and the type is looked at when a history is read again.
    Numbers = array

#: Frames whose raw bytes are remembered. Some seconds of a very busy room; an older frame that comes again is merely
#: read again.
CACHED_FRAMES_MAX: Final = 8192

#: Moments of receipt are kept in ticks of 100 µs.
TICK_US: Final = 100
TICKS_PER_S: Final = 1_000_000 // TICK_US

MARK: Final = re.compile(r"#([0-9A-Za-z]+)\.(\d+)$")

#: Parts of a snapshot that follow from facts alone. Sales and packets also follow a clock, comments may be thinned.
FACTUAL_PARTS: Final = ("room", "title", "state", "notice", "items", "explaining", "pinned", "muted_all")


def digest(value: Any) -> int:
    """Return 63 bits that two values share only if their content is the same."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def factual(room: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a snapshot that follow from facts alone."""
    return {part: room.get(part) for part in FACTUAL_PARTS}


class _Mark(Struct, frozen=True, array_like=True, tag=True):
    """One thing a frame said."""


class FactSeen(_Mark, frozen=True, array_like=True, tag="f"):
    """A fact: its place, its content, its name."""

    seq: int
    digest: int
    name: str


class CommentSeen(_Mark, frozen=True, array_like=True, tag="c"):
    """
    A comment: its number, its content, who wrote it, the step it says it came from, and the CRC of its text.

    A step of -1 is none of ours.
    """

    comment: int
    digest: int
    sender: str
    step: int
    text_crc: int


class LikesSeen(_Mark, frozen=True, array_like=True, tag="l"):
    """The gauge of likes."""

    total: int


class ThinnedSeen(_Mark, frozen=True, array_like=True, tag="t"):
    """The announcement that chat was left out."""

    dropped: int


class OtherChatSeen(_Mark, frozen=True, array_like=True, tag="o"):
    """An arrival or a grab: chat without a number, of which only the count and the sender are known."""

    name: str
    sender: str


class StockSeen(_Mark, frozen=True, array_like=True, tag="s"):
    """The gauge of one sale."""

    sale: str
    left: int
    held: int
    sold: int


class PacketSeen(_Mark, frozen=True, array_like=True, tag="p"):
    """The gauge of one red packet."""

    packet: str
    left: int
    grabbed: int


class OrderSeen(_Mark, frozen=True, array_like=True, tag="y"):
    """A change of an order that one viewer was told of."""

    order: str
    viewer: str
    digest: int


class GrabSeen(_Mark, frozen=True, array_like=True, tag="g"):
    """A share that one viewer was told of."""

    packet: str
    amount_cents: int


class JoinedSeen(_Mark, frozen=True, array_like=True, tag="j"):
    """An accepted join: where the viewer stands from here on."""

    epoch: str
    seq: int
    resumed: bool
    #: The room's id in the snapshot; empty when resumed.
    room: str
    #: Digest of the snapshot's factual parts; 0 when resumed.
    factual: int
    missed: list[tuple[int, int]]
    #: Highest comment in the snapshot, 0 if none; -1 when resumed.
    last_comment: int
    likes: int
    viewer: str
    #: The store's clock, milliseconds.
    now: int = 0
    #: What `you` holds: open orders, and packet → cents.
    orders: list[str] = []
    grabs: dict[str, int] = {}


class ReconnectSeen(_Mark, frozen=True, array_like=True, tag="r"):
    """The server drains: come back after this long."""

    after_ms: int


class BrokenSeen(_Mark, frozen=True, array_like=True, tag="b"):
    """A frame that does not follow the protocol."""

    why: str


Seen = (
    FactSeen
    | CommentSeen
    | LikesSeen
    | ThinnedSeen
    | OtherChatSeen
    | StockSeen
    | PacketSeen
    | OrderSeen
    | GrabSeen
    | JoinedSeen
    | ReconnectSeen
    | BrokenSeen
)


class Frame(Struct):
    """One distinct frame: what it said, and how many viewers had read it by which moment."""

    number: int
    marks: list[Seen]
    #: Tick since the start of the run → viewers who read it then.
    ticks: dict[int, int]
    #: Whether it answered somebody, and so went to one viewer only.
    private: bool


class Outcome(Struct, array_like=True):
    """How one step ended."""

    step: int
    #: `cmd`.
    command: str
    #: "ok", the code of the refusal, "unanswered", or "not_connected" when it was never sent.
    code: str
    #: Microseconds since the start of the run: when it was due, when it was first sent, when it was answered for good.
    intended_us: int
    sent_us: int
    done_us: int
    #: The comment's number or the total of likes, where the reply has one.
    value: int = 0
    #: Taps asked for, for likes.
    taps: int = 0
    #: Whether the refusal says that nothing happened.
    definite: bool = True
    #: How often it was asked, with the same key, and when for the last time.
    tries: int = 1
    asked_us: int = 0
    #: What the answer said, for commands whose answers are compared with the dump.
    said: dict[str, Any] = {}


class Payment(Struct, kw_only=True):
    """One payment that the shop reported, and what it was told."""

    order: str
    payment: str
    amount_cents: int
    #: Microseconds since the start of the run.
    sent_us: int
    done_us: int
    #: "ok", "refund_required", or the code of the refusal; "unanswered" if nobody knows.
    code: str
    #: The order as the last answer had it.
    said: dict[str, Any] = {}

    @property
    def definite(self) -> bool:
        """Tell whether the shop knows what became of it."""
        return self.code != "unanswered"


class Clock(Struct, array_like=True, frozen=True):
    """How far the store's clock is ahead of the run's, and how wrong that may be, microseconds."""

    offset_us: int = 0
    error_us: int = 0

    def store_us(self, run_us: int) -> int:
        """Return what the store's clock shows at a moment of the run, microseconds since 1970."""
        return run_us + self.offset_us


class Folded(Struct):
    """The room as one sampled viewer's own reducer has it at the end."""

    epoch: str
    seq: int
    room: dict[str, Any]
    gap: bool
    thinned: int


class ViewerHistory(Struct):
    """What one viewer saw and how their connections ended."""

    viewer: str
    actor: int
    #: Numbers of the frames read, in order.
    frames: Numbers
    #: Close codes of connections that ended before the end; 1006 when the server just went away.
    lost: list[int]
    #: Whether the viewer was in the room when the run was over.
    present: bool
    #: Whether they ever got in.
    joined: bool
    folded: Folded | None = None
    #: Whether the viewer had left before, as planned.
    left: bool = False


class ProcessHistory(Struct):
    """Everything one generator process saw of one room."""

    process: int
    frames: list[Frame]
    viewers: list[ViewerHistory]
    outcomes: list[Outcome]
    clock: Clock = Clock()
    #: Number of the room in the plan.
    room: int = 0


class Neighbours(Struct, kw_only=True):
    """What the viewers of another tenant saw, whose room has the same id."""

    run: str
    seen: ProcessHistory


class History(Struct):
    """
    Everything a run's generators saw: of all its rooms, or of one (`apart`).

    `room` and `final_seq` are those of the main room, if it is of all.
    """

    run: str
    room: str
    #: The last fact that everybody was waited for with.
    final_seq: int
    processes: list[ProcessHistory]
    payments: list[Payment] = []
    #: What was done to the server on purpose, such as "killed the store at 5.0 s".
    faults: list[str] = []
    #: (id, last fact) of each room; empty if it is of one.
    places: list[tuple[str, int]] = []
    #: None if no second tenant was at hand, and of all rooms but the main one.
    neighbours: Neighbours | None = None

    def apart(self, room: int) -> "History":
        """Return what was seen of one room alone, by its number. Payments are for orders of the main room, 0."""
        if not self.places:
            return self
        name, seq = self.places[room]
        processes = [process for process in self.processes if process.room == room]
        payments, neighbours = ([], None) if room else (self.payments, self.neighbours)
        return msgspec.structs.replace(
            self,
            room=name,
            final_seq=seq,
            processes=processes,
            payments=payments,
            neighbours=neighbours,
            places=[],
        )

    def clock(self) -> Clock:
        """Return the best known relation of the run's clock to the store's."""
        clocks = [process.clock for process in self.processes]
        return min(clocks, key=lambda clock: clock.error_us, default=Clock())


class Dump(Struct):
    """What the server says about a room when everything is over."""

    room: str
    #: Every fact of the room, oldest first.
    events: list[dict[str, Any]]
    stats: dict[str, Any]
    snapshot: dict[str, Any]
    audit: dict[str, Any] = {}
    #: Every change of every order, oldest first.
    orders: list[dict[str, Any]] = []
    #: Every arrival through a link, oldest first.
    shares: list[dict[str, Any]] = []
    #: Every fact of the other tenant's room.
    neighbour_events: list[dict[str, Any]] = []


class Recorder:
    """
    Works out what frames mean, once per distinct frame, and keeps the table of them.

    `read` is the slow path: call it for bytes that are not in `cache`.
    """

    def __init__(self, codec: Codec, run: str) -> None:
        self.codec = codec
        self.run = run
        #: Raw frame → what it is, for frames that go to many.
        self.cache: dict[bytes, Frame] = {}
        self.frames: list[Frame] = []
        #: Sale → units left, as the gauge last said.
        self.stock: dict[str, int] = {}
        #: Viewers watching, as the gauge last said.
        self.online = 0

    def read(self, payload: bytes, raw: bytes | None, is_text: bool) -> tuple[Frame, list[Reply]]:
        """Return the frame's entry and the replies in it. A frame that cannot be read is an entry that says so."""
        replies: list[Reply] = []
        marks: list[Seen] = []
        private = False
        try:
            for message in read_messages(self.codec, payload, is_text):
                if isinstance(message, Reply):
                    replies.append(message)
                    if message.ok is not None and "epoch" in message.ok:
                        marks.append(_joined(message.ok))
                else:
                    private = private or message.name.startswith("you.") or message.name == "reconnect"
                    self._event(message, marks)
        except (MalformedFrame, KeyError, TypeError, AttributeError) as error:
            marks.append(BrokenSeen(f"{type(error).__name__}: {error}"[:200]))
        private = private or bool(replies)
        frame = Frame(len(self.frames), marks, {}, private)
        self.frames.append(frame)
        if raw is not None and not private:
            if len(self.cache) >= CACHED_FRAMES_MAX:
                del self.cache[next(iter(self.cache))]
            self.cache[raw] = frame
        return frame, replies

    def _event(self, event: Said, marks: list[Seen]) -> None:
        body = event.body
        if event.seq is not None:
            marks.append(FactSeen(event.seq, digest(body), event.name))
        elif event.name == "comment":
            text = body["text"]
            match = MARK.search(text)
            step = int(match[2]) if match is not None and match[1] == self.run else -1
            crc = zlib.crc32(text.encode())
            marks.append(CommentSeen(body["comment"], digest(body), body["from"]["id"], step, crc))
        elif event.name == "likes":
            marks.append(LikesSeen(body["total"]))
        elif event.name == "thinned":
            marks.append(ThinnedSeen(body["dropped"]))
        elif event.name == "reconnect":
            marks.append(ReconnectSeen(body["after_ms"]))
        elif event.name in ("arrived", "grabbed"):
            marks.append(OtherChatSeen(event.name, body["from"]["id"]))
        elif event.name == "stock":
            marks.append(StockSeen(body["sale"], body["left"], body["held"], body["sold"]))
            self.stock[body["sale"]] = body["left"]
        elif event.name == "online":
            self.online = body["now"]
        elif event.name == "packet":
            marks.append(PacketSeen(body["packet"], body["left"], body["grabbed"]))
        elif event.name == "you.order":
            order = {name: value for name, value in body.items() if name != "ev"}
            marks.append(OrderSeen(order["order"], order["viewer"], digest(order)))
        elif event.name == "you.grab":
            marks.append(GrabSeen(body["packet"], body["amount_cents"]))


def _joined(ok: dict[str, Any]) -> JoinedSeen:
    room, resumed = ok["room"], ok["resumed"]
    if resumed is not (room is None):
        raise MalformedFrame("`room` is null exactly when `resumed`")
    comments = [] if resumed else room["comments"]
    return JoinedSeen(
        epoch=ok["epoch"],
        seq=ok["seq"],
        resumed=resumed,
        room="" if resumed else room["room"],
        factual=0 if resumed else digest(factual(room)),
        missed=[(fact["seq"], digest(fact)) for fact in ok["missed"]],
        last_comment=-1 if resumed else max((comment["comment"] for comment in comments), default=0),
        likes=ok["gauges"]["likes"],
        viewer=ok["you"]["viewer"],
        now=ok["now"],
        orders=[order["order"] for order in ok["you"]["orders"]],
        grabs=ok["you"]["grabs"],
    )


def last_seq(frames: list[Frame], numbers: Numbers) -> int:
    """Return the last place among the facts that a viewer with these frames holds, 0 before the first join."""
    for number in reversed(numbers):
        for mark in reversed(frames[number].marks):
            if isinstance(mark, FactSeen | JoinedSeen):
                return mark.seq
    return 0


def last_comment(frames: list[Frame], numbers: Numbers) -> int:
    """Return the highest comment a viewer with these frames has seen, 0 if none."""
    for number in reversed(numbers):
        for mark in reversed(frames[number].marks):
            if isinstance(mark, CommentSeen):
                return mark.comment
            if isinstance(mark, JoinedSeen):
                return max(0, mark.last_comment)
    return 0


def to_bytes(history: History) -> bytes:
    """Return the history as compressed MessagePack, for the record beside a report."""
    packed = msgspec.msgpack.encode(history, enc_hook=lambda value: value.tobytes())
    return gzip.compress(packed, compresslevel=6, mtime=0)


def from_bytes(data: bytes) -> History:
    """
    Return the history that `to_bytes` wrote.

    Raises:
        ValueError: If it is none.
    """
    try:
        return msgspec.msgpack.decode(gzip.decompress(data), type=History, dec_hook=_frames_of)
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"not a recorded history: {error}") from None


def _frames_of(kind: type, value: Any) -> Any:
    # Numbers of frames are the only values of a type of their own; they are written as raw bytes of this machine.
    numbers = array("I")
    numbers.frombytes(value)
    return numbers
