"""
Sizes and rates both sides agree on.

Decides the numbers of docs/protocol.md, units in the names. Does not decide what happens when one is passed:
that is the code's (`codes.py`) and the caller's business. The engine's settings may lower or raise the ones
that docs/protocol.md calls settings; the others are part of version 1.
"""

from typing import Final

# --- the connection ---------------------------------------------------------------------------------------
JOIN_TIMEOUT_MS: Final = 5_000
IDLE_TIMEOUT_MS: Final = 60_000
#: Period of the `ping` command that a join reply asks for. Two may be lost before the idle close.
PING_PERIOD_MS: Final = 25_000
CONNECTIONS_PER_VIEWER_MAX: Final = 5
#: Frames that cannot be read, per connection, before it is closed with 4400.
VIOLATIONS_MAX: Final = 3
HANDSHAKE_HEADERS_BYTES_MAX: Final = 16 * 1024
HANDSHAKE_TIMEOUT_MS: Final = 10_000

# --- frames -----------------------------------------------------------------------------------------------
COMMANDS_PER_FRAME_MAX: Final = 32
#: Until joined, and for every role below moderator.
FRAME_BYTES_MAX: Final = 8 * 1024
#: Once joined as moderator or higher.
CONSOLE_FRAME_BYTES_MAX: Final = 64 * 1024
#: Maps and arrays inside each other in one command, the command itself included.
NESTING_MAX: Final = 16
COMMAND_ID_MAX: Final = 2**32 - 1
#: Largest integer every client can read exactly (JavaScript's Number.MAX_SAFE_INTEGER).
INTEGER_MAX: Final = 2**53 - 1

# --- text, in code points unless the name says bytes ------------------------------------------------------
COMMENT_CHARS_MAX: Final = 200
NOTICE_BYTES_MAX: Final = 300
NAME_CHARS_MAX: Final = 32
TITLE_CHARS_MAX: Final = 60
REASON_CHARS_MAX: Final = 100
URL_BYTES_MAX: Final = 512
TAGS_MAX: Final = 20
COMBINING_MARKS_MAX: Final = 8

# --- rooms ------------------------------------------------------------------------------------------------
SHELF_ITEMS_MAX: Final = 500
SNAPSHOT_COMMENTS_MAX: Final = 50
RANK_TOP_MAX: Final = 10
LIKES_PER_COMMAND_MAX: Final = 50
HOLD_S_MAX: Final = 86_400
#: Longest mute that is not for ever: ten years.
MUTE_S_MAX: Final = 315_360_000
#: Facts are held at least this long and at least this many, so that a viewer can resume.
FACTS_KEPT_MS_MIN: Final = 600_000
FACTS_KEPT_MIN: Final = 1_000
#: A resume whose answer would be larger gets a snapshot instead.
RESUME_BYTES_MAX: Final = 256 * 1024
PAGE_MAX: Final = 1_000
