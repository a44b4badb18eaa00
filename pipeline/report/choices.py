"""What can be reported. Nothing is imported here: every start of the program reads it."""

from enum import StrEnum


class Report(StrEnum):
    """What a report is about."""

    RUNS = "runs"
    BATCHES = "batches"
    TIMINGS = "timings"
    ERRORS = "errors"
    NUMBERS = "numbers"
    HEALTH = "health"
    SOURCES = "sources"
    SLOTS = "slots"
    WORKERS = "workers"
