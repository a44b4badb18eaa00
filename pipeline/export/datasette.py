"""Metadata for Datasette: what the views mean, units, facets, and queries to begin with."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from pipeline.errors import ConfigError
from pipeline.files import database_file
from pipeline.rendering.output_file import write_file
from pipeline.rendering.vocabulary import EVERY_RECORD, meanings
from pipeline.scope import reading
from pipeline.settings import StoreSettings
from pipeline.store.views import VIEWS

TITLES = {
    "run_list": ("Runs", "run", ["status", "host"]),
    "batch_list": ("Batches", "batch", ["source", "verdict", "error"]),
    "failed_attempts": ("Failed attempts", "attempt", ["source", "error", "whose"]),
    "source_days": ("Sources by day", "source", ["source"]),
}
# Of a little-endian number of up to 8 bytes: what each of them is worth.
_BYTES = " + ".join(
    f"((instr('0123456789ABCDEF', substr(h, {2 * place + 1}, 1)) - 1) * 16"
    f" + instr('0123456789ABCDEF', substr(h, {2 * place + 2}, 1)) - 1) * {256**place}"
    for place in range(8)
)
NUMBERS = f"""
WITH RECURSIVE places AS (
    SELECT run_id, number, source, n, min, numbers, 0 AS position,
        CASE WHEN max - min < 256 THEN 1 WHEN max - min < 65536 THEN 2
        WHEN max - min < 4294967296 THEN 4 ELSE 8 END AS width
    FROM batches WHERE run_id = :run_id AND numbers IS NOT NULL
    UNION ALL
    SELECT run_id, number, source, n, min, numbers, position + 1, width
    FROM places WHERE position + 1 < n
), spelled AS (
    SELECT *, hex(substr(numbers, position * width + 1, width)) AS h FROM places
)
SELECT 'w' || number AS batch, source, position, min + {_BYTES} AS value
FROM spelled ORDER BY number, position
"""  # noqa: S608 - our own words
QUERIES = {
    "numbers_of_run": ("The numbers of a run, one by one", NUMBERS),
    "batches_of_run": (
        "The batches of a run",
        "SELECT * FROM batch_list WHERE run_id = :run_id ORDER BY batch_number",
    ),
    "last_failures": (
        "The last failed attempts",
        "SELECT * FROM failed_attempts ORDER BY attempt_id DESC LIMIT 100",
    ),
    "errors_by_source": (
        "What went wrong, by source and error",
        (
            "SELECT source, error, whose, count(*) AS attempts, min(began_at) AS first_at,"
            " max(began_at) AS last_at FROM failed_attempts"
            " GROUP BY source, error, whose ORDER BY attempts DESC"
        ),
    ),
    "share_by_day": (
        "The share of batches that came, by day and source",
        "SELECT day, source, share, ordered, collected FROM source_days ORDER BY day DESC, source",
    ),
}


def write_metadata(settings: StoreSettings, output: Path | None, *, force: bool) -> Iterator[str]:
    """Write the metadata beside the database, or to *output*, and say what to type."""
    file = database_file(settings.url)
    if file is None:
        raise ConfigError("store.url: Datasette reads SQLite files, and this is a server")
    with reading(settings):  # is it there, and of our schema?
        pass
    target = output or file.with_name(f"{file.name}.datasette.json")
    text = json.dumps(make_metadata(file.stem), indent=2)
    write_file(target, [f"{text}\n".encode()], force=force)
    yield f"datasette {quote(str(file))} --metadata {quote(str(target))}"


def make_metadata(database: str) -> Mapping[str, object]:
    """Describe the views of a *database* of this name, in the words of all that we publish."""
    return {
        "title": "pipeline",
        "description": "What was collected, when, how long it took, and why it failed.",
        "databases": {
            database: {
                "tables": {name: _table(name) for name in VIEWS if name in TITLES},
                "queries": {
                    name: {"title": title, "sql": sql.strip()}
                    for name, (title, sql) in QUERIES.items()
                },
            }
        },
    }


def _table(view: str) -> Mapping[str, object]:
    title, record, facets = TITLES[view]
    words = {**meanings()[EVERY_RECORD], **meanings()[record]}
    names = set(re.findall(r"\w+", VIEWS[view]))
    columns = {name: meaning for name, meaning in words.items() if name in names}
    return {
        "title": title,
        "facets": facets,
        "columns": columns,
        "units": {name: "us" for name in columns if name.endswith("_us")},
    }
