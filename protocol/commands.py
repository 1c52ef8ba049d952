"""
What a viewer, a console or a merchant's back end may ask.

One class per command: its name, fields, bounds, the role it needs, and whether it carries an idempotency key.
`parse` turns a decoded map into one of them or raises `BadCommand` with the code to answer. Text is cleaned and
measured here, so nobody behind this module sees uncleaned text.

Does not decide whether a command is allowed now: that is the room's business. Source: docs/protocol.md.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct

from protocol import limits, text
from protocol.codes import ErrorCode, Role
from protocol.errors import BadCommand, MalformedFrame
from protocol.ids import Id, IdempotencyKey
from protocol.objects import Cents, Eligibility, PositiveCount, Seq, Sort, SplitName, TimeMs

Url = Annotated[str, Meta(description="absolute https URL, at most 512 bytes")]
Seconds = Annotated[int, Meta(ge=1, le=limits.HOLD_S_MAX)]


class Command(Struct, kw_only=True, frozen=True, tag_field="cmd"):
    """Base of every command. Unknown fields are ignored."""

    #: Lowest role that may send it.
    role: ClassVar[Role] = Role.VIEWER
    #: Whether merchants may send it over HTTP.
    console: ClassVar[bool] = False

    @classmethod
    def name(cls) -> str:
        """Return the value of `cmd`."""
        tag = cls.__struct_config__.tag
        assert isinstance(tag, str)
        return tag


class KeyedCommand(Command, kw_only=True, frozen=True):
    """A command that changes something: asking again with the same key never has a second effect."""

    key: IdempotencyKey


class ConsoleCommand(KeyedCommand, kw_only=True, frozen=True):
    """A keyed command that runs a room. Audited, and open to the merchant's back end."""

    role: ClassVar[Role] = Role.STREAMER
    console: ClassVar[bool] = True


class ModeratorCommand(ConsoleCommand, kw_only=True, frozen=True):
    """A console command that moderators may give too."""

    role: ClassVar[Role] = Role.MODERATOR


# --- joining and leaving ----------------------------------------------------------------------------------


class Resume(Struct, kw_only=True, frozen=True):
    """The last fact a returning client holds."""

    epoch: Annotated[str, Meta(min_length=1, max_length=32)]
    seq: Seq


class JoinRoom(Command, kw_only=True, frozen=True, tag="room.join"):
    """Enter a room. The first command of every connection."""

    room: Id
    token: Annotated[str, Meta(min_length=1, max_length=4096)]
    resume: Resume | None = None
    #: A share token: who brought this viewer here.
    via: Annotated[str, Meta(max_length=1024)] | None = None
    #: Where the viewer came from, such as "official_account". Unknown or malformed ones count as "unknown".
    entry: Annotated[str, Meta(max_length=64)] | None = None


class LeaveRoom(Command, kw_only=True, frozen=True, tag="room.leave"):
    """End politely."""


class Ping(Command, kw_only=True, frozen=True, tag="ping"):
    """Stay alive, and learn the store's clock. Mini-programs cannot send WebSocket pings."""


# --- viewers ----------------------------------------------------------------------------------------------


class PostComment(KeyedCommand, kw_only=True, frozen=True, tag="comment.send"):
    """Say something to the room."""

    text: str
    reply_to: PositiveCount | None = None


class SendLikes(Command, kw_only=True, frozen=True, tag="like.send"):
    """Send a batch of taps. A `batch` that does not rise on its connection is not counted."""

    n: Annotated[int, Meta(ge=1, le=limits.LIKES_PER_COMMAND_MAX)]
    batch: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)]


class MakeShareToken(Command, kw_only=True, frozen=True, tag="share.token"):
    """Ask for a signed token that names room and inviter."""

    channel: Id | None = None


class GetShareRank(Command, kw_only=True, frozen=True, tag="share.rank"):
    """Read the share board."""

    around: bool = False


class ClaimSeckill(KeyedCommand, kw_only=True, frozen=True, tag="seckill.claim"):
    """Hold units of a sale until they are paid."""

    sale: Id
    qty: PositiveCount = 1


class GetOrder(Command, kw_only=True, frozen=True, tag="order.get"):
    """Read one of the viewer's own orders."""

    order: Id


class CancelOrder(KeyedCommand, kw_only=True, frozen=True, tag="order.cancel"):
    """Give held units back."""

    order: Id


class GrabRedPacket(KeyedCommand, kw_only=True, frozen=True, tag="redpacket.grab"):
    """Take one share."""

    packet: Id


# --- consoles ---------------------------------------------------------------------------------------------


class OpenRoom(ConsoleCommand, kw_only=True, frozen=True, tag="room.open"):
    """Go live."""


class PauseRoom(ConsoleCommand, kw_only=True, frozen=True, tag="room.pause"):
    """Interrupt; viewers stay."""


class ResumeRoom(ConsoleCommand, kw_only=True, frozen=True, tag="room.resume"):
    """Continue after a pause."""


class CloseRoom(ConsoleCommand, kw_only=True, frozen=True, tag="room.close"):
    """End the show. Everything that moves is settled before the room is closed."""


class SetNotice(ModeratorCommand, kw_only=True, frozen=True, tag="notice.set"):
    """Set the announcement; empty clears. `version`: the current one as the sender knows it."""

    text: str
    card: Id | None = None
    version: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] | None = None


class PutItem(ConsoleCommand, kw_only=True, frozen=True, tag="item.put"):
    """Put a card on the shelf or change it. Without `sort` it keeps its place, or goes to the end."""

    item: Id
    title: str
    price_cents: Cents
    cover: Url | None = None
    url: Url | None = None
    sort: Sort | None = None


class RemoveItem(ConsoleCommand, kw_only=True, frozen=True, tag="item.remove"):
    """Take a card off the shelf; explaining it ends."""

    item: Id


class ExplainItem(ConsoleCommand, kw_only=True, frozen=True, tag="item.explain"):
    """Explain this item now, and no other."""

    item: Id


class UnexplainItem(ConsoleCommand, kw_only=True, frozen=True, tag="item.unexplain"):
    """Stop explaining this item."""

    item: Id


class ScheduleSeckill(ConsoleCommand, kw_only=True, frozen=True, tag="seckill.schedule"):
    """Put units of an item on sale for a time."""

    sale: Id
    item: Id
    price_cents: Cents
    stock: PositiveCount
    per_viewer: PositiveCount = 1
    starts_at: TimeMs
    ends_at: TimeMs
    hold_s: Seconds = 300
    eligible: Eligibility | None = None


class AdjustSeckill(ConsoleCommand, kw_only=True, frozen=True, tag="seckill.adjust"):
    """Add units, or take unheld ones away."""

    sale: Id
    delta: Annotated[int, Meta(ge=-limits.INTEGER_MAX, le=limits.INTEGER_MAX)]


class EndSeckill(ConsoleCommand, kw_only=True, frozen=True, tag="seckill.end"):
    """No new holds from now on; those there are live on."""

    sale: Id


class SendRedPacket(ConsoleCommand, kw_only=True, frozen=True, tag="redpacket.send"):
    """Put money into the room."""

    packet: Id
    total_cents: Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)]
    shares: PositiveCount
    split: SplitName
    min_cents: Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)] = 1
    opens_at: TimeMs | None = None
    expires_s: Seconds
    eligible: Eligibility | None = None


class CancelRedPacket(ConsoleCommand, kw_only=True, frozen=True, tag="redpacket.cancel"):
    """Stop grabs and refund what is left. Granted shares stand."""

    packet: Id


class MuteViewer(ModeratorCommand, kw_only=True, frozen=True, tag="viewer.mute"):
    """Refuse a viewer's comments for `seconds`; 0 is for ever."""

    viewer: Id
    seconds: Annotated[int, Meta(ge=0, le=limits.MUTE_S_MAX)]


class UnmuteViewer(ModeratorCommand, kw_only=True, frozen=True, tag="viewer.unmute"):
    """Let a viewer comment again."""

    viewer: Id


class KickViewer(ModeratorCommand, kw_only=True, frozen=True, tag="viewer.kick"):
    """Close a viewer's connections. They may come back."""

    viewer: Id
    reason: str | None = None


class BanViewer(ModeratorCommand, kw_only=True, frozen=True, tag="viewer.ban"):
    """Close a viewer's connections and refuse new ones."""

    viewer: Id
    reason: str | None = None


class UnbanViewer(ModeratorCommand, kw_only=True, frozen=True, tag="viewer.unban"):
    """Let a banned viewer in again."""

    viewer: Id


class MuteAll(ModeratorCommand, kw_only=True, frozen=True, tag="room.mute_all"):
    """Refuse comments from everyone below moderator, or stop doing so."""

    on: bool


class DeleteComment(ModeratorCommand, kw_only=True, frozen=True, tag="comment.delete"):
    """Take a comment off every screen and out of the replay."""

    comment: PositiveCount


class PinComment(ModeratorCommand, kw_only=True, frozen=True, tag="comment.pin"):
    """Show one comment above the others."""

    comment: PositiveCount


class UnpinComment(ModeratorCommand, kw_only=True, frozen=True, tag="comment.unpin"):
    """Stop showing this comment above the others."""

    comment: PositiveCount


class GetStats(Command, kw_only=True, frozen=True, tag="stats.get"):
    """Read the live totals."""

    role: ClassVar[Role] = Role.MODERATOR
    console: ClassVar[bool] = True


class GetAudit(Command, kw_only=True, frozen=True, tag="audit.get"):
    """Read the conservation identities of every campaign."""

    role: ClassVar[Role] = Role.STREAMER
    console: ClassVar[bool] = True


def _leaves(base: type[Command]) -> list[type[Command]]:
    """Return the classes below `base` that name a command, in the order they are written above."""
    found: list[type[Command]] = []
    for sub in base.__subclasses__():
        found.extend(_leaves(sub))
        if isinstance(sub.__struct_config__.tag, str) and sub.__struct_config__.tag != sub.__name__:
            found.append(sub)
    return found


COMMANDS: Final[dict[str, type[Command]]] = {command.name(): command for command in _leaves(Command)}

# A wrong quantity has its own code; every other wrong field is a bad command.
_QUANTITY_PATHS: Final = ("`$.qty`", "`$.delta`")

_DETAIL_CHARS_MAX: Final = 200

#: Field → (limit, unit). Cleaned before they are measured.
_TEXT_LIMITS: Final[dict[type[Command], tuple[tuple[str, int, Literal["chars", "bytes"], bool], ...]]] = {
    PostComment: (("text", limits.COMMENT_CHARS_MAX, "chars", True),),
    SetNotice: (("text", limits.NOTICE_BYTES_MAX, "bytes", False),),
    PutItem: (("title", limits.TITLE_CHARS_MAX, "chars", True),),
    KickViewer: (("reason", limits.REASON_CHARS_MAX, "chars", False),),
    BanViewer: (("reason", limits.REASON_CHARS_MAX, "chars", False),),
}


def parse(message: dict[str, Any]) -> Command:
    """
    Turn a decoded map into a command with cleaned text.

    Raises:
        BadCommand: With `unknown_command`, `bad_command`, `bad_quantity` or `too_long`.
        MalformedFrame: If text holds a lone surrogate, which has no UTF-8 form.
    """
    name = message.get("cmd")
    if type(name) is not str:
        raise BadCommand("`cmd` must be a string")
    kind = COMMANDS.get(name)
    if kind is None:
        raise BadCommand(f"no command {name[:64]!r}", ErrorCode.UNKNOWN_COMMAND)
    try:
        command = msgspec.convert(message, kind)
    except msgspec.ValidationError as error:
        detail = str(error)
        quantity = detail.endswith(_QUANTITY_PATHS)
        code = ErrorCode.BAD_QUANTITY if quantity else ErrorCode.BAD_COMMAND
        # The detail quotes what was sent, which may be as long as the frame.
        raise BadCommand(detail[:_DETAIL_CHARS_MAX], code) from None
    if kind in _TEXT_LIMITS:
        command = _with_clean_text(command, kind)
    if kind is PutItem:
        _check_urls(command, "cover", "url")
    return command


def _with_clean_text(command: Command, kind: type[Command]) -> Command:
    changes: dict[str, str] = {}
    for field, maximum, unit, required in _TEXT_LIMITS[kind]:
        raw = getattr(command, field)
        if raw is None:
            continue
        try:
            cleaned = text.clean(raw)
        except text.LoneSurrogate as error:
            raise MalformedFrame(str(error)) from None
        if required and not cleaned:
            raise BadCommand(f"`{field}` is empty")
        if (len(cleaned) if unit == "chars" else len(cleaned.encode())) > maximum:
            raise BadCommand(f"`{field}` is longer than {maximum} {unit}", ErrorCode.TOO_LONG)
        if cleaned != raw:
            changes[field] = cleaned
    return msgspec.structs.replace(command, **changes) if changes else command


def _check_urls(command: Command, *fields: str) -> None:
    for field in fields:
        url = getattr(command, field)
        if url is not None:
            check_url(field, url)


def check_url(field: str, url: str) -> None:
    """
    Accept an absolute https URL of at most 512 bytes.

    Raises:
        BadCommand: With `too_long` or `bad_command`.
    """
    if text.clean_url(url) is None:
        raise BadCommand(f"`{field}` must be an absolute https URL")
    if len(url.encode()) > limits.URL_BYTES_MAX:
        raise BadCommand(f"`{field}` is longer than {limits.URL_BYTES_MAX} bytes", ErrorCode.TOO_LONG)


def to_map(command: Command, command_id: int) -> dict[str, Any]:
    """Return the map a client sends for `command`."""
    message: dict[str, Any] = {"cmd": command.name(), "id": command_id}
    for field in command.__struct_fields__:
        value = getattr(command, field)
        if value is not None and value is not UNSET:
            message[field] = msgspec.to_builtins(value)
    return message
