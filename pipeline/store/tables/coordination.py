"""What processes must know of one another and of the upstreams; no history, but for the workers."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    text,
)

from pipeline.models import Fate
from pipeline.store.columns import (
    Row,
    UtcTime,
    Word,
    check,
    filled,
    keys,
    none_below_zero,
    one_of,
    unfilled,
)

# The signs of life of the runs that go on, a row each: until when it is to end, when it was heard
# last, and since when somebody has taken it for dead; and the lock that it is present with, which
# only its own kernel can see.
HEARTBEATS = Table(
    "heartbeats",
    Row.metadata,
    *keys(Integer, "run_id"),
    Column("presence", String),
    *filled(UtcTime, "until", "seen_at"),
    Column("suspected_at", UtcTime),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)

# What the schedule promised, and what became of it; no fate yet: claimed, and its run goes on.
# A gap is one row: so many slots from due_at to last_due_at, all missed.
SLOTS = Table(
    "slots",
    Row.metadata,
    *keys(String, "schedule"),
    *keys(UtcTime, "due_at"),
    Column("fate", Word(Fate)),
    Column("run_id", Integer),
    Column("host", String),
    Column("claimed_at", UtcTime, nullable=False),
    Column("late_us", BigInteger),
    Column("last_due_at", UtcTime),
    Column("slots", BigInteger),
    one_of("fate", Fate),
    *none_below_zero("late_us"),
    check("gap", "(last_due_at IS NULL) = (slots IS NULL)"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    Index("ix_slots_claimed", "schedule", sqlite_where=text("fate IS NULL")),
    Index("ix_slots_gaps", "schedule", sqlite_where=text("last_due_at IS NOT NULL")),
    sqlite_with_rowid=False,
)

# The limits in force, as JSON, once for each configuration and version of the program that ran: a
# run names both. Not sealed: nothing is judged by them but by people.
CONFIGURATIONS = Table(
    "configurations",
    Row.metadata,
    *keys(String, "digest", "version"),
    Column("limits", String, nullable=False),
)

# What outlives a process about one upstream: when it may be asked next, by a clock that showed
# taken_at then, and how many attempts in a row failed there for reasons of the path or the
# upstream.
UPSTREAMS = Table(
    "upstreams",
    Row.metadata,
    *keys(String, "name"),
    *unfilled(UtcTime, "next_at", "taken_at"),
    Column("failures", Integer, nullable=False),
    *none_below_zero("failures"),
)

# What only one process of all machines may have, and until when, by the server's clock: see leases.
LEASES = Table(
    "leases",
    Row.metadata,
    *keys(String, "name"),
    *filled(String, "held_by"),
    *filled(DateTime(timezone=True), "since", "until"),
)

# The workers that are here and those that were, for attempts name them; and when each was heard
# last, by the server's clock.
MEMBERS = Table(
    "members",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(String, "host"),
    *filled(Integer, "pid"),
    *filled(String, "version"),
    *filled(Integer, "lanes"),
    *filled(DateTime(timezone=True), "since", "seen_at"),
    Column("left_at", DateTime(timezone=True)),
)

# A stretch of the batches of one source in a run that machines share, by their numbers: which
# process had it last, since when, and when it was done; why a process left it to others, if none
# has had it since. Of those with one lock one at a time goes
# on; the lowest rank goes first.
PORTIONS = Table(
    "portions",
    Row.metadata,
    *keys(Integer, "run_id", "first"),
    *filled(Integer, "last"),
    *filled(String, "source"),
    Column("lock", String),
    *filled(Integer, "rank"),
    Column("host", String),
    Column("pid", Integer),
    *unfilled(DateTime(timezone=True), "began_at", "ended_at"),
    Column("refusal", String),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    Index("ix_portions_open", "run_id", sqlite_where=text("ended_at IS NULL")),
)

# Until when an upstream must not be asked, why, and which source was told so.
EMBARGOES = Table(
    "embargoes",
    Row.metadata,
    *keys(String, "upstream"),
    Column("source", String, nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("why", String, nullable=False),
    Column("said_at", UtcTime, nullable=False),
)

# How much of an upstream's allowance is spent in the period that is named.
QUOTAS = Table(
    "quotas",
    Row.metadata,
    *keys(String, "upstream", "unit"),
    Column("period", String, nullable=False),
    Column("spent", BigInteger, nullable=False),
    *none_below_zero("spent"),
)
