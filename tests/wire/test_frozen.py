"""
Old frames still decode.

`frozen/1.0.jsonl` holds, in both codecs, every message of version 1.0 with nothing but its required fields. It is
never written again: a line that no longer decodes is a broken promise ("fields may be added, never renamed, reused or
removed"), and so is a new required field.
"""

import hashlib
import json

import msgspec
import pytest

from protocol.codec import CODECS
from protocol.commands import COMMANDS
from protocol.events import EVENTS
from protocol.frames import Reply, Request, Said, read_commands, read_messages
from protocol.replies import REPLIES, ErrorBody
from tests.wire.golden import FROZEN

LINES = [json.loads(line) for line in FROZEN.read_text(encoding="utf-8").splitlines()]
FROZEN_SHA256 = "049abd1d7946c2b82ae813046ea36053e56786fcb85ed45a5ccae52bcaa66d43"


def frames(line: dict[str, str]) -> dict[str, bytes]:
    return {"json": line["json"].encode(), "msgpack": bytes.fromhex(line["msgpack"])}


def lines_of(what: str) -> pytest.MarkDecorator:
    chosen = [line for line in LINES if line["what"] == what]
    return pytest.mark.parametrize("line", chosen, ids=[line["name"] for line in chosen])


def test_frozen_frames_were_not_touched() -> None:
    assert hashlib.sha256(FROZEN.read_bytes()).hexdigest() == FROZEN_SHA256


def test_frozen_frames_cover_version_1_0() -> None:
    names = {what: {line["name"] for line in LINES if line["what"] == what} for what in ("command", "event")}

    assert (len(names["command"]), len(names["event"])) == (36, 30)
    assert names["command"] <= set(COMMANDS)
    assert names["event"] <= set(EVENTS)


@pytest.mark.parametrize("codec_name", sorted(CODECS))
@lines_of("command")
def test_old_command_is_still_a_command(codec_name: str, line: dict[str, str]) -> None:
    codec = CODECS[codec_name]

    [entry] = read_commands(codec, frames(line)[codec_name], codec.is_text)

    assert isinstance(entry, Request)
    assert entry.command.name() == line["name"]


@pytest.mark.parametrize("codec_name", sorted(CODECS))
@lines_of("event")
def test_old_event_is_still_an_event(codec_name: str, line: dict[str, str]) -> None:
    codec = CODECS[codec_name]

    [said] = read_messages(codec, frames(line)[codec_name], codec.is_text)

    assert isinstance(said, Said)
    event = msgspec.convert(said.body, EVENTS[line["name"]])
    assert event.name() == line["name"]


@pytest.mark.parametrize("codec_name", sorted(CODECS))
@lines_of("reply")
def test_old_reply_is_still_a_reply(codec_name: str, line: dict[str, str]) -> None:
    codec = CODECS[codec_name]

    [reply] = read_messages(codec, frames(line)[codec_name], codec.is_text)

    assert isinstance(reply, Reply)
    if line["name"] == "error":
        assert msgspec.convert(reply.err, ErrorBody).code == "muted"
    else:
        assert isinstance(msgspec.convert(reply.ok, REPLIES[line["name"]]), REPLIES[line["name"]])
