"""The overview: how the sources did of late, on one page."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import audit
from pipeline import report as core
from pipeline.cli.document import Document, Part, Text, render
from pipeline.cli.findings import tabulate_findings
from pipeline.cli.report.answers import facts
from pipeline.cli.report.errors import chart_of_failures, find_losses, table_of_errors
from pipeline.cli.report.numbers import chart_of_numbers, find_steps
from pipeline.cli.report.question import Question
from pipeline.cli.report.runs import find_runs, table_of_runs
from pipeline.cli.report.sources import chart_of_success, embargo_facts, table_of_sources
from pipeline.cli.report.timings import chart_of_medians, how_known, table_of_timings
from pipeline.cli.words import count_of

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.report import SourceLine

MOST_FINDINGS = 3  # the worst; an audit has them all


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the overview."""
    window = scope.window
    timings = core.timing_report(session, scope)
    sources = core.source_lines(session, scope, timings, now=datetime.now(UTC))
    steps = find_steps(session, scope)
    document = Document(
        title="Overview",
        facts=[
            *facts(session, scope),
            _totals(sources),
            *embargo_facts(sources),
            how_known(timings, window.step),
        ],
        parts=[
            table_of_sources(sources, title="Sources"),
            *_findings(session, scope),
            table_of_errors(core.error_lines(session, scope), title="Errors"),
            table_of_runs(session, find_runs(session, scope, question.limit), title="Last runs"),
            *chart_of_success(steps, window),
            *chart_of_numbers(steps, window),
            *chart_of_failures(find_losses(session, scope), window),
            *chart_of_medians(core.timing_points(session, scope), window),
            table_of_timings(timings, title="Timings"),
        ],
    )
    return render(document, question.shape)


def _findings(session: "Session", scope: core.Scope) -> Iterator[Part]:
    """List the worst that an audit of the same stretch of time has to say."""
    found = audit.examine(session, scope.window, source=scope.source).findings
    if found:
        yield tabulate_findings(found[:MOST_FINDINGS])
        yield Text(
            lines=[f"{count_of(len(found), 'finding')} in all; see `pipeline audit`."], is_ours=True
        )


def _totals(sources: Sequence["SourceLine"]) -> str:
    """Add up what came from all sources."""
    if not sources:
        return "Nothing was ordered in this time."
    collected = ordered = numbers = attempts = failed = 0
    for line in sources:
        collected += line.collected
        ordered += line.ordered
        numbers += line.numbers
        attempts += line.attempts
        failed += line.failed_attempts
    return (
        f"{collected} of {count_of(ordered, 'batch')} collected, {count_of(numbers, 'number')};"
        f" {failed} of {count_of(attempts, 'request')} failed."
    )
