"""A database for the tests of the reports."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.store.db import open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database."""
    return tmp_path / "pipeline.db"


@pytest.fixture
def session(path: Path) -> Iterator[Session]:
    """Open it, to write and to ask within one transaction."""
    url = f"sqlite:///{path}"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        yield session
