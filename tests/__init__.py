"""
The tests, one folder per kind of proof.

Every folder is a package, so that `tests.unit.protocol` never shadows `protocol`. Warnings are errors and asyncio's
debug mode is on. Tests may import anything; the product imports nothing from here.
"""
