"""`loadtest/phrases.py`: enough words, and all of them pass through a room unchanged."""

from loadtest import phrases
from loadtest.arrivals import stream
from protocol import text
from protocol.limits import NAME_CHARS_MAX, NOTICE_BYTES_MAX


def test_comments_are_many_and_different() -> None:
    assert len(set(phrases.COMMENTS)) == len(phrases.COMMENTS) >= 200


def test_cleaning_changes_no_phrase() -> None:
    for phrase in (*phrases.COMMENTS, *phrases.ANSWERS, *phrases.NOTICES):
        assert text.clean(phrase) == phrase
        # Room for the mark that a run puts behind it.
        assert 0 < len(phrase) <= 60
        assert len(phrase.encode()) <= NOTICE_BYTES_MAX - 60


def test_names_are_names() -> None:
    rng = stream(1, "names")
    names = {phrases.viewer_name(rng) for _ in range(500)}

    assert len(names) > 200
    assert all(text.clean(name) == name and 0 < len(name) <= NAME_CHARS_MAX for name in names)
