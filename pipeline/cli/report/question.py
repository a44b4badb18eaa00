"""What a person said about what a report is to be of."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.cli.options import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The options of a report, unchecked; None: not given.

    Attributes:
        looks_back: how far, without *since*; None: to the first run.
        run: a number or ``last``.
        limit: of runs or batches.
    """

    config: Path | None = None
    since: datetime | None = None
    until: datetime | None = None
    looks_back: timedelta | None = None
    source: str | None = None
    run: str | None = None
    limit: int | None = None
    shape: Shape = Shape.TEXT
