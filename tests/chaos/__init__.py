"""
Chaos: a live room with a sale, and one fault after the other.

A program, not tests: `python -m tests.chaos --seed 1` plays every fault of `faults.py` against real processes and
prints what became of the viewers, the orders and the service. Nothing here is collected by pytest. The seed decides
the plan of the crowd and the moment of each fault, so a failure can be played again. Source: docs/chaos.md.
"""
