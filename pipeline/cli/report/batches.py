"""The last batches, or those of one run."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.document import Cell, Column, Document, Kind, Table, render
from pipeline.cli.options import Shape
from pipeline.cli.render import batch_json, json_lines, show_time
from pipeline.cli.report.answers import facts, head
from pipeline.cli.report.question import Question
from pipeline.models import Verdict

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.report import BatchLine

USUAL_LIMIT = 50


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the batches; as JSON with their numbers."""
    is_json = question.shape is Shape.JSON
    listed = _find_lines(session, scope, question.limit, with_numbers=is_json)
    if is_json:
        return json_lines(head("pipeline.batches/1", scope), batches=map(line_json, listed))
    said = [] if scope.run is None else facts(session, scope)
    table = table_of_batches(listed, with_run=True)
    return render(Document(title="Batches", facts=said, parts=[table]), question.shape)


def _find_lines(
    session: "Session", scope: core.Scope, limit: int | None, *, with_numbers: bool
) -> Iterator["BatchLine"]:
    if scope.run is not None:
        of_run = core.batch_lines(
            session, scope.run, source=scope.source, with_numbers=with_numbers
        )
        return islice(of_run, limit)
    return core.newest_batch_lines(
        session,
        since=scope.window.since,
        until=scope.window.until,
        source=scope.source,
        limit=limit or USUAL_LIMIT,
        with_numbers=with_numbers,
    )


def line_json(line: "BatchLine") -> dict[str, object]:
    """Make of a batch what is published of it, its numbers included."""
    return batch_json(line.batch) | {
        "took_us": line.took_us,
        "tries": line.tries,
        "attempt_id": line.attempt_id,
        "numbers": line.numbers,
    }


def table_of_batches(
    listed: Iterable["BatchLine"], *, title: str = "", with_run: bool = False
) -> Table:
    """Make a row of each batch, with its run unless all are of one."""
    return Table(
        title=title,
        columns=(
            *([Column("run", Kind.NUMBER)] if with_run else []),
            Column("worker"),
            Column("source"),
            Column("n", Kind.NUMBER),
            *([Column("min", Kind.NUMBER), Column("max", Kind.NUMBER)] if with_run else []),
            Column("sum", Kind.NUMBER),
            Column("time", Kind.DURATION),
            Column("tries", Kind.NUMBER),
            Column("outcome"),
        ),
        rows=(_row(line, with_run=with_run) for line in listed),
    )


def _row(line: "BatchLine", *, with_run: bool) -> list[Cell]:
    batch = line.batch
    return [
        *([batch.run_id] if with_run else []),
        batch.name,
        batch.source,
        batch.n,
        *([batch.min, batch.max] if with_run else []),
        batch.sum,
        line.took_us,
        line.tries,
        outcome(line),
    ]


def outcome(line: "BatchLine") -> str:
    """Say what became of a batch and why."""
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
