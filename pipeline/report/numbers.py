"""The report of numbers: what they add up to, and how far their mean is off."""

from collections.abc import Iterable, Iterator

from sqlmodel import Session

from pipeline.rendering.document import Chart, Document, Kind, Mark
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.report.question import Question, facts, head, write_document
from pipeline.report.trends import Buckets, make_buckets, trend
from pipeline.store import history
from pipeline.store.totals import RangeTotals, SourceTotals
from pipeline.store.window import Window

NUMBERS = "source is_sandbox min max batches numbers sum mean expected_mean z"
POINT = "began_at source batches=collected numbers"


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write what the numbers add up to."""
    found = history.range_totals(
        session, question.window, source=question.source, run_id=question.run_id
    )
    points = find_points(session, question)
    if question.shape is Shape.JSON:
        return json_lines(
            head("pipeline.numbers/1", question),
            numbers=picks(found, NUMBERS),
            trend=picks(points, POINT),
        )
    document = Document(
        title="Numbers",
        facts=[
            *facts(session, question),
            "The expected mean is that of a fair source; z counts in standard errors from there.",
            "The mean alone tells little; `pipeline report health` tests more.",
        ],
        parts=[
            tabulate(RangeTotals, found, NUMBERS),
            *chart_of_numbers(points, buckets_of(points, question.window)),
        ],
    )
    return write_document(document, question)


def find_points(session: Session, question: Question) -> list[SourceTotals]:
    """Add up what came by hour or day; of one run there is no course to show."""
    if question.run is not None:
        return []
    window = question.window
    return history.source_totals(session, window, source=question.source, step=window.step)


def buckets_of(points: Iterable[SourceTotals], window: Window) -> Buckets | None:
    """Divide the window as the runs lie in it."""
    return make_buckets((point.began_at for point in points if point.began_at), window)


def chart_of_numbers(points: Iterable[SourceTotals], buckets: Buckets | None) -> list[Chart]:
    """Draw how many numbers came over time, by source."""
    drawn = [(point.began_at, point.source, point.numbers) for point in points if point.began_at]
    return trend("Numbers collected", Kind.NUMBER, buckets, drawn, sum, mark=Mark.BARS)
