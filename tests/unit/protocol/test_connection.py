"""One connection, both roles: the table is walked, then what each side promises."""

from typing import Any

import pytest

from protocol.codec import CODECS, JSON, Codec
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import JoinRoom, Ping, PostComment
from protocol.connection import (
    CONNECTION_TRANSITIONS,
    ClientConnection,
    ConnectionState,
    Progress,
    Received,
    ServerConnection,
)
from protocol.errors import MalformedFrame, UnexpectedFrame

BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
State = ConnectionState
JOIN = {"cmd": "room.join", "id": 1, "room": "r_88", "token": "t"}
BAD_JOIN = {"cmd": "room.join", "id": 1, "room": "no room"}
PING = {"cmd": "ping", "id": 2}


def connection_in(state: ConnectionState, codec: Codec = JSON) -> ServerConnection:
    connection = ServerConnection(codec)
    if state in (State.JOINING, State.JOINED):
        receive(connection, JOIN, codec)
    if state is State.JOINED:
        connection.joined()
    if state is State.CLOSED:
        connection.closed()
    assert connection.state is state
    return connection


def receive(connection: ServerConnection, value: Any, codec: Codec = JSON) -> Received:
    data = value if isinstance(value, bytes) else codec.encode(value)
    return connection.receive(data, codec.is_text)


#: Kind of frame → the frame.
FRAMES: dict[str, Any] = {
    "join": JOIN,
    "bad join": BAD_JOIN,
    "join without id": {"cmd": "room.join", "room": "r_88", "token": "t"},
    "command": PING,
    "bad command": {"cmd": "comment.send", "id": 3},
    "unknown command": {"cmd": "nope", "id": 3},
    "no id": {"cmd": "ping"},
    "not a map": [5],
    "unreadable": b"\xc1",
    "empty": [],
}

A, J, D, C = State.AWAITING_JOIN, State.JOINING, State.JOINED, State.CLOSED
VIOLATION = CloseCode.PROTOCOL_VIOLATION
#: (state, kind of frame) → (next state, requests, codes of the refusals, close). Everything there is.
TABLE: dict[tuple[ConnectionState, str], tuple[ConnectionState, int, list[str], CloseCode | None]] = {
    (A, "join"): (J, 1, [], None),
    (A, "bad join"): (C, 0, ["bad_command"], VIOLATION),
    (A, "join without id"): (C, 0, ["bad_command"], VIOLATION),
    (A, "command"): (A, 0, ["not_joined"], None),
    (A, "bad command"): (A, 0, ["bad_command"], None),
    (A, "unknown command"): (A, 0, ["unknown_command"], None),
    (A, "no id"): (A, 0, ["bad_command"], None),
    (A, "not a map"): (A, 0, ["bad_command"], None),
    (A, "unreadable"): (A, 0, ["bad_frame"], None),
    (A, "empty"): (A, 0, [], None),
    **{
        (state, kind): result
        for state in (J, D)
        for kind, result in {
            "join": (state, 0, ["already_joined"], None),
            "bad join": (state, 0, ["bad_command"], None),
            "join without id": (state, 0, ["bad_command"], None),
            "command": (state, 1, [], None),
            "bad command": (state, 0, ["bad_command"], None),
            "unknown command": (state, 0, ["unknown_command"], None),
            "no id": (state, 0, ["bad_command"], None),
            "not a map": (state, 0, ["bad_command"], None),
            "unreadable": (state, 0, ["bad_frame"], None),
            "empty": (state, 0, [], None),
        }.items()
    },
    **{(C, kind): (C, 0, [], None) for kind in FRAMES},
}


@BOTH
@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("state", State)
def test_every_frame_in_every_state_does_what_the_table_says(
    codec: Codec, state: ConnectionState, kind: str
) -> None:
    connection = connection_in(state, codec)

    received = receive(connection, FRAMES[kind], codec)

    found = (
        connection.state,
        len(received.requests),
        [refusal.code.value for refusal in received.refusals],
        received.close,
    )
    assert found == TABLE[state, kind]
    assert connection.state is state or connection.state in CONNECTION_TRANSITIONS[state]


def test_steps_of_the_caller_follow_the_table() -> None:
    for state in State:
        connection = connection_in(state)
        if State.JOINED in CONNECTION_TRANSITIONS[state]:
            connection.joined()
            assert connection.state is State.JOINED
        else:
            with pytest.raises(AssertionError):
                connection.joined()
        connection.closed()
        connection.closed()
        assert connection.state is State.CLOSED


@BOTH
@pytest.mark.parametrize("state", [A, J, D])
@pytest.mark.parametrize("kind", ["no id", "not a map", "unreadable"])
def test_third_violation_closes(codec: Codec, state: ConnectionState, kind: str) -> None:
    """docs/protocol.md: "the third in a connection closes it with 4400"."""
    connection = connection_in(state, codec)

    closes = [receive(connection, FRAMES[kind], codec).close for _ in range(3)]

    assert closes == [None, None, CloseCode.PROTOCOL_VIOLATION]
    assert connection.state is State.CLOSED


def test_violations_are_counted_over_kinds_and_across_the_join() -> None:
    connection = ServerConnection(JSON)

    assert receive(connection, b"{").close is None
    receive(connection, JOIN)
    connection.joined()
    assert receive(connection, [PING, {"cmd": "ping"}]).close is None
    last = receive(connection, [PING, 5, PING])

    assert last.close is CloseCode.PROTOCOL_VIOLATION
    assert (len(last.requests), len(last.refusals)) == (1, 1)


def test_third_violation_inside_one_frame_ends_it_there() -> None:
    connection = connection_in(D)

    received = receive(connection, [1, PING, 2, 3, PING])

    assert received.close is CloseCode.PROTOCOL_VIOLATION
    assert (len(received.requests), len(received.refusals)) == (1, 3)


def test_refusals_with_an_id_never_close() -> None:
    connection = connection_in(D)

    for _ in range(10):
        assert receive(connection, FRAMES["bad command"]).close is None
        assert receive(connection, FRAMES["unknown command"]).close is None


def test_commands_behind_a_join_in_flight_are_passed_on_in_order() -> None:
    connection = ServerConnection(JSON)

    received = receive(connection, [JOIN, PING, {"cmd": "room.leave", "id": 3}])

    assert [request.id for request in received.requests] == [1, 2, 3]
    assert received.refusals == []
    assert [request.id for request in receive(connection, PING).requests] == [2]


def test_second_join_in_the_same_frame_is_refused() -> None:
    received = receive(ServerConnection(JSON), [JOIN, {**JOIN, "id": 9}])

    assert [request.id for request in received.requests] == [1]
    assert [(refusal.id, refusal.code) for refusal in received.refusals] == [(9, ErrorCode.ALREADY_JOINED)]


def test_wrong_frame_type_is_a_violation() -> None:
    connection = ServerConnection(JSON)

    received = connection.receive(JSON.encode(JOIN), is_text=False)

    assert [refusal.code for refusal in received.refusals] == [ErrorCode.BAD_FRAME]
    assert connection.state is State.AWAITING_JOIN


# --- the client's side --------------------------------------------------------------------------------------


def fact(seq: int) -> dict[str, Any]:
    return {"ev": "room.muted_all", "seq": seq, "at": 1, "on": True}


def hear(client: ClientConnection, *messages: Any) -> list[Any]:
    """Let the client hear one frame; return ids of replies and `seq` or names of events."""
    heard = client.receive(JSON.encode(list(messages)), True)
    return [message.id if hasattr(message, "id") else message.seq or message.name for message in heard]


def joined_client(seq: int = 10, progress: Progress | None = None) -> ClientConnection:
    client = ClientConnection(JSON, progress)
    command_id, _ = client.send(JoinRoom(room="r_88", token="t"))
    hear(client, {"re": command_id, "ok": {"epoch": "k3v9", "seq": seq, "missed": []}})
    return client


@BOTH
def test_client_numbers_what_it_sends(codec: Codec) -> None:
    client = ClientConnection(codec)

    first, frame = client.send(Ping())
    second, _ = client.send(PostComment(key="abcdefgh", text="好"))

    assert (first, second) == (1, 2)
    assert codec.decode(frame) == {"cmd": "ping", "id": 1}
    assert client.pending == {1: "ping", 2: "comment.send"}


def test_reply_settles_its_command_once() -> None:
    client = joined_client()
    command_id, _ = client.send(Ping())

    assert hear(client, {"re": command_id, "ok": {"now": 1}}) == [command_id]
    assert client.pending == {}
    with pytest.raises(UnexpectedFrame):
        hear(client, {"re": command_id, "ok": {"now": 1}})


def test_refusal_without_an_id_settles_nothing() -> None:
    client = joined_client()
    client.send(Ping())

    assert hear(client, {"re": 0, "err": {"code": "bad_frame"}}) == [0]
    assert len(client.pending) == 1


def test_facts_are_heard_once_and_in_order() -> None:
    client = joined_client(seq=10)

    assert hear(client, fact(9), fact(10), fact(11), fact(11), {"ev": "likes", "total": 1}, fact(12)) == [
        11,
        "likes",
        12,
    ]
    assert (client.progress.seq, client.gap) == (12, False)


def test_gap_stops_facts_until_the_client_resumes() -> None:
    client = joined_client(seq=10)

    assert hear(client, fact(11), fact(13), {"ev": "likes", "total": 1}, fact(12), fact(14)) == [11, "likes"]
    assert client.gap
    assert client.resume() == {"epoch": "k3v9", "seq": 11}

    again = ClientConnection(JSON, client.progress)
    command_id, _ = again.send(JoinRoom(room="r_88", token="t"))
    hear(
        again,
        {"re": command_id, "ok": {"epoch": "k3v9", "seq": 14, "missed": [fact(n) for n in (12, 13, 14)]}},
    )

    assert hear(again, fact(14), fact(15)) == [15]
    assert not again.gap


def test_client_that_never_joined_has_nothing_to_resume() -> None:
    client = ClientConnection(JSON)

    assert client.resume() is None

    command_id, _ = client.send(JoinRoom(room="r_88", token="t"))
    hear(client, {"re": command_id, "err": {"code": "unauthorized", "message": "", "definite": True}})

    assert client.resume() is None


def test_new_epoch_starts_the_count_where_the_snapshot_is() -> None:
    client = joined_client(seq=10)
    again = ClientConnection(JSON, client.progress)
    command_id, _ = again.send(JoinRoom(room="r_88", token="t"))

    hear(again, {"re": command_id, "ok": {"epoch": "new", "seq": 2, "missed": []}})

    assert again.resume() == {"epoch": "new", "seq": 2}
    assert hear(again, fact(3)) == [3]


def test_join_reply_without_a_place_is_malformed() -> None:
    client = ClientConnection(JSON)
    command_id, _ = client.send(JoinRoom(room="r_88", token="t"))

    with pytest.raises(MalformedFrame):
        hear(client, {"re": command_id, "ok": {"seq": 1}})
