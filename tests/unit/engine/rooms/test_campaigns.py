"""Gates as the store takes them, and states that follow from the clock."""

from typing import Any

import orjson
import pytest
from msgspec import UNSET

from engine.rooms.campaigns import gates, packet_state_at, sale_state_at, states_at, tag_words
from protocol.objects import Eligibility

START, END = 1_000, 2_000


def a_sale(state: str, **fields: Any) -> dict[str, Any]:
    return {"sale": "s", "starts_at": START, "ends_at": END, "state": state, **fields}


def a_packet(state: str, **fields: Any) -> dict[str, Any]:
    return {"packet": "p", "opens_at": START, "expires_at": END, "state": state, **fields}


# --- gates ------------------------------------------------------------------------------------------------------


def test_no_eligibility_opens_every_gate() -> None:
    assert gates(None) == ("", "", "", "", "", "")


def test_every_field_is_its_own_gate_and_stands_in_the_json() -> None:
    eligible = Eligibility(tags=["vip", "new"], level_min=3, dwell_s=60, first_order=True, shared=2)

    json, *words = gates(eligible)

    assert words == ["vip,new", 3, 60, "1", 2]
    assert orjson.loads(bytes(json)) == {  # type: ignore[arg-type]
        "tags": ["vip", "new"], "level_min": 3, "dwell_s": 60, "first_order": True, "shared": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("field", "place"), [("level_min", 2), ("dwell_s", 3), ("shared", 5)])
def test_zero_is_a_gate_and_absence_is_none(field: str, place: int) -> None:
    assert gates(Eligibility(**{field: 0}))[place] == 0
    assert gates(Eligibility(**{field: UNSET}))[place] == ""


def test_first_order_that_is_false_is_no_gate() -> None:
    assert gates(Eligibility(first_order=False))[4] == ""


def test_list_without_a_tag_is_not_the_same_as_no_list() -> None:
    assert gates(Eligibility(tags=[]))[1] == ","
    assert gates(Eligibility())[1] == ""


def test_comma_in_a_tag_makes_no_second_tag() -> None:
    """Or a viewer with the tag `a` would pass a gate for `a,b`."""
    gate = gates(Eligibility(tags=["a,b"]))[1]

    assert gate == "a b"
    assert f",{gate}," in tag_words(("x", "a,b"))
    assert f",{gate}," not in tag_words(("a", "b"))


def test_words_of_a_token_without_tags_hold_none() -> None:
    assert tag_words(()) == ",,"
    assert tag_words(("vip", "new")) == ",vip,new,"


# --- states -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "now", "expected"), [
    ("scheduled", START - 1, "scheduled"),
    ("scheduled", START, "open"),
    ("open", START - 1, "scheduled"),
    ("open", END - 1, "open"),
    ("open", END, "ended"),
    ("sold_out", START - 1, "sold_out"),
    ("sold_out", END - 1, "sold_out"),
    ("sold_out", END, "ended"),
    ("paused", START - 1, "paused"),
    ("paused", END - 1, "paused"),
    ("paused", END, "ended"),
    ("ended", START, "ended"),
])  # fmt: skip
def test_state_of_a_sale_follows_the_clock(state: str, now: int, expected: str) -> None:
    assert sale_state_at(a_sale(state), now) == expected


@pytest.mark.parametrize(("state", "now", "expected"), [
    ("scheduled", START - 1, "scheduled"),
    ("scheduled", START, "open"),
    ("open", END - 1, "open"),
    ("open", END, "closed"),
    ("scheduled", END, "closed"),
    ("empty", START, "empty"),
    ("closed", START - 1, "closed"),
])  # fmt: skip
def test_state_of_a_packet_follows_the_clock(state: str, now: int, expected: str) -> None:
    assert packet_state_at(a_packet(state), now) == expected


def test_snapshot_is_brought_up_to_a_moment_and_names_the_next_change() -> None:
    view = {
        "sales": [a_sale("scheduled")],
        "packets": [a_packet("scheduled", opens_at=1_500, expires_at=3_000)],
    }

    moments = []
    now: int | None = 0
    while now is not None:
        moments.append((now, view["sales"][0]["state"], view["packets"][0]["state"]))
        now = states_at(view, now)
        if now is not None:
            moments[-1] = (moments[-1][0], view["sales"][0]["state"], view["packets"][0]["state"])
    last = view["sales"][0]["state"], view["packets"][0]["state"]

    assert [moment for moment, *_ in moments] == [0, START, 1_500, END, 3_000]
    assert moments[:4] == [
        (0, "scheduled", "scheduled"), (START, "open", "scheduled"), (1_500, "open", "open"), (END, "ended", "open"),
    ]  # fmt: skip
    assert last == ("ended", "closed")


def test_room_without_campaigns_changes_by_itself_never() -> None:
    assert states_at({"sales": [], "packets": []}, 0) is None
