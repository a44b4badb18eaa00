"""Record what every command answers, and compare: does a change of the code change an answer?

``python -m tests.answers record FOLDER`` writes a file for each answer: exit code, stdout, stderr
and the files that the command wrote. ``python -m tests.answers compare FOLDER`` asks once more,
prints what differs and exits with 1 if anything does. Record and compare on the same machine: some
answers tell its name, its SQLite, its time zone or its user.

The clock stands still, and what runs anew each time (``collect``) is kept without its figures.
Nothing here looks into an answer.
"""

import argparse
import gc
import hashlib
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import chdir, closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import unified_diff
from fnmatch import fnmatch
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from unittest.mock import patch

import typer.main
from pyarrow import parquet

from pipeline.cli.commands import make_app
from tests.stopped import stop_the_clock
from tests.store.variety import CONFIG, NOW, make_empty, make_variety

MOST_CHARACTERS = 20_000  # of a line; the script of a chart has millions
OUT = "out"  # the folder in which commands write files
SHAPES = ("text", "json", "csv", "markdown", "html")
PLAIN = ("text", "json")
SECRETS = {"RPC_KEY": "00000000-0000-4000-8000-00000000cafe"}
WINDOW = ("--since", "2026-03-02T06:00", "--until", "2026-03-05")
ALL = ("--since", "2025-01-01")

# ---- The questions ----

Behind = Literal["pipe", "ascii", "terminal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One command line, and how its answer is called.

    Attributes:
        home: the folder it is asked in.
        is_changing: whether that is to be as it was before, afterwards.
        is_timed: whether stdout and files tell of this moment, so that figures mean nothing.
        stdout: what is behind it: a pipe, a pipe that takes ASCII alone, or a terminal.
    """

    name: str
    arguments: tuple[str, ...]
    home: str = "full"
    is_changing: bool = False
    is_timed: bool = False
    stdout: Behind = "pipe"


Choices = dict[str, tuple[str, ...]]  # options by the word that names them

RUNS: Choices = {
    "": (),
    "all": ("-n", "1000"),
    "limit": ("-n", "3"),
    "window": WINDOW,
    "source": ("-s", "qrng"),
}
ONE_RUN: Choices = {f"run-{run}": ("-r", run) for run in ("last", "47", "14", "5", "2")}
FIGURES: Choices = {"": (), "all": ALL, "window": WINDOW, "source": ("-s", "org"), **ONE_RUN}
REPORTS: dict[str, Choices] = {
    "": RUNS | ONE_RUN,
    "runs": RUNS,
    "batches": RUNS | ONE_RUN,
    "timings": FIGURES,
    "errors": FIGURES,
    "numbers": FIGURES,
    "sources": FIGURES,
    "slots": {"": (), "all": ALL, "window": WINDOW},
    "workers": {"": ()},
}
AUDITS: Choices = {
    "": (),
    "all": ALL,
    "window": WINDOW,
    "source": ("-s", "qrng"),
    "strict": ("--strict",),
}
# Accepted, failed, retried, with odd details, refused by policy, of a POST, and not there.
ATTEMPTS = (
    "1",
    "12",
    "13",
    "45",
    "58",
    "65",
    "106",
    "120",
    "193",
    "253",
    "255",
    "301",
    "318",
    "999",
)
EXPORTS: Choices = {"": (), "window": WINDOW, "source": ("-s", "rpc"), "run": ("-r", "47")}
RECORDS = ("numbers", "batches", "attempts", "runs")
LISTS: Choices = {
    "plan": ("plan",),
    "plan.10m": ("plan", "--every", "10m"),
    "plan.1d": ("plan", "--every", "1d"),
    "plan.source": ("plan", "-s", "rpc", "--deadline", "5"),
    "sources": ("sources",),
    "schedule.show": ("schedule", "show"),
    "db.stats": ("db", "stats"),
    "db.stats.exact": ("db", "stats", "--exact"),
}
PLAINLY: Choices = {
    "version": ("--version",),
    "schedule.cron": ("schedule", "cron"),
    "schedule.systemd": ("schedule", "systemd"),
    "schedule.systemd.service": ("schedule", "systemd", "--service"),
    "schedule.systemd.files": ("schedule", "systemd", "-o", OUT),
    "schedule.show.3": ("schedule", "show", "-n", "3"),
    "sandbox.faults": ("sandbox", "--list-faults"),
    "schema": ("schema",),
}
STORELESS: Choices = {
    "report": ("report",),
    "audit": ("audit",),
    "audit.verify": ("audit", "verify"),
    "audit.show": ("audit", "show", "1"),
    "audit.har": ("audit", "har", "-"),
    "audit.replay": ("audit", "replay"),
    "audit.dossier": ("audit", "dossier", "dice"),
    "export": ("export", "numbers"),
    "plan": ("plan",),
    "sources": ("sources",),
    "schedule.show": ("schedule", "show"),
    "db.stats": ("db", "stats"),
    "db.check": ("db", "check"),
    "db.prune": ("db", "prune", "--keep", "1d"),
}
COMPLAINTS: Choices = {
    "no-command": ("nothing",),
    "no-report": ("report", "nothing"),
    "no-shape": ("report", "-f", "xml"),
    "no-run": ("report", "-r", "999"),
    "no-run-number": ("report", "batches", "-r", "first"),
    "no-source": ("report", "runs", "-s", "nobody"),
    "no-time": ("report", "errors", "--since", "yesterday"),
    "no-window": ("report", "numbers", "--since", "2026-03-05", "--until", "2026-03-02"),
    "no-limit": ("report", "-n", "0"),
    "no-attempt": ("audit", "show", "first"),
    "no-head": ("audit", "verify", "--expect", "47"),
    "no-dossier": ("audit", "dossier", "nobody"),
    "no-records": ("export", "nothing"),
    "no-ending": ("export", "numbers", "out/numbers.doc"),
    "no-parquet": ("export", "numbers", "-f", "parquet"),
    "no-schema": ("schema", "nothing"),
    "no-plan": ("plan", "-s", "nobody"),
    "no-interval": ("plan", "--every", "often"),
    "no-release": ("sources", "release", "nobody"),
    "no-keep": ("db", "prune"),
    "no-config": ("report", "-c", "nowhere.toml"),
    "bad-config": ("sources", "-c", "bad.toml"),
    "no-option": ("report", "--nothing"),
}
CHANGING: Choices = {
    "sources.release": ("sources", "release", "org"),
    "sources.release.free": ("sources", "release", "dice"),
    "db.prune.dry-run": ("db", "prune", "--keep", "5d", "--dry-run"),
    "db.prune": ("db", "prune", "--keep", "5d", "--force"),
    "db.prune.refused": ("db", "prune", "--keep", "1m"),
    "db.migrate": ("db", "migrate"),
    "db.backup": ("db", "backup", "copy.db"),
}
COLLECTS: Choices = {
    "quiet": ("-q",),
    "": (),
    "json": ("-f", "json"),
    "no-slot": ("--slot", "never"),
    "slot": ("--slot", "always"),
    "slot.json": ("--slot", "always", "-f", "json"),
    "no-source": ("-s", "nobody"),
    "slot.narrowed": ("--slot", "always", "-s", "dice"),
}


def _dotted(*words: str) -> str:
    return ".".join(word for word in words if word)


def _shaped(
    name: str, arguments: Iterable[str], shapes: Iterable[str], home: str = "full"
) -> Iterator[Question]:
    for shape in shapes:
        yield Question(name=_dotted(name, shape), arguments=(*arguments, "-f", shape), home=home)


def _reports() -> Iterator[Question]:
    for what, choices in REPORTS.items():
        words = ("report", *([what] if what else []))
        for choice, options in choices.items():
            yield from _shaped(_dotted(*words, choice), (*words, *options), SHAPES)
        yield from _shaped(_dotted("empty", *words), words, SHAPES, "empty")


def _drawn() -> Iterator[Question]:
    """Ask for what is drawn with colours, or without lines and blocks."""
    for words in (
        *(("report", *([what] if what else [])) for what in REPORTS),
        *(("report", *what, "-r", "47") for what in ((), ("batches",), ("timings",))),
        ("audit", *ALL),
        ("audit", "show", "120"),
        ("sources",),
        ("plan",),
        ("schedule", "show"),
        ("db", "stats"),
    ):
        name = _dotted(*(word.lstrip("-") for word in words))
        yield Question(name=f"terminal.{name}", arguments=words, stdout="terminal")
        yield Question(name=f"ascii.{name}", arguments=words, stdout="ascii")


def _audits() -> Iterator[Question]:
    for choice, options in AUDITS.items():
        yield from _shaped(_dotted("audit", choice), ("audit", *options), SHAPES)
    yield from _shaped("empty.audit", ("audit",), SHAPES, "empty")
    for attempt in ATTEMPTS:
        show = ("audit", "show", attempt)
        yield from _shaped(f"audit.show.{attempt}", show, PLAIN)
        yield Question(name=f"audit.show.{attempt}.curl", arguments=(*show, "--curl"))
        yield Question(name=f"audit.show.{attempt}.har", arguments=(*show, "--har", "-"))
    for run in ("last", "47", "14", "2"):
        yield Question(name=f"audit.har.{run}", arguments=("audit", "har", "-", "-r", run))
    yield Question(name="audit.har.file", arguments=("audit", "har", f"{OUT}/run.har"))
    for choice, options in AUDITS.items():
        yield from _shaped(_dotted("audit.replay", choice), ("audit", "replay", *options), PLAIN)
    for home in ("full", "damaged"):
        prefix = "" if home == "full" else home
        verify = ("audit", "verify", "--all")
        yield from _shaped(_dotted(prefix, "audit.verify"), verify, PLAIN, home)
        yield Question(name=_dotted(prefix, "db.check"), arguments=("db", "check"), home=home)
    expected = ("audit", "verify", "--all", "--expect", f"40:{'0' * 64}")
    yield from _shaped("audit.verify.expect", expected, PLAIN)
    for source in ("dice", "qrng", "org", "rpc"):
        for choice, options in {"": (), "window": WINDOW}.items():
            words = ("audit", "dossier", source, *options)
            yield from _shaped(
                _dotted("audit.dossier", source, choice), words, ("markdown", "html")
            )
    to_file = ("audit", "dossier", "qrng", "-o", f"{OUT}/qrng.html")
    yield Question(name="audit.dossier.file", arguments=to_file)


def _exports() -> Iterator[Question]:
    for what in RECORDS:
        for choice, options in EXPORTS.items():
            name, words = _dotted("export", what, choice), ("export", what)
            yield from _shaped(name, (*words, *options), ("csv", "jsonl"))
            target = f"{OUT}/{what}.parquet"
            yield Question(name=f"{name}.parquet", arguments=(*words, target, *options))
        yield from _shaped(f"empty.export.{what}", ("export", what), ("csv", "jsonl"), "empty")
        to_files = ("export", what, OUT, "--each-source")
        yield Question(name=f"export.{what}.each-source", arguments=to_files)


def _others() -> Iterator[Question]:
    for name, words in LISTS.items():
        yield from _shaped(name, words, PLAIN)
        yield from _shaped(f"empty.{name}", words, PLAIN, "empty")
    for name, words in PLAINLY.items():
        yield Question(name=name, arguments=words)
    for name, words in STORELESS.items():
        yield Question(name=f"no-store.{name}", arguments=words, home="no-store")
    for name, words in COMPLAINTS.items():
        yield Question(name=f"complaint.{name}", arguments=words)
    for name, words in CHANGING.items():
        yield Question(name=name, arguments=words, is_changing=True)


def _collects() -> Iterator[Question]:
    """Ask for runs that succeed, that fail, and that have no slot to run for."""
    for home in ("well", "ill", "halfway", "scheduled", "served", "notified"):
        for choice, options in COLLECTS.items():
            yield Question(
                name=_dotted("collect", home, choice),
                arguments=("collect", *options),
                home=home,
                is_changing=True,
                is_timed=True,
            )


def _schemas(names: Iterable[str]) -> Iterator[Question]:
    for name in names:
        yield Question(name=f"schema.{name.replace('/', '.')}", arguments=("schema", name))


def _helps(command: object, *words: str) -> Iterator[Question]:
    """Ask a command for its help, and those below it; which there are it knows itself."""
    yield Question(name=_dotted("help", *words), arguments=(*words, "--help"))
    for name, below in getattr(command, "commands", {}).items():
        yield from _helps(below, *words, name)


# ---- The places where they are asked ----

DICE = "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [3]\nretries = 0\n"
QRNG = "[sources.qrng]\nkind = 'sandbox.anu_legacy'\nbatches = [3]\nretries = 0\n"
SANDBOX = "[sandbox]\nlatency_seconds = 0.0\nrules = false\n"
ILL = "faults = ['randomnumberapi:unavailable']\n"
SLOTS = "[schedule]\ncron = '0 */4 * * *'\ngrace_seconds = 7200\n"
NOTIFY = "[notify]\non_failure = ['sh', '-c', 'cat > out/told; exit 3']\n"
HOMES = {
    "full": CONFIG,
    "empty": CONFIG,
    "damaged": CONFIG,
    "no-store": CONFIG,
    "well": SANDBOX + DICE,
    "ill": SANDBOX + ILL + DICE,
    "halfway": SANDBOX + ILL + DICE + QRNG,
    "scheduled": SANDBOX + SLOTS + DICE,
    "served": SANDBOX + SLOTS + DICE,
    "notified": SANDBOX + ILL + NOTIFY + SLOTS + DICE,
}
DAMAGES = (
    "UPDATE batches SET sum = sum + 1 WHERE run_id = 20 AND number = 0",
    "UPDATE runs SET collected = collected + 1, failed = failed - 1 WHERE id = 22",
    "DELETE FROM attempts WHERE run_id = 24",
    "UPDATE evidence SET body = x'00' WHERE rowid = (SELECT min(rowid) FROM evidence)",
)


def _make_homes(folder: Path) -> None:
    for name, config in HOMES.items():
        home = folder / name
        home.mkdir()
        (home / "config.toml").write_text(f"{config}[store]\nurl = 'pipeline.db'\n")
        (home / "bad.toml").write_text(
            "[sources.dice]\nkind = 'dice'\nbatch = 3\n[collect]\nx = 1\n"
        )
    full, damaged = folder / "full" / "pipeline.db", folder / "damaged" / "pipeline.db"
    make_variety(full)
    make_empty(folder / "empty" / "pipeline.db")
    shutil.copyfile(full, damaged)
    with closing(sqlite3.connect(damaged)) as raw, raw:
        for statement in DAMAGES:
            raw.execute(statement)


def _settle_in() -> None:
    """Make this process the same wherever it was started."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    os.environ.clear()
    os.environ |= kept | SECRETS
    os.environ |= {"COLUMNS": "100", "LANG": "C.UTF-8", "TZ": "UTC"}
    time.tzset()
    sys.stdin = StringIO()
    stop_the_clock(NOW)


class _Stream(TextIOWrapper):
    """What a command writes to; as the program sets its own streams up."""

    def __init__(self, behind: Behind = "pipe") -> None:
        encoding = "ascii" if behind == "ascii" else "utf-8"
        self._content = BytesIO()
        super().__init__(self._content, encoding, "backslashreplace", newline="")
        self._is_terminal = behind == "terminal"

    def isatty(self) -> bool:
        """Tell whether somebody watches."""
        return self._is_terminal

    def content(self) -> bytes:
        """Give all that was written."""
        self.flush()
        return self._content.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came back from a command."""

    code: object
    stdout: bytes
    stderr: bytes


class Asker:
    """Asks questions in this process, each in its home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.command = typer.main.get_command(make_app())
        places = {folder / name: "{home}" for name in HOMES}
        places |= {Path(sys.prefix): "{venv}", Path(__file__).parents[1]: "{code}"}
        self._places = {str(path): word for path, word in places.items()}

    def call(self, *arguments: str, home: str, stdout: Behind = "pipe") -> Said:
        """Call a command in a home, with an empty folder for what it writes."""
        place = self._folder / home
        (place / OUT).mkdir(exist_ok=True)
        colours = {"TERM": "xterm-256color"} if stdout == "terminal" else {"NO_COLOR": "1"}
        out, err = _Stream(stdout), _Stream()
        code: object = None
        with (
            chdir(place),
            patch.dict(os.environ, colours | {"HOME": str(place)}),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                self.command.main(list(arguments), prog_name="pipeline")
            except SystemExit as leaving:
                code = leaving.code
        gc.unfreeze()  # a run hides what is imported from the garbage collector
        return Said(code=code or 0, stdout=out.content(), stderr=err.content())

    def ask(self, question: Question) -> bytes:
        """Ask, and write down all that came back."""
        home, saved = self._folder / question.home, self._folder / "saved"
        if question.is_changing:
            shutil.copytree(home, saved)
        said = self.call(*question.arguments, home=question.home, stdout=question.stdout)
        parts = {"stdout": said.stdout, "stderr": said.stderr} | _read_files(home / OUT)
        shutil.rmtree(home if question.is_changing else home / OUT)
        if question.is_changing:
            saved.rename(home)
        lines = [f"$ pipeline {' '.join(question.arguments)}\nexit {said.code}\n"]
        for name, content in parts.items():
            text = self._readable(content)
            if question.is_timed and name != "stderr":
                text = _without_figures(text)
            lines.append(f"---- {name}\n{text}")
        return "".join(lines).encode()

    def _readable(self, content: bytes) -> str:
        text = content.decode("utf-8", "backslashreplace")
        for path, word in self._places.items():
            text = text.replace(path, word)
        lines = "\n".join(_shortened(line) for line in text.split("\n"))
        return lines if lines.endswith("\n") or not lines else f"{lines}\n(no end of line)\n"


def _read_files(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.name: _read_file(file) for file in files}


def _read_file(file: Path) -> bytes:
    if file.suffix != ".parquet":
        return file.read_bytes()
    table = parquet.read_table(file)
    return "\n".join(map(str, [table.schema, *table.to_pylist(), ""])).encode()


def _shortened(line: str) -> str:
    if len(line) <= MOST_CHARACTERS:
        return line
    digest = hashlib.sha256(line.encode("utf-8", "backslashreplace")).hexdigest()
    return f"({len(line)} characters, {digest})"


def _without_figures(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{32,}\b", "#", text)
    return re.sub(r"(?<!\w)[0-9]+(\.[0-9]+)?", "#", text)


# ---- Recording and comparing ----


def answers(only: str) -> Iterator[tuple[str, bytes]]:
    """Ask all questions whose names match, in the order of their names."""
    with TemporaryDirectory(prefix="answers-") as folder:
        place = Path(folder).resolve()
        _make_homes(place)
        _settle_in()
        asker = Asker(place)
        asker.call("db", "prune", "--keep", "60d", "--force", home="full")
        asker.call("collect", "--slot", "always", home="served")
        schemas = asker.call("schema", home="empty").stdout.decode().split()
        asked = [*_reports(), *_drawn(), *_audits(), *_exports(), *_others(), *_collects()]
        asked += [*_schemas(schemas), *_helps(asker.command)]
        for question in sorted(asked, key=lambda question: question.name):
            if fnmatch(question.name, only):
                yield question.name, asker.ask(question)


def _recorded(folder: Path, only: str) -> dict[str, Path]:
    return {file.stem: file for file in folder.glob("*.txt") if fnmatch(file.stem, only)}


def record(folder: Path, only: str) -> int:
    """Write each answer to a file in *folder*; those that were there and match are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in _recorded(folder, only).values():
        file.unlink()
    n = 0
    for name, answer in answers(only):
        (folder / f"{name}.txt").write_bytes(answer)
        n += 1
    print(f"{n} answers recorded.")
    return 0


def compare(folder: Path, only: str) -> int:
    """Print how the answers of today differ from those in *folder*; 1 if any does."""
    before = _recorded(folder, only)
    n = changed = 0
    for name, answer in answers(only):
        n += 1
        file = before.pop(name, None)
        known = b"" if file is None else file.read_bytes()
        if answer != known:
            changed += 1
            sys.stdout.writelines(_difference(name, known, answer))
    for name in before:
        print(f"{name}: not asked any more")
    print(f"{n} answers, {changed} changed, {len(before)} gone.")
    return int(bool(changed or before))


def _difference(name: str, known: bytes, answer: bytes) -> Iterator[str]:
    old, new = (each.decode().split("\n") for each in (known, answer))
    for line in unified_diff(old, new, f"{name} (recorded)", f"{name} (now)", lineterm=""):
        yield f"{line}\n"


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Record the answers of every command, or compare.")
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="such as 'report.runs.*'")
    options = parser.parse_args()
    do = record if options.what == "record" else compare
    return do(options.folder.absolute(), options.only)


if __name__ == "__main__":
    sys.exit(main())
