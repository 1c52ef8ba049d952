"""The word filter: seen through width, case and separators."""

import pytest

from engine.rooms.words import WordFilter, fold


@pytest.mark.parametrize(
    "text",
    [
        "badword",
        "BadWord",
        "ｂａｄｗｏｒｄ",
        "b a d w o r d",
        "b-a.d_w,o!r?d",
        "bad\u200bword",
        "so badword!",
        "ⓑⓐⓓword",
    ],
)
def test_disguises_of_a_blocked_word_are_seen(text: str) -> None:
    assert WordFilter(["badword"]).blocks(text)


@pytest.mark.parametrize("text", ["bad wor", "good word", "", "多少钱?", "b a d"])
def test_other_text_passes(text: str) -> None:
    assert not WordFilter(["badword"]).blocks(text)


@pytest.mark.parametrize("text", ["加微信", "加 微 信", "快加，微信！", "加\u3000微\u3000信"])
def test_chinese_words_are_found_between_spaces_and_punctuation(text: str) -> None:
    assert WordFilter(["加微信"]).blocks(text)


def test_word_of_the_list_may_be_written_in_any_disguise() -> None:
    assert WordFilter(["Ｂａｄ word"]).blocks("badWORD")


def test_one_word_inside_another_is_found() -> None:
    words = WordFilter(["abcd", "bc"])

    assert words.blocks("xbcx")
    assert words.blocks("abcd")


@pytest.mark.parametrize("words", [[], [""], ["  ", "!?", "\u200b"]])
def test_filter_without_words_blocks_nothing(words: list[str]) -> None:
    assert not WordFilter(words).blocks("anything at all")
    assert not WordFilter(words).blocks("")


def test_folding_twice_changes_nothing_more() -> None:
    for text in ("Straße", "ﬁne", "ＡＢＣ", "İstanbul", "多 少 钱?", "ΑΣ"):
        assert fold(fold(text)) == fold(text)
