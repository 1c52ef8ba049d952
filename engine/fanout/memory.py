"""
What everybody in a room has been sent: the snapshot, the newest facts, the latest gauges.

Decides what a joining or returning viewer is told, from memory. Events are folded in as they are sent, so a snapshot
stands for exactly what those who are here have seen. Pure but for the time, which the caller passes.

Bounds: 50 comments; facts as in `engine/rooms/recovery.py`; one gauge per name.
"""

from collections import deque
from typing import Final

import orjson

from engine.rooms.campaigns import states_at
from engine.rooms.recovery import FactRing, RoomRead, decode
from protocol.limits import SNAPSHOT_COMMENTS_MAX
from protocol.view import Map, apply_event

_COMMENT_PREFIX: Final = b'{"ev":"comment",'


class RoomMemory:
    """The state of one room as sent by this worker."""

    def __init__(self) -> None:
        #: `seq` of the last fact that was sent.
        self.seq = 0
        self.ring = FactRing()
        self._view: Map = {}
        self._comments: deque[tuple[int, bytes]] = deque(maxlen=SNAPSHOT_COMMENTS_MAX)
        self._gauges: dict[str, bytes] = {}
        #: Total of likes, as far as known.
        self.likes = 0
        #: Gauges that came over the bus or with a join since they were last read from the store.
        self._newer_gauges: set[str] = set()
        self._snapshot: bytes | None = None
        #: When a state in the snapshot changes by itself (milliseconds), or None.
        self._snapshot_until: int | None = None
        #: Number of the last order change seen: a store that has fewer is an older copy.
        self.change = 0
        #: Units ever taken and bought of each sale, as far as seen; a store that has fewer has lost its end.
        self.sold: dict[str, tuple[int, int]] = {}

    def load(self, read: RoomRead) -> None:
        """Begin, or begin anew, from the store's state."""
        self.seq = read.seq
        self._view = read.view
        self._snapshot = None
        self.ring.reset(read.facts, read.seq)
        self._comments.clear()
        self._comments.extend(read.comments)
        self._gauges = gauges_of(read)
        self.likes = read.likes
        self.change = read.change
        for sale, (taken, bought) in read.sold.items():
            self.note_sold(sale, change=read.change, taken=taken, bought=bought)

    # --- folding ----------------------------------------------------------------------------------------

    def fold_fact(self, seq: int, json: bytes) -> Map:
        """Fold a fact in as it is sent. Returns it decoded."""
        fact = decode(json)
        apply_event(self._view, fact)
        self.ring.append(json)
        self.seq = seq
        self._snapshot = None
        if fact["ev"] == "comment.deleted":
            kept = [pair for pair in self._comments if pair[0] != fact["comment"]]
            self._comments.clear()
            self._comments.extend(kept)
        return fact

    def fold_chat(self, number: int, json: bytes) -> None:
        """Fold a chat event in, shown or not; only comments, which have a number, stay."""
        if number:
            self._comments.append((number, b"{" + json[len(_COMMENT_PREFIX) :]))

    def fold_gauge(self, name: str, json: bytes) -> None:
        """Take the latest value of a gauge; a total of likes that a join was ahead of is none."""
        self._newer_gauges.add(name)
        if name == "likes":
            self.learn_likes(orjson.loads(json)["total"])
        else:
            self._gauges[name] = json

    def gauge(self, name: str) -> bytes:
        """Return the latest value of a gauge that was folded in, as JSON: the one to send now."""
        return self._gauges[name]

    def learn_likes(self, total: int) -> None:
        """The total never falls, whichever of the bus, joins and own flushes tells of it first."""
        if total > self.likes:
            self.likes = total
            self._gauges["likes"] = b'{"ev":"likes","total":%d}' % total

    def note_sold(self, sale: str, *, change: int, taken: int, bought: int = 0) -> None:
        """Remember how many order changes, and units of a sale taken and bought, this worker has seen."""
        self.change = max(self.change, change)
        before = self.sold.get(sale, (0, 0))
        self.sold[sale] = (max(before[0], taken), max(before[1], bought))

    def observe(self, online: int, peak: int, likes: int) -> None:
        """Take gauges that came with a join, ahead of the bus, so that its reply counts the joining viewer."""
        self._gauges["online"] = b'{"ev":"online","now":%d,"peak":%d}' % (online, peak)
        self._newer_gauges.update(("online", "likes"))
        self.learn_likes(likes)

    def expect_gauges(self) -> None:
        """Gauges are about to be read from the store; those that arrive meanwhile are newer."""
        self._newer_gauges = set()

    def refresh_gauges(self, read: RoomRead) -> dict[str, bytes]:
        """Take the gauges just read, but for newer ones. Returns the latest of each."""
        names = gauges_of(read)
        for name, json in names.items():
            if name == "likes":
                self.learn_likes(read.likes)
            elif name not in self._newer_gauges:
                self._gauges[name] = json
        return {name: self._gauges[name] for name in names}

    # --- telling ----------------------------------------------------------------------------------------

    def snapshot(self, now_ms: int) -> bytes:
        """Return the room as everybody has seen it, as JSON, with the states that the clock decides at `now_ms`."""
        if self._snapshot_until is not None and now_ms >= self._snapshot_until:
            self._snapshot = None
        if self._snapshot is None:
            self._snapshot_until = states_at(self._view, now_ms)
            self._snapshot = orjson.dumps(
                {name: value for name, value in self._view.items() if name != "comments"}
            )
        comments = b",".join(json for _, json in self._comments)
        return self._snapshot[:-1] + b',"comments":[' + comments + b"]}"

    def gauges(self) -> Map:
        """Return the latest gauges in the shape of a join reply."""
        gauges: Map = {"likes": 0, "online": {"now": 0, "peak": 0}, "stock": {}, "packets": {}, "rank": []}
        for json in self._gauges.values():
            event = orjson.loads(json)
            name = event.pop("ev")
            if name == "likes":
                gauges["likes"] = event["total"]
            elif name == "online":
                gauges["online"] = event
            elif name == "stock":
                gauges["stock"][event.pop("sale")] = event
            elif name == "packet":
                gauges["packets"][event.pop("packet")] = event
            elif name == "rank":
                gauges["rank"] = event["top"]
        return gauges


def gauges_of(read: RoomRead) -> dict[str, bytes]:
    """Return the gauges of a room just read, by name, as JSON events."""
    return {
        "likes": b'{"ev":"likes","total":%d}' % read.likes,
        "online": b'{"ev":"online","now":%d,"peak":%d}' % (read.online, read.peak),
        **read.gauges,
    }
