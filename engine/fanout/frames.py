"""
One flush → the frames that carry it, each built once however many viewers read it.

Decides in which forms a batch of events is written: per codec, and per codec once more deflated for those who
negotiated permessage-deflate with a window of at least `DEFLATE_WINDOW_BITS`. Nothing is kept between two batches, so
the deflated bytes are the same for everybody and can be shared. Everybody may always be sent the plain form, which is
what a batch gets that is too small to gain, or so large that deflating it would hold the loop.

Does not decide who is sent it (`audience.py`).

Bounds: a batch is deflated from 256 bytes to 256 KiB.

Source: RFC 7692 §7.2.1; docs/decisions/0015-shared-deflate.md.
"""

import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

from protocol.codec import transcode

#: Window of the deflated frames (bits): a peer that asked for a smaller one gets the plain form.
DEFLATE_WINDOW_BITS: Final = 12
DEFLATE_BYTES_MIN: Final = 256
DEFLATE_BYTES_MAX: Final = 256 * 1024
_LEVEL: Final = 6
#: Fits the window; zlib's default would clear 256 KiB for each batch.
_MEMORY_LEVEL: Final = 5
#: RFC 7692 §7.2.1: what a flush ends with, and what is left out of the message.
_TAIL_BYTES: Final = 4


class Form(NamedTuple):
    """How a viewer is written to."""

    #: "json" or "msgpack".
    codec_name: str
    #: Whether deflated frames can be read.
    deflated: bool


class Frames:
    """The frames of one batch."""

    __slots__ = ("_build_frame", "_built", "_payload", "_plain")

    def __init__(self, payload: bytes, build_frame: Callable[..., bytes]) -> None:
        """
        Prepare; a frame is built when the first viewer needs it.

        Args:
            payload: The batch, as JSON.
            build_frame: `build_frame(payload, text=…, compressed=…)` of the gateway.
        """
        self._payload = payload
        self._build_frame = build_frame
        self._built: dict[Form, bytes] = {}
        self._plain: dict[str, bytes] = {}

    def of(self, form: Form) -> bytes:
        """Return the frame for viewers who are written to in `form`."""
        frame = self._built.get(form)
        if frame is None:
            frame = self._built[form] = self._build(form)
        return frame

    def _build(self, form: Form) -> bytes:
        text = form.codec_name == "json"
        payload = self._payload if text else self._transcoded(form.codec_name)
        if form.deflated:
            deflated = deflate(payload)
            if deflated is not None:
                return self._build_frame(deflated, text=text, compressed=True)
            return self.of(Form(form.codec_name, deflated=False))
        return self._build_frame(payload, text=text)

    def _transcoded(self, codec_name: str) -> bytes:
        payload = self._plain.get(codec_name)
        if payload is None:
            payload = self._plain[codec_name] = transcode(self._payload)
        return payload


def deflate(payload: bytes) -> bytes | None:
    """Return `payload` deflated as the body of one message, or None when it is better sent as it is."""
    if not DEFLATE_BYTES_MIN <= len(payload) <= DEFLATE_BYTES_MAX:
        return None
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, _MEMORY_LEVEL)
    deflated = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return deflated[:-_TAIL_BYTES] if len(deflated) - _TAIL_BYTES < len(payload) else None
