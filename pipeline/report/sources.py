"""The report of sources: what came from each, how reliably and how fast."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.histogram import Histogram
from pipeline.pacing import Embargo
from pipeline.rendering.document import Chart, Document, Kind, Part
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import inside, picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import show_time
from pipeline.report.numbers import buckets_of, find_points
from pipeline.report.question import Question, facts, head, write_document
from pipeline.report.timings import find_timings
from pipeline.report.trends import Buckets, trend
from pipeline.store import history
from pipeline.store.permissions import standing_embargoes
from pipeline.store.summaries import EXCHANGE
from pipeline.store.totals import SourceTotals

RANKS = inside("exchange", "p50_us p90_us p99_us")
LAST = inside("totals", "last_good_at last_bad_at")
SOURCES = (
    "source=totals.source is_sandbox "
    + inside(
        "totals",
        "runs ordered collected share numbers attempts failed_attempts retries success_share",
    )
    + f" {RANKS} {LAST} embargo_until=embargo.until embargo_why=embargo.why"
)
TABLE = SOURCES.replace(" failed_attempts=totals.failed_attempts", "").removesuffix(
    " embargo_why=embargo.why"
)
# Fits on a terminal; embargoes are told above it.
NARROW = (
    "source=totals.source is_sandbox runs=totals.runs collected=totals.came "
    + inside("totals", "numbers attempts success_share")
    + f" p50_us=exchange.p50_us p99_us=exchange.p99_us {LAST}"
)
# Fits on a page, where numbers have more room.
PAGE = (
    "source=totals.source is_sandbox runs=totals.runs collected=totals.came "
    + inside("totals", "share numbers attempts success_share")
    + f" {RANKS} {LAST}"
)
POINT = "began_at source runs ordered collected attempts failed_attempts"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """What one source was worth.

    Attributes:
        exchange: how long its attempts took, without their waits; None without attempts.
        embargo: until when it must not be asked, and why; None if it may be.
    """

    totals: SourceTotals
    is_sandbox: bool | None
    exchange: Histogram | None
    embargo: Embargo | None


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write what each source was worth."""
    exchanges = find_timings(session, question, phases={EXCHANGE}).of
    found = find_sources(session, question, exchanges, datetime.now(UTC))
    points = find_points(session, question)
    if question.shape is Shape.JSON:
        return json_lines(
            head("pipeline.source_totals/1", question),
            sources=picks(found, SOURCES),
            trend=picks(points, POINT),
        )
    fields = {Shape.TEXT: NARROW, Shape.HTML: PAGE}.get(question.shape, TABLE)
    parts: list[Part] = [tabulate(SourceLine, found, fields)]
    parts.extend(chart_of_success(points, buckets_of(points, question.window)))
    said = [
        *facts(session, question),
        *embargo_facts((line.totals.source, line.embargo) for line in found),
    ]
    return write_document(Document(title="Sources", facts=said, parts=parts), question)


def find_sources(
    session: Session,
    question: Question,
    timings: Mapping[str, Mapping[str, Histogram]],
    now: datetime,
) -> list[SourceLine]:
    """Put together what each source was worth, by name; *timings* are by source and phase."""
    of, run_id = question.source, question.run_id
    embargoes = standing_embargoes(session, now=now)
    sandbox = history.played_by_sandbox(session, question.window, source=of, run_id=run_id)
    return [
        SourceLine(
            totals=totals,
            is_sandbox=sandbox[totals.source],
            exchange=timings.get(totals.source, {}).get(EXCHANGE),
            embargo=embargoes.get(totals.source),
        )
        for totals in history.source_totals(session, question.window, source=of, run_id=run_id)
    ]


def embargo_facts(embargoes: Iterable[tuple[str, Embargo | None]]) -> list[str]:
    """Say which sources must not be asked now, until when and why."""
    return [
        f"{source} must not be asked before {show_time(embargo.until)}: {embargo.why}."
        for source, embargo in embargoes
        if embargo is not None
    ]


def chart_of_success(points: Iterable[SourceTotals], buckets: Buckets | None) -> list[Chart]:
    """Draw which share of the attempts brought numbers over time, by source."""
    drawn = [
        (point.began_at, point.source, point)
        for point in points
        if point.began_at and point.attempts
    ]
    return trend("Attempts that succeeded", Kind.SHARE, buckets, drawn, _success_share)


def _success_share(points: Iterable[SourceTotals]) -> float:
    counts = [(point.attempts, point.failed_attempts) for point in points]
    attempts, failed = map(sum, zip(*counts, strict=True))
    return (attempts - failed) / attempts
