"""What the numbers add up to, and whether they look fair."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.document import Chart, Column, Document, Kind, Mark, Part, Table, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines
from pipeline.cli.report.answers import facts, head
from pipeline.cli.report.question import Question
from pipeline.cli.report.trends import trend
from pipeline.store import history

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.report import NumberLine
    from pipeline.store.history import SourceTotals, Window


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write what the numbers add up to."""
    found = core.number_lines(session, scope)
    steps = find_steps(session, scope)
    if question.shape is Shape.JSON:
        listed = (asdict(line) | {"is_far_off": line.is_far_off} for line in found)
        return json_lines(
            head("pipeline.numbers/1", scope), numbers=listed, trend=map(_point_json, steps)
        )
    parts: list[Part] = [_table(found)]
    parts.extend(chart_of_numbers(steps, scope.window))
    said = [
        *facts(session, scope),
        "Expected is the mean of a fair source; off by counts in standard errors from there.",
    ]
    return render(Document(title="Numbers", facts=said, parts=parts), question.shape)


def find_steps(session: "Session", scope: core.Scope) -> list["SourceTotals"]:
    """Add up what came by hour or day; of one run there is no course to show."""
    if scope.run is not None:
        return []
    return history.source_totals(session, scope.window, source=scope.source, step=scope.window.step)


def _point_json(step: "SourceTotals") -> dict[str, object]:
    return {
        "began_at": step.began_at,
        "source": step.source,
        "batches": step.collected,
        "numbers": step.numbers,
    }


def _table(found: Iterable["NumberLine"]) -> Table:
    return Table(
        columns=(
            Column("source"),
            Column("min", Kind.NUMBER),
            Column("max", Kind.NUMBER),
            Column("batches", Kind.NUMBER),
            Column("numbers", Kind.NUMBER),
            Column("sum", Kind.NUMBER),
            Column("mean", Kind.NUMBER),
            Column("expected", Kind.NUMBER),
            Column("off by", Kind.NUMBER),
            Column("verdict"),
        ),
        rows=[
            (
                line.source,
                line.min,
                line.max,
                line.batches,
                line.numbers,
                line.sum,
                line.mean,
                line.expected_mean,
                None if line.z is None else round(line.z, 2),
                _verdict(line),
            )
            for line in found
        ],
    )


def _verdict(line: "NumberLine") -> str | None:
    if line.z is None:
        return None
    return "suspicious" if line.is_far_off else "fair"


def chart_of_numbers(steps: Iterable["SourceTotals"], window: "Window") -> list[Chart]:
    """Draw how many numbers came over time, by source."""
    points = [(step.began_at, step.source, step.numbers) for step in steps if step.began_at]
    return trend("Numbers collected", Kind.NUMBER, window, points, absent=0, mark=Mark.BARS)
