"""Figures that answers hold beside their numbers: kept, sealed, pruned, and looked at."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.audit.rules import find_weak as weak_findings
from pipeline.models import Attempt, Measure, WeakMeasure
from pipeline.store.db import Store
from pipeline.store.integrity.pruning import prune
from pipeline.store.integrity.verify import verify
from pipeline.store.measures import find_weak, measures_of
from pipeline.store.queries import find_attempt
from pipeline.store.window import Window
from tests.store.histories import tamper
from tests.store.makers import at, make_attempt, make_batch, record_run

ALL = Window(since=None, until=None)
DAY = 24 * 60  # minutes


def measured(fetch: int, chsh: float, *, began: int = 0) -> Attempt:
    """Get an answer with a Bell value."""
    chsh_of = Measure(name="chsh", value=chsh, at_least=2.0)
    attempt = replace(make_attempt(fetch), began_at=at(began))
    return replace(attempt, measures=(chsh_of, Measure(name="entropy", value=0.5)))


def record(store: Store, *values: float, started: int = 0) -> int:
    """Record a run with a fetch for each of *values*."""
    with store.write() as session:
        return record_run(
            session,
            [make_batch(number) for number in range(len(values))],
            attempts=[measured(nth, value, began=started) for nth, value in enumerate(values)],
            started_at=at(started),
        )


def weak(store: Store, source: str | None = None) -> list[WeakMeasure]:
    """Ask for what was below."""
    with store.read() as session:
        return find_weak(session, ALL, source=source)


def test_each_attempt_has_its_own(store: Store) -> None:
    """By name; another attempt has none of them."""
    run_id = record(store, 2.7, 2.6)

    with store.read() as session:
        found = measures_of(session, (run_id, 1, 1))
        case = find_attempt(session, attempt_id=1)
        nothing = measures_of(session, (run_id, 2, 1))

    assert found == (
        Measure(name="chsh", value=2.6, at_least=2.0),
        Measure(name="entropy", value=0.5),
    )
    assert case is not None
    assert [measure.value for measure in case.record.attempt.measures] == [2.7, 0.5]
    assert nothing == ()


def test_what_is_below_is_counted_by_source_and_figure(store: Store) -> None:
    """A figure of which nothing is wanted is never below it; one at the threshold is not either."""
    assert weak(store) == []
    record(store, 2.7, 2.0)
    assert weak(store) == []

    record(store, 1.9, 2.7, 1.5, started=60)

    (found,) = weak(store)
    assert weak(store, "dice") == [found]
    assert weak(store, "coin") == []
    assert (found.source, found.name, found.n, found.below) == ("dice", "chsh", 5, 2)
    assert (found.lowest, found.at_least) == (1.5, 2.0)
    assert (found.first_at, found.last_at) == (at(60), at(60))
    assert (found.first_attempt, found.last_attempt, found.newest_attempt) == (3, 5, 5)


@pytest.mark.parametrize(("after", "is_going_on"), [((), True), ((2.8,), False)])
def test_it_goes_on_until_an_answer_is_better(
    store: Store, after: tuple[float, ...], *, is_going_on: bool
) -> None:
    """The newest answer tells."""
    record(store, 1.5)
    if after:
        record(store, *after, started=60)

    (finding,) = weak_findings(weak(store))

    assert (finding.until is None) == is_going_on
    assert finding.reason.startswith("chsh was below 2 in 1 of ")
    assert finding.reason.endswith("down to 1.5")


def test_a_window_leaves_others_out(store: Store) -> None:
    """It counts where its run started."""
    record(store, 1.5)

    with store.read() as session:
        assert find_weak(session, Window(since=at(1), until=None), source=None) == []


def test_a_changed_figure_is_found(store: Store, path: Path) -> None:
    """The seal of a run is over its figures, where it has any."""
    record(store, 2.7)
    record(store, 2.6, started=60)
    assert verify(store).problems == ()

    tamper(path, "UPDATE measures SET value = 2.5 WHERE run_id = 2")

    (problem,) = verify(store).problems
    assert problem.run == 2


@pytest.mark.parametrize("statement", ["DELETE FROM measures", "UPDATE measures SET value = 'x'"])
def test_a_missing_or_odd_figure_is_found(store: Store, path: Path, statement: str) -> None:
    """Whatever SQLite takes in a column of numbers."""
    record(store, 2.7)

    tamper(path, statement)

    assert verify(store).problems


def test_figures_go_with_their_run(store: Store) -> None:
    """And the chain still verifies."""
    record(store, 1.5)
    record(store, 2.7, started=2 * DAY)

    done = prune(store, before=at(DAY), now=at(99 * DAY))

    assert (done.runs, done.attempts) == (1, 1)
    assert weak(store) == []
    assert verify(store).problems == ()
