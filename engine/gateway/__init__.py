"""
Sockets and what comes in through them: listener, transport, session, and command → handler.

No task, queue object or timer may belong to a single connection, and no command waits its turn behind another's trip
to the store: a reply is a callback. Rules of rooms are in `engine/rooms/`, key names in `engine/store/keys.py`.
"""
