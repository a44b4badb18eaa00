"""Starts that keep to the schedule: in virtual time against a real store, and real runs."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from pipeline.errors import ConfigError, LockHeld
from pipeline.lock import host_identity, lock_path, run_lock
from pipeline.models import Fate, Overlap, RunStatus, RunSummary, SlotChoice, SlotRecord
from pipeline.schedule.booking import (
    Booked,
    book,
    find_possible_schedules,
    find_rhythms,
)
from pipeline.schedule.ledger import MOST_CAUGHT_UP, Schedule
from pipeline.schedule.start import Start
from pipeline.settings import Missed, Settings
from pipeline.store.db import Store, open_store
from pipeline.store.queries import get_run, recent_runs
from pipeline.store.slots import begin as begin_slots
from pipeline.store.slots import book_missed, claim, gaps, settle, slot_days, slot_lines
from pipeline.store.window import Window
from tests.processes import wait_for
from tests.schedule.scheduling import COIN, DICE, configure, ended_run, make_schedule
from tests.store.makers import HOST, NOON, at, begin

POLICIES: list[Missed] = ["skip", "once", "all"]
CONFIG = "/etc/pipeline.toml"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name the database as ``configure`` does."""
    return f"sqlite:///{tmp_path / 'pipeline.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Open it for writing."""
    with open_store(url, busy_seconds=10, for_writing=True) as store:
        yield store


def start(
    store: Store,
    *schedules: Schedule,
    now: datetime,
    host: str = HOST,
    config_path: str = CONFIG,
    is_by_hand: bool = False,
) -> Booked:
    """Book for a start at *now*, and settle what is ours at once as a run would."""
    with store.write() as session:
        booked = book(
            session,
            schedules or (make_schedule(),),
            now=now,
            host=host,
            config_path=config_path,
            is_by_hand=is_by_hand,
        )
        settle(session, slots=booked.claims, run=ended_run(started_at=now))
    return booked


def due(booked: Booked) -> list[datetime]:
    """List the slots that were claimed."""
    return [slot.due_at for slot in booked.claims]


def lines(store: Store) -> list[SlotRecord]:
    """List all slots on record, oldest first."""
    with store.read() as session:
        return list(slot_lines(session))[::-1]


def fates(store: Store) -> Counter[Fate | None]:
    """Count the fates on record."""
    return Counter(line.fate for line in lines(store))


# ---- Virtual time ----


def test_the_ledger_begins_with_the_first_slot(store: Store) -> None:
    """Nothing was promised before."""
    assert due(start(store, now=at(2))) == [NOON]
    assert fates(store) == {Fate.LATE: 1}


def test_a_second_start_for_a_slot_finds_it_taken(store: Store) -> None:
    """It leaves, without a run and without a trace."""
    start(store, now=NOON)

    assert start(store, now=at(1)) == Booked(claims=(), missed=())
    assert fates(store) == {Fate.RAN: 1}


@pytest.mark.parametrize(("policy", "caught_up"), [("skip", 0), ("once", 1), ("all", 35)])
def test_a_machine_that_was_off_for_three_hours(
    store: Store, policy: Missed, caught_up: int
) -> None:
    """All it missed is on record; how much of it is made up for is for the user to say."""
    schedule = make_schedule(missed=policy)
    start(store, schedule, now=NOON)

    booked = start(store, schedule, now=at(180))

    assert due(booked) == [at(180)]
    assert [slot.due_at for slot in booked.missed] == [at(minutes) for minutes in range(5, 180, 5)][
        35 - caught_up :
    ]
    assert fates(store) == {Fate.RAN: 2, Fate.MISSED: 35}


def test_a_clock_that_is_set_back_runs_nothing_twice(store: Store) -> None:
    """Two hours come again; their slots have had their runs."""
    for minutes in range(0, 180, 5):
        start(store, now=at(minutes))

    again = [start(store, now=at(minutes)) for minutes in range(60, 180, 5)]
    after = start(store, now=at(180))

    assert [due(booked) for booked in again] == [[]] * 24
    assert due(after) == [at(180)]
    assert fates(store) == {Fate.RAN: 37}


def test_a_clock_that_jumps_a_day_ahead_misses_a_day(store: Store) -> None:
    """By policy; and when it is put right, what it had booked as missed is run in its time."""
    schedule = make_schedule(missed="once")
    start(store, schedule, now=NOON)

    ahead = start(store, schedule, now=at(24 * 60))
    right = start(store, schedule, now=at(5))

    assert due(ahead) == [at(24 * 60)]
    assert [slot.due_at for slot in ahead.missed] == [at(24 * 60 - 5)]
    assert due(right) == [at(5)]
    assert fates(store) == {Fate.RAN: 3, Fate.MISSED: 286}


@pytest.mark.parametrize("day", [29, 25])
def test_no_slot_is_lost_or_doubled_when_the_clock_is_changed(store: Store, day: int) -> None:
    """Three days around both changes, a start every five minutes, three schedules."""
    begin_at = datetime(2026, 3 if day == 29 else 10, day - 1, tzinfo=UTC)
    schedules = [
        make_schedule(expression, timezone="Europe/Berlin", key=expression)
        for expression in ("*/5 * * * *", "0 * * * *", "30 2 * * *")
    ]

    for n in range(2 * 288):
        start(store, *schedules, now=begin_at + timedelta(minutes=5 * n))

    with store.read() as session:
        ran = Counter[str]()
        for each in slot_days(session):
            assert each.missed == each.skipped == each.interrupted == 0
            ran[each.schedule] += each.ran
    assert ran["*/5 * * * *"] == 2 * 288
    assert ran["0 * * * *"] == 48
    # The first one, of the evening before, is begun late and is what the ledger begins with.
    assert ran["30 2 * * *"] == 2


def test_two_schedulers_on_one_store_run_every_slot_once(store: Store, url: str) -> None:
    """A thousand slots; who is first is chance."""
    claimed: list[tuple[str, datetime]] = []

    def tick(host: str) -> None:
        with open_store(url, busy_seconds=30, for_writing=True) as own:
            for n in range(1_000):
                booked = start(own, now=at(5 * n), host=host)
                claimed.extend((host, slot.due_at) for slot in booked.claims)

    machines = [Thread(target=tick, args=(name,)) for name in ("a", "b")]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()

    # Whoever falls behind finds the other's slots on record, and books none as missed.
    assert sorted(due_at for _, due_at in claimed) == [at(5 * n) for n in range(1_000)]
    assert fates(store) == {Fate.RAN: 1_000}


def test_a_run_by_hand_takes_the_slot_that_is_due(store: Store) -> None:
    """Else cron would collect the same once more; but what was missed is not caught up on."""
    schedule = make_schedule(missed="all")
    start(store, schedule, now=NOON)

    booked = start(store, schedule, now=at(16), is_by_hand=True)

    assert due(booked) == [at(15)]
    assert booked.missed == ()
    assert fates(store) == {Fate.RAN: 2, Fate.MISSED: 2}


def test_a_run_by_hand_does_not_begin_the_ledger(store: Store) -> None:
    """Somebody tries the configuration out; nothing has been promised yet."""
    assert start(store, now=at(2), is_by_hand=True) == Booked(claims=(), missed=())
    assert lines(store) == []


def test_two_configurations_must_not_share_a_name(store: Store) -> None:
    """One of them would never run, and nobody would be told."""
    (slot,) = start(store, now=NOON).claims
    with store.write() as session:
        run_id = begin(session)
        begin_slots(session, slots=[slot], run=get_run(session, run_id=run_id))

    with pytest.raises(ConfigError, match=r"schedule\.name: /etc/pipeline\.toml keeps its slots"):
        start(store, now=at(1), config_path="/home/other.toml")
    assert due(start(store, now=at(1), host="elsewhere", config_path="/home/other.toml")) == []


# ---- What the rules allow ----


def test_a_schedule_that_the_rules_never_allow_is_refused(tmp_path: Path) -> None:
    """As `pipeline plan` says of it."""
    quota = (
        "[sources.dice]\nkind = 'randomnumberapi'\nurl = 'http://127.0.0.1:1'\nbatches = [2]\n"
        "min = 1\nmax = 6\nquotas = ['100 requests/day']\n"
    )

    with pytest.raises(ConfigError) as refused:
        find_possible_schedules(configure(tmp_path, "every = '5m'", quota))

    assert refused.value.complaints == (
        (
            'sources.dice: runs at "*/5 * * * *" cost 288 requests per day, the quota is 100:'
            " enough for 100 per day"
        ),
    )
    assert find_possible_schedules(configure(tmp_path, "cron = '*/5 9-16 * * *'", quota))
    with pytest.raises(ConfigError, match="there is no schedule"):
        find_possible_schedules(configure(tmp_path, "", quota))


def test_a_source_runs_as_often_as_its_own_schedule() -> None:
    """Each is held against the rules by itself."""
    rhythms = find_rhythms(
        [make_schedule(), make_schedule("0 2 * * *", key="default/coin", sources=("coin",))]
    )

    assert {name: rhythm.per_day for name, rhythm in rhythms.items()} == {"dice": 288, "coin": 1}


# ---- Real runs ----


def hourly(now: datetime, minutes_ago: int) -> str:
    """Be due every hour, last so many minutes ago: far from now, so that no test meets a slot."""
    return f"{(now - timedelta(minutes=minutes_ago)).minute} * * * *"


def collect(
    settings: Settings,
    folder: Path,
    *,
    is_by_hand: bool = False,
    overlap: Overlap = Overlap.SKIP,
) -> list[RunSummary]:
    """Start what is due; give the runs that came of it."""
    start = Start(
        settings=settings,
        slot=SlotChoice.AUTO,
        is_narrowed=False,
        is_by_hand=is_by_hand,
        is_spread=False,
        overlap=overlap,
        shown=None,
        environ={"XDG_STATE_HOME": str(folder)},
        say=lambda _: None,
    )
    with open_store(settings.store.url, busy_seconds=10, for_writing=True) as store:
        before = runs_of(store)
        start.carry_out()
        return [run for run in runs_of(store) if run.id not in {each.id for each in before}]


def runs_of(store: Store) -> list[RunSummary]:
    """List all runs, oldest first."""
    with store.read() as session:
        return recent_runs(session, limit=99)[::-1]


def begin_ledger(store: Store, settings: Settings, hours_ago: int) -> datetime:
    """Let the ledger begin with the slot so many hours before the newest, which is given."""
    schedule, *_ = find_possible_schedules(settings)
    due_at = schedule.due(datetime.now(UTC))
    began_at = due_at - timedelta(hours=hours_ago)
    with store.write() as session:
        book_missed(
            session, schedule=schedule.key, due=[began_at], host=host_identity(), now=began_at
        )
    return due_at


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_caught_up_on_gets_runs_of_its_own(
    tmp_path: Path, store: Store, policy: Missed
) -> None:
    """First what is due, then what was missed, oldest first; all of it late."""
    cron = hourly(datetime.now(UTC), 20)
    settings = configure(tmp_path, f"cron = '{cron}'\nmissed = '{policy}'")
    due_at = begin_ledger(store, settings, 4)

    runs = collect(settings, tmp_path)

    slots = {(due_at - line.due_at) // timedelta(hours=1): line for line in lines(store)}
    caught_up = {"skip": [], "once": [1], "all": [3, 2, 1]}[policy]
    assert [run.id for run in runs] == [slots[hours].run_id for hours in [0, *caught_up]]
    for hours in (0, 1, 2, 3):
        is_run = hours in (0, *caught_up)
        assert slots[hours].fate is (Fate.LATE if is_run else Fate.MISSED)
    assert all(run.status is RunStatus.OK for run in runs)


def test_only_what_is_due_is_collected(tmp_path: Path, store: Store) -> None:
    """A source with slots of its own stays out of the others'."""
    now = datetime.now(UTC)
    own = f"schedule = {{ cron = '{hourly(now, 10)}' }}\n"
    settings = configure(tmp_path, f"cron = '{hourly(now, 20)}'", DICE, COIN + own)

    both = collect(settings, tmp_path)
    nothing = collect(settings, tmp_path)
    with store.write() as session:  # as if nobody had been there for the coin
        session.connection().exec_driver_sql(
            "UPDATE slots SET fate = 'missed', run_id = NULL WHERE schedule = 'default/coin'"
        )
    coin = collect(settings, tmp_path)

    assert [run.ordered for run in both] == [3]
    assert nothing == []
    assert [run.ordered for run in coin] == [1]
    assert [line.fate for line in lines(store)] == [Fate.LATE, Fate.LATE]


def test_a_run_by_hand_is_a_run_of_everything(tmp_path: Path, store: Store) -> None:
    """Whatever is due: extra if nothing is."""
    settings = configure(tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'")
    begin_ledger(store, settings, 1)

    runs = [collect(settings, tmp_path, is_by_hand=True) for _ in range(2)]

    assert [len(each) for each in runs] == [1, 1]
    assert [line.run_id for line in lines(store)] == [None, runs[0][0].id]


def turn_path(settings: Settings) -> Path:
    """Find the lock of the configuration's turn."""
    key = hashlib.sha256(str(settings.path).encode()).hexdigest()[:8]
    return lock_path(settings.store.url, f"turn-{key}", state_folder=Path())


def test_a_slot_is_skipped_while_an_earlier_run_goes_on(tmp_path: Path, store: Store) -> None:
    """With the run that says so, and never tried again."""
    settings = configure(tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'")

    with run_lock(turn_path(settings)), pytest.raises(LockHeld, match="run 1 skipped"):
        collect(settings, tmp_path)

    assert collect(settings, tmp_path) == []
    assert [(line.fate, line.run_id) for line in lines(store)] == [(Fate.SKIPPED, 1)]


def test_a_slot_that_waits_for_an_earlier_run_is_late(tmp_path: Path, store: Store) -> None:
    """It has its claim while it waits, so that nobody else runs it."""
    settings = configure(
        tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'\ngrace_seconds = 1200"
    )
    held = ExitStack()
    held.enter_context(run_lock(turn_path(settings)))
    open_slots: list[SlotRecord] = []

    def let_go() -> None:
        wait_for(lambda: bool(lines(store)))
        open_slots.extend(lines(store))
        held.close()

    earlier = Thread(target=let_go)
    earlier.start()
    collect(settings, tmp_path, overlap=Overlap.WAIT)
    earlier.join()

    assert [(line.fate, line.run_id) for line in open_slots] == [(None, None)]
    assert [(line.fate, line.run_id) for line in lines(store)] == [(Fate.LATE, 1)]


def test_a_slot_that_may_join_an_earlier_run_is_kept(tmp_path: Path, store: Store) -> None:
    """Both go on at once."""
    settings = configure(
        tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'\ngrace_seconds = 3600"
    )

    with run_lock(turn_path(settings)):
        (run,) = collect(settings, tmp_path, overlap=Overlap.ALLOW)

    assert [(line.fate, line.run_id) for line in lines(store)] == [(Fate.RAN, run.id)]


def test_the_claim_of_a_dead_process_is_interrupted(tmp_path: Path, store: Store) -> None:
    """Killed between claiming and running: the next start finds that nobody is there."""
    settings = configure(tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'")
    (schedule,) = find_possible_schedules(settings)
    slot = schedule.claim(schedule.due(datetime.now(UTC)))
    with store.write() as session:
        claim(session, slot=slot, host=host_identity(), now=slot.due_at)

    assert collect(settings, tmp_path) == []
    assert [line.fate for line in lines(store)] == [Fate.INTERRUPTED]
    assert runs_of(store) == []


def test_a_machine_waits_for_its_place_before_it_claims(tmp_path: Path, store: Store) -> None:
    """A place that has passed is not waited for."""
    settings = configure(
        tmp_path, f"cron = '{hourly(datetime.now(UTC), 20)}'\njitter_seconds = 600"
    )

    (run,) = collect(settings, tmp_path)

    assert run.status is RunStatus.OK
    assert fates(store) == {Fate.LATE: 1}


# ---- Gaps ----


@pytest.mark.parametrize(("policy", "rows", "caught_up"), [("skip", 1, 0), ("once", 1, 1)])
def test_a_long_gap_is_one_row(store: Store, policy: Missed, rows: int, caught_up: int) -> None:
    """With its count; the newest slot of it is the one that can be caught up on."""
    schedule = make_schedule(missed=policy)
    start(store, schedule, now=NOON)

    booked = start(store, schedule, now=NOON + timedelta(days=365))

    (gap,) = [line for line in lines(store) if line.slots > 1]
    year = 365 * 24 * 12
    assert (gap.fate, gap.slots, gap.due_at) == (Fate.MISSED, year - 2, at(5))
    assert gap.last_due_at == NOON + timedelta(days=365, minutes=-10)
    assert len(lines(store)) == 3 + rows
    assert [slot.due_at for slot in booked.missed] == [at(year * 5 - 5)] * caught_up


def test_of_many_missed_slots_the_newest_are_caught_up_on(store: Store) -> None:
    """A night's worth of runs in a row helps nobody."""
    schedule = make_schedule(missed="all")
    start(store, schedule, now=NOON)

    booked = start(store, schedule, now=at(5 * 1_001))

    assert len(booked.missed) == MOST_CAUGHT_UP
    assert booked.missed[-1].due_at == at(5 * 1_000)
    assert fates(store)[Fate.MISSED] == 1_000
    assert [line.slots for line in lines(store)] == [1] * 1_002


def test_a_gap_that_was_booked_by_a_clock_ahead_is_taken_back(store: Store) -> None:
    """Nobody can have missed what is still to come."""
    start(store, now=NOON)
    start(store, now=NOON + timedelta(days=365))

    right = start(store, now=at(15))

    assert due(right) == [at(15)]
    with store.read() as session:
        (*_, last) = slot_lines(session, Window(until=at(20)))
        assert gaps(session, Window()) == []
    assert last.due_at == NOON
    assert [line.due_at for line in lines(store)[:4]] == [NOON, at(5), at(10), at(15)]


def test_a_slot_that_a_clock_ahead_had_taken_is_free_in_its_time(store: Store) -> None:
    """Runs with a higher number began before it: its run was not there yet."""
    later = NOON + timedelta(days=30)
    run_at(store, later)
    run_at(store, at(5))

    assert run_at(store, later)
    assert not run_at(store, later)


def test_a_slot_that_has_had_its_run_stays_taken(store: Store) -> None:
    """However many runs there were before it, or for slots before it."""
    assert [run_at(store, at(minutes)) for minutes in (0, 30, 60, 61, 62)] == [
        *(True, True, True),
        *(False, False),
    ]


def run_at(store: Store, now: datetime) -> bool:
    """Start at *now*, and tell whether there was a slot to run."""
    booked = start(store, now=now)
    with store.write() as session:
        run = get_run(session, run_id=begin(session, started_at=now))
        begin_slots(session, slots=booked.claims, run=run)
    return bool(booked.claims)
