"""The answers that ``tests.answers`` records stay the same, and a change of one is seen."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ErrorName
from pipeline.models import Fate, FindingKind, RunStatus, Verdict

ONLY = "[ar]*.all.json"  # of the reports and the audit


def run(what: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Call the tool in a process of its own, because it stops the clock there."""
    command = [sys.executable, "-m", "tests.answers", what, str(folder), "--only", ONLY]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a few answers."""
    folder = tmp_path_factory.mktemp("answers")
    assert run("record", folder).returncode == 0
    return folder


def test_the_same_code_answers_the_same(recorded: Path) -> None:
    """Whatever the time is, and whatever order a set has in this process."""
    compared = run("compare", recorded)

    assert compared.stdout == f"{len(list(recorded.iterdir()))} answers, 0 changed, 0 gone.\n"
    assert (compared.stderr, compared.returncode) == ("", 0)


# They tell of what stands now: limits kept by a run, an embargo, a process that is there.
OF_TODAY = {FindingKind.IMPOSSIBLE, FindingKind.SHUT, FindingKind.OVERDUE}
# They take more numbers than an answer should list.
TOO_LONG = {FindingKind.REPETITION, FindingKind.PROPORTION, FindingKind.ODD_BLOCKS}


def test_everything_happens_in_the_store(recorded: Path) -> None:
    """What does not happen there is not compared."""
    text = "".join(file.read_text() for file in recorded.iterdir())

    for words in (ErrorName, FindingKind, Fate, Verdict, RunStatus):
        missing = [word for word in words if f'"{word}"' not in text]
        assert set(missing) <= OF_TODAY | TOO_LONG


def test_a_change_is_shown(recorded: Path) -> None:
    """Changed, new and gone: each is named, and the exit code tells."""
    changed, new, *_ = sorted(recorded.iterdir())
    changed.write_text(changed.read_text().replace("exit 0", "exit 9"))
    new.unlink()
    (recorded / "report.gone.all.json.txt").touch()

    compared = run("compare", recorded)

    assert "-exit 9\n+exit 0\n" in compared.stdout
    assert f"+++ {new.stem} (now)" in compared.stdout
    assert "report.gone.all.json: not asked any more" in compared.stdout
    assert compared.stdout.endswith(" 2 changed, 1 gone.\n")
    assert compared.returncode == 1
