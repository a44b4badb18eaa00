"""What each source was worth."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.document import Chart, Column, Document, Kind, Part, Table, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines, show_time
from pipeline.cli.report.answers import facts, head
from pipeline.cli.report.numbers import find_steps
from pipeline.cli.report.question import Question
from pipeline.cli.report.trends import trend
from pipeline.store.summaries import EXCHANGE

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.report import SourceLine
    from pipeline.store.history import SourceTotals, Window


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write what each source was worth."""
    timings = core.timing_report(session, scope, phases={EXCHANGE})
    found = core.source_lines(session, scope, timings, now=datetime.now(UTC))
    steps = find_steps(session, scope)
    if question.shape is Shape.JSON:
        steps_json = map(_point_json, steps)
        return json_lines(head("pipeline.source_totals/1", scope), sources=found, trend=steps_json)
    is_text = question.shape is Shape.TEXT
    parts: list[Part] = [_narrow_table(found) if is_text else table_of_sources(found)]
    parts.extend(chart_of_success(steps, scope.window))
    said = [*facts(session, scope), *embargo_facts(found)]
    return render(Document(title="Sources", facts=said, parts=parts), question.shape)


def embargo_facts(found: Iterable["SourceLine"]) -> list[str]:
    """Say who must not be asked now, until when and why."""
    return [
        f"{line.source} must not be asked before {show_time(line.embargo_until)}:"
        f" {line.embargo_why}."
        for line in found
        if line.embargo_until is not None
    ]


def _point_json(step: "SourceTotals") -> dict[str, object]:
    return {
        "began_at": step.began_at,
        "source": step.source,
        "runs": step.runs,
        "ordered": step.ordered,
        "collected": step.collected,
        "attempts": step.attempts,
        "failed_attempts": step.failed_attempts,
    }


def table_of_sources(found: Iterable["SourceLine"], *, title: str = "") -> Table:
    """Make a row of each source."""
    return Table(
        title=title,
        columns=(
            Column("source"),
            Column("runs", Kind.NUMBER),
            Column("ordered", Kind.NUMBER),
            Column("collected", Kind.NUMBER),
            Column("share", Kind.SHARE),
            Column("numbers", Kind.NUMBER),
            Column("requests", Kind.NUMBER),
            Column("retries", Kind.NUMBER),
            Column("success", Kind.SHARE),
            Column("p50", Kind.DURATION),
            Column("p90", Kind.DURATION),
            Column("p99", Kind.DURATION),
            Column("last good run", Kind.MOMENT),
            Column("last bad run", Kind.MOMENT),
            Column("embargo until", Kind.MOMENT),
        ),
        rows=[
            (
                line.source,
                line.runs,
                line.ordered,
                line.collected,
                line.share,
                line.numbers,
                line.attempts,
                line.retries,
                line.success,
                line.p50_us,
                line.p90_us,
                line.p99_us,
                line.last_good_at,
                line.last_bad_at,
                line.embargo_until,
            )
            for line in found
        ],
    )


def _narrow_table(found: Iterable["SourceLine"]) -> Table:
    """Make a row of each source that fits on a terminal; embargoes are told above it."""
    return Table(
        columns=(
            Column("source"),
            Column("runs", Kind.NUMBER),
            Column("collected"),
            Column("numbers", Kind.NUMBER),
            Column("requests", Kind.NUMBER),
            Column("success", Kind.SHARE),
            Column("p50", Kind.DURATION),
            Column("p99", Kind.DURATION),
            Column("last good run", Kind.MOMENT),
            Column("last bad run", Kind.MOMENT),
        ),
        rows=[
            (
                line.source,
                line.runs,
                f"{line.collected}/{line.ordered}",
                line.numbers,
                line.attempts,
                line.success,
                line.p50_us,
                line.p99_us,
                line.last_good_at,
                line.last_bad_at,
            )
            for line in found
        ],
    )


def chart_of_success(steps: Iterable["SourceTotals"], window: "Window") -> list[Chart]:
    """Draw which share of the attempts brought numbers over time, by source."""
    points = [
        (step.began_at, step.source, 1 - step.failed_attempts / step.attempts)
        for step in steps
        if step.began_at and step.attempts
    ]
    return trend("Attempts that succeeded", Kind.SHARE, window, points)
