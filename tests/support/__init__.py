"""
What several test folders build with: example messages, servers, clocks, clients.

No test lives here, and no stand-in for the store.
"""
