"""
The Liveroom wire protocol, version 1.

Pure: the standard library, the codecs and msgspec. Nothing here opens a socket, reads a clock or imports
asyncio. `docs/protocol.md` is the prose; this package is what both sides run.
"""
