"""A real database for each test, empty and in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.db import Store, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database that is not there yet."""
    return tmp_path / "pipeline.db"


@pytest.fixture
def url(path: Path) -> str:
    """Name it as the configuration does."""
    return f"sqlite:///{path}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open it for writing, with a short patience."""
    with open_store(url, busy_seconds=0.1, for_writing=True) as store:
        yield store
