"""One run from plan to books: real upstreams on loopback, a real database, real signals."""

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.collect import Collected, collect
from pipeline.errors import ConfigError, ErrorName, LockHeld, StoreError
from pipeline.lock import host_identity, turn
from pipeline.models import Overlap, RunStatus
from pipeline.recorder import Progress
from pipeline.settings import Settings, load_settings
from pipeline.store.db import open_store
from pipeline.store.writes import order_batches
from tests.processes import check_invariants, serving, wait_for
from tests.store.makers import begin, make_batch

Collect = Callable[..., Collected]

SANDBOX = "[sandbox]\nlatency_seconds = 0.0\n"
DICE = "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2, 3, 4]\nretries = 0\n"
COIN = "[sources.coin]\nkind = 'sandbox.anu_legacy'\nbatches = [5, 6]\nretries = 0\n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Name the database of the runs."""
    return tmp_path / "pipeline.db"


@pytest.fixture
def configure(tmp_path: Path) -> Callable[[str], Settings]:
    """Read a configuration that keeps its account in ``database``."""

    def configured(text: str) -> Settings:
        file = tmp_path / "config.toml"
        file.write_text(f"[store]\nurl = 'pipeline.db'\nbusy_seconds = 0.2\n{text}")
        return load_settings(file, {"HOME": str(tmp_path)})

    return configured


@pytest.fixture
def run(tmp_path: Path, configure: Callable[[str], Settings]) -> Collect:
    """Carry out a run by the text of its configuration."""

    def carried_out(
        text: str,
        on_progress: Callable[[Progress], None] = lambda _: None,
        overlap: Overlap = Overlap.SKIP,
    ) -> Collected:
        return collect(
            configure(text), state_folder=tmp_path, on_progress=on_progress, overlap=overlap
        )

    return carried_out


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Put back what an event loop leaves behind when it has watched for signals."""
    before = {signum: signal.getsignal(signum) for signum in (2, 15, 1)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the database, past the program."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def url_line(url: str) -> str:
    """Configure a source that asks *url*, one request at a time."""
    return (
        f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{url}'\nbatches = [2, 3, 4]\nmin = 1\n"
        "max = 6\nretries = 0\nin_flight = 1\nmerge = false\n"
    )


# ---- How it ends ----


def test_a_run_ends_with_what_is_on_disk(run: Collect, database: Path) -> None:
    """What is reported is read back from the store, and nothing is missing there."""
    ended = run(SANDBOX + DICE + COIN)

    assert (ended.summary.status, ended.stopped_by, ended.losses) == (RunStatus.OK, None, ())
    assert (ended.summary.ordered, ended.summary.collected, ended.summary.numbers) == (5, 5, 20)
    assert ended.summary.pid == os.getpid()
    assert ended.summary.clock_us
    assert not ended.has_bug
    check_invariants(database)


def test_progress_begins_at_nothing_and_counts_what_is_on_disk(
    run: Collect, database: Path
) -> None:
    """Who looks on learns at once how much there is to do, and never more than is safe."""
    seen: list[Progress] = []
    on_disk: list[object] = []

    def look(progress: Progress) -> None:
        seen.append(progress)
        on_disk.append(rows(database, "SELECT count(sum) FROM batches")[0][0])

    run(SANDBOX + DICE + COIN, look)

    assert (seen[0].ordered, seen[0].collected, seen[0].lost) == (5, 0, 0)
    assert (seen[-1].collected, seen[-1].lost) == (5, 0)
    assert [progress.collected for progress in seen] == on_disk


def test_a_source_that_fails_costs_only_its_own_batches(run: Collect, database: Path) -> None:
    """The others are collected, and the losses are told apart, most first."""
    ended = run(
        SANDBOX
        + "faults = ['anu_legacy:server_error', 'random_org:html']\n"
        + DICE
        + COIN
        + "[sources.sand]\nkind = 'sandbox.random_org'\nbatches = [1]\nretries = 0\n"
    )

    assert ended.summary.status is RunStatus.PARTIAL
    assert ended.summary.collected == 3
    assert ended.losses == (
        ("coin", ErrorName.HTTP_5XX, 2),
        ("sand", ErrorName.CONTENT_TYPE, 1),
    )
    check_invariants(database)


def test_a_run_that_collects_nothing_has_failed(run: Collect, database: Path) -> None:
    """And is as exactly on the books as any other."""
    ended = run(SANDBOX + "faults = ['close']\n" + DICE)

    assert ended.summary.status is RunStatus.FAILED
    assert rows(database, "SELECT DISTINCT error FROM attempts") == [("incomplete",)]
    check_invariants(database)


def test_a_deadline_ends_the_run_and_names_itself(run: Collect, database: Path) -> None:
    """What was under way, and what nobody came to ask for, alike."""
    ended = run(
        "[collect]\ndeadline_seconds = 0.3\n"
        + SANDBOX
        + "faults = ['stall']\n"
        + DICE
        + "in_flight = 1\nmerge = false\n"
    )

    assert ended.summary.status is RunStatus.FAILED
    assert rows(database, "SELECT error, count(*) FROM batches GROUP BY error") == [("deadline", 3)]
    assert ended.losses == (("dice", ErrorName.DEADLINE, 1),)
    assert ended.summary.clock_us is not None
    assert 300_000 <= ended.summary.clock_us < 2_000_000
    check_invariants(database)


def test_numbers_need_not_be_kept(run: Collect, database: Path) -> None:
    """Their count, their sum and their digest are."""
    run("keep_numbers = false\n" + SANDBOX + DICE)

    assert rows(
        database, "SELECT count(sum), count(digest), count(numbers), sum(n) FROM batches"
    ) == [(3, 3, 0, 9)]


def test_the_run_remembers_what_it_ran_with(
    run: Collect, configure: Callable[[str], Settings], database: Path, tmp_path: Path
) -> None:
    """Months later the file may be another one."""
    run(SANDBOX + DICE)

    assert rows(database, "SELECT config_path, config_digest, host FROM runs") == [
        (str(tmp_path / "config.toml"), configure(SANDBOX + DICE).digest, host_identity())
    ]


def test_a_machine_has_the_same_name_every_time() -> None:
    """Or its dead runs would never be found again."""
    assert host_identity() == host_identity()
    assert host_identity()


# ---- What stops it before it begins ----


def test_a_run_of_nothing_is_refused(run: Collect, database: Path) -> None:
    """It would look like success."""
    with pytest.raises(ConfigError, match="no source is enabled"):
        run(DICE + "enabled = false\n")

    assert not database.exists()


def test_an_order_that_cannot_be_served_leaves_no_run(run: Collect, database: Path) -> None:
    """All complaints at once, before anything is on the books."""
    with pytest.raises(ConfigError) as refusal:
        run(
            "[sources.a]\nkind = 'sandbox.anu_legacy'\nbatches = [5000]\n"
            "[sources.b]\nkind = 'sandbox.randomnumberapi'\nbatches = [101]\n"
        )

    assert len(refusal.value.complaints) == 2
    assert rows(database, "SELECT count(*) FROM runs") == [(0,)]


# ---- Overlap ----


def turn_path(database: Path) -> Path:
    """Find the lock of the configuration that has run."""
    return next(database.parent.glob("*.turn-*"))


def test_a_run_that_finds_another_one_is_skipped(run: Collect, database: Path) -> None:
    """The slot is on the books, and the caller is told who was first."""
    run(SANDBOX + DICE)

    with turn(turn_path(database)), pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
        run(SANDBOX + DICE)

    assert rows(database, "SELECT status, ordered FROM runs ORDER BY id") == [
        ("ok", 3),
        ("skipped", 0),
    ]
    check_invariants(database)


def test_a_run_can_wait_for_another_one(run: Collect, database: Path) -> None:
    """For schedules in which no run may be missing."""
    run(SANDBOX + DICE)
    is_taken, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with turn(turn_path(database)):
            is_taken.set()
            may_end.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    is_taken.wait(10)
    threading.Timer(0.1, may_end.set).start()
    ended = run(SANDBOX + DICE, overlap=Overlap.WAIT)
    holder.join()

    assert ended.summary.status is RunStatus.OK
    check_invariants(database)


def test_a_run_can_join_another_one(run: Collect, database: Path) -> None:
    """For whoever knows that they do not get in each other's way."""
    run(SANDBOX + DICE)

    with turn(turn_path(database)):
        assert run(SANDBOX + DICE, overlap=Overlap.ALLOW).summary.status is RunStatus.OK


# ---- The dead ----


@pytest.mark.parametrize(
    ("host", "status"), [(host_identity(), "interrupted"), ("elsewhere/1", "running")]
)
def test_a_dead_run_of_this_machine_is_buried(
    run: Collect, database: Path, host: str, status: str
) -> None:
    """Of another machine nobody here knows whether it lives."""
    url = f"sqlite:///{database}"
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        dead = begin(session, host=host)
        order_batches(session, run_id=dead, batches=[make_batch()])

    run(SANDBOX + DICE)

    assert rows(database, f"SELECT status FROM runs WHERE id = {dead}") == [(status,)]
    check_invariants(database, running=int(status == "running"))


# ---- Signals ----


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_keeps_what_came(
    run: Collect, database: Path, signum: signal.Signals
) -> None:
    """One batch is on disk, one is under way, one was not asked for."""
    with serving("answer", "hold") as upstream:

        def stop() -> None:
            upstream.wait_until_held()
            wait_for(lambda: rows(database, "SELECT count(sum) FROM batches") == [(1,)])
            os.kill(os.getpid(), signum)

        stopper = threading.Thread(target=stop)
        stopper.start()
        ended = run(url_line(upstream.url))
        stopper.join()

    assert ended.stopped_by == signum
    assert ended.summary.status is RunStatus.INTERRUPTED
    assert (ended.summary.collected, ended.summary.cancelled) == (1, 2)
    assert rows(database, "SELECT error, detail FROM batches WHERE error IS NOT NULL") == [
        ("cancelled", "the run was stopped"),
        ("cancelled", "the run ended first"),
    ]
    check_invariants(database)


def test_a_signal_that_was_switched_off_stays_off(run: Collect) -> None:
    """By nohup, before we were started."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    ended = run(SANDBOX + DICE, lambda _: os.kill(os.getpid(), signal.SIGHUP))

    assert (ended.stopped_by, ended.summary.status) == (None, RunStatus.OK)


# ---- The store fails ----


def test_a_store_that_is_replaced_in_mid_run_is_noticed(run: Collect, database: Path) -> None:
    """SQLite would go on writing into a file without a name, and say that all is well."""
    with pytest.raises(StoreError, match="NOT stored, though collected: 3 batches"):
        run(SANDBOX + DICE, lambda _: database.unlink())


# ---- What the upstream said ----


def test_what_an_upstream_forbids_is_kept_by_the_next_run(run: Collect, database: Path) -> None:
    """It said "not for an hour"; the next process must know, and ask nobody."""
    refusal = b"HTTP/1.1 429 No\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
    with serving(refusal) as upstream:
        refused = run("[collect]\ndeadline_seconds = 60.0\n" + url_line(upstream.url))
        put_off = run("[collect]\ndeadline_seconds = 60.0\n" + url_line(upstream.url))
        asked = len(upstream.requests)

    assert asked == 1
    assert (refused.summary.status, refused.summary.failed) == (RunStatus.FAILED, 1)
    assert (put_off.summary.status, put_off.summary.deferred) == (RunStatus.OK, 3)
    assert put_off.losses == ()
    check_invariants(database)


def test_evidence_of_a_failure_is_kept_and_bounded(run: Collect, database: Path) -> None:
    """A page of a megabyte is recognised by its beginning."""
    run("[collect]\nevidence_bytes = 10\n" + SANDBOX + "faults = ['html']\n" + DICE)

    ((body, body_bytes, headers),) = rows(
        database, "SELECT body, body_bytes, headers FROM evidence"
    )
    assert body == b"<!DOCTYPE "
    assert isinstance(body_bytes, int)
    assert body_bytes > 10
    assert ["Content-Type", "text/html"] in [
        [name.title(), value.partition(";")[0]] for name, value in json.loads(str(headers))
    ]


# ---- What is kept beside the numbers ----

BYTES = "[sources.bytes]\nkind = 'sandbox.randomnumberapi'\nretries = 0\nmin = 0\nmax = 255\n"


def test_old_numbers_are_collected_once(run: Collect, database: Path) -> None:
    """From worker to worker: whoever is first has them, and nobody counts them again."""
    ended = run(
        SANDBOX
        + "faults = ['stale']\n"
        + BYTES
        + "batches = {count = 5, size = 16}\nmerge = false\nin_flight = 4\n"
    )

    assert (ended.summary.collected, ended.summary.failed) == (1, 4)
    assert ended.losses == (("bytes", ErrorName.STALE, 4),)
    assert rows(database, "SELECT count(*) FROM attempts WHERE evidence IS NOT NULL") == [(5,)]
    check_invariants(database)


def test_old_numbers_are_known_in_the_next_run(run: Collect, database: Path) -> None:
    """A cache does not end with a run; other numbers are as welcome as before."""
    body = json.dumps([*range(16)]).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    with serving(*[answer % (len(body), body)] * 2) as upstream:
        text = (
            f"[sources.bytes]\nkind = 'randomnumberapi'\nurl = '{upstream.url}'\nmin = 0\n"
            "max = 255\nretries = 0\nbatches = [16]\n"
        )
        ends = [run(text).summary.status for _ in range(2)]

    assert ends == [RunStatus.OK, RunStatus.FAILED]
    assert rows(database, "SELECT detail FROM batches WHERE error = 'stale'") == [
        ("the same 16 numbers as run 1 w0",)
    ]
    check_invariants(database)


def test_three_dice_may_come_again(run: Collect) -> None:
    """They do so by chance, every 216th time."""
    with serving() as upstream:
        ends = [run(url_line(upstream.url)).summary.status for _ in range(2)]

    assert ends == [RunStatus.OK, RunStatus.OK]


def test_a_change_of_contract_is_on_the_books_though_all_went_well(
    run: Collect, database: Path
) -> None:
    """The first answer of each look is kept with it, to be replayed."""
    run(SANDBOX + COIN)
    run(SANDBOX + COIN)
    changed = run(SANDBOX + "faults = ['extra_key']\n" + COIN)

    assert changed.summary.status is RunStatus.OK
    spans = rows(database, "SELECT value, first_attempt FROM contracts WHERE aspect = 'keys'")
    assert [value for value, _ in spans] == [
        "data, length, success, type",
        "data, length, notice, success, type",
    ]
    kept = rows(database, "SELECT id FROM attempts WHERE evidence IS NOT NULL ORDER BY id")
    assert kept == [(attempt,) for _, attempt in spans]


def test_a_request_is_kept_once_for_all_runs(run: Collect, database: Path) -> None:
    """It says the same every five minutes for years."""
    for _ in range(2):
        run(url_line("http://127.0.0.1:1") + "breaker = 0\n")

    assert rows(
        database,
        "SELECT method, url, count(*) FROM attempts JOIN requests ON requests.id = request"
        " GROUP BY url ORDER BY url",
    ) == [
        ("GET", f"http://127.0.0.1:1/api/v1.0/random?min=1&max=7&count={n}", 2) for n in (2, 3, 4)
    ]
