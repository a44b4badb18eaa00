"""What is added up when a run ends: per source, per loss, and how long the phases took.

Reports over years read these rows alone. They stay when the batches and attempts of a run are
pruned, so everything that is asked of an old run must be here.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlmodel import Session

from pipeline.errors import Phase
from pipeline.histogram import Histogram
from pipeline.models import Step, Tally, Verdict
from pipeline.pacing import Rate, Rules
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    LOSSES,
    PHASE_COLUMNS,
    RUNS,
    TALLIES,
    TIMINGS,
)

NOT_KNOWN: Mapping[str, Rules] = MappingProxyType({})
EXCHANGE = "exchange"  # among the phases: all of an attempt but its wait
ROWS_AT_ONCE = 1_000
NOT_OURS = 0  # in the place of an attempt's id
MOST_OTHERS = 10  # runs whose requests may crowd those of this one

_OF_AN_ATTEMPT = ("id", "source", "fetch", "number", "began_at", "error", "phase", "retry_after_us")
_OF_A_BATCH = ("source", "n", "min", "max", "verdict", "fetch", "attempt", "sum", "error")
_ATTEMPTS = (
    select(*(ATTEMPTS.c[name] for name in (*_OF_AN_ATTEMPT, *PHASE_COLUMNS.values())))
    .order_by(ATTEMPTS.c.fetch, ATTEMPTS.c.number)
    .execution_options(yield_per=ROWS_AT_ONCE)
)
_BATCHES = (
    select(*(BATCHES.c[name] for name in _OF_A_BATCH))
    .order_by(BATCHES.c.number)
    .execution_options(yield_per=ROWS_AT_ONCE)
)
_ADD_TALLY, _ADD_LOSS, _ADD_TIMING = insert(TALLIES), insert(LOSSES), insert(TIMINGS)


@dataclass(slots=True)
class _Loss:
    attempts: int = 0
    batches: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    first_attempt: int | None = None
    last_attempt: int | None = None


@dataclass(slots=True)
class _SourceBooks:
    """What is known of one source while the rows of a run go by."""

    min: int = 0
    max: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    sum: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    retries: int = 0
    retries_helped: int = 0
    fastest: tuple[int, int] | None = None
    sent: list[tuple[datetime, int]] = field(default_factory=list)
    embargoes: list[tuple[datetime, datetime]] = field(default_factory=list)
    phases: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))

    def add_attempt(self, row: Row[*tuple[Any, ...]]) -> None:
        """Count one attempt."""
        attempt_id, _, _, number, began_at, error, _, retry_after_us, *phases = row
        wait_us, exchange_us = phases[0] or 0, 0
        for phase, us in zip(PHASE_COLUMNS, phases, strict=True):
            if us is not None:
                self.phases[phase].add(us)
                exchange_us += us
        exchange_us -= wait_us
        self.phases[EXCHANGE].add(exchange_us)
        self.attempts += 1
        self.retries += number > 1
        if error is None:
            self.retries_helped += number > 1
            if self.fastest is None or exchange_us < self.fastest[0]:
                self.fastest = (exchange_us, attempt_id)
        else:
            self.failed_attempts += 1
        if any(us is not None for us in phases[1:]):  # else it was never allowed to go
            self.sent.append((began_at + timedelta(microseconds=wait_us), attempt_id))
        if retry_after_us is not None:
            answered_at = began_at + timedelta(microseconds=wait_us + exchange_us)
            self.embargoes.append((answered_at, _later(answered_at, retry_after_us)))

    def violations(self, rate: Rate | None, others: Iterable[datetime]) -> list[int]:
        """List the attempts that were let go against *rate*, or before a time that was named.

        *others* are requests of other runs: what came too soon after them is ours to answer for.
        """
        broken = set(self._too_early(sorted(self.sent)))
        if rate is not None:
            window = timedelta(seconds=rate.period_seconds)
            sent = sorted([*self.sent, *((moment, NOT_OURS) for moment in others)])
            for (earlier, _), (moment, attempt_id) in zip(
                sent, sent[rate.requests :], strict=False
            ):
                if moment - earlier < window:
                    broken.add(attempt_id)
        return sorted(broken - {NOT_OURS})

    def _too_early(self, sent: Iterable[tuple[datetime, int]]) -> Iterator[int]:
        """Walk over what was let go after an answer that had named a later moment."""
        coming = sorted(self.embargoes, reverse=True)
        until: datetime | None = None
        for moment, attempt_id in sent:
            while coming and coming[-1][0] < moment:
                named = coming.pop()[1]
                until = named if until is None else max(until, named)
            if until is not None and moment < until:
                yield attempt_id


_Books = defaultdict[str, _SourceBooks]
_Losses = defaultdict[tuple[str, str, str], _Loss]


def _later(moment: datetime, us: int) -> datetime:
    try:
        return moment + timedelta(microseconds=us)
    except OverflowError:  # an upstream may ask for 292,000 years
        return datetime.max.replace(tzinfo=moment.tzinfo)


def summarise_run(
    session: Session, *, run_id: int, rules: Mapping[str, Rules] = NOT_KNOWN
) -> list[Tally]:
    """Add up what *run_id* got from each of its sources, write it down, and give it.

    Call it once for a run, when all its batches are decided. *rules* are those in force, by
    source; where they are not known, nobody can say whether they were kept.
    """
    connection = session.connection()
    started_at = connection.scalars(select(RUNS.c.started_at).where(RUNS.c.id == run_id)).one()
    books, losses = _read_run(connection, run_id)
    tallies = [
        _tally(session, of, rules.get(source), run_id=run_id, started_at=started_at, source=source)
        for source, of in books.items()
    ]
    if tallies:
        rows = [asdict(tally) | {"sum": str(tally.sum)} for tally in tallies]
        session.exec(_ADD_TALLY, params=rows)
    if losses:
        run = {"started_at": started_at, "run_id": run_id}
        rows = [run | _loss_row(*key, loss, started_at) for key, loss in losses.items()]
        session.exec(_ADD_LOSS, params=rows)
    _add_timings(session, started_at, {source: of.phases for source, of in books.items()})
    return tallies


def _read_run(connection: Connection, run_id: int) -> tuple[_Books, _Losses]:
    """Go through the attempts and batches of a run once; its losses are by error and phase."""
    books, losses = _Books(_SourceBooks), _Losses(_Loss)
    failed: dict[tuple[int, int], tuple[str, str]] = {}
    for row in connection.execute(_ATTEMPTS.where(ATTEMPTS.c.run_id == run_id)):
        books[row.source].add_attempt(row)
        if row.error is not None:
            failed[row.fetch, row.number] = (row.error, row.phase)
            sent_at = row.began_at + timedelta(microseconds=row.wait_us or 0)
            _add_failure(losses[row.source, row.error, row.phase], sent_at, row.id)
    for row in connection.execute(_BATCHES.where(BATCHES.c.run_id == run_id)):
        source, n, low, high, verdict, fetch, attempt, total, error = row
        of = books[source]
        of.min, of.max = low, high
        of.verdicts[verdict] += 1
        if verdict == Verdict.COLLECTED.value:
            of.numbers += n
            of.sum += total
        elif error is not None:
            because, phase = failed.get((fetch, attempt), ("", ""))
            losses[source, error, phase if because == error else ""].batches += 1
    return books, losses


def _add_failure(loss: _Loss, sent_at: datetime, attempt_id: int) -> None:
    loss.attempts += 1
    if loss.first_at is None or sent_at < loss.first_at:
        loss.first_at, loss.first_attempt = sent_at, attempt_id
    if loss.last_at is None or sent_at >= loss.last_at:
        loss.last_at, loss.last_attempt = sent_at, attempt_id


def _loss_row(
    source: str, error: str, phase: str, loss: _Loss, started_at: datetime
) -> dict[str, object]:
    facts = asdict(loss)
    facts |= {"first_at": loss.first_at or started_at, "last_at": loss.last_at or started_at}
    return facts | {"source": source, "error": error, "phase": phase}


def _tally(
    session: Session,
    books: _SourceBooks,
    rules: Rules | None,
    *,
    run_id: int,
    started_at: datetime,
    source: str,
) -> Tally:
    rate = None if rules is None else rules.rate
    others = [] if rate is None else _others_sent(session, source, started_at, rate)
    broken = None if rules is None else books.violations(rate, others)
    fastest_us, fastest_attempt = books.fastest or (None, None)
    moments = [moment for moment, _ in books.sent]
    waited = books.phases.get(Phase.WAIT)
    exchanged = books.phases.get(EXCHANGE)
    return Tally(
        started_at=started_at,
        run_id=run_id,
        source=source,
        min=books.min,
        max=books.max,
        collected=books.verdicts[Verdict.COLLECTED.value],
        failed=books.verdicts[Verdict.FAILED.value],
        deferred=books.verdicts[Verdict.DEFERRED.value],
        cancelled=books.verdicts[Verdict.CANCELLED.value],
        numbers=books.numbers,
        sum=books.sum,
        attempts=books.attempts,
        failed_attempts=books.failed_attempts,
        retries=books.retries,
        retries_helped=books.retries_helped,
        wait_us=waited.total_us if waited else 0,
        exchange_us=exchanged.total_us if exchanged else 0,
        fastest_us=fastest_us,
        fastest_attempt=fastest_attempt,
        first_sent_at=min(moments, default=None),
        last_sent_at=max(moments, default=None),
        rule=None if rate is None else _rule(rate),
        violations=None if broken is None else len(broken),
        violating_attempt=broken[0] if broken else None,
    )


def _rule(rate: Rate) -> str:
    return f"{rate.requests}/{rate.period_seconds:g}s"


def _others_sent(session: Session, source: str, started_at: datetime, rate: Rate) -> list[datetime]:
    """Find when the runs before, or beside, sent their first and last requests under this rule.

    Those under another rule, or none, may have gone to another upstream: a name can be given to
    the sandbox today and to the real one tomorrow.
    """
    # Runs may last as long as a deadline may: a day.
    since = started_at - timedelta(days=1, seconds=rate.period_seconds)
    query = (
        select(TALLIES.c.first_sent_at, TALLIES.c.last_sent_at)
        .where(
            TALLIES.c.source == source,
            TALLIES.c.rule == _rule(rate),
            TALLIES.c.started_at >= since,
            TALLIES.c.last_sent_at.is_not(None),
        )
        .order_by(TALLIES.c.started_at.desc())
        .limit(MOST_OTHERS)
    )
    # In a set of each: a run with one request has sent it first and last.
    return [
        moment for first, last in session.connection().execute(query) for moment in {first, last}
    ]


def period_begin(moment: datetime, step: Step) -> datetime:
    """Give the hour or day in UTC that *moment* falls into, by its first instant."""
    midnight = moment.replace(minute=0, second=0, microsecond=0)
    return midnight if step is Step.HOUR else midnight.replace(hour=0)


def _add_timings(
    session: Session, started_at: datetime, phases: Mapping[str, Mapping[str, Histogram]]
) -> None:
    """Add the durations of a run to the hour and the day in which it started."""
    for step in Step:
        began_at = period_begin(started_at, step)
        is_period = (TIMINGS.c.step == step.value) & (TIMINGS.c.began_at == began_at)
        query = select(TIMINGS.c.source, TIMINGS.c.phases).where(is_period).with_for_update()
        known = {row.source: row.phases for row in session.connection().execute(query)}
        new: list[dict[str, object]] = []
        for source, histograms in phases.items():
            if not histograms:
                continue
            if source in known:
                whole = _merged(json.loads(known[source]), histograms)
                session.exec(
                    update(TIMINGS)
                    .where(is_period, TIMINGS.c.source == source)
                    .values(phases=_dumped(whole))
                )
            else:
                new.append(
                    {
                        "step": step.value,
                        "began_at": began_at,
                        "source": source,
                        "phases": _dumped(histograms),
                    }
                )
        if new:
            session.exec(_ADD_TIMING, params=new)


def _merged(stored: Mapping[str, Any], new: Mapping[str, Histogram]) -> dict[str, Histogram]:
    whole = {phase: Histogram.from_json(facts) for phase, facts in stored.items()}
    for phase, histogram in new.items():
        if phase in whole:
            whole[phase].merge(histogram)
        else:
            whole[phase] = histogram
    return whole


def _dumped(histograms: Mapping[str, Histogram]) -> str:
    stored = {phase: histogram.to_json() for phase, histogram in histograms.items()}
    return json.dumps(stored, separators=(",", ":"))
