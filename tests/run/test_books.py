"""What a worker does with results that the server does not take."""

from pathlib import Path

from pipeline.run.books import Books
from pipeline.settings import StoreSettings
from pipeline.store.db import open_store
from tests.store.makers import make_batch, make_collected


def test_the_same_batch_may_be_set_aside_twice(tmp_path: Path) -> None:
    """By two workers of a machine, or by one that lost the server twice: no file is in the way."""
    settings = StoreSettings(url=f"sqlite:///{tmp_path / 'p.db'}")
    outcomes = [make_collected(make_batch(0))]

    with open_store(settings.url, busy_seconds=1, for_writing=True) as store:
        books = Books(settings=settings, store=store, state_folder=tmp_path, tell=lambda *_: None)
        files = {books.set_aside("c0ffee", [], outcomes) for _ in range(2)}

    assert len(files) == 2
    assert all(file.is_file() for file in files)
