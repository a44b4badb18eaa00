"""The tables of the database and the rules that it enforces, all of them in one metadata.

A table checks no types, so rows are written from checked values only (``writes.py``)
and what must never be false is a constraint here. ``migrations/`` says the same once more, and a
test holds the two together.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_

from pipeline.store.columns import SOURCES, Row
from pipeline.store.tables.coordination import (
    CONFIGURATIONS,
    EMBARGOES,
    HEARTBEATS,
    LEASES,
    MEMBERS,
    PORTIONS,
    QUOTAS,
    SLOTS,
    UPSTREAMS,
)
from pipeline.store.tables.history import (
    ATTEMPTS,
    BATCHES,
    CONTRACTS,
    EVIDENCE,
    LATE_ATTEMPTS,
    MEASURES,
    PROOFS,
    REQUESTS,
    RUNS,
    SEALS,
)
from pipeline.store.tables.sums import (
    DAY_LOSSES,
    DAYS,
    HEALTH,
    HEALTH_ALARMS,
    HEALTH_BLOCKS,
    LOSSES,
    MONTHS,
    SHEETS,
    TALLIES,
    TIMINGS,
)

# What tells one attempt from all others; of a batch, the one that decided it.
ATTEMPT_KEY, MEASURE_KEY, PROOF_KEY = (
    (table.c.run_id, table.c.fetch, table.c.number) for table in (ATTEMPTS, MEASURES, PROOFS)
)
BATCH_KEY = (BATCHES.c.run_id, BATCHES.c.fetch, BATCHES.c.attempt)


def same(key: Sequence[ColumnElement[Any]], other: Sequence[Any]) -> ColumnElement[bool]:
    """Give the condition that two keys are the same, or that one has these values."""
    return and_(*(column == value for column, value in zip(key, other, strict=True)))


__all__ = [
    "ATTEMPTS",
    "ATTEMPT_KEY",
    "BATCHES",
    "BATCH_KEY",
    "CONFIGURATIONS",
    "CONTRACTS",
    "DAYS",
    "DAY_LOSSES",
    "EMBARGOES",
    "EVIDENCE",
    "HEALTH",
    "HEALTH_ALARMS",
    "HEALTH_BLOCKS",
    "HEARTBEATS",
    "LATE_ATTEMPTS",
    "LEASES",
    "LOSSES",
    "MEASURES",
    "MEASURE_KEY",
    "MEMBERS",
    "MONTHS",
    "PORTIONS",
    "PROOFS",
    "PROOF_KEY",
    "QUOTAS",
    "REQUESTS",
    "RUNS",
    "SEALS",
    "SHEETS",
    "SLOTS",
    "SOURCES",
    "TALLIES",
    "TIMINGS",
    "UPSTREAMS",
    "Row",
    "same",
]
