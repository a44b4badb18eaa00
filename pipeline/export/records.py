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
from pipeline.rendering.records import parse_fields
from pipeline.rendering.vocabulary import RUN
from pipeline.store.columns import PHASE_COLUMNS
from pipeline.store.db import Store
from pipeline.store.extracts import (
    ATTEMPT_ROWS,
    BATCH_ROWS,
    NUMBER_ROWS,
    PROOF_ROWS,
    RUN_ROWS,
    Selection,
    read_runs,
)
from pipeline.store.numbers import CHECK_BYTES, digest_of, unpack, whole_digest
from pipeline.store.rows import AnyRow

Columns: TypeAlias = Mapping[str, type]  # by name what the cells are, unless None
Cells: TypeAlias = Sequence[Any]  # of one column
Page: TypeAlias = Sequence[Cells]  # the columns, all of them equally long
Watch: TypeAlias = Callable[[int, int], None]  # told how much is done, and of how much

EXTRACTS = {
    Records.NUMBERS: NUMBER_ROWS,
    Records.BATCHES: BATCH_ROWS,
    Records.ATTEMPTS: ATTEMPT_ROWS,
    Records.RUNS: RUN_ROWS,
    Records.PROOFS: PROOF_ROWS,
}
_BATCH = "run_id started_at=run_id source batch=number"
# The fields of each row, and after = the column that it is made of.
FIELDS = {
    Records.NUMBERS: parse_fields(f"{_BATCH} is_sandbox min max"),
    Records.BATCHES: parse_fields(
        f"{_BATCH} batch_number=number is_sandbox n min max verdict sum digest error detail"
        " not_before fetch attempt_id=id attempt_number=attempt offset host pid"
    ),
    Records.ATTEMPTS: parse_fields(
        "run_id fetch attempt_number=number attempt_id=id source is_sandbox began_at"
        f" {' '.join(PHASE_COLUMNS.values())} is_reused http_status=status body_bytes error phase"
        " detail retry_after_us evidence host pid"
    ),
    Records.RUNS: parse_fields(RUN),
    # A row for each batch, with all that it takes to make its numbers again.
    Records.PROOFS: parse_fields(
        f"{_BATCH} is_sandbox n min max offset word scheme key_id serial made_at is_expanded"
        " message signature"
    ),
}
_PACKED = ("n", "digest", "numbers")  # columns of which numbers are made
_BYTES = ("digest", "message", "signature")  # that are shown in hex
_DIGEST = list(dict(FIELDS[Records.BATCHES])).index("digest")
# What is not as its column has it.
_MADE = {"started_at": datetime, "batch": str} | dict.fromkeys(_BYTES, str)
_OF_NUMBERS = {"position": int, "value": int}


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


def columns_of(what: Records) -> Columns:
    """Give the columns of an export in their order, and what their cells are unless None."""
    columns = {name: _MADE.get(name) or EXTRACTS[what].type_of(path) for name, path in FIELDS[what]}
    return columns | (_OF_NUMBERS if what is Records.NUMBERS else {})


def read_pages(
    store: Store,
    what: Records,
    selection: Selection,
    account: Account,
    watch: Watch = lambda *_: None,
) -> Iterator[Page]:
    """Read the rows page by page, in the order of the runs, and count them in *account*.

    Raises:
        StoreError: the database cannot be read, or the numbers of a batch are damaged.
    """
    for runs in read_run_pages(store, selection):
        if what is Records.RUNS:
            found: Iterable[Page] = [
                [[getattr(run, path) for run in runs] for _, path in FIELDS[what]]
            ]
        else:
            found = _pages_of(store, what, runs, selection.source, account)
        for page in found:
            account.rows += len(page[0])
            yield page
            last_run = page[0][-1]
            watch(last_run - selection.first + 1, selection.last - selection.first + 1)


def read_run_pages(store: Store, selection: Selection) -> Iterator[Sequence[AnyRow]]:
    """Read the rows of the runs, a page at a time and in their order."""
    after = 0
    while True:
        with store.read() as session:
            runs = read_runs(session, selection, after=after)
        if not runs:
            return
        yield runs
        after = runs[-1].id


def _pages_of(
    store: Store, what: Records, runs: Sequence[AnyRow], source: str | None, account: Account
) -> Iterator[Page]:
    started = {run.id: run.started_at for run in runs}
    make: Mapping[str, Callable[[Any], Any]] = {
        "started_at": started.__getitem__,
        "batch": "w{}".format,
        **dict.fromkeys(_BYTES, lambda cell: cell and cell.hex()),
    }
    are_numbers = what is Records.NUMBERS
    kept = 0
    for rows in _read_rows(store, what, runs, source):
        wanted = [row for row in rows if row[0] in started]
        kept += len(wanted)
        if wanted:
            columns = list(zip(*wanted, strict=True))[len(EXTRACTS[what].key) :]
            page = [
                [make[name](cell) for cell in cells] if name in make else cells
                for (name, _), cells in zip(FIELDS[what], columns, strict=False)
            ]
            if what is Records.BATCHES:
                page[_DIGEST] = list(map(_digest, wanted))
            yield _stretched(page, wanted) if are_numbers else page
    if are_numbers:
        account.without_numbers += sum(run.expected for run in runs) - kept


def _read_rows(
    store: Store, what: Records, runs: Sequence[AnyRow], source: str | None
) -> Iterator[list[AnyRow]]:
    extract = EXTRACTS[what]
    names = [path for _, path in FIELDS[what]]
    if what in (Records.NUMBERS, Records.BATCHES):
        names += [name for name in _PACKED if name not in names]
    after = (runs[0].id, *repeat(-1, len(extract.key) - 1))
    while True:
        with store.read() as session:
            rows = extract.read(session, names, after=after, last_run=runs[-1].id, source=source)
        if not rows:
            return
        yield rows
        after = tuple(rows[-1][: len(extract.key)])


def _digest(row: AnyRow) -> str | None:
    whole = whole_digest(row.digest, row.numbers, row.n, row.min, row.max)
    return None if whole is None else whole.hex()


def _stretched(page: Page, rows: Sequence[AnyRow]) -> Page:
    """Make of rows that are batches rows that are numbers."""
    numbers = [_unpack(row) for row in rows]
    lengths = [len(each) for each in numbers]
    return [
        *(list(chain.from_iterable(map(repeat, cells, lengths))) for cells in page),
        list(chain.from_iterable(map(range, lengths))),
        list(chain.from_iterable(numbers)),
    ]


def _unpack(row: AnyRow) -> tuple[int, ...]:
    run_id, number = row[:2]
    damaged = f"run {run_id}, w{number}: the database is damaged"
    try:
        numbers = unpack(row.numbers, row.n, row.min, row.max)
    except ValueError as exc:
        raise StoreError(f"{damaged}: {exc}") from exc
    if row.digest != digest_of(row.numbers, row.n, row.min, row.max)[:CHECK_BYTES]:
        raise StoreError(f"{damaged}: its numbers are not those collected")
    return numbers
