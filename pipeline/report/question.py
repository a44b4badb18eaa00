"""What a report is asked, and how an answer says what it is of."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.models import RunStatus, RunSummary, Verdict
from pipeline.rendering.document import Document, Origin
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from pipeline.rendering.words import show_time
from pipeline.scope import reading_if_there, show_window, window_json
from pipeline.settings import StoreSettings
from pipeline.store import heartbeats, queries
from pipeline.store.history import find_pruning
from pipeline.store.window import Window

MOST_COMPLETED = 20  # runs that a shell offers
GONE = "Its process is gone; the next run will mark it interrupted."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The options of a report, checked: of a window, or of one *run*; of all sources or of one.

    Attributes:
        limit: of runs or batches; None: as many as is usual.
        origin: what a page says of itself.
        enabled: the sources that runs are expected to ask.
    """

    window: Window
    source: str | None = None
    run: RunSummary | None = None
    limit: int | None = None
    shape: Shape = Shape.TEXT
    origin: Origin | None = None
    enabled: Collection[str] = ()

    @property
    def run_id(self) -> int | None:
        """Name the run, if it is of one."""
        return None if self.run is None else self.run.id


def head(schema: str, question: Question) -> dict[str, object]:
    """Begin an answer as JSON: its schema, and what it is of."""
    return {
        "schema": schema,
        "window": window_json(question.window),
        "source": question.source,
        "run_id": question.run_id,
    }


def write_document(document: Document, question: Question) -> Iterator[str]:
    """Write the answer in the shape that was asked for; a page says where it comes from."""
    return render(replace(document, origin=question.origin), question.shape)


def facts(session: Session, question: Question) -> list[str]:
    """Say what an answer is of, unless the head of a page says so."""
    of = "" if question.source is None else f", {question.source} alone"
    run = question.run
    if run is None and not of and question.shape is Shape.HTML:
        return []
    if run is None:
        return [f"{show_window(question.window)}{of}."]
    said = [f"Run {run.id} of {show_time(run.started_at)}{of}."]
    if run.status is RunStatus.RUNNING:
        gone = run.is_alive is False
        said.append(GONE if gone else "It still goes on: its totals are added up when it ends.")
    if pruned_at := find_pruning(session, run_id=run.id):
        said.append(pruned_fact(pruned_at))
    return said


def pruned_fact(at: datetime) -> str:
    """Say that the batches of a run are gone, and since when."""
    return f"Its batches and attempts were pruned at {show_time(at)}; its totals were kept."


def as_it_stands(session: Session, run: RunSummary) -> RunSummary:
    """Count what the store adds up only when a run ends, and see whether it still goes on."""
    if run.status is not RunStatus.RUNNING:
        return run
    verdicts: Counter[Verdict | None] = Counter()
    numbers = 0
    for batch in queries.batches_of_run(session, run_id=run.id):
        verdicts[batch.verdict] += 1
        numbers += batch.n if batch.verdict is Verdict.COLLECTED else 0
    made = queries.attempts_of_run(session, run_id=run.id)
    spent = [record.attempt.took_us for record in made]
    return replace(
        run,
        ordered=verdicts.total(),
        collected=verdicts[Verdict.COLLECTED],
        failed=verdicts[Verdict.FAILED],
        deferred=verdicts[Verdict.DEFERRED],
        cancelled=verdicts[Verdict.CANCELLED],
        numbers=numbers,
        attempts=len(spent),
        waited_us=sum(spent),
        is_alive=heartbeats.is_alive(session, run_id=run.id),
    )


def newest_run_ids(settings: StoreSettings) -> list[int]:
    """List the numbers of the newest runs; none if the store cannot be read."""
    with suppress(StoreError), reading_if_there(settings) as session:
        found = [] if session is None else queries.recent_runs(session, limit=MOST_COMPLETED)
        return [run.id for run in found]
    return []
