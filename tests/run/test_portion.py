"""What a worker does with results that the server does not take."""

from pathlib import Path

import anyio

from pipeline.run.portion import Hands
from pipeline.settings import Settings, StoreSettings
from pipeline.store.db import open_store
from tests.store.makers import make_batch, make_collected


def test_the_same_batch_may_be_set_aside_twice(tmp_path: Path) -> None:
    """By two workers of a machine, or by one that lost the server twice: no file is in the way."""
    settings = Settings(store=StoreSettings(url=f"sqlite:///{tmp_path / 'p.db'}"), sources={})
    outcomes = [make_collected(make_batch(0))]

    files: set[Path] = set()

    async def set_aside_twice() -> None:
        with open_store(settings.store.url, busy_seconds=1, for_writing=True) as store:
            async with anyio.create_task_group() as tasks:
                hands = Hands(
                    settings=settings,
                    store=store,
                    state_folder=tmp_path,
                    is_to_go=lambda: False,
                    say=lambda _: None,
                    tasks=tasks,
                )
                files.update(hands._set_aside("c0ffee", [], outcomes) for _ in range(2))

    anyio.run(set_aside_twice)

    assert len(files) == 2
    assert all(file.is_file() for file in files)
