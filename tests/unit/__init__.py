"""
One file per module, mirroring the source tree; no server and no network.

A module that cannot be tested without them is tested in `lua/`, `contract/`, `faults/` or `acceptance/`.
"""
