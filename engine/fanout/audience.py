"""
Who is sent a room's events, and how.

Decides for every connection of a room on this worker whether it gets everything or, while it is slow, facts only; and
writes the same few frames (`frames.py`) to all of them, a slice per turn of the loop, so that commands are never stuck
behind a whole room. Does not decide what is sent (`room.py`) or how long a slice is (`slicing.py`).

Bounds: personal messages held for a connection that is still joining 32; slow viewers as in `write_queue.py`.

Source: docs/architecture.md, "Fan-out".
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from engine.fanout.frames import Form, Frames
from engine.fanout.slicing import Slicer
from engine.fanout.write_queue import UNSENT_BYTES_SLOW, SlowViewer, Verdict
from protocol.codec import CODECS
from protocol.codes import CloseCode

EARLY_PERSONAL_MAX: Final = 32

#: Sends one frame to one connection.
Write = Callable[[bytes], None]


class Member(Protocol):
    """A viewer's connection, as the hub needs it."""

    viewer: str
    connection: int
    #: How it is written to.
    form: Form

    @property
    def write(self) -> Write:
        """What sends a ready-made frame."""
        ...

    def send(self, payload: bytes) -> None:
        """Send a JSON payload of ours, in the member's codec."""
        ...

    def unsent_bytes(self) -> int:
        """Return how much the peer has not taken yet."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection."""
        ...

    def removed(self, seq: int, code: int, reason: str) -> None:
        """Close the connection unless it joined after the fact `seq`: a kicked viewer may come back at once."""
        ...

    def rejoin(self) -> None:
        """Take the connection's place in the store again; it was given up while this worker was out of reach."""
        ...


class Audience:
    """The connections of one room on this worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, build_frame: Callable[..., bytes]) -> None:
        self._loop = loop
        self._build_frame = build_frame
        self._members: dict[Form, dict[Member, Write]] = {
            Form(codec_name, deflated): {} for codec_name in CODECS for deflated in (False, True)
        }
        self._slow: dict[Member, SlowViewer] = {}
        self._slicer = Slicer()
        #: Every connection of a viewer, also while it is joining.
        self.by_viewer: dict[str, list[Member]] = {}
        #: Personal messages for connections whose join reply is still to come; it must be the first they hear.
        self._early_personal: dict[Member, list[bytes]] = {}
        self.empty_since = loop.time()

    # --- coming and going -------------------------------------------------------------------------------

    def expect(self, member: Member) -> None:
        """Note a connection that is joining, so that a kick or a ban meanwhile finds it."""
        self.by_viewer.setdefault(member.viewer, []).append(member)

    def attach(self, member: Member) -> None:
        """Send a member everything from now on. Its join reply, sent just before, holds everything until now."""
        if member.unsent_bytes() > UNSENT_BYTES_SLOW:
            # The reply alone was too much; the transport has said so before the member was here to be told.
            self._slow[member] = SlowViewer(since_s=self._loop.time())
        else:
            self._members[member.form][member] = member.write
        for payload in self._early_personal.pop(member, ()):
            member.send(b"[" + payload + b"]")

    def detach(self, member: Member) -> None:
        """Forget a connection."""
        self._members[member.form].pop(member, None)
        self._slow.pop(member, None)
        self._early_personal.pop(member, None)
        others = self.by_viewer.get(member.viewer)
        if others is not None and member in others:
            others.remove(member)
            if not others:
                del self.by_viewer[member.viewer]
        if not self.by_viewer:
            self.empty_since = self._loop.time()

    def writable(self, member: Member, writable: bool) -> None:
        """A member's unsent bytes crossed the mark: it gets facts only until they are gone."""
        if not writable:
            if self._members[member.form].pop(member, None) is not None:
                self._slow[member] = SlowViewer(since_s=self._loop.time())
            return
        slow = self._slow.pop(member, None)
        if slow is not None:
            self._members[member.form][member] = member.write
            if slow.dropped:
                member.send(_thinned(slow.dropped))

    def attached(self) -> list[Member]:
        """Return the connections that have their join reply."""
        return [*self._slow, *(member for members in self._members.values() for member in members)]

    def all_members(self) -> list[Member]:
        """Return every connection of the room on this worker, also joining ones."""
        return [member for members in self.by_viewer.values() for member in members]

    # --- sending ----------------------------------------------------------------------------------------

    def tell(self, viewer: str, payload: bytes) -> None:
        """Send a personal message to a viewer's connections; those that are joining get it after their reply."""
        for member in self.by_viewer.get(viewer, ()):
            if member in self._slow or member in self._members[member.form]:
                member.send(b"[" + payload + b"]")
                continue
            held = self._early_personal.setdefault(member, [])
            held.append(payload)
            # Absolute values, so the newest count; the join reply holds what the oldest said.
            del held[:-EARLY_PERSONAL_MAX]

    def send(self, parts: list[bytes], facts: list[bytes], chat: int, sent: Callable[[int], None]) -> None:
        """
        Send a flush to everybody.

        Args:
            parts: Events as JSON, in order.
            facts: Those of them that are facts: all that slow viewers get.
            chat: Chat events that slow viewers miss.
            sent: Called with the number of viewers when the last byte was handed to the kernel.
        """
        frames = Frames(b"[" + b",".join(parts) + b"]", self._build_frame)
        writes: list[tuple[bytes, list[Write]]] = []
        viewers = 0
        for form, members in self._members.items():
            if members:
                writes.append((frames.of(form), list(members.values())))
                viewers += len(members)
        if self._slow:
            self._send_to_slow(facts, chat)
        self._write_slice(writes, self._slicer.first(), lambda: sent(viewers))

    def _write_slice(
        self, writes: list[tuple[bytes, list[Write]]], budget: int, done: Callable[[], None]
    ) -> None:
        # Not the loop's clock, which stands still during a turn.
        started = monotonic()
        while writes and budget:
            frame, targets = writes[-1]
            for write in targets[-budget:]:
                write(frame)
            taken = min(budget, len(targets))
            del targets[-taken:]
            budget -= taken
            if not targets:
                writes.pop()
        self._slicer.wrote(started, monotonic())
        # The loop sends what was written at the end of this turn, so the cost is known at the next.
        if writes:
            self._loop.call_soon(self._write_on, writes, done)
        else:
            self._loop.call_soon(done)

    def _write_on(self, writes: list[tuple[bytes, list[Write]]], done: Callable[[], None]) -> None:
        self._write_slice(writes, self._slicer.following(monotonic()), done)

    def _send_to_slow(self, facts: list[bytes], chat: int) -> None:
        """Send facts only to those who do not keep up, and cut off those who fall too far behind."""
        frames = Frames(b"[" + b",".join(facts) + b"]", self._build_frame)
        now = self._loop.time()
        for member, slow in list(self._slow.items()):
            slow.dropped += chat
            if slow.judge(member.unsent_bytes(), now) is Verdict.CLOSE:
                member.close(CloseCode.TOO_SLOW, "too slow")
            elif facts:
                member.write(frames.of(member.form))

    def sweep(self, now: float) -> None:
        """Cut off viewers that have been slow for too long, also while the room is silent."""
        for member, slow in list(self._slow.items()):
            if slow.judge(member.unsent_bytes(), now) is Verdict.CLOSE:
                member.close(CloseCode.TOO_SLOW, "too slow")


def _thinned(dropped: int) -> bytes:
    return b'[{"ev":"thinned","dropped":%d}]' % dropped
