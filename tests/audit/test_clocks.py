"""What an audit says of clocks that were wrong, and what it does not blame on others for them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.audit.audit import Examination, examine
from pipeline.errors import CLOCK_DOUBT, ErrorName, Phase, Whose
from pipeline.models import FindingKind, Gap, Outcome, Verdict
from pipeline.store.db import Store, open_store
from pipeline.store.slots import book_gap
from pipeline.store.window import Window
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.makers import (
    HOST,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
)

EVERY = timedelta(minutes=5)
BEGIN = datetime.now(UTC) - timedelta(hours=6)
BATTERY = datetime(1970, 1, 2, tzinfo=UTC)
EXPIRED = f"certificate: expired {CLOCK_DOUBT}: certificate has expired"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open an empty database."""
    with open_store(f"sqlite:///{tmp_path}/p.db", busy_seconds=1, for_writing=True) as store:
        yield store


def run(
    session: Session,
    started_at: datetime,
    *words: str,
    detail: str = EXPIRED,
    offset_us: int | None = None,
) -> None:
    """Carry out a run of the sources a, b and so on: "." is good, "tls" is not."""
    run_id = begin(session, started_at=started_at)
    # One number each: a six that comes for ever would be a finding of its own.
    batches = [make_batch(place, "abc"[place], n=1) for place in range(len(words))]
    order_batches(session, run_id=run_id, batches=batches)
    attempts, outcomes = [], []
    for batch, word in zip(batches, words, strict=True):
        facts = {"fetch": batch.number, "source": batch.source, "began_at": started_at}
        if word == ".":
            attempts.append(make_attempt(**facts))  # type: ignore[arg-type] # they are
            outcomes.append(make_collected(batch))
            continue
        failed = make_failed_attempt(error=ErrorName.TLS, phase=Phase.TLS, **facts)  # type: ignore[arg-type]
        attempts.append(replace(failed, detail=detail, status=None))
        lost = {"batch": batch, "verdict": Verdict.FAILED, "fetch": batch.number, "attempt": 1}
        outcomes.append(Outcome(error=ErrorName.TLS, **lost))  # type: ignore[arg-type]
    save_results(session, run_id=run_id, attempts=attempts, outcomes=outcomes, keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=started_at, clock_us=1, clock_offset_us=offset_us)


def judge(session: Session, since: datetime | None = BEGIN) -> Examination:
    """Look at the last hours."""
    return examine(session, Window(since=since), enabled=["a", "b", "c"])


def test_certificates_of_all_sources_that_fail_at_once_are_our_clock(store: Store) -> None:
    """Two authorities do not let two certificates expire in one minute, and mend them both."""
    with store.write() as session:
        for number, words in enumerate((". .", "tls tls", "tls tls", ". .")):
            run(session, BEGIN + number * EVERY, *words.split())
        found = judge(session)

    (incident,) = found.findings
    assert (incident.kind, incident.whose) == (FindingKind.INCIDENT, Whose.OURS)
    assert incident.reason.endswith("the clock here was wrong")
    assert {each.down_us for each in found.availability} == {0}


@pytest.mark.parametrize(
    ("words", "detail"),
    [("tls . .", EXPIRED), ("tls tls .", "certificate: unknown issuer: self-signed certificate")],
)
def test_what_fails_alone_or_for_another_reason_is_theirs(
    store: Store, words: str, detail: str
) -> None:
    """Certificates do expire."""
    with store.write() as session:
        run(session, BEGIN, ".", ".", ".")
        run(session, BEGIN + EVERY, *words.split(), detail=detail)
        found = judge(session)

    assert {each.whose for each in found.findings} == {Whose.UPSTREAM}
    assert found.availability[0].down_us > 0


@pytest.mark.parametrize(
    ("seconds", "is_off"), [(59, False), (-59, False), (75, True), (-75, True)]
)
def test_the_clocks_of_upstreams_tell_ours(store: Store, seconds: int, is_off: bool) -> None:
    """More than a minute is told, and then one source's certificate is no fault of its own."""
    offset_us = seconds * 1_000_000
    with store.write() as session:
        run(session, BEGIN, ".", ".", offset_us=0)
        run(session, BEGIN + EVERY, "tls", ".", offset_us=offset_us)
        found = judge(session)

    told = {each.kind: each for each in found.findings}
    assert (FindingKind.CLOCK in told) is is_off
    assert told[FindingKind.INCIDENT].whose is (Whose.OURS if is_off else Whose.UPSTREAM)
    if is_off:
        how = "ahead" if seconds > 0 else "behind"
        assert told[FindingKind.CLOCK].reason.endswith(f"run 2 had a clock that was 75 s {how}")


@pytest.mark.parametrize("wrong", [BATTERY, BEGIN + timedelta(days=365), BEGIN - timedelta(days=9)])
@pytest.mark.parametrize("since", [None, BEGIN])
def test_a_run_out_of_its_time_makes_no_downtime(
    store: Store, wrong: datetime, since: datetime | None
) -> None:
    """It was 36 years of it. And those like it are one finding."""
    right = [BEGIN + number * EVERY for number in range(6)]
    with store.write() as session:
        for moment in [*right[:3], wrong, wrong + EVERY, *right[3:]]:
            run(session, moment, "." if moment in right else "tls")
        found = judge(session, since)

    (finding,) = found.findings
    assert (finding.kind, finding.sources) == (FindingKind.CLOCK, ("a",))
    assert finding.reason.startswith("2 runs from 4 to 5 had a clock that was")
    assert [each.down_us for each in found.availability] == [0]
    assert found.findings.are_alarming


def test_a_gap_is_told(store: Store) -> None:
    """How many slots, from when to when."""
    first, last = BEGIN + EVERY, BEGIN + timedelta(hours=4)
    gap = Gap(schedule="default", due_at=first, last_due_at=last, slots=29_000)
    with store.write() as session:
        book_gap(session, gap=gap, host=HOST, now=last)
        run(session, BEGIN, ".")
        (finding,) = judge(session).findings

    assert (finding.kind, finding.since, finding.until) == (FindingKind.MISSED, first, last)
    assert "29,000 slots" in finding.reason


def test_a_run_that_lies_in_the_future_is_told_though_it_came_before_the_window(
    store: Store,
) -> None:
    """Its number is below those of the window, and its time beyond: it must not fall between."""
    with store.write() as session:
        run(session, datetime.now(UTC) + timedelta(days=364), ".")
        for number in range(3):
            run(session, BEGIN + number * EVERY, ".")

        found = judge(session)

    [finding] = [each for each in found.findings if each.kind is FindingKind.CLOCK]
    assert finding.reason.startswith("run 1 had a clock that was 36")
    assert finding.whose is Whose.OURS
