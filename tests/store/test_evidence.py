"""What was sent and what came back, as the store answers it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.models import Aspect, Attempt, Batch, Outcome, Request, Verdict
from pipeline.store.db import Store
from pipeline.store.evidence import stored_answers
from pipeline.store.queries import exchanges_of_run, find_attempt
from pipeline.store.window import Window
from pipeline.store.writes import order_batches
from tests.store.makers import (
    NOON,
    at,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
    record_results,
)

ASKED = Request(
    method="POST",
    url="https://example.org/v1?n=5",
    headers=(("Accept", "*/*"), ("x-api-key", "${KEY}")),
    body=b'{"n": 5}',
)
JSON = ((Aspect.CONTENT_TYPE, "application/json"),)
TEXT = ((Aspect.CONTENT_TYPE, "text/plain"),)


def record(
    session: Session,
    attempts: Sequence[Attempt],
    *,
    batches: Sequence[Batch] = (),
    fetch: int = 0,
    started_at: datetime = NOON,
) -> int:
    """Record a run whose batches, if it has any, are all served by the last attempt of a fetch."""
    deciding = [attempt for attempt in attempts if attempt.fetch == fetch]
    outcomes = (_outcome(batch, deciding[-1]) for batch in batches)
    return record_results(session, *outcomes, attempts=attempts, started_at=started_at)


def _outcome(batch: Batch, attempt: Attempt) -> Outcome:
    if attempt.error is None:
        return make_collected(batch, fetch=attempt.fetch, attempt=attempt.number)
    return Outcome(
        batch=batch,
        verdict=Verdict.FAILED,
        fetch=attempt.fetch,
        attempt=attempt.number,
        error=attempt.error,
    )


def schema_error(fetch: int = 0, body: bytes = b"[]") -> Attempt:
    """Get an answer that is not what was agreed upon."""
    return make_failed_attempt(fetch, error=ErrorName.SCHEMA, evidence=make_evidence(body))


def test_an_attempt_is_found_with_what_was_sent(store: Store) -> None:
    """As it was handed in, byte by byte; and None where nothing was."""
    with store.write() as session:
        record(session, [replace(make_attempt(), request=ASKED), make_attempt(1)])

        kept, none = (find_attempt(session, attempt_id=id_) for id_ in (1, 2))

    assert kept is not None
    assert kept.record.attempt.request == ASKED
    assert none is not None
    assert none.record.attempt.request is None


def test_an_attempt_is_found_with_all_tries_of_its_fetch(store: Store) -> None:
    """In order, itself included; not those of other fetches, nor of other runs."""
    tries = [make_failed_attempt(0, 1), make_failed_attempt(0, 2), make_attempt(0, 3)]
    with store.write() as session:
        record(session, [make_attempt()])
        record(session, [*tries, make_attempt(1)])

        case = find_attempt(session, attempt_id=3)

    assert case is not None
    assert [(each.id, each.attempt.number) for each in case.tries] == [(2, 1), (3, 2), (4, 3)]


def test_an_attempt_is_found_with_what_answers_looked_like_then(store: Store) -> None:
    """Not before and not after, and not those of another source."""
    made = [
        replace(make_attempt(0), contract=JSON),
        replace(make_attempt(1), contract=TEXT),
        replace(make_attempt(2, source="coin"), contract=JSON),
        replace(make_attempt(3), contract=TEXT),
    ]
    with store.write() as session:
        record(session, made)

        case = find_attempt(session, attempt_id=2)

    assert case is not None
    (span,) = case.contracts
    assert (span.source, span.aspect, span.value) == ("dice", Aspect.CONTENT_TYPE, "text/plain")
    assert (span.first_attempt, span.last_attempt) == (2, 4)


def test_without_an_answer_there_is_nothing_to_compare(store: Store) -> None:
    """What other answers looked like says nothing of one that never came."""
    made = [
        replace(make_attempt(0), contract=JSON),
        replace(make_failed_attempt(1), status=None),
        replace(make_attempt(2), contract=JSON),
    ]
    with store.write() as session:
        record(session, made)

        case = find_attempt(session, attempt_id=2)

    assert case is not None
    assert case.contracts == ()


def test_the_exchanges_of_a_run_come_with_both_sides(store: Store) -> None:
    """In the order in which they began, and none of another run."""
    evidence = make_evidence()
    made = [
        replace(make_failed_attempt(0, began_at=at(2), evidence=evidence), request=ASKED),
        make_attempt(1, began_at=at(1)),
    ]
    with store.write() as session:
        record(session, [make_attempt()])
        run_id = record(session, made)

        first, second = exchanges_of_run(session, run_id=run_id)

    assert (first.id, first.attempt) == (3, made[1])
    assert (second.id, second.attempt) == (2, made[0])


def test_answers_are_given_once_with_how_often_they_came(store: Store) -> None:
    """The newest attempt stands for all; an error of another name is another answer."""
    alike = [schema_error(fetch) for fetch in range(3)]
    other = replace(schema_error(3), error=ErrorName.COUNT)
    with store.write() as session:
        record(session, [*alike, other])

        answers = list(stored_answers(session))

    assert [(each.error, each.attempts, each.newest) for each in answers] == [
        (ErrorName.SCHEMA, 3, 3),
        (ErrorName.COUNT, 1, 4),
    ]
    assert answers[0].evidence == make_evidence(b"[]")


def test_an_answer_comes_with_the_batches_of_its_fetch(store: Store) -> None:
    """All of them and in order, however many batches the run has around them."""
    fetch = [make_batch(number, n=number) for number in range(10, 150)]
    with store.write() as session:
        run_id = record(session, [schema_error(10)], batches=fetch, fetch=10)
        order_batches(session, run_id=run_id, batches=[make_batch(9), make_batch(150)])

        (answer,) = stored_answers(session)

    assert answer.fetch is not None
    assert (answer.fetch.number, list(answer.fetch.batches)) == (10, fetch)


def test_an_answer_whose_batches_are_gone_has_no_fetch(store: Store) -> None:
    """Pruning leaves attempts that audits point to."""
    with store.write() as session:
        record(session, [schema_error()])

        (answer,) = stored_answers(session)

    assert answer.fetch is None


def test_accepted_answers_are_given_as_well(store: Store) -> None:
    """An adapter may have become too strict."""
    accepted = replace(make_attempt(), contract=JSON, evidence=make_evidence(b"[6, 6, 6]"))
    with store.write() as session:
        record(session, [accepted])

        (answer,) = stored_answers(session)

    assert (answer.error, answer.evidence.body) == (None, b"[6, 6, 6]")


def test_what_no_adapter_judged_is_left_out(store: Store) -> None:
    """A body that was cut off failed before anybody read it; and many leave no answer at all."""
    cut = replace(schema_error(), error=ErrorName.INCOMPLETE, phase=Phase.BODY)
    with store.write() as session:
        record(session, [cut, make_failed_attempt(1), make_attempt(2)])

        assert list(stored_answers(session)) == []


def test_answers_can_be_narrowed(store: Store) -> None:
    """By the start of their runs: from a moment on, up to another one; and by source."""
    coin = replace(schema_error(4, b"coin"), source="coin")
    with store.write() as session:
        for minute in range(4):
            record(session, [schema_error(0, bytes([minute]))], started_at=at(minute))
        record(session, [coin], started_at=at(9))

        window = list(stored_answers(session, Window(since=at(1), until=at(3))))
        later = list(stored_answers(session, Window(since=at(3))))
        of_coin = list(stored_answers(session, source="coin"))
        everything = list(stored_answers(session))

    assert [each.evidence.body for each in window] == [b"\x01", b"\x02"]
    assert [each.evidence.body for each in later] == [b"coin", b"\x03"]
    assert [each.source for each in of_coin] == ["coin"]
    assert [each.newest for each in everything] == [5, 1, 2, 3, 4]
