"""The report of errors: what was lost to which error, how often, whose fault."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from pipeline.audit.findings import explain_failures, tabulate_failures
from pipeline.errors import ErrorName
from pipeline.rendering.document import Chart, Document, Kind, Mark, Part, Table
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Shape
from pipeline.report import numbers
from pipeline.report.question import Question, facts, head, write_document
from pipeline.report.trends import Buckets, trend
from pipeline.store import history, queries
from pipeline.store.totals import LossTotals

ERRORS = (
    "source=loss.source is_sandbox error=loss.error phase=loss.phase whose=loss.whose"
    " attempts=loss.attempts batches=loss.batches share first_at=loss.first_at"
    " last_at=loss.last_at last_attempt_id=loss.last_attempt hosts"
)
MOST_NAMED = 4  # errors in a chart; the others are one colour
OTHERS = "others"
POINT = "began_at source error attempts batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLoss:
    """What was lost at one source to one error in one phase, beside all that it was asked.

    Attributes:
        attempts: all that were made at the source.
    """

    loss: LossTotals
    is_sandbox: bool | None
    attempts: int
    hosts: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Give the share of the attempts at the source; None if there were none."""
        return self.loss.attempts / self.attempts if self.attempts else None


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the errors."""
    found = find_errors(session, question)
    points = find_points(session, question)
    if question.shape is Shape.JSON:
        return json_lines(
            head("pipeline.errors/1", question),
            errors=picks(found, ERRORS),
            trend=picks(points, POINT),
        )
    buckets = numbers.buckets_of(numbers.find_points(session, question), question.window)
    parts: list[Part] = [*chart_of_failures(points, buckets)]
    if found or question.shape is Shape.CSV:
        parts.insert(0, table_of_errors(found, has_hosts=question.shape is Shape.CSV))
        parts.append(explain_failures(each.loss.phase for each in found))
    said = facts(session, question) + ([] if found else ["No error is on record."])
    document = Document(title="Errors", facts=said, parts=parts)
    return write_document(document, question)


def find_errors(session: Session, question: Question) -> list[SourceLoss]:
    """Add up what was lost by source, error and phase, most attempts first."""
    of, run_id = question.source, question.run_id
    totals = history.source_totals(session, question.window, source=of, run_id=run_id)
    attempts = {total.source: total.attempts for total in totals}
    sandbox = history.played_by_sandbox(session, question.window, source=of, run_id=run_id)
    hosts = {} if run_id is None else queries.hosts_of_failures(session, run_id=run_id)
    return [
        SourceLoss(
            loss=loss,
            is_sandbox=sandbox[loss.source],
            attempts=attempts.get(loss.source, 0),
            hosts=tuple(hosts.get((loss.source, loss.error, loss.phase), ())),
        )
        for loss in history.loss_totals(session, question.window, source=of, run_id=run_id)
    ]


def find_points(session: Session, question: Question) -> list[LossTotals]:
    """Add up the losses by hour or day; of one run there is no course to show."""
    if question.run is not None:
        return []
    window = question.window
    return history.loss_totals(session, window, source=question.source, step=window.step)


def table_of_errors(
    found: Sequence[SourceLoss], *, title: str = "", has_hosts: bool = False
) -> Table:
    """Make a row of each source, error and phase; with machines if there are any."""
    has_hosts |= any(each.hosts for each in found)
    fields = ERRORS if has_hosts else ERRORS.removesuffix(" hosts")
    return tabulate_failures(SourceLoss, found, fields, title=title)


def chart_of_failures(losses: Sequence[LossTotals], buckets: Buckets | None) -> list[Chart]:
    """Draw how many attempts failed over time, by error."""
    counts: Counter[ErrorName] = Counter()
    for loss in losses:
        counts[loss.error] += loss.attempts
    named = {error for error, _ in counts.most_common(MOST_NAMED)}
    points = [
        (loss.began_at, str(loss.error) if loss.error in named else OTHERS, loss.attempts)
        for loss in losses
        if loss.began_at and loss.attempts
    ]
    return trend("Failed attempts", Kind.NUMBER, buckets, points, sum, absent=0, mark=Mark.BARS)
