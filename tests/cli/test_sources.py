"""`pipeline sources` and `sources release`: what is configured, and what may be asked again."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import Session

from pipeline.pacing import Pace
from pipeline.store.permissions import find_pace, save_failures
from tests.cli.conftest import Invoke
from tests.cli.test_plan import configure, forbid, key_of

UNTIL = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_is_configured_is_listed(invoke: Invoke) -> None:
    """The shipped file: five that are asked and many that wait to be switched on."""
    listed = invoke("sources")

    rows = [line.split() for line in listed.stdout.splitlines()[2:]]
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert [row[2] for row in rows] == ["yes"] * 5 + ["no"] * (len(rows) - 5)
    assert len(rows) > 16
    assert rows[0] == ["sandbox_anu", "sandbox.anu_legacy", "yes", "7", "35", "-", "-"]


def test_a_list_for_programs(home: Path, invoke: Invoke, session: Session) -> None:
    """A stable, documented shape; the embargo with its reason."""
    configure(home)
    source = {"source": "anu", "kind": "anu_legacy", "is_enabled": True, "batches": 3, "numbers": 9}

    free = json.loads(invoke("sources", "--format", "json").stdout)
    forbid(session, key_of(home), UNTIL)
    forbidden = json.loads(invoke("sources", "--format", "json").stdout)

    assert free == {
        "schema": "pipeline.sources/1",
        "sources": [source | {"not_before": None, "why": None}],
    }
    assert forbidden["sources"] == [
        source | {"not_before": "2999-01-02T03:04:05.000000Z", "why": "Retry-After: 60"}
    ]


def test_an_embargo_stands_beside_its_source(home: Path, invoke: Invoke, session: Session) -> None:
    """Until when and why; one that is over is not news."""
    configure(home)
    forbid(session, key_of(home), datetime.now(UTC) - timedelta(seconds=1), "over")
    assert "over" not in invoke("sources").stdout

    forbid(session, key_of(home), UNTIL)

    (row,) = invoke("sources").stdout.splitlines()[2:]
    assert row.endswith("2999-01-02 03:04:05Z  Retry-After: 60")


def test_listing_makes_no_database(home: Path, invoke: Invoke) -> None:
    """Whoever only looks leaves nothing behind."""
    invoke("sources")

    assert list(home.iterdir()) == []


def test_release_lifts_the_embargo_and_forgets_the_failures(
    home: Path, invoke: Invoke, session: Session
) -> None:
    """It says what it lifted: somebody may wish they had not."""
    configure(home)
    key = key_of(home)
    save_failures(session, upstream=key, failures=5)
    forbid(session, key, UNTIL)

    lifted = invoke("sources", "release", "anu")
    again = invoke("sources", "release", "anu")

    assert (lifted.exit_code, lifted.stdout) == (
        0,
        (
            "anu may be asked again; it was not to be before 2999-01-02 03:04:05Z:\n"
            "  Retry-After: 60\n"
        ),
    )
    assert (again.exit_code, again.stdout) == (
        0,
        (
            "anu was under no embargo; its pace and its failures are forgotten,\n"
            "what is spent of its quotas is not.\n"
        ),
    )
    assert find_pace(session, upstream=key) == Pace()


def test_release_of_an_unknown_source_is_a_wrong_command_line(home: Path, invoke: Invoke) -> None:
    """A name that is misspelt, or not enabled."""
    configure(home, more="enabled = false")

    for name in ("anu", "\x1b[2Jdice"):
        refused = invoke("sources", "release", name)
        assert refused.exit_code == 2
        assert "is no enabled source; `pipeline sources` lists them" in refused.stderr
        assert "\x1b" not in refused.stderr


def test_a_source_that_cannot_serve_is_a_configuration_error(home: Path, invoke: Invoke) -> None:
    """The list says so as the run would."""
    configure(home, batches="[1025]")

    refused = invoke("sources")

    assert refused.exit_code == 78
    assert "sources.anu: a batch of 1025 is more than the 1024" in refused.stderr
