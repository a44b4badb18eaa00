"""The views, as people see them: with the sqlite3 shell."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import ErrorName
from pipeline.store.db import Store, open_store
from pipeline.store.migrating import connect_to_migrate
from pipeline.store.schema import SchemaState, schema_state
from pipeline.store.views import VIEWS
from tests.store.histories import record_history, tamper

SHELL = shutil.which("sqlite3")

pytestmark = pytest.mark.skipif(SHELL is None, reason="there is no sqlite3 shell here")


@pytest.fixture
def history(store: Store, path: Path) -> Path:
    """Record three runs with all that can happen, and one that goes on."""
    record_history(store)
    return path


def ask(path: Path, query: str) -> list[str]:
    """Type *query* into the shell."""
    ran = subprocess.run(
        [SHELL or "", "-readonly", str(path), query], check=True, capture_output=True, text=True
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_a_run_is_one_row(history: Path) -> None:
    """Under the names that reports and exports have."""
    query = "SELECT run_id, status, clock_us, ordered, collected, numbers FROM run_list"

    assert ask(history, f"{query} ORDER BY run_id")[0] == "1|partial|1000000|5|2|6"


def test_a_batch_has_its_name_and_verdict(history: Path) -> None:
    """``w0`` is what the logs say."""
    query = "SELECT batch, source, verdict, sum, error FROM batch_list WHERE run_id = 1"

    assert ask(history, query) == [
        "w0|dice|collected|18|",
        "w1|dice|collected|18|",
        "w2|dice|failed||http_5xx",
        "w3|coins|failed||http_5xx",
        "w4|coins|deferred||http_5xx",
    ]


def test_a_failed_attempt_says_whose_fault_it_is(history: Path) -> None:
    """And those that went well are not there."""
    names = "attempt_id, fetch, attempt_number, error, whose, http_status"
    query = f"SELECT {names} FROM failed_attempts WHERE run_id = 1"

    assert ask(history, query) == ["2|1|1|http_5xx|upstream|503", "4|2|1|http_5xx|upstream|503"]


@pytest.mark.parametrize("error", ErrorName)
def test_the_view_knows_the_vocabulary(history: Path, error: ErrorName) -> None:
    """SQL cannot ask Python whose fault an error is, so it is written twice."""
    tamper(history, f"UPDATE attempts SET error = '{error}' WHERE id = 2")

    with closing(sqlite3.connect(history)) as raw:
        (whose,) = raw.execute("SELECT whose FROM failed_attempts WHERE attempt_id = 2").fetchone()

    assert whose == ErrorName(error).whose


def test_a_day_of_a_source_is_one_row(history: Path) -> None:
    """The first thing anybody wants to see drawn."""
    query = "SELECT * FROM source_days WHERE source = 'dice' ORDER BY day LIMIT 1"

    assert ask(history, query) == ["2026-03-01|dice|0|1|3|2|0.6667|6|4|2"]


def test_a_view_does_not_make_a_database_another(url: str, history: Path) -> None:
    """Users add views of their own."""
    tamper(history, "CREATE VIEW mine AS SELECT 1")

    with connect_to_migrate(url) as connection:
        state = schema_state(connection)

    assert state is SchemaState.CURRENT
    open_store(url, busy_seconds=1, for_writing=True).close()


def test_every_view_is_there(history: Path) -> None:
    """In a new database as in an upgraded one (``test_migrations`` holds the two together)."""
    query = "SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name"

    assert ask(history, query) == sorted(VIEWS)
