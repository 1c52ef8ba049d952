"""
Everything rooms share: atomic functions on Redis or Valkey, and the connection that calls them.

The only place that spells key names and, with `engine/fanout/bus.py`, the only one that knows the client library. One
method of `Store` is one atomic step. Nothing here knows connections, frames or roles of a token beyond their rank.
"""
