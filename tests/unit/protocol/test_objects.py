"""Objects: absent means absent, null means null, and nothing is converted."""

from typing import Any

import msgspec
import pytest

from protocol.objects import (
    Gauges,
    Item,
    Notice,
    OnlineGauge,
    OwnRank,
    RoomSnapshot,
    Sale,
    Sender,
    ShareRecord,
    You,
)
from tests.support.wire_examples import (
    COMMENT,
    GAUGES,
    ITEM,
    ORDER,
    PACKET,
    ROOM,
    SALE,
    YOU,
    plain,
)

EXAMPLES = [COMMENT, ITEM, SALE, PACKET, ORDER, GAUGES, YOU, ROOM]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_object_comes_back_from_its_map(example: Any) -> None:
    assert msgspec.convert(plain(example), type(example)) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_unknown_fields_are_ignored(example: Any) -> None:
    assert msgspec.convert({**plain(example), "later": 1}, type(example)) == example


def test_optional_fields_without_a_value_are_absent() -> None:
    item = Item(item="tea", title="茶", price_cents=1, sort=0, sold_out=False)

    assert plain(item) == {"item": "tea", "title": "茶", "price_cents": 1, "sort": 0, "sold_out": False}
    assert plain(Sender(id="u", name="n", role="viewer")) == {"id": "u", "name": "n", "role": "viewer"}
    assert plain(Notice(text="x", version=1)) == {"text": "x", "version": 1}


def test_snapshot_of_an_empty_room_says_so() -> None:
    room = plain(RoomSnapshot(room="r", title="t", state="scheduled"))

    assert room == {
        "room": "r", "title": "t", "state": "scheduled", "notice": None, "items": [], "explaining": None, "sales": [],
        "packets": [], "pinned": None, "comments": [], "muted_all": False,
    }  # fmt: skip


def test_you_and_gauges_always_have_every_field() -> None:
    you = plain(You(viewer="u", name="n", role="viewer"))
    gauges = plain(Gauges(online=OnlineGauge(now=0, peak=0)))

    assert set(you) == {
        "viewer", "name", "role", "muted_until", "orders", "grabs", "rank", "invited", "share",
    }  # fmt: skip
    assert (you["muted_until"], you["rank"], you["share"]) == (None, None, None)
    assert gauges == {"likes": 0, "online": {"now": 0, "peak": 0}, "stock": {}, "packets": {}, "rank": []}


def test_rank_of_a_viewer_who_brought_nobody_is_null() -> None:
    assert plain(OwnRank(rank=None, count=0)) == {"rank": None, "count": 0}


def test_inviter_of_a_forged_share_is_null() -> None:
    record = ShareRecord(at=1, inviter=None, invitee="u", counted=False, reason="forged")

    assert plain(record) == {"at": 1, "inviter": None, "invitee": "u", "counted": False, "reason": "forged"}


@pytest.mark.parametrize(
    "change", [{"price_cents": 1.0}, {"stock": "1"}, {"state": "on_sale"}, {"sale": "a b"}], ids=repr
)
def test_field_of_another_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**plain(SALE), **change}, Sale)
