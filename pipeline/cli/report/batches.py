"""The last batches, or those of one run."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
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

FATE = (
    Column("verdict"),
    Column("error"),
    Column("detail"),
    Column("not before", Kind.MOMENT),
    Column("attempt", Kind.NUMBER),
)  # what became of a batch, for a sheet


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the batches; as JSON with their numbers."""
    is_json = question.shape is Shape.JSON
    listed = _find_lines(session, scope, question.limit, with_numbers=is_json)
    if is_json:
        return json_lines(head("pipeline.batches/1", scope), batches=map(line_json, listed))
    said = [] if scope.run is None else facts(session, scope)
    is_sheet = question.shape is Shape.CSV
    table = table_of_batches(listed, with_run=True, is_sheet=is_sheet)
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
    listed: Iterable["BatchLine"],
    *,
    with_run: bool = False,
    is_sheet: bool = False,
    is_folded: bool = False,
) -> Table:
    """Make a row of each batch, with its run unless all are of one.

    In a sheet what became of it is several columns. *is_folded*: neighbours with the same fate,
    lost with one fetch, share a row.
    """
    rows = _folded(listed) if is_folded else ([line] for line in listed)
    tell = _fate if is_sheet else _outcome
    return Table(
        columns=(
            *([Column("run", Kind.NUMBER)] if with_run else []),
            Column("worker"),
            Column("source"),
            Column("n", Kind.NUMBER),
            *([Column("min", Kind.NUMBER), Column("max", Kind.NUMBER)] if with_run else []),
            Column("sum", Kind.NUMBER),
            Column("time", Kind.DURATION),
            Column("tries", Kind.NUMBER),
            *(FATE if is_sheet else (Column("outcome"),)),
        ),
        rows=([*_row(lines, with_run=with_run), *tell(lines[0])] for lines in rows),
    )


def _folded(listed: Iterable["BatchLine"]) -> Iterator[Sequence["BatchLine"]]:
    """Put batches together that stand side by side and were lost in the same way."""

    def fate(placed: tuple[int, "BatchLine"]) -> tuple[object, ...]:
        place, line = placed
        batch = line.batch
        if batch.verdict in (None, Verdict.COLLECTED):
            return (batch.number,)
        return batch.source, batch.fetch, outcome(line), batch.number - place

    for _, group in groupby(enumerate(listed), key=fate):
        yield [line for _, line in group]


def _row(lines: Sequence["BatchLine"], *, with_run: bool) -> list[Cell]:
    line, last = lines[0], lines[-1]
    batch = line.batch
    return [
        *([batch.run_id] if with_run else []),
        batch.name if line is last else f"{batch.name}..{last.batch.name}",
        batch.source,
        sum(each.batch.n for each in lines),
        *([batch.min, batch.max] if with_run else []),
        batch.sum,
        line.took_us,
        line.tries,
    ]


def _fate(line: "BatchLine") -> list[Cell]:
    batch = line.batch
    return [batch.verdict, batch.error, batch.detail, batch.not_before, line.attempt_id]


def _outcome(line: "BatchLine") -> list[Cell]:
    return [outcome(line)]


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
