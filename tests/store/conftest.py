"""A real database for each test, empty and its own: an SQLite file, and one on a PostgreSQL server.

A test that takes a ``url`` or a ``store`` runs on both, unless it takes the ``path`` of the file as
well, or is marked ``sqlite`` because it speaks of SQLite in another way.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.db import Store, open_store
from tests.servers import LIKE_NEW, Server

KINDS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every kind of database that it can do with."""
    if "kind" in metafunc.fixturenames:
        is_of_sqlite = metafunc.definition.get_closest_marker("sqlite") is not None
        is_of_sqlite |= "path" in metafunc.fixturenames
        metafunc.parametrize("kind", KINDS[:1] if is_of_sqlite else KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database that is not there yet."""
    return tmp_path / "pipeline.db"


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Name the database as the configuration does; a file is not there yet, a server's is new."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path}/pipeline.db"
    else:
        server: Server = request.getfixturevalue("postgres")
        with server.database(like=LIKE_NEW) as url:
            yield url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open it for writing, with a short patience."""
    with open_store(url, busy_seconds=0.1, for_writing=True) as store:
        yield store


@pytest.fixture
def server_store(postgres: Server) -> Iterator[Store]:
    """Open a store of a server for writing."""
    with (
        postgres.database(like=LIKE_NEW) as url,
        open_store(url, busy_seconds=10, for_writing=True) as store,
    ):
        yield store
