"""The table of a room's life."""

from collections import deque

import pytest

from engine.rooms.lifecycle import ROOM_TRANSITIONS, STEPS
from protocol.codes import RoomState
from protocol.commands import COMMANDS


def test_every_state_is_in_the_table() -> None:
    assert set(ROOM_TRANSITIONS) == set(RoomState)


@pytest.mark.parametrize("name", STEPS)
def test_step_of_a_command_is_in_the_table(name: str) -> None:
    step = STEPS[name]

    assert name in COMMANDS
    for origin in step.origins:
        assert step.target in ROOM_TRANSITIONS[origin]


def test_every_transition_but_settling_has_exactly_one_command() -> None:
    asked = [(origin, step.target) for step in STEPS.values() for origin in step.origins]
    wanted = [(origin, target) for origin, targets in ROOM_TRANSITIONS.items() for target in targets]

    assert len(set(asked)) == len(asked)
    assert set(wanted) - set(asked) == {(RoomState.CLOSING, RoomState.CLOSED)}
    assert set(asked) <= set(wanted)


def test_closed_is_the_only_end_and_reached_from_everywhere() -> None:
    assert [state for state, targets in ROOM_TRANSITIONS.items() if not targets] == [RoomState.CLOSED]
    for start in RoomState:
        seen, waiting = {start}, deque([start])
        while waiting:
            for target in ROOM_TRANSITIONS[waiting.popleft()] - seen:
                seen.add(target)
                waiting.append(target)
        assert RoomState.CLOSED in seen


def test_no_way_leads_back_from_closing() -> None:
    assert ROOM_TRANSITIONS[RoomState.CLOSING] == {RoomState.CLOSED}
