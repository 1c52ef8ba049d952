"""The parts of the benchmarks that decide: statistics, tables, verdicts, what a crowd counts. No I/O."""
