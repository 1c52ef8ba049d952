"""
The Liveroom service: gateway, fan-out, rooms, store, merchant API, pages, command line.

What stands here serves rooms. The wire is in `protocol/`, which knows nothing of this package; the load test never
imports it. Imports point one way, from `rooms` up to `cli`: docs/architecture.md draws the arrows, tests/test_layout.py
checks them.
"""
