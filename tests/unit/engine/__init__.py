"""Unit tests of `engine/`, one file per module, and of what the README promises about its settings."""
