"""``pipeline report``: the history of the runs, or one run whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, SinceOption, SourceOption
from pipeline.cli.render import show_duration, show_table, show_time, write, write_json
from pipeline.models import Verdict

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.models import AttemptRecord, RunSummary
    from pipeline.report import BatchLine
    from pipeline.settings import StoreSettings

MOST_LINES = 200  # batches in a table; a program asks for JSON and gets all


def report(
    config: ConfigOption = None,
    run: Annotated[
        str | None, Option("--run", "-r", metavar="ID|last", help="One run with all its batches.")
    ] = None,
    since: SinceOption = None,
    source: SourceOption = None,
    limit: Annotated[int, Option("--limit", "-n", min=1, help="At most so many runs.")] = 20,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Tell the history: the last runs, or one of them with its batches, timings and errors.

    \b
    pipeline report                       the last 20 runs
    pipeline report --since 7d -s anu     a week of one source
    pipeline report --run last            the newest run, batch by batch
    """
    with error_boundary():
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ).store
        if run is not None:
            show_run(store, run, format_, source=source)
        else:
            _show_runs(store, since=since, source=source, limit=limit, shape=format_)


@contextmanager
def reading(settings: "StoreSettings") -> Iterator["Session"]:
    """Open the store for questions only: one snapshot, which no run waits for."""
    from pipeline.store.db import open_store

    with (
        open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False) as store,
        store.read() as session,
    ):
        yield session


def show_run(
    settings: "StoreSettings", wanted: str, shape: Format, *, source: str | None = None
) -> None:
    """Write one run as it lies on disk."""
    from pipeline import report as core

    with reading(settings) as session:
        run = core.find_run(session, wanted)
        if shape is Format.JSON:
            lines = core.batch_lines(session, run, source=source, with_numbers=True)
            write_json(
                {"schema": "pipeline.run/1", "run": run},
                batches=map(_batch_json, lines),
                attempts=map(_attempt_json, core.attempts(session, run, source=source)),
            )
        else:
            _show_run_as_text(session, run, source)


def _show_runs(
    settings: "StoreSettings",
    *,
    since: datetime | None,
    source: str | None,
    limit: int,
    shape: Format,
) -> None:
    from pipeline import report as core

    with reading(settings) as session:
        runs = core.recent_runs(session, since=since, source=source, limit=limit)
    if shape is Format.JSON:
        write_json({"schema": "pipeline.runs/1"}, runs=runs)
        return
    if not runs:
        write("No run yet." if since is None and source is None else "No such run.")
        return
    columns = ("run", "started", "status", "collected", "lost", "numbers", "attempts", "clock")
    show_table(
        columns,
        (
            (
                run.id,
                show_time(run.started_at),
                run.status,
                f"{run.collected}/{run.ordered}",
                run.failed + run.deferred + run.cancelled,
                run.numbers,
                run.attempts,
                show_duration(run.clock_us),
            )
            for run in runs
        ),
    )


def _attempt_json(record: "AttemptRecord") -> dict[str, object]:
    flat: dict[str, object] = {"id": record.id, "run_id": record.run_id}
    flat |= asdict(record.attempt) | asdict(record.attempt.timings)
    del flat["timings"]
    return flat | {"evidence": record.evidence}


def _batch_json(line: "BatchLine") -> dict[str, object]:
    flat: dict[str, object] = {"name": line.batch.name} | asdict(line.batch)
    digest = line.batch.digest
    flat["digest"] = None if digest is None else digest.hex()
    del flat["packed"]
    return flat | {"took_us": line.took_us, "numbers": line.numbers}


def _show_run_as_text(session: "Session", run: "RunSummary", source: str | None) -> None:
    from pipeline import report as core

    lines = core.batch_lines(session, run, source=source)
    if run.ordered > MOST_LINES:
        lines = (line for line in lines if line.batch.verdict is not Verdict.COLLECTED)
    listed = list(islice(lines, MOST_LINES))
    show_table(
        ("worker", "source", "n", "sum", "time", "outcome"),
        (
            (
                line.batch.name,
                line.batch.source,
                line.batch.n,
                line.batch.sum,
                show_duration(line.took_us),
                _outcome(line),
            )
            for line in listed
        ),
    )
    if run.ordered > MOST_LINES:
        write(f"\n{run.ordered} batches: only what was lost is listed; --format json gives all.")
    write("")
    write(total_line(run))


def _outcome(line: "BatchLine") -> str:
    batch = line.batch
    if batch.verdict is None:
        return "running"
    if batch.error is None:
        return batch.verdict
    return f"{batch.verdict}: {batch.error} ({batch.detail})"


def total_line(run: "RunSummary") -> str:
    """Sum a run up: what came, the clock, the time waited in all, and what concurrency gained."""
    came = (
        f"Run {run.id} {run.status}: {run.collected} of {run.ordered} batches,"
        f" {run.numbers} numbers in {run.attempts} requests."
    )
    if run.clock_us is None:
        return f"{came} Its end was not seen, so nobody knows how long it took."
    gain = run.waited_us / run.clock_us if run.clock_us else 0.0
    return (
        f"{came} {show_duration(run.clock_us)} by the clock, {show_duration(run.waited_us)} waited"
        f" in all: {gain:.1f} times as fast as one by one."
    )
