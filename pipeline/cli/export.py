"""``pipeline export``: the stored numbers and records as files for other programs."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Annotated

from typer import Argument, Option

from pipeline.cli.asking import check_source
from pipeline.cli.boundary import complain, error_boundary
from pipeline.cli.files import STDOUT, new_file
from pipeline.cli.options import ConfigOption, SinceOption, SourceOption, UntilOption
from pipeline.cli.render import OutputError
from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat, Records

if TYPE_CHECKING:
    from pipeline.export.records import Account, Page
    from pipeline.settings import Settings, StoreSettings
    from pipeline.store.db import Store
    from pipeline.store.extracts import Selection

SUFFIXES = {f".{spelled}": spelled for spelled in FileFormat} | {".ndjson": FileFormat.JSONL}
PROGRESS_SECONDS = 1.0  # between two words of it

_NAME_CHARACTERS = 40
_DEVICES = r"con|prn|aux|nul|com[0-9]|lpt[0-9]"  # no names of files on Windows


def export(
    what: Annotated[Records, Argument(metavar="WHAT", help="numbers, batches, attempts or runs.")],
    target: Annotated[
        Path, Argument(metavar="TARGET", help="The file to write; - is stdout.")
    ] = STDOUT,
    config: ConfigOption = None,
    run: Annotated[
        str | None, Option("--run", "-r", metavar="ID|last", help="Only this run.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    format_: Annotated[
        FileFormat | None,
        Option("--format", "-f", help="What to write; else TARGET's ending says it, else CSV."),
    ] = None,
    each_source: Annotated[
        bool, Option("--each-source", help="TARGET is a folder: a file in it for each source.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace files that are there already.")] = False,
) -> None:
    """Write numbers, batches, attempts or runs for other programs.

    A run is exported once it has ended. Times are UTC; durations, named _us, microseconds. In CSV
    a text that a spreadsheet could take for a formula gets an apostrophe in front.

    \b
    pipeline export numbers numbers.parquet          every number there is
    pipeline export batches --since 7d | head        CSV on stdout
    pipeline export numbers data --each-source       data/anu.csv, data/random_org.csv, ...
    """
    with error_boundary():
        from pipeline.export.encoders import ENCODERS
        from pipeline.export.records import Account, columns_of, read_pages
        from pipeline.settings import load_settings

        spelled = _format_of(target, wanted=format_, is_folder=each_source)
        if each_source:
            _prepare_folder(target, what)
        account = Account()
        settings = load_settings(config, os.environ, will_ask=False)
        with _opened_store(settings.store) as store, ExitStack() as files:
            selection = _select(store, settings, run, since, until, source)
            targets = [(selection, target)]
            if each_source:
                targets = _targets_of_sources(store, selection, target, spelled)
            for chosen, path in targets:
                file = files.enter_context(_opened(path, force=force))
                pages = _shown(read_pages(store, what, chosen, account), account, path)
                ENCODERS[spelled](file, columns_of(what), pages)
            pruned = 0 if what is Records.RUNS else _count_pruned(store, selection)
        _say_what_is_missing(account, running=len(selection.running), pruned=pruned)


def _format_of(target: Path, *, wanted: FileFormat | None, is_folder: bool) -> FileFormat:
    is_stdout = target == STDOUT
    if is_folder and is_stdout:
        raise UsageError("--each-source: name the folder to write to")
    if wanted is None:
        wanted = FileFormat.CSV if is_stdout or is_folder else SUFFIXES.get(target.suffix.lower())
    if wanted is None:
        raise UsageError(f"{target}: give --format csv, jsonl or parquet")
    if wanted is FileFormat.PARQUET and is_stdout:
        raise UsageError("Parquet does not go to stdout; name a file")
    return wanted


def _prepare_folder(folder: Path, what: Records) -> None:
    if what is Records.RUNS:
        raise UsageError("--each-source: a run has several sources; export batches instead")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as exc:
        raise UsageError(f"{folder}: cannot be the folder: {exc.strerror}") from exc
    except OSError as exc:
        raise OutputError(OSError(exc.errno, f"{folder}: {exc.strerror}")) from exc


@contextmanager
def _opened_store(settings: "StoreSettings") -> "Iterator[Store]":
    from pipeline.store.db import open_store

    busy_seconds = settings.busy_seconds
    with open_store(settings.url, busy_seconds=busy_seconds, for_writing=False) as opened:
        yield opened


def _select(
    store: "Store",
    settings: "Settings",
    run: str | None,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
) -> "Selection":
    from pipeline.report import find_run
    from pipeline.store.extracts import select_runs

    with store.read() as session:
        if source is not None:
            check_source(settings, session, source)
        run_id = None if run is None else find_run(session, run).id
        selection = select_runs(session, since=since, until=until, source=source, run_id=run_id)
    if run_id in selection.running:
        raise UsageError(f"run {run_id} is still going on; export it when it has ended")
    return selection


def _count_pruned(store: "Store", selection: "Selection") -> int:
    from pipeline.store.extracts import count_pruned

    with store.read() as session:
        return count_pruned(session, selection)


def _targets_of_sources(
    store: "Store", selection: "Selection", folder: Path, spelled: FileFormat
) -> "list[tuple[Selection, Path]]":
    from pipeline.store.extracts import sources_of

    with store.read() as session:
        sources = sources_of(session, selection)
    return [
        (replace(selection, source=source), folder / f"{file_name(source)}.{spelled}")
        for source in sources
    ]


def file_name(source: str) -> str:
    """Derive the name of a file, without its ending, from that of a source.

    A name that the configuration allows stays as it is. The database may hold any other: of that
    some harmless characters are left, and a hash tells it from those that would look the same.
    """
    from pipeline.settings.checks import check_name

    with suppress(ValueError):
        if not re.fullmatch(_DEVICES, check_name(source)):
            return source
    harmless = re.sub(r"[^a-z0-9_-]+", "_", source.lower())[:_NAME_CHARACTERS]
    # Neither the leading _ nor the dot occurs in a name that stays as it is.
    return f"_{harmless}.{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _opened(target: Path, *, force: bool) -> AbstractContextManager[IO[bytes]]:
    return _stdout() if target == STDOUT else new_file(target, force=force)


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


def _shown(pages: "Iterator[Page]", account: "Account", target: Path) -> "Iterator[Page]":
    """Say on a terminal how many rows there are so far, if it takes long."""
    if target == STDOUT or sys.stderr is None or not sys.stderr.isatty():
        yield from pages
        return
    shown_at = monotonic()
    line = ""
    try:
        for page in pages:
            yield page
            if monotonic() - shown_at > PROGRESS_SECONDS:
                shown_at = monotonic()
                line = f"{account.rows:,} rows"
                _draw(f"\r{line}")
    finally:
        _draw(f"\r{' ' * len(line)}\r" if line else "")


def _draw(text: str) -> None:
    with suppress(OSError):  # a terminal that was closed is no reason to stop
        sys.stderr.write(text)
        sys.stderr.flush()


def _say_what_is_missing(account: "Account", *, running: int, pruned: int) -> None:
    if running:
        complain(f"{running} run{'s are' if running > 1 else ' is'} still going on and left out")
    if bare := account.without_numbers:
        batches = "batches have" if bare > 1 else "batch has"
        complain(f"{bare} {batches} no numbers: they were not kept, or pruned")
    elif pruned:
        complain(f"{pruned} run{'s were' if pruned > 1 else ' was'} pruned and left out")
    elif not account.rows:
        complain("there was nothing to export")
