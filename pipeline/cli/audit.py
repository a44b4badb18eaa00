"""``pipeline audit``: what is wrong, with whom, since when, and where the evidence is."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import ExitCode, error_boundary
from pipeline.cli.evidence import har, replay, show
from pipeline.cli.options import (
    ConfigOption,
    Shape,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
)
from pipeline.cli.render import json_lines, show_time, write
from pipeline.cli.report import reading
from pipeline.cli.verify import verify
from pipeline.errors import ERRORS, UsageError

if TYPE_CHECKING:
    from pipeline.audit import Availability, Examination
    from pipeline.cli.document import Document, Table, Text
    from pipeline.models import Finding
    from pipeline.store.history import LossTotals, Window

LOOKS_BACK = timedelta(days=7)  # without --since

audit_app = typer.Typer(rich_markup_mode=None)
audit_app.command()(show)
audit_app.command()(verify)
audit_app.command()(har)
audit_app.command()(replay)


@audit_app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    format_: ShapeOption = Shape.TEXT,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if a finding is a warning or worse.")
    ] = False,
) -> None:
    """Say what is wrong: findings, availability, and the failures behind them.

    Without --since it looks at the last 7 days.

    \b
    pipeline audit -s anu --since 30d    a month of one source
    pipeline audit --strict              for cron: exit 3 when something is wrong
    pipeline audit show 17               the evidence of attempt 17
    """
    if context.invoked_subcommand is not None:
        if since or until or source or strict or format_ is not Shape.TEXT:
            name = context.invoked_subcommand
            raise typer.BadParameter(f"of the options before {name} only --config has a meaning")
        return
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        settings = load_settings(config, os.environ, will_ask=False)
        window = make_window(since, until, looks_back=LOOKS_BACK)
        with reading(settings.store) as session:
            if source is not None:
                core.check_source(session, source, settings.sources)
            found = core.examine(session, window, source=source, enabled=settings.enabled_sources)
        for line in _lines(found, format_):
            write(line)
    if strict and found.is_alarming:
        raise typer.Exit(ExitCode.FINDINGS)


def make_window(
    since: datetime | None, until: datetime | None, *, looks_back: timedelta
) -> "Window":
    """Give the window that was asked for; it ends now, and begins *looks_back* before its end.

    Raises:
        UsageError: it would end before it begins.
    """
    from pipeline.store.history import Window

    end = until or datetime.now(UTC)
    try:
        begin = since or end - looks_back
    except OverflowError:  # --until in the first days of the year 1
        begin = end
    if since is not None and end <= begin:
        raise UsageError(f"--until {show_time(end)} is not after --since {show_time(begin)}")
    return Window(since=begin, until=end)


def show_window(window: "Window") -> str:
    """Write from when to when it is."""
    return f"{show_time(window.since)} to {show_time(window.until)}"


def _lines(found: "Examination", shape: Shape) -> Iterator[str]:
    from pipeline.cli.document import render

    return _json(found) if shape is Shape.JSON else render(_document(found, shape), shape)


def _json(found: "Examination") -> Iterator[str]:
    from pipeline.audit import ACCOUNTING_RULE

    head = {
        "schema": "pipeline.audit/1",
        "since": found.window.since,
        "until": found.window.until,
        "runs": found.runs,
        "is_alarming": found.is_alarming,
        "accounting_rule": ACCOUNTING_RULE,
    }
    return json_lines(
        head,
        findings=found.findings,
        availability=found.availability,
        failures=map(_failure_json, found.failures),
    )


def _failure_json(loss: "LossTotals") -> dict[str, object]:
    return {
        "source": loss.source,
        "error": loss.error,
        "phase": loss.phase,
        "whose": ERRORS[loss.error].whose,
        "n": loss.attempts,
        "batches": loss.batches,
        "first_at": loss.first_at,
        "last_at": loss.last_at,
        "last_attempt": loss.last_attempt,
    }


def _document(found: "Examination", shape: Shape) -> "Document":
    from pipeline.cli.document import Document

    runs = f"{found.runs:,} run{'s' * (found.runs != 1)}"
    window = f"{show_window(found.window)}, {runs}; --since and --until choose another time."
    parts: list[Table | Text] = []
    if found.findings:
        as_list = shape is Shape.TEXT
        parts.append(
            _list_findings(found.findings) if as_list else tabulate_findings(found.findings)
        )
    if found.availability:
        parts += tell_availability(found.availability)
    if found.failures:
        parts.append(tabulate_failures(found.failures))
    facts = [window] if found.findings else [f"Nothing to complain about: {window}"]
    return Document(title="Audit", facts=facts, parts=parts)


def _list_findings(findings: list["Finding"]) -> "Text":
    """Tell each finding in a few lines: on a terminal a table of them would not fit."""
    from pipeline.cli.document import Text

    lines = [line for finding in findings for line in _tell(finding)]
    return Text(title="Findings", lines=lines, is_verbatim=True)


def _tell(finding: "Finding") -> Iterator[str]:
    kind, sources = finding.kind.replace("_", " "), ", ".join(finding.sources)
    yield f"{finding.severity}: {kind}, {sources}, {_when(finding)}"
    whose = f" (whose: {finding.whose})" if finding.whose else ""
    yield f"    {finding.reason}{whose}"
    if finding.attempts:
        first, last = finding.attempts[0], finding.attempts[-1]
        to_last = f" (the first), {last} (the last)" if last != first else ""
        yield f"    see: pipeline audit show {first}{to_last}"


def _when(finding: "Finding") -> str:
    if finding.until is None:
        return f"since {show_time(finding.since)}, still going on"
    if finding.until == finding.since:
        return show_time(finding.since)
    return f"{show_time(finding.since)} to {show_time(finding.until)}"


def tabulate_findings(findings: list["Finding"], title: str = "Findings") -> "Table":
    """Make a row of each finding."""
    from pipeline.cli.document import Column, Kind, Table

    return Table(
        title=title,
        columns=(
            Column("severity"),
            Column("kind"),
            Column("source"),
            Column("since", Kind.MOMENT),
            Column("until", Kind.MOMENT),
            Column("whose"),
            Column("batches", Kind.NUMBER),
            Column("attempts"),
            Column("reason"),
        ),
        rows=[
            (
                finding.severity,
                finding.kind,
                ", ".join(finding.sources),
                finding.since,
                finding.until,
                finding.whose,
                finding.batches,
                ", ".join(map(str, finding.attempts)) or None,
                finding.reason,
            )
            for finding in findings
        ],
    )


def tell_availability(availability: list["Availability"]) -> tuple["Table", "Text"]:
    """Make a row of each source, and print the rule by which the time was counted."""
    from pipeline.audit import ACCOUNTING_RULE
    from pipeline.cli.document import Column, Kind, Table, Text

    table = Table(
        title="Availability",
        columns=(
            Column("source"),
            Column("availability", Kind.SHARE),
            Column("unknown", Kind.SHARE),
            Column("up", Kind.DURATION),
            Column("down", Kind.DURATION),
            Column("looks", Kind.NUMBER),
            Column("outages", Kind.NUMBER),
            Column("recovered", Kind.NUMBER),
            Column("mean", Kind.DURATION),
            Column("longest", Kind.DURATION),
        ),
        rows=[
            (
                of.source,
                of.share,
                of.unknown_share,
                of.up_us,
                of.down_us,
                of.observations,
                of.outages,
                of.recoveries,
                of.mean_recovery_us,
                of.longest_recovery_us,
            )
            for of in availability
        ],
    )
    return table, Text(lines=[ACCOUNTING_RULE])


def tabulate_failures(failures: list["LossTotals"]) -> "Table":
    """Make a row of each source, error and phase."""
    from pipeline.cli.document import Column, Kind, Table

    return Table(
        title="Failures (`pipeline audit show NUMBER` prints the evidence of an attempt)",
        columns=(
            Column("source"),
            Column("error"),
            Column("phase"),
            Column("whose"),
            Column("attempts", Kind.NUMBER),
            Column("batches", Kind.NUMBER),
            Column("first", Kind.MOMENT),
            Column("last", Kind.MOMENT),
            Column("newest attempt", Kind.NUMBER),
        ),
        rows=[
            (
                loss.source,
                loss.error,
                loss.phase,
                ERRORS[loss.error].whose,
                loss.attempts,
                loss.batches,
                loss.first_at,
                loss.last_at,
                loss.last_attempt,
            )
            for loss in failures
        ],
    )
