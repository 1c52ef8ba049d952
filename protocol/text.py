"""
Cleaning of text that a person typed.

Decides which characters survive: canonical composition (NFC) without control, bidirectional-control and
invisible characters, with at most 8 combining marks on one base character. A zero-width joiner stays inside an
emoji sequence and nowhere else. Cleaning is idempotent, and what is measured against a limit is the cleaned text.

Does not decide whether words are welcome (`engine/rooms/words.py`) or how long a text may be (`limits.py`).
Source: docs/protocol.md, "Text"; Unicode TR36 (visual spoofing), TR51 (emoji ZWJ sequences).
"""

import re
import unicodedata
from typing import Final

from protocol.limits import COMBINING_MARKS_MAX

ZWJ: Final = "\u200d"

# C0, DEL and C1 controls; bidi marks, embeddings, overrides, isolates; zero-width and invisible format characters,
# blank fillers that render as nothing, and tag characters.
_REMOVED = re.compile(
    "[\u0000-\u001f\u007f-\u009f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u2028\u2029\u2060-\u2065\u206a-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Close to Extended_Pictographic of TR51, in whole blocks: a joiner wrongly kept between two symbols is harmless.
_PICTOGRAPH = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff"
    "\u2600-\u27bf\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_LONELY_ZWJ = re.compile(f"(?<![{_PICTOGRAPH}])(?<![{_PICTOGRAPH}]\ufe0f)\u200d|\u200d(?![{_PICTOGRAPH}])")
# A variation selector with nothing before it shows nothing: a text of them alone would be an invisible comment.
_LEADING_BLANK = re.compile("^[\\s\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_NON_ASCII_OR_CONTROL = re.compile("[^\u0020-\u007e]")


class LoneSurrogate(ValueError):
    """Text with half a surrogate pair, which has no UTF-8 form."""


def has_lone_surrogate(text: str) -> bool:
    """Tell whether `text` holds half a surrogate pair, so that it cannot be written as UTF-8."""
    return _SURROGATE.search(text) is not None


def clean(text: str) -> str:
    """
    Return `text` as it will be shown: NFC, without invisible characters, without surrounding white space.

    Raises:
        LoneSurrogate: If `text` holds half a surrogate pair.
    """
    if _NON_ASCII_OR_CONTROL.search(text) is None:
        return text.strip()
    if _SURROGATE.search(text) is not None:
        raise LoneSurrogate("text holds a lone surrogate")
    # Composed before joiners are judged: composing can turn a symbol into a bracket that joins nothing. Composed
    # again after, because a joiner that goes makes neighbours of the characters around it.
    text = unicodedata.normalize("NFC", _REMOVED.sub("", text))
    if ZWJ in text:
        text = unicodedata.normalize("NFC", _LONELY_ZWJ.sub("", text))
    return _LEADING_BLANK.sub("", _cap_combining_marks(text)).strip()


def _cap_combining_marks(text: str) -> str:
    """Drop combining marks after the eighth on one base character."""
    kept: list[str] = []
    marks = 0
    for char in text:
        if unicodedata.category(char) in ("Mn", "Me", "Mc"):
            marks += 1
            if marks > COMBINING_MARKS_MAX:
                continue
        else:
            marks = 0
        kept.append(char)
    return "".join(kept)


def clean_url(url: str) -> str | None:
    """Return `url` if it is an absolute https URL without white space, control or invisible characters, else None."""
    if _URL.match(url) is None or _SURROGATE.search(url) or _REMOVED.search(url) or ZWJ in url:
        return None
    return url


_URL = re.compile(r"https://[A-Za-z0-9\[][^\s\"'<>\\^`{|}\x00-\x20\x7f-\x9f]*\Z")
