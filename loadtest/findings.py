"""
What an oracle found: broken promises, and the counts that belong to them.

Decides how violations are gathered so that one fault seen by thousands stays one line. Finds nothing itself
(`oracle.py`, `conservation.py`).
"""

from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

#: Different violations listed; beyond that they are only counted.
VIOLATIONS_MAX: Final = 200
#: Viewers named per violation.
VIEWERS_NAMED_MAX: Final = 5


class SaleTally(Struct, kw_only=True):
    """One sale in figures, after everything is over."""

    stock: int
    left: int
    held: int
    sold: int
    #: Claims that were asked, and what became of them: "won", "again", the code of a refusal, "unanswered".
    claims: int = 0
    answers: dict[str, int] = {}
    #: Of them, how many had to be asked more than once until there was an answer.
    reasked: int = 0
    #: Units held before the sale began.
    early: int = 0
    #: Orders that nobody was told of, because the answer was lost.
    untold: int = 0
    #: Units that came back.
    returned: int = 0
    #: Reports of payments, and how many of them found the hold ended and nothing left.
    payments: int = 0
    refunds_required: int = 0
    #: Whether the claims were also searched for an order one at a time that explains every answer.
    searched: bool = False


class PacketTally(Struct, kw_only=True):
    """One red packet in figures, after everything is over."""

    total_cents: int
    granted_cents: int
    refunded_cents: int
    left_cents: int
    shares: int
    winners: int
    grabs: int = 0
    answers: dict[str, int] = {}
    #: Of them, how many had to be asked more than once until there was an answer.
    reasked: int = 0
    searched: bool = False


class BoardTally(Struct, kw_only=True):
    """The share board in figures."""

    arrivals: int = 0
    counted: int = 0
    inviters: int = 0
    #: Reason of those that did not count → how many.
    reasons: dict[str, int] = {}


class Violation(Struct):
    """One broken promise."""

    invariant: str
    message: str
    #: How many viewers saw it; 0 if it is not about a viewer.
    viewers: int
    #: The first few of them.
    named: list[str]

    def __str__(self) -> str:
        if not self.viewers:
            return f"{self.invariant}: {self.message}"
        more = f" and {self.viewers - len(self.named)} more" if self.viewers > len(self.named) else ""
        return f"{self.invariant}: {self.message} [{', '.join(self.named)}{more}]"


@dataclass(slots=True)
class Findings:
    """The verdict on correctness, and the counts that belong to it."""

    violations: list[Violation] = field(default_factory=list)
    #: Violations found, listed or not; one per viewer.
    total: int = 0
    #: Epochs that viewers were in; more than one when the store lost its newest history.
    epochs: int = 0
    facts: int = 0
    facts_delivered: int = 0
    comments_accepted: int = 0
    comments_delivered: int = 0
    comments_thinned: int = 0
    likes_acknowledged: int = 0
    likes_unknown: int = 0
    likes_final: int = 0
    viewers_checked: int = 0
    snapshots_checked: int = 0
    views_checked: int = 0
    #: Viewers of another tenant.
    neighbours_checked: int = 0
    sales: dict[str, SaleTally] = field(default_factory=dict)
    packets: dict[str, PacketTally] = field(default_factory=dict)
    board: BoardTally = field(default_factory=BoardTally)
    _by_message: dict[tuple[str, str], Violation] = field(default_factory=dict)

    def absorb(self, other: "Findings") -> None:
        """Add everything another judge found, of another room."""
        self.total += other.total
        for violation in other.violations:
            if len(self.violations) < VIOLATIONS_MAX:
                self.violations.append(violation)
        for count in _COUNTS:
            setattr(self, count, getattr(self, count) + getattr(other, count))
        self.sales |= other.sales
        self.packets |= other.packets
        board = self.board
        board.arrivals += other.board.arrivals
        board.counted += other.board.counted
        board.inviters += other.board.inviters
        for reason, count_of in other.board.reasons.items():
            board.reasons[reason] = board.reasons.get(reason, 0) + count_of

    def add(self, invariant: str, message: str, viewer: str = "") -> None:
        """Record one violation; the same one at many viewers is listed once."""
        self.total += 1
        known = self._by_message.get((invariant, message))
        if known is None:
            if len(self.violations) >= VIOLATIONS_MAX:
                return
            known = Violation(invariant, message, 0, [])
            self._by_message[invariant, message] = known
            self.violations.append(known)
        if viewer:
            known.viewers += 1
            if len(known.named) < VIEWERS_NAMED_MAX:
                known.named.append(viewer)


#: Counts of `Findings` that add up over rooms.
_COUNTS: Final = (
    *("facts", "facts_delivered", "comments_accepted", "comments_delivered", "comments_thinned"),
    *("likes_acknowledged", "likes_unknown", "likes_final"),
    *("viewers_checked", "snapshots_checked", "views_checked"),
)
