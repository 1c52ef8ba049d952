"""Servers that are measured beside the engine, each a program of its own that prints the port it listens on."""
