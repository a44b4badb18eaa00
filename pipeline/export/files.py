"""Write an export: to stdout, to one file, or to a file for each source."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat, Records
from pipeline.export.encoders import ENCODERS
from pipeline.export.records import Account, columns_of, read_pages
from pipeline.rendering.output import OutputError
from pipeline.rendering.output_file import STDOUT, new_file
from pipeline.rendering.progress import progress
from pipeline.rendering.words import count_of
from pipeline.scope import check_source, find_run, open_to_read
from pipeline.settings import Settings
from pipeline.settings.checks import check_name
from pipeline.store.extracts import Selection, count_pruned, select_runs, sources_of
from pipeline.store.window import Window

SUFFIXES = {f".{spelled}": spelled for spelled in FileFormat} | {
    ".ndjson": FileFormat.JSONL,
    ".bin": FileFormat.BYTES,
}

_NAME_CHARACTERS = 40
_DEVICES = r"con|prn|aux|nul|com[0-9]|lpt[0-9]"  # no names of files on Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows: the options of ``pipeline export``, unchecked; None: not given.

    Attributes:
        run: a number or ``last``.
    """

    what: Records
    run: str | None
    since: datetime | None
    until: datetime | None
    source: str | None


def choose_format(target: Path, wanted: FileFormat | None, *, is_folder: bool) -> FileFormat:
    """Choose how to write: as *wanted*, else as the ending of *target* says, else as CSV.

    Raises:
        UsageError: the ending says nothing, or it cannot be written there.
    """
    is_stdout = target == STDOUT
    if is_folder and is_stdout:
        raise UsageError("--each-source: name the folder to write to")
    if wanted is None:
        wanted = FileFormat.CSV if is_stdout or is_folder else SUFFIXES.get(target.suffix.lower())
    if wanted is None:
        raise UsageError(f"{target}: give --format csv, jsonl, parquet or bytes")
    if wanted is FileFormat.PARQUET and is_stdout:
        raise UsageError("Parquet does not go to stdout; name a file")
    return wanted


def write_export(
    settings: Settings,
    wanted: Wanted,
    target: Path,
    spelled: FileFormat,
    *,
    each_source: bool,
    force: bool,
) -> list[str]:
    """Write all files, or none of them; give a line for each thing that is not in them."""
    what, account = wanted.what, Account()
    if each_source:
        _prepare_folder(target, what)
    with (
        open_to_read(settings.store) as store,
        progress("exporting", is_shown=target != STDOUT) as watch,
        ExitStack() as files,
    ):
        with store.read() as session:
            selection = _select(session, settings, wanted)
            targets = {target: selection}
            if each_source:
                targets = {
                    target / f"{file_name(source)}.{spelled}": replace(selection, source=source)
                    for source in sources_of(session, selection)
                }
        for path, chosen in targets.items():
            file = files.enter_context(_stdout() if path == STDOUT else new_file(path, force=force))
            pages = read_pages(store, what, chosen, account, watch)
            ENCODERS[spelled](file, columns_of(what), pages)
        with store.read() as session:
            pruned = 0 if what is Records.RUNS else count_pruned(session, selection)
    return list(_what_is_missing(account, running=len(selection.running), pruned=pruned))


def _prepare_folder(folder: Path, what: Records) -> None:
    if what is Records.RUNS:
        raise UsageError("--each-source: a run has several sources; export batches instead")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as exc:
        raise UsageError(f"{folder}: cannot be the folder: {exc.strerror}") from exc
    except OSError as exc:
        raise OutputError(OSError(exc.errno, f"{folder}: {exc.strerror}")) from exc


def _select(session: Session, settings: Settings, wanted: Wanted) -> Selection:
    check_source(settings, session, wanted.source)
    run_id = None if wanted.run is None else find_run(session, wanted.run).id
    window = Window(since=wanted.since, until=wanted.until)
    selection = select_runs(session, window, source=wanted.source, run_id=run_id)
    if run_id in selection.running:
        raise UsageError(f"run {run_id} is still going on; export it when it has ended")
    return selection


def file_name(source: str) -> str:
    """Derive the name of a file, without its ending, from that of a source.

    A name that the configuration allows stays as it is. The database may hold any other: of that
    some harmless characters are left, and a hash tells it from those that would look the same.
    """
    with suppress(ValueError):
        if not re.fullmatch(_DEVICES, check_name(source)):
            return source
    harmless = re.sub(r"[^a-z0-9_-]+", "_", source.lower())[:_NAME_CHARACTERS]
    # Neither the leading _ nor the dot occurs in a name that stays as it is.
    return f"_{harmless}.{hashlib.sha256(source.encode()).hexdigest()[:16]}"


@contextmanager
def _stdout() -> Iterator[IO[bytes]]:
    """Give stdout itself: no transaction is open between two pages, so a slow reader is no harm."""
    try:
        if sys.stdout is None:
            with Path(os.devnull).open("wb") as nowhere:
                yield nowhere
        else:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
    except OSError as exc:
        raise OutputError(exc) from exc


def _what_is_missing(account: Account, *, running: int, pruned: int) -> Iterator[str]:
    if running:
        are = "are" if running > 1 else "is"
        yield f"{count_of(running, 'run')} {are} still going on and left out"
    if bare := account.without_numbers:
        have = "have" if bare > 1 else "has"
        yield f"{count_of(bare, 'batch')} {have} no numbers: they were not kept, or pruned"
    elif pruned:
        were = "were" if pruned > 1 else "was"
        yield f"{count_of(pruned, 'run')} {were} pruned and left out"
    elif not account.rows:
        yield "there was nothing to export"
