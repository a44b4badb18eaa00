"""Telling others about a run, each way optional, and none able to harm it.

Every function here is bounded in time and raises nothing: what went wrong comes back as one line.
When to tell whom is decided by the caller.
"""
