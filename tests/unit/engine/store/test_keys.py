"""Key names: one slot per room, no two alike, none that another room could have."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store import keys
from engine.store.keys import RoomKey, RoomKeys
from protocol.ids import ID_PATTERN, KEY_PATTERN

ROOM = RoomKey("shop-1.x", "r_88")
ids = st.from_regex(ID_PATTERN, fullmatch=True).map(lambda text: text.rstrip("\n"))
idempotency_keys = st.from_regex(KEY_PATTERN, fullmatch=True).map(lambda text: text.rstrip("\n"))


def fixed_names(names: RoomKeys) -> list[str]:
    """Return every key of a room that has no further parameter."""
    return [getattr(names, slot) for slot in RoomKeys.__slots__ if slot != "prefix"]


def hash_tag(key: str) -> str:
    """Return what a cluster hashes, as in the cluster specification."""
    start = key.index("{")
    return key[start + 1 : key.index("}", start)]


def test_room_prints_as_tenant_and_room() -> None:
    assert str(ROOM) == "shop-1.x/r_88"


def test_every_key_of_a_room_is_in_its_slot() -> None:
    names = RoomKeys(ROOM)
    every = [*fixed_names(names), names.idempotency("u", "comment.send", "k"), names.present_on("w")]

    assert {hash_tag(key) for key in every} == {"shop-1.x/r_88"}
    assert all(key.startswith("lr:{shop-1.x/r_88}:") for key in every)


def test_no_two_keys_of_a_room_are_alike() -> None:
    every = fixed_names(RoomKeys(ROOM))

    assert len(set(every)) == len(every)


def test_keys_with_a_parameter_are_none_of_the_fixed_ones() -> None:
    names = RoomKeys(ROOM)
    fixed = set(fixed_names(names))

    for parameter in [name.removeprefix(names.prefix) for name in fixed]:
        assert names.present_on(parameter) not in fixed
        assert names.idempotency(parameter, "room.open", "k") not in fixed


def test_partitions_of_the_timers_are_spread_over_slots() -> None:
    tags = {hash_tag(keys.due(partition)) for partition in range(keys.DUE_PARTITIONS)}

    assert len(tags) == keys.DUE_PARTITIONS


def test_index_of_a_tenant_is_no_rooms_key() -> None:
    assert hash_tag(keys.tenant_rooms("shop-1.x")) == "shop-1.x"
    assert not keys.tenant_rooms("shop-1.x").startswith(RoomKeys(ROOM).prefix)


@given(ids, ids, ids, ids)
def test_different_rooms_have_different_keys(tenant: str, room: str, tenant2: str, room2: str) -> None:
    one, two = RoomKey(tenant, room), RoomKey(tenant2, room2)

    assert (RoomKeys(one).meta == RoomKeys(two).meta) == (one == two)
    assert RoomKeys(one).prefix == RoomKeys(two).prefix or not RoomKeys(one).meta.startswith(
        RoomKeys(two).prefix
    )


@given(
    st.tuples(ids, st.sampled_from(["a.b", "a.b_c"]), idempotency_keys),
    st.tuples(ids, st.sampled_from(["a.b", "a.b_c"]), idempotency_keys),
)
def test_idempotency_keys_are_alike_only_when_viewer_command_and_key_are(one: Any, two: Any) -> None:
    names = RoomKeys(ROOM)

    assert (names.idempotency(*one) == names.idempotency(*two)) == (one == two)


@pytest.mark.parametrize("character", ["{", "}", "/", ":", " ", "|", "~"])
def test_ids_hold_none_of_the_characters_that_structure_names(character: str) -> None:
    assert re.match(ID_PATTERN, f"a{character}b") is None
