"""What is set aside comes back as it was, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.errors import StoreError
from pipeline.models import (
    Aspect,
    Attempt,
    BatchRecord,
    Measure,
    Outcome,
    Request,
    RunStatus,
    Verdict,
)
from pipeline.store import plain
from pipeline.store.db import Store, open_store
from pipeline.store.integrity.verify import verify
from pipeline.store.late import find_late
from pipeline.store.measures import measures_of
from pipeline.store.proofs import proof_of
from pipeline.store.queries import attempts_of_run, batches_of_run, get_run
from pipeline.store.spool import set_aside
from pipeline.store.tables import LATE_ATTEMPTS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.makers import (
    HOST,
    PROOF,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
    make_lost,
)

BATCHES = [make_batch(number) for number in range(4)]
REQUEST = Request(method="GET", url="http://a/?n=3", headers=(("A", "b"),), body=b"\xff\x00")
ATTEMPTS = [
    replace(
        make_attempt(0),
        evidence=make_evidence(b"[6, 6, 6]"),
        contract=((Aspect.KEYS, "a, b"),),
        measures=(Measure(name="chsh", value=2.5, at_least=2.0),),
        proof=PROOF,
    ),
    replace(make_failed_attempt(1, evidence=make_evidence(b"\x00\xff")), request=REQUEST),
    replace(make_failed_attempt(2), detail="half a \ud800 pair"),
]
OUTCOMES: list[Outcome] = [
    make_collected(BATCHES[0]),
    make_lost(BATCHES[1]),
    make_lost(BATCHES[2], Verdict.DEFERRED),
]


def start(store: Store) -> tuple[int, str]:
    """Begin a run; give its number and its uid."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=BATCHES)
        return run_id, get_run(session, run_id=run_id).uid


def reopen(url: str) -> list[str]:
    """Open the store as a command does that writes; give what is to be told."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        return store.notes


def content_of(store: Store, run_id: int) -> tuple[list[BatchRecord], list[Attempt]]:
    """Read what is stored of a run, but for the numbers of rows."""
    with store.read() as session:
        batches = [
            replace(batch, run_id=0)
            for batch in batches_of_run(session, run_id=run_id, with_numbers=True)
        ]
        attempts = [record.attempt for record in attempts_of_run(session, run_id=run_id)]
    return batches, attempts


@pytest.mark.parametrize("keep_numbers", [True, False])
def test_what_was_set_aside_is_stored_as_if_it_had_been_at_once(
    store: Store, url: str, path: Path, *, keep_numbers: bool
) -> None:
    """Numbers, failures, evidence, requests; and no number where none is to be kept."""
    (one, _), (other, uid) = start(store), start(store)
    with store.write() as session:
        save_results(
            session, run_id=one, attempts=ATTEMPTS, outcomes=OUTCOMES, keep_numbers=keep_numbers
        )
    file = path.with_name(f"{path.name}.spool-{uid}")
    set_aside(file, uid=uid, attempts=ATTEMPTS, outcomes=OUTCOMES, keep_numbers=keep_numbers)

    notes = reopen(url)

    assert notes == [
        f"run {other}: 1 collected batches that were set aside in {file} are stored now"
    ]
    assert not file.exists()
    assert content_of(store, other) == content_of(store, one)
    with store.read() as session:
        kept = [measures_of(session, (run, 0, 1)) for run in (one, other)]
        proofs = [proof_of(session, (run, 0, 1)) for run in (one, other)]
    assert kept == [ATTEMPTS[0].measures] * 2
    assert proofs == [PROOF if keep_numbers else None] * 2


def test_where_no_numbers_are_kept_none_are_set_aside(store: Store, path: Path) -> None:
    """Not for a moment."""
    _, uid = start(store)
    file = path.with_name(f"{path.name}.spool-{uid}")

    set_aside(file, uid=uid, attempts=ATTEMPTS, outcomes=OUTCOMES, keep_numbers=False)

    held = file.read_text("ascii")
    assert '"numbers": null' in held
    assert '"numbers": {' not in held
    assert held.count('"body_bytes": 9') == 0  # the answer that was accepted


def test_what_is_stored_already_is_left_alone(store: Store, url: str, path: Path) -> None:
    """A process died between the two steps of another one, and some batches have come since."""
    run_id, uid = start(store)
    with store.write() as session:
        save_results(
            session, run_id=run_id, attempts=ATTEMPTS[:1], outcomes=OUTCOMES[:1], keep_numbers=True
        )
    before = content_of(store, run_id)
    set_aside(
        path.with_name(f"{path.name}.spool-{uid}"),
        uid=uid,
        attempts=ATTEMPTS,
        outcomes=OUTCOMES,
        keep_numbers=True,
    )

    reopen(url)

    batches, attempts = content_of(store, run_id)
    assert (batches[0], attempts[0]) == (before[0][0], before[1][0])
    assert (len(batches), len(attempts)) == (4, 3)


def test_what_another_process_has_asked_for_since_is_numbered_on(
    store: Store, url: str, path: Path
) -> None:
    """Of a run that workers share; its first outcome stays, and each attempt is on the books."""
    run_id, uid = start(store)
    theirs = [make_attempt(0), make_failed_attempt(1)]
    with store.write() as session:
        save_results(
            session,
            run_id=run_id,
            attempts=theirs,
            outcomes=[make_collected(BATCHES[0])],
            keep_numbers=True,
        )
    ours = [replace(each, began_at=at(9)) for each in (make_attempt(0), make_attempt(1))]
    outcomes = [make_collected(batch, [1, 2, 3]) for batch in BATCHES[:2]]
    set_aside(
        path.with_name(f"{path.name}.spool-{uid}-0"),
        uid=uid,
        attempts=ours,
        outcomes=outcomes,
        keep_numbers=True,
    )

    reopen(url)

    batches, attempts = content_of(store, run_id)
    assert [(each.fetch, each.number) for each in attempts] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [each.attempt for each in batches[:2]] == [1, 2]
    assert [each.sum for each in batches[:2]] == [18, 6]


def test_what_comes_from_elsewhere_is_told_and_kept(store: Store, url: str, path: Path) -> None:
    """The store is a backup of long ago."""
    start(store)
    file = path.with_name(f"{path.name}.spool-c0ffee")
    set_aside(file, uid="c0ffee", attempts=ATTEMPTS, outcomes=OUTCOMES, keep_numbers=True)
    content = file.read_bytes()

    [note] = reopen(url)

    assert note.startswith(f"{file} is kept, and nothing of it is stored: ")
    assert "does not hold" in note
    assert file.read_bytes() == content


@pytest.mark.parametrize("keep_numbers", [True, False])
def test_what_comes_too_late_is_kept_beside_the_run(
    store: Store, url: str, path: Path, *, keep_numbers: bool
) -> None:
    """Others ended the run and sealed it; all of it is kept, once, and one attempt was there."""
    run_id, uid = start(store)
    with store.write() as session:
        save_results(
            session,
            run_id=run_id,
            attempts=ATTEMPTS[2:],
            outcomes=OUTCOMES[2:],
            keep_numbers=keep_numbers,
        )
        finish_run(
            session, run_id=run_id, status=RunStatus.INTERRUPTED, ended_at=at(1), clock_us=None
        )
    before = content_of(store, run_id)
    file = path.with_name(f"{path.name}.spool-{uid}")
    set_aside(file, uid=uid, attempts=ATTEMPTS, outcomes=OUTCOMES, keep_numbers=keep_numbers)
    content = file.read_bytes()

    [note] = reopen(url)
    assert not file.exists()
    file.write_bytes(content)
    [again] = reopen(url)

    assert note.startswith(
        f"run {run_id} was ended by others before 2 attempts set aside in {file}"
    )
    assert again == f"run {run_id}: all that {file} holds was stored before"
    assert content_of(store, run_id) == before
    assert verify(store).problems == ()
    with store.read() as session:
        [late] = find_late(session)
        rows = session.connection().execute(select(LATE_ATTEMPTS)).all()
    kept = [plain.read(plain.write(row.facts)) for row in rows]
    expected = ATTEMPTS[:2] if keep_numbers else list(map(plain.without_numbers, ATTEMPTS[:2]))
    assert (late.run_id, late.attempts, late.collected, late.file) == (run_id, 2, 1, str(file))
    assert (late.host, late.pid) == (HOST, None)
    assert [plain.attempt(facts["attempt"]) for facts in kept] == expected
    [decided] = kept[0]["outcomes"]
    assert decided["sum"] == 18
    assert (decided["numbers"] is not None) is keep_numbers


def test_one_file_is_never_put_over_another(store: Store, path: Path) -> None:
    """It would be lost without a word."""
    _, uid = start(store)
    file = path.with_name(f"{path.name}.spool-{uid}")
    file.write_text("precious")

    with pytest.raises(StoreError, match="cannot be written: File exists"):
        set_aside(file, uid=uid, attempts=[], outcomes=OUTCOMES, keep_numbers=True)

    assert file.read_text() == "precious"
    assert list(path.parent.glob(".pipeline-*")) == []
