"""Kills on real parts, at each step of an operation: a proxy holds a message while one of the parts is killed.

`kills.local_kills` is the whole of it.
"""
