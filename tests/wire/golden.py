"""
Golden frames: the bytes of every message, as files a person can read.

Decides how they are stored. JSON is stored as it travels, plus a final newline. MessagePack is stored as lines of up to
16 bytes in hexadecimal with the printable characters beside them. `python -m tests.wire.golden` writes the files that
are missing and stops there: a golden file that must change is deleted by hand, which shows in the review.

`frozen/1.0.jsonl` holds the smallest messages of version 1.0, in both codecs, and is never written again.
"""

from pathlib import Path

from protocol.codec import CODECS
from tests.support.wire_examples import golden_values

FOLDER = Path(__file__).parent / "golden"
FROZEN = Path(__file__).parent / "frozen" / "1.0.jsonl"
ENDINGS = {"json": ".json", "msgpack": ".hex"}

_BYTES_PER_LINE = 16


def to_text(codec: str, data: bytes) -> str:
    """Return the text of the golden file for `data`."""
    return data.decode() + "\n" if codec == "json" else to_hex(data)


def from_text(codec: str, text: str) -> bytes:
    """Return the bytes a golden file stands for."""
    return text.removesuffix("\n").encode() if codec == "json" else from_hex(text)


def to_hex(data: bytes) -> str:
    """Return `data` as lines of hexadecimal and printable characters."""
    lines = []
    for start in range(0, len(data), _BYTES_PER_LINE):
        part = data[start : start + _BYTES_PER_LINE]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{part.hex(' '):<{3 * _BYTES_PER_LINE - 1}}  |{shown}|\n")
    return "".join(lines)


def from_hex(text: str) -> bytes:
    """Return the bytes of `to_hex`."""
    return b"".join(bytes.fromhex(line[: 3 * _BYTES_PER_LINE - 1]) for line in text.splitlines())


def path_of(codec: str, name: str) -> Path:
    """Return the golden file of the message `name`, such as `events/likes`."""
    return FOLDER / codec / f"{name}{ENDINGS[codec]}"


def write_missing() -> list[Path]:
    """Write the golden files that do not exist and return their paths."""
    written = []
    for name, value in golden_values().items():
        for codec in CODECS.values():
            path = path_of(codec.name, name)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(to_text(codec.name, codec.encode(value)), encoding="utf-8")
                written.append(path)
    return written


if __name__ == "__main__":
    for written_path in write_missing():
        print(written_path)
