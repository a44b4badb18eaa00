"""The wheel works away from the checkout: migrations and the default configuration come along."""

import os
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.store.schema import NEWEST

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it, as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(folder)], cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked program in an empty folder and an empty home."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIPELINE", "XDG"))
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environ, "HOME": str(folder), "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_a_run_needs_nothing_but_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    """Who installs it with pip has no checkout beside."""
    done = run(unpacked, tmp_path, "-m", "pipeline", "collect", "--config", "builtin")

    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / ".local/share/pipeline/pipeline.db").is_file()


def test_an_old_database_is_migrated_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    """The migrations are data files, and such are easily left behind."""
    database = tmp_path / "old.db"
    with closing(sqlite3.connect(database)) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    code = (
        "import pipeline, sys; from pipeline.store.migrating import migrate;"
        "print(migrate(sys.argv[1], busy_seconds=1).after, pipeline.__file__)"
    )

    revision, file = run(unpacked, tmp_path, "-c", code, f"sqlite:///{database}").stdout.split()

    assert revision == NEWEST
    assert Path(file).is_relative_to(unpacked)


def test_only_the_program_is_in_the_wheel(unpacked: Path) -> None:
    """Tests and tools of ours have no business on a user's machine."""
    shipped = {path.name for path in unpacked.iterdir()}

    assert {name for name in shipped if not name.endswith(".dist-info")} == {"pipeline"}


def test_the_schemas_are_in_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    """They are data files as well."""
    names = run(unpacked, tmp_path, "-m", "pipeline", "schema").stdout.split()

    assert "pipeline.run/1" in names
