"""What was lost to which error."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.document import Chart, Column, Document, Kind, Mark, Part, Table, Text, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines
from pipeline.cli.report.answers import facts, head
from pipeline.cli.report.question import Question
from pipeline.cli.report.trends import trend
from pipeline.store import history

if TYPE_CHECKING:
    from datetime import datetime

    from sqlmodel import Session

    from pipeline.errors import ErrorName
    from pipeline.report import ErrorLine
    from pipeline.store.history import LossTotals, Window


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the errors."""
    found = core.error_lines(session, scope)
    losses = find_losses(session, scope)
    if question.shape is Shape.JSON:
        return json_lines(
            head("pipeline.errors/1", scope), errors=found, trend=map(_point_json, losses)
        )
    parts: list[Part] = [table_of_errors(found)]
    parts.extend(chart_of_failures(losses, scope.window))
    if found:
        parts.append(
            Text(
                lines=["`pipeline audit show NUMBER` prints the evidence of an attempt."],
                is_ours=True,
            )
        )
    return render(
        Document(title="Errors", facts=facts(session, scope), parts=parts), question.shape
    )


def find_losses(session: "Session", scope: core.Scope) -> list["LossTotals"]:
    """Add up the losses by hour or day; of one run there is no course to show."""
    if scope.run is not None:
        return []
    return history.loss_totals(session, scope.window, source=scope.source, step=scope.window.step)


def _point_json(loss: "LossTotals") -> dict[str, object]:
    return {
        "began_at": loss.began_at,
        "source": loss.source,
        "error": loss.error,
        "attempts": loss.attempts,
        "batches": loss.batches,
    }


def table_of_errors(found: Iterable["ErrorLine"], *, title: str = "") -> Table:
    """Make a row of each source, error and phase."""
    return Table(
        title=title,
        columns=(
            Column("source"),
            Column("error"),
            Column("phase"),
            Column("whose"),
            Column("attempts", Kind.NUMBER),
            Column("batches", Kind.NUMBER),
            Column("share", Kind.SHARE),
            Column("first", Kind.MOMENT),
            Column("last", Kind.MOMENT),
            Column("newest attempt", Kind.NUMBER),
        ),
        rows=[
            (
                line.source,
                line.error,
                line.phase,
                line.whose,
                line.attempts,
                line.batches,
                line.share,
                line.first_at,
                line.last_at,
                line.last_attempt,
            )
            for line in found
        ],
    )


def chart_of_failures(losses: Iterable["LossTotals"], window: "Window") -> list[Chart]:
    """Draw how many attempts failed over time, by error."""
    attempts: Counter[tuple[datetime | None, ErrorName]] = Counter()
    for loss in losses:
        attempts[loss.began_at, loss.error] += loss.attempts
    points = [
        (began_at, str(error), n) for (began_at, error), n in attempts.items() if began_at and n
    ]
    return trend("Failed attempts", Kind.NUMBER, window, points, absent=0, mark=Mark.BARS)
