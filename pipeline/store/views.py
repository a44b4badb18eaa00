"""The views that make the database pleasant in Datasette and in the sqlite3 shell.

Nothing in this program reads them. They are part of the schema, so a change of one is a migration,
and one that makes a table anew has to drop the views that read it and to create them again. The
statements are such that SQLite and PostgreSQL both take them.
"""

RUN_LIST = """
CREATE VIEW run_list AS
SELECT
    id, started_at, status, round(clock_us / 1000000.0, 3) AS seconds,
    ordered, collected, failed, deferred, cancelled, numbers, attempts,
    round(waited_us / 1000000.0, 3) AS seconds_one_by_one, host, version, ended_at
FROM runs
"""

BATCH_LIST = """
CREATE VIEW batch_list AS
SELECT
    run_id, 'w' || number AS name, source, verdict AS outcome, n, sum, min, max,
    error, detail, not_before, "fetch", attempt
FROM batches
"""

FAILED_ATTEMPTS = """
CREATE VIEW failed_attempts AS
SELECT
    id, run_id, source, began_at, error, phase,
    CASE
        WHEN error IN ('dns', 'connect_refused', 'connect_timeout', 'unreachable', 'write_timeout')
        THEN 'path'
        WHEN error IN ('rate_limited', 'quota_exhausted') THEN 'policy'
        WHEN error IN ('content_type', 'not_json', 'schema', 'count', 'range', 'stale')
        THEN 'contract'
        WHEN error IN ('unauthorized', 'http_4xx', 'deadline', 'cancelled', 'internal') THEN 'ours'
        ELSE 'upstream'
    END AS whose,
    status, detail, "fetch", number AS try, evidence
FROM attempts
WHERE error IS NOT NULL
"""

SOURCE_DAYS = """
CREATE VIEW source_days AS
SELECT
    date(started_at) AS day, source, count(*) AS runs,
    sum(collected + failed + deferred + cancelled) AS ordered, sum(collected) AS collected,
    round(
        100.0 * sum(collected) / nullif(sum(collected + failed + deferred + cancelled), 0), 1
    ) AS collected_percent,
    sum(numbers) AS numbers, sum(attempts) AS attempts, sum(failed_attempts) AS failed_attempts
FROM tallies
GROUP BY date(started_at), source
"""

VIEWS = {
    "run_list": RUN_LIST,
    "batch_list": BATCH_LIST,
    "failed_attempts": FAILED_ATTEMPTS,
    "source_days": SOURCE_DAYS,
}
