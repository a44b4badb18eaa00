"""One attempt, read from a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.audit.attempt import find_case
from pipeline.errors import ErrorName, Phase, UsageError
from pipeline.store.db import open_store
from tests.store.makers import (
    at,
    make_attempt,
    make_batch,
    make_evidence,
    make_failed_attempt,
    record_run,
)

EVIDENCE = make_evidence(b"gone fishing")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Open a database with three failures and one success in it."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        record_run(
            session,
            [make_batch(0), make_batch(1, "coin")],
            attempts=[
                make_failed_attempt(0, 1, began_at=at(0), evidence=EVIDENCE),
                make_failed_attempt(0, 2, began_at=at(5), evidence=EVIDENCE),
                make_failed_attempt(1, 1, "coin", error=ErrorName.DNS, phase=Phase.DNS),
                make_attempt(1, 2, "coin"),
            ],
        )
        yield session


def test_an_attempt_comes_with_the_answer_that_it_got(session: Session) -> None:
    """However often the same answer came, it is kept once and found from each of them."""
    for attempt_id in (1, 2):
        evidence = find_case(session, attempt_id).record.attempt.evidence

        assert evidence is not None
        assert evidence.body == EVIDENCE.body


def test_an_attempt_names_the_batches_that_it_decided(session: Session) -> None:
    """The second try of fetch 1 is nobody's, the first one of fetch 0 was w0's."""
    assert [batch.name for batch in find_case(session, 1).batches] == ["w0"]
    assert find_case(session, 4).batches == ()


@pytest.mark.parametrize("number", [0, -1, 99, 2**63 - 1, 2**63, -(2**63) - 1, 10**40])
def test_an_attempt_that_is_not_there_is_a_mistake_of_the_caller(
    session: Session, number: int
) -> None:
    """Also one that no database could hold."""
    with pytest.raises(UsageError, match=f"attempt {number}: there is none"):
        find_case(session, number)
