"""Write a dossier: all that a provider should know of our requests to it, in one document.

Nothing in it says who or where we are: no host, path or process is read at all, secrets were
replaced when the requests were stored, and addresses of people are replaced here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlmodel import Session

from pipeline.audit.audit import examine
from pipeline.audit.exchange import lines_of_answer, lines_of_request
from pipeline.audit.findings import tabulate_findings, tell_availability
from pipeline.errors import Phase, UsageError
from pipeline.models import Attempt, AttemptRecord, Evidence, Finding, FindingKind
from pipeline.rendering.document import Column, Document, Kind, Part, Table, Text
from pipeline.rendering.output_file import STDOUT, write_file
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.scope import A_WEEK, check_source, make_window, reading, show_window
from pipeline.settings import Settings
from pipeline.store import durations, history, queries
from pipeline.store.evidence import SentRequest, sent_requests
from pipeline.store.totals import RuleTotals
from pipeline.store.window import Window

MOST_REQUESTS = 10
MOST_ATTEMPTS = 50
MOST_BODY = 1_000  # characters of a body that are quoted
MOST_ANSWERS = 10  # quoted
RANKS = (0.5, 0.9, 0.99)
ENDINGS = {
    **dict.fromkeys((".md", ".markdown", ".txt"), Shape.MARKDOWN),
    **dict.fromkeys((".html", ".htm"), Shape.HTML),
}

# By them the provider finds one request in its logs.
REQUEST_ID_HEADERS = (
    *("cf-ray", "request-id", "traceparent", "x-request-id", "x-trace-id", "x-correlation-id"),
    *("x-amz-cf-id", "x-amz-request-id", "x-amzn-requestid", "x-amzn-trace-id"),
)

# They concern our other sources, or our own time alone.
NOT_FOR_PROVIDERS = frozenset(
    {
        FindingKind.OVERDUE,
        FindingKind.SILENT,
        FindingKind.USELESS_RETRIES,
        FindingKind.CLOCK,
        FindingKind.MISSED,
        FindingKind.LATE,
    }
)

ADDRESS = "[address]"
_PROXY = r"^proxy \S+?(?=:? )"  # the name of one in our own network
_ADDRESS = r"[A-Za-z0-9._%+-]{1,64}(?:@|%40)[A-Za-z0-9.-]{1,255}"

INTRODUCTION = (
    "This was written by pipeline, a program that collects random numbers from public sources"
    " without supervision and keeps an account of every request. Times are UTC. Keys are left out:"
    " where the name of a variable stands in braces after a dollar sign, a key was sent. Addresses"
    " of people are left out too."
)
TOTALS = {
    "runs that wanted numbers": "runs",
    "runs that got some": "answered",
    "requests": "attempts",
    "requests that failed": "failed_attempts",
    "batches ordered": "ordered",
    "batches collected": "collected",
    "batches failed": "failed",
    "batches put off to keep the rules": "deferred",
    "batches cancelled by us": "cancelled",
    "numbers collected": "numbers",
}
RULES = "at_most=rule runs requests=attempts against_the_rule=violations"
NO_RULE = {"at_most": "no limit known"}
SENT = "method=request.method URL=request.url times=n first_at last_at"
LOOKED_UP = (
    "request=record.id sent_at=record.attempt.sent_at error=record.attempt.error"
    " status=record.attempt.status your_ids=request_ids detail=record.attempt.detail"
)


@dataclass(frozen=True, slots=True)
class LookedUp:
    """An attempt as its upstream may look it up."""

    record: AttemptRecord

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Find what the upstream itself calls it: ``cf-ray 8c1f``, in the order received."""
        evidence = self.record.attempt.evidence
        headers = () if evidence is None else evidence.headers
        return tuple(
            f"{name} {value}" for name, value in headers if name.lower() in REQUEST_ID_HEADERS
        )


def make_dossier(session: Session, window: Window, *, source: str) -> Document:
    """Put what concerns *source* in a window into words and tables."""
    title, facts = f"Requests to {source}", [f"{show_window(window)}.", INTRODUCTION]
    totals = history.source_totals(session, window, source=source)
    if not totals:
        return Document(title=title, facts=[*facts, "No run wanted anything of it."])
    rules = history.rule_totals(session, window, source=source)
    parts = [
        Table(
            title="In all",
            columns=(Column("what"), Column("n", Kind.NUMBER)),
            rows=[(what, getattr(totals[0], name)) for what, name in TOTALS.items()],
        ),
        *_tell_requests(session, window, source),
        tabulate(RuleTotals, rules, RULES, title="The rules kept", nothing=NO_RULE),
        *_tell_findings(session, window, source),
    ]
    return Document(title=title, facts=facts, parts=parts)


def _tell_requests(session: Session, window: Window, source: str) -> Iterator[Part]:
    sent = sent_requests(session, window, source=source, most=MOST_REQUESTS)
    requests: list[SentRequest] = list(map(_hide_addresses, sent.listed))
    yield tabulate(SentRequest, requests, SENT, title="What was asked")
    if sent.different > len(requests):
        others = count_of(sent.different - len(requests), "other request")
        n = sent.times - sum(each.n for each in requests)
        yield Text(lines=[f"And {others}, asked {count_of(n, 'time')}."])
    if requests:
        lines = list(lines_of_request(requests[0].request, most=MOST_BODY))
        yield Text(title="The most frequent request", lines=lines, is_verbatim=True)


def _tell_findings(session: Session, window: Window, source: str) -> Iterator[Part]:
    """Tell when it was up, what went wrong, how long attempts took, and what was answered."""
    found = examine(session, window, source=source)
    if found.availability:
        yield from tell_availability(found.availability)
    findings = sorted(
        (
            each
            for each in found.findings
            if each.kind not in NOT_FOR_PROVIDERS and len(each.sources) == 1
        ),
        key=lambda finding: finding.since,
    )
    if findings:
        yield tabulate_findings(findings, title="Incidents and other findings")
    attempts = _attempts_of(session, findings)
    if attempts:
        yield tabulate(LookedUp, attempts, LOOKED_UP, title="Requests to look up")
    yield _tabulate_phases(session, window, source)
    yield from _quote_answers(attempts)


def _attempts_of(session: Session, findings: Iterable[Finding]) -> list[LookedUp]:
    """Look up the attempts of *findings*: of the newest, should they be too many."""
    ids = sorted({attempt_id for finding in findings for attempt_id in finding.attempts})
    cases = (queries.find_attempt(session, attempt_id=i) for i in ids[-MOST_ATTEMPTS:])
    return [LookedUp(_without_us(case.record)) for case in cases if case is not None]


def _without_us(record: AttemptRecord) -> AttemptRecord:
    """Leave out who and where we are."""
    attempt: Attempt = _hide_addresses(record.attempt)
    detail = attempt.detail and re.sub(_PROXY, "proxy", attempt.detail)
    return replace(record, attempt=replace(attempt, detail=detail))


def _tabulate_phases(session: Session, window: Window, source: str) -> Table:
    found = durations.percentiles(session, window, source=source).of.get(source, {})
    phases = {phase.replace("_", " "): found.get(phase) for phase in Phase}
    phases["all but the wait"] = found.get("exchange")
    return Table(
        title="How long it took",
        columns=(
            Column("phase"),
            Column("n", Kind.NUMBER),
            *(Column(f"p{rank * 100:g}", Kind.DURATION) for rank in RANKS),
            Column("max", Kind.DURATION),
        ),
        rows=[
            (phase, of.n, *of.percentiles(*RANKS), of.max_us)
            for phase, of in phases.items()
            if of is not None
        ],
    )


def _quote_answers(attempts: Sequence[LookedUp]) -> Iterator[Text]:
    """Quote the answers to the newest of *attempts*, each different one once."""
    answers: dict[str, tuple[AttemptRecord, Evidence]] = {}
    for record in (each.record for each in reversed(attempts)):
        if record.evidence is not None and record.attempt.evidence is not None:
            answers.setdefault(record.evidence, (record, record.attempt.evidence))
    for record, evidence in list(answers.values())[:MOST_ANSWERS]:
        error = record.attempt.error
        yield Text(
            title=f"The answer to request {record.id} ({error or 'accepted'})",
            lines=list(lines_of_answer(evidence, error, most=MOST_BODY)),
            is_verbatim=True,
        )


def _hide_addresses(value: Any) -> Any:  # noqa: ANN401 - a record, or a part of one
    """Replace e-mail addresses in all its text: random.org wants ours in the User-Agent."""
    match value:
        case Enum():
            return value
        case str():
            return re.sub(_ADDRESS, ADDRESS, value)
        case bytes():
            return re.sub(_ADDRESS.encode(), ADDRESS.encode(), value)
        case tuple():
            return tuple(map(_hide_addresses, value))
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: _hide_addresses(getattr(value, each.name)) for each in fields(value)}
        return replace(value, **parts)
    return value


def write_dossier(
    settings: Settings,
    source: str,
    *,
    since: datetime | None,
    until: datetime | None,
    shape: Shape | None,
    file: Path,
    force: bool,
) -> None:
    """Write the dossier of *source* to *file*, whose ending says how if *shape* does not."""
    shape = shape or _shape_of(file)
    window = make_window(since, until, looks_back=A_WEEK)
    with reading(settings.store) as session:
        check_source(settings, session, source, given_as="SOURCE")
        document = make_dossier(session, window, source=source)
    write_file(file, (f"{line}\n".encode() for line in render(document, shape)), force=force)


def _shape_of(file: Path) -> Shape:
    if file == STDOUT:
        return Shape.MARKDOWN
    if (found := ENDINGS.get(file.suffix.lower())) is None:
        raise UsageError(f"{file}: give --format markdown or html")
    return found
