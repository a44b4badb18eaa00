"""What Python programs may do: read a store record by record, and carry out a run."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypedDict, Unpack

from pipeline.export.choices import Records
from pipeline.export.encoders import arrow_tables
from pipeline.export.records import Account, columns_of, read_pages, read_run_pages
from pipeline.models import AttemptRecord, RunSummary
from pipeline.report.batches import BatchLine, batch_lines
from pipeline.run.collect import Run
from pipeline.run.collect import collect as carry_out
from pipeline.run.collected import Collected
from pipeline.run.opening import open_for_runs
from pipeline.scope import open_to_read
from pipeline.settings import Settings, StoreSettings
from pipeline.settings import load_settings as settings_from
from pipeline.settings.environment import find_state_folder
from pipeline.store import queries
from pipeline.store.db import Store
from pipeline.store.extracts import Selection, select_runs
from pipeline.store.rows import record
from pipeline.store.window import Window

if TYPE_CHECKING:
    import pyarrow as pa


class Number(NamedTuple):
    """One number, and where it came from.

    Attributes:
        batch: its name within the run: ``w0``.
        min: the smallest number that was allowed, and the largest.
        position: where it stands in the batch, from 0.
    """

    run_id: int
    started_at: datetime
    source: str
    batch: str
    is_sandbox: bool
    min: int
    max: int
    position: int
    value: int


class Which(TypedDict, total=False):
    """What to read: one *source* alone; runs from *since* to before *until*; or one *run*."""

    source: str | None
    since: datetime | None
    until: datetime | None
    run: int | None


class Books:
    """An open store: a context manager, or ``close`` it.

    Everything is read in the order of the runs, of those that had ended when the reading began, a
    page at a time: any history fits into memory, and a run that collects is not kept waiting. All
    methods take the same: one *source* alone; runs that started not before *since* and before
    *until* (with a time zone); or one *run* by its number.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; calling it again does nothing."""
        self._store.close()

    def runs(self, **which: Unpack[Which]) -> Iterator[RunSummary]:
        """Read the runs that wanted something, from *source* if it is given."""
        pages = read_run_pages(self._store, self._select(**which))
        return (record(RunSummary, row, is_alive=None) for page in pages for row in page)

    def batches(self, **which: Unpack[Which]) -> Iterator[BatchLine]:
        """Read the batches: ``.batch``, with the time and attempts it took, and its ``.values``."""
        source = which.get("source")
        for each in self.runs(**which):
            with self._store.read() as session:
                found = list(batch_lines(session, each, source=source, with_numbers=True))
            yield from found

    def attempts(self, **which: Unpack[Which]) -> Iterator[AttemptRecord]:
        """Read the attempts with their timings and errors."""
        source = which.get("source")
        for each in self.runs(**which):
            with self._store.read() as session:
                found = list(queries.attempts_of_run(session, run_id=each.id))
            yield from (made for made in found if source in (None, made.attempt.source))

    def numbers(self, **which: Unpack[Which]) -> Iterator[Number]:
        """Read the numbers one by one; each batch is checked against its digest."""
        selection = self._select(**which)
        for page in read_pages(self._store, Records.NUMBERS, selection, Account()):
            yield from map(Number._make, zip(*page, strict=True))

    def arrow(
        self,
        what: Literal["numbers", "batches", "attempts", "runs"],
        **which: Unpack[Which],
    ) -> "pa.Table":
        """Read the same as ``pipeline export`` writes into one table of pyarrow.

        pandas (``.to_pandas()``), polars (``polars.from_arrow``) and DuckDB take it as it is.

        Raises:
            pipeline.errors.UsageError: pyarrow is not installed; it says how to install it.
        """
        selection, records = self._select(**which), Records(what)
        pages = read_pages(self._store, records, selection, Account())
        return arrow_tables(columns_of(records), pages).read_all()

    def _select(self, **which: Unpack[Which]) -> Selection:
        since, until = which.get("since"), which.get("until")
        for name, moment in (("since", since), ("until", until)):
            if moment is not None and moment.tzinfo is None:
                raise ValueError(
                    f"{name}={moment!r} has no time zone; give datetime(…, tzinfo=UTC)"
                )
        window = Window(since=since, until=until)
        with self._store.read() as session:
            source, run = which.get("source"), which.get("run")
            return select_runs(session, window, source=source, run_id=run)


def open(store: str | Path | None = None) -> Books:  # noqa: A001 - as pipeline.open it is plain
    """Open a store to read it: a file, a SQLAlchemy URL, or that of the configuration found.

    Raises:
        pipeline.errors.PipelineError: it is not there, is damaged, or is of another schema.
    """
    settings = StoreSettings(url=_url(store)) if store else load_settings().store
    return Books(open_to_read(settings))


def _url(store: str | Path) -> str:
    text = str(store)
    return text if "://" in text else f"sqlite:///{Path(text).expanduser().absolute()}"


def load_settings(path: str | Path | None = None) -> Settings:
    """Read a configuration: *path*, or the one that ``pipeline collect`` would take.

    Raises:
        pipeline.errors.ConfigError: it is wrong; a line for each complaint.
    """
    file = None if path is None else Path(path).expanduser()
    return settings_from(file, os.environ)


def collect(settings: Settings) -> Collected:
    """Carry out one run to its end, outside of any schedule, and give what came of it.

    Call it in the main thread, outside of an event loop: SIGINT, SIGTERM and SIGHUP end it.

    Raises:
        pipeline.errors.LockHeld: another run of this configuration is going on.
        pipeline.errors.PipelineError: the configuration or the store does not allow a run.
    """
    folder = find_state_folder(os.environ)
    with open_for_runs(settings.store, folder) as store:
        run = Run(settings=settings, store=store, state_folder=folder)
        return carry_out(run, lambda _: None)
