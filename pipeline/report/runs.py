"""The report of runs: the last ones, newest first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from pipeline.models import RunStatus, RunSummary
from pipeline.rendering.document import Document, Table, Text
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import inside, pick
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import RUN
from pipeline.report.question import Question, as_it_stands, head, write_document
from pipeline.store import history, queries

USUAL_LIMIT = 20

# In a sheet nothing may look like a fraction, or it becomes a date.
SHEET = inside(
    "run",
    "run_id=id started_at status is_sandbox collected ordered failed cancelled deferred numbers"
    " attempts",
)
LISTED = (
    "run_id=run.id started_at=run.started_at status=shown_status is_sandbox=run.is_sandbox"
    " collected=came lost deferred=run.deferred numbers=run.numbers attempts=run.attempts"
)
PUBLISHED = "retries is_alive=run.is_alive"  # beside what is of the run itself
REST = " retries clock_us=run.clock_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One run, with what the store does not keep beside it.

    Attributes:
        retries: attempts after the first of a fetch.
    """

    run: RunSummary
    retries: int

    @property
    def shown_status(self) -> str:
        """Say what became of it; if its process is gone, what the next run will call it."""
        return "interrupted?" if self.run.is_alive is False else self.run.status

    @property
    def came(self) -> str:
        """Write how many of its batches came."""
        return f"{self.run.collected}/{self.run.ordered}"

    @property
    def lost(self) -> int:
        """Count the batches that did not come, and were not put off."""
        return self.run.failed + self.run.cancelled


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the last runs."""
    found = find_runs(session, question)
    if question.shape is Shape.JSON:
        return json_lines(head("pipeline.runs/1", question), runs=map(run_json, found))
    is_sheet = question.shape is Shape.CSV
    if found or is_sheet:
        part: Table | Text = table_of_runs(found, is_sheet=is_sheet)
    else:
        is_narrowed = question.source or question.window.since or question.window.until
        part = Text(lines=["No such run." if is_narrowed else "No run yet."])
    return write_document(Document(title="Runs", parts=[part]), question)


def find_runs(session: Session, question: Question) -> list[RunLine]:
    """List the newest runs as they stand now, as many as wanted or as is usual."""
    found = queries.recent_runs(
        session,
        question.window,
        source=question.source,
        limit=question.limit or USUAL_LIMIT,
    )
    return run_lines(session, [as_it_stands(session, run) for run in found])


def run_lines(session: Session, runs: Sequence[RunSummary]) -> list[RunLine]:
    """Count the retries of each run, and see whether it is alive."""
    retries = history.retries_by_run(session, run_ids=[run.id for run in runs])
    for run in runs:
        if run.status is RunStatus.RUNNING:  # what is going on was not added up
            made = queries.attempts_of_run(session, run_id=run.id)
            retries[run.id] = sum(record.attempt.number > 1 for record in made)
    return [RunLine(run=run, retries=retries.get(run.id, 0)) for run in runs]


def run_json(line: RunLine) -> dict[str, object]:
    """Make of a run what is published of it."""
    return pick(line.run, RUN) | pick(line, PUBLISHED)


def table_of_runs(found: Sequence[RunLine], *, title: str = "", is_sheet: bool = False) -> Table:
    """Make a row of each run."""
    if is_sheet:
        return tabulate(RunLine, found, SHEET + REST, title=title)
    tells_sandbox = any(line.run.is_sandbox for line in found)
    listed = LISTED if tells_sandbox else LISTED.replace(" is_sandbox=run.is_sandbox", "")
    return tabulate(RunLine, found, listed + REST, title=title)
