"""Planted bugs: does the load test's oracle name them?"""
