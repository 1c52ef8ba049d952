"""The parts of `tests/chaos` that decide: scripts and verdicts. They judge others, so they are judged here."""
