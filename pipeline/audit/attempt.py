"""One attempt with all that is known of it: as text, JSON, HAR, or a command that repeats it."""

from collections.abc import Iterator
from pathlib import Path

from sqlmodel import Session

from pipeline.audit.curl import curl_command
from pipeline.audit.exchange import lines_of_answer, lines_of_request
from pipeline.audit.findings import responsible, tell_measures, tell_proof
from pipeline.audit.har import har_chunks
from pipeline.errors import Phase, UsageError
from pipeline.models import AttemptCase, ContractSpan
from pipeline.rendering.document import Column, Document, Kind, Part, Table, Text
from pipeline.rendering.output import json_lines, write
from pipeline.rendering.output_file import write_file
from pipeline.rendering.records import pick, picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Format, Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import ANSWER, ATTEMPT, BATCH, SPAN
from pipeline.rendering.words import show_duration, show_time, tell_limits
from pipeline.scope import reading
from pipeline.settings import Settings
from pipeline.sources.registry import KINDS
from pipeline.store import history, queries

ID_BITS = 64  # of SQLite's integers, the sign included
PATIENCE_SECONDS = 30.0  # of a repeated request, where its source is not configured any more

LOOKED_LIKE = "aspect first_at last_at value"


def find_case(session: Session, attempt_id: int) -> AttemptCase:
    """Look up one attempt with the answer that it got and the batches that it settled.

    Raises:
        UsageError: there is no such attempt.
    """
    is_storable = attempt_id.bit_length() < ID_BITS
    case = queries.find_attempt(session, attempt_id=attempt_id) if is_storable else None
    if case is None:
        raise UsageError(f"attempt {attempt_id}: {_why_not(session, attempt_id)}")
    return case


def _why_not(session: Session, attempt_id: int) -> str:
    """Say why there is no such attempt: numbers below the oldest one kept were once given."""
    oldest = history.oldest_attempt_after_pruning(session)
    if oldest is not None and 0 < attempt_id < oldest:
        return "it was pruned with its run; the tallies and losses of the run are kept"
    pruned = "" if oldest is None else ", or it was pruned"
    return f"there is none{pruned}; `pipeline audit` lists failures"


def show(
    settings: Settings,
    attempt_id: int,
    *,
    as_curl: bool,
    har_file: Path | None,
    force: bool,
    format_: Format,
) -> None:
    """Write one attempt to stdout, or to *har_file*."""
    with reading(settings.store) as session:
        case = find_case(session, attempt_id)
    if as_curl:
        write(_curl(case, settings))
    elif har_file is not None:
        write_file(har_file, har_chunks([case.record]), force=force)
    else:
        title = f"Attempt {case.record.id}"
        document = Document(title=title, facts=list(_facts(case)), parts=list(_parts(case)))
        is_json = format_ is Format.JSON
        write("\n".join(_json(case) if is_json else render(document, Shape.TEXT)))


def _curl(case: AttemptCase, settings: Settings) -> str:
    attempt = case.record.attempt
    if attempt.request is None:
        raise UsageError(f"attempt {case.record.id}: what it sent was not kept")
    max_seconds = PATIENCE_SECONDS
    if source := settings.sources.get(attempt.source):
        max_seconds = source.attempt_seconds or KINDS[source.upstream].attempt_seconds
    return curl_command(attempt.request, max_seconds=max_seconds)


def _json(case: AttemptCase) -> Iterator[str]:
    attempt = case.record.attempt
    head = {
        "schema": "pipeline.attempt/1",
        "attempt": pick(case.record, ATTEMPT),
        "request": attempt.request,
        "answer": attempt.evidence and pick(attempt.evidence, ANSWER),
        "limits": case.limits,
    }
    return json_lines(
        head,
        batches=(pick(batch, BATCH) | {"attempt_id": case.record.id} for batch in case.batches),
        attempts=picks(case.tries, ATTEMPT),
        contracts=picks(case.contracts, SPAN),
    )


def _facts(case: AttemptCase) -> Iterator[str]:
    record, attempt = case.record, case.record.attempt
    settled = ", ".join(batch.name for batch in case.batches)
    yield f"Attempt {record.id}: run {record.run_id}, fetch {attempt.fetch}, try {attempt.number}"
    asked_by = "" if record.host is None else f", asked by {record.host} pid {record.pid}"
    yield f"Source {attempt.source}, started {show_time(attempt.began_at)}{asked_by}"
    yield f"Batches settled by this attempt: {settled or 'none, it was tried again'}"
    if attempt.error is not None:
        failed = f"Failed in {attempt.phase}: {attempt.error} ({attempt.error.meaning})"
        yield f"{failed}; responsible: {responsible(attempt.error.whose)}"
    if attempt.measures:
        yield tell_measures(attempt.measures)
    if attempt.proof is not None:
        yield tell_proof(attempt.proof)
    if attempt.detail:
        yield f"  {attempt.detail}"
    if attempt.retry_after_us is not None:
        yield f"The upstream asked us to wait {show_duration(attempt.retry_after_us)}."
    for other in case.tries:
        if other.id != record.id:
            error = other.attempt.error
            became = f"failed: {error}" if error else "went well"
            yield f"Try {other.attempt.number} was attempt {other.id}; it {became}."
    if case.limits is not None:
        yield from tell_limits(case.limits)


def _parts(case: AttemptCase) -> Iterator[Part]:
    attempt = case.record.attempt
    timings = [(phase, getattr(attempt.timings, f"{phase}_us")) for phase in Phase]
    yield Table(columns=(Column("phase"), Column("time_us", Kind.DURATION)), rows=timings)
    if attempt.request is not None:
        yield Text(lines=list(lines_of_request(attempt.request)), is_verbatim=True)
    if attempt.evidence is not None:
        answer = list(lines_of_answer(attempt.evidence, attempt.error))
        yield Text(lines=answer, is_verbatim=True)
    else:
        why = "" if attempt.error else "It went well, so no"
        yield Text(lines=[f"{why or 'No'} answer was kept."])
    if case.contracts:
        title = "What answers looked like at that time"
        yield tabulate(ContractSpan, case.contracts, LOOKED_LIKE, title=title)
