"""Unit tests of `engine/fanout/`: cadence, thinning, slow viewers. Time is an argument, never waited for."""
