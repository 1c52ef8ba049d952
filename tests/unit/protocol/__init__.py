"""Unit tests of `protocol/`: every command, event, reply, limit and code, and the generated schemas."""
