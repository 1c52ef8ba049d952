"""
A room as it should behave, without a store: plain values and one method per command.

Decides what each command replies and which facts it makes. Written from docs/protocol.md, not from the Lua, so that the
two can disagree. Does not know time: a mute is for ever or long, a comment costs nothing, leases never run out.
"""

from dataclasses import dataclass, field
from typing import Any

from protocol import commands as c
from protocol.limits import SNAPSHOT_COMMENTS_MAX

Map = dict[str, Any]
#: ("ok", fields) or (code, extra fields).
Reply = tuple[str, Map]

MODERATOR, STREAMER = 2, 3
#: Stands for every moment that the model does not compute.
SOME_TIME = "some time"

#: Command → states it may start from, and where it leads.
LIFE: dict[type[c.Command], tuple[tuple[str, ...], str]] = {
    c.OpenRoom: (("scheduled",), "live"),
    c.PauseRoom: (("live",), "paused"),
    c.ResumeRoom: (("paused",), "live"),
    c.CloseRoom: (("scheduled", "live", "paused"), "closing"),
}
OVER = ("closing", "closed")
LIVE = ("live", "paused")
CONNECTIONS_MAX = 5


@dataclass
class RoomModel:
    """One room. Every method returns what the caller is told."""

    title: str = "Tea"
    state: str = "scheduled"
    notice: Map | None = None
    notice_version: int = 0
    items: dict[str, Map] = field(default_factory=dict)
    explaining: str | None = None
    #: Every comment that was not deleted, oldest first.
    comments: list[Map] = field(default_factory=list)
    authors: dict[int, tuple[str, int]] = field(default_factory=dict)
    comments_count: int = 0
    pinned: Map | None = None
    muted_all: bool = False
    #: Viewer → 0 for ever, or SOME_TIME.
    mutes: dict[str, Any] = field(default_factory=dict)
    bans: set[str] = field(default_factory=set)
    staff: dict[str, int] = field(default_factory=dict)
    #: Viewer → (worker, connection), oldest first.
    present: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    peak: int = 0
    entries: dict[str, str] = field(default_factory=dict)
    likes: int = 0
    flushes: dict[str, int] = field(default_factory=dict)
    facts: list[Map] = field(default_factory=list)
    audit: list[tuple[str, str, str]] = field(default_factory=list)
    #: (actor, command, key) → (what was asked, reply).
    done: dict[tuple[str, str, str], tuple[Any, Reply]] = field(default_factory=dict)

    # --- what everybody sees ------------------------------------------------------------------------------

    def snapshot(self) -> Map:
        """Return the room in the shape of a snapshot."""
        items = sorted(self.items.values(), key=lambda item: (item["sort"], item["item"]))
        return {
            "title": self.title, "state": self.state, "notice": self.notice, "items": items,
            "explaining": self.explaining, "sales": [], "packets": [], "pinned": self.pinned,
            "comments": self.comments[-SNAPSHOT_COMMENTS_MAX:], "muted_all": self.muted_all,
        }  # fmt: skip

    def stats(self) -> Map:
        """Return the totals that the model knows."""
        entries: dict[str, int] = {}
        for entry in self.entries.values():
            entries[entry] = entries.get(entry, 0) + 1
        return {
            "online": len(self.present), "peak": self.peak, "viewers": len(self.entries), "likes": self.likes,
            "comments": self.comments_count, "entries": entries,
        }  # fmt: skip

    def _fact(self, name: str, **fields: Any) -> None:
        self.facts.append({"ev": name, "seq": len(self.facts) + 1, **fields})

    # --- the merchant -------------------------------------------------------------------------------------

    def describe(self, title: str) -> str:
        """Change the description; return what became of it."""
        if self.state in OVER:
            return "room_not_live"
        if title == self.title:
            return "unchanged"
        self.title = title
        self._fact("room.updated", title=title)
        return "updated"

    def settle(self) -> str:
        """Leave `closing`."""
        if self.state != "closing":
            return "not_closing"
        self.state = "closed"
        self._fact("room.state", state="closed")
        return "closed"

    # --- consoles -----------------------------------------------------------------------------------------

    def run(self, command: c.KeyedCommand, actor: str, rank: int) -> Reply:
        """Carry out a console command."""
        if rank < command.role:
            return "forbidden", {}
        asked = {name: getattr(command, name) for name in command.__struct_fields__ if name != "key"}
        place = (actor, command.name(), command.key)
        if place in self.done:
            before, reply = self.done[place]
            return reply if before == asked else ("conflict", {})
        step = LIFE.get(type(command))
        if step is None and self.state in OVER:
            return "room_not_live", {"state": self.state}
        if step is not None and (self.state == step[1] or (step[1] == "closing" and self.state == "closed")):
            # Nothing was done, so nothing is remembered.
            return "ok", {"state": self.state, "again": True}
        reply = self._step(step) if step is not None else self._carry_out(command, actor, rank)
        if reply[0] == "ok":
            self.done[place] = (asked, reply)
            self.audit.append((actor, command.name(), command.key))
        return reply

    def _step(self, step: tuple[tuple[str, ...], str]) -> Reply:
        origins, target = step
        if self.state not in origins:
            return "conflict", {"state": self.state}
        self.state = target
        self._fact("room.state", state=target)
        return "ok", {"state": target}

    def _carry_out(self, command: c.KeyedCommand, actor: str, rank: int) -> Reply:
        match command:
            case c.SetNotice():
                return self._set_notice(command)
            case c.PutItem():
                return self._put_item(command)
            case c.RemoveItem() | c.ExplainItem() | c.UnexplainItem():
                return self._change_shelf(command)
            case c.MuteViewer() | c.UnmuteViewer() | c.KickViewer() | c.BanViewer():
                if command.viewer == actor or self.staff.get(command.viewer, 0) >= rank:
                    return "forbidden", {}
                return self._moderate(command)
            case c.UnbanViewer():
                if command.viewer == actor or self.staff.get(command.viewer, 0) >= rank:
                    return "forbidden", {}
                self.bans.discard(command.viewer)
                return "ok", {}
            case c.MuteAll():
                if self.muted_all != command.on:
                    self.muted_all = command.on
                    self._fact("room.muted_all", on=command.on)
                return "ok", {}
            case c.DeleteComment() | c.PinComment() | c.UnpinComment():
                return self._change_comment(command, actor, rank)
        raise AssertionError(command)

    def _set_notice(self, command: c.SetNotice) -> Reply:
        if command.version is not None and command.version != self.notice_version:
            return "conflict", {"version": self.notice_version}
        self.notice_version += 1
        notice = {"text": command.text, "version": self.notice_version}
        self.notice = notice if command.text else None
        self._fact("notice", **notice)
        return "ok", {"version": self.notice_version}

    def _put_item(self, command: c.PutItem) -> Reply:
        sort = command.sort
        if sort is None and command.item in self.items:
            sort = self.items[command.item]["sort"]
        if sort is None:
            sort = max((item["sort"] for item in self.items.values()), default=0) + 1
        item = {
            "item": command.item, "title": command.title, "price_cents": command.price_cents, "sort": sort,
            "sold_out": False,
        }  # fmt: skip
        self.items[command.item] = item
        self._fact("item.put", **item)
        return "ok", item

    def _change_shelf(self, command: c.RemoveItem | c.ExplainItem | c.UnexplainItem) -> Reply:
        item = command.item
        if isinstance(command, c.UnexplainItem):
            if self.explaining != item:
                return "not_found", {}
            self.explaining = None
            self._fact("item.explaining", item=None)
        elif item not in self.items:
            return "not_found", {}
        elif isinstance(command, c.RemoveItem):
            del self.items[item]
            if self.explaining == item:
                self.explaining = None
                self._fact("item.explaining", item=None)
            self._fact("item.removed", item=item)
        elif self.explaining != item:
            self.explaining = item
            self._fact("item.explaining", item=item)
        return "ok", {}

    def _moderate(self, command: c.MuteViewer | c.UnmuteViewer | c.KickViewer | c.BanViewer) -> Reply:
        viewer = command.viewer
        match command:
            case c.MuteViewer():
                self.mutes[viewer] = SOME_TIME if command.seconds else 0
                return "ok", {"until": self.mutes[viewer]}
            case c.UnmuteViewer():
                self.mutes.pop(viewer, None)
            case c.KickViewer():
                self._fact("viewer.removed", viewer=viewer, how="kick")
            case c.BanViewer():
                self.bans.add(viewer)
                self._fact("viewer.removed", viewer=viewer, how="ban")
        return "ok", {}

    def _change_comment(
        self, command: c.DeleteComment | c.PinComment | c.UnpinComment, actor: str, rank: int
    ) -> Reply:
        number = command.comment
        pinned = None if self.pinned is None else self.pinned["comment"]
        if isinstance(command, c.UnpinComment):
            if pinned != number:
                return "not_found", {}
            self.pinned = None
            self._fact("comment.pinned", comment=None)
            return "ok", {}
        found = [comment for comment in self.comments if comment["comment"] == number]
        if not found:
            return "not_found", {}
        if isinstance(command, c.PinComment):
            if pinned != number:
                self.pinned = found[0]
                self._fact("comment.pinned", comment=found[0])
            return "ok", {}
        author, author_rank = self.authors[number]
        if author != actor and author_rank >= rank:
            return "forbidden", {}
        self.comments.remove(found[0])
        self._fact("comment.deleted", comment=number)
        if pinned == number:
            self.pinned = None
            self._fact("comment.pinned", comment=None)
        return "ok", {}

    # --- viewers ------------------------------------------------------------------------------------------

    def comment(self, command: c.PostComment, viewer: str, rank: int) -> Reply:
        """Accept a comment or refuse it."""
        place = (viewer, command.name(), command.key)
        if place in self.done:
            before, reply = self.done[place]
            return reply if before == command.text else ("conflict", {})
        if self.state not in LIVE:
            return "room_not_live", {"state": self.state}
        if self.muted_all and rank < MODERATOR:
            return "muted", {"until": 0, "all": True}
        if viewer in self.mutes:
            return "muted", {"until": self.mutes[viewer]}
        self.comments_count += 1
        number = self.comments_count
        self.comments.append({"comment": number, "from": viewer, "text": command.text})
        self.authors[number] = (viewer, rank)
        reply = ("ok", {"comment": number})
        self.done[place] = (command.text, reply)
        return reply

    def like(self, worker: str, flush: int, likes: int) -> Reply:
        """Count what a worker gathered, once."""
        if flush <= self.flushes.get(worker, 0):
            return "ok", {"total": self.likes}
        if self.state not in LIVE:
            return "room_not_live", {"state": self.state}
        self.flushes[worker] = flush
        self.likes += likes
        return "ok", {"total": self.likes}

    def join(self, worker: str, viewer: str, connection: int, rank: int, entry: str) -> Reply:
        """Let a viewer in or not."""
        if self.state == "closed":
            return "room_not_live", {"state": "closed"}
        if viewer in self.bans:
            return "banned", {}
        place = (worker, connection)
        held = [other for other in self.present.get(viewer, []) if other != place]
        if held:
            rank = max(rank, self.staff.get(viewer, 0))
        self.present[viewer] = [*held, place][-CONNECTIONS_MAX:]
        self.staff.pop(viewer, None)
        if rank:
            self.staff[viewer] = rank
        self.entries.setdefault(viewer, entry)
        self.peak = max(self.peak, len(self.present))
        return "ok", {"until": self.mutes.get(viewer)}

    def leave(self, worker: str, viewer: str, connection: int) -> None:
        """Let a connection go."""
        held = [other for other in self.present.get(viewer, []) if other != (worker, connection)]
        if held:
            self.present[viewer] = held
        else:
            self.present.pop(viewer, None)

    def lose(self, worker: str) -> None:
        """Forget a worker that died, and its connections."""
        for viewer in list(self.present):
            held = [other for other in self.present[viewer] if other[0] != worker]
            self.present[viewer] = held
            if not held:
                del self.present[viewer]
