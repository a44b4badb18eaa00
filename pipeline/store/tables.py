"""How the values lie on disk: one class per table, and the rules that the database itself keeps.

A ``table=True`` class checks nothing, so rows are written from checked values only (``writes.py``)
and what must never be false is a constraint here. ``migrations/`` says the same once more, and a
test holds the two together.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

from pipeline.errors import Phase
from pipeline.models import Aspect, Fate, RunStatus, Step, Verdict
from pipeline.published import iso_time

PHASE_COLUMNS = {phase: f"{phase}_us" for phase in Phase}

# Migrations find a constraint by its name, so every name can be worked out.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcText(TypeDecorator[datetime]):
    """An aware time: on SQLite the text ``2026-01-31T23:59:59.000000Z``, elsewhere timestamptz.

    All texts have one length, so they sort like the times; and they can be read in the sqlite3
    shell. A naive time is refused with ValueError: nobody could say later which zone it meant.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str] | TypeEngine[datetime]:
        """Choose the text for SQLite only."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(27))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | datetime | None:
        """Turn an aware time into what the database keeps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        if dialect.name != "sqlite":
            return value
        return iso_time(value)

    def process_result_value(
        self, value: str | datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Turn what the database kept into an aware time in UTC."""
        del dialect
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value and value.astimezone(UTC)


def _check(name: str, condition: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


def _one_of(name: str, words: Iterable[StrEnum]) -> CheckConstraint:
    return _check(name, f"{name} IN ({', '.join(map(repr, map(str, words)))})")


def _none_below_zero(*columns: str) -> list[CheckConstraint]:
    return [_check(column, f"{column} >= 0") for column in columns]


class Row(SQLModel):
    """The base of all tables; its own metadata, so that no other SQLModel table can mix in."""

    metadata = MetaData(naming_convention=NAMES)


class RunRow(Row, table=True):
    """One run. Its totals are written when it ends, so that a listing never scans what it did."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("uid"),
        _one_of("status", RunStatus),
        _check("ended", "(status = 'running') = (ended_at IS NULL)"),
        _check(
            "ordered", "status = 'running' OR ordered = collected + failed + deferred + cancelled"
        ),
        *_none_below_zero(
            "clock_us",
            "collected",
            "failed",
            "deferred",
            "cancelled",
            "numbers",
            "attempts",
            "waited_us",
        ),
        # Every start asks for these, and there are few however long the history is.
        Index(
            "ix_runs_running",
            "host",
            sqlite_where=text("status = 'running'"),
        ),
        Index(None, "started_at"),
        # A run id is for ever: somebody may have written it down before the run was pruned.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    uid: str
    host: str
    pid: int
    version: str
    config_digest: str
    config_path: str
    started_at: datetime = Field(sa_type=UtcText)
    ended_at: datetime | None = Field(default=None, sa_type=UtcText)
    status: str
    clock_us: int | None = Field(default=None, sa_type=BigInteger)
    ordered: int = 0
    collected: int = 0
    failed: int = 0
    deferred: int = 0
    cancelled: int = 0
    numbers: int = Field(default=0, sa_type=BigInteger)
    attempts: int = 0
    waited_us: int = Field(default=0, sa_type=BigInteger)


class BatchRow(Row, table=True):
    """One batch: written when the run orders it, completed once when its outcome is known."""

    __tablename__ = "batches"
    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["runs.id"]),
        _one_of("verdict", Verdict),
        _check("n", "n > 0"),
        _check("range", "min <= max"),
        _check("sum", "sum BETWEEN n * min AND n * max"),
        _check(
            "collected",
            "verdict <> 'collected' OR (attempt IS NOT NULL AND sum IS NOT NULL"
            " AND digest IS NOT NULL AND length(digest) = 32 AND error IS NULL)",
        ),
        _check(
            "lost",
            "coalesce(verdict, '') = 'collected'"
            " OR (sum IS NULL AND digest IS NULL AND numbers IS NULL)",
        ),
        _check("failed", "verdict <> 'failed' OR error IS NOT NULL"),
        _check("deferred", "verdict <> 'deferred' OR not_before IS NOT NULL"),
        Index(None, "source", "run_id"),
        # The rows lie in the order in which they are always read; that saves an index as well.
        {"sqlite_with_rowid": False},
    )

    run_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    source: str
    n: int = Field(sa_type=BigInteger)
    min: int = Field(sa_type=BigInteger)
    max: int = Field(sa_type=BigInteger)
    verdict: str | None = None
    fetch: int | None = None
    attempt: int | None = None
    offset: int | None = Field(default=None, sa_type=BigInteger)
    sum: int | None = Field(default=None, sa_type=BigInteger)
    digest: bytes | None = None
    error: str | None = None
    detail: str | None = None
    not_before: datetime | None = Field(default=None, sa_type=UtcText)
    numbers: bytes | None = None  # last, so that a listing never walks over it


class EvidenceRow(Row, table=True):
    """One answer that failed or looked like none before it, kept once however often it came."""

    __tablename__ = "evidence"
    __table_args__ = (*_none_below_zero("body_bytes"),)

    digest: str = Field(primary_key=True)
    status: int
    headers: str
    body: bytes
    body_bytes: int = Field(sa_type=BigInteger)
    first_seen_at: datetime = Field(sa_type=UtcText)


class AttemptRow(Row, table=True):
    """One HTTP exchange. A phase that was not reached is NULL, never 0."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("run_id", "fetch", "number"),
        ForeignKeyConstraint(["run_id"], ["runs.id"]),
        ForeignKeyConstraint(["evidence"], ["evidence.digest"]),
        ForeignKeyConstraint(["request"], ["requests.id"]),
        _check("number", "number > 0"),
        _check("failed", "(error IS NULL) = (phase IS NULL)"),
        _one_of("phase", Phase),
        *_none_below_zero(*PHASE_COLUMNS.values(), "body_bytes", "retry_after_us"),
        # Holds all that the list of failures shows, so that a bad month of a million failures is
        # counted from the index alone; an attempt that went well has no entry and pays nothing.
        Index(
            "ix_attempts_failures",
            "source",
            "error",
            "phase",
            "began_at",
            sqlite_where=text("error IS NOT NULL"),
        ),
        # Without these, each row that a pruning deletes there costs a walk over all attempts.
        Index(
            "ix_attempts_evidence",
            "evidence",
            sqlite_where=text("evidence IS NOT NULL"),
        ),
        Index(None, "request"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: int
    fetch: int
    number: int
    source: str
    began_at: datetime = Field(sa_type=UtcText)
    wait_us: int | None = Field(default=None, sa_type=BigInteger)
    dns_us: int | None = Field(default=None, sa_type=BigInteger)
    connect_us: int | None = Field(default=None, sa_type=BigInteger)
    tls_us: int | None = Field(default=None, sa_type=BigInteger)
    send_us: int | None = Field(default=None, sa_type=BigInteger)
    first_byte_us: int | None = Field(default=None, sa_type=BigInteger)
    body_us: int | None = Field(default=None, sa_type=BigInteger)
    check_us: int | None = Field(default=None, sa_type=BigInteger)
    is_reused: bool
    status: int | None = None
    body_bytes: int | None = Field(default=None, sa_type=BigInteger)
    error: str | None = None
    phase: str | None = None
    detail: str | None = None
    retry_after_us: int | None = Field(default=None, sa_type=BigInteger)
    evidence: str | None = None
    request: int | None = None


# The tables below are never made one row at a time, and a class costs every start 5 ms.

# What was sent: each different request once, secrets replaced by the names of their variables.
REQUESTS = Table(
    "requests",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("method", String, nullable=False),
    Column("url", String, nullable=False),
    Column("headers", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("digest"),
)

# What a source's answers look like, from when to when: a row for each change of an aspect.
CONTRACTS = Table(
    "contracts",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String, nullable=False),
    Column("aspect", String, nullable=False),
    Column("value", String, nullable=False),
    Column("first_at", UtcText, nullable=False),
    Column("last_at", UtcText, nullable=False),
    Column("first_attempt", Integer, nullable=False),
    Column("last_attempt", Integer, nullable=False),
    _one_of("aspect", Aspect),
    Index(None, "source", "aspect", "id"),
)

# What one run got from one source: written when the run ends, kept when its batches are pruned.
# The rows lie in the order of time, so that a window of a long history is read in one go.
TALLIES = Table(
    "tallies",
    Row.metadata,
    Column("started_at", UtcText, primary_key=True),
    Column("run_id", Integer, primary_key=True),
    Column("source", String, primary_key=True),
    Column("min", BigInteger, nullable=False),
    Column("max", BigInteger, nullable=False),
    Column("collected", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("deferred", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("numbers", BigInteger, nullable=False),
    Column("sum", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failed_attempts", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("retries_helped", Integer, nullable=False),
    Column("wait_us", BigInteger, nullable=False),
    Column("exchange_us", BigInteger, nullable=False),
    Column("fastest_us", BigInteger),
    Column("fastest_attempt", Integer),
    Column("first_sent_at", UtcText),
    Column("last_sent_at", UtcText),
    Column("rule", String),
    Column("violations", Integer),
    Column("violating_attempt", Integer),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    # The runs of a source that is rarely wanted are found without a walk over all the others.
    Index(None, "source", "started_at"),
    sqlite_with_rowid=False,
)

# What one run lost at one source, by error and phase; phase is empty where nobody was asked.
LOSSES = Table(
    "losses",
    Row.metadata,
    Column("started_at", UtcText, primary_key=True),
    Column("run_id", Integer, primary_key=True),
    Column("source", String, primary_key=True),
    Column("error", String, primary_key=True),
    Column("phase", String, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("batches", Integer, nullable=False),
    Column("first_at", UtcText, nullable=False),
    Column("last_at", UtcText, nullable=False),
    Column("first_attempt", Integer),
    Column("last_attempt", Integer),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    sqlite_with_rowid=False,
)

# How long the phases took, an hour and a day to a row, so that years of percentiles are quick.
TIMINGS = Table(
    "timings",
    Row.metadata,
    Column("step", String, primary_key=True),
    Column("began_at", UtcText, primary_key=True),
    Column("source", String, primary_key=True),
    Column("phases", String, nullable=False),
    _one_of("step", Step),
)

# The hash chain: each run that ended, and each pruning, adds one link.
SEALS = Table(
    "seals",
    Row.metadata,
    Column("position", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("run_id", Integer),
    Column("sealed_at", UtcText, nullable=False),
    Column("record", String, nullable=False),
    Column("contents", String, nullable=False),
    Column("chain", String, nullable=False),
    Column("pruned_by", Integer),
    _check("kind", "kind IN ('run', 'pruning')"),
    _check("run", "(kind = 'run') = (run_id IS NOT NULL)"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    ForeignKeyConstraint(["pruned_by"], ["seals.position"]),
    UniqueConstraint("run_id"),
    sqlite_autoincrement=True,
)

# What the schedule promised, and what became of it; no fate yet: claimed, and its run goes on.
SLOTS = Table(
    "slots",
    Row.metadata,
    Column("schedule", String, primary_key=True),
    Column("due_at", UtcText, primary_key=True),
    Column("fate", String),
    Column("run_id", Integer),
    Column("host", String),
    Column("claimed_at", UtcText, nullable=False),
    Column("late_us", BigInteger),
    _one_of("fate", Fate),
    *_none_below_zero("late_us"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    Index("ix_slots_claimed", "schedule", sqlite_where=text("fate IS NULL")),
)

# What outlives a process about one upstream: when it may be asked next, and how many attempts in a
# row failed there for reasons of the path or the upstream.
UPSTREAMS = Table(
    "upstreams",
    Row.metadata,
    Column("name", String, primary_key=True),
    Column("next_at", UtcText),
    Column("failures", Integer, nullable=False),
    *_none_below_zero("failures"),
)

# Until when an upstream must not be asked, why, and which source was told so.
EMBARGOES = Table(
    "embargoes",
    Row.metadata,
    Column("upstream", String, primary_key=True),
    Column("source", String, nullable=False),
    Column("until", UtcText, nullable=False),
    Column("why", String, nullable=False),
    Column("said_at", UtcText, nullable=False),
)

# How much of an upstream's allowance is spent in the period that is named.
QUOTAS = Table(
    "quotas",
    Row.metadata,
    Column("upstream", String, primary_key=True),
    Column("unit", String, primary_key=True),
    Column("period", String, nullable=False),
    Column("spent", BigInteger, nullable=False),
    *_none_below_zero("spent"),
)

RUNS = Row.metadata.tables["runs"]
BATCHES = Row.metadata.tables["batches"]
EVIDENCE = Row.metadata.tables["evidence"]
ATTEMPTS = Row.metadata.tables["attempts"]
