"""
The commands that run a room.

Decides which pure rule applies to a console command and which step of the store follows. Streamers' connections and the
merchant's back end come through the same functions; whoever calls has told who is asking. Does not decide who is who.

Source: docs/protocol.md, "Console commands".
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from engine.errors import BlockedText, CommandRejected, Forbidden, rejected
from engine.rooms import red_packets
from engine.rooms.campaigns import gates
from engine.rooms.fragments import item_body, notice_body
from engine.rooms.lifecycle import STEPS
from engine.rooms.words import WordFilter
from engine.store.keys import RoomKey, RoomKeys
from engine.store.store import Answer, Answered, Store
from engine.timers import Note, Timers
from protocol import commands as c
from protocol.codes import ErrorCode
from protocol.limits import INTEGER_MAX, SHELF_ITEMS_MAX

#: Shares that could be guessed could be waited for.
_CHANCE: Final = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Actor:
    """Who gives a console command."""

    id: str
    #: Above every role of a token for the merchant's back end.
    rank: int


class Console:
    """The commands that run a room."""

    def __init__(
        self,
        store: Store,
        words: WordFilter,
        timers: Timers,
    ) -> None:
        self._store = store
        self._words = words
        self._timers = timers
        self._handlers: dict[type[c.Command], Callable[[RoomKey, Any, Actor, Answered], None]] = {
            c.OpenRoom: self._step,
            c.PauseRoom: self._step,
            c.ResumeRoom: self._step,
            c.CloseRoom: self._step,
            c.SetNotice: self._set_notice,
            c.PutItem: self._put_item,
            c.RemoveItem: self._remove_item,
            c.ExplainItem: self._explain_item,
            c.UnexplainItem: self._unexplain_item,
            c.MuteViewer: self._mute,
            c.UnmuteViewer: self._unmute,
            c.KickViewer: self._remove_viewer,
            c.BanViewer: self._remove_viewer,
            c.UnbanViewer: self._unban,
            c.MuteAll: self._mute_all,
            c.DeleteComment: self._delete_comment,
            c.PinComment: self._pin_comment,
            c.UnpinComment: self._unpin_comment,
            c.ScheduleSeckill: self._schedule_seckill,
            c.AdjustSeckill: self._adjust_seckill,
            c.EndSeckill: self._end_seckill,
            c.SendRedPacket: self._send_red_packet,
            c.CancelRedPacket: self._cancel_red_packet,
        }

    def run(self, room: RoomKey, command: c.Command, actor: Actor, answered: Answered) -> None:
        """Carry out a console command; `answered` is called once."""
        if actor.rank < command.role:
            answered(Forbidden())
            return
        handler = self._handlers.get(type(command))
        if handler is None:
            answered(rejected(ErrorCode.UNKNOWN_COMMAND, f"{command.name()} is not available here"))
            return
        handler(room, command, actor, answered)

    def _step(self, room: RoomKey, command: c.KeyedCommand, actor: Actor, answered: Answered) -> None:
        step = STEPS[command.name()]
        origins = "," + ",".join(step.origins) + ","

        closes = type(command) is c.CloseRoom

        def done(answer: Answer) -> None:
            if closes and isinstance(answer, bytes):
                self._timers.settle(room)
            answered(answer)

        if closes:
            answered = _once_noted(self._timers.expect_close(room), answered)
        own = (origins, step.target)
        self._store.console("room_step", room, command, actor.id, actor.rank, (), own, done)

    def _set_notice(self, room: RoomKey, command: c.SetNotice, actor: Actor, answered: Answered) -> None:
        if self._words.blocks(command.text):
            answered(BlockedText())
            return
        args = (
            notice_body(command),
            int(not command.text),
            "" if command.version is None else command.version,
        )
        self._store.console("notice_set", room, command, actor.id, actor.rank, (), args, answered)

    def _put_item(self, room: RoomKey, command: c.PutItem, actor: Actor, answered: Answered) -> None:
        if self._words.blocks(command.title):
            answered(BlockedText())
            return
        names = RoomKeys(room)
        sort = "" if command.sort is None else command.sort
        args = (command.item, item_body(command), sort, SHELF_ITEMS_MAX)
        self._store.console(
            "item_put", room, command, actor.id, actor.rank, (names.items, names.shelf), args, answered
        )

    def _remove_item(self, room: RoomKey, command: c.RemoveItem, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        own = (names.items, names.shelf)
        self._store.console(
            "item_remove", room, command, actor.id, actor.rank, own, (command.item,), answered
        )

    def _explain_item(self, room: RoomKey, command: c.ExplainItem, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).items,)
        self._store.console(
            "item_explain", room, command, actor.id, actor.rank, own, (command.item,), answered
        )

    def _unexplain_item(
        self, room: RoomKey, command: c.UnexplainItem, actor: Actor, answered: Answered
    ) -> None:
        self._store.console(
            "item_unexplain", room, command, actor.id, actor.rank, (), (command.item,), answered
        )

    def _mute(self, room: RoomKey, command: c.MuteViewer, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        args = (command.viewer, command.seconds)
        self._store.console(
            "viewer_mute", room, command, actor.id, actor.rank, (names.mutes, names.staff), args, answered
        )

    def _unmute(self, room: RoomKey, command: c.UnmuteViewer, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        own = (names.mutes, names.staff)
        self._store.console(
            "viewer_unmute", room, command, actor.id, actor.rank, own, (command.viewer,), answered
        )

    def _remove_viewer(
        self, room: RoomKey, command: c.KickViewer | c.BanViewer, actor: Actor, answered: Answered
    ) -> None:
        names = RoomKeys(room)
        how = "ban" if type(command) is c.BanViewer else "kick"
        args = (command.viewer, how)
        own = (names.bans, names.staff, *names.board_keys)
        self._store.console("viewer_remove", room, command, actor.id, actor.rank, own, args, answered)

    def _unban(self, room: RoomKey, command: c.UnbanViewer, actor: Actor, answered: Answered) -> None:
        names = RoomKeys(room)
        own = (names.bans, names.staff, *names.board_keys)
        self._store.console(
            "viewer_unban", room, command, actor.id, actor.rank, own, (command.viewer,), answered
        )

    def _mute_all(self, room: RoomKey, command: c.MuteAll, actor: Actor, answered: Answered) -> None:
        self._store.console(
            "room_mute_all", room, command, actor.id, actor.rank, (), (int(command.on),), answered
        )

    def _delete_comment(
        self, room: RoomKey, command: c.DeleteComment, actor: Actor, answered: Answered
    ) -> None:
        own = (RoomKeys(room).comments,)
        args = (command.comment,)
        self._store.console("comment_delete", room, command, actor.id, actor.rank, own, args, answered)

    def _pin_comment(self, room: RoomKey, command: c.PinComment, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).comments,)
        self._store.console(
            "comment_pin", room, command, actor.id, actor.rank, own, (command.comment,), answered
        )

    def _unpin_comment(
        self, room: RoomKey, command: c.UnpinComment, actor: Actor, answered: Answered
    ) -> None:
        self._store.console(
            "comment_unpin", room, command, actor.id, actor.rank, (), (command.comment,), answered
        )

    def _schedule_seckill(
        self, room: RoomKey, command: c.ScheduleSeckill, actor: Actor, answered: Answered
    ) -> None:
        if command.price_cents * max(command.stock, command.per_viewer) > INTEGER_MAX:
            answered(rejected(ErrorCode.BAD_QUANTITY, "the stock would be worth more than 2^53 - 1 cents"))
            return
        if command.ends_at <= command.starts_at:
            answered(rejected(ErrorCode.BAD_COMMAND, "`ends_at` must be later than `starts_at`"))
            return
        names = RoomKeys(room)
        args = (
            command.sale,
            command.item,
            command.price_cents,
            command.stock,
            command.per_viewer,
            command.starts_at,
            command.ends_at,
            command.hold_s * 1000,
            *gates(command.eligible),
        )
        own = (names.sale(command.sale), names.sales, names.items)
        answered = _once_noted(self._timers.watch_sale(room, command.sale), answered)
        self._store.console("seckill_schedule", room, command, actor.id, actor.rank, own, args, answered)

    def _adjust_seckill(
        self, room: RoomKey, command: c.AdjustSeckill, actor: Actor, answered: Answered
    ) -> None:
        names = RoomKeys(room)
        own = (names.sale(command.sale), names.items)
        answered = _once_noted(self._timers.watch_sale(room, command.sale), answered)
        self._store.console(
            "seckill_adjust", room, command, actor.id, actor.rank, own, (command.delta,), answered
        )

    def _end_seckill(self, room: RoomKey, command: c.EndSeckill, actor: Actor, answered: Answered) -> None:
        own = (RoomKeys(room).sale(command.sale),)
        self._store.console("seckill_end", room, command, actor.id, actor.rank, own, (), answered)

    def _send_red_packet(
        self, room: RoomKey, command: c.SendRedPacket, actor: Actor, answered: Answered
    ) -> None:
        try:
            red_packets.check(command.total_cents, command.shares, command.min_cents)
        except CommandRejected as error:
            answered(error)
            return
        if command.split == "lucky":
            parts = red_packets.split_lucky(command.total_cents, command.shares, command.min_cents, _CHANCE)
        else:
            parts = red_packets.split_even(command.total_cents, command.shares)
        names = RoomKeys(room)
        args = (
            command.packet,
            command.total_cents,
            command.shares,
            command.split,
            command.min_cents,
            "" if command.opens_at is None else command.opens_at,
            command.expires_s * 1000,
            *gates(command.eligible),
            ",".join(map(str, parts)),
        )
        own = (names.packet(command.packet), names.packet_parts(command.packet), names.packets)
        answered = _once_noted(self._timers.watch_packet(room, command.packet), answered)
        self._store.console("packet_send", room, command, actor.id, actor.rank, own, args, answered)

    def _cancel_red_packet(
        self, room: RoomKey, command: c.CancelRedPacket, actor: Actor, answered: Answered
    ) -> None:
        names = RoomKeys(room)
        own = (names.packet(command.packet), names.packet_parts(command.packet), names.grants)
        self._store.console("packet_cancel", room, command, actor.id, actor.rank, own, (), answered)


def _once_noted(note: Note, answered: Answered) -> Answered:
    """Answer a step that was taken only when the timers know of it; one that was refused needs no note."""

    def done(answer: Answer) -> None:
        if isinstance(answer, bytes):
            note.then(lambda error: answered(answer if error is None else error))
        else:
            answered(answer)

    return done
