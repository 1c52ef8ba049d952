"""
The real process over a real socket: what an operator, a viewer or a browser sees.

Nothing of the engine is called directly here; a test starts it and talks to it from outside.
"""
