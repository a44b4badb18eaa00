"""One start of ``pipeline collect``: carry out its runs, send notifications, show each run."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.clock import find_doubt
from pipeline.errors import ConfigError, ExitCode, StoreError, UsageError
from pipeline.models import Overlap, RunSummary, SlotChoice
from pipeline.notify.notifier import Notifier
from pipeline.rendering.output import flush, json_lines, write
from pipeline.rendering.progress import progress
from pipeline.rendering.shapes import Format
from pipeline.run.collect import Run, collect
from pipeline.run.collected import Collected
from pipeline.run.opening import open_for_runs
from pipeline.run.recorder import Progress
from pipeline.settings import Settings
from pipeline.settings.environment import find_state_folder
from pipeline.store.db import Store
from pipeline.store.stamps import count_future, last_stamps


@dataclass(kw_only=True)
class Start:
    """What was asked for, and whom to tell how it went.

    Attributes:
        is_narrowed: whether only some of the sources were named.
        is_spread: whether workers are to carry the runs out.
        is_by_hand: whether somebody looks on; else it is cron or systemd that starts us.
        shown: how each run is shown on stdout; None: not at all.
        say: tells a person one line about what is wrong.
        inform: tells a person one line about a run that went well.
    """

    settings: Settings
    slot: SlotChoice
    is_narrowed: bool
    is_by_hand: bool
    overlap: Overlap
    is_spread: bool
    shown: Format | None
    environ: Mapping[str, str]
    say: Callable[[str], object]
    inform: Callable[[str], object] = lambda _: None

    def __post_init__(self) -> None:
        self._notifier = Notifier(self.settings, self.environ)
        has_slots = self.settings.has_slots or self.slot is SlotChoice.ALWAYS
        is_outside = self.slot is SlotChoice.NEVER or self.is_narrowed
        self._keeps_slots = has_slots and not is_outside
        is_extra = self.is_by_hand and self.slot is SlotChoice.AUTO
        self._is_scheduled = self._keeps_slots and not is_extra

    def carry_out(self) -> int:
        """Carry out the runs that this start is for, and give the exit code.

        A scheduled start runs what is due and free, at most, and then what is caught up on. Any
        other is one run of everything; if it keeps slots, it takes those that are due and free.
        """
        if self.slot is SlotChoice.ALWAYS and self.is_narrowed:
            raise UsageError(
                "--slot always: a slot is for all that is configured; leave out --source and"
                " --batches"
            )
        codes: list[int] = []
        with ExitStack() as opened:
            with self._failures_told():
                runs = self._find_runs(opened)
            for run in runs:
                with self._failures_told():
                    if run.is_missed and not run.claim():
                        continue
                    with self._progress_shown() as on_progress:
                        collected = collect(run, on_progress)
                self._tell(run, collected)
                codes.append(collected.exit_status)
                if collected.stopped_by is not None:
                    break
        if not codes:
            self._say_that_nothing_is_due()
        return next(filter(None, codes), ExitCode.OK)

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        """Send notifications if no run comes about: on a full disk nobody else would."""
        try:
            yield
        except (ConfigError, StoreError) as exc:
            for complaint in self._notifier.fail(int(exc.exit_code), str(exc)):
                self.say(complaint)
            raise

    def _find_runs(self, opened: ExitStack) -> Sequence[Run]:
        """Open the store until *opened* is closed, and find what is to be run."""
        settings = self.settings
        if not settings.enabled_sources:
            problem = "no source is enabled; set enabled = true in a [sources.<name>] table"
            raise ConfigError(f"{settings.named}: {problem}")
        if self._keeps_slots:
            from pipeline.schedule import booking  # noqa: PLC0415 - most have no schedule

            schedules = booking.find_possible_schedules(settings)
            if self._is_scheduled:
                booking.wait_for_our_place(schedules)
        state_folder = find_state_folder(self.environ)
        store = opened.enter_context(open_for_runs(settings.store, state_folder))
        for note in store.notes:
            self.say(note)
        run = _kind(is_spread=self.is_spread)(
            settings=settings,
            store=store,
            state_folder=state_folder,
            overlap=self.overlap,
            on_begin=self._notifier.begin,
            meanwhile=_import_what_follows,
        )
        self._say_what_the_clock_did(run.store)
        if not self._keeps_slots:
            return [run]
        return booking.book_runs(run, schedules, is_by_hand=not self._is_scheduled)

    def _say_what_the_clock_did(self, store: Store) -> None:
        now = datetime.now(UTC)
        with store.read() as session:
            last = last_stamps(session)
            is_odd = bool(last) and find_doubt(last, now, runs=0, in_future=0) is not None
            runs, in_future = count_future(session, now=now) if is_odd else (0, 0)
        if doubt := find_doubt(last, now, runs=runs, in_future=in_future):
            self.say(doubt)

    @contextmanager
    def _progress_shown(self) -> Iterator[Callable[[Progress], object]]:
        """Show a bar to whoever waits for the run."""
        is_shown = self.shown is Format.TEXT and not self._is_scheduled
        with progress("collecting", counts=True, is_shown=is_shown) as show:
            yield lambda far: show(
                far.collected + far.lost, far.ordered, f"{far.lost} lost" if far.lost else ""
            )

    def _tell(self, run: Run, collected: Collected) -> None:
        """Send the notifications of a run, show it on stdout, and say what went wrong."""
        code = collected.exit_status
        ended = self._notifier.end(run.store, collected.summary, code, collected.verdict)
        for complaint in (*ended, *collected.remarks):
            self.say(complaint)
        is_told = False
        try:
            if self.shown is not None:
                from pipeline.report.run import show_run  # noqa: PLC0415 - under cron nobody looks

                show_run(run.store, str(collected.summary.id), self.shown)
                flush()
            is_told = code == ExitCode.OK
        finally:  # also for whoever sees that it could not be shown: all is on disk
            (self.inform if is_told else self.say)(collected.verdict)
        self._say_what_is_shut(run.store, collected.summary)
        self._close_periods(run.store)

    def _close_periods(self, store: Store) -> None:
        """Add up the days that are over, so that reports of years are quick."""
        from pipeline.audit.closing import close_some  # noqa: PLC0415 - the run is told of first

        try:
            close_some(store)
        except StoreError as exc:  # the next run does it: nothing is lost but time
            self.say(f"the days before this one could not be added up: {exc}")

    def _say_what_is_shut(self, store: Store, run: RunSummary) -> None:
        """Say which sources of a run are shut for much longer than usual; of a good run none is."""
        if run.collected == run.ordered:
            return
        from pipeline.audit.audit import find_closed  # noqa: PLC0415 - most runs are good
        from pipeline.store.history import tallies_of_run  # noqa: PLC0415

        try:
            with store.read() as session:
                tallies = tallies_of_run(session, run_id=run.id)
                wanting = {tally.source for tally in tallies if tally.collected < tally.ordered}
                found = find_closed(session, wanting, now=datetime.now(UTC))
        except StoreError as exc:  # the run is on disk and has been told of
            self.say(str(exc))
            return
        for finding in found:
            self.say(f"{finding.sources[0]}: {finding.reason}")

    def _say_that_nothing_is_due(self) -> None:
        if self.shown is Format.JSON:
            head = {"schema": "pipeline.run/1", "run": None, "pruned_at": None, "limits": None}
            write("\n".join(json_lines(head, batches=(), attempts=(), tallies=(), late=())))
        if sys.stderr is not None and sys.stderr.isatty():
            self.say(
                "nothing to do: each slot that is due has its run; see `pipeline schedule show`"
            )


def _import_what_follows() -> None:
    """Import what the end of a start needs."""
    from pipeline.audit import closing  # noqa: F401, PLC0415 - not before the first request


def _kind(*, is_spread: bool) -> type[Run]:
    if not is_spread:
        return Run
    from pipeline.run.spread import SpreadRun  # noqa: PLC0415 - most runs are this process's own

    return SpreadRun
