"""
The hub with connections, store and bus that do what the test says.

Time is the loop's own and nearly stands still: what must happen at once is looked for after a few turns of the loop,
what must wait is seen not to have happened by then.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from engine.clock import StoreClock
from engine.errors import LiveroomError, RoomNotFound, StoreUnavailable
from engine.fanout import audience as audience_module
from engine.fanout import hub as hub_module
from engine.fanout.audience import EARLY_PERSONAL_MAX
from engine.fanout.cadence import Cadence
from engine.fanout.frames import DEFLATE_BYTES_MIN, DEFLATE_WINDOW_BITS, Form
from engine.fanout.hub import Hub
from engine.fanout.room import AHEAD_MAX, PENDING_CHAT_MAX, Room
from engine.fanout.slicing import SLICE_WRITES_MIN
from engine.fanout.write_queue import SLOW_S_MAX, UNSENT_BYTES_MAX, UNSENT_BYTES_SLOW
from protocol.codec import MSGPACK
from tests.support.scripted_store import (
    ROOM,
    UNREACHABLE,
    RecordingMetrics,
    ScriptedBus,
    ScriptedMember,
    ScriptedStore,
)

#: More turns than anything here takes that does not wait for a timer.
TURNS = 20


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = asyncio.get_running_loop().time() + seconds
    while True:
        if what():
            return
        assert asyncio.get_running_loop().time() < give_up, f"not so within {seconds} s"
        await asyncio.sleep(0.001)


def inflated(frame: bytes) -> bytes:
    """Return what a peer with the smallest window that is served reads."""
    return zlib.decompress(frame + b"\x00\x00\xff\xff\x01\x00\x00\xff\xff", wbits=-DEFLATE_WINDOW_BITS)


class Scene:
    """A hub, and everything around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chat_per_s_max: float) -> None:
        self.store = ScriptedStore()
        self.metrics = RecordingMetrics()
        monkeypatch.setattr(hub_module, "Bus", ScriptedBus)
        self.hub = Hub(
            self.store,  # type: ignore[arg-type]
            clock=StoreClock(),
            worker="w1",
            # Frames are not this test's subject: they are their payload.
            build_frame=lambda payload, *, text, compressed=False: payload,
            metrics=self.metrics,
            chat_per_s_max=chat_per_s_max,
        )
        assert isinstance(self.hub._bus, ScriptedBus)
        self.store.bus = self.bus = self.hub._bus

    def enter(self) -> list[Room | LiveroomError]:
        """Ask for the room. The answer is in the list once it is there."""
        answers: list[Room | LiveroomError] = []
        self.hub.enter(ROOM, answers.append)
        return answers

    async def room(self) -> Room:
        """Return the room, held."""
        answers = self.enter()
        await until(lambda: bool(answers))
        assert isinstance(answers[0], Room)
        return answers[0]

    def expect(
        self, room: Room, viewer: str = "anna", codec_name: str = "json", *, deflated: bool = False
    ) -> ScriptedMember:
        """A connection on its way in."""
        member = ScriptedMember(viewer, len(self.hub._connections) + 1, Form(codec_name, deflated))
        room.audience.expect(member)
        self.hub.register(member)
        return member

    def member(
        self, room: Room, viewer: str = "anna", codec_name: str = "json", *, deflated: bool = False
    ) -> ScriptedMember:
        """A connection that is in."""
        member = self.expect(room, viewer, codec_name, deflated=deflated)
        room.audience.attach(member)
        return member


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    scene = Scene(monkeypatch, chat_per_s_max=0)
    yield scene
    await scene.hub.stop()


@pytest.fixture
async def capped(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    scene = Scene(monkeypatch, chat_per_s_max=4)
    yield scene
    await scene.hub.stop()


# --- holding a room -----------------------------------------------------------------------------------------


async def test_many_joins_share_one_read(scene: Scene) -> None:
    scene.store.answers.clear()
    answers = [scene.enter() for _ in range(200)]
    await turns()
    assert scene.store.asked == ["read_room"]

    scene.store.answers.set()
    await until(lambda: all(answers))

    rooms = {id(answer[0]) for answer in answers}
    assert len(rooms) == 1
    assert scene.store.asked == ["read_room"]


async def test_room_is_subscribed_before_it_is_read_and_facts_of_both_are_taken_once(scene: Scene) -> None:
    scene.store.fact()
    scene.store.answers.clear()
    answers = scene.enter()
    await turns()
    # Fact 2 is in the bus only; fact 1 comes again, late.
    scene.store.again(1)
    scene.store.fact()
    scene.store.answers.set()
    await until(lambda: bool(answers))

    [room] = answers
    assert isinstance(room, Room)
    member = scene.member(room)
    await turns()
    assert (room.received_seq, room.memory.seq) == (2, 2)
    assert orjson.loads(room.snapshot())["notice"]["version"] == 2
    assert member.seqs == []


async def test_comments_of_the_snapshot_are_not_taken_again_from_the_bus(scene: Scene) -> None:
    scene.store.answers.clear()
    answers = scene.enter()
    await turns()
    before = [scene.store.comment(), scene.store.comment(2)]
    scene.store.comments, later = [], scene.store.comments
    scene.store.answers.set()
    await until(lambda: bool(answers))
    [room] = answers
    assert isinstance(room, Room)
    await turns()
    assert [entry["comment"] for entry in orjson.loads(room.snapshot())["comments"]] == [1, 2, 3]
    assert len(before) == 2

    # The same again, with a snapshot that holds the first of them.
    scene.store.comments = later
    await scene.hub._drop(room)
    scene.store.answers.clear()
    answers = scene.enter()
    await turns()
    scene.store.deliver(b"c 3", b'{"ev":"comment","comment":3,"at":1000,"text":"3"}')
    scene.store.comment()
    scene.store.answers.set()
    await until(lambda: bool(answers))
    [room] = answers
    assert isinstance(room, Room)
    await turns()
    assert [entry["comment"] for entry in orjson.loads(room.snapshot())["comments"]] == [1, 2, 3, 4]


async def test_missing_room_is_told_and_let_go(scene: Scene) -> None:
    scene.store.exists = False

    answers = scene.enter()
    await until(lambda: bool(answers))

    assert isinstance(answers[0], RoomNotFound)
    assert (scene.hub.rooms, scene.bus.channels) == ([], set())


@pytest.mark.parametrize("bus_is_dead", [True, False])
async def test_store_that_does_not_answer_is_told_and_the_next_join_tries_anew(
    scene: Scene, bus_is_dead: bool
) -> None:
    scene.bus.refuses = bus_is_dead
    scene.store.failure = UNREACHABLE
    answers = [scene.enter(), scene.enter()]
    await until(lambda: all(answers))
    assert all(isinstance(answer[0], StoreUnavailable) for answer in answers)
    assert scene.hub.rooms == []

    scene.bus.refuses, scene.store.failure = False, None
    assert (await scene.room()).ready


async def test_bug_in_one_join_does_not_leave_the_others_waiting(scene: Scene) -> None:
    def buggy(answer: Any) -> None:
        raise ZeroDivisionError

    scene.hub.enter(ROOM, buggy)
    answers = scene.enter()

    await until(lambda: bool(answers))


async def test_room_without_viewers_is_let_go_after_a_while(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await scene.room()
    member = scene.member(room)
    monkeypatch.setattr(hub_module, "LINGER_S", 0.0)
    await scene.hub._beat_all()
    assert scene.hub.rooms == [room]
    room.audience.detach(member)
    await asyncio.sleep(0)

    await scene.hub._beat_all()

    assert (scene.hub.rooms, scene.bus.channels) == ([], set())


async def test_lease_that_ran_out_unseen_by_the_store_has_everybody_take_their_place_again(
    scene: Scene,
) -> None:
    """A join renews the lease too; another worker may have purged this one before it did."""
    room = await scene.room()
    member = scene.member(room)
    await scene.hub._beat_all()
    assert member.rejoined == 0
    room.leased_at -= hub_module.LEASE_S + 1

    await scene.hub._beat_all()
    await scene.hub._beat_all()

    assert member.rejoined == 1


async def test_room_that_is_let_go_twice_leaves_its_successor_alone(scene: Scene) -> None:
    """A room may be dropped while the beat, which knows it from before, is about to drop it too."""
    room = await scene.room()
    await scene.hub._drop(room)
    successor = await scene.room()

    await scene.hub._drop(room)

    assert scene.hub.rooms == [successor]
    member = scene.member(successor)
    scene.store.fact()
    await turns()
    assert member.seqs == [1]


# --- sending ------------------------------------------------------------------------------------------------


async def test_idle_room_sends_at_once_and_a_busy_one_gathers(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    [first] = scene.store.comment()
    await turns()
    assert member.got == [b"[" + first + b"]"]

    began = scene.hub.loop.time()
    later = scene.store.comment() + scene.store.comment(2)
    await turns()
    assert len(member.got) == 1

    await until(lambda: len(member.got) == 2)
    assert scene.hub.loop.time() - began >= 0.015
    assert member.got[1] == b"[" + b",".join(later) + b"]"


async def test_arrivals_hurry_nobody_and_ride_along_with_the_next_comment(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    arrival = b'{"ev":"arrived","at":1000,"from":{"id":"bob"}}'
    # Gauges were just sent, so what waits like a gauge waits for 200 ms from here.
    scene.store.gauge(1)
    await turns()
    assert len(member.got) == 1

    scene.store.deliver(b"c 0", arrival)
    timer = room._timer_at
    [comment] = scene.store.comment()

    assert room._timer_at < timer
    await until(lambda: len(member.got) == 2)
    assert member.got[1] == b"[" + arrival + b"," + comment + b"]"


async def test_arrival_in_an_idle_room_is_shown_at_once(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)

    scene.store.deliver(b"c 0", b'{"ev":"arrived"}')
    await turns()

    assert member.got == [b'[{"ev":"arrived"}]']


async def test_fact_does_not_wait_and_takes_along_what_is_pending(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.comment()
    await turns()

    [chat] = scene.store.comment()
    fact = scene.store.fact()
    await turns()

    # In the order they were published.
    assert member.got[1:] == [b"[" + chat + b"," + fact + b"]"]


async def test_gauge_is_sent_latest_first_and_at_most_every_200_ms(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    began = scene.hub.loop.time()
    scene.store.gauge(1)
    await turns()
    assert member.events == [{"ev": "likes", "total": 1}]

    for total in range(2, 50):
        scene.store.gauge(total)
    # A fact goes out in between, without them.
    scene.store.fact()
    await turns()
    assert member.events[-1]["ev"] == "notice"

    await until(lambda: len(member.events) == 3)
    assert scene.hub.loop.time() - began >= 0.195
    assert member.events[-1] == {"ev": "likes", "total": 49}
    assert room.memory.gauges()["likes"] == 49


async def test_both_codecs_are_sent_the_same(scene: Scene) -> None:
    room = await scene.room()
    json, msgpack = scene.member(room), scene.member(room, "ben", "msgpack")

    scene.store.comment(2)
    scene.store.fact()
    scene.store.gauge(3)
    await turns()

    assert len(json.got) == len(msgpack.got) == 1
    assert MSGPACK.decode(msgpack.got[0]) == orjson.loads(json.got[0])
    assert scene.metrics.flushes == [(4, 2)]


async def test_those_who_read_deflated_frames_share_one_and_the_others_get_it_plain(scene: Scene) -> None:
    room = await scene.room()
    plain = scene.member(room, "plain")
    packed = [scene.member(room, f"v{number}", deflated=True) for number in range(3)]
    other_codec = scene.member(room, "m", "msgpack", deflated=True)
    slow = scene.member(room, "slow", deflated=True)
    room.audience.writable(slow, False)

    fact = scene.store.fact("notice", text="好茶" * DEFLATE_BYTES_MIN)
    await turns()

    assert plain.got == [b"[" + fact + b"]"]
    [frame] = packed[0].got
    assert all(each.got[0] is frame for each in packed)
    assert inflated(frame) == plain.got[0]
    assert inflated(slow.got[0]) == plain.got[0]
    assert MSGPACK.decode(inflated(other_codec.got[0])) == orjson.loads(plain.got[0])
    assert len(frame) < len(plain.got[0]) / 4


async def test_big_room_is_sent_to_in_slices_and_one_who_joins_in_between_gets_no_frame_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody else takes time, so every slice is a short one.
    monkeypatch.setattr(audience_module, "monotonic", lambda: 0.0)
    count = 2 * SLICE_WRITES_MIN + 100
    room = await scene.room()
    members = [
        scene.member(room, f"v{number}", ("json", "msgpack")[number % 3 == 0]) for number in range(count)
    ]
    scene.store.fact()
    progress = []
    newcomer = None
    for _ in range(TURNS):
        await asyncio.sleep(0)
        served = sum(bool(member.got) for member in members)
        if newcomer is None and 0 < served < len(members):
            # Its join reply says seq 1 already: the fact was folded in when its flush began.
            assert room.memory.seq == 1
            newcomer = scene.member(room, "late")
        progress.append(served)

    sizes = [now - before for before, now in zip([0, *progress], progress, strict=False) if now > before]
    assert sizes == [SLICE_WRITES_MIN, SLICE_WRITES_MIN, 100]
    assert all(len(member.got) == 1 for member in members)
    assert newcomer is not None
    assert newcomer.got == []
    # And it misses nothing that follows.
    scene.store.fact()
    await turns()
    assert newcomer.seqs == [2]


async def test_slices_grow_while_others_take_more_of_the_loop(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slice takes one second each time; the others take two after the first and the second slice, then none.
    times = iter([0.0, 1.0, 3.0, 3.0, 4.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(audience_module, "monotonic", lambda: next(times, 7.0))
    room = await scene.room()
    members = [scene.member(room, f"v{number}") for number in range(8 * SLICE_WRITES_MIN)]
    scene.store.fact()
    sizes, before = [], 0
    for _ in range(TURNS):
        await asyncio.sleep(0)
        served = sum(bool(member.got) for member in members)
        if served > before:
            sizes.append(served - before)
        before = served

    assert sizes == [SLICE_WRITES_MIN * times for times in (1, 2, 4, 1)]


async def test_fact_that_comes_during_a_sliced_flush_follows_it(scene: Scene) -> None:
    room = await scene.room()
    members = [scene.member(room, f"v{number}") for number in range(1_200)]
    scene.store.fact()
    await turns(2)
    scene.store.fact()
    await turns()

    assert all(member.seqs == [1, 2] for member in members)


async def test_one_who_left_gets_nothing_more(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    room.audience.detach(member)

    scene.store.fact()
    await turns()

    assert member.got == []
    assert room.audience.by_viewer == {}


# --- thinning -----------------------------------------------------------------------------------------------


async def test_chat_above_the_cap_is_thinned_and_announced(capped: Scene) -> None:
    room = await capped.room()
    member = capped.member(room)

    events = [orjson.loads(event) for event in capped.store.comment(12)]
    await turns()

    shown = [event for event in member.events if event["ev"] == "comment"]
    assert shown == [events[place] for place in (1, 4, 7, 10)]
    assert member.events[-1] == {"ev": "thinned", "dropped": 8}
    assert capped.metrics.thinned_events == 8
    # The snapshot holds what was accepted, shown or not.
    assert len(orjson.loads(room.snapshot())["comments"]) == 12


async def test_facts_are_never_thinned(capped: Scene) -> None:
    room = await capped.room()
    member = capped.member(room)
    for _ in range(50):
        capped.store.fact()
        capped.store.comment()
    await turns()

    assert member.seqs == list(range(1, 51))


async def test_flood_of_chat_is_bounded_and_what_overflows_is_counted(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.comment()
    await turns()
    # In one turn, before anything can be sent.
    scene.store.comment(PENDING_CHAT_MAX)
    scene.store.fact()
    scene.store.comment(1)
    assert room._pending_chat <= PENDING_CHAT_MAX
    await until(lambda: bool(member.seqs))

    numbers = [event["comment"] for event in member.events if event["ev"] == "comment"]
    dropped = sum(event["dropped"] for event in member.events if event["ev"] == "thinned")
    assert numbers == sorted(numbers)
    assert len(numbers) + dropped == PENDING_CHAT_MAX + 2
    assert dropped >= PENDING_CHAT_MAX // 2
    assert scene.metrics.thinned_events == dropped
    # The oldest gave way, and the fact is where it was.
    assert numbers[1] > PENDING_CHAT_MAX // 2
    assert member.events.index(
        {"ev": "comment", "comment": numbers[-1], "at": 1000, "text": str(numbers[-1])}
    ) > ["seq" in event for event in member.events].index(True)
    assert len(orjson.loads(room.snapshot())["comments"]) == 50


# --- slow viewers -------------------------------------------------------------------------------------------


async def test_slow_viewer_gets_facts_only_and_is_told_what_it_missed(scene: Scene) -> None:
    room = await scene.room()
    slow, quick = scene.member(room), scene.member(room, "ben")
    room.audience.writable(slow, False)
    slow.unsent = UNSENT_BYTES_SLOW + 1

    scene.store.comment(3)
    fact = scene.store.fact()
    scene.store.gauge(7)
    await turns()
    await until(lambda: len(quick.events) == 5)
    assert slow.got == [b"[" + fact + b"]"]

    slow.unsent = 0
    room.audience.writable(slow, True)
    assert slow.events[-1] == {"ev": "thinned", "dropped": 3}
    scene.store.fact()
    [chat] = scene.store.comment()
    await until(lambda: len(quick.events) == 7)
    assert slow.seqs == quick.seqs == [1, 2]
    assert orjson.loads(chat) in slow.events
    assert slow.codes == quick.codes == []


async def test_slow_viewer_is_told_of_chat_that_overflowed_too(scene: Scene) -> None:
    room = await scene.room()
    slow = scene.member(room)
    room.audience.writable(slow, False)
    slow.unsent = UNSENT_BYTES_SLOW + 1

    scene.store.comment(PENDING_CHAT_MAX + 1)
    scene.store.fact()
    await turns()
    room.audience.writable(slow, True)

    assert slow.events[-1] == {"ev": "thinned", "dropped": PENDING_CHAT_MAX + 1}


async def test_viewer_that_missed_nothing_is_not_told_of_thinning(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)

    room.audience.writable(member, False)
    room.audience.writable(member, True)

    assert member.got == []


async def test_slow_viewer_is_cut_off_when_too_much_is_unsent(scene: Scene) -> None:
    room = await scene.room()
    slow, quick = scene.member(room), scene.member(room, "ben")
    room.audience.writable(slow, False)
    slow.unsent = UNSENT_BYTES_MAX + 1

    scene.store.fact()
    await turns()

    assert slow.got == [("close", 4501)]
    assert quick.seqs == [1]


async def test_slow_viewer_is_cut_off_after_ten_seconds_also_in_a_silent_room(scene: Scene) -> None:
    room = await scene.room()
    slow = scene.member(room)
    room.audience.writable(slow, False)
    slow.unsent = UNSENT_BYTES_SLOW + 1
    now = scene.hub.loop.time()

    room.audience.sweep(now + SLOW_S_MAX - 0.1)
    assert slow.codes == []
    room.audience.sweep(now + SLOW_S_MAX + 0.1)
    assert slow.codes == [4501]


async def test_viewer_whose_join_reply_already_fills_its_socket_is_slow_from_the_start(scene: Scene) -> None:
    """The transport speaks up while the reply is written, when the viewer is not a member yet."""
    room = await scene.room()
    slow = scene.expect(room)
    slow.unsent = UNSENT_BYTES_SLOW + 1
    room.audience.writable(slow, False)
    room.audience.attach(slow)

    scene.store.comment()
    fact = scene.store.fact()
    await turns()

    assert slow.got == [b"[" + fact + b"]"]
    slow.unsent = 0
    room.audience.writable(slow, True)
    assert slow.events[-1] == {"ev": "thinned", "dropped": 1}


# --- gaps ---------------------------------------------------------------------------------------------------


async def test_gap_is_closed_by_one_read_and_facts_ahead_of_it_are_ordered(scene: Scene) -> None:
    room = await scene.room()
    members = [scene.member(room, f"v{number}") for number in range(50)]
    scene.store.fact(lost=True)
    scene.store.fact(lost=True)
    scene.store.answers.clear()
    for _ in range(10):
        scene.store.fact()
    await turns()
    assert all(member.got == [] for member in members)

    scene.store.answers.set()
    await until(lambda: bool(members[0].seqs))
    await turns()

    assert scene.store.asked == ["read_room", "facts_since 0"]
    assert all(member.seqs == list(range(1, 13)) for member in members)
    assert scene.metrics.recoveries == ["log"]


async def test_duplicates_are_dropped(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    for seq in (1, 2, 3):
        scene.store.fact()
        scene.store.again(seq)
        scene.store.again(1)
    await turns()

    assert member.seqs == [1, 2, 3]
    assert scene.store.asked == ["read_room"]


async def test_facts_in_any_order_are_sent_in_order(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    for _ in range(4):
        scene.store.fact(lost=True)
    scene.store.answers.clear()
    for seq in (3, 1, 4, 2):
        scene.store.again(seq)
    await turns()

    assert member.seqs == [1, 2, 3, 4]
    scene.store.answers.set()


async def test_fact_that_arrives_while_the_log_is_read_is_no_loss(scene: Scene) -> None:
    """The read was answered before the fact was: a room that is ahead of the answer has not lost anything."""
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact()
    scene.store.answers.clear()
    room.recover()
    await turns()
    scene.store.fact()
    scene.store.fact()
    scene.store.answers.set()
    await turns()

    assert member.codes == []
    assert member.seqs == [1, 2, 3]


async def test_gap_wider_than_a_page_is_read_page_by_page(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    for _ in range(2_500):
        scene.store.fact(lost=True)

    room.recover()
    await until(lambda: len(member.seqs) == 2_500)

    assert scene.store.asked[1:] == ["facts_since 0", "facts_since 1000", "facts_since 2000"]
    assert member.seqs == list(range(1, 2_501))


async def test_gap_is_read_again_when_the_store_did_not_answer(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact(lost=True)
    scene.store.failure = UNREACHABLE
    scene.store.fact()
    await asyncio.sleep(0)
    scene.store.failure = None

    await until(lambda: member.seqs == [1, 2])


async def test_broken_bus_makes_every_room_read_what_it_missed(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact(lost=True)
    scene.store.likes, scene.store.online, scene.store.peak = 41, 3, 4

    scene.bus.on_reset([scene.store.channel])

    await until(lambda: len(member.events) == 3)
    assert member.seqs == [1]
    # In a silent room nobody would ever say these again.
    assert {"ev": "likes", "total": 41} in member.events
    assert {"ev": "online", "now": 3, "peak": 4} in member.events


async def test_last_gauge_arrives_although_its_timer_was_early(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop's timers are as coarse as a millisecond: one may fire just before the gauges it was for are due."""
    room = await scene.room()
    member = scene.member(room)
    due, early = Cadence.gauges_due, iter([False, False])
    monkeypatch.setattr(Cadence, "gauges_due", lambda self, now_s: next(early, True) and due(self, now_s))

    scene.store.gauge(7)
    await until(lambda: member.events == [{"ev": "likes", "total": 7}])


async def test_gauge_that_is_newer_than_the_one_read_is_kept(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.likes = 41
    scene.store.answers.clear()
    scene.bus.on_reset([scene.store.channel])
    await turns()
    scene.store.gauge(50)
    scene.store.answers.set()
    await until(lambda: any(event["ev"] == "online" for event in member.events))

    assert room.memory.gauges()["likes"] == 50
    assert all(event["total"] == 50 for event in member.events if event["ev"] == "likes")


async def test_join_that_the_bus_overtook_does_not_make_likes_fall(scene: Scene) -> None:
    room = await scene.room()
    scene.store.gauge(50)

    room.memory.observe(online=1, peak=1, likes=41)

    assert room.memory.gauges()["likes"] == 50


# --- lost state ---------------------------------------------------------------------------------------------


async def test_other_epoch_sends_everybody_through_a_snapshot(scene: Scene) -> None:
    room = await scene.room()
    members = [scene.member(room, f"v{number}") for number in range(3)]
    joining = scene.expect(room, "late")
    scene.store.fact()
    await turns()
    scene.store.begin_anew("e2")
    scene.store.fact()
    scene.store.fact()
    await until(lambda: room.epoch == "e2")

    for member in (*members, joining):
        assert member.codes == [4502]
        room.audience.detach(member)
    assert (room.received_seq, room.memory.seq) == (2, 2)
    assert scene.metrics.recoveries == ["snapshot"]
    # Once, however many facts said so.
    assert scene.store.asked == ["read_room", "read_room"]
    newcomer = scene.member(room, "anew")
    scene.store.fact()
    await turns()
    assert newcomer.seqs == [3]


async def test_log_that_no_longer_holds_the_gap_is_lost_state(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact(lost=True)
    scene.store.fact(lost=True)
    scene.store.first = 3
    scene.store.fact()
    await until(lambda: member.codes == [4502])
    await until(lambda: room.ready)

    assert room.memory.seq == 3


async def test_store_that_fell_behind_what_was_seen_is_lost_state_and_not_asked_for_ever(
    scene: Scene,
) -> None:
    """A fact was delivered whose store then lost it: waiting for what lies before it would never end."""
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact()
    scene.store.deliver(b"f e1 9 notice", b'{"ev":"notice","seq":9,"at":1,"text":"x","version":9}')
    await until(lambda: member.codes == [4502])
    await until(lambda: room.ready)

    assert scene.store.asked == ["read_room", "facts_since 1", "read_room"]
    await turns()
    assert len(scene.store.asked) == 3


async def test_hole_in_the_log_is_lost_state(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact(lost=True)
    scene.store.fact(lost=True)
    del scene.store.log[0]

    room.recover()

    await until(lambda: member.codes == [4502])


async def test_too_many_facts_ahead_of_a_gap_are_lost_state(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.answers.clear()
    scene.store.fact(lost=True)
    for _ in range(AHEAD_MAX + 1):
        scene.store.fact()
    assert len(room._ahead) <= AHEAD_MAX + 1
    await turns()
    assert member.codes == [4502]
    scene.store.answers.set()
    await until(lambda: room.ready)
    assert room.memory.seq == AHEAD_MAX + 2


async def test_joins_during_a_reload_wait_for_it_and_are_refused_while_the_store_is_away(
    scene: Scene,
) -> None:
    room = await scene.room()
    scene.store.failure = UNREACHABLE
    losing = scene.hub.spawn(room.lose_state("test"))
    await turns(1)
    answers = scene.enter()
    await until(lambda: bool(answers))
    assert isinstance(answers[0], StoreUnavailable)

    scene.store.failure = None
    answers = scene.enter()
    await losing
    assert answers == [room]


async def test_room_that_is_gone_ends_its_viewers_and_is_let_go(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.exists = False

    await scene.hub._beat_all()

    assert member.codes == [4502]
    assert scene.hub.rooms == []
    answers = scene.enter()
    await until(lambda: bool(answers))
    assert isinstance(answers[0], RoomNotFound)


# --- joining ------------------------------------------------------------------------------------------------


async def test_join_waits_for_the_fact_it_must_not_miss(scene: Scene) -> None:
    room = await scene.room()
    scene.store.fact(lost=True)
    told: list[int] = []
    room.when_caught_up(0, lambda: told.append(0))
    assert told == [0]
    room.when_caught_up(1, lambda: told.append(room.memory.seq))
    await turns()
    assert told == [0]

    scene.store.again(1)
    await turns()

    assert told == [0, 1]


async def test_many_joins_behind_a_lost_fact_cost_one_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "CATCH_UP_S", 0.01)
    room = await scene.room()
    scene.store.fact(lost=True)
    told: list[int] = []
    for _ in range(100):
        room.when_caught_up(1, lambda: told.append(room.memory.seq))

    await until(lambda: len(told) == 100)

    assert set(told) == {1}
    assert scene.store.asked == ["read_room", "facts_since 0"]


async def test_joins_parked_in_a_lost_epoch_are_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fact they wait for will never come; asking for it would never end."""
    monkeypatch.setattr(hub_module, "CATCH_UP_S", 0.001)
    room = await scene.room()
    for _ in range(5):
        scene.store.fact()
    scene.expect(room)
    told: list[int] = []
    room.when_caught_up(7, lambda: told.append(7))
    scene.store.begin_anew("e2")
    scene.store.fact()
    await until(lambda: room.epoch == "e2")
    asked = len(scene.store.asked)
    await asyncio.sleep(0.02)

    assert told == []
    assert len(scene.store.asked) == asked


async def test_missed_facts_come_from_memory(scene: Scene) -> None:
    room = await scene.room()
    facts = [scene.store.fact() for _ in range(5)]
    await turns()
    told: list[list[bytes] | None] = []

    for epoch, seq in (("e1", 2), ("e1", 5), ("e1", 6), ("e0", 2)):
        room.missed(epoch, seq, told.append)

    assert told == [facts[2:], [], None, None]
    assert scene.store.asked == ["read_room"]


async def test_older_facts_are_read_from_the_log_once_for_many(scene: Scene) -> None:
    facts = [scene.store.fact() for _ in range(20)]
    scene.store.first = 15
    room = await scene.room()
    scene.store.first = 1
    told: list[tuple[int, list[bytes] | None]] = []
    scene.store.answers.clear()
    for seq in range(10):
        room.missed("e1", seq, lambda missed, seq=seq: told.append((seq, missed)))  # type: ignore[misc]
    # A fact that comes meanwhile is part of the answer.
    await turns()
    facts.append(scene.store.fact())
    await turns()
    scene.store.answers.set()
    await until(lambda: len(told) == 10)

    assert told == [(seq, facts[seq:]) for seq in range(10)]
    assert len(scene.store.asked) <= 3


async def test_personal_message_never_comes_before_the_join_reply(scene: Scene) -> None:
    room = await scene.room()
    here, other = scene.member(room), scene.member(room, "ben")
    joining = scene.expect(room)
    muted, unmuted = b'{"ev":"you.muted","until":0}', b'{"ev":"you.muted","until":null}'

    scene.store.personal("anna", muted)
    scene.store.personal("anna", unmuted)

    assert here.events == [orjson.loads(muted), orjson.loads(unmuted)]
    assert (joining.got, other.got) == ([], [])
    joining.send(b'[{"re":1}]')
    room.audience.attach(joining)
    assert joining.got == [b'[{"re":1}]', b"[" + muted + b"]", b"[" + unmuted + b"]"]


async def test_personal_messages_held_for_a_join_are_bounded(scene: Scene) -> None:
    room = await scene.room()
    joining, leaving = scene.expect(room), scene.expect(room)
    for until_ms in range(EARLY_PERSONAL_MAX + 10):
        scene.store.personal("anna", b'{"ev":"you.muted","until":%d}' % until_ms)
    room.audience.detach(leaving)
    room.audience.attach(joining)

    assert [event["until"] for event in joining.events] == list(range(10, EARLY_PERSONAL_MAX + 10))
    assert room.audience._early_personal == {}


# --- removal, eviction, presence ----------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("kick", 4410), ("ban", 4403)])
async def test_removed_viewer_is_closed_after_the_fact_was_sent(scene: Scene, how: str, code: int) -> None:
    room = await scene.room()
    here, again, joining = scene.member(room), scene.member(room), scene.expect(room)
    other = scene.member(room, "ben")

    fact = scene.store.fact("viewer.removed", viewer="anna", how=how)
    await turns()

    for member in (here, again):
        assert member.got == [b"[" + fact + b"]", ("close", code)]
    assert joining.got == [("close", code)]
    assert other.got == [b"[" + fact + b"]"]


async def test_closed_room_closes_everybody_after_the_fact_was_sent(scene: Scene) -> None:
    room = await scene.room()
    members = [scene.member(room, f"v{number}") for number in range(SLICE_WRITES_MIN + 100)]
    slow = scene.member(room, "slow")
    room.audience.writable(slow, False)

    scene.store.fact("room.state", state="closing")
    await turns()
    assert all(member.codes == [] for member in members)
    fact = scene.store.fact("room.state", state="closed")
    await turns()

    for member in (*members, slow):
        assert member.got[-2:] == [b"[" + fact + b"]", ("close", 4411)]


async def test_deleted_comment_leaves_the_snapshot(scene: Scene) -> None:
    room = await scene.room()
    scene.store.comment(3)
    scene.store.fact("comment.deleted", comment=2)
    await turns()

    assert [entry["comment"] for entry in orjson.loads(room.snapshot())["comments"]] == [1, 3]


async def test_eviction_closes_the_connection_of_this_worker_only(scene: Scene) -> None:
    room = await scene.room()
    first, second = scene.member(room), scene.member(room)

    scene.store.deliver(b"x w2 %d" % first.connection, b"")
    assert first.codes == []
    scene.store.deliver(b"x w1 %d" % first.connection, b"")

    assert (first.codes, second.codes) == ([4429], [])


async def test_beat_notices_a_fact_that_was_lost_in_silence(scene: Scene) -> None:
    room = await scene.room()
    member = scene.member(room)
    scene.store.fact(lost=True)
    await turns()
    assert member.got == []

    await scene.hub._beat_all()
    await turns()

    assert member.seqs == [1]


async def test_beat_purges_dead_workers_and_takes_back_the_places_of_its_own(scene: Scene) -> None:
    room = await scene.room()
    json, msgpack = scene.member(room), scene.member(room, "ben", "msgpack")
    slow, joining = scene.member(room, "slow"), scene.expect(room, "joining")
    room.audience.writable(slow, False)

    scene.store.lapsed = ["w1", "w9"]
    await scene.hub._beat_all()

    assert scene.store.purged == ["w9"]
    assert [member.rejoined for member in (json, msgpack, slow)] == [1, 1, 1]
    # It is on its way to the store already.
    assert joining.rejoined == 0


async def test_beat_outlives_an_unreachable_store_and_a_bug(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "BEAT_S", 0.001)
    room = await scene.room()
    scene.member(room)
    await scene.hub.start()
    for failure in (UNREACHABLE, AssertionError("a bug")):
        scene.store.failure = failure
        asked = len(scene.store.asked)
        await until(lambda asked=asked: len(scene.store.asked) > asked + 2)  # type: ignore[misc]
    scene.store.failure = None
    scene.store.fact(lost=True)

    await until(lambda: room.memory.seq == 1)
