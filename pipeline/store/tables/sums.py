"""What it adds up to, by run and day: kept when batches are pruned."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)

from pipeline.errors import ErrorName, Phase
from pipeline.health.continuous import HealthTest
from pipeline.models import Severity, Step
from pipeline.store.columns import (
    Packed,
    Row,
    UtcTime,
    WholeText,
    Word,
    filled,
    keys,
    of_a_range,
    one_of,
    unfilled,
)

# What one run got from one source: written when the run ends, kept when its batches are pruned.
# The rows lie in the order of time, so that a window of a long history is read in one go.
TALLIES = Table(
    "tallies",
    Row.metadata,
    *keys(UtcTime, "started_at"),
    *keys(Integer, "run_id"),
    *keys(String, "source"),
    *filled(Boolean, "is_sandbox"),
    *filled(BigInteger, "min", "max"),
    *filled(Integer, "collected", "failed", "deferred", "cancelled"),
    *filled(BigInteger, "numbers"),
    *filled(WholeText, "sum"),
    *filled(Integer, "attempts", "failed_attempts", "retries", "retries_helped"),
    *filled(BigInteger, "wait_us", "exchange_us"),
    Column("fastest_us", BigInteger),
    Column("fastest_attempt", Integer),
    *unfilled(UtcTime, "first_sent_at", "last_sent_at"),
    Column("rule", String),
    *unfilled(Integer, "violations", "violating_attempt"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    # The runs of a source that is rarely wanted are found without a walk over all the others.
    Index(None, "source", "started_at"),
    sqlite_with_rowid=False,
)

# What one run lost at one source, by error and phase; phase is empty where nobody was asked.
LOSSES = Table(
    "losses",
    Row.metadata,
    *keys(UtcTime, "started_at"),
    *keys(Integer, "run_id"),
    *keys(String, "source"),
    *keys(Word(ErrorName), "error"),
    *keys(Word(Phase, none=""), "phase"),
    *filled(Integer, "attempts", "batches"),
    *filled(UtcTime, "first_at", "last_at"),
    *unfilled(Integer, "first_attempt", "last_attempt"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    sqlite_with_rowid=False,
)

# How far the tests of health have come with the numbers of each source and range, in the order of
# the chain. There is one more row where runs were pruned: up to the seal at that position.
HEALTH = Table(
    "health",
    Row.metadata,
    *of_a_range(),
    *keys(Boolean, "is_pruned"),
    *filled(Integer, "position"),
    *filled(UtcTime, "first_at", "last_at"),
    *filled(BigInteger, "numbers", "last", "repeats", "sample", "matches"),
    *filled(LargeBinary, "block"),
    sqlite_with_rowid=False,
)

# In which runs a number came too often, by test and severity.
HEALTH_ALARMS = Table(
    "health_alarms",
    Row.metadata,
    *keys(Integer, "run_id"),
    *of_a_range(),
    *keys(Word(HealthTest), "test"),
    *keys(Word(Severity), "severity"),
    *filled(Integer, "batch"),
    *filled(BigInteger, "position", "alarms", "value", "times"),
    *filled(Integer, "cut_off"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    sqlite_with_rowid=False,
)

# The p-values of each block of numbers, tested once: in the run that brought the last of them.
HEALTH_BLOCKS = Table(
    "health_blocks",
    Row.metadata,
    *of_a_range(),
    *keys(Integer, "block"),
    *filled(Integer, "run_id"),
    *filled(UtcTime, "started_at"),
    *filled(Integer, "n", "most"),
    *(Column(name, Double) for name in ("chi_square", "monobit", "frequency", "runs", "serial")),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    Index(None, "run_id"),
    sqlite_with_rowid=False,
)

# How long the phases took, an hour and a day to a row, so that years of percentiles are quick.
TIMINGS = Table(
    "timings",
    Row.metadata,
    *keys(Word(Step), "step"),
    *keys(UtcTime, "began_at"),
    *keys(String, "source"),
    Column("phases", Packed, nullable=False),
    one_of("step", Step),
)

# What the tallies of a day add up to where all but the run is alike, made when the day is over.
# The rule is empty where there was none; without judgement nobody knows whether it was kept.
DAYS = Table(
    "days",
    Row.metadata,
    *keys(UtcTime, "began_at"),
    *of_a_range(),
    *keys(String, "rule"),
    *keys(Boolean, "is_judged"),
    *filled(Integer, "runs", "answered", "asked"),
    *unfilled(UtcTime, "last_good_at", "last_bad_at"),
    *filled(BigInteger, "collected", "failed", "deferred", "cancelled", "numbers"),
    *filled(WholeText, "sum"),
    *filled(BigInteger, "attempts", "failed_attempts", "retries", "retries_helped"),
    *filled(BigInteger, "wait_us", "exchange_us", "violations"),
    sqlite_with_rowid=False,
)

# What the losses of a day add up to.
DAY_LOSSES = Table(
    "day_losses",
    Row.metadata,
    *keys(UtcTime, "began_at"),
    *keys(String, "source"),
    *keys(Word(ErrorName), "error"),
    *keys(Word(Phase, none=""), "phase"),
    *filled(BigInteger, "attempts", "batches"),
    *filled(UtcTime, "first_at", "last_at"),
    Column("last_attempt", Integer),
    sqlite_with_rowid=False,
)

# What an audit has to know of a day. Where there is a sheet the day is closed, and its sums are
# there as well.
SHEETS = Table("sheets", Row.metadata, *keys(UtcTime, "began_at"), *filled(Packed, "facts"))

# How long the phases took in a month that is over: its days, merged.
MONTHS = Table(
    "months",
    Row.metadata,
    *keys(UtcTime, "began_at"),
    *keys(String, "source"),
    *filled(Packed, "phases"),
)
