"""What an audit found, as a document or as JSON: findings, availability, failures."""

from collections.abc import Iterator

from pipeline.audit import ACCOUNTING_RULE, Availability, Examination
from pipeline.cli.asking import show_window, window_json
from pipeline.cli.document import Column, Document, Kind, Part, Table, Text, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines, show_time
from pipeline.errors import ERRORS
from pipeline.models import Finding
from pipeline.store.history import LossTotals

MOST_LISTED = 30  # findings in a text; the worst come first


def _list_findings(findings: list[Finding]) -> Text:
    """Tell each finding in a few lines: on a terminal a table of them would not fit."""
    lines = [line for finding in findings[:MOST_LISTED] for line in _tell(finding)]
    if len(findings) > MOST_LISTED:
        left_out = len(findings) - MOST_LISTED
        lines.append(f"and {left_out:,} more that are no worse; --format json gives all")
    return Text(title="Findings", lines=lines, is_verbatim=True)


def _tell(finding: Finding) -> Iterator[str]:
    kind, sources = finding.kind.replace("_", " "), ", ".join(finding.sources)
    yield f"{finding.severity}: {kind}, {sources}, {_when(finding)}"
    whose = f" (whose: {finding.whose})" if finding.whose else ""
    yield f"    {finding.reason}{whose}"
    if finding.attempts:
        first, last = finding.attempts[0], finding.attempts[-1]
        to_last = f" (the first), {last} (the last)" if last != first else ""
        yield f"    see: pipeline audit show {first}{to_last}"


def _when(finding: Finding) -> str:
    if finding.until is None:
        return f"since {show_time(finding.since)}, still going on"
    if finding.until == finding.since:
        return show_time(finding.since)
    return f"{show_time(finding.since)} to {show_time(finding.until)}"


def tabulate_findings(findings: list[Finding], title: str = "Findings") -> Table:
    """Make a row of each finding."""
    return Table(
        title=title,
        columns=(
            Column("severity"),
            Column("kind"),
            Column("source"),
            Column("reason"),
            Column("since", Kind.MOMENT),
            Column("until", Kind.MOMENT),
            Column("whose"),
            Column("batches", Kind.NUMBER),
            Column("attempts"),
        ),
        rows=[
            (
                finding.severity,
                finding.kind,
                ", ".join(finding.sources),
                finding.reason,
                finding.since,
                finding.until,
                finding.whose,
                finding.batches,
                ", ".join(map(str, finding.attempts)) or None,
            )
            for finding in findings
        ],
    )


def tell_availability(availability: list[Availability]) -> tuple[Table, Text]:
    """Make a row of each source, and print the rule by which the time was counted."""
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


def _tabulate_failures(failures: list[LossTotals]) -> Table:
    """Make a row of each source, error and phase."""
    return Table(
        title="Failures",
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


def lines_of(found: Examination, source: str | None, shape: Shape) -> Iterator[str]:
    """Write what was found, about one *source* alone if it is given."""
    if shape is Shape.JSON:
        return _json(found, source)
    return render(_document(found, source, shape), shape)


def _json(found: Examination, source: str | None) -> Iterator[str]:
    head = {
        "schema": "pipeline.audit/1",
        "window": window_json(found.window),
        "source": source,
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


def _failure_json(loss: LossTotals) -> dict[str, object]:
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


def _document(found: Examination, source: str | None, shape: Shape) -> Document:
    of = "" if source is None else f", {source} alone"
    looked = f"{show_window(found.window)}{of}, {found.runs:,} run{'s' * (found.runs != 1)}"
    parts: list[Part] = []
    if found.findings and shape is Shape.TEXT:
        parts.append(_list_findings(found.findings))
    elif found.findings or shape is Shape.CSV:  # a sheet has the same columns every day
        parts.append(tabulate_findings(found.findings))
    if found.availability:
        parts += tell_availability(found.availability)
    if found.failures:
        parts.append(_tabulate_failures(found.failures))
        parts.append(Text(lines=["pipeline audit show NUMBER prints the evidence of an attempt."]))
    return Document(title="Audit", facts=[_summary(found, looked)], parts=parts)


def _summary(found: Examination, looked: str) -> str:
    if not found.findings:
        return f"{looked}: nothing to complain about. --since and --until choose another time."
    return f"{looked}. --since and --until choose another time."
