"""From the options of ``pipeline report`` to the lines of its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.rendering.output import spooled
from pipeline.rendering.shapes import Shape
from pipeline.report import (
    batches,
    errors,
    health,
    numbers,
    overview,
    run,
    runs,
    slots,
    sources,
    timings,
    workers,
)
from pipeline.report.choices import Report
from pipeline.report.question import Question, as_it_stands
from pipeline.scope import (
    A_WEEK,
    check_source,
    find_run,
    make_window,
    origin_of,
    reading,
    show_window,
)
from pipeline.settings import Settings
from pipeline.store.window import Window

Lines: TypeAlias = Callable[[Session, Question], Iterator[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``pipeline report``, unchecked; None: not given.

    Attributes:
        run: a number or ``last``.
        limit: of runs or batches.
    """

    since: datetime | None
    until: datetime | None
    source: str | None
    run: str | None
    limit: int | None
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Kind:
    """One report: what writes it, which options it takes, how far it looks back without --since."""

    lines: Lines
    takes: str
    is_of_a_week: bool = True


KINDS = {
    Report.RUNS: _Kind(runs.lines, "source limit", is_of_a_week=False),
    Report.BATCHES: _Kind(batches.lines, "source run limit", is_of_a_week=False),
    Report.TIMINGS: _Kind(timings.lines, "source run"),
    Report.ERRORS: _Kind(errors.lines, "source run"),
    Report.NUMBERS: _Kind(numbers.lines, "source run"),
    Report.HEALTH: _Kind(health.lines, "source", is_of_a_week=False),
    Report.SOURCES: _Kind(sources.lines, "source run"),
    Report.SLOTS: _Kind(slots.lines, ""),
    Report.WORKERS: _Kind(workers.lines, "", is_of_a_week=False),
}
ONE_RUN = _Kind(run.lines, "source run")
OVERVIEW = _Kind(overview.lines, "source limit")


def answer(what: Report | None, settings: Settings, options: Options) -> None:
    """Write the report to stdout."""
    name, kind = _choose(what, options)
    for option in ("source", "run", "limit"):
        if getattr(options, option) is not None and option not in kind.takes.split():
            raise UsageError(f"`{name}` takes no --{option}")
    with spooled() as paper, reading(settings.store) as session:
        question = _ask(settings, session, kind, options)
        paper.writelines(f"{line}\n" for line in kind.lines(session, question))


def _choose(what: Report | None, options: Options) -> tuple[str, _Kind]:
    if what is not None:
        return f"pipeline report {what}", KINDS[what]
    if options.run is not None:
        return "pipeline report --run", ONE_RUN
    if options.shape in (Shape.MARKDOWN, Shape.HTML):
        return "pipeline report", OVERVIEW
    return "pipeline report", KINDS[Report.RUNS]


def _ask(settings: Settings, session: Session, kind: _Kind, options: Options) -> Question:
    check_source(settings, session, options.source)
    found = None
    window = Window()
    if options.run is None:
        looks_back = A_WEEK if kind.is_of_a_week else None
        window = make_window(options.since, options.until, looks_back=looks_back)
    elif options.since or options.until:
        raise UsageError("--run names one run: --since and --until have no meaning beside it")
    else:
        found = as_it_stands(session, find_run(session, options.run))
    return Question(
        window=window,
        source=options.source,
        run=found,
        limit=options.limit,
        shape=options.shape,
        origin=origin_of(settings.store, f"Run {found.id}" if found else show_window(window)),
        enabled=settings.enabled_sources,
    )
