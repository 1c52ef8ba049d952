"""Unit tests of `engine/gateway/`, with bytes in and bytes out and no real socket where none is needed."""
