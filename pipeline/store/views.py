"""The views that make the database pleasant in Datasette and in the sqlite3 shell.

Nothing in this program reads them; their columns have the published names, so that they join with
reports and exports, and their moments are texts where the tables have microseconds. They are part
of the schema, so a change of one is a migration, and one that makes a table anew has to drop the
views that read it and to create them again. The statements are such that SQLite and PostgreSQL
both take them, but for what stands in braces.
"""

from collections.abc import Iterator

MOMENTS = ("started_at", "ended_at", "began_at", "not_before")
# A moment as it is published, and its day in UTC. A server's session shows both by itself.
_SQLITE_MOMENT = (
    "strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000, 'unixepoch')"
    " || printf('.%06dZ', {0} % 1000000) AS {0}"
)
_SQLITE_DAY = "date(started_at / 1000000, 'unixepoch')"
_VERDICT = (
    "CASE verdict WHEN 1 THEN 'collected' WHEN 2 THEN 'failed' WHEN 3 THEN 'deferred'"
    " WHEN 4 THEN 'cancelled' END AS verdict"
)

RUN_LIST = """
CREATE VIEW run_list AS
SELECT
    id AS run_id, {started_at}, status, clock_us,
    ordered, collected, failed, deferred, cancelled, numbers, attempts,
    waited_us AS exchange_us, host, version, {ended_at}, is_sandbox
FROM runs
"""

BATCH_LIST = """
CREATE VIEW batch_list AS
SELECT
    batches.run_id, 'w' || batches.number AS batch, batches.number AS batch_number,
    sources.name AS source, is_sandbox, {verdict}, n, sum, min, max, batches.error, batches.detail,
    {not_before}, batches."fetch", attempts.id AS attempt_id, attempt AS attempt_number,
    host, pid
FROM batches
JOIN sources ON sources.id = batches.source
LEFT JOIN attempts
ON attempts.run_id = batches.run_id
AND attempts."fetch" = batches."fetch" AND attempts.number = batches.attempt
LEFT JOIN members ON members.id = attempts.member
"""

FAILED_ATTEMPTS = """
CREATE VIEW failed_attempts AS
SELECT
    attempts.id AS attempt_id, run_id, sources.name AS source, {began_at}, error, phase,
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
    status AS http_status, detail, "fetch", number AS attempt_number, evidence, host, pid
FROM attempts
JOIN sources ON sources.id = attempts.source
LEFT JOIN members ON members.id = attempts.member
WHERE error IS NOT NULL
"""

SOURCE_DAYS = """
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
"""

VIEWS = {
    "run_list": RUN_LIST,
    "batch_list": BATCH_LIST,
    "failed_attempts": FAILED_ATTEMPTS,
    "source_days": SOURCE_DAYS,
}


def view_statements(dialect: str) -> Iterator[str]:
    """Write the statements that create the views in a database of a *dialect*."""
    is_sqlite = dialect == "sqlite"
    terms = {name: _SQLITE_MOMENT.format(name) if is_sqlite else name for name in MOMENTS}
    terms["verdict"] = _VERDICT
    terms["day"] = _SQLITE_DAY if is_sqlite else "date(started_at)"
    return (statement.format(**terms) for statement in VIEWS.values())
