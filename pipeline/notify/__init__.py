"""Notifications about a run: ping, metrics file, command, traces. None can harm the run.

Every function here is bounded in time and raises nothing: a failure comes back as one line.
``notifier`` decides who is told what.
"""
