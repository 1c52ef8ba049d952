"""
Random inputs and command sequences against rules that must always hold.

A failing example is printed so that it can be repeated, and becomes a named test beside the rule it broke.
"""
