"""The report of batches: the last ones, or those of one run."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter

from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.models import AttemptRecord, BatchRecord, RunSummary, Verdict
from pipeline.rendering.document import Document, Table
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import inside, pick
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import BATCH
from pipeline.rendering.words import show_time
from pipeline.report.question import Question, facts, head, write_document
from pipeline.store import queries
from pipeline.store.numbers import unpack

USUAL_LIMIT = 50

RANGE = "min=first.batch.min max=first.batch.max"
LISTED = (
    "run_id=first.batch.run_id batch source=first.batch.source is_sandbox=first.batch.is_sandbox"
    f" n {RANGE} sum=first.batch.sum took_us=first.took_us attempts=first.attempts verdict"
)
WORKER = " host=first.host pid=first.pid"  # in a table, if workers shared a run
OF_ONE_RUN = LISTED.removeprefix("run_id=first.batch.run_id ").replace(f" {RANGE}", "")
SHEET = (
    inside("batch", "run_id batch=name source is_sandbox n min max sum")
    + " took_us attempts "
    + inside("batch", "verdict error detail not_before")
    + " attempt_id host pid"
)
PUBLISHED = "took_us attempts attempt_id host pid values"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One batch of a run with what a reader wants to know of it.

    Attributes:
        took_us: all attempts of its fetch, with the waits between them; None if none was made.
        attempts: how many attempts of its fetch were made.
        attempt_id: the attempt that decided it, ``host`` and ``pid`` who made that.
        values: the numbers collected; None if none were, or not kept, or not asked for.
    """

    batch: BatchRecord
    took_us: int | None
    attempts: int
    attempt_id: int | None
    values: tuple[int, ...] | None
    host: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """Batches that share a row in a table for people: neighbours that were lost together."""

    first: BatchLine
    last: BatchLine
    n: int

    @property
    def batch(self) -> str:
        """Name the first and the last."""
        first, last = self.first.batch.name, self.last.batch.name
        return first if first == last else f"{first}..{last}"

    @property
    def verdict(self) -> str:
        """Say what became of them and why."""
        return tell_verdict(self.first)


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the batches; as JSON with their numbers."""
    is_json = question.shape is Shape.JSON
    listed = find_lines(session, question, with_numbers=is_json)
    if is_json:
        return json_lines(head("pipeline.batches/1", question), batches=map(line_json, listed))
    said = [] if question.run is None else facts(session, question)
    is_sheet = question.shape is Shape.CSV
    table = tabulate(BatchLine, listed, SHEET) if is_sheet else table_of_batches(listed)
    return write_document(Document(title="Batches", facts=said, parts=[table]), question)


def find_lines(
    session: Session, question: Question, *, with_numbers: bool = False
) -> Iterator[BatchLine]:
    """Walk over the batches of one run in order, or over the last ones, the newest first."""
    if question.run is not None:
        of_run = batch_lines(
            session, question.run, source=question.source, with_numbers=with_numbers
        )
        return islice(of_run, question.limit)
    newest = queries.newest_batches(
        session,
        question.window,
        source=question.source,
        limit=question.limit or USUAL_LIMIT,
        with_numbers=with_numbers,
    )
    return _with_attempts(session, newest)


def batch_lines(
    session: Session, run: RunSummary, *, source: str | None = None, with_numbers: bool = False
) -> Iterator[BatchLine]:
    """Walk over the batches of *run* in order, each with the time that its fetch took."""
    made = queries.attempts_of_run(session, run_id=run.id)
    batches = queries.batches_of_run(session, run_id=run.id, with_numbers=with_numbers)
    return _join((batch for batch in batches if source in (None, batch.source)), made)


def _with_attempts(session: Session, newest: Iterator[BatchRecord]) -> Iterator[BatchLine]:
    """Look up the attempts of batches of several runs, run by run."""
    for run_id, of_run in groupby(newest, key=attrgetter("run_id")):
        batches = list(of_run)
        numbers = [batch.fetch for batch in batches if batch.fetch is not None]
        fetches = (min(numbers, default=0), max(numbers, default=0))
        made = queries.attempts_of_run(session, run_id=run_id, fetches=fetches)
        yield from _join(batches, made)


def _join(batches: Iterable[BatchRecord], made: Iterable[AttemptRecord]) -> Iterator[BatchLine]:
    """Put batches and attempts of one run together."""
    took: defaultdict[int | None, int] = defaultdict(int)
    attempts: Counter[int | None] = Counter()
    deciding: dict[tuple[int | None, int | None], tuple[int, str | None, int | None]] = {}
    for record in made:
        attempt = record.attempt
        took[attempt.fetch] += attempt.timings.total_us
        attempts[attempt.fetch] += 1
        deciding[attempt.fetch, attempt.number] = (record.id, record.host, record.pid)
    for batch in batches:
        attempt_id, host, pid = deciding.get((batch.fetch, batch.attempt), (None, None, None))
        yield BatchLine(
            batch=batch,
            took_us=took.get(batch.fetch),
            attempts=attempts[batch.fetch],
            attempt_id=attempt_id,
            values=_unpack(batch),
            host=host,
            pid=pid,
        )


def _unpack(batch: BatchRecord) -> tuple[int, ...] | None:
    if batch.packed is None:
        return None
    try:
        return unpack(batch.packed, batch.n, batch.min, batch.max)
    except ValueError as exc:
        damage = f"run {batch.run_id}, {batch.name}: the database is damaged: {exc}"
        raise StoreError(damage) from exc


def line_json(line: BatchLine) -> dict[str, object]:
    """Make of a batch what is published of it, its numbers included."""
    return pick(line.batch, BATCH) | pick(line, PUBLISHED)


def table_of_batches(listed: Iterable[BatchLine]) -> Table:
    """Make a row of each batch for people, with its run."""
    return _tabulate([_Row(first=line, last=line, n=line.batch.n) for line in listed], LISTED)


def table_of_run(listed: Iterable[BatchLine], *, is_folded: bool) -> Table:
    """Make a row of each batch of one run, for people.

    *is_folded*: neighbours with the same fate, lost with one fetch, share a row.
    """
    groups = _folded(listed) if is_folded else ([line] for line in listed)
    rows = [
        _Row(first=group[0], last=group[-1], n=sum(line.batch.n for line in group))
        for group in groups
    ]
    return _tabulate(rows, OF_ONE_RUN)


def _tabulate(rows: Sequence[_Row], fields: str) -> Table:
    """Make a table that names the workers, if there were any; its last column is text."""
    if any(row.first.host for row in rows):
        *others, last = fields.split()
        fields = f"{' '.join(others)}{WORKER} {last}"
    return tabulate(_Row, rows, fields)


def _folded(listed: Iterable[BatchLine]) -> Iterator[list[BatchLine]]:
    """Put batches together that stand side by side and were lost in the same way."""

    def fate(placed: tuple[int, BatchLine]) -> tuple[object, ...]:
        place, line = placed
        batch = line.batch
        if batch.verdict in (None, Verdict.COLLECTED):
            return (batch.number,)
        return batch.source, batch.fetch, tell_verdict(line), batch.number - place

    for _, group in groupby(enumerate(listed), key=fate):
        yield [line for _, line in group]


def tell_verdict(line: BatchLine) -> str:
    """Say what became of a batch and why."""
    batch = line.batch
    if batch.verdict is None:
        return "not decided yet"
    if batch.verdict is Verdict.DEFERRED:
        return f"{batch.verdict} until {show_time(batch.not_before)}: {batch.detail}"
    if batch.error is None:
        return batch.verdict
    error = batch.error.value
    what = error if error == batch.verdict.value else f"{batch.verdict}: {error}"
    detail = f" ({batch.detail})" if batch.detail else ""
    seen = f"; audit show {line.attempt_id}" if line.attempt_id is not None else ""
    return f"{what}{detail}{seen}"
