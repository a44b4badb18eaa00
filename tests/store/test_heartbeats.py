"""Signs of life: the dead are found wherever they ran, and the living never."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlmodel import Session

from pipeline.lock import presence, presence_at, sign_of
from pipeline.store import heartbeats
from pipeline.store.db import Store
from pipeline.store.tables import HEARTBEATS
from pipeline.store.writes import finish_run, order_batches
from tests.store.makers import HOST, NOON, at, begin, make_batch

LATER = datetime(2099, 1, 1, tzinfo=UTC)
STALE = heartbeats.SILENCE + timedelta(seconds=5)
FRESH = heartbeats.SILENCE - timedelta(seconds=5)


def start(session: Session, *, until: datetime = LATER) -> int:
    """Start a run that gives signs of life."""
    run_id = begin(session)
    heartbeats.begin(session, run_id=run_id, until=until)
    return run_id


def change(session: Session, run_id: int, **values: object) -> None:
    """Put other signs of life in place of those of a run."""
    session.connection().execute(
        update(HEARTBEATS).where(HEARTBEATS.c.run_id == run_id).values(**values)
    )


def ago(length: timedelta) -> datetime:
    """Give a moment of this machine's clock."""
    return datetime.now(UTC) - length


@pytest.fixture
def lock(path: Path) -> Path:
    """Name the presence lock of the store, which is there."""
    presence_at(path).touch()
    return presence_at(path)


@pytest.mark.usefixtures("lock")
def test_whoever_is_alone_knows_that_all_of_this_kernel_are_dead(store: Store) -> None:
    """A second ago it was heard: killed with its container, it must not stay for half a minute."""
    with store.write() as session:
        run_id = start(session)

        assert heartbeats.dead_runs(session) == [run_id]


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize(
    ("age", "is_dead"),
    [(FRESH, False), (STALE, True), (-FRESH, False), (-STALE, True)],
    ids=["fresh", "stale", "a little ahead", "from the future"],
)
def test_a_machine_that_does_not_see_our_lock_lives_while_its_heart_beats(
    store: Store, *, age: timedelta, is_dead: bool
) -> None:
    """Over a network share, or with the file alone mounted into its container."""
    with store.write() as session:
        run_id = start(session)
        change(session, run_id, presence="another kernel:1:2", seen_at=ago(age))

        assert heartbeats.dead_runs(session) == [run_id] * is_dead
        assert heartbeats.is_alive(session, run_id=run_id) is not is_dead


@pytest.mark.usefixtures("lock")
def test_a_lock_that_was_made_anew_says_nothing_of_those_who_hold_the_old_one(
    store: Store, lock: Path
) -> None:
    """Somebody tidied up while a run went on."""
    with store.write() as session:
        run_id = start(session)
        kept = lock.with_name("kept")  # lest the new one gets the same number
        lock.rename(kept)
        lock.touch()

        assert heartbeats.dead_runs(session) == []
        assert heartbeats.is_alive(session, run_id=run_id) is True


def test_two_files_have_two_signs_and_one_file_has_one(tmp_path: Path) -> None:
    """Whatever the host is called just now."""
    for name in "ab":
        (tmp_path / name).touch()

    assert sign_of(tmp_path / "a") == sign_of(tmp_path / "." / "a") != sign_of(tmp_path / "b")
    assert sign_of(tmp_path / "c") is None
    assert HOST not in str(sign_of(tmp_path / "a"))


def test_a_run_is_alive_while_somebody_is_present_and_its_heart_beats(
    store: Store, lock: Path
) -> None:
    """Of a stopped process that is present, or of a dead one beside a living, nobody can know."""
    with store.write() as session:
        run_id = start(session)
        with presence(lock, if_alone=lambda: None):
            beating = heartbeats.is_alive(session, run_id=run_id)
            change(session, run_id, seen_at=ago(STALE))
            stopped = heartbeats.is_alive(session, run_id=run_id)
            heartbeats.beat(session, run_id=run_id)
            awake = heartbeats.is_alive(session, run_id=run_id)
        gone = heartbeats.is_alive(session, run_id=run_id)

    assert (beating, stopped, awake, gone) == (True, None, True, False)


def test_a_run_that_ended_gives_no_signs_any_more(store: Store) -> None:
    """The table holds what goes on, and stays small."""
    with store.write() as session:
        run_id = start(session)
        finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)
        heartbeats.beat(session, run_id=run_id)

        assert session.connection().execute(select(HEARTBEATS)).all() == []
        assert heartbeats.dead_runs(session) == []


@pytest.mark.usefixtures("lock")
def test_a_run_is_overdue_when_its_deadline_is_over(store: Store) -> None:
    """Dead or alive; and what ended, or has time left, is not."""
    with store.write() as session:
        late = start(session, until=at(5))
        order_batches(session, run_id=late, batches=[make_batch(0), make_batch(1, source="coin")])
        start(session, until=at(20))
        finish_run(session, run_id=start(session, until=at(5)), ended_at=NOON, clock_us=1)

        [found] = heartbeats.find_overdue(session, now=at(10))

    assert (found.run_id, found.host, found.started_at, found.until) == (late, HOST, NOON, at(5))
    assert (found.is_alive, found.sources) == (False, ("coin", "dice"))


def test_a_run_that_has_fallen_silent_is_told_before_its_deadline(store: Store) -> None:
    """Its machine is down, or cut off: nobody wants to wait for an hour to hear of it."""
    with store.write() as session:
        start(session)
        silent = start(session)
        since = ago(STALE)
        change(session, silent, seen_at=since)

        [found] = heartbeats.find_overdue(session, now=datetime.now(UTC))

    assert (found.run_id, found.silent_since) == (silent, since)


def test_after_an_outage_of_the_server_all_have_time_for_their_next_sign(
    server_store: Store,
) -> None:
    """While it was away nobody could be heard, and they are not dead for that."""
    with server_store.write() as session:
        living, dead = start(session), start(session)
        for run_id in (living, dead):
            change(session, run_id, seen_at=ago(timedelta(hours=1)))
        heartbeats.suspect(session)
        at_once = heartbeats.dead_runs(session)
        session.connection().execute(update(HEARTBEATS).values(suspected_at=ago(heartbeats.BEAT)))
        heartbeats.beat(session, run_id=living)
        heartbeats.suspect(session)
        found = heartbeats.dead_runs(session)

    assert at_once == []
    assert found == [dead]


def test_who_was_heard_lately_is_not_suspected(server_store: Store) -> None:
    """One sign may be late."""
    with server_store.write() as session:
        start(session)
        heartbeats.suspect(session)

        assert session.connection().scalar(select(HEARTBEATS.c.suspected_at)) is None
