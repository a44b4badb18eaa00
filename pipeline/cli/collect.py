"""``pipeline collect``: one run, shown while it goes on where somebody looks, silent under cron."""

import gc
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from pipeline.cli.boundary import ExitCode, complain, error_boundary, exit_code_of
from pipeline.cli.options import ConfigOption, DeadlineOption, Format, SourcesOption
from pipeline.cli.render import OutputError, flush, json_lines, write
from pipeline.errors import ConfigError, StoreError, UsageError
from pipeline.models import Overlap, RunStatus

if TYPE_CHECKING:
    from pipeline import collect as core
    from pipeline.models import RunSummary
    from pipeline.recorder import Progress as SoFar
    from pipeline.settings import Settings, StoreSettings
    from pipeline.telling import Teller


MOST_CAUSES = 5  # on one line
MOST_NAMES = 3

BY_STATUS = {
    RunStatus.OK: ExitCode.OK,
    RunStatus.PARTIAL: ExitCode.PARTIAL,
    RunStatus.FAILED: ExitCode.NOTHING_COLLECTED,
}


def _keep_what_is_imported() -> None:
    """Give the garbage collector its work back, but not the thousands of objects of our modules."""
    gc.freeze()
    gc.enable()


@contextmanager
def _progress_bar(*, is_shown: bool) -> Iterator[Callable[["SoFar"], None]]:
    """Show on stderr how far the run has come; what is counted is on disk."""
    if not is_shown or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb: it could not take the bar away again
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("collecting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[lost]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task("collecting", total=None, lost="")

    def show(progress: "SoFar") -> None:
        lost = f"{progress.lost} lost" if progress.lost else ""
        done = progress.collected + progress.lost
        bar.update(task, total=progress.ordered, completed=done, lost=lost)
        # Only now, when signals are caught: it hides the cursor, and somebody must bring it back.
        with suppress(OSError):  # a terminal that was closed is no reason to stop collecting
            bar.start()

    try:
        yield show
    finally:
        with suppress(OSError):
            if bar.live.is_started:
                bar.stop()


class SlotChoice(StrEnum):
    """Whether a run is for a slot of the schedule."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def _is_by_hand() -> bool:
    """Tell whether a person has started us: neither cron nor systemd gives a terminal."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return any(stream is not None and stream.isatty() for stream in streams)


def _keeps_slots(settings: "Settings", slot: SlotChoice, *, is_narrowed: bool) -> bool:
    if slot is SlotChoice.ALWAYS and is_narrowed:
        raise UsageError("--slot always: a slot is for all of its sources; leave --source out")
    if slot is SlotChoice.ALWAYS and not settings.has_slots:
        raise ConfigError("there is no schedule; give cron or every in a [schedule] table")
    return settings.has_slots and slot is not SlotChoice.NEVER and not is_narrowed


class _Nobody:
    """Stands in for a teller where nobody wants to be told."""

    def begin(self, uid: str) -> None:
        """Tell nobody that the run *uid* has begun."""

    def end(self, run: "RunSummary", exit_status: int, text: str) -> list[str]:
        """Tell nobody how *run* ended."""
        del run, exit_status, text
        return []

    def fail(self, exit_status: int, text: str) -> list[str]:
        """Tell nobody that there was no run."""
        del exit_status, text
        return []


def _find_teller(settings: "Settings") -> "Teller | _Nobody":
    from pipeline.settings.tables import NotifySettings

    if settings.notify == NotifySettings():
        return _Nobody()
    from pipeline.telling import Teller

    return Teller(settings, os.environ)


def _one_run(
    settings: "Settings", teller: "Teller | _Nobody", *, overlap: Overlap, is_shown: bool
) -> Iterator["core.Collected"]:
    from pipeline import collect as core

    with _progress_bar(is_shown=is_shown) as on_progress:
        collected = core.collect(
            settings,
            state_folder=_state_folder(),
            on_progress=on_progress,
            overlap=overlap,
            on_begin=teller.begin,
        )
    yield collected


def _due_runs(
    settings: "Settings",
    teller: "Teller | _Nobody",
    *,
    is_by_hand: bool,
    overlap: Overlap,
    is_shown: bool,
) -> Iterator["core.Collected"]:
    from pipeline.schedule import booking

    schedules = booking.find_possible_schedules(settings)
    with _progress_bar(is_shown=is_shown and is_by_hand) as on_progress:
        runs = booking.collect_due(
            settings,
            schedules,
            is_by_hand=is_by_hand,
            state_folder=_state_folder(),
            on_progress=on_progress,
            overlap=overlap,
            on_begin=teller.begin,
        )
        first = list(islice(runs, 1))
    yield from first
    yield from runs  # those that are caught up on, which nobody watches


def _tell_nothing_is_due(shown: Format | None) -> None:
    if shown is Format.JSON:
        head = {"schema": "pipeline.run/1", "run": None, "pruned_at": None}
        write("\n".join(json_lines(head, batches=(), attempts=(), tallies=())))
    if sys.stderr is not None and sys.stderr.isatty():
        complain("nothing to do: each slot that is due has its run; see `pipeline schedule show`")


def _state_folder() -> Path:
    from pipeline.settings.environment import xdg_folder

    return xdg_folder(os.environ, "XDG_STATE_HOME", ".local/state")


def _exit_code(collected: "core.Collected") -> int:
    if collected.has_bug:
        return ExitCode.BUG
    if collected.stopped_by is not None:
        return 128 + collected.stopped_by
    return BY_STATUS[collected.summary.status]


def _causes(losses: "tuple[core.LostBatches, ...]") -> list[str]:
    """Say how many batches each error cost, and whom, most first; as much as one line holds."""
    batches: Counter[str] = Counter()
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for source, error, n in losses:
        batches[error] += n
        sources[error].append(source)
    shown = [
        f"{n} {error} ({', '.join(sources[error][:MOST_NAMES])}"
        f"{', …' if len(sources[error]) > MOST_NAMES else ''})"
        for error, n in batches.most_common(MOST_CAUSES)
    ]
    more = len(batches) - len(shown)
    return [*shown, f"{more} more errors"] if more else shown


def _verdict_line(collected: "core.Collected") -> str:
    """Say in one line what a person must know who reads nothing else."""
    run = collected.summary
    by = f" by {Signals(collected.stopped_by).name}" if collected.stopped_by is not None else ""
    causes = _causes(collected.losses)
    known = run.collected + run.deferred + sum(n for *_, n in collected.losses)
    if unasked := run.ordered - known:
        causes.append(f"{unasked} never asked")
    parts = [
        f"run {run.id} {run.status}{by}: {run.collected} of {run.ordered} batches collected",
        *([f"{run.deferred} deferred"] if run.deferred else []),
        *([f"lost: {', '.join(causes)}"] if causes else []),
        f"see `pipeline report --run {run.id}`",
    ]
    return "; ".join(parts)


def _tell(
    collected: "core.Collected",
    teller: "Teller | _Nobody",
    store: "StoreSettings",
    shown: Format | None,
) -> int:
    """Tell others of the run, show it on stdout, say on stderr what went wrong; give the code."""
    from pipeline.cli.report.run import show_run

    code = _exit_code(collected)
    for complaint in teller.end(collected.summary, int(code), _verdict_line(collected)):
        complain(complaint)
    try:
        if shown is not None:
            show_run(store, str(collected.summary.id), shown)
            flush()
    except (OutputError, StoreError):
        complain(_verdict_line(collected))  # for whoever sees the other line: all is on disk
        raise
    if code != ExitCode.OK:
        complain(_verdict_line(collected))
    return code


def _telling_failures(
    runs: Iterator["core.Collected"], teller: "Teller | _Nobody"
) -> Iterator["core.Collected"]:
    """Tell others when no run comes about: nobody else would, when the disk is full."""
    try:
        yield from runs
    except (ConfigError, StoreError) as exc:
        for complaint in teller.fail(int(exit_code_of(exc)), str(exc)):
            complain(complaint)
        raise


def collect(
    config: ConfigOption = None,
    source: SourcesOption = None,
    deadline: DeadlineOption = None,
    format_: Annotated[
        Format | None,
        Option(
            "--format",
            "-f",
            help="Show the run as a table or as JSON. Without it: a table on a terminal, "
            "nothing elsewhere.",
        ),
    ] = None,
    overlap: Annotated[
        Overlap,
        Option(help="While another run of this configuration is going on: leave, wait, or join."),
    ] = Overlap.SKIP,
    slot: Annotated[
        SlotChoice,
        Option(
            help="With a [schedule]: run what is due and free only (always), or at once and outside"
            " of it (never). auto: always if there is no terminal, else at once, and for the slots"
            " that are due and free.",
        ),
    ] = SlotChoice.AUTO,
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Say nothing unless something went wrong.")
    ] = False,
) -> None:
    """Fetch, check, sum and keep batches of random numbers: one run.

    \b
    pipeline collect                         a run by the configuration found
    pipeline collect -s anu --format json    one source, for a program
    */10 * * * * pipeline collect            in a crontab: mails only what went wrong

    \b
    With a [schedule] each slot gets one run, whoever starts it; a start that finds none free
    leaves with 0. With --source a run is outside of the schedule.

    Exit codes: 0 all well, 1 a bug of ours, 2 wrong command line, 3 some batches failed, 4 nothing
    collected, 74 the store or the output failed, 75 another run is going on or the store is busy,
    78 wrong configuration, 130, 143 and 129 stopped by SIGINT, SIGTERM and SIGHUP.
    """
    with error_boundary():
        from pipeline.settings import load_settings, with_overrides

        settings = with_overrides(
            load_settings(config, os.environ), deadline_seconds=deadline, sources=source or ()
        )
        teller = _find_teller(settings)
        _keep_what_is_imported()
        shown = format_ or (Format.TEXT if sys.stdout is not None and sys.stdout.isatty() else None)
        if quiet:
            shown = None
        is_shown = shown is Format.TEXT
        if _keeps_slots(settings, slot, is_narrowed=bool(source)):
            is_by_hand = slot is SlotChoice.AUTO and _is_by_hand()
            runs = _due_runs(
                settings, teller, is_by_hand=is_by_hand, overlap=overlap, is_shown=is_shown
            )
        else:
            runs = _one_run(settings, teller, overlap=overlap, is_shown=is_shown)
        codes = [
            _tell(collected, teller, settings.store, shown)
            for collected in _telling_failures(runs, teller)
        ]
        if not codes:
            _tell_nothing_is_due(shown)
    raise typer.Exit(next(filter(None, codes), ExitCode.OK))
