"""A dossier as a document: one file about one source, fit to be sent to its provider."""

from collections.abc import Iterator
from datetime import timedelta

from pipeline.audit import Dossier, request_ids
from pipeline.cli.asking import show_window
from pipeline.cli.document import Column, Document, Kind, Part, Table, Text
from pipeline.cli.findings import tabulate_findings, tell_availability
from pipeline.cli.words import count_of
from pipeline.errors import Phase
from pipeline.evidence.extent import tell_extent
from pipeline.models import AttemptRecord, Evidence, Request
from pipeline.store.history import SourceTotals

MOST_BODY = 1_000  # characters of a body that are quoted
MOST_ANSWERS = 10  # quoted
RANKS = (0.5, 0.9, 0.99)

INTRODUCTION = (
    "This was written by pipeline, a program that collects random numbers from public sources"
    " without supervision and keeps an account of every request. Times are UTC. Keys are left out:"
    " where the name of a variable stands in braces after a dollar sign, a key was sent. Addresses"
    " of people are left out too."
)


def make_document(found: Dossier) -> Document:
    """Put what was compiled into words and tables."""
    title, facts = f"Requests to {found.source}", [f"{show_window(found.window)}.", INTRODUCTION]
    if found.totals is None:
        return Document(title=title, facts=[*facts, "No run wanted anything of it."])
    return Document(title=title, facts=facts, parts=[_tabulate(found.totals), *_parts(found)])


def _parts(found: Dossier) -> Iterator[Part]:
    yield from _tell_requests(found)
    yield _tabulate_rules(found)
    if found.availability is not None:
        yield from tell_availability([found.availability])
    if found.findings:
        yield tabulate_findings(found.findings, title="Incidents and other findings")
    if found.attempts:
        yield _tabulate_attempts(found.attempts)
    yield _tabulate_phases(found)
    yield from _quote_answers(found.attempts)


def _tabulate(totals: SourceTotals) -> Table:
    facts = {
        "runs that wanted numbers": totals.runs,
        "runs that got some": totals.answered,
        "requests": totals.attempts,
        "requests that failed": totals.failed_attempts,
        "batches ordered": totals.ordered,
        "batches collected": totals.collected,
        "batches failed": totals.failed,
        "batches put off to keep the rules": totals.deferred,
        "batches cancelled by us": totals.cancelled,
        "numbers collected": totals.numbers,
    }
    return Table(
        title="In all", columns=(Column("what"), Column("n", Kind.NUMBER)), rows=list(facts.items())
    )


def _tell_requests(found: Dossier) -> Iterator[Part]:
    requests = found.requests
    yield Table(
        title="What was asked",
        columns=(
            Column("method"),
            Column("URL"),
            Column("times", Kind.NUMBER),
            Column("first", Kind.MOMENT),
            Column("last", Kind.MOMENT),
        ),
        rows=[
            (sent.request.method, sent.request.url, sent.n, sent.first_at, sent.last_at)
            for sent in requests
        ],
    )
    if found.other_requests:
        others, times = count_of(found.other_requests, "other request"), found.other_times
        yield Text(lines=[f"And {others}, asked {count_of(times, 'time')}."])
    if requests:
        lines = list(_lines_of_request(requests[0].request))
        yield Text(title="The most frequent request", lines=lines, is_verbatim=True)


def _lines_of_request(request: Request) -> Iterator[str]:
    yield f"{request.method} {request.url}"
    for name, value in request.headers:
        yield f"{name}: {value}"
    if request.body:
        yield ""
        yield from _excerpt(request.body)


def _excerpt(body: bytes) -> list[str]:
    text = body.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return (text if len(text) <= MOST_BODY else f"{text[:MOST_BODY]}…").split("\n")


def _tabulate_rules(found: Dossier) -> Table:
    return Table(
        title="The rules kept",
        columns=(
            Column("at most"),
            Column("runs", Kind.NUMBER),
            Column("requests", Kind.NUMBER),
            Column("against the rule", Kind.NUMBER),
        ),
        rows=[
            (kept.rule or "no limit known", kept.runs, kept.requests, kept.violations)
            for kept in found.rules
        ],
    )


def _tabulate_attempts(attempts: list[AttemptRecord]) -> Table:
    return Table(
        title="Requests to look up",
        columns=(
            Column("request", Kind.NUMBER),
            Column("sent", Kind.MOMENT),
            Column("error"),
            Column("status", Kind.NUMBER),
            Column("your id"),
            Column("detail"),
        ),
        rows=[
            (
                record.id,
                record.attempt.began_at
                + timedelta(microseconds=record.attempt.timings.wait_us or 0),
                record.attempt.error,
                record.attempt.status,
                ", ".join(request_ids(record.attempt.evidence)) or None,
                record.attempt.detail,
            )
            for record in attempts
        ],
    )


def _tabulate_phases(found: Dossier) -> Table:
    exchange = "all but the wait"
    phases = {
        **{phase.replace("_", " "): found.phases.get(phase) for phase in Phase},
        exchange: found.phases.get("exchange"),
    }
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


def _quote_answers(attempts: list[AttemptRecord]) -> Iterator[Text]:
    """Quote the answers to the newest of *attempts*, each different one once."""
    answers: dict[str, tuple[AttemptRecord, Evidence]] = {}
    for record in reversed(attempts):
        if record.evidence is not None and record.attempt.evidence is not None:
            answers.setdefault(record.evidence, (record, record.attempt.evidence))
    for record, evidence in list(answers.values())[:MOST_ANSWERS]:
        error = record.attempt.error or "accepted"
        headers = [f"{name}: {value}" for name, value in evidence.headers]
        yield Text(
            title=f"The answer to request {record.id} ({error})",
            lines=[
                f"Status {evidence.status}",
                *headers,
                f"Body: {tell_extent(evidence, record.attempt.error)}",
                "",
                *_excerpt(evidence.body),
            ],
            is_verbatim=True,
        )
