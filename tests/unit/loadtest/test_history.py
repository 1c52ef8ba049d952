"""`loadtest/history.py`: what a frame said is worked out once, and nothing of it is lost."""

import gzip
from array import array

import orjson
import pytest

from loadtest import history
from loadtest.history import (
    CACHED_FRAMES_MAX,
    BrokenSeen,
    CommentSeen,
    FactSeen,
    GrabSeen,
    History,
    JoinedSeen,
    LikesSeen,
    OrderSeen,
    OtherChatSeen,
    PacketSeen,
    ProcessHistory,
    Recorder,
    StockSeen,
    ThinnedSeen,
    ViewerHistory,
    digest,
    last_comment,
    last_seq,
)
from protocol.codec import JSON, MSGPACK

NOTICE = {"ev": "notice", "seq": 7, "at": 70, "text": "x #run1.3", "version": 2}
COMMENT = {
    "ev": "comment",
    "at": 71,
    "comment": 12,
    "from": {"id": "run1-v4", "name": "小林", "role": "viewer"},
    "text": "多少钱? #run1.44",
}
SNAPSHOT = {
    "room": "r",
    "title": "t",
    "state": "live",
    "notice": None,
    "items": [],
    "explaining": None,
    "sales": [],
    "packets": [],
    "pinned": None,
    "comments": [{"comment": 9}, {"comment": 11}],
    "muted_all": False,
}
JOINED = {
    "now": 1,
    "epoch": "e",
    "seq": 6,
    "resumed": False,
    "you": {
        "viewer": "run1-v4",
        "name": "小林",
        "role": "viewer",
        "orders": [{"order": "o-1"}],
        "grabs": {"p-1": 88},
        "share": "st.me",
    },
    "gauges": {"likes": 5, "online": {"now": 1, "peak": 1}},
    "room": SNAPSHOT,
    "missed": [],
    "ping_ms": 25000,
}


def marks(messages: object, recorder: Recorder | None = None) -> list[history.Seen]:
    payload = orjson.dumps(messages)
    frame, _ = (recorder or Recorder(JSON, "run1")).read(payload, payload, True)
    return frame.marks


def test_every_kind_of_message_leaves_its_mark() -> None:
    arrived = {"ev": "arrived", "at": 1, "from": {"id": "run1-v5", "name": "x", "role": "viewer"}}
    seen = marks(
        [
            NOTICE,
            COMMENT,
            {"ev": "likes", "total": 48},
            {"ev": "thinned", "dropped": 3},
            arrived,
            {"ev": "online", "now": 5, "peak": 9},
            {"ev": "something.new"},
            {"ev": "stock", "sale": "s1", "left": 3, "held": 2, "sold": 1},
            {"ev": "packet", "packet": "p1", "left": 3, "grabbed": 2},
            {"ev": "you.order", "order": "o-1", "viewer": "run1-v5", "status": "held"},
            {"ev": "you.grab", "packet": "p1", "amount_cents": 8},
        ]
    )

    assert [type(mark) for mark in seen[:5]] == [
        FactSeen,
        CommentSeen,
        LikesSeen,
        ThinnedSeen,
        OtherChatSeen,
    ]
    order = {"order": "o-1", "viewer": "run1-v5", "status": "held"}
    assert seen[5:] == [
        StockSeen("s1", 3, 2, 1),
        PacketSeen("p1", 3, 2),
        OrderSeen("o-1", "run1-v5", digest(order)),
        GrabSeen("p1", 8),
    ]
    assert seen[0] == FactSeen(7, digest(NOTICE), "notice")
    assert isinstance(seen[1], CommentSeen)
    assert (seen[1].comment, seen[1].sender, seen[1].step) == (12, "run1-v4", 44)
    assert seen[4] == OtherChatSeen("arrived", "run1-v5")


@pytest.mark.parametrize("text", ["hello", "x #other.44", "#run1.44 x", "x #run1.y"])
def test_comment_without_our_mark_is_of_no_step(text: str) -> None:
    [seen] = marks([{**COMMENT, "text": text}])

    assert isinstance(seen, CommentSeen)
    assert seen.step == -1


def test_both_codecs_leave_the_same_marks() -> None:
    packed = MSGPACK.encode([NOTICE, COMMENT])
    frame, _ = Recorder(MSGPACK, "run1").read(packed, packed, False)

    assert frame.marks == marks([NOTICE, COMMENT])


def test_digest_is_of_the_content_not_of_the_order_of_its_fields() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_join_says_where_the_viewer_stands() -> None:
    [seen] = marks([{"re": 1, "ok": JOINED}])

    assert isinstance(seen, JoinedSeen)
    assert (seen.epoch, seen.seq, seen.resumed, seen.room) == ("e", 6, False, "r")
    assert (seen.last_comment, seen.likes, seen.viewer) == (11, 5, "run1-v4")
    assert seen.factual == digest(history.factual(SNAPSHOT))
    assert (seen.now, seen.orders, seen.grabs) == (1, ["o-1"], {"p-1": 88})


def test_resumed_join_lists_what_was_missed() -> None:
    [seen] = marks([{"re": 1, "ok": {**JOINED, "resumed": True, "room": None, "missed": [NOTICE]}}])

    assert isinstance(seen, JoinedSeen)
    assert seen.missed == [(7, digest(NOTICE))]
    assert seen.last_comment == -1


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[",
        b"[1]",
        b'[{"ev":"comment"}]',
        b'[{"re":1,"ok":{"epoch":"e","room":null,"resumed":false}}]',
    ],
)
def test_what_cannot_be_read_is_recorded_as_broken(payload: bytes) -> None:
    frame, _ = Recorder(JSON, "run1").read(payload, payload, True)

    assert isinstance(frame.marks[-1], BrokenSeen)


def test_shared_frame_is_remembered_by_its_bytes_and_a_private_one_is_not() -> None:
    recorder = Recorder(JSON, "run1")
    shared, private = orjson.dumps([NOTICE]), orjson.dumps([{"re": 3, "ok": {"comment": 4}}, NOTICE])
    personal = orjson.dumps([{"ev": "you.muted", "until": 5}])

    frame, replies = recorder.read(shared, shared, True)
    assert recorder.cache == {shared: frame}
    assert replies == []

    frame, replies = recorder.read(private, private, True)
    assert frame.private
    assert [reply.id for reply in replies] == [3]
    assert recorder.read(personal, personal, True)[0].private
    assert list(recorder.cache) == [shared]
    assert [frame.number for frame in recorder.frames] == [0, 1, 2]


def test_cache_of_frames_has_an_end() -> None:
    recorder = Recorder(JSON, "run1")
    for total in range(CACHED_FRAMES_MAX + 5):
        payload = b'[{"ev":"likes","total":%d}]' % total
        recorder.read(payload, payload, True)

    assert len(recorder.cache) == CACHED_FRAMES_MAX
    assert len(recorder.frames) == CACHED_FRAMES_MAX + 5


def test_last_seq_and_comment_are_found_behind_gauges() -> None:
    recorder = Recorder(JSON, "run1")
    join, both, likes = (
        orjson.dumps(entry)
        for entry in ([{"re": 1, "ok": JOINED}], [NOTICE, COMMENT], [{"ev": "likes", "total": 9}])
    )
    for payload in (join, both, likes):
        recorder.read(payload, payload, True)

    assert last_seq(recorder.frames, array("I")) == 0
    assert last_seq(recorder.frames, array("I", [0, 2])) == 6
    assert last_comment(recorder.frames, array("I", [0, 2])) == 11
    assert last_seq(recorder.frames, array("I", [0, 1, 2, 2])) == 7
    assert last_comment(recorder.frames, array("I", [0, 1, 2, 2])) == 12


def test_history_can_be_written_down() -> None:
    recorder = Recorder(JSON, "run1")
    payload = orjson.dumps([NOTICE, COMMENT])
    recorder.read(payload, payload, True)
    viewer = ViewerHistory("run1-v4", 1, array("I", [0]), [], True, True)
    whole = History("run1", "r", 7, [ProcessHistory(0, recorder.frames, [viewer], [])])

    again = history.from_bytes(history.to_bytes(whole))

    assert again == whole
    assert again.processes[0].viewers[0].frames == array("I", [0])


@pytest.mark.parametrize("data", [b"", b"plainly not", gzip.compress(b"\xff\xff")])
def test_what_is_no_history_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a recorded history"):
        history.from_bytes(data)
