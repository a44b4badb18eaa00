"""From the question of a report to its lines on stdout: what it is of, and how that is said."""

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from pipeline.cli.asking import check_source, make_window, reading, show_window, window_json
from pipeline.cli.render import show_time, spooled
from pipeline.cli.report.question import Question
from pipeline.errors import UsageError
from pipeline.models import RunStatus
from pipeline.report import Scope, find_run, is_alive
from pipeline.settings import load_settings
from pipeline.store.history import Window, find_pruning

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.settings import Settings

GONE = "Its process is gone; the next run will mark it interrupted."

Lines: TypeAlias = Callable[["Session", Scope, Question], Iterator[str]]


def answer(question: Question, lines: Lines) -> None:
    """Write the *lines* that answer the *question*.

    Raises:
        UsageError: its options contradict each other, or name what is not there.
    """
    settings = load_settings(question.config, os.environ, will_ask=False)
    with spooled() as paper, reading(settings.store) as session:
        scope = _scope(settings, session, question)
        paper.writelines(f"{line}\n" for line in lines(session, scope, question))


def _scope(settings: "Settings", session: "Session", question: Question) -> Scope:
    if question.source is not None:
        check_source(settings, session, question.source)
    if question.run is None:
        window = make_window(question.since, question.until, looks_back=question.looks_back)
        return Scope(window=window, source=question.source)
    if question.since or question.until:
        raise UsageError("--run names one run: --since and --until have no meaning beside it")
    return Scope(window=Window(), source=question.source, run=find_run(session, question.run))


def head(schema: str, scope: Scope) -> dict[str, object]:
    """Begin a listing as JSON: its schema, and what it is of."""
    return {
        "schema": schema,
        "window": window_json(scope.window),
        "source": scope.source,
        "run_id": scope.run_id,
    }


def facts(session: "Session", scope: Scope) -> list[str]:
    """Say what a report is of."""
    of = "" if scope.source is None else f", {scope.source} alone"
    if scope.run is None:
        return [f"{show_window(scope.window)}{of}."]
    said = [f"Run {scope.run.id} of {show_time(scope.run.started_at)}{of}."]
    if scope.run.status is RunStatus.RUNNING:
        gone = is_alive(scope.run) is False
        said.append(GONE if gone else "It still goes on: its totals are added up when it ends.")
    if pruned_at := find_pruning(session, run_id=scope.run.id):
        said.append(pruned_fact(pruned_at))
    return said


def pruned_fact(at: datetime) -> str:
    """Say that the batches of a run are gone, and since when."""
    return f"Its batches and attempts were pruned at {show_time(at)}; its totals were kept."
