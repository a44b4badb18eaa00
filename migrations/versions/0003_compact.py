"""Keep moments as microseconds on SQLite, digests of seals as bytes, histograms compressed."""

import json
import re
import zlib
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

from alembic import op
from sqlalchemy import Connection, text

revision = "0003"
down_revision = "0002"

MOMENT, DIGEST, PHASES = "moment", "digest", "phases"
COLUMNS = {
    "runs": {MOMENT: ("started_at", "ended_at")},
    "batches": {MOMENT: ("not_before",)},
    "evidence": {MOMENT: ("first_seen_at",)},
    "attempts": {MOMENT: ("began_at",)},
    "contracts": {MOMENT: ("first_at", "last_at")},
    "tallies": {MOMENT: ("started_at", "first_sent_at", "last_sent_at")},
    "losses": {MOMENT: ("started_at", "first_at", "last_at")},
    "timings": {MOMENT: ("began_at",), PHASES: ("phases",)},
    "seals": {MOMENT: ("sealed_at",), DIGEST: ("record", "contents", "chain")},
    "heartbeats": {MOMENT: ("until", "seen_at")},
    "slots": {MOMENT: ("due_at", "claimed_at", "last_due_at")},
    "upstreams": {MOMENT: ("next_at", "taken_at")},
    "embargoes": {MOMENT: ("until", "said_at")},
}
OLD_TYPES = {MOMENT: "VARCHAR(27)", DIGEST: "VARCHAR", PHASES: "VARCHAR"}
NEW_TYPES = {MOMENT: "BIGINT", DIGEST: "BLOB", PHASES: "BLOB"}

# What is damaged stays as it is, to be found as before.
TO_NEW = {
    MOMENT: "coalesce(strftime('%s', substr({0}, 1, 19)) * 1000000"
    " + CAST(substr({0}, 21, 6) AS INTEGER), {0})",
    DIGEST: "from_hex({0})",
    PHASES: "pack({0})",
}
TO_OLD = {
    MOMENT: "iif(typeof({0}) = 'integer', strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000, 'unixepoch')"
    " || printf('.%06dZ', {0} % 1000000), {0})",
    DIGEST: "to_hex({0})",
    PHASES: "unpack({0})",
}

VIEWS = {  # for SQLite alone: a server shows its moments by itself
    "run_list": """
CREATE VIEW run_list AS
SELECT
    id AS run_id, {started_at}, status, clock_us,
    ordered, collected, failed, deferred, cancelled, numbers, attempts,
    waited_us AS exchange_us, host, version, {ended_at}, is_sandbox
FROM runs
""",
    "batch_list": """
CREATE VIEW batch_list AS
SELECT
    batches.run_id, 'w' || batches.number AS batch, batches.number AS batch_number,
    batches.source, is_sandbox, verdict, n, sum, min, max, batches.error, batches.detail,
    {not_before}, batches."fetch", attempts.id AS attempt_id, attempt AS attempt_number
FROM batches
LEFT JOIN attempts
ON attempts.run_id = batches.run_id
AND attempts."fetch" = batches."fetch" AND attempts.number = batches.attempt
""",
    "failed_attempts": """
CREATE VIEW failed_attempts AS
SELECT
    id AS attempt_id, run_id, source, {began_at}, error, phase,
    CASE
        WHEN error IN (
            'dns', 'connect_refused', 'connect_timeout', 'unreachable', 'write_timeout',
            'intercepted'
        )
        THEN 'path'
        WHEN error IN ('rate_limited', 'quota_exhausted') THEN 'policy'
        WHEN error IN ('content_type', 'not_json', 'schema', 'count', 'range', 'stale')
        THEN 'contract'
        WHEN error IN ('unauthorized', 'http_4xx', 'deadline', 'cancelled', 'internal') THEN 'ours'
        ELSE 'upstream'
    END AS whose,
    status AS http_status, detail, "fetch", number AS attempt_number, evidence
FROM attempts
WHERE error IS NOT NULL
""",
    "source_days": """
CREATE VIEW source_days AS
SELECT
    {day} AS day, source, is_sandbox, count(*) AS runs,
    sum(collected + failed + deferred + cancelled) AS ordered, sum(collected) AS collected,
    round(
        1.0 * sum(collected) / nullif(sum(collected + failed + deferred + cancelled), 0), 4
    ) AS share,
    sum(numbers) AS numbers, sum(attempts) AS attempts, sum(failed_attempts) AS failed_attempts
FROM tallies
GROUP BY {day}, source, is_sandbox
""",
}
MOMENTS_IN_VIEWS = ("started_at", "ended_at", "began_at", "not_before")
OLD_TERMS = {name: name for name in MOMENTS_IN_VIEWS} | {"day": "date(started_at)"}
NEW_TERMS = {
    name: f"strftime('%Y-%m-%dT%H:%M:%S', {name} / 1000000, 'unixepoch')"
    f" || printf('.%06dZ', {name} % 1000000) AS {name}"
    for name in MOMENTS_IN_VIEWS
} | {"day": "date(started_at / 1000000, 'unixepoch')"}


def upgrade() -> None:
    """Write each row in less space; nothing that it says changes, so its seal stays true."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _write_anew(connection, OLD_TYPES, NEW_TYPES, TO_NEW, NEW_TERMS)
    else:
        _change_server(connection, "bytea", "decode({0}, 'hex')", pack)


def downgrade() -> None:
    """Write each row as it was."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _write_anew(connection, NEW_TYPES, OLD_TYPES, TO_OLD, OLD_TERMS)
    else:
        _change_server(connection, "varchar", "encode({0}, 'hex')", unpack)


def _write_anew(
    connection: Connection,
    before: dict[str, str],
    after: dict[str, str],
    expressions: dict[str, str],
    terms: dict[str, str],
) -> None:
    raw: Any = connection.connection.driver_connection
    for function in (from_hex, to_hex, pack, unpack):
        raw.create_function(function.__name__, 1, function)
    # Else a table could not take its name while there is a view or a trigger of somebody's own.
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table, columns in COLUMNS.items():
        types = {
            name: (before[kind], after[kind]) for kind, names in columns.items() for name in names
        }
        values = {
            name: expressions[kind].format(name)
            for kind, names in columns.items()
            for name in names
        }
        _copy_table(connection, table, types, values)
    for statement in VIEWS.values():
        connection.exec_driver_sql(statement.format(**terms))
    connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")


def _copy_table(
    connection: Connection, table: str, types: dict[str, tuple[str, str]], values: dict[str, str]
) -> None:
    """Make a table anew with other *types*, and its indexes; *values* are what is copied."""
    run = connection.exec_driver_sql
    create, *more = run(
        "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        " ORDER BY type <> 'table'",
        (table,),
    ).scalars()
    for column, (before, after) in types.items():
        create = create.replace(f"\t{column} {before}", f"\t{column} {after}")
    run(re.sub(r"^CREATE TABLE \S+", "CREATE TABLE new_table", create))
    names = [row.name for row in run(f"PRAGMA table_info({table})")]
    columns = ", ".join(f'"{name}"' for name in names)
    copied = ", ".join(values.get(name, f'"{name}"') for name in names)
    run(f"INSERT INTO new_table ({columns}) SELECT {copied} FROM {table}")  # noqa: S608 - all ours
    if "AUTOINCREMENT" in create:  # an id is never given twice, even if its row is gone
        run("DELETE FROM sqlite_sequence WHERE name = 'new_table'")
        run("UPDATE sqlite_sequence SET name = 'new_table' WHERE name = ?", (table,))
    run(f"DROP TABLE {table}")
    run(f"ALTER TABLE new_table RENAME TO {table}")
    for statement in more:
        run(statement)


def _change_server(
    connection: Connection, kind: str, digest: str, convert: Callable[[Any], object]
) -> None:
    for column in COLUMNS["seals"][DIGEST]:
        using = digest.format(column)
        op.execute(f"ALTER TABLE seals ALTER COLUMN {column} TYPE {kind} USING {using}")
    op.execute(f"ALTER TABLE timings ADD COLUMN converted {kind}")
    some = text(
        "SELECT step, began_at, source, phases FROM timings WHERE converted IS NULL LIMIT 500"
    )
    put = text(
        "UPDATE timings SET converted = :converted"
        " WHERE step = :step AND began_at = :began_at AND source = :source"
    )
    while rows := connection.execute(some).all():
        connection.execute(
            put, [row._asdict() | {"converted": convert(row.phases)} for row in rows]
        )
    op.execute("ALTER TABLE timings DROP COLUMN phases")
    op.execute("ALTER TABLE timings RENAME COLUMN converted TO phases")
    op.execute("ALTER TABLE timings ALTER COLUMN phases SET NOT NULL")


def from_hex(digest: object) -> object:
    """Give the bytes of a digest."""
    try:
        return bytes.fromhex(digest) if isinstance(digest, str) else digest
    except ValueError:
        return digest


def to_hex(digest: object) -> object:
    """Write a digest in hex."""
    return digest.hex() if isinstance(digest, bytes) else digest


def pack(phases: str) -> object:
    """Compress the histograms of an hour or a day."""
    try:
        packed = {phase: _list_of(facts) for phase, facts in json.loads(phases).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return phases
    return zlib.compress(json.dumps(packed, separators=(",", ":")).encode("ascii"))


def unpack(packed: bytes) -> object:
    """Write the histograms of an hour or a day as text."""
    try:
        phases = json.loads(zlib.decompress(packed))
        facts = {phase: _facts_of(*of) for phase, of in phases.items()}
    except (AttributeError, TypeError, ValueError, zlib.error):
        return packed
    return json.dumps(facts, separators=(",", ":"))


def _list_of(facts: dict[str, Any]) -> list[Any]:
    """Name buckets by how far they are from the ones before, not by the middles of each."""
    indexes = [_index_of(int(us)) for us in facts["counts"]]
    gaps = [index - before for before, index in pairwise((0, *indexes))]
    counts = list(facts["counts"].values())
    return [facts["n"], facts["total_us"], facts["max_us"], gaps, counts]


def _facts_of(n: int, total_us: int, max_us: int, gaps: list[int], times: list[int]) -> object:
    middles = map(str, map(_middle_of, accumulate(gaps)))
    counts = dict(zip(middles, times, strict=True))
    return {"n": n, "total_us": total_us, "max_us": max_us, "counts": counts}


def _index_of(us: int) -> int:
    shift = max(us.bit_length() - 6, 0)
    return (shift << 5) + (us >> shift)


def _middle_of(index: int) -> int:
    shift = max((index >> 5) - 1, 0)
    return (index - (shift << 5) << shift) + (1 << shift >> 1)
