"""``pipeline report``: the history of the runs, or one run whole."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, SinceOption, SourceOption
from pipeline.cli.render import (
    attempt_json,
    batch_json,
    json_lines,
    render_table,
    show_duration,
    show_time,
    spooled,
    write,
)
from pipeline.errors import Phase
from pipeline.models import RunStatus, Verdict

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.models import RunSummary
    from pipeline.report import BatchLine
    from pipeline.settings import StoreSettings

MOST_LINES = 200  # batches in a table; a program asks for JSON and gets all
MOST_RUNS = 1_000_000

WORTH_SAYING = 1.1  # times as fast as one by one

# What did not come, in the words of the total line.
LOSSES = (Verdict.FAILED, Verdict.DEFERRED, Verdict.CANCELLED)


def report(
    config: ConfigOption = None,
    run: Annotated[
        str | None, Option("--run", "-r", metavar="ID|last", help="One run with all its batches.")
    ] = None,
    since: SinceOption = None,
    source: SourceOption = None,
    limit: Annotated[
        int,
        Option("--limit", "-n", metavar="N", min=1, max=MOST_RUNS, help="At most so many runs."),
    ] = 20,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show the last runs, or one of them batch by batch.

    \b
    pipeline report                       the last 20 runs
    pipeline report --since 7d -s anu     a week of one source
    pipeline report --run last            the newest run: batches, errors, timings
    """
    with error_boundary():
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ, will_ask=False).store
        if run is not None:
            show_run(store, run, format_, source=source, with_phases=True)
        else:
            _show_runs(store, since=since, source=source, limit=limit, shape=format_)


@contextmanager
def reading(settings: "StoreSettings") -> Iterator["Session"]:
    """Open the store for questions only, all answered from the same moment.

    A run may have to wait for it to be closed: write nothing to stdout before it is.
    """
    from pipeline.store.db import open_store

    with (
        open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False) as store,
        store.read() as session,
    ):
        yield session


def show_run(
    settings: "StoreSettings",
    wanted: str,
    shape: Format,
    *,
    source: str | None = None,
    with_phases: bool = False,
) -> None:
    """Write one run as it lies on disk."""
    from pipeline import report as core

    with spooled() as answer, reading(settings) as session:
        run = core.find_run(session, wanted)
        if shape is Format.JSON:
            lines = _json_of_run(session, run, source)
        else:
            lines = _text_of_run(session, run, source, with_phases=with_phases)
        answer.writelines(f"{line}\n" for line in lines)


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
        write("\n".join(json_lines({"schema": "pipeline.runs/1"}, runs=runs)))
    elif runs:
        write(_table_of_runs(runs))
    else:
        write("No run yet." if since is None and source is None else "No such run.")


def _table_of_runs(runs: list["RunSummary"]) -> str:
    columns = (
        "run",
        "started",
        "status",
        "collected",
        "failed",
        "deferred",
        "numbers",
        "requests",
        "clock",
    )
    return render_table(
        columns,
        (
            (
                run.id,
                show_time(run.started_at),
                run.status,
                f"{run.collected}/{run.ordered}",
                run.failed + run.cancelled,
                run.deferred,
                run.numbers,
                run.attempts,
                show_duration(run.clock_us),
            )
            for run in runs
        ),
    )


def _json_of_run(session: "Session", run: "RunSummary", source: str | None) -> Iterator[str]:
    from pipeline import report as core

    lines = core.batch_lines(session, run, source=source, with_numbers=True)
    batches = (
        batch_json(line.batch)
        | {"took_us": line.took_us, "attempt_id": line.attempt_id, "numbers": line.numbers}
        for line in lines
    )
    attempts = map(attempt_json, core.attempts(session, run, source=source))
    return json_lines({"schema": "pipeline.run/1", "run": run}, batches=batches, attempts=attempts)


def _text_of_run(
    session: "Session", run: "RunSummary", source: str | None, *, with_phases: bool
) -> Iterator[str]:
    from pipeline import report as core

    if with_phases:
        yield f"{_headline(run)}\n"
    lines = core.batch_lines(session, run, source=source)
    if run.ordered > MOST_LINES:
        lines = (line for line in lines if line.batch.verdict is not Verdict.COLLECTED)
        yield f"{run.ordered} batches: only what was lost is listed, {MOST_LINES} at most;"
        yield "--format json gives all.\n"
    if listed := list(islice(lines, MOST_LINES)):
        yield _table_of_batches(listed)
        yield ""
    if with_phases and (phases := core.phases(session, run, source=source)):
        means: defaultdict[str, dict[Phase, str]] = defaultdict(dict)
        for total in phases:
            means[total.source][total.phase] = show_duration(total.total_us // total.n)
        yield render_table(
            ("mean per attempt", *Phase),
            ((name, *(of.get(phase) for phase in Phase)) for name, of in means.items()),
        )
        yield ""
    yield total_line(run)


def _headline(run: "RunSummary") -> str:
    ended = f" to {show_time(run.ended_at)}" if run.ended_at is not None else ""
    configured = f", {run.config_path}" if run.config_path else ""
    return (
        f"Run {run.id}, {show_time(run.started_at)}{ended}, on {run.host},"
        f" pipeline {run.version}{configured}"
    )


def _table_of_batches(lines: list["BatchLine"]) -> str:
    return render_table(
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
            for line in lines
        ),
    )


def _outcome(line: "BatchLine") -> str:
    batch = line.batch
    if batch.verdict is None:
        return "not decided yet"
    if batch.verdict is Verdict.DEFERRED:
        return f"{batch.verdict} until {show_time(batch.not_before)}: {batch.detail}"
    if batch.error is None:
        return batch.verdict
    error = batch.error.value
    what = error if error == batch.verdict.value else f"{batch.verdict}: {error}"
    detail = f" ({batch.detail})" if batch.detail else ""
    seen = f"; audit show {line.attempt_id}" if line.attempt_id is not None else ""
    return f"{what}{detail}{seen}"


def total_line(run: "RunSummary") -> str:
    """Sum a run up: what came, what did not, the clock, and what asking at once was worth."""
    if run.status is RunStatus.SKIPPED:
        return f"Run {run.id} skipped: another run of the same configuration was going on."
    lost = "".join(f", {n} {loss}" for loss in LOSSES if (n := getattr(run, loss)))
    came = (
        f"Run {run.id} {run.status}: {run.collected} of {run.ordered} batches{lost},"
        f" {run.numbers} numbers in {run.attempts} request{'s' * (run.attempts != 1)}."
    )
    if run.status is RunStatus.RUNNING:
        since = show_time(run.started_at)
        return f"{came} Begun {since} by process {run.pid} on {run.host}, not ended so far."
    if run.clock_us is None:
        return f"{came} Its end was not seen, so nobody knows how long it took."
    times = (
        f"{came} {show_duration(run.clock_us)} by the clock, {show_duration(run.waited_us)} waited"
    )
    gain = run.waited_us / max(run.clock_us, 1)
    is_worth = gain >= WORTH_SAYING and run.status in (RunStatus.OK, RunStatus.PARTIAL)
    worth = f": {gain:.1f} times as fast as one by one" if is_worth and run.collected else ""
    return f"{times} in all{worth}."
