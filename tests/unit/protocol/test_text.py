"""Cleaning of text: what survives, and that cleaning twice changes nothing."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.text import LoneSurrogate, clean, clean_url

FAMILY = "👨‍👩‍👧"
HEART_ON_FIRE = "❤️‍🔥"
#: The kinds of character the rules speak of, so that random text mixes them often.
TRICKY = (
    "aé한ÅΩ〈👨👩❤↔⭐"
    "\u2329\u212b\u2126\u0301\u0338\u0308\u0327\ufe0f\ufe0e\u200d\u200b\u202e\u2066\u0000\n\t \u3000\u00a0"
    "\u1100\u1161\u11a8\u0958\u09c7\u09be\u3164\u115f\U0001f3fd\U000e0067\U000e0100\u20e3\u180b\ufeff"
)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
tricky_text = st.text(st.sampled_from(TRICKY), max_size=40)


@given(st.one_of(any_text, tricky_text))
@example("\u2329\u200d👩")  # composing turns the symbol into a bracket, which joins nothing
@example("👨" + "\u0301" * 8 + "\ufe0f\u200d👩")
@example("a\u200d\u0301")
@example(" \ufe0f \ufe0f\u0301")
def test_cleaning_is_idempotent(text: str) -> None:
    once = clean(text)

    assert clean(once) == once


@given(st.one_of(any_text, tricky_text))
def test_cleaned_text_is_composed_and_trimmed(text: str) -> None:
    cleaned = clean(text)

    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned == cleaned.strip()


def test_every_single_character_cleans_to_something_stable() -> None:
    for point in range(sys.maxunicode + 1):
        if not 0xD800 <= point <= 0xDFFF:
            once = clean(f"a{chr(point)}b")
            assert clean(once) == once, hex(point)


@pytest.mark.parametrize(
    "removed",
    [
        *map(chr, range(0x20)),
        *map(chr, range(0x7F, 0xA0)),
        *"\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # bidi
        *"\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u034f\u180e",  # zero width
        *"\u3164\uffa0\u115f\u1160",  # fillers
        *"\u2028\u2029\ufff9\U0001d173\U0001bca0\U000e0041\U000e0001",
    ],
    ids=ascii,
)
def test_character_nobody_sees_is_removed(removed: str) -> None:
    assert clean(f"a{removed}b") == "ab"
    assert clean(f"多{removed}少") == "多少"


@pytest.mark.parametrize("emoji", [FAMILY, HEART_ON_FIRE, "🏴‍☠️", "👩🏽‍🚀", "👁️‍🗨️", "1️⃣", "🇨🇳"])
def test_emoji_sequence_stays_whole(emoji: str) -> None:
    assert clean(f"看{emoji}!") == f"看{emoji}!"


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\u200db", "ab"),
        ("👨\u200db", "👨b"),
        ("a\u200d👨", "a👨"),
        ("a\ufe0f\u200d👨", "a\ufe0f👨"),
        ("👨\u200d\u200d👩", "👨👩"),
        ("\u200d", ""),
        ("👨\u200d", "👨"),
    ],
    ids=ascii,
)
def test_joiner_outside_emoji_is_removed(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_combining_marks_are_capped_at_eight_each() -> None:
    zalgo = "e" + "\u0321" * 30 + "x" + "\u0321" * 3

    assert clean(zalgo) == "e" + "\u0321" * 8 + "x" + "\u0321" * 3


def test_removed_character_does_not_reset_the_count_of_marks() -> None:
    assert clean("q" + ("\u0321" * 8 + "\u200b") * 3) == "q" + "\u0321" * 8


def test_text_is_composed() -> None:
    assert clean("e\u0301") == "é"
    assert clean("e\u200b\u0301") == "é"
    assert clean("\u1112\u1161\u11ab") == "한"


@pytest.mark.parametrize(
    "blank",
    ["", " ", "\u3000", "\u200b", "\ufe0f", " \ufe0f ", "\n\t", "\u3164\u3164", "\U000e0100"],
    ids=ascii,
)
def test_text_that_shows_nothing_is_empty(blank: str) -> None:
    assert clean(blank) == ""


def test_ordinary_text_is_untouched() -> None:
    text = "多少钱? 3、2、1 上链接! ﷽ ٣ １２３ naïve"

    assert clean(text) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800", "👨\ud83d"], ids=ascii)
def test_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(LoneSurrogate):
        clean(text)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/x?y=1#z", "https://a.example/图.png", "https://[::1]/", "https://1.2.3.4:8443/"],
)
def test_https_url_is_accepted(url: str) -> None:
    assert clean_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "http://a.example/",
        "HTTPS://a.example/",
        "//a.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        " https://a.example/",
        "https://a.example/\n",
        "https://a.example/ b",
        "https://a.example/\x00",
        "https://a.example/\u202egpj.exe",
        "https://a.example/\u200b",
        "https://a.example/\ud800",
        'https://a.example/"onerror=',
        "https://a.example/<script>",
        "https:///a",
        "https://例子.example/",
        "https://?a",
    ],
    ids=ascii,
)
def test_any_other_url_is_refused(url: str) -> None:
    assert clean_url(url) is None
