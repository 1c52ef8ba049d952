"""Unit tests of `engine/rooms/`: pure rules, so only values."""
