"""One run whole: its batches, its phases, what it waited for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.asking import reading
from pipeline.cli.document import Column, Document, Kind, Part, Table, Text, render
from pipeline.cli.options import Format, Shape
from pipeline.cli.render import attempt_json, json_lines, show_duration, show_time, spooled
from pipeline.cli.report.answers import GONE, pruned_fact
from pipeline.cli.report.batches import line_json, table_of_batches
from pipeline.cli.report.question import Question
from pipeline.cli.report.runs import run_json
from pipeline.cli.report.timings import waterfall
from pipeline.cli.words import count_of
from pipeline.errors import Phase, UsageError
from pipeline.models import RunStatus, Verdict
from pipeline.store.history import find_pruning, tallies_of_run

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.models import PhaseTotals, RunSummary, Tally
    from pipeline.settings import StoreSettings

MOST_LINES = 200  # batches in a table for people; sheets and programs get all

WORTH_SAYING = 1.1  # times as fast as one by one

# What did not come, in the words of the total line.
LOSSES = (Verdict.FAILED, Verdict.DEFERRED, Verdict.CANCELLED)


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the run that the *scope* names.

    Raises:
        UsageError: a limit was given; a run is shown whole.
    """
    if scope.run is None or question.limit is not None:
        raise UsageError(
            "--run shows one run whole: --limit has no meaning beside it,"
            " but `pipeline report batches` takes both"
        )
    return _lines(session, scope.run, question.shape, source=scope.source)


def show_run(settings: "StoreSettings", wanted: str, shape: Format) -> None:
    """Write one run as it lies on disk, for whoever has just seen it go by."""
    with spooled() as paper, reading(settings) as session:
        run = core.find_run(session, wanted)
        shown = _lines(session, run, Shape(shape), is_short=True)
        paper.writelines(f"{line}\n" for line in shown)


def _lines(
    session: "Session",
    run: "RunSummary",
    shape: Shape,
    *,
    source: str | None = None,
    is_short: bool = False,
) -> Iterator[str]:
    if shape is Shape.JSON:
        return _json(session, run, source)
    parts = _short_parts if is_short else _parts
    document = Document(
        title=f"Run {run.id}",
        facts=[] if is_short else [_headline(run)],
        parts=list(parts(session, run, shape, source)),
    )
    return render(document, shape)


def _json(session: "Session", run: "RunSummary", source: str | None) -> Iterator[str]:
    batches = core.batch_lines(session, run, source=source, with_numbers=True)
    return json_lines(
        {
            "schema": "pipeline.run/1",
            "run": run_json(run, _retries(session, run)),
            "pruned_at": find_pruning(session, run_id=run.id),
        },
        batches=map(line_json, batches),
        attempts=map(attempt_json, core.attempts(session, run, source=source)),
        tallies=_tallies(session, run, source),
    )


def _retries(session: "Session", run: "RunSummary") -> int:
    return core.retries_by_run(session, [run])[run.id]


def _tallies(session: "Session", run: "RunSummary", source: str | None) -> list["Tally"]:
    tallies = tallies_of_run(session, run_id=run.id)
    return [tally for tally in tallies if source in (None, tally.source)]


def _headline(run: "RunSummary") -> str:
    ended = f" to {show_time(run.ended_at)}" if run.ended_at is not None else ""
    configured = f", {run.config_path}" if run.config_path else ""
    return (
        f"Run {run.id}, {show_time(run.started_at)}{ended}, on {run.host},"
        f" pipeline {run.version}{configured}"
    )


def _short_parts(
    session: "Session", run: "RunSummary", shape: Shape, source: str | None
) -> Iterator[Part]:
    yield from _batches(session, run, shape, source)
    yield _totals(session, run)


def _parts(
    session: "Session", run: "RunSummary", shape: Shape, source: str | None
) -> Iterator[Part]:
    if pruned_at := find_pruning(session, run_id=run.id):
        yield Text(lines=[pruned_fact(pruned_at)])
        yield _table_of_tallies(_tallies(session, run, source))
    else:
        yield from _batches(session, run, shape, source)
        if phases := core.phases(session, run, source=source):
            yield _table_of_means(phases)
        if shape in (Shape.MARKDOWN, Shape.HTML) and run.attempts:
            yield waterfall(session, run, source=source)
    yield _totals(session, run)


def _totals(session: "Session", run: "RunSummary") -> Text:
    wait_us = sum(tally.wait_us for tally in _tallies(session, run, None))
    return Text(lines=[total_line(run, _retries(session, run), wait_us)])


def _batches(
    session: "Session", run: "RunSummary", shape: Shape, source: str | None
) -> Iterator[Part]:
    """List the batches; in a long run, for people, only those that were lost."""
    listed = core.batch_lines(session, run, source=source)
    if shape is not Shape.CSV and run.ordered > MOST_LINES:
        lost = (line for line in listed if line.batch.verdict is not Verdict.COLLECTED)
        listed = islice(lost, MOST_LINES)
        shortened = (
            f"{run.ordered} batches: only what was lost is listed, {MOST_LINES} at most;"
            " --format json gives all."
        )
        yield Text(lines=[shortened])
    if shape is Shape.CSV:
        yield table_of_batches(listed, is_sheet=True)
    elif found := list(listed):
        yield table_of_batches(found, is_folded=shape is Shape.TEXT)


def _table_of_means(phases: Sequence["PhaseTotals"]) -> Table:
    means: defaultdict[str, dict[Phase, int]] = defaultdict(dict)
    for total in phases:
        means[total.source][total.phase] = total.total_us // total.n
    return Table(
        columns=(Column("mean per attempt"), *(Column(phase, Kind.DURATION) for phase in Phase)),
        rows=[(source, *map(of.get, Phase)) for source, of in means.items()],
    )


def _table_of_tallies(tallies: Sequence["Tally"]) -> Table:
    return Table(
        columns=(
            Column("source"),
            Column("min", Kind.NUMBER),
            Column("max", Kind.NUMBER),
            *(Column(verdict, Kind.NUMBER) for verdict in Verdict),
            Column("numbers", Kind.NUMBER),
            Column("sum", Kind.NUMBER),
            Column("requests", Kind.NUMBER),
            Column("retries", Kind.NUMBER),
            Column("exchanges", Kind.DURATION),
        ),
        rows=[
            (
                tally.source,
                tally.min,
                tally.max,
                *(getattr(tally, verdict) for verdict in Verdict),
                tally.numbers,
                tally.sum,
                tally.attempts,
                tally.retries,
                tally.exchange_us,
            )
            for tally in tallies
        ],
    )


def total_line(run: "RunSummary", retries: int = 0, wait_us: int = 0) -> str:
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
        return f"{begun}. {GONE}" if core.is_alive(run) is False else f"{begun}, not ended so far."
    if run.clock_us is None:
        return f"{came} Its end was not seen, so nobody knows how long it took."
    return f"{came} {show_duration(run.clock_us)} by the clock{_worth(run, run.clock_us, wait_us)}."


def _worth(run: "RunSummary", clock_us: int, wait_us: int) -> str:
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
