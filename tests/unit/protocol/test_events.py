"""Events: names, classes of delivery, and that they are flat."""

import msgspec
import pytest

from protocol.codes import EventClass
from protocol.events import EVENTS, ItemExplaining, YourMute
from tests.support.wire_examples import COMMENT, EVENT_EXAMPLES, ITEM, ORDER, PACKET, SALE, plain

BY_CLASS = {
    EventClass.FACT: {
        "room.state", "room.updated", "notice", "item.put", "item.removed", "item.explaining", "seckill.scheduled",
        "seckill.adjusted", "seckill.ended", "seckill.sold_out", "seckill.back", "redpacket.opened",
        "redpacket.closed", "room.muted_all", "comment.deleted", "comment.pinned", "viewer.removed",
    },
    EventClass.CHAT: {"comment", "arrived", "grabbed"},
    EventClass.GAUGE: {"likes", "online", "stock", "packet", "rank"},
    EventClass.PERSONAL: {"you.order", "you.muted", "you.grab"},
    EventClass.CONTROL: {"thinned", "reconnect"},
}  # fmt: skip


@pytest.mark.parametrize("delivery", EventClass)
def test_events_of_a_class_are_those_of_the_document(delivery: EventClass) -> None:
    assert {name for name, event in EVENTS.items() if event.delivery is delivery} == BY_CLASS[delivery]


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_facts_and_only_facts_have_a_place_in_the_order(name: str) -> None:
    event = plain(EVENT_EXAMPLES[name])

    assert ("seq" in event) is (name in BY_CLASS[EventClass.FACT])
    assert ("at" in event) is (name in BY_CLASS[EventClass.FACT] | BY_CLASS[EventClass.CHAT])


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("item.put", ITEM),
        ("seckill.scheduled", SALE),
        ("redpacket.opened", PACKET),
        ("comment", COMMENT),
        ("you.order", ORDER),
    ],
)
def test_objects_fields_stand_beside_the_name(name: str, example: object) -> None:
    event = plain(EVENT_EXAMPLES[name])
    fields = plain(example)

    assert {field: event[field] for field in fields if field != "at"} == {
        field: value for field, value in fields.items() if field != "at"
    }
    assert event["ev"] == name


def test_null_is_written_where_it_means_something() -> None:
    assert plain(ItemExplaining(seq=1, at=2, item=None))["item"] is None
    assert plain(YourMute(until=None)) == {"ev": "you.muted", "until": None}


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_event_under_another_name_is_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**plain(EVENT_EXAMPLES[name]), "ev": "other"}, EVENTS[name])
