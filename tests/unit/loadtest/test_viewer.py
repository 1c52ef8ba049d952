"""`loadtest/viewer.py`: one viewer against a transport that only remembers."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from loadtest.history import BrokenSeen, Clock, Outcome, Recorder
from loadtest.plan import Actor
from loadtest.viewer import BACKLOG_MAX, Desk, SampledViewer, SlowViewer, Viewer
from protocol.codec import JSON
from tests.unit.loadtest.test_history import COMMENT, JOINED, NOTICE


class Wire:
    """A transport whose other end is the sans-I/O server of `websockets`."""

    def __init__(self) -> None:
        self.server = ServerProtocol(subprotocols=[Subprotocol(JSON.subprotocol)])
        self.sent: list[dict[str, Any]] = []
        self.closed = self.aborted = False
        self.close_codes: list[int] = []
        self.pongs: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.server.receive_data(data)
        for event in self.server.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.sent.append(orjson.loads(event.data))
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                self.close_codes.append(Close.parse(event.data).code)
            elif isinstance(event, Frame) and event.opcode is Opcode.PONG:
                self.pongs.append(bytes(event.data))
            elif isinstance(event, Request):
                self.server.send_response(self.server.accept(event))

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def answer(self) -> bytes:
        """Return what the server has to say to the handshake."""
        return b"".join(self.server.data_to_send())


def frame(messages: object) -> bytes:
    return Frame(Opcode.TEXT, orjson.dumps(messages)).serialize(mask=False)


JOIN_REPLY = frame([{"re": 1, "ok": JOINED}])


@pytest.fixture
def desk() -> Desk:
    return Desk(Recorder(JSON, "run1"), "r", parse_uri("ws://127.0.0.1:1/ws"))


def connected(desk: Desk, kind: type[Viewer] = Viewer) -> tuple[Viewer, Wire]:
    viewer, wire = kind(desk, 1, Actor("v4", "小林", "viewer"), "run1-v4", "token"), Wire()
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())
    return viewer, wire


def joined(desk: Desk, kind: type[Viewer] = Viewer) -> tuple[Viewer, Wire]:
    viewer, wire = connected(desk, kind)
    viewer.data_received(JOIN_REPLY)
    assert viewer.connected
    return viewer, wire


def test_join_is_sent_as_soon_as_the_handshake_is_done(desk: Desk) -> None:
    viewer, wire = connected(desk)

    assert wire.sent == [{"id": 1, "cmd": "room.join", "room": "r", "token": "token"}]
    assert not viewer.connected

    viewer.data_received(JOIN_REPLY)

    assert viewer.connected
    assert [(outcome.step, outcome.code) for outcome in desk.outcomes] == [(0, "ok")]
    assert desk.pending == 0


def test_frame_behind_the_handshake_in_one_chunk_is_read(desk: Desk) -> None:
    viewer, wire = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token"), Wire()
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    # The join is pending before its reply is read, because the backlog goes out first.
    viewer.data_received(wire.answer() + JOIN_REPLY)

    assert viewer.connected


def test_handshake_in_pieces_is_read(desk: Desk) -> None:
    viewer, wire = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token"), Wire()
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    for byte in wire.answer():
        viewer.data_received(bytes([byte]))

    assert len(wire.sent) == 1


def test_refused_handshake_is_a_fault(desk: Desk) -> None:
    viewer, wire = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token"), Wire()
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    viewer.connection_lost(None)

    assert wire.aborted
    assert desk.faults == {"handshake_503": 1, "closed_1006": 1}
    assert [outcome.code for outcome in desk.outcomes] == ["not_connected"]


def test_frame_that_others_had_is_only_counted(desk: Desk) -> None:
    one, _ = joined(desk)
    other, _ = joined(desk)
    raw = frame([NOTICE, COMMENT])

    one.data_received(raw)
    entries = len(desk.recorder.frames)
    other.data_received(raw)

    assert len(desk.recorder.frames) == entries
    assert one.frames[-1] == other.frames[-1] == entries - 1
    assert sum(desk.recorder.frames[-1].ticks.values()) == 2


def test_known_frame_is_recognised_however_it_arrives(desk: Desk) -> None:
    one, _ = joined(desk)
    first, second = frame([NOTICE]), frame([COMMENT])
    one.data_received(first)
    one.data_received(second)
    entries = len(desk.recorder.frames)

    other, _ = joined(desk)
    entries += 1  # Its own join.
    other.data_received(first + second[:5])
    other.data_received(second[5:] + first)
    other.data_received(second)

    assert len(desk.recorder.frames) == entries
    assert list(other.frames[1:]) == [one.frames[1], one.frames[2], one.frames[1], one.frames[2]]


def test_bytes_of_a_known_frame_inside_another_are_not_taken_for_it(desk: Desk) -> None:
    viewer, _ = joined(desk)
    known = frame([NOTICE])
    viewer.data_received(known)
    before = len(viewer.frames)
    # A larger binary frame is under way, and its next bytes happen to be those of the known one.
    whole = Frame(Opcode.BINARY, b"x" * 3 + known + b"y").serialize(mask=False)

    viewer.data_received(whole[: whole.index(known)])
    viewer.data_received(known)
    assert len(viewer.frames) == before
    viewer.data_received(b"y")

    assert len(viewer.frames) == before + 1
    assert isinstance(desk.recorder.frames[viewer.frames[-1]].marks[0], BrokenSeen)


def test_commands_before_the_handshake_wait_and_their_latency_runs(desk: Desk) -> None:
    viewer, wire = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token"), Wire()
    viewer.open(0, 0)
    viewer.send(5, {"cmd": "comment.send", "text": "x", "key": "k"}, 1234)
    viewer.connection_made(cast(asyncio.Transport, wire))
    assert wire.sent == []
    viewer.data_received(wire.answer())

    assert [message["cmd"] for message in wire.sent] == ["room.join", "comment.send"]
    viewer.data_received(JOIN_REPLY + frame([{"re": 2, "ok": {"comment": 31}}]))
    outcome = desk.outcomes[-1]
    assert (outcome.step, outcome.code, outcome.value, outcome.intended_us) == (5, "ok", 31, 1234)


def test_backlog_has_an_end(desk: Desk) -> None:
    viewer = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token")
    viewer.open(0, 0)
    for step in range(1, BACKLOG_MAX + 10):
        viewer.send(step, {"cmd": "ping"}, 0)

    assert len(desk.outcomes) == 10
    assert {outcome.code for outcome in desk.outcomes} == {"not_connected"}


def test_likes_carry_a_rising_batch(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.send(7, {"cmd": "like.send", "n": 3}, 0)
    viewer.send(8, {"cmd": "like.send", "n": 4}, 0)

    assert [(message["n"], message["batch"]) for message in wire.sent[1:]] == [(3, 1), (4, 2)]


def test_refusal_is_recorded_with_its_code(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.send(7, {"cmd": "like.send", "n": 3}, 0)
    viewer.send(8, {"cmd": "like.send", "n": 4}, 0)
    viewer.data_received(
        frame(
            [
                {"re": 3, "err": {"code": "outcome_unknown", "message": "", "definite": False}},
                {"re": 2, "err": {"code": "rate_limited", "message": "", "definite": True}},
            ]
        )
    )

    assert [(o.step, o.code, o.taps, o.definite) for o in desk.outcomes[1:]] == [
        (8, "outcome_unknown", 4, False),
        (7, "rate_limited", 3, True),
    ]


def test_reply_to_nothing_is_broken(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.data_received(frame([{"re": 99, "ok": {}}]))

    mark = desk.recorder.frames[viewer.frames[-1]].marks[0]
    assert isinstance(mark, BrokenSeen)
    assert "99" in mark.why
    assert wire.aborted


def test_masked_frame_is_broken(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.data_received(Frame(Opcode.TEXT, b"[]").serialize(mask=True))

    assert isinstance(desk.recorder.frames[viewer.frames[-1]].marks[0], BrokenSeen)
    assert wire.aborted


def test_ping_is_answered(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.data_received(Frame(Opcode.PING, b"abc").serialize(mask=False))

    assert wire.pongs == [b"abc"]


def test_close_is_answered_and_its_code_kept(desk: Desk) -> None:
    lost: list[Viewer] = []
    desk.on_close = lost.append
    viewer, wire = joined(desk)
    viewer.send(7, {"cmd": "like.send", "n": 3}, 0)
    viewer.data_received(Frame(Opcode.CLOSE, Close(4501, "slow").serialize()).serialize(mask=False))
    viewer.connection_lost(None)

    assert wire.close_codes == [4501]
    assert wire.closed
    assert lost == [viewer]
    assert (viewer.lost, desk.faults) == ([4501], {"closed_4501": 1})
    # Nobody knows whether those likes counted.
    unanswered = desk.outcomes[-1]
    assert isinstance(unanswered, Outcome)
    assert (unanswered.step, unanswered.code, unanswered.taps, unanswered.definite) == (
        7,
        "unanswered",
        3,
        False,
    )
    assert desk.pending == 0


def test_return_asks_for_what_was_missed(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.data_received(frame([NOTICE]))
    viewer.connection_lost(None)

    wire = Wire()
    viewer.open(-1, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())

    assert wire.sent[0]["resume"] == {"epoch": "e", "seq": 7}


def test_draining_server_says_when_to_return(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.data_received(frame([{"ev": "reconnect", "after_ms": 2500}]))

    assert viewer.return_s == 2.5


def test_leaving_is_polite_and_no_loss(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.leave()
    viewer.data_received(frame([{"re": 2, "ok": {}}]))
    viewer.connection_lost(None)

    assert wire.sent[-1]["cmd"] == "room.leave"
    assert wire.close_codes == [1000]
    record = viewer.record()
    assert (record.present, record.lost, desk.faults) == (True, [], {})


def test_reply_missing_at_the_end_is_unanswered(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.send(7, {"cmd": "like.send", "n": 3}, 0)
    viewer.leave()

    assert (desk.outcomes[-1].step, desk.outcomes[-1].code) == (7, "unanswered")


def test_sampled_viewer_folds_what_it_hears(desk: Desk) -> None:
    viewer, _ = joined(desk, SampledViewer)
    viewer.data_received(frame([NOTICE, COMMENT, {"ev": "thinned", "dropped": 2}]))
    viewer.leave()

    folded = viewer.record().folded
    assert folded is not None
    assert (folded.epoch, folded.seq, folded.gap, folded.thinned) == ("e", 7, False, 2)
    assert folded.room["notice"] == {"text": "x #run1.3", "version": 2}
    assert folded.room["comments"][-1]["comment"] == 12


def test_sampled_viewer_notices_a_gap(desk: Desk) -> None:
    viewer, _ = joined(desk, SampledViewer)
    viewer.data_received(frame([{**NOTICE, "seq": 9}]))
    viewer.leave()

    folded = viewer.record().folded
    assert folded is not None
    assert folded.gap


# --- asked until the answer is definite -----------------------------------------------------------------------

CLAIM = {"cmd": "seckill.claim", "sale": "s", "key": "claim-0001"}
WON = {"order": "o-1", "status": "held", "pay_by": 5, "stock_left": 0}


def returned(desk: Desk, viewer: Viewer) -> Wire:
    """Bring a viewer back into the room; return the new wire."""
    wire = Wire()
    viewer.open(-1, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())
    [join] = wire.sent
    viewer.data_received(frame([{"re": join["id"], "ok": {**JOINED, "resumed": True, "room": None}}]))
    return wire


def refused(command_id: int, code: str, *, definite: bool = True, **more: int) -> bytes:
    return frame([{"re": command_id, "err": {"code": code, "message": "", "definite": definite, **more}}])


def test_claim_without_an_answer_is_asked_again_after_the_return(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.send(7, CLAIM, 50)
    assert desk.pending == 1
    viewer.connection_lost(None)

    assert [outcome.step for outcome in desk.outcomes] == [0]
    assert desk.pending == 1
    wire = returned(desk, viewer)
    assert [message["cmd"] for message in wire.sent] == ["room.join", "seckill.claim"]
    assert wire.sent[1]["key"] == CLAIM["key"]
    viewer.data_received(frame([{"re": wire.sent[1]["id"], "ok": WON}]))

    outcome = desk.outcomes[-1]
    assert (outcome.step, outcome.code, outcome.intended_us, outcome.tries) == (7, "ok", 50, 2)
    assert outcome.sent_us < outcome.asked_us <= outcome.done_us
    assert outcome.said == WON
    assert desk.pending == 0


def test_claim_while_away_is_asked_after_the_return(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.connection_lost(None)
    viewer.send(7, CLAIM, 50)
    wire = returned(desk, viewer)

    viewer.data_received(frame([{"re": wire.sent[1]["id"], "ok": WON}]))

    assert (desk.outcomes[-1].step, desk.outcomes[-1].tries) == (7, 1)


@pytest.mark.parametrize(
    ("code", "definite", "after_s"),
    [("outcome_unknown", False, 0.2), ("unavailable", True, 0.2), ("overloaded", True, 0.2)],
)
def test_answer_that_is_none_is_asked_again_later(
    desk: Desk, code: str, definite: bool, after_s: float
) -> None:
    waits: list[tuple[float, Callable[[], None]]] = []
    desk.later = lambda delay_s, call: waits.append((delay_s, call))
    viewer, wire = joined(desk)
    viewer.send(7, CLAIM, 0)
    viewer.data_received(refused(2, code, definite=definite))
    assert len(wire.sent) == 2

    [(delay_s, call)] = waits
    call()
    assert after_s <= delay_s <= after_s * 1.5
    assert [message["key"] for message in wire.sent[1:]] == [CLAIM["key"]] * 2
    viewer.data_received(refused(3, "sold_out", final=0))

    assert (desk.outcomes[-1].code, desk.outcomes[-1].tries, desk.outcomes[-1].said["final"]) == (
        "sold_out",
        2,
        0,
    )
    assert desk.pending == 0


def test_server_says_how_long_to_wait(desk: Desk) -> None:
    waits: list[float] = []
    desk.later = lambda delay_s, call: waits.append(delay_s)
    viewer, _ = joined(desk)
    viewer.send(7, CLAIM, 0)
    viewer.data_received(refused(2, "rate_limited", retry_ms=700))

    [delay_s] = waits
    assert 0.7 <= delay_s <= 1.05


def test_reminder_that_comes_too_late_asks_nothing_twice(desk: Desk) -> None:
    waits: list[Callable[[], None]] = []
    desk.later = lambda delay_s, call: waits.append(call)
    viewer, _ = joined(desk)
    viewer.send(7, CLAIM, 0)
    viewer.data_received(refused(2, "unavailable"))
    viewer.connection_lost(None)
    wire = returned(desk, viewer)
    assert len(wire.sent) == 2

    waits[0]()

    assert len(wire.sent) == 2


def test_claim_still_open_at_the_end_is_unanswered(desk: Desk) -> None:
    viewer, _ = joined(desk)
    viewer.send(7, CLAIM, 0)
    viewer.connection_lost(None)
    viewer.send(8, {**CLAIM, "key": "claim-0002"}, 0)
    viewer.leave()

    assert [(o.step, o.code, o.definite) for o in desk.outcomes[1:]] == [
        (7, "unanswered", False),
        (8, "not_connected", True),
    ]
    assert desk.pending == 0


def test_cut_drops_the_connection_behind_what_was_sent(desk: Desk) -> None:
    viewer, wire = joined(desk)
    viewer.send(7, CLAIM, 0)
    viewer.cut()
    viewer.data_received(frame([{"re": 2, "ok": WON}]))
    viewer.connection_lost(None)

    assert wire.closed
    assert not wire.aborted
    assert desk.faults == {"cut_on_purpose": 1}
    assert len(desk.outcomes) == 1
    assert viewer.unanswered() == 1


def test_link_is_shown_until_the_join_is_accepted(desk: Desk) -> None:
    viewer = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token")
    viewer.via = ("run1-v1", "st.them")
    viewer.open(0, 0)
    viewer.refused("connect_Error")
    wire = Wire()
    viewer.open(-1, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())
    assert wire.sent[0]["via"] == "st.them"
    viewer.data_received(frame([{"re": wire.sent[0]["id"], "ok": JOINED}]))
    assert desk.share_tokens == {1: ("run1-v4", "st.me")}
    viewer.connection_lost(None)

    assert "via" not in returned(desk, viewer).sent[0]


def test_accepted_link_is_in_the_outcome(desk: Desk) -> None:
    viewer, wire = Viewer(desk, 1, Actor("v4", "x", "viewer"), "run1-v4", "token"), Wire()
    viewer.via = ("run1-v1", "st.them")
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer() + JOIN_REPLY)

    assert desk.outcomes[0].said == {"via": "run1-v1"}


def test_clock_is_that_of_the_fastest_answer(desk: Desk) -> None:
    desk.set_clock(1000, 0, 10_000)
    desk.set_clock(2000, 500_000, 502_000)
    desk.set_clock(9000, 600_000, 650_000)

    assert desk.clock == Clock(2000 * 1000 + 500 - 501_000, 1500)
    assert desk.at_ms(601_000) == 2100


# --- going away, leaving, reading slowly ----------------------------------------------------------------------


def test_viewer_who_goes_away_comes_back_only_by_the_plan(desk: Desk) -> None:
    lost: list[Viewer] = []
    desk.on_close = lost.append
    viewer, wire = joined(desk)

    viewer.go_away()
    viewer.connection_lost(None)

    assert wire.closed
    assert viewer.away
    assert lost == [viewer]
    assert desk.faults == {"away": 1}

    viewer.open(3, 500)

    assert not viewer.away
    assert viewer.record().lost == [1006]


def test_viewer_who_departs_is_neither_present_nor_lost(desk: Desk) -> None:
    viewer, wire = joined(desk)

    viewer.depart()
    viewer.connection_lost(None)

    record = viewer.record()
    assert (record.left, record.present, record.lost) == (True, False, [])
    assert wire.sent[-1]["cmd"] == "room.leave"


def test_viewer_who_never_got_in_cannot_depart(desk: Desk) -> None:
    viewer, _ = connected(desk)

    viewer.depart()

    assert not viewer.record().left


class SlowWire(Wire):
    """A transport that can be told not to read."""

    reading = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading


def slow(desk: Desk) -> tuple[Viewer, SlowWire, list[tuple[float, Callable[[], None]]]]:
    later: list[tuple[float, Callable[[], None]]] = []
    desk.later = lambda delay_s, call: later.append((delay_s, call))
    actor = Actor("v4", "小林", "viewer", 0, 1000)
    viewer, wire = SlowViewer(desk, 1, actor, "run1-v4", "token"), SlowWire()
    viewer.open(0, 0)
    viewer.connection_made(cast(asyncio.Transport, wire))
    viewer.data_received(wire.answer())
    later.pop()[1]()
    viewer.data_received(JOIN_REPLY)
    later.pop()[1]()
    return viewer, wire, later


def test_slow_viewer_takes_so_many_bytes_a_second(desk: Desk) -> None:
    viewer, wire, later = slow(desk)
    data = frame([NOTICE])

    viewer.data_received(data)

    assert not wire.reading
    [(delay_s, read_on)] = later
    assert delay_s == len(data) / 1000
    read_on()
    assert wire.reading


def test_slow_viewers_delays_are_not_the_servers(desk: Desk) -> None:
    viewer, _, _ = slow(desk)

    viewer.data_received(frame([COMMENT]))

    shared = [entry for entry in desk.recorder.frames if not entry.private]
    assert [entry.ticks for entry in shared] == [{}]
    assert list(viewer.frames)[-1] == shared[0].number


def test_slow_viewer_hurries_when_the_show_is_over(desk: Desk) -> None:
    viewer, wire, later = slow(desk)
    viewer.data_received(frame([NOTICE]))

    viewer.hurry()
    viewer.data_received(frame([COMMENT]))

    assert wire.reading
    assert len(later) == 1
    # What was meant for later does no harm.
    later[0][1]()
    assert wire.reading
