"""
Words that may not appear in text a person typed.

Decides whether a text holds a blocked word, seen through width, case and separators: text is folded (NFKC,
case-folded, white space and punctuation dropped) before it is searched, with all words in one pass. Does not decide
what happens then.

Source: A. V. Aho and M. J. Corasick, "Efficient string matching", CACM 18(6), 1975; PyPI pyahocorasick.
"""

import unicodedata
from collections.abc import Iterable

import ahocorasick


def fold(text: str) -> str:
    """Return `text` without the differences people use to slip past a filter."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "ZPC")


class WordFilter:
    """A fixed set of blocked words. Empty and unfoldable words are left out."""

    def __init__(self, words: Iterable[str]) -> None:
        self._automaton = ahocorasick.Automaton()
        for word in words:
            folded = fold(word)
            if folded:
                self._automaton.add_word(folded, folded)
        self._empty = len(self._automaton) == 0
        if not self._empty:
            self._automaton.make_automaton()

    def blocks(self, text: str) -> bool:
        """Tell whether `text` holds a blocked word."""
        if self._empty:
            return False
        return next(iter(self._automaton.iter(fold(text))), None) is not None
