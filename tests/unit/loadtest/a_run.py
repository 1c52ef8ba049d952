"""
A small run as values: three viewers and a console, four facts, three comments, two batches of likes.

Everything in it is consistent. Tests change one thing and ask the oracle what is wrong.
"""

import zlib
from array import array
from collections.abc import Callable
from typing import Any

from loadtest.findings import Findings
from loadtest.history import (
    CommentSeen,
    Dump,
    FactSeen,
    Folded,
    Frame,
    History,
    JoinedSeen,
    LikesSeen,
    Neighbours,
    OtherChatSeen,
    Outcome,
    ProcessHistory,
    Seen,
    ThinnedSeen,
    ViewerHistory,
    digest,
    factual,
)
from loadtest.oracle import CLOSING_STEP, judge
from loadtest.plan import Actor, Plan, Step
from loadtest.scenario import Scenario
from protocol.view import apply_event

RUN = "s1t2"
ROOM = "load-s1t2"
EPOCH = "k3v9"

EVENTS: list[dict[str, Any]] = [
    {"ev": "room.state", "seq": 1, "at": 10, "state": "live"},
    {"ev": "notice", "seq": 2, "at": 20, "text": f"满减 #{RUN}.4", "version": 1},
    {
        "ev": "item.put",
        "seq": 3,
        "at": 30,
        "item": f"{RUN}-i0",
        "title": "铁锅",
        "price_cents": 990,
        "sort": 1,
        "sold_out": False,
    },
    {"ev": "notice", "seq": 4, "at": 40, "text": f"散场 #{RUN}.{CLOSING_STEP}", "version": 2},
]

STEPS = [
    *(Step(0, actor, "join", {}) for actor in range(4)),
    Step(1000, 0, "send", {"cmd": "notice.set", "text": "满减 #{run}.{step}"}),
    Step(2000, 1, "send", {"cmd": "comment.send", "text": "多少钱? #{run}.{step}"}),
    Step(3000, 2, "send", {"cmd": "comment.send", "text": "已拍! #{run}.{step}"}),
    Step(4000, 0, "send", {"cmd": "item.put", "item": "{run}-i0", "title": "铁锅", "price_cents": 990}),
    Step(5000, 3, "send", {"cmd": "comment.send", "text": "666 #{run}.{step}"}),
    Step(6000, 1, "send", {"cmd": "like.send", "n": 7}),
    Step(7000, 2, "send", {"cmd": "like.send", "n": 5}),
]


def fact(seq: int) -> FactSeen:
    event = EVENTS[seq - 1]
    return FactSeen(seq, digest(event), event["ev"])


def comment(number: int, step: int) -> CommentSeen:
    text = str(STEPS[step].command["text"]).replace("{run}", RUN).replace("{step}", str(step))
    return CommentSeen(number, 1000 + number, viewer(STEPS[step].actor), step, zlib.crc32(text.encode()))


def viewer(actor: int) -> str:
    return f"{RUN}-{'console' if actor == 0 else f'v{actor}'}"


def snapshot(seq: int) -> dict[str, Any]:
    room: dict[str, Any] = {
        "room": ROOM,
        "title": "crowd",
        "state": "scheduled",
        "notice": None,
        "items": [],
        "explaining": None,
        "sales": [],
        "packets": [],
        "pinned": None,
        "comments": [],
        "muted_all": False,
    }
    for event in EVENTS[:seq]:
        apply_event(room, event)
    return room


def joined(actor: int, seq: int, *, last_comment: int = 0, likes: int = 0) -> JoinedSeen:
    content = digest(factual(snapshot(seq)))
    return JoinedSeen(EPOCH, seq, False, ROOM, content, [], last_comment, likes, viewer(actor))


def resumed(actor: int, after: int, seq: int, *, likes: int = 0) -> JoinedSeen:
    missed = [(place, fact(place).digest) for place in range(after + 1, seq + 1)]
    return JoinedSeen(EPOCH, seq, True, "", 0, missed, -1, likes, viewer(actor))


class ARun:
    """The run, open to changes: `seen` holds what each actor saw, one list of marks per frame."""

    def __init__(self) -> None:
        shared: list[list[Seen]] = [
            [fact(2)],
            [comment(1, 5), LikesSeen(7)],
            [fact(3), comment(2, 6)],
            [OtherChatSeen("arrived", viewer(3)), comment(3, 8), LikesSeen(12)],
            [fact(4)],
        ]
        self.seen: dict[int, list[list[Seen]]] = {
            actor: [[joined(actor, 1)], *map(list, shared)] for actor in range(4)
        }
        self.outcomes = [
            *(Outcome(step, "room.join", "ok", 0, 0, 50) for step in range(4)),
            Outcome(4, "notice.set", "ok", 1000, 1000, 1500),
            Outcome(5, "comment.send", "ok", 2000, 2000, 2500, 1),
            Outcome(6, "comment.send", "ok", 3000, 3000, 3500, 2),
            Outcome(7, "item.put", "ok", 4000, 4000, 4500),
            Outcome(8, "comment.send", "ok", 5000, 5000, 5500, 3),
            Outcome(9, "like.send", "ok", 6000, 6000, 6500, 7, 7),
            Outcome(10, "like.send", "ok", 7000, 7000, 7500, 12, 5),
        ]
        self.present = {0, 1, 2, 3}
        #: Close codes of connections lost on the way.
        self.lost: dict[int, list[int]] = {}
        #: What actors who read like a real client have made of it.
        self.folded: dict[int, Folded] = {}
        self.events = [dict(event) for event in EVENTS]
        self.stats: dict[str, Any] = {"likes": 12, "comments": 3}
        self.final = snapshot(4)
        self.final_seq = 4
        #: Actors who read slowly.
        self.slow: set[int] = set()
        self.neighbours: Neighbours | None = None
        self.neighbour_events: list[dict[str, Any]] = []

    def move_in(self, *seen: Seen) -> None:
        """Let a viewer of another tenant live next door, who saw this besides what is theirs."""
        notice = {"ev": "notice", "seq": 1, "at": 5, "text": f"隔壁 #{RUN}n.0", "version": 1}
        self.neighbour_events = [notice]
        own = [FactSeen(1, digest(notice), "notice"), CommentSeen(1, 77, f"{RUN}n-v1", 3, 0), LikesSeen(4)]
        frames = [Frame(0, [*own, *seen], {100: 1}, False)]
        viewers = [ViewerHistory(f"{RUN}n-v1", 1, array("I", [0]), [], True, True)]
        self.neighbours = Neighbours(run=f"{RUN}n", seen=ProcessHistory(-1, frames, viewers, []))

    def everywhere(self, change: Callable[[list[list[Seen]]], object]) -> None:
        """Change what every actor saw in the same way."""
        for frames in self.seen.values():
            change(frames)

    def thin(self, actor: int, *, frame: int, mark: int, announce: int) -> None:
        """Leave one mark out of what `actor` saw, and announce that many."""
        del self.seen[actor][frame][mark]
        if announce:
            self.seen[actor][frame].append(ThinnedSeen(announce))

    def judged(self, by: Callable[[Plan, History, Dump], Findings] = judge) -> Findings:
        """Return the oracle's findings. Equal frames become one entry of the table, as in a real run."""
        frames: list[Frame] = []
        numbers: dict[str, int] = {}
        viewers = []
        for actor, seen in self.seen.items():
            order = array("I")
            for marks in seen:
                key = repr(marks)
                if key not in numbers:
                    numbers[key] = len(frames)
                    private = any(isinstance(mark, JoinedSeen) for mark in marks)
                    frames.append(Frame(len(frames), marks, {100: 1}, private))
                order.append(numbers[key])
            viewers.append(
                ViewerHistory(
                    viewer(actor),
                    actor,
                    order,
                    self.lost.get(actor, []),
                    actor in self.present,
                    bool(seen),
                    self.folded.get(actor),
                )
            )
        actors = [
            Actor("console", "主播", "streamer"),
            *(
                Actor(f"v{number}", f"观众{number}", "viewer", reads_bytes_s=500 * (number in self.slow))
                for number in (1, 2, 3)
            ),
        ]
        plan = Plan(Scenario(name="crowd", plays="crowd"), 1, actors, STEPS, 8000)
        history = History(RUN, ROOM, self.final_seq, [ProcessHistory(0, frames, viewers, self.outcomes)])
        history.neighbours = self.neighbours
        dump = Dump(ROOM, self.events, self.stats, self.final, neighbour_events=self.neighbour_events)
        return by(plan, history, dump)
