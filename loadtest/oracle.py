"""
The judge: from what was recorded and what the server says in the end, the list of what is wrong.

Decides whether the promises of docs/protocol.md were kept, by these invariants:

- **I3 order**: per room and epoch `seq` rises without gaps, every viewer's content for a `seq` is the same, and
  comments come in one order with one content.
- **I4 facts**: every viewer present gets each fact once, or a snapshot that says the same; what was acknowledged
  happened; comments that did not arrive were announced as thinned.
- **I5 likes**: the total never falls on a connection and ends at the acknowledged sum, plus unknown outcomes at most.
- **I8 tenants**: nobody sees anything that was not made by this run, and viewers of another tenant, whose room has the
  same id, see nothing of it.
- **wire**: every frame follows the protocol, every command on a connection that stands is answered, and no lawful
  client is told that it broke the protocol.

Money, stock and the share board (I1, I2, I6, I7) are judged by `conservation.py`, from the same values.

Pure: values in, a list out. It trusts neither side more: the viewers' memories are compared with each other, with
the answers the senders got, and with the dump.

A store that lost its newest history makes the room go on in another epoch. The dump is then of the last one, which does
not begin with an empty room: its snapshots are compared with each other instead of with the facts since the beginning.

What a viewer saw is replayed frame by frame. Viewers of one room mostly stand at the same point and read the same
frame next, so a step from one standing by one frame is worked out once and looked up afterwards; the result is that
of replaying each viewer alone.
"""

import zlib
from collections import Counter
from typing import Any, Final, NamedTuple

from loadtest import conservation
from loadtest.findings import Findings
from loadtest.history import (
    MARK,
    TICK_US,
    BrokenSeen,
    CommentSeen,
    Dump,
    FactSeen,
    Frame,
    GrabSeen,
    History,
    JoinedSeen,
    LikesSeen,
    Neighbours,
    OrderSeen,
    OtherChatSeen,
    Outcome,
    PacketSeen,
    ProcessHistory,
    StockSeen,
    ThinnedSeen,
    ViewerHistory,
    digest,
    factual,
)
from loadtest.plan import Plan
from protocol.codes import CloseCode
from protocol.view import apply_event

ORDER: Final = "I3 order"
FACTS: Final = "I4 facts"
LIKES: Final = "I5 likes"
TENANTS: Final = "I8 tenants"
WIRE: Final = "wire"

#: Closes that say one side broke the protocol or has a bug. The viewers keep to the protocol, so it is the server.
FAULT_CLOSES: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.INVALID_TEXT,
        CloseCode.FRAME_TOO_BIG,
        CloseCode.INTERNAL_ERROR,
        CloseCode.PROTOCOL_VIOLATION,
    }
)

#: Console command → the fact it makes.
FACT_OF: Final = {
    "notice.set": "notice",
    "item.put": "item.put",
    "item.remove": "item.removed",
    "item.explain": "item.explaining",
    "item.unexplain": "item.explaining",
    "seckill.schedule": "seckill.scheduled",
    "seckill.adjust": "seckill.adjusted",
    "redpacket.send": "redpacket.opened",
}


class _Standing(NamedTuple):
    """Where a viewer stands: all that decides whether the next frame is right."""

    epoch: str
    seq: int
    #: Highest comment seen; -1 when any may come next.
    comment: int
    likes: int


class _Effect(NamedTuple):
    """What one frame does to a viewer who stands somewhere."""

    standing: _Standing
    problems: tuple[tuple[str, str], ...]
    facts: int
    comments: int
    missing: int
    thinned: int
    others: int
    #: Whether the facts in it were not simply the next ones.
    disorder: bool


_NOWHERE: Final = _Standing("", 0, -1, 0)

#: A command that is not answered for so long, while its connection stands until the end, never will be: a server that
#: waits for its own store gives up and says `outcome_unknown` well before.
ANSWERED_WITHIN_US: Final = 5_000_000


def judge(plan: Plan, history: History, dump: Dump) -> Findings:
    """Return everything that is wrong with a run."""
    found = _Judge(plan, history, dump).findings()
    conservation.check(plan, history, dump, found)
    return found


class _Judge:
    def __init__(self, plan: Plan, history: History, dump: Dump) -> None:
        self._plan = plan
        self._history = history
        self._dump = dump
        self._found = Findings()
        self._outcomes = {outcome.step: outcome for outcome in _outcomes(history)}
        self._last_seq = max((event["seq"] for event in dump.events), default=0)
        self._last_comment = int(dump.stats["comments"])
        #: Facts made after the viewers were waited for, such as the room noticing that its streamer left, are
        #: nobody's to have.
        self._expected_seq = history.final_seq
        self._likes_final = int(dump.stats["likes"])
        self._dump_facts = {event["seq"]: digest(event) for event in dump.events}
        #: Contents of the other tenant's facts that are none of ours.
        self._foreign = {digest(event) for event in dump.neighbour_events} - set(self._dump_facts.values())
        self._neighbour = "" if history.neighbours is None else f"{history.neighbours.run}-"
        epochs = _epochs(history)
        self._epoch = epochs[-1] if epochs else ""
        self._found.epochs = len(set(epochs))
        #: (epoch, seq) → digest, from the first place that told.
        self._facts: dict[tuple[str, int], int] = {}
        #: Comment → its content, from the first frame that told.
        self._comments: dict[int, CommentSeen] = {}
        self._snapshots = _Snapshots(dump, whole=self._found.epochs <= 1)
        #: Chat without a number that a viewer may have missed: an arrival per join, a grab per share.
        self._chat_max = sum(
            outcome.command == "redpacket.grab" for outcome in self._outcomes.values()
        ) + sum(1 + len(viewer.lost) for process in history.processes for viewer in process.viewers)

    def findings(self) -> Findings:
        """Do everything once."""
        found = self._found
        self._check_dump()
        for process in self._history.processes:
            self._check_process(process)
        if self._history.neighbours is not None:
            self._check_neighbours(self._history.neighbours)
        self._check_comments()
        self._check_likes()
        self._check_commands()
        self._check_answers()
        found.facts = len(self._dump_facts)
        return found

    # --- the dump -----------------------------------------------------------------------------------------

    def _check_dump(self) -> None:
        run = self._history.run
        seqs = [event["seq"] for event in self._dump.events]
        if seqs != list(range(1, len(seqs) + 1)):
            self._found.add(ORDER, f"the dump's seq is not 1…{len(seqs)}: {_first_break(seqs)}")
        for event in self._dump.events:
            if not _is_ours(event, run):
                self._found.add(TENANTS, f"fact {event['seq']} ({event['ev']}) was not made by this run")
        if self._dump.snapshot.get("room") != self._history.room:
            self._found.add(TENANTS, f"the dump is of room {self._dump.snapshot.get('room')!r}")
        if self._snapshots.contradict(self._last_seq, digest(factual(self._dump.snapshot))):
            self._found.add(FACTS, f"the final snapshot does not say what facts 1…{self._last_seq} say")

    def _check_fact(self, epoch: str, seq: int, content: int) -> str | None:
        """Return what is wrong with this content for this place, if anything."""
        known = self._facts.setdefault((epoch, seq), content)
        if known != content:
            return f"fact {seq} has different content for different viewers"
        if epoch == self._epoch and self._dump_facts.get(seq) != content:
            if seq not in self._dump_facts:
                return f"fact {seq} was sent, but the room has no such fact"
            return f"fact {seq} was sent with other content than the room has"
        return None

    # --- viewers ------------------------------------------------------------------------------------------

    def _check_process(self, process: ProcessHistory) -> None:
        effects: dict[tuple[_Standing, int], _Effect] = {}
        for viewer in process.viewers:
            self._check_viewer(process.frames, effects, viewer)

    def _check_viewer(
        self, frames: list[Frame], effects: dict[tuple[_Standing, int], _Effect], viewer: ViewerHistory
    ) -> None:
        found = self._found
        standing = _NOWHERE
        missing = thinned = others = facts = comments = 0
        disorder = False
        for number in viewer.frames:
            effect = effects.get((standing, number))
            if effect is None:
                effect = self._effect(standing, frames[number])
                effects[standing, number] = effect
            for invariant, message in effect.problems:
                found.add(invariant, message, viewer.viewer)
            standing = effect.standing
            facts += effect.facts
            comments += effect.comments
            missing += effect.missing
            thinned += effect.thinned
            others += effect.others
            disorder = disorder or effect.disorder
        if disorder:
            self._name_disorder(frames, viewer)
        for code in viewer.lost:
            if code in FAULT_CLOSES:
                found.add(WIRE, f"closed with {code}, which no lawful client should see", viewer.viewer)
        if viewer.joined:
            found.viewers_checked += 1
            self._check_identity(frames, viewer)
        if viewer.present:
            if standing.epoch == self._epoch:
                for lost in range(standing.seq + 1, self._expected_seq + 1):
                    found.add(FACTS, f"fact {lost} never arrived", viewer.viewer)
            if standing.comment >= 0:
                missing += max(0, self._last_comment - standing.comment)
        self._check_thinning(viewer, missing, thinned)
        found.facts_delivered += facts
        found.comments_delivered += comments
        found.comments_thinned += missing
        self._check_folded(viewer)

    def _effect(self, standing: _Standing, frame: Frame) -> _Effect:
        """Work out what `frame` does to a viewer at `standing`."""
        epoch, seq, comment, likes = standing
        problems: list[tuple[str, str]] = []
        facts = comments = missing = thinned = others = 0
        disorder = False
        for mark in frame.marks:
            if isinstance(mark, FactSeen) and mark.digest in self._foreign:
                problems.append((TENANTS, f"fact {mark.seq} ({mark.name}) of another tenant's room"))
            elif isinstance(mark, FactSeen):
                facts += 1
                wrong = self._check_fact(epoch, mark.seq, mark.digest)
                if wrong is not None:
                    problems.append((ORDER, wrong))
                if mark.seq != seq + 1 or not epoch:
                    disorder = True
                seq = max(seq, mark.seq)
            elif (
                isinstance(mark, CommentSeen) and self._neighbour and mark.sender.startswith(self._neighbour)
            ):
                problems.append(
                    (TENANTS, f"comment {mark.comment} of {mark.sender}, who is another tenant's")
                )
            elif isinstance(mark, CommentSeen):
                comments += 1
                problems.extend(self._comment_problems(mark, comment))
                if comment >= 0:
                    missing += max(0, mark.comment - comment - 1)
                comment = max(comment, mark.comment)
            elif isinstance(mark, LikesSeen):
                if mark.total < likes:
                    problems.append((LIKES, f"the total fell from {likes} to {mark.total}"))
                if mark.total > self._likes_final:
                    problems.append((LIKES, f"the gauge said {mark.total}, the end {self._likes_final}"))
                likes = mark.total
            elif isinstance(mark, ThinnedSeen):
                thinned += mark.dropped
            elif isinstance(mark, OtherChatSeen):
                others += 1
                if not mark.sender.startswith(f"{self._history.run}-"):
                    problems.append((TENANTS, f"{mark.name} of {mark.sender}, who is not of this run"))
            elif isinstance(mark, JoinedSeen):
                problems.extend(self._join_problems(mark, epoch, seq))
                epoch, seq, comment, likes = mark.epoch, mark.seq, mark.last_comment, mark.likes
            elif isinstance(mark, BrokenSeen):
                problems.append((WIRE, mark.why))
        after = _Standing(epoch, seq, comment, likes)
        return _Effect(after, tuple(problems), facts, comments, missing, thinned, others, disorder)

    def _comment_problems(self, mark: CommentSeen, last: int) -> list[tuple[str, str]]:
        problems = []
        if mark.comment == last:
            problems.append((ORDER, f"comment {mark.comment} came twice"))
        elif mark.comment < last:
            problems.append((ORDER, f"comment {mark.comment} came after comment {last}"))
        if self._comments.setdefault(mark.comment, mark) != mark:
            problems.append((ORDER, f"comment {mark.comment} has different content for different viewers"))
        if mark.step < 0 or not mark.sender.startswith(f"{self._history.run}-"):
            problems.append((TENANTS, f"comment {mark.comment} of {mark.sender} was not made by this run"))
        return problems

    def _join_problems(self, mark: JoinedSeen, epoch: str, seq: int) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if not mark.resumed:
            self._found.snapshots_checked += 1
            if mark.room != self._history.room:
                problems.append((TENANTS, f"a snapshot of room {mark.room!r}"))
            if mark.epoch == self._epoch and self._snapshots.contradict(mark.seq, mark.factual):
                problems.append(
                    (FACTS, f"the snapshot at {mark.seq} does not say what the facts up to it say")
                )
            return problems
        if mark.epoch != epoch:
            problems.append((FACTS, f"resumed from epoch {epoch!r} into {mark.epoch!r}"))
        missed = [place for place, _ in mark.missed]
        if missed != list(range(seq + 1, mark.seq + 1)):
            problems.append((FACTS, f"resumed after fact {seq} at {mark.seq} with facts {missed}"))
        for place, content in mark.missed:
            wrong = self._check_fact(mark.epoch, place, content)
            if wrong is not None:
                problems.append((ORDER, wrong))
        return problems

    def _name_disorder(self, frames: list[Frame], viewer: ViewerHistory) -> None:
        """Say what exactly is wrong with the facts of a viewer who did not get them one after the other."""
        found = self._found
        #: Facts held since the last snapshot, by a join or one by one; and the highest place so far.
        held: set[int] = set()
        seq = base = 0
        joined = False

        def close() -> None:
            for lost in range(base + 1, seq + 1):
                if lost not in held:
                    found.add(FACTS, f"fact {lost} never arrived", viewer.viewer)

        for number in viewer.frames:
            for mark in frames[number].marks:
                if isinstance(mark, JoinedSeen):
                    if mark.resumed:
                        held.update(place for place, _ in mark.missed)
                    else:
                        close()
                        held, base = set(), mark.seq
                    seq, joined = mark.seq, True
                elif isinstance(mark, FactSeen):
                    if not joined:
                        found.add(FACTS, f"fact {mark.seq} came before the join", viewer.viewer)
                    elif mark.seq in held:
                        found.add(FACTS, f"fact {mark.seq} came twice", viewer.viewer)
                    elif mark.seq <= base:
                        found.add(
                            FACTS, f"fact {mark.seq} came again after a snapshot at {base}", viewer.viewer
                        )
                    elif mark.seq < seq:
                        found.add(ORDER, f"fact {mark.seq} came after fact {seq}", viewer.viewer)
                    held.add(mark.seq)
                    seq = max(seq, mark.seq)
        close()

    def _check_identity(self, frames: list[Frame], viewer: ViewerHistory) -> None:
        for number in viewer.frames:
            for mark in frames[number].marks if frames[number].private else ():
                if isinstance(mark, JoinedSeen) and mark.viewer != viewer.viewer:
                    self._found.add(TENANTS, f"joined as {mark.viewer}", viewer.viewer)

    def _check_thinning(self, viewer: ViewerHistory, missing: int, thinned: int) -> None:
        if missing > thinned:
            self._found.add(
                FACTS,
                f"{missing - thinned} comments neither arrived nor were announced as thinned",
                viewer.viewer,
            )
        # An announcement counts arrivals and grabs too.
        elif thinned - missing > self._chat_max:
            self._found.add(
                FACTS,
                f"{thinned} chat events announced as thinned, {missing} comments missing",
                viewer.viewer,
            )

    def _check_folded(self, viewer: ViewerHistory) -> None:
        folded = viewer.folded
        if folded is None or not viewer.present or folded.epoch != self._epoch:
            return
        self._found.views_checked += 1
        if folded.gap:
            self._found.add(ORDER, "a client following the protocol saw a gap", viewer.viewer)
        snapshot = self._dump.snapshot
        if folded.seq == self._last_seq:
            for part, value in factual(snapshot).items():
                if digest(folded.room.get(part)) != digest(value):
                    wrong = f"the folded view differs from the snapshot in {part!r}"
                    self._found.add(FACTS, wrong, viewer.viewer)
        elif self._snapshots.contradict(folded.seq, digest(factual(folded.room))):
            self._found.add(
                FACTS, f"the folded view at {folded.seq} is not what the facts say", viewer.viewer
            )
        if (
            not folded.thinned
            and not viewer.lost
            and digest(folded.room["comments"]) != digest(snapshot["comments"])
        ):
            self._found.add(FACTS, "the folded view differs from the snapshot in 'comments'", viewer.viewer)

    def _check_neighbours(self, neighbours: Neighbours) -> None:
        """Viewers of another tenant see what is theirs and nothing else."""
        found, frames = self._found, neighbours.seen.frames
        theirs = {digest(event) for event in self._dump.neighbour_events}
        ours = set(self._dump_facts.values())
        for viewer in neighbours.seen.viewers:
            found.neighbours_checked += 1
            for number in viewer.frames:
                for mark in frames[number].marks:
                    if isinstance(mark, FactSeen):
                        if mark.digest in ours - theirs:
                            what = f"fact {mark.seq} ({mark.name})"
                        elif mark.digest not in theirs:
                            found.add(
                                ORDER, f"fact {mark.seq} is not among the facts of its room", viewer.viewer
                            )
                            continue
                        else:
                            continue
                    elif isinstance(mark, CommentSeen | OtherChatSeen):
                        if mark.sender.startswith(self._neighbour):
                            continue
                        what = f"something that {mark.sender} said or did"
                    elif isinstance(mark, JoinedSeen):
                        if mark.viewer == viewer.viewer:
                            continue
                        what = f"the place of {mark.viewer}"
                    elif isinstance(mark, StockSeen | PacketSeen | OrderSeen | GrabSeen):
                        what = f"a campaign ({type(mark).__name__})"
                    else:
                        continue
                    found.add(TENANTS, f"another tenant's viewer was sent {what}", viewer.viewer)

    # --- what senders were told ---------------------------------------------------------------------------

    def _check_comments(self) -> None:
        found = self._found
        by_number: dict[int, int] = {}
        unknown = 0
        for outcome in self._outcomes.values():
            if outcome.command != "comment.send":
                continue
            if outcome.code == "ok":
                found.comments_accepted += 1
                other = by_number.setdefault(outcome.value, outcome.step)
                if other != outcome.step:
                    found.add(
                        FACTS, f"steps {other} and {outcome.step} were both told comment {outcome.value}"
                    )
            elif not outcome.definite:
                unknown += 1
        if not found.comments_accepted <= self._last_comment <= found.comments_accepted + unknown:
            found.add(
                FACTS,
                f"{found.comments_accepted} comments acknowledged and {unknown} unknown, "
                f"but the room counts {self._last_comment}",
            )
        for mark in self._comments.values():
            if mark.step >= 0:
                self._check_comment(mark, by_number)

    def _check_comment(self, mark: CommentSeen, by_number: dict[int, int]) -> None:
        run, found = self._history.run, self._found
        outcome = self._outcomes.get(mark.step)
        if outcome is None or mark.step >= len(self._plan.steps):
            found.add(FACTS, f"comment {mark.comment} was shown, but step {mark.step} was never taken")
            return
        if outcome.code == "ok" and outcome.value != mark.comment:
            found.add(FACTS, f"comment {mark.comment} is step {mark.step}, which was told {outcome.value}")
        if outcome.code != "ok" and outcome.definite:
            found.add(FACTS, f"comment {mark.comment} was shown, but refused with {outcome.code}")
        step = self._plan.steps[mark.step]
        text = str(step.command.get("text", "")).replace("{run}", run).replace("{step}", str(mark.step))
        if zlib.crc32(text.encode()) != mark.text_crc:
            found.add(FACTS, f"comment {mark.comment} does not say what step {mark.step} said")
        author = f"{run}-{self._plan.actors[step.actor].id}"
        if mark.sender != author:
            found.add(FACTS, f"comment {mark.comment} is shown as {mark.sender}'s, but {author} wrote it")

    def _check_likes(self) -> None:
        found = self._found
        for outcome in self._outcomes.values():
            if outcome.command == "like.send":
                if outcome.code == "ok":
                    found.likes_acknowledged += outcome.taps
                elif not outcome.definite:
                    found.likes_unknown += outcome.taps
        found.likes_final = self._likes_final
        low, high = found.likes_acknowledged, found.likes_acknowledged + found.likes_unknown
        if not low <= found.likes_final <= high:
            sums = f"{low}" if low == high else f"{low} to {high}"
            found.add(LIKES, f"{sums} likes acknowledged, but the room has {found.likes_final}")

    def _check_commands(self) -> None:
        acknowledged: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for outcome in self._outcomes.values():
            fact = FACT_OF.get(outcome.command)
            if fact is not None and outcome.code == "ok":
                acknowledged[fact] += 1
            elif fact is not None and not outcome.definite:
                unknown[fact] += 1
        # The closing notice is the run's own and no step of the plan.
        made = Counter(
            event["ev"] for event in self._dump.events if not _is_closing(event, self._history.run)
        )
        # A card also changes with the stock of its sale.
        made["item.put"] -= _cards_of_stock(self._dump.events)
        if self._found.epochs > 1:
            # Those of earlier epochs are in the snapshots, and in no log any more.
            unknown += acknowledged
            acknowledged = Counter()
        # Removing what is explained says first that nothing is.
        unknown["item.explaining"] += _ended_by_removal(self._dump.events)
        for fact in sorted(set(FACT_OF.values())):
            if not acknowledged[fact] <= made[fact] <= acknowledged[fact] + unknown[fact]:
                self._found.add(
                    FACTS, f"{acknowledged[fact]} × {fact} acknowledged, but the room has {made[fact]}"
                )

    def _check_answers(self) -> None:
        """Every command gets exactly one reply, as long as its connection stands."""
        actors = {viewer.actor: viewer for process in self._history.processes for viewer in process.viewers}
        back_us = _last_joins_us(self._history)
        for outcome in self._outcomes.values():
            if outcome.code != "unanswered" or not outcome.tries:
                continue
            actor = self._plan.steps[outcome.step].actor
            viewer = actors.get(actor)
            if viewer is None or not viewer.present or self._plan.actors[actor].reads_bytes_s:
                # Who reads slowly may not have come to the answer yet.
                continue
            if viewer.lost and outcome.asked_us <= back_us.get(viewer.viewer, 0):
                # Asked on a connection that was lost: nobody is owed an answer there.
                continue
            waited_us = outcome.done_us - outcome.asked_us
            if waited_us > ANSWERED_WITHIN_US:
                self._found.add(
                    WIRE,
                    f"step {outcome.step} ({outcome.command}) was not answered in {waited_us / 1e6:.0f} s, "
                    f"though its connection stood",
                    viewer.viewer,
                )


class _Snapshots:
    """
    What a snapshot at each place must say: the facts up to there, folded into an empty room.

    In an epoch that did not begin with an empty room it is what the first one said.
    """

    def __init__(self, dump: Dump, *, whole: bool) -> None:
        self._whole = whole
        self._digests: dict[int, int] = {}
        if whole:
            self._fold(dump)

    def _fold(self, dump: Dump) -> None:
        room: dict[str, Any] = {
            "room": dump.room,
            "title": dump.snapshot.get("title"),
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
        self._digests = {0: digest(factual(room))}
        for event in dump.events:
            apply_event(room, event)
            self._digests[event["seq"]] = digest(factual(room))

    def contradict(self, seq: int, content: int) -> bool:
        """Tell whether the factual parts at `seq` have another digest than `content`, or the room never was there."""
        if self._whole:
            return self._digests.get(seq) != content
        return self._digests.setdefault(seq, content) != content


def _outcomes(history: History) -> list[Outcome]:
    return [outcome for process in history.processes for outcome in process.outcomes]


def _epochs(history: History) -> list[str]:
    """Return the epoch of every join, in the order of their answers; the dump is of the last one."""
    joins = [
        (max(frame.ticks, default=0), mark.epoch)
        for process in history.processes
        for frame in process.frames
        if frame.private
        for mark in frame.marks
        if isinstance(mark, JoinedSeen)
    ]
    return [epoch for _, epoch in sorted(joins, key=lambda join: join[0])]


def _last_joins_us(history: History) -> dict[str, int]:
    """Return viewer → when they were last told that they are in the room, microseconds of the run."""
    moments: dict[str, int] = {}
    for process in history.processes:
        for frame in process.frames:
            for mark in frame.marks if frame.private else ():
                if isinstance(mark, JoinedSeen):
                    at_us = max(frame.ticks, default=0) * TICK_US
                    moments[mark.viewer] = max(at_us, moments.get(mark.viewer, 0))
    return moments


def _is_ours(event: dict[str, Any], run: str) -> bool:
    if event["ev"] == "notice":
        match = MARK.search(event["text"])
        return match is not None and match[1] == run
    named = (event[name] for name in ("item", "sale", "packet") if isinstance(event.get(name), str))
    return all(name.startswith(f"{run}-") for name in named)


def _cards_of_stock(events: list[dict[str, Any]]) -> int:
    """Return how many cards were put by the stock of a sale: right behind its fact, to change `sold_out` alone."""
    cards: dict[str, dict[str, Any]] = {}
    count, before = 0, ""
    for event in events:
        if event["ev"] == "item.put":
            card = {name: value for name, value in event.items() if name not in ("seq", "at", "sold_out")}
            if before in ("seckill.sold_out", "seckill.back") and cards.get(event["item"]) == card:
                count += 1
            cards[event["item"]] = card
        before = event["ev"]
    return count


def _ended_by_removal(events: list[dict[str, Any]]) -> int:
    """Return how often explaining may have ended because the item was removed: by a fact right before that of it."""
    explained: str | None = None
    count, ended = 0, None
    for event in events:
        if event["ev"] == "item.removed" and ended is not None and event["item"] == ended:
            count += 1
        ended = None
        if event["ev"] == "item.explaining":
            if event["item"] is None:
                ended = explained
            explained = event["item"]
    return count


#: The number in the mark of the notice that ends a run; no plan has that many steps.
CLOSING_STEP: Final = 999_999_999


def _is_closing(event: dict[str, Any], run: str) -> bool:
    return event["ev"] == "notice" and str(event["text"]).endswith(f"#{run}.{CLOSING_STEP}")


def _first_break(seqs: list[int]) -> str:
    for place, seq in enumerate(seqs, start=1):
        if seq != place:
            return f"{seq} where {place} should be"
    return "too short"
