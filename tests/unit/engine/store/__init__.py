"""Unit tests of `engine/store/` as far as no server is needed: batching, key names, command lines, versions."""
