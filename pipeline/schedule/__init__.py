"""The slots that a configuration promises: when they are due, and what becomes of each."""
