"""The report of one run: its batches, its phases, what it waited for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice

from sqlmodel import Session

from pipeline.clock import show_error
from pipeline.errors import Phase
from pipeline.models import PhaseTotals, RunStatus, RunSummary, Tally, Verdict
from pipeline.rendering.document import Column, Document, Kind, Part, Table, Text
from pipeline.rendering.output import json_lines, spooled
from pipeline.rendering.records import pick, picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Format, Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import ATTEMPT, LATE, TALLY
from pipeline.rendering.words import count_of, show_duration, show_time, tell_limits
from pipeline.report.batches import SHEET, BatchLine, batch_lines, line_json, table_of_run
from pipeline.report.question import (
    GONE,
    Question,
    as_it_stands,
    pruned_fact,
    write_document,
)
from pipeline.report.runs import run_json, run_lines
from pipeline.report.timings import waterfall
from pipeline.scope import find_run
from pipeline.store import queries
from pipeline.store.configurations import find_limits
from pipeline.store.db import Store
from pipeline.store.history import find_pruning, tallies_of_run
from pipeline.store.late import find_late
from pipeline.store.queries import workers_of_run

MOST_SOURCES = 20  # whose limits are told to people
MOST_LINES = 200  # batches in a table for people; sheets and programs get all

TELLING = timedelta(seconds=2)
WORTH_SAYING = 1.1  # times as fast as one by one

# What did not come, in the words of the total line.
LOSSES = (Verdict.FAILED, Verdict.DEFERRED, Verdict.CANCELLED)

TALLIES = (
    "source is_sandbox min max collected failed deferred cancelled numbers sum attempts retries"
    " exchange_us"
)


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the run that the *question* names."""
    if question.run is None:
        raise ValueError("a question about no run")
    if question.shape is Shape.JSON:
        return _json(session, question.run, question.source)
    document = Document(
        title=f"Run {question.run.id}",
        facts=[
            _headline(question.run),
            *_clock_fact(question.run),
            *_workers_fact(session, question.run),
            *_late_fact(session, question.run),
        ],
        parts=list(_parts(session, question.run, question.shape, question.source)),
    )
    return write_document(document, question)


def _workers_fact(session: Session, run: RunSummary) -> Iterator[str]:
    """Tell which workers asked, if machines shared the run."""
    found = workers_of_run(session, run_id=run.id)
    if found:
        each = (f"{host} pid {pid} ({count_of(n, 'request')})" for (host, pid), n in found.items())
        yield f"Carried out by {', '.join(each)}."


def _late_fact(session: Session, run: RunSummary) -> Iterator[str]:
    """Tell what came to the books when the run had ended."""
    if n := sum(of.attempts for of in find_late(session, run_id=run.id)):
        came = count_of(n, "attempt")
        yield f"Beside it: {came} that came when it had ended, in no sum; see `pipeline audit`."


def show_run(store: Store, wanted: str, shape: Format) -> None:
    """Write one run as it is stored, in short: who started it has just watched it."""
    with spooled() as paper, store.read() as session:
        run = as_it_stands(session, find_run(session, wanted))
        if shape is Format.JSON:
            shown = _json(session, run, None)
        else:
            parts = [*_batches(session, run, Shape.TEXT, None), _totals(session, run)]
            shown = render(Document(title=f"Run {run.id}", parts=parts), Shape.TEXT)
        paper.writelines(f"{line}\n" for line in shown)


def _json(session: Session, run: RunSummary, source: str | None) -> Iterator[str]:
    (line,) = run_lines(session, [run])
    late = find_late(session, run_id=run.id)
    made = queries.attempts_of_run(session, run_id=run.id)
    return json_lines(
        {
            "schema": "pipeline.run/1",
            "run": run_json(line),
            "pruned_at": find_pruning(session, run_id=run.id),
            "limits": find_limits(session, run_id=run.id, source=source),
        },
        batches=map(line_json, batch_lines(session, run, source=source, with_numbers=True)),
        attempts=(pick(each, ATTEMPT) for each in made if source in (None, each.attempt.source)),
        tallies=picks(_tallies(session, run, source), TALLY),
        late=(pick(of, LATE) for of in late if source in (None, of.source)),
    )


def _tallies(session: Session, run: RunSummary, source: str | None) -> list[Tally]:
    tallies = tallies_of_run(session, run_id=run.id)
    return [tally for tally in tallies if source in (None, tally.source)]


def _headline(run: RunSummary) -> str:
    ended = f" to {show_time(run.ended_at)}" if run.ended_at is not None else ""
    configured = f", {run.config_path}" if run.config_path else ""
    return (
        f"Run {run.id}, {show_time(run.started_at)}{ended}, on {run.host},"
        f" pipeline {run.version}{configured}"
    )


def _clock_fact(run: RunSummary) -> Iterator[str]:
    """Say how far the clock here was off, if that is more than a Date can tell."""
    offset = timedelta(microseconds=run.clock_offset_us or 0)
    if abs(offset) >= TELLING:
        yield f"By the Date of its answers, the clock here was {show_error(offset)}."


def _parts(session: Session, run: RunSummary, shape: Shape, source: str | None) -> Iterator[Part]:
    if pruned_at := find_pruning(session, run_id=run.id):
        yield Text(lines=[pruned_fact(pruned_at)])
        yield tabulate(Tally, _tallies(session, run, source), TALLIES)
    else:
        yield from _batches(session, run, shape, source)
        phases = queries.phase_totals(session, run_id=run.id)
        if of_source := [total for total in phases if source in (None, total.source)]:
            yield _table_of_means(of_source)
        if shape in (Shape.MARKDOWN, Shape.HTML) and run.attempts:
            yield waterfall(session, run, source=source)
    limits = find_limits(session, run_id=run.id, source=source)
    if limits and shape is not Shape.CSV:
        yield Text(lines=list(islice(tell_limits(limits), MOST_SOURCES)))
    yield _totals(session, run)


def _totals(session: Session, run: RunSummary) -> Text:
    wait_us = sum(tally.wait_us for tally in _tallies(session, run, None))
    (line,) = run_lines(session, [run])
    return Text(lines=[total_line(run, line.retries, wait_us)])


def _batches(session: Session, run: RunSummary, shape: Shape, source: str | None) -> Iterator[Part]:
    """List the batches; in a long run, for people, only those that were lost."""
    listed = batch_lines(session, run, source=source)
    if shape is not Shape.CSV and run.ordered > MOST_LINES:
        lost = (line for line in listed if line.batch.verdict is not Verdict.COLLECTED)
        listed = islice(lost, MOST_LINES)
        shortened = (
            f"{run.ordered} batches: only what was lost is listed, {MOST_LINES} at most;"
            " --format json gives all."
        )
        yield Text(lines=[shortened])
    if shape is Shape.CSV:
        yield tabulate(BatchLine, listed, SHEET)
    elif found := list(listed):
        yield table_of_run(found, is_folded=shape is Shape.TEXT)


def _table_of_means(phases: Sequence[PhaseTotals]) -> Table:
    means: defaultdict[str, dict[Phase, int]] = defaultdict(dict)
    for total in phases:
        means[total.source][total.phase] = total.total_us // total.n
    return Table(
        columns=(
            Column("source", title="mean per attempt"),
            *(Column(f"{phase}_us", Kind.DURATION) for phase in Phase),
        ),
        rows=[(source, *map(of.get, Phase)) for source, of in means.items()],
    )


def total_line(run: RunSummary, retries: int = 0, wait_us: int = 0) -> str:
    """Sum a run up: what came, what did not, the clock, and what asking at once was worth.

    *wait_us* is what its attempts waited before they went, added up.
    """
    if run.status is RunStatus.SKIPPED:
        return f"Run {run.id} skipped: another run of the same configuration was going on."
    lost = "".join(f", {n} {loss}" for loss in LOSSES if (n := getattr(run, loss)))
    retried = f" ({count_of(retries, 'retry')})" if retries else ""
    came = (
        f"Run {run.id} {run.status}: {run.collected} of {run.ordered} batches{lost},"
        f" {count_of(run.numbers, 'number')} in {count_of(run.attempts, 'request')}{retried}."
    )
    if run.status is RunStatus.RUNNING:
        since = show_time(run.started_at)
        begun = f"{came} Begun {since} by process {run.pid} on {run.host}"
        return f"{begun}. {GONE}" if run.is_alive is False else f"{begun}, not ended so far."
    if run.clock_us is None:
        return f"{came} Its end was not seen, so nobody knows how long it took."
    return f"{came} {show_duration(run.clock_us)} by the clock{_worth(run, run.clock_us, wait_us)}."


def _worth(run: RunSummary, clock_us: int, wait_us: int) -> str:
    """Say what asking at once was worth; of a run that lost something, only what it spent."""
    if not run.attempts:
        return ""
    alone = show_duration(run.waited_us)
    gain = run.waited_us / max(clock_us, 1)
    if run.status is RunStatus.OK and gain >= WORTH_SAYING:
        return f"; one by one its requests would have taken {alone}: {gain:.1f} times as fast"
    # Short waits are the turns of requests that all may go at once: nothing was held up by them.
    waits = f", the waits before them {show_duration(wait_us)}" if wait_us > run.waited_us else ""
    return f"; its requests took {alone} one by one{waits}"
