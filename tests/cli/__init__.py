"""The commands, each called in this process; ``tests/test_command.py`` starts real ones."""
