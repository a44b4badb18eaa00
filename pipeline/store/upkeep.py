"""The bodies of ``pipeline db``: migrate, back up, prune, measure; and say what was done."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import Session

from pipeline.errors import ConfigError, UsageError
from pipeline.files import database_file
from pipeline.rendering.output import json_lines, prose, render_table
from pipeline.rendering.progress import progress
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import count_of, show_time
from pipeline.settings import StoreSettings
from pipeline.store import migrating, sqlite
from pipeline.store.db import open_store
from pipeline.store.integrity import pruning
from pipeline.store.place import Place
from pipeline.store.stamps import last_stamps
from pipeline.store.stats import StoreStats, file_space, read_stats

THOUSAND = 999.5  # from here on three digits of it would be 1e+03


def migrate(settings: StoreSettings) -> str:
    """Bring the database to the newest schema."""
    done = migrating.migrate(settings.url, busy_seconds=settings.busy_seconds)
    if done is None:
        return "The schema is the newest already."
    lines = [f"Migrated from {done.before or 'nothing'} to {done.after}."]
    if done.backup is not None:
        lines.append(f"The database as it was: {done.backup}")
    return "\n".join(lines)


def back_up(settings: StoreSettings, target: Path) -> StoreSettings:
    """Copy the database to the new file *target*, and give the settings of the copy."""
    path = _check_is_file(settings, "backed up")
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already; choose another name")
    with _reading(settings), Place.of(settings.url, settings.busy_seconds).errors():
        sqlite.back_up(path, target.absolute())
    return settings.model_copy(update={"url": f"sqlite:///{target.absolute()}"})


def _check_is_file(settings: StoreSettings, done: str) -> Path:
    if path := database_file(settings.url):
        return path
    raise ConfigError(f"store.url: only SQLite files are {done} here; use the server's tools")


@contextmanager
def _reading(settings: StoreSettings) -> Iterator[Session]:
    with (
        open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False) as store,
        store.read() as session,
    ):
        yield session


def prune(
    settings: StoreSettings,
    *,
    keep: timedelta,
    is_dry: bool,
    is_forced: bool,
    is_vacuum: bool,
    say: Callable[[str], object],
) -> Iterator[str]:
    """Prune what is older than *keep*, and say line by line what was, or would be, deleted.

    Raises:
        UsageError: it looks as if a clock were wrong, and the pruning is not forced.
    """
    path = _check_is_file(settings, "made smaller") if is_vacuum else None
    now = datetime.now(UTC)
    before = now - keep
    with _reading(settings) as session:
        found = pruning.find_prunable(session, before=before, now=now)
        newest = next(reversed(last_stamps(session)), None)
    reason = pruning.why_not(found, before=before, keep=keep, newest_run=newest)
    if reason and not is_forced:
        raise UsageError(f"{reason}: is a clock wrong? If not, give --force")
    if is_dry:
        yield _foretell(found)
        return
    url, busy_seconds = settings.url, settings.busy_seconds
    with (
        open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
        progress("pruning") as watch,
    ):
        for note in store.notes:
            say(note)
        done = pruning.prune(store, before=before, now=now, watch=watch)
    yield (
        f"Pruned {count_of(done.runs, 'run')}: {count_of(done.batches, 'batch')},"
        f" {count_of(done.attempts, 'attempt')}, {count_of(done.evidence, 'answer')},"
        f" {count_of(done.requests, 'request')}."
    )
    if path is not None:
        with Place.of(url, busy_seconds).errors():
            sqlite.vacuum(path, busy_seconds=busy_seconds)
    with _reading(settings) as session:
        space = file_space(session)
    if space is not None:
        size, free = map(show_bytes, space)
        hint = "; new runs fill it, or `pipeline db prune --vacuum` gives it back"
        yield f"The database has {size}, {free} of it free{hint if space[1] else ''}."


def _foretell(found: pruning.Prunable) -> str:
    if not found.runs:
        return "Nothing to prune."
    return (
        f"Would prune {count_of(found.runs, 'run')}, the newest of {show_time(found.newest_at)}:"
        f" {count_of(found.batches, 'batch')} with {count_of(found.numbers, 'number')},"
        f" {count_of(found.attempts, 'attempt')}."
    )


def stats(settings: StoreSettings, *, is_exact: bool, format_: Format) -> str:
    """Measure the database."""
    with _reading(settings) as session:
        found = read_stats(session, is_exact=is_exact)
    return _stats_as_json(found) if format_ is Format.JSON else _stats_as_text(found)


def _stats_as_json(found: StoreStats) -> str:
    head = {field.name: getattr(found, field.name) for field in fields(found)}
    tables = head.pop("tables")
    return "\n".join(json_lines({"schema": "pipeline.stats/1", **head}, tables=tables))


def _stats_as_text(found: StoreStats) -> str:
    lines = [f"{found.engine} {found.version}, schema {found.revision}"]
    if found.journal_mode is not None:
        lines[0] += f", journal {found.journal_mode}"
    free = "" if found.free_bytes is None else f", {show_bytes(found.free_bytes)} of it free"
    lines.append(f"{show_bytes(found.size_bytes)}{free}")
    if found.bytes_per_day is not None:
        lines.append(f"grows by about {show_bytes(found.bytes_per_day)} a day")
    lines.append(
        f"{count_of(found.runs, 'run')} from {show_time(found.oldest_at)} to"
        f" {show_time(found.newest_at)}, {found.pruned} of them pruned"
    )
    has_sizes = any(table.bytes is not None for table in found.tables)
    columns = ("table", "rows", "bytes") if has_sizes else ("table", "rows")
    rows = ((t.name, t.rows, t.bytes)[: len(columns)] for t in found.tables)
    return "\n".join([*prose(*lines), "", render_table(columns, rows)])


def show_bytes(n: int | None) -> str:
    """Write a size as a person would: ``512 B``, ``4.1 kB``, ``2.35 GB``."""
    if n is None:
        return "-"
    size, units = float(n), ["B", "kB", "MB", "GB", "TB"]
    while size >= THOUSAND and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
