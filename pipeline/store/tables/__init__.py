"""The tables of the database and the rules that it enforces, all of them in one metadata.

A table checks no types, so rows are written from checked values only (``writes.py``)
and what must never be false is a constraint here. ``migrations/`` says the same once more, and a
test holds the two together.
"""

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

__all__ = [
    "ATTEMPTS",
    "BATCHES",
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
    "MEMBERS",
    "MONTHS",
    "PORTIONS",
    "PROOFS",
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
]
