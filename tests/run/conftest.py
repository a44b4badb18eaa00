"""A store that processes share: a file, or a database of a server. What holds, holds on both."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.store.db import Store, open_store
from tests.servers import LIKE_NEW, Server

KINDS = ("sqlite", "postgresql")


@pytest.fixture(params=KINDS)
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Name a store as the configuration does."""
    if request.param == "sqlite":
        with nullcontext(f"sqlite:///{tmp_path}/pipeline.db") as url:
            yield url
    else:
        server: Server = request.getfixturevalue("postgres")
        with server.database(like=LIKE_NEW) as url:
            yield url


@pytest.fixture
def shared_stores(shared_url: str) -> Iterator[tuple[Store, Store]]:
    """Open it twice, as two processes do."""
    with (
        open_store(shared_url, busy_seconds=10, for_writing=True) as one,
        open_store(shared_url, busy_seconds=10, for_writing=True) as other,
    ):
        yield one, other


@pytest.fixture
def server_stores(postgres: Server) -> Iterator[tuple[Store, Store]]:
    """Open a store of a server twice, as two machines do."""
    with (
        postgres.database(like=LIKE_NEW) as url,
        open_store(url, busy_seconds=10, for_writing=True) as one,
        open_store(url, busy_seconds=10, for_writing=True) as other,
    ):
        yield one, other
