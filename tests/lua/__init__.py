"""
The functions of `engine/store/lua/`, one file per Lua file, on a real server.

Replies, refusals and invariants of each function as its header states them, without the Python that calls them.
"""
