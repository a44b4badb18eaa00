"""What only a PostgreSQL server can do to a store: rights, locks, lost connections, silence."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from sqlalchemy import make_url

from pipeline.errors import StoreBusy, StoreError
from pipeline.store import server
from pipeline.store.db import Store, open_store
from pipeline.store.integrity.chain import lock_chain
from pipeline.store.integrity.verify import verify
from pipeline.store.migrating import connect_to_migrate, migrate
from pipeline.store.queries import recent_runs
from pipeline.store.schema import NEWEST, VERSION
from pipeline.store.server import LOOK_SECONDS
from tests.servers import LIKE_NEW, Server
from tests.store.histories import record_mixed_run
from tests.store.makers import begin, make_batch, record_run


@pytest.fixture
def empty(postgres: Server) -> Iterator[str]:
    """Make a database without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """Make a database as a new store."""
    with postgres.database(like=LIKE_NEW) as url:
        yield url


def count_runs(url: str, *, busy_seconds: float = 10) -> int:
    """Count the runs as a command that only reads."""
    with (
        open_store(url, busy_seconds=busy_seconds, for_writing=False) as store,
        store.read() as session,
    ):
        return len(recent_runs(session, limit=9))


def test_of_several_that_create_the_tables_at_once_one_does(empty: str) -> None:
    """All of them start at the same minute, on whatever machine; none may fail."""

    def start(_: int) -> int:
        with (
            open_store(empty, busy_seconds=60, for_writing=True) as store,
            store.write() as session,
        ):
            return begin(session)

    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(start, range(4)))

    assert sorted(runs) == [1, 2, 3, 4]


def test_of_several_that_migrate_at_once_one_does(empty: str) -> None:
    """The others wait, and find nothing left to do."""
    with connect_to_migrate(empty) as connection:
        VERSION.create(connection)

    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: migrate(empty, busy_seconds=60), range(3)))

    assert [each.after for each in done if each] == [NEWEST]


def test_who_may_only_read_can_look_and_cannot_write(postgres: Server, url: str) -> None:
    """Whoever reports needs no rights on the books; nor can a replica give them."""
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        record_run(session, [make_batch()])

    with postgres.reader_of(url) as theirs:
        seen = count_runs(theirs)
        with (
            pytest.raises(StoreError, match="read-only: it is a replica, or opened to read"),
            open_store(theirs, busy_seconds=1, for_writing=True) as store,
            store.write() as session,
        ):
            begin(session)

    assert seen == 1


def test_a_reader_does_not_wait_for_who_seals_a_run(url: str) -> None:
    """Nor for whoever prunes, which may take minutes."""
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        lock_chain(session.connection())

        assert count_runs(url, busy_seconds=0.001) == 0


def test_who_waits_too_long_for_a_lock_is_told_so(url: str) -> None:
    """Cron comes again in a minute; exit code 75 says so."""
    with (
        open_store(url, busy_seconds=10, for_writing=True) as first,
        open_store(url, busy_seconds=0.1, for_writing=True) as second,
        first.write() as holding,
    ):
        lock_chain(holding.connection())

        with (
            pytest.raises(StoreBusy, match=r"is locked by another process; waited 0\.1 s"),
            second.write() as waiting,
        ):
            lock_chain(waiting.connection())


def test_a_lost_connection_is_no_failure_for_good(postgres: Server, url: str) -> None:
    """The server restarts, a firewall forgets us: the next try may do."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        with pytest.raises(StoreBusy, match="cannot be used now"):
            write_without_a_server(store, postgres, url)
        with store.write() as session:
            begin(session)

    assert count_runs(url) == 1


def write_without_a_server(store: Store, postgres: Server, url: str) -> None:
    """Lose the connection in the middle of a transaction."""
    with store.write() as session:
        begin(session)
        postgres.cut(url)
        begin(session)


def test_a_password_that_is_refused_stays_so(url: str) -> None:
    """To try again would not help, so it is not called busy."""
    wrong = make_url(url).set(password="wrong").render_as_string(hide_password=False)

    with pytest.raises(StoreError, match="password authentication failed") as caught:
        open_store(wrong, busy_seconds=1, for_writing=False)

    assert not isinstance(caught.value, StoreBusy)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "option", ["sslmode=bogus", "channel_binding=x", "service=nowhere", "connect_timeout=soon"]
)
def test_an_option_that_libpq_does_not_understand_stays_so(option: str) -> None:
    """Nobody is to try again later: no server has been asked."""
    url = f"postgresql+psycopg://somebody@127.0.0.1:9/x?{option}"

    with pytest.raises(StoreError) as caught:
        open_store(url, busy_seconds=1, for_writing=False)

    assert not isinstance(caught.value, StoreBusy)


def test_a_server_that_is_not_there_may_come_back(url: str) -> None:
    """It says nothing of passwords and rights, so nobody knows more."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = make_url(url).set(port=port).render_as_string(hide_password=False)

    with pytest.raises(StoreBusy, match=r"cannot be used now: .*refused"):
        open_store(nowhere, busy_seconds=1, for_writing=False)


def test_a_server_that_says_nothing_is_given_up(url: str) -> None:
    """One that is stopped, say; the shortest time that the driver knows is two seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = make_url(url).set(port=port).render_as_string(hide_password=False)

        with pytest.raises(StoreBusy, match="cannot be used now: connection timeout expired"):
            open_store(mute, busy_seconds=0.1, for_writing=False)


def test_what_is_stored_is_on_disk_whatever_the_server_does_for_others(
    postgres: Server, url: str
) -> None:
    """A server may be told to answer first and write later: a crash would cost what we reported."""
    [(of_others,)] = postgres.run("SHOW synchronous_commit")

    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        ours = session.connection().exec_driver_sql("SHOW synchronous_commit").scalar_one()

    assert (of_others, ours) == ("off", "on")


def test_limits_in_the_url_come_first(url: str) -> None:
    """Whoever knows the network knows better."""
    own = make_url(url).update_query_dict({"keepalives_idle": "77"})

    with (
        open_store(
            own.render_as_string(hide_password=False), busy_seconds=8, for_writing=True
        ) as s,
        s.read() as session,
    ):
        driver = session.connection().connection.driver_connection
        assert driver is not None
        given = driver.info.get_parameters()

    assert (given["keepalives_idle"], given["tcp_user_timeout"]) == ("77", "8000")


def test_other_databases_are_refused() -> None:
    """Some would nearly do."""
    with pytest.raises(StoreError, match="an SQLite file or postgresql://…, not mysql"):
        open_store("mysql://me@127.0.0.1/books", busy_seconds=1, for_writing=True)


@pytest.mark.anyio
async def test_who_may_not_wait_does_not_wait_for_a_silent_server(
    postgres: Server, url: str
) -> None:
    """Neither a deadline nor a signal could end a run whose thread waits for an answer."""
    with open_store(url, busy_seconds=0.1, for_writing=True) as store:
        assert not store.may_wait()

        with postgres.stopped(url):
            async with store.heeding_time():
                with pytest.raises(StoreBusy, match="cannot be used now"):
                    await store.commit(begin)

        await store.commit(begin)


@pytest.mark.anyio
async def test_who_may_wait_waits_for_a_silent_server(postgres: Server, url: str) -> None:
    """It comes back, as if nothing had been."""
    with open_store(url, busy_seconds=0.1, for_writing=True) as store:
        store.may_wait = lambda: True

        async with store.heeding_time(), anyio.create_task_group() as tasks:
            with postgres.stopped(url):
                tasks.start_soon(store.commit, begin)
                await anyio.sleep(3 * LOOK_SECONDS)

    assert count_runs(url) == 1


def test_without_the_driver_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most who want a store on a server have not asked for the extra before."""
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match=r"needs psycopg: .* 'psycopg\[binary\]'"):
        open_store("postgresql+psycopg://me@127.0.0.1/x", busy_seconds=1, for_writing=True)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE batches SET sum = sum - 1 WHERE run_id = 1 AND number = 0", "sum"),
        ("DELETE FROM attempts WHERE id = 4", "run 1"),
    ],
)
def test_what_was_changed_behind_our_back_is_named(
    postgres: Server, url: str, statement: str, words: str
) -> None:
    """Whoever runs the server can do anything, but not unseen."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record_mixed_run(store)
        assert verify(store).problems == ()

        postgres.run(statement, database=str(make_url(url).database))

        assert any(words in problem.text for problem in verify(store).problems)


def test_who_was_stopped_in_mid_transaction_does_not_keep_others_out_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that sleeps holds its rows as long as its server lets it; awake, it tries again."""
    monkeypatch.setattr(server, "MUTE_SECONDS", 1.0)
    with (
        open_store(url, busy_seconds=60, for_writing=True) as stopped,
        open_store(url, busy_seconds=60, for_writing=True) as other,
        ThreadPoolExecutor(1) as thread,
    ):

        def go_on() -> int:
            with other.write() as session:
                lock_chain(session.connection())
                return begin(session)

        def sleep_in_mid_transaction() -> None:
            with stopped.write() as session:
                run_id = begin(session)
                lock_chain(session.connection())
                assert thread.submit(go_on).result(60) > run_id

        with pytest.raises(StoreBusy):
            sleep_in_mid_transaction()
        with stopped.write() as session:
            lock_chain(session.connection())
