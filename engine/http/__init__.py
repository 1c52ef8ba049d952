"""
HTTP: the merchant API, the pages, health and metrics.

Handlers read a request, call the store or the same console commands that a streamer's connection uses, and write a
response. Nothing is decided here that a WebSocket client would get decided differently.
"""
