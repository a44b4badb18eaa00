"""The rows of an export, column by column and a page at a time, so that any history fits.

Between two pages no transaction is open: whoever writes the rows to a slow disk or pipe keeps
nobody waiting. All pages are about the runs that had ended when the export began.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Any, TypeAlias

from pipeline.errors import StoreError
from pipeline.export.choices import Records
from pipeline.store.db import Store
from pipeline.store.extracts import (
    ATTEMPT_ROWS,
    BATCH_ROWS,
    NUMBER_ROWS,
    RUN_COLUMNS,
    Columns,
    Extract,
    Row,
    Selection,
    read_runs,
)
from pipeline.store.numbers import digest_of, unpack

Page: TypeAlias = Sequence[Sequence[Any]]  # the cells of each column, all of them equally many
StartTimes: TypeAlias = Mapping[int, datetime]  # of runs, by their ids


@dataclass(slots=True)
class Account:
    """What an export came to.

    Attributes:
        rows: how many there were.
        without_numbers: batches that were collected but whose numbers are not there: they were not
            kept, or pruned. Counted where numbers are exported.
    """

    rows: int = 0
    without_numbers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How the rows of a table become those of an export."""

    extract: Extract
    columns: Columns
    make_page: Callable[[Sequence[Row], StartTimes], Page]


def _whole_page(rows: Sequence[Row], _: StartTimes) -> Page:
    return list(zip(*rows, strict=True))


def _page_of_batches(rows: Sequence[Row], started: StartTimes) -> Page:
    runs, numbers, sources, *rest = zip(*rows, strict=True)
    return [runs, [started[run] for run in runs], sources, [f"w{n}" for n in numbers], *rest]


def _page_of_numbers(rows: Sequence[Row], started: StartTimes) -> Page:
    numbers = [_unpack(row) for row in rows]
    lengths = [len(each) for each in numbers]

    def stretch(cells: Iterable[Any]) -> list[Any]:
        return list(chain.from_iterable(map(repeat, cells, lengths)))

    return [
        stretch(row.run_id for row in rows),
        stretch(started[row.run_id] for row in rows),
        stretch(row.source for row in rows),
        stretch(f"w{row.number}" for row in rows),
        list(chain.from_iterable(map(range, lengths))),
        list(chain.from_iterable(numbers)),
    ]


def _unpack(row: Row) -> tuple[int, ...]:
    damaged = f"run {row.run_id}, w{row.number}: the database is damaged"
    try:
        numbers = unpack(row.numbers, row.n, row.min, row.max)
    except ValueError as exc:
        raise StoreError(f"{damaged}: {exc}") from exc
    if row.digest != digest_of(row.numbers, row.n, row.min, row.max):
        raise StoreError(f"{damaged}: its numbers are not those collected")
    return numbers


_BATCH: Columns = {"run_id": int, "started_at": datetime, "source": str, "batch": str}
_FORMS = {
    Records.NUMBERS: _Form(
        extract=NUMBER_ROWS,
        columns={**_BATCH, "position": int, "value": int},
        make_page=_page_of_numbers,
    ),
    Records.BATCHES: _Form(
        extract=BATCH_ROWS,
        columns=_BATCH | BATCH_ROWS.described(),
        make_page=_page_of_batches,
    ),
    Records.ATTEMPTS: _Form(
        extract=ATTEMPT_ROWS,
        columns=ATTEMPT_ROWS.described(with_key=True),
        make_page=_whole_page,
    ),
}


def columns_of(what: Records) -> Columns:
    """Give the columns of an export in their order, and what their cells are unless None."""
    return RUN_COLUMNS if what is Records.RUNS else _FORMS[what].columns


def read_pages(
    store: Store, what: Records, selection: Selection, account: Account
) -> Iterator[Page]:
    """Read the rows page by page, in the order of the runs, and count them in *account*.

    Raises:
        StoreError: the database cannot be read, or the numbers of a batch are damaged.
    """
    for runs in _read_runs(store, selection):
        if what is Records.RUNS:
            found: Iterable[Page] = [
                list(zip(*(run[: len(RUN_COLUMNS)] for run in runs), strict=True))
            ]
        else:
            found = _pages_of(store, _FORMS[what], runs, selection.source, account)
        for page in found:
            account.rows += len(page[0])
            yield page


def _read_runs(store: Store, selection: Selection) -> Iterator[Sequence[Row]]:
    after = 0
    while True:
        with store.read() as session:
            runs = read_runs(session, selection, after=after)
        if not runs:
            return
        yield runs
        after = runs[-1].id


def _pages_of(
    store: Store, form: _Form, runs: Sequence[Row], source: str | None, account: Account
) -> Iterator[Page]:
    started = {run.id: run.started_at for run in runs}
    kept = 0
    for rows in _read_rows(store, form.extract, runs, source):
        wanted = [row for row in rows if row.run_id in started]
        if form.extract is NUMBER_ROWS:
            wanted = [row for row in wanted if row.numbers is not None]
            kept += len(wanted)
        if wanted:
            yield form.make_page(wanted, started)
    if form.extract is NUMBER_ROWS:
        account.without_numbers += sum(run.expected for run in runs) - kept


def _read_rows(
    store: Store, extract: Extract, runs: Sequence[Row], source: str | None
) -> Iterator[list[Row]]:
    after = (runs[0].id, *repeat(-1, extract.key - 1))
    while True:
        with store.read() as session:
            rows = extract.read(session, after=after, last_run=runs[-1].id, source=source)
        if not rows:
            return
        yield rows
        after = tuple(rows[-1][: extract.key])
