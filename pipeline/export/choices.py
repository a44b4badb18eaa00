"""What can be exported, and as what. Next to nothing to import: every start of the program does."""

from enum import StrEnum


class Records(StrEnum):
    """What the rows are."""

    NUMBERS = "numbers"
    BATCHES = "batches"
    ATTEMPTS = "attempts"
    RUNS = "runs"
    PROOFS = "proofs"


class FileFormat(StrEnum):
    """How they are spelled; the name is the usual ending of such a file, unless it is bytes."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    BYTES = "bytes"
