"""What happened: runs, batches, attempts and what belongs to them, and the chain of seals."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    text,
)

from pipeline.errors import ErrorName, Phase
from pipeline.models import Aspect, ProofWord, RunStatus, Verdict
from pipeline.store.columns import (
    PHASE_COLUMNS,
    Code,
    Headers,
    Hex,
    Packed,
    Row,
    SourceName,
    UtcTime,
    Word,
    check,
    counted,
    filled,
    keys,
    none_below_zero,
    one_of,
    unfilled,
)

# The runs. The totals are written when a run ends, so that a listing never scans what it did.
RUNS = Table(
    "runs",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(String, "uid", "host"),
    *filled(Integer, "pid"),
    *filled(String, "version", "config_digest", "config_path"),
    *filled(Boolean, "is_sandbox"),
    *filled(UtcTime, "started_at"),
    Column("ended_at", UtcTime),
    *filled(Word(RunStatus), "status"),
    Column("clock_us", BigInteger),
    *counted(Integer, "ordered", "collected", "failed", "deferred", "cancelled"),
    *counted(BigInteger, "numbers"),
    *counted(Integer, "attempts"),
    *counted(BigInteger, "waited_us"),
    Column("clock_offset_us", BigInteger),
    UniqueConstraint("uid"),
    one_of("status", RunStatus),
    check("ended", "(status = 'running') = (ended_at IS NULL)"),
    check("ordered", "status = 'running' OR ordered = collected + failed + deferred + cancelled"),
    *none_below_zero(
        *("clock_us", "collected", "failed", "deferred", "cancelled"),
        *("numbers", "attempts", "waited_us"),
    ),
    # Every start asks for these, and there are few however long the history is.
    Index("ix_runs_running", "host", sqlite_where=text("status = 'running'")),
    Index(None, "started_at"),
    # A run id is for ever: somebody may have written it down before the run was pruned.
    sqlite_autoincrement=True,
)

# The batches: each is written when the run orders it, and completed once when its outcome is known.
BATCHES = Table(
    "batches",
    Row.metadata,
    *keys(Integer, "run_id", "number"),
    *filled(SourceName, "source"),
    *filled(Boolean, "is_sandbox"),
    *filled(BigInteger, "n", "min", "max"),
    Column("verdict", Code(Verdict)),
    *unfilled(Integer, "fetch", "attempt"),
    *unfilled(BigInteger, "offset", "sum"),
    Column("digest", LargeBinary),
    Column("error", Word(ErrorName)),
    Column("detail", String),
    Column("not_before", UtcTime),
    Column("numbers", LargeBinary),  # last, so that a listing never walks over it
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    check("verdict", f"verdict BETWEEN 1 AND {len(Verdict)}"),
    check("n", "n > 0"),
    check("range", "min <= max"),
    check("sum", "sum BETWEEN n * min AND n * max"),
    check(
        "collected",
        "verdict <> 1 OR (attempt IS NOT NULL AND sum IS NOT NULL"
        " AND digest IS NOT NULL AND error IS NULL)",
    ),
    check("digest", "length(digest) = CASE WHEN numbers IS NULL THEN 32 ELSE 8 END"),
    check(
        "lost", "coalesce(verdict, 0) = 1 OR (sum IS NULL AND digest IS NULL AND numbers IS NULL)"
    ),
    check("failed", "verdict <> 2 OR error IS NOT NULL"),
    check("deferred", "verdict <> 3 OR not_before IS NOT NULL"),
    # The rows lie in the order in which they are always read. There is no index: the batches of a
    # source are found by the runs that asked it, which its tallies name.
    sqlite_with_rowid=False,
)

# The answers that failed or looked like none before them, kept once however often they came.
EVIDENCE = Table(
    "evidence",
    Row.metadata,
    *keys(String, "digest"),
    *filled(Integer, "status"),
    *filled(Headers, "headers"),
    *filled(LargeBinary, "body"),
    *filled(BigInteger, "body_bytes"),
    *filled(UtcTime, "first_seen_at"),
    *none_below_zero("body_bytes"),
)

# The HTTP exchanges. A phase that was not reached is NULL, never 0. The member is the worker that
# asked, of those that shared the run; what a run asked by itself has none. It is the last column,
# and no foreign key, so that an old table gets it without being written anew.
ATTEMPTS = Table(
    "attempts",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(Integer, "run_id", "fetch", "number"),
    *filled(SourceName, "source"),
    *filled(UtcTime, "began_at"),
    *unfilled(BigInteger, *PHASE_COLUMNS.values()),
    *filled(Boolean, "is_reused"),
    Column("status", Integer),
    Column("body_bytes", BigInteger),
    Column("error", Word(ErrorName)),
    Column("phase", Word(Phase)),
    Column("detail", String),
    Column("retry_after_us", BigInteger),
    Column("evidence", String),
    *unfilled(Integer, "request", "member"),
    UniqueConstraint("run_id", "fetch", "number"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    ForeignKeyConstraint(["evidence"], ["evidence.digest"]),
    # A file has neither this nor the index: one writer at a time, and `db prune` walks once.
    ForeignKeyConstraint(["request"], ["requests.id"]).ddl_if(dialect="postgresql"),
    check("number", "number > 0"),
    check("failed", "(error IS NULL) = (phase IS NULL)"),
    one_of("phase", Phase),
    *none_below_zero(*PHASE_COLUMNS.values(), "body_bytes", "retry_after_us"),
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
    Index("ix_attempts_evidence", "evidence", sqlite_where=text("evidence IS NOT NULL")),
    Index(None, "request").ddl_if(dialect="postgresql"),
)

# Attempts that came to the books when their run had ended and was sealed: no part of it, and of no
# sum. In facts is all of it, as in a file of what was set aside; collected is how many batches it
# would have brought.
LATE_ATTEMPTS = Table(
    "late_attempts",
    Row.metadata,
    *keys(Integer, "run_id", "fetch"),
    *keys(UtcTime, "began_at"),
    *filled(String, "source"),
    Column("member", Integer),
    Column("error", Word(ErrorName)),
    *filled(Integer, "collected"),
    *filled(UtcTime, "came_at"),
    Column("file", String),
    *filled(Packed, "facts"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    sqlite_with_rowid=False,
)

# What was sent: each different request once, secrets replaced by the names of their variables.
REQUESTS = Table(
    "requests",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(String, "digest", "method", "url"),
    *filled(Headers, "headers"),
    *filled(LargeBinary, "body"),
    UniqueConstraint("digest"),
)

# What a source's answers look like, from when to when: a row for each change of an aspect.
CONTRACTS = Table(
    "contracts",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(String, "source"),
    *filled(Word(Aspect), "aspect"),
    *filled(String, "value"),
    *filled(UtcTime, "first_at", "last_at"),
    *filled(Integer, "first_attempt", "last_attempt"),
    one_of("aspect", Aspect),
    Index(None, "source", "aspect", "id"),
)

# What an answer says of its numbers beside them, such as a Bell value, and what is wanted of it.
MEASURES = Table(
    "measures",
    Row.metadata,
    *keys(Integer, "run_id", "fetch", "number"),
    *keys(String, "name"),
    *filled(Float, "value"),
    Column("at_least", Float),
    ForeignKeyConstraint(
        ["run_id", "fetch", "number"], ["attempts.run_id", "attempts.fetch", "attempts.number"]
    ),
    sqlite_with_rowid=False,
)

# What sources signed, whole: the numbers of all batches that the attempt decided follow from it.
PROOFS = Table(
    "proofs",
    Row.metadata,
    *keys(Integer, "run_id", "fetch", "number"),
    *filled(String, "scheme", "key_id"),
    *filled(BigInteger, "serial"),
    *filled(UtcTime, "made_at"),
    *filled(LargeBinary, "message", "signature"),
    *filled(Word(ProofWord), "word"),
    *filled(Boolean, "is_expanded"),
    one_of("word", ProofWord),
    ForeignKeyConstraint(
        ["run_id", "fetch", "number"], ["attempts.run_id", "attempts.fetch", "attempts.number"]
    ),
    sqlite_with_rowid=False,
)

# The hash chain: each run that ended, and each pruning, adds one link.
SEALS = Table(
    "seals",
    Row.metadata,
    Column("position", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("run_id", Integer),
    Column("sealed_at", UtcTime, nullable=False),
    *filled(Hex, "record", "contents", "chain"),
    Column("pruned_by", Integer),
    check("kind", "kind IN ('run', 'pruning')"),
    check("run", "(kind = 'run') = (run_id IS NOT NULL)"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
    ForeignKeyConstraint(["pruned_by"], ["seals.position"]),
    UniqueConstraint("run_id"),
    # How many were pruned, and which, without a walk over all the others.
    Index("ix_seals_pruned", "pruned_by", sqlite_where=text("pruned_by IS NOT NULL")),
    sqlite_autoincrement=True,
)
