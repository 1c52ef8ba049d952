"""
Many calls to one function → one call, without a timer.

Decides how waiting calls are grouped: calls to the same function of the same room, with the same leading keys and
arguments, leave together in the order they came. An idle store is asked at once; while a flight is under way the next
one gathers by itself, so batches grow exactly as fast as the store is slow. Pure: `link.py` does the I/O.

Bounds: 500 calls a group, because a long function blocks the whole store; a group that is full is followed by another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

GROUP_CALLS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class LateWord:
    """A word that is looked up each time its call leaves, because it may change while the call waits."""

    about: str
    #: Called with `about` and the id that the link it leaves by vouches for.
    look_up: Callable[[str, str], str]


Word = str | bytes | int | LateWord
#: Called once with (header of the batch, own reply, None) or (None, None, error).
Done = Callable[[Any, Any, Exception | None], None]


@dataclass(slots=True)
class Group:
    """One FCALL in the making."""

    function: str
    keys: tuple[Word, ...]
    args: tuple[Word, ...]
    #: Loop time after which nobody waits for it any more (seconds).
    deadline: float
    merged: bool
    item_keys: list[Word] = field(default_factory=list)
    item_args: list[Word] = field(default_factory=list)
    waiting: list[Done] = field(default_factory=list)
    #: Whether a try of it left for the store and got no answer.
    maybe_done: bool = False
    #: Whether the next try goes to a node that does not own the slot yet (ASK).
    asking: bool = False
    #: How often one link gave it to another.
    hops: int = 0

    def words(self, registered_name: str, vouched: str) -> list[str | bytes | int]:
        """Return the command to send now, by a link that vouches for the replication id `vouched`."""
        keys = [*self.keys, *self.item_keys]
        words = ["FCALL", registered_name, len(keys), *keys, *self.args, *self.item_args]
        return [word.look_up(word.about, vouched) if isinstance(word, LateWord) else word for word in words]

    def answers(self, reply: Any, error: Exception | None) -> Iterator[tuple[Done, Any, Any]]:
        """Yield each waiting call with the batch's header and its own reply; both None on an error."""
        if error is not None:
            yield from ((done, None, None) for done in self.waiting)
        elif not self.merged:
            yield self.waiting[0], None, reply
        else:
            assert len(reply) == len(self.waiting) + 1, (
                f"{self.function}: {len(reply) - 1} of {len(self.waiting)}"
            )
            for done, own in zip(self.waiting, reply[1:], strict=True):
                yield done, reply[0], own


class Queue:
    """Groups that wait for the next flight, oldest first."""

    __slots__ = ("_groups", "_open", "calls")

    def __init__(self) -> None:
        self._groups: list[Group] = []
        self._open: dict[tuple[str, Word, Word], Group] = {}
        #: Calls waiting, for metrics and admission.
        self.calls = 0

    def add(
        self, function: str, keys: tuple[Word, ...], args: tuple[Word, ...], done: Done, deadline: float
    ) -> None:
        """Queue a call that travels alone."""
        self._groups.append(Group(function, keys, args, deadline, merged=False, waiting=[done]))
        self.calls += 1

    def merge(
        self,
        function: str,
        keys: tuple[Word, ...],
        args: tuple[Word, ...],
        item_keys: tuple[Word, ...],
        item_args: tuple[Word, ...],
        done: Done,
        deadline: float,
        group_name: Word = "",
    ) -> None:
        """
        Queue a call that may travel with others: `keys` and `args` are the shared part, the rest its own.

        `group_name` tells calls apart that share function and room but not the rest, such as those for two sales.
        """
        name = (function, keys[0], group_name)
        group = self._open.get(name)
        if group is None or len(group.waiting) >= GROUP_CALLS_MAX or group.keys != keys or group.args != args:
            group = Group(function, keys, args, deadline, merged=True)
            self._open[name] = group
            self._groups.append(group)
        group.item_keys.extend(item_keys)
        group.item_args.extend(item_args)
        group.waiting.append(done)
        self.calls += 1

    def put(self, group: Group) -> None:
        """Queue a group that another queue has given up. It takes no more calls."""
        self._groups.append(group)
        self.calls += len(group.waiting)

    def take(self, groups_max: int) -> list[Group]:
        """Remove and return the oldest groups, at most `groups_max`."""
        flight, self._groups = self._groups[:groups_max], self._groups[groups_max:]
        if self._groups:
            taken = {id(group) for group in flight}
            self._open = {name: group for name, group in self._open.items() if id(group) not in taken}
        else:
            self._open.clear()
        self.calls -= sum(len(group.waiting) for group in flight)
        return flight

    def __bool__(self) -> bool:
        return bool(self._groups)
