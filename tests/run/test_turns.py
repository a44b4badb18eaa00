"""The turn of a configuration, as a locked file and as a lease: one contract, held by both."""

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Timer

import pytest
from sqlalchemy import func, update

from pipeline.errors import LockHeld
from pipeline.run.turns import Turn, turn_of
from pipeline.settings import Settings, load_settings
from pipeline.store.db import Store
from pipeline.store.tables import LEASES

PATIENCE_SECONDS = 60.0


@pytest.fixture
def settings(shared_url: str, tmp_path: Path) -> Settings:
    """Configure one source."""
    config = tmp_path / "config.toml"
    config.write_text(
        f"[store]\nurl = '{shared_url}'\n[sources.dice]\nkind = 'randomnumberapi'\nbatches = [2]\n"
    )
    return load_settings(config, {})


def turn(
    settings: Settings, store: Store, folder: Path, *, patience_seconds: float = 0.0
) -> AbstractContextManager[Turn]:
    """Take the turn."""
    return turn_of(settings, store, folder, patience_seconds=patience_seconds)


def test_it_is_one_runs_turn_at_a_time(
    settings: Settings, shared_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """The next one learns who has it; when that has ended it is free."""
    one, other = shared_stores
    with (
        turn(settings, one, tmp_path),
        pytest.raises(LockHeld, match=r"another run of this configuration is going on \(.*since"),
        turn(settings, other, tmp_path),
    ):
        pass

    with turn(settings, other, tmp_path):
        pass


def test_who_is_patient_gets_it(
    settings: Settings, shared_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """``--overlap wait``."""
    one, other = shared_stores
    first = turn(settings, one, tmp_path)
    first.__enter__()
    ending = Timer(0.2, lambda: first.__exit__(None, None, None))
    ending.start()

    with turn(settings, other, tmp_path, patience_seconds=PATIENCE_SECONDS):
        ending.join()


def test_another_configuration_has_a_turn_of_its_own(
    settings: Settings, shared_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """Only two runs of the same one would collide."""
    one, other = shared_stores
    elsewhere = replace(settings, path=tmp_path / "other.toml")

    with turn(settings, one, tmp_path), turn(elsewhere, other, tmp_path):
        pass


def test_a_turn_ends_with_the_signs_of_life(
    server_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """A run that died keeps nobody out for long; one that is heard of keeps its turn."""
    one, other = server_stores
    settings = Settings(sources={})
    with turn(settings, one, tmp_path) as had:
        run_out(one)
        with one.write() as session:
            had.keep(session)
        with pytest.raises(LockHeld), turn(settings, other, tmp_path):
            pass
        run_out(one)

        with turn(settings, other, tmp_path):
            pass


def run_out(store: Store) -> None:
    """Let all leases be over, as if so much time had passed."""
    with store.write() as session:
        over = func.clock_timestamp() - timedelta(seconds=1)
        session.connection().execute(update(LEASES).values(until=over))
