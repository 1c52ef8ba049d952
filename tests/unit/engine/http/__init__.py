"""Unit tests of `engine/http/`: statuses, problem documents, headers."""
