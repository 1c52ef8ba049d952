"""
The rules of a room, as pure functions and values.

No `await`, clock, socket or store: time and randomness are arguments. What two viewers can race for is not decided
here but in `engine/store/lua/`; the other side may assert the result, but does not decide it again.
"""
