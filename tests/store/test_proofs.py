"""What sources signed: kept with its attempt, sealed, set aside, and pruned with its run."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.models import Attempt
from pipeline.store.db import Store
from pipeline.store.integrity.pruning import prune
from pipeline.store.integrity.verify import verify
from pipeline.store.proofs import count_proofs, count_unsigned, proof_of, read_proved
from pipeline.store.queries import find_attempt
from tests.store.histories import tamper
from tests.store.makers import PROOF, at, make_attempt, make_batch, make_signed, record_run

DAY = 24 * 60  # minutes


def record(store: Store, *attempts: Attempt, started: int = 0) -> int:
    """Record a run with a batch for each attempt."""
    with store.write() as session:
        return record_run(
            session,
            [make_batch(number) for number in range(len(attempts))],
            attempts=[replace(each, began_at=at(started)) for each in attempts],
            started_at=at(started),
        )


def test_each_attempt_has_its_own(store: Store) -> None:
    """With the batches that it is about; others are unsigned."""
    run_id = record(store, make_signed(0), make_attempt(1), make_signed(2))

    with store.read() as session:
        first = proof_of(session, (run_id, 0, 1))
        none = proof_of(session, (run_id, 1, 1))
        case = find_attempt(session, attempt_id=3)
        counts = count_proofs(session), count_unsigned(session)
    found = list(read_proved(store.read))

    assert first == replace(PROOF, serial=1)
    assert none is None
    assert case is not None
    assert case.record.attempt.proof == replace(PROOF, serial=3)
    assert counts == (2, 1)
    assert [each.proof.serial for each in found] == [1, 3]
    assert [each.fetch.batches for each in found] == [(make_batch(0),), (make_batch(2),)]
    assert [each.fetch.run for each in found] == [run_id, run_id]
    assert all(len(each.digests) == 1 for each in found)


def test_many_are_read_some_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of runs and fetches."""
    monkeypatch.setattr("pipeline.store.proofs.PROOFS_AT_ONCE", 2)
    for started in (0, 60):
        record(store, make_signed(0), make_signed(1), make_signed(2), started=started)

    found = [(each.fetch.run, each.proof.serial) for each in read_proved(store.read)]

    assert found == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_a_changed_or_missing_proof_is_found(store: Store, path: Path) -> None:
    """The seal of a run is over its proofs, where it has any."""
    record(store, make_signed(0))
    assert verify(store).problems == ()

    tamper(path, "UPDATE proofs SET serial = 7")
    assert verify(store).problems
    tamper(path, "UPDATE proofs SET serial = 1")
    assert verify(store).problems == ()
    tamper(path, "DELETE FROM proofs")
    assert verify(store).problems


def test_proofs_go_with_their_run(store: Store) -> None:
    """And the chain still verifies."""
    record(store, make_signed(0))
    record(store, make_signed(0), started=2 * DAY)

    prune(store, before=at(DAY), now=at(99 * DAY))

    assert [each.fetch.run for each in read_proved(store.read)] == [2]
    assert verify(store).problems == ()
