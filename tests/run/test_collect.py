"""One run from plan to books: real upstreams on loopback, a real database, real signals."""

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from pipeline.errors import ConfigError, ErrorName, LockHeld, StoreError
from pipeline.lock import host_identity, run_lock
from pipeline.models import Overlap, RunStatus
from pipeline.run.collect import Run, collect
from pipeline.run.collected import Collected
from pipeline.run.opening import open_for_runs
from pipeline.run.recorder import Progress
from pipeline.settings import Settings, load_settings
from pipeline.store.db import open_store
from pipeline.store.writes import order_batches
from tests.playing import playing
from tests.processes import Home, answer_with, check_invariants, homes, serving, wait_for
from tests.store.makers import begin, make_batch

Collect = Callable[..., Collected]

SANDBOX = "[sandbox]\nlatency_seconds = 0.0\n"
DICE = (
    "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2, 3, 4]\n"
    "merge = false\nretries = 0\n"
)
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
        settings = configure(text)
        with open_for_runs(settings.store, tmp_path) as store:
            run = Run(settings=settings, store=store, state_folder=tmp_path, overlap=overlap)
            return collect(run, on_progress)

    return carried_out


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home to the processes that a test starts."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


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
    assert ended.exit_status == 0
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


def test_run_after_run_leaves_nothing_open_and_little_on_disk(run: Collect, database: Path) -> None:
    """`schedule run` is one process for months (X09)."""

    def use() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    run(SANDBOX + DICE)
    before, size = use(), database.stat().st_size
    for _ in range(20):
        run(SANDBOX + DICE)
    wait_for(lambda: threading.active_count() <= before[1])  # one may just be ending

    files, threads = use()
    assert files <= before[0]
    assert threads <= before[1]
    assert database.stat().st_size - size < 20 * 8192


def test_a_deadline_ends_the_run_and_names_itself(run: Collect, database: Path) -> None:
    """What was under way, and what nobody came to ask for, alike."""
    ended = run(
        "[collect]\ndeadline_seconds = 0.3\n"
        + SANDBOX
        + "faults = ['stall']\n"
        + DICE
        + "in_flight = 1\n"
    )

    assert ended.summary.status is RunStatus.FAILED
    assert rows(database, "SELECT error, count(*) FROM batches GROUP BY error") == [("deadline", 3)]
    assert ended.losses == (("dice", ErrorName.DEADLINE, 1),)
    assert ended.summary.clock_us is not None
    assert 300_000 <= ended.summary.clock_us < 10_000_000
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


def test_what_the_sandbox_made_is_marked(run: Collect, database: Path) -> None:
    """In one run as well, where another source is real."""
    real = "[sources.real]\nkind = 'randomnumberapi'\nbatches = [2]\nretries = 0\n"
    with serving() as upstream:
        run(SANDBOX + DICE + real + f"url = '{upstream.url}'\n")
        run(real + f"url = '{upstream.url}'\n")

    marks = [(1, "dice", 1), (1, "real", 0), (2, "real", 0)]
    for table in ("batch_list", "tallies"):
        query = f"SELECT DISTINCT run_id, source, is_sandbox FROM {table} ORDER BY 1, 2"
        assert rows(database, query) == marks
    assert rows(database, "SELECT is_sandbox FROM runs ORDER BY id") == [(1,), (0,)]


def test_a_machine_has_the_same_name_every_time() -> None:
    """Or its dead runs would never be found again."""
    assert host_identity() == host_identity()
    assert host_identity()


# ---- What stops it before it begins ----


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

    with run_lock(turn_path(database)), pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
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
        with run_lock(turn_path(database)):
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

    with run_lock(turn_path(database)):
        assert run(SANDBOX + DICE, overlap=Overlap.ALLOW).summary.status is RunStatus.OK


# ---- The dead ----


@pytest.mark.parametrize("host", [host_identity(), "elsewhere/1"])
def test_a_dead_run_is_buried_whatever_its_host_was_called(
    run: Collect, database: Path, host: str
) -> None:
    """A container has another name at each start."""
    url = f"sqlite:///{database}"
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        dead = begin(session, host=host)
        order_batches(session, run_id=dead, batches=[make_batch()])

    run(SANDBOX + DICE)

    assert rows(database, f"SELECT status FROM runs WHERE id = {dead}") == [("interrupted",)]
    check_invariants(database)


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
    with serving(*[answer_with(*range(16))] * 2) as upstream:
        text = (
            f"[sources.bytes]\nkind = 'randomnumberapi'\nurl = '{upstream.url}'\nmin = 0\n"
            "max = 255\nretries = 0\nbatches = [16]\n"
        )
        ends = [run(text).summary.status for _ in range(2)]

    assert ends == [RunStatus.OK, RunStatus.FAILED]
    assert rows(database, "SELECT detail FROM batches WHERE error = 'stale'") == [
        ("the same 8 numbers in a row came before, up to run 1 w0",)
    ]
    check_invariants(database)


# 85 dice, and no batch of them says 64 bits.
CUTS = ([15, 16, 17, 18, 19], [17] * 5)


def dice_from(url: str, sizes: list[int], *, is_merged: bool) -> str:
    """Configure a source of dice that is asked without a pause."""
    return (
        f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{url}'\nrate = 'none'\nretries = 0\n"
        f"in_flight = 1\nmin = 1\nmax = 6\nbatches = {sizes}\nmerge = {str(is_merged).lower()}\n"
    )


def ends_of(run: Collect, *texts: str) -> list[tuple[int, int]]:
    """Count what each run collected and lost."""
    summaries = [run(text).summary for text in texts]
    return [(summary.collected, summary.failed) for summary in summaries]


@pytest.mark.parametrize("again", CUTS)
def test_an_old_answer_is_stale_however_it_is_cut(
    run: Collect, home: Home, database: Path, again: list[int]
) -> None:
    """What each batch may well say twice by chance, all of them together may not."""
    with playing(home, "--no-rules", "--fault", "stale") as upstreams:
        url = upstreams.url("randomnumberapi")
        ends = ends_of(run, *(dice_from(url, cut, is_merged=True) for cut in (CUTS[0], again)))

    assert ends == [(5, 0), (0, 5)]
    check_invariants(database)


def test_old_answers_are_stale_once_they_say_enough(run: Collect, home: Home) -> None:
    """What the first of them said may be chance, and stays; the others go on where it ended."""
    with playing(home, "--no-rules", "--fault", "stale") as upstreams:
        url = upstreams.url("randomnumberapi")
        ends = ends_of(run, *[dice_from(url, CUTS[0], is_merged=False)] * 2)

    assert ends == [(5, 0), (1, 4)]


def test_old_answers_are_stale_in_other_pieces_too(run: Collect) -> None:
    """A generator that began anew does not know what was asked for the last time."""
    dice = Random(7).choices(range(1, 7), k=85)
    rest = [iter(dice) for _ in CUTS]
    pieces = [islice(each, n) for each, cut in zip(rest, CUTS, strict=True) for n in cut]
    with serving(*(answer_with(*piece) for piece in pieces)) as upstream:
        ends = ends_of(run, *(dice_from(upstream.url, cut, is_merged=False) for cut in CUTS))

    assert ends == [(5, 0), (1, 4)]


def test_one_small_answer_again_and_again_is_stale(run: Collect, home: Home) -> None:
    """By the third run, though no run asked for enough to judge it by itself."""
    with playing(home, "--no-rules", "--fault", "stale") as upstreams:
        text = dice_from(upstreams.url("randomnumberapi"), [17], is_merged=True)
        ends = ends_of(run, *[text] * 4)

    assert ends == [(1, 0), (1, 0), (0, 1), (0, 1)]


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


# ---- What the rules forbid before the deadline ----


def many(url: str, count: int, rules: str, *, name: str = "dice") -> str:
    """Configure a source of *count* small batches, one a request."""
    return (
        f"[sources.{name}]\nkind = 'randomnumberapi'\nurl = '{url}'\nretries = 0\nmerge = false\n"
        f"min = 1\nmax = 1\nbatches = {{count = {count}, size = 1}}\n{rules}\n"
    )


@pytest.mark.parametrize("in_flight", [1, 8])
def test_what_the_rate_forbids_before_the_deadline_is_deferred(
    run: Collect, database: Path, in_flight: int
) -> None:
    """All of it, at the first moment that comes too late, and that is no failure."""
    rules = f"rate = '2/s'\nin_flight = {in_flight}"  # the last goes 0.4 s before the deadline
    with serving() as upstream:
        ended = run("[collect]\ndeadline_seconds = 2.0\n" + many(upstream.url, 600, rules))

    summary = ended.summary
    assert (ended.exit_status, summary.failed, summary.cancelled) == (0, 0, 0)
    assert summary.deferred == 600 - summary.collected > 500
    assert summary.collected == len(upstream.requests)
    assert rows(database, "SELECT DISTINCT detail FROM batch_list WHERE verdict = 'deferred'") == [
        ("rate: 2 per 1 s",)
    ]
    ((early,),) = rows(database, "SELECT count(*) FROM batches WHERE not_before < '2026'")
    assert early == 0
    check_invariants(database)


@pytest.mark.parametrize(
    ("rules", "asked", "why"),
    [
        ("quotas = ['3 requests/day']\nin_flight = 4", 3, "quota: 3 requests per day"),
        ("rate = '1/h'\nin_flight = 4", 1, "rate: 1 per 3600 s"),
    ],
)
def test_several_workers_defer_what_is_left_at_once(
    run: Collect, database: Path, rules: str, asked: int, why: str
) -> None:
    """Two sources of one upstream, and thousands of batches: it is one statement for each."""
    with serving() as upstream:
        text = many(upstream.url, 2_000, rules)
        ended = run(text + many(upstream.url, 2_000, rules, name="coin"))

    assert (ended.summary.status, ended.summary.collected) == (RunStatus.OK, asked)
    assert len(upstream.requests) == asked
    assert rows(
        database, "SELECT count(DISTINCT not_before), detail FROM batches WHERE sum IS NULL"
    ) == [(1, why)]


def test_what_our_deadline_cuts_is_told_from_what_the_rules_forbid(
    run: Collect, database: Path
) -> None:
    """The rate would have let all of it go; the upstream was too slow for one at a time."""
    with serving(*["hold"] * 9) as upstream:
        rules = "rate = '100/s'\nin_flight = 1"
        ended = run("[collect]\ndeadline_seconds = 2.0\n" + many(upstream.url, 9, rules))

    assert (ended.summary.deferred, ended.summary.failed) == (0, 9)
    assert {error for (error,) in rows(database, "SELECT error FROM batches")} == {"deadline"}


def test_what_waited_for_its_moment_when_the_deadline_struck_is_deferred(
    run: Collect, database: Path
) -> None:
    """The worker that would have learned it had its hands full: only its own batch is cut."""
    with serving("hold") as upstream:
        rules = "rate = '5/s'\nin_flight = 1"
        ended = run("[collect]\ndeadline_seconds = 2.0\n" + many(upstream.url, 90, rules))

    assert (ended.summary.deferred, ended.summary.failed) == (89, 1)
    assert rows(database, "SELECT error FROM batches WHERE error IS NOT NULL") == [("deadline",)]


def test_a_signal_is_told_from_what_the_rules_forbid(run: Collect, database: Path) -> None:
    """Who was told to wait for tomorrow was; what nobody looked at was stopped."""
    with serving() as upstream, serving(*["answer"] * 50, "hold") as other:

        def stop() -> None:
            other.wait_until_held()
            told = "SELECT 1 FROM batches WHERE verdict = 3"
            wait_for(lambda: rows(database, told) != [])
            os.kill(os.getpid(), signal.SIGTERM)

        stopping = threading.Thread(target=stop)
        stopping.start()
        forbidden = many(upstream.url, 9, "quotas = ['1 requests/day']\nin_flight = 1")
        ended = run(forbidden + many(other.url, 60, "in_flight = 1", name="other"))
        stopping.join()

    assert ended.exit_status == 128 + signal.SIGTERM
    assert rows(database, "SELECT source, verdict, count(*) FROM batch_list GROUP BY 1, 2") == [
        ("dice", "collected", 1),
        ("dice", "deferred", 8),
        ("other", "cancelled", 10),
        ("other", "collected", 50),
    ]


def test_the_clock_counts_from_when_the_run_started(run: Collect, database: Path) -> None:
    """What is between the two is the time that the sandbox takes to come up."""
    for _ in range(5):  # the two clocks are not read at once, and this machine may be busy
        run(SANDBOX + DICE)

    lengths = rows(database, "SELECT clock_us, ended_at - started_at FROM runs")
    assert any(clock_us == pytest.approx(us, abs=2_000) for clock_us, us in lengths)


# ---- Nobody starves ----


def test_every_batch_has_its_turn(run: Collect, database: Path) -> None:
    """With a rate that lets half of them go, the other half goes in the next run."""
    found = "SELECT batch_number, count(*) FROM batch_list WHERE verdict = 'collected' GROUP BY 1"
    collected: list[tuple[object, ...]] = []
    with serving() as upstream:
        rules = "rate = '1/s'\nin_flight = 2"
        text = "[collect]\ndeadline_seconds = 2.5\n" + many(upstream.url, 6, rules)
        for _ in range(12):  # a busy machine lets fewer of them go
            assert run(text).exit_status == 0
            collected = rows(database, found)
            if len(collected) == 6:
                break

    assert len(collected) == 6
    assert {n for _, n in collected} <= {1, 2, 3}


def test_every_source_of_an_upstream_has_its_turn(run: Collect, database: Path) -> None:
    """One request a run is all that is allowed: the next run asks the next source."""
    with serving() as upstream:
        for nth in range(1, 7):
            quota = f"quotas = ['{nth} requests/day']\nin_flight = 2"
            names = ("dice", "coin", "sand")
            assert (
                run("".join(many(upstream.url, 2, quota, name=n) for n in names)).exit_status == 0
            )

    assert rows(
        database,
        "SELECT run_id, source, batch_number FROM batch_list"
        " WHERE verdict = 'collected' ORDER BY 1",
    ) == [
        *((1, "dice", 0), (2, "coin", 2), (3, "sand", 4)),
        *((4, "dice", 1), (5, "coin", 3), (6, "sand", 5)),
    ]


def test_batches_that_share_requests_have_their_turn(run: Collect, database: Path) -> None:
    """The request is cut so that those are in it that waited longest."""
    with serving() as upstream:
        for nth in range(1, 5):
            ended = run(
                f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{upstream.url}'\nmin = 1\n"
                f"max = 1\nmerge = true\nquotas = ['{nth} requests/day']\nin_flight = 1\n"
                "batches = [60, 50, 40, 30]\n"
            )
            assert ended.exit_status == 0

    found = "SELECT run_id, batch_number FROM batch_list WHERE verdict = 'collected' ORDER BY 1, 2"
    assert rows(database, found) == [(1, 0), (2, 1), (2, 2), (3, 0), (3, 3), (4, 1), (4, 2)]
    check_invariants(database)


# ---- The limits that were in force ----


def test_limits_are_kept_once_for_each_configuration(run: Collect, database: Path) -> None:
    """A past failure is judged by what was in force then, whatever the file says now."""
    with serving() as upstream:
        for rules in (
            "rate = '9/s'\nin_flight = 2",
            "rate = 'none'",
            "rate = '9/s'\nin_flight = 2",
        ):
            run(many(upstream.url, 2, f"{rules}\nquotas = ['70 requests/day']"))

    kept = rows(
        database,
        "SELECT runs.id, limits FROM configurations JOIN runs"
        " ON digest = config_digest AND configurations.version = runs.version ORDER BY 1",
    )
    assert rows(database, "SELECT count(*) FROM configurations") == [(2,)]
    assert [json.loads(str(limits))["sources"]["dice"]["rate"] for _, limits in kept] == [
        "9/1s",
        "none",
        "9/1s",
    ]
    limits = json.loads(str(kept[0][1]))
    assert limits["deadline_seconds"] == 300
    assert limits["impossible"] == []
    assert limits["sources"]["dice"] == {
        "rate": "9/1s",
        "quotas": ["70 requests/day"],
        "in_flight": 2,
        "merge": False,
        "max_numbers": 100,
        "attempt_seconds": 30.0,
        "connect_seconds": 10.0,
        "read_seconds": 30.0,
        "retries": 0,
        "backoff_seconds": 0.5,
        "retry_budget": 20,
        "breaker": 5,
    }


def test_what_the_rules_never_let_through_is_kept_with_the_limits(
    run: Collect, database: Path
) -> None:
    """The run is fine, and its order is not."""
    with serving() as upstream:
        run("[collect]\ndeadline_seconds = 1.0\n" + many(upstream.url, 6, "rate = '2/s'"))

    ((limits,),) = rows(database, "SELECT limits FROM configurations")
    assert json.loads(str(limits))["impossible"] == [
        {
            "sources": ["dice"],
            "reason": "6 requests at 2 per 1 s take 3 s, the deadline is 1 s;"
            " set merge = true, order less or raise deadline_seconds",
        }
    ]
