"""
Bugs that must not come back, each under its own name.

`test_public_bugs.py`: bugs seen in other people's published code for seckill, red packets, ranks and delivery.
"""
