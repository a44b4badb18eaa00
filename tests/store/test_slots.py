"""The ledger in the store: who has which slot, and what became of it."""

from datetime import date, timedelta
from threading import Thread

import pytest
from sqlmodel import Session

from pipeline.models import Fate, RunStatus, RunSummary, SlotClaim, SlotDay, SlotRecord
from pipeline.store.db import Store, open_store
from pipeline.store.queries import get_run
from pipeline.store.slots import (
    begin,
    book_missed,
    claim,
    find_rival,
    interrupt_dead,
    newest_due,
    recent_slots,
    settle,
    slot_days,
    slot_lines,
)
from pipeline.store.window import Window
from pipeline.store.writes import finish_run
from tests.store.makers import HOST, NOON, at
from tests.store.makers import begin as begin_run

MINUTE_US = 60_000_000


def slot(minutes: int = 0, schedule: str = "default") -> SlotClaim:
    """Be due so many minutes after noon, with a minute of grace."""
    return SlotClaim(schedule=schedule, due_at=at(minutes), grace_us=MINUTE_US)


def take(session: Session, *slots: SlotClaim, host: str = HOST) -> list[bool]:
    """Try to claim *slots* when they are due."""
    return [claim(session, slot=each, host=host, now=each.due_at) for each in slots]


def end_run(
    session: Session, *slots: SlotClaim, minutes: int = 0, status: RunStatus | None = None
) -> RunSummary:
    """Carry out a run for *slots* that starts so many minutes after noon."""
    run_id = begin_run(session, started_at=at(minutes))
    begin(session, slots=slots, run=get_run(session, run_id=run_id))
    finish_run(session, run_id=run_id, status=status, ended_at=at(minutes), clock_us=0)
    run = get_run(session, run_id=run_id)
    settle(session, slots=slots, run=run)
    return run


def only(session: Session) -> SlotRecord:
    """Give the one slot that there is."""
    (record,) = slot_lines(session)
    return record


def test_a_slot_can_be_taken_once(store: Store) -> None:
    """Two runs for one slot would ask twice, and one of them would be in no books."""
    with store.write() as session:
        assert take(session, slot(), slot(), slot(5), slot(schedule="other")) == [
            True,
            False,
            True,
            True,
        ]


def test_of_two_processes_one_gets_the_slot(store: Store, url: str) -> None:
    """Whoever they are: the same line on two machines is safe."""
    taken: list[tuple[str, int]] = []

    def start(host: str) -> None:
        with open_store(url, busy_seconds=10, for_writing=True) as own:
            for minutes in range(1_000):
                with own.write() as session:
                    if claim(session, slot=slot(minutes), host=host, now=NOON):
                        taken.append((host, minutes))

    machines = [Thread(target=start, args=(name,)) for name in ("a", "b")]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()

    assert sorted(minutes for _, minutes in taken) == list(range(1_000))
    with store.read() as session:
        assert sum(1 for _ in slot_lines(session)) == 1_000


@pytest.mark.parametrize(
    ("minutes", "status", "fate", "late_us"),
    [
        (0, None, Fate.RAN, 0),
        (-1, None, Fate.RAN, 0),
        (1, None, Fate.RAN, MINUTE_US),
        (2, None, Fate.LATE, 2 * MINUTE_US),
        (2, RunStatus.SKIPPED, Fate.SKIPPED, 2 * MINUTE_US),
        (0, RunStatus.INTERRUPTED, Fate.INTERRUPTED, 0),
        (0, RunStatus.FAILED, Fate.RAN, 0),
    ],
)
def test_the_run_decides_the_fate(
    store: Store, minutes: int, status: RunStatus | None, fate: Fate, late_us: int
) -> None:
    """A slot is kept if its run took place, whatever the upstreams made of it."""
    with store.write() as session:
        take(session, slot())
        run = end_run(session, slot(), minutes=minutes, status=status)

        record = only(session)

    assert (record.fate, record.run_id, record.late_us) == (fate, run.id, late_us)
    assert (record.host, record.claimed_at) == (HOST, NOON)


def test_missed_slots_are_booked_beside_what_is_on_record(store: Store) -> None:
    """What has a fate keeps it, however often somebody looks back."""
    with store.write() as session:
        take(session, slot(5))
        end_run(session, slot(5), minutes=5)
        for _ in range(2):
            due = [at(minutes) for minutes in (0, 5, 10)]
            book_missed(session, schedule="default", due=due, host=HOST, now=at(15))

        fates = [record.fate for record in slot_lines(session)]

    assert fates == [Fate.MISSED, Fate.RAN, Fate.MISSED]


def test_a_year_of_missed_slots_is_booked(store: Store) -> None:
    """A machine comes back after a long time; that must not take its memory."""
    due = (NOON + timedelta(minutes=5) * n for n in range(20_000))

    with store.write() as session:
        book_missed(session, schedule="default", due=due, host=HOST, now=NOON)

    with store.read() as session:
        assert sum(day.missed for day in slot_days(session)) == 20_000


def test_a_missed_slot_can_be_run_after_all_and_once(store: Store) -> None:
    """To catch up, or because the clock was ahead when it was booked."""
    with store.write() as session:
        book_missed(session, schedule="default", due=[NOON], host="other", now=at(5))

        assert take(session, slot(), slot()) == [True, False]

        assert (only(session).fate, only(session).host) == (None, HOST)


def test_the_slots_of_the_dead_are_interrupted(store: Store) -> None:
    """With a run or without: killed in between, a slot must not stay open for ever."""
    with store.write() as session:
        take(session, slot(0), slot(5), slot(10))
        take(session, slot(15), host="elsewhere")
        take(session, slot(20))
        end_run(session, slot(0))
        dead, alive = (get_run(session, run_id=begin_run(session)) for _ in range(2))
        begin(session, slots=[slot(5)], run=dead)
        begin(session, slots=[slot(20)], run=alive)
        finish_run(
            session, run_id=dead.id, status=RunStatus.INTERRUPTED, ended_at=at(9), clock_us=None
        )

        interrupt_dead(session)

        fates = [record.fate for record in slot_lines(session)]

    assert fates == [None, *[Fate.INTERRUPTED] * 3, Fate.RAN]


def test_on_a_server_a_slot_may_wait_for_its_run(store: Store) -> None:
    """Its process may wait for its turn, which nobody can see; and late is not too late."""
    with store.write() as session:
        take(session, slot(0))
        interrupt_dead(session, claimed_before=NOON)

        assert only(session).fate is None

        interrupt_dead(session, claimed_before=at(120))

        assert only(session).fate is Fate.INTERRUPTED

        begin(session, slots=[slot(0)], run=get_run(session, run_id=begin_run(session)))

        assert only(session).fate is None


def test_the_newest_slot_before_a_moment(store: Store) -> None:
    """From there on nobody has looked."""
    with store.write() as session:
        take(session, slot(0), slot(5), slot(10), slot(7, schedule="other"))

        assert newest_due(session, schedule="default", before=at(10)) == at(5)
        assert newest_due(session, schedule="default", before=NOON) is None
        assert newest_due(session, schedule="unknown", before=at(10)) is None


def test_a_rival_is_another_configuration_of_this_machine(store: Store) -> None:
    """On another machine the same configuration may well lie in another folder."""
    with store.write() as session:
        take(session, slot())
        assert find_rival(session, slot=slot(), host=HOST, config_path="/mine") is None
        end_run(session, slot())

        found = [
            find_rival(session, slot=slot(), host=host, config_path=path)
            for host, path in [(HOST, "/mine"), ("other", "/mine"), (HOST, "/etc/pipeline.toml")]
        ]

    assert found == ["/etc/pipeline.toml", None, None]


def test_slots_are_listed_newest_first_within_their_time(store: Store) -> None:
    """The end of the span is left out, so that spans side by side share nothing."""
    with store.write() as session:
        take(session, slot(0), slot(5), slot(10), slot(5, schedule="other"))

        within = [
            (line.due_at, line.schedule)
            for line in slot_lines(session, Window(since=at(5), until=at(10)))
        ]
        few = [line.due_at for line in slot_lines(session, limit=1)]
        recent = [
            line.due_at
            for line in recent_slots(session, schedule="default", limit=2, until=at(1_000))
        ]

    assert within == [(at(5), "default"), (at(5), "other")]
    assert few == [at(10)]
    assert recent == [at(10), at(5)]


def test_a_day_adds_up_to_its_slots(store: Store) -> None:
    """Each slot is counted under one fate, or as running."""
    day = 24 * 60
    with store.write() as session:
        take(session, slot(0), slot(5), slot(10), slot(day), slot(0, schedule="other"))
        end_run(session, slot(0))
        end_run(session, slot(5), minutes=9)
        book_missed(session, schedule="default", due=[at(15), at(day + 5)], host=HOST, now=NOON)

        days = slot_days(session)
        later = slot_days(session, Window(since=at(day), until=at(day + 5)))

    def of(schedule: str, number: int, **counts: int | None) -> SlotDay:
        nothing = dict.fromkeys(("ran", "late", "skipped", "missed", "interrupted", "running"), 0)
        values: dict[str, int | None] = {**nothing, "late_us": None, **counts}
        return SlotDay(schedule=schedule, day=date(2026, 3, number), **values)  # type: ignore[arg-type] # only late_us may be None

    assert days == [
        of("default", 1, ran=1, late=1, running=1, missed=1, late_us=4 * MINUTE_US),
        of("default", 2, running=1, missed=1),
        of("other", 1, running=1),
    ]
    assert later == [of("default", 2, running=1)]
