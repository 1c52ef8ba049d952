"""Thousands of viewers against a room, and an oracle that says whether each of them got what was promised."""
