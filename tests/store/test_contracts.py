"""The spans in which an answer looked the same, saved with the attempts that saw it."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select

from pipeline.models import Aspect, Attempt
from pipeline.store.contracts import contract_spans
from pipeline.store.db import Store
from pipeline.store.tables import ATTEMPTS, CONTRACTS
from pipeline.store.writes import save_results
from tests.store.makers import at, begin, make_attempt

TYPE, KEYS = Aspect.CONTENT_TYPE, Aspect.KEYS


def showing(number: int, *contract: tuple[Aspect, str], source: str = "dice") -> Attempt:
    """Ask at a minute of that number, and be shown *contract*."""
    attempt = make_attempt(number, source=source, began_at=at(number))
    return replace(attempt, contract=contract)


def save(store: Store, *groups: Sequence[Attempt]) -> None:
    """Save each group in a transaction of its own, all of one run."""
    with store.write() as session:
        run_id = begin(session)
    for group in groups:
        with store.write() as session:
            save_results(session, run_id=run_id, attempts=group, outcomes=[], keep_numbers=True)


def spans(store: Store) -> list[tuple[str, str, str, int, int]]:
    """List source, aspect, value, and the fetches of the first and of the last attempt."""
    with store.read() as session:
        connection = session.connection()
        fetches = dict(connection.execute(select(ATTEMPTS.c.id, ATTEMPTS.c.fetch)).all())
        rows = connection.execute(select(CONTRACTS).order_by(CONTRACTS.c.id)).all()
    for row in rows:
        assert row.first_at == at(fetches[row.first_attempt])
        assert row.last_at == at(fetches[row.last_attempt])
    return [
        (r.source, r.aspect, r.value, fetches[r.first_attempt], fetches[r.last_attempt])
        for r in rows
    ]


def test_what_stays_the_same_is_one_span(store: Store) -> None:
    """However many attempts, groups and runs saw it."""
    save(store, [showing(0, (TYPE, "a")), showing(1, (TYPE, "a"))], [showing(2, (TYPE, "a"))])
    save(store, [showing(3, (TYPE, "a"))])

    assert spans(store) == [("dice", "content_type", "a", 0, 3)]


def test_a_change_begins_a_span_and_so_does_the_way_back(store: Store) -> None:
    """Within one group and from one to the next."""
    save(store, [showing(0, (TYPE, "a")), showing(1, (TYPE, "b"))], [showing(2, (TYPE, "a"))])

    assert [row[2:] for row in spans(store)] == [("a", 0, 0), ("b", 1, 1), ("a", 2, 2)]


def test_sources_and_aspects_do_not_meet(store: Store) -> None:
    """One value may stand for two things."""
    save(
        store,
        [showing(0, (TYPE, "a"), (KEYS, "a")), showing(1, (TYPE, "a"), source="coin")],
        [showing(2, (KEYS, "b"))],
    )

    assert spans(store) == [
        ("dice", "content_type", "a", 0, 0),
        ("dice", "keys", "a", 0, 0),
        ("coin", "content_type", "a", 1, 1),
        ("dice", "keys", "b", 2, 2),
    ]


def test_an_attempt_that_shows_nothing_changes_nothing(store: Store) -> None:
    """A day of timeouts is no change of contract."""
    save(store, [showing(0, (TYPE, "a"))], [showing(1)])

    assert [row[2:] for row in spans(store)] == [("a", 0, 0)]


def test_the_end_of_a_span_never_goes_back(store: Store) -> None:
    """Of two runs at once the earlier attempt may be saved last."""
    save(store, [showing(5, (TYPE, "a"))], [showing(3, (TYPE, "a"))])

    with store.read() as session:
        row = session.connection().execute(select(CONTRACTS)).one()
    assert (row.first_at, row.last_at) == (at(5), at(5))


def test_old_spans_are_left_out_but_for_the_newest(store: Store) -> None:
    """An audit of a week needs what was agreed upon before it, and not all changes of a year."""
    looks = ["a", "b", "a", "b", "a"]
    save(store, [showing(minute, (TYPE, look)) for minute, look in enumerate(looks)])
    save(store, [showing(2, (KEYS, "x")), showing(3, (TYPE, "z"), source="coin")])

    with store.read() as session:
        found = contract_spans(session, source=None, since=at(3))

    assert [(span.source, span.aspect, span.value) for span in found] == [
        ("coin", TYPE, "z"),
        ("dice", TYPE, "a"),  # of minute 2
        ("dice", TYPE, "b"),
        ("dice", TYPE, "a"),
        ("dice", KEYS, "x"),
    ]
