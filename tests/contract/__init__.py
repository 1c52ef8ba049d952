"""
One suite for the store, run on every server it promises to work with.

Tests here call `Store` only, never a function or a key by name, and say nothing about one server in particular.
"""
