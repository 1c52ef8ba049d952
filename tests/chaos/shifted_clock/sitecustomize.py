"""
Puts the clock of a Python process an hour ahead, where no library can do it from outside.

Python imports this by its name when it starts, if the folder is on its path. The monotonic clock stays as it is.
"""

import time

_AHEAD_S = 3_600
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _AHEAD_S
time.time_ns = lambda: _time_ns() + _AHEAD_S * 1_000_000_000
