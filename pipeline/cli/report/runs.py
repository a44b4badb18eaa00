"""The last runs, newest first."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.document import Column, Document, Kind, Table, Text, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines
from pipeline.cli.report.answers import head
from pipeline.cli.report.question import Question

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.models import RunSummary

USUAL_LIMIT = 20


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the last runs."""
    runs = find_runs(session, scope, question.limit)
    if question.shape is Shape.JSON:
        retries = core.retries_by_run(session, runs)
        listed = (run_json(run, retries[run.id]) for run in runs)
        return json_lines(head("pipeline.runs/1", scope), runs=listed)
    is_narrowed = scope.source or scope.window.since or scope.window.until
    if not runs and question.shape is not Shape.CSV:
        said = Text(lines=["No such run." if is_narrowed else "No run yet."])
        return render(Document(title="Runs", parts=[said]), question.shape)
    table = table_of_runs(session, runs, is_sheet=question.shape is Shape.CSV)
    return render(Document(title="Runs", parts=[table]), question.shape)


def find_runs(session: "Session", scope: core.Scope, limit: int | None) -> list["RunSummary"]:
    """List the newest *limit* runs of the scope, or as many as is usual."""
    return core.recent_runs(
        session,
        since=scope.window.since,
        until=scope.window.until,
        source=scope.source,
        limit=limit or USUAL_LIMIT,
    )


def run_json(run: "RunSummary", retries: int) -> dict[str, object]:
    """Make of a run what is published of it."""
    published = {field.name: getattr(run, field.name) for field in fields(run)}
    return published | {"retries": retries, "is_alive": core.is_alive(run)}


def _status(run: "RunSummary") -> str:
    """Say what became of a run; of one whose process is gone, what the next run will call it."""
    return "interrupted?" if core.is_alive(run) is False else run.status


def table_of_runs(
    session: "Session", runs: Sequence["RunSummary"], *, title: str = "", is_sheet: bool = False
) -> Table:
    """Make a row of each run; in a sheet nothing may look like a fraction, or it becomes a date."""
    came = (
        [Column(name, Kind.NUMBER) for name in ("collected", "ordered", "failed", "cancelled")]
        if is_sheet
        else [Column("collected"), Column("lost", Kind.NUMBER)]
    )
    retries = core.retries_by_run(session, runs)
    return Table(
        title=title,
        columns=(
            Column("run", Kind.NUMBER),
            Column("started", Kind.MOMENT),
            Column("status"),
            *came,
            Column("deferred", Kind.NUMBER),
            Column("numbers", Kind.NUMBER),
            Column("requests", Kind.NUMBER),
            Column("retries", Kind.NUMBER),
            Column("clock", Kind.DURATION),
        ),
        rows=[
            (
                run.id,
                run.started_at,
                run.status if is_sheet else _status(run),
                *(
                    (run.collected, run.ordered, run.failed, run.cancelled)
                    if is_sheet
                    else (f"{run.collected}/{run.ordered}", run.failed + run.cancelled)
                ),
                run.deferred,
                run.numbers,
                run.attempts,
                retries[run.id],
                run.clock_us,
            )
            for run in runs
        ],
    )
