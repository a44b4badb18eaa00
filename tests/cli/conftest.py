"""A user's home for commands that are called in this process."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import Session
from typer.testing import CliRunner, Result

from pipeline.cli.commands import make_app
from pipeline.store.db import open_store

Invoke = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a home folder that holds nothing; the sandbox answers at once."""
    for variable in ("DATA", "CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{variable}_HOME", str(tmp_path / variable.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIPELINE_SANDBOX_LATENCY_SECONDS", "0")
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _configuration() -> dict[str, str]:
    """Ask for the sandbox, unless a test has written its own configuration: here is no terminal."""
    is_given = "PIPELINE_CONFIG" in os.environ or Path("config.toml").exists()
    return {} if is_given else {"PIPELINE_CONFIG": "builtin"}


@pytest.fixture
def invoke(home: Path) -> Iterator[Invoke]:
    """Call a command by its arguments."""
    del home
    app, runner = make_app(), CliRunner()
    yield lambda *arguments: runner.invoke(
        app, arguments, prog_name="pipeline", env=_configuration()
    )
    gc.unfreeze()  # a run hides what is imported from the garbage collector, here from all tests


@pytest.fixture
def database(home: Path) -> Path:
    """Name the database that the commands use."""
    return home / "data" / "pipeline" / "pipeline.db"


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    """Write into that database; what was written is on disk after ``session.commit()``."""
    url = f"sqlite:///{database}"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        yield session
