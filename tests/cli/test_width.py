"""On a terminal every answer fits, and no word is broken in two."""

import os
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import typer.main

from pipeline.cli.commands import make_app
from tests.store.variety import CONFIG, make_variety

WEEK = ("--since", "2026-03-01", "--until", "2026-03-09")
REPORTS = ("batches", "errors", "numbers", "runs", "slots", "sources", "timings")
ANSWERS: dict[str, list[tuple[str, ...]]] = {
    "report": [
        (),
        ("-n", "100"),
        *((what, *WEEK) for what in REPORTS if what not in {"runs", "batches"}),
        *((what, "-n", "100") for what in ("runs", "batches")),
        *(("--run", run) for run in ("5", "14", "47")),
        *(("batches", "--run", run) for run in ("14", "47")),
    ],
    "audit": [WEEK, (*WEEK, "-s", "org")],
    "audit show": [("12",), ("120",), ("319",)],
    "audit verify": [("--all",)],
    "audit replay": [WEEK],
    "plan": [()],
    "simulate": [("--retries", "0", *WEEK), ("--attempt-seconds", "5", *WEEK)],
    "sources": [()],
    "schedule show": [()],
    "db stats": [(), ("--exact",)],
    "db check": [()],
    "db prune": [("--keep", "9999d", "--dry-run")],
    "status": [()],
    "doctor": [()],
}
# What they write is a file, a copy, or for a program; or they go on until they are stopped, and
# have tests of their own.
OTHERS = {
    *("collect", "top", "sandbox", "schedule run", "worker"),
    *("init", "export", "schema", "schedule cron", "schedule systemd"),
    *("audit har", "audit dossier", "db backup", "db datasette", "db migrate"),
    *("sources check", "sources release"),
}
DRAWING = re.compile(r"[\u2500-\u259f·]+|[.a-z]{20,}")


class Terminal(StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a configuration and a store in which everything happened."""
    folder = tmp_path_factory.mktemp("home")
    make_variety(folder / "pipeline.db")
    file = folder / "config.toml"
    file.write_text(f"{CONFIG}[store]\nurl = 'pipeline.db'\n")
    return file


def answer(words: tuple[str, ...], stdout: StringIO) -> str:
    """Call a command, and give what it said to people."""
    with redirect_stdout(stdout), redirect_stderr(StringIO()), pytest.raises(SystemExit):
        typer.main.get_command(make_app()).main(list(words), prog_name="pipeline")
    return re.sub(r"\x1b\[[0-9;]*m", "", stdout.getvalue())


def _leaves(command: object, *words: str) -> Iterator[str]:
    """List all commands that answer something."""
    below = getattr(command, "commands", {})
    if words and (not below or getattr(command, "invoke_without_command", False)):
        yield " ".join(words)
    for name, each in below.items():
        yield from _leaves(each, *words, name)


def test_every_command_is_looked_at() -> None:
    """A new one too."""
    assert {*_leaves(typer.main.get_command(make_app()))} <= {*ANSWERS} | OTHERS


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(
    "words",
    [(*name.split(), *rest) for name, each in ANSWERS.items() for rest in each],
    ids=" ".join,
)
def test_an_answer_fits_and_keeps_its_words(
    filled: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], width: int
) -> None:
    """A line is wider only if it is one word, such as an address or a hash; all words are there."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("RPC_KEY", "x" * 36)
    monkeypatch.setenv("XDG_STATE_HOME", str(filled.parent))
    asked = (*words, "-c", str(filled))

    shown, piped = answer(asked, Terminal()), answer(asked, StringIO())

    wide = [line for line in shown.splitlines() if len(line) > width and " " in line.strip()]
    assert wide == []
    assert shown
    # The head of a column that says nothing in any row is left out with it.
    said = re.sub(r"(?m)^.*\n(?=\u2500)", "", piped).split()
    assert [word for word in said if word not in shown and not DRAWING.search(word)] == []


@pytest.mark.parametrize("name", [*ANSWERS, *sorted(OTHERS)])
def test_help_fits(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In the terminal that most have."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))

    shown = answer((*name.split(), "--help"), Terminal())

    assert max(map(len, shown.splitlines())) <= 80
