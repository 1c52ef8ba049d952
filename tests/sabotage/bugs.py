"""
The planted bugs, one class each.

Each says which invariant must name it, and lies as a server with that bug would: consistently where a careless server
would be consistent (a server that sells one unit too many also counts that way), once where it would happen once. Where
chance is asked for it comes from a seeded generator, so that a failure is repeated by its seed.
"""

import copy
import random
from typing import Any, ClassVar

from tests.sabotage.proxy import Message, Wire

DEMO, OTHER = "demo", "other"


class Bug:
    """Passes everything on. `struck` counts how often the bug showed."""

    #: What a person calls it.
    title: ClassVar[str] = "nothing"
    #: The invariant that has to name it; empty for none.
    invariant: ClassVar[str] = ""
    #: Part of the message that has to name it.
    words: ClassVar[str] = ""
    #: Other invariants that may be named too, because what they promise is broken as well.
    also: ClassVar[frozenset[str]] = frozenset()
    #: The scenario in which it shows.
    scenario: ClassVar[str] = "crowd"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.struck = 0

    def asked(self, command: Message) -> Message:
        return command

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        return messages

    def told(self, path: str, body: Any) -> Any:
        return body

    def strays(self) -> list[tuple[Wire, list[Message]]]:
        return []


def _walk(value: Any) -> list[dict[str, Any]]:
    """Return every map in a message, outermost first."""
    if isinstance(value, dict):
        return [value, *(found for inner in value.values() for found in _walk(inner))]
    if isinstance(value, list):
        return [found for inner in value for found in _walk(inner)]
    return []


class OneUnitTooMany(Bug):
    """The stock is sold and one more; whatever is said about it counts as if there were none."""

    title = "sells stock + 1"
    invariant = "I1 stock"
    words = "units held and sold of"
    scenario = "seckill"

    def asked(self, command: Message) -> Message:
        if command["cmd"] == "seckill.schedule":
            return {**command, "stock": command["stock"] + 1}
        return command

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        if wire.tenant == DEMO:
            self._lie(messages)
        return messages

    def told(self, path: str, body: Any) -> Any:
        self._lie(body)
        return body

    def _lie(self, value: Any) -> None:
        for part in _walk(value):
            if {"left", "held", "sold"} <= part.keys():
                hidden = next((name for name in ("left", "held", "sold") if part[name] > 0), "left")
                part[hidden] -= 1
                # It shows once the last unit is gone that there never was.
                self.struck += hidden != "left"
                if "stock" in part:
                    part["stock"] -= 1
            elif "sale" in part and isinstance(part.get("stock"), int):
                part["stock"] -= 1
            elif isinstance(part.get("stock_left"), int) and part["stock_left"] > 0:
                part["stock_left"] -= 1


class DroppedFact(Bug):
    """One delivery of a fact in `one_in` never happens, at a random place among them."""

    title = "drops one fact in 10,000"
    invariant = "I4 facts"
    words = "never arrived"
    #: A client that follows the protocol sees the gap.
    also = frozenset({"I3 order"})

    def __init__(self, rng: random.Random, one_in: int = 10_000) -> None:
        super().__init__(rng)
        self._one_in = one_in
        self._seen = 0
        self._next = rng.randrange(one_in)

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        if wire.tenant != DEMO:
            return messages
        kept = []
        for message in messages:
            if "ev" in message and "seq" in message:
                place = self._seen % self._one_in
                self._seen += 1
                if place == self._next:
                    self.struck += 1
                    continue
                if place == self._one_in - 1:
                    self._next = self.rng.randrange(self._one_in)
            kept.append(message)
        return kept


class SwappedSeq(Bug):
    """Two facts change places for one viewer: either they come in the wrong order, or each has the other's number."""

    title = "swaps two seq for one viewer"
    invariant = "I3 order"
    words = "fact "
    #: The viewer's own picture of the room is wrong too.
    also = frozenset({"I4 facts"})

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._renumber = rng.random() < 0.5
        self._skip = rng.randrange(20)
        self._wire: Wire | None = None
        self._held: Message | None = None

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        if wire.tenant != DEMO or self.struck:
            return messages
        out = []
        for message in messages:
            if "ev" not in message or "seq" not in message or self.struck:
                out.append(message)
            elif self._held is None and self._wire is None and self._skip:
                self._skip -= 1
                out.append(message)
            elif self._held is None and self._wire in (None, wire):
                self._wire, self._held = wire, message
            elif self._held is not None and wire is self._wire:
                first, second = self._held, message
                if self._renumber:
                    # In the right order, each under the other's number.
                    first, second = {**second, "seq": first["seq"]}, {**first, "seq": second["seq"]}
                else:
                    first, second = second, first
                out += [first, second]
                self.struck += 1
            else:
                out.append(message)
        return out


class LostAcknowledgement(Bug):
    """One command is done and never answered."""

    title = "loses one acknowledgement"
    invariant = "wire"
    words = "was not answered"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._skip = rng.randrange(15)

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        if wire.tenant != DEMO:
            return messages
        out = []
        for message in messages:
            command = wire.pending.get(message.get("re", 0), {})
            if not self.struck and "ok" in message and command.get("cmd") in ("comment.send", "like.send"):
                if not self._skip:
                    self.struck += 1
                    continue
                self._skip -= 1
            out.append(message)
        return out


class LostOrder(Bug):
    """One order was acknowledged, and the store has forgotten it."""

    title = "loses one acknowledged order"
    invariant = "I1 stock"
    words = "was acknowledged and is lost"
    scenario = "seckill"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._order = ""

    def told(self, path: str, body: Any) -> Any:
        if path.endswith("/orders"):
            if not self._order and body["data"]:
                self._order = self.rng.choice(body["data"])["order"]
                self.struck += 1
            body["data"] = [order for order in body["data"] if order["order"] != self._order]
        elif self._order and path.endswith("/audit"):
            for sale in body["sales"].values():
                sale["held"] -= 1
                sale["left"] += 1
        elif self._order and path.endswith("/stats"):
            body["orders"]["held"] -= 1
        return body


class _Claims(Bug):
    """Remembers what winners were told."""

    scenario = "seckill"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.wins: dict[str, Message] = {}
        self._skip = rng.randrange(10)

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        out = []
        for message in messages:
            command = wire.pending.get(message.get("re", 0), {})
            if command.get("cmd") == "seckill.claim":
                if "ok" in message and not message["ok"].get("again"):
                    self.wins.setdefault(wire.viewer, message["ok"])
                elif message.get("err", {}).get("code") == "sold_out" and not self.struck:
                    if not self._skip and (win := self.of_a_loser(wire)) is not None:
                        message = {"re": message["re"], "ok": win}
                        self.struck += 1
                    else:
                        self._skip = max(0, self._skip - 1)
            out.append(message)
        return out

    def of_a_loser(self, wire: Wire) -> Message | None:
        """Return what a viewer is told who came too late, None for the truth."""
        raise NotImplementedError


class PhantomWin(_Claims):
    """Somebody who came too late is told of an order that nobody made."""

    title = "phantom win"
    invariant = "I1 stock"
    words = "was acknowledged and is lost"

    def of_a_loser(self, wire: Wire) -> Message | None:
        if not self.wins or wire.viewer in self.wins:
            return None
        win = self.rng.choice(list(self.wins.values()))
        return {**win, "order": win["order"][:-1] + ("x" if win["order"][-1] != "x" else "y")}


class DuplicateWinner(_Claims):
    """One unit, one order, two winners."""

    title = "duplicate winner"
    invariant = "I1 stock"
    words = "was acknowledged to somebody else"

    def of_a_loser(self, wire: Wire) -> Message | None:
        others = [win for viewer, win in self.wins.items() if viewer != wire.viewer]
        return dict(self.rng.choice(others)) if others and wire.viewer not in self.wins else None


class EarlyStart(Bug):
    """The sale opens before its time, and says it does not."""

    title = "early start"
    invariant = "I1 stock"
    words = "before the start"
    scenario = "seckill"
    BY_MS: ClassVar[int] = 2000

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._pay_by_first = 0

    def asked(self, command: Message) -> Message:
        if command["cmd"] == "seckill.schedule":
            self._pay_by_first = command["starts_at"] + command["hold_s"] * 1000
            return {**command, "starts_at": command["starts_at"] - self.BY_MS}
        return command

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        # It shows once somebody holds what nobody may hold yet.
        self.struck += sum(0 < part.get("pay_by", 0) < self._pay_by_first for part in _walk(messages))
        return self._late(messages) if wire.tenant == DEMO else messages

    def told(self, path: str, body: Any) -> Any:
        return self._late(body)

    def _late(self, value: Any) -> Any:
        for part in _walk(value):
            if isinstance(part.get("starts_at"), int):
                part["starts_at"] += self.BY_MS
        return value


class OffByOneCent(Bug):
    """One viewer is told a cent more than their share, whenever they ask."""

    title = "packet off by one cent"
    invariant = "I2 cents"
    words = "cents"
    scenario = "redpacket"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._skip = rng.randrange(10)
        self._victim: tuple[str, str] | None = None

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        for message in messages:
            if message.get("ev") == "you.grab":
                self._lie(wire.viewer, message["packet"], message)
            elif isinstance(message.get("ok"), dict):
                command = wire.pending.get(message["re"], {})
                if command.get("cmd") == "redpacket.grab":
                    self._lie(wire.viewer, command["packet"], message["ok"])
                elif self._victim is not None and command.get("cmd") == "room.join":
                    viewer, packet = self._victim
                    if wire.viewer == viewer and packet in message["ok"]["you"]["grabs"]:
                        message["ok"]["you"]["grabs"][packet] += 1
        return messages

    def _lie(self, viewer: str, packet: str, part: Message) -> None:
        if self._victim is None:
            if self._skip:
                self._skip -= 1
                return
            self._victim = (viewer, packet)
        if self._victim == (viewer, packet):
            part["amount_cents"] += 1
            self.struck += 1


class CrossTenant(Bug):
    """Something said in a room is also sent to a viewer in another tenant's room of the same name."""

    title = "cross-tenant frame"
    invariant = "I8 tenants"
    words = "tenant"
    #: A stray fact also disturbs the picture that a client has of its own room.
    also = frozenset({"I3 order", "I4 facts"})

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._from = rng.choice((DEMO, OTHER))
        self._event = rng.choice(("comment", "notice"))
        self._skip = rng.randrange(3)
        self._wires: list[Wire] = []
        self._stray: list[tuple[Wire, list[Message]]] = []

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        if wire.joined and wire not in self._wires:
            self._wires.append(wire)
        for message in messages:
            if self.struck or wire.tenant != self._from or message.get("ev") != self._event:
                continue
            others = [other for other in self._wires if other.tenant not in ("", self._from)]
            if self._skip or not others:
                self._skip = max(0, self._skip - 1)
                continue
            self._stray.append((self.rng.choice(others), [copy.deepcopy(message)]))
            self.struck += 1
        return messages

    def strays(self) -> list[tuple[Wire, list[Message]]]:
        stray, self._stray = self._stray, []
        return stray


class LikesFall(Bug):
    """The total of likes falls once, for one viewer."""

    title = "likes fall once"
    invariant = "I5 likes"
    words = "the total fell from"

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._skip = rng.randrange(10)
        self._totals: dict[Wire, int] = {}

    def said(self, wire: Wire, messages: list[Message]) -> list[Message]:
        for message in messages:
            if message.get("ev") != "likes" or wire.tenant != DEMO:
                continue
            before = self._totals.get(wire, 0)
            if before > 1 and not self.struck:
                if not self._skip:
                    message["total"] = before - self.rng.randint(1, before - 1)
                    self.struck += 1
                self._skip = max(0, self._skip - 1)
            self._totals[wire] = message["total"]
        return messages


#: The ten, and one more that the fourth may also be taken to mean.
BUGS: tuple[type[Bug], ...] = (
    OneUnitTooMany,
    DroppedFact,
    SwappedSeq,
    LostAcknowledgement,
    PhantomWin,
    OffByOneCent,
    DuplicateWinner,
    EarlyStart,
    CrossTenant,
    LikesFall,
    LostOrder,
)
