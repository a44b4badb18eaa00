"""Add a run up when it ends: by source, by error, and how long the phases took.

Reports over years read these rows alone. They stay when the batches and attempts of a run are
pruned, so everything that is asked of an old run must be here.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, delete, func, insert, literal, select
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.histogram import Histogram
from pipeline.models import Loss, Step, Tally, Totals, Verdict
from pipeline.pacing import Rate, Rules
from pipeline.store.columns import PHASE_COLUMNS, from_us, name_of, to_us
from pipeline.store.rows import NONE_KNOWN, ROWS_AT_ONCE, AnyRow, as_row, execute_many, insert_into
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    DAY_LOSSES,
    DAYS,
    LOSSES,
    MONTHS,
    RUNS,
    SHEETS,
    TALLIES,
    TIMINGS,
)

EXCHANGE = "exchange"  # among the phases: all of an attempt but its wait
NOT_OURS = 0  # in the place of an attempt's id
MOST_OTHERS = 10  # runs whose requests may crowd those of this one

COUNTS = tuple(each.name for each in fields(Totals))
# The totals of a run, and what the same figures are called in its tallies.
RUN_TOTALS = {
    **{name: name for name in (*map(str, Verdict), "numbers", "attempts")},
    # Waits for permission are left out: one by one there would be none to queue behind.
    "waited_us": "exchange_us",
}

_HALF = 32  # bits

_OF_AN_ATTEMPT = ("source", "id", "number", "began_at", "error", "phase", "retry_after_us")
_ATTEMPTS = (
    select(*(ATTEMPTS.c[name] for name in (*_OF_AN_ATTEMPT, *PHASE_COLUMNS.values())))
    .where(ATTEMPTS.c.run_id == bindparam("run"))
    .order_by(ATTEMPTS.c.fetch, ATTEMPTS.c.number)
    .execution_options(yield_per=ROWS_AT_ONCE)
)
_OF_A_RANGE = [BATCHES.c[name] for name in ("source", "is_sandbox", "min", "max")]
_OF_THE_RUN = BATCHES.c.run_id == bindparam("run")
_BATCHES = (
    # The sums by halves: SQLite gives up where one would be beyond 64 bits.
    select(
        *(*_OF_A_RANGE, BATCHES.c.verdict),
        func.count().label("batches"),
        func.sum(BATCHES.c.n).label("numbers"),
        func.sum(BATCHES.c.sum.bitwise_rshift(literal(_HALF, Integer))).label("upper"),
        func.sum(BATCHES.c.sum.bitwise_and((1 << _HALF) - 1)).label("lower"),
    )
    .where(_OF_THE_RUN)
    .group_by(*_OF_A_RANGE, BATCHES.c.verdict)
    .order_by(name_of(BATCHES.c.source))
)
# In the phase in which the last attempt ended, if that ended in the same error.
_LOST = (
    select(BATCHES.c.source, BATCHES.c.error, ATTEMPTS.c.phase, func.count())
    .outerjoin(
        ATTEMPTS,
        (ATTEMPTS.c.run_id == BATCHES.c.run_id)
        & (ATTEMPTS.c.fetch == BATCHES.c.fetch)
        & (ATTEMPTS.c.number == BATCHES.c.attempt)
        & (ATTEMPTS.c.error == BATCHES.c.error),
    )
    .where(_OF_THE_RUN, BATCHES.c.error.is_not(None))
    .group_by(BATCHES.c.source, BATCHES.c.error, ATTEMPTS.c.phase)
)
_ADD_TALLY, _ADD_LOSS = insert(TALLIES), insert(LOSSES)


_How = tuple[ErrorName, Phase | None]


@dataclass(slots=True)
class _SourceBooks:
    """The sums of one source, while the rows of a run are read."""

    is_sandbox: bool = False
    min: int = 0
    max: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    fastest: tuple[int, int] | None = None
    # Moments in microseconds, and ids: as objects those of a large run would take 14 MB.
    sent_us: "array[int]" = field(default_factory=lambda: array("q"))
    sent_ids: "array[int]" = field(default_factory=lambda: array("q"))
    embargoes: list[tuple[datetime, datetime]] = field(default_factory=list)
    phases: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    failures: defaultdict[_How, list[tuple[datetime, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    lost: Counter[_How] = field(default_factory=Counter)

    def add_attempts(self, rows: Sequence[AnyRow]) -> None:
        """Count attempts, a column of *rows* after the other: a loop over them costs most of it."""
        _, ids, numbers, began_at, errors, _, retries_after, *durations = zip(*rows, strict=True)
        waits = [us or 0 for us in durations[0]]
        phases = list(zip(*durations[1:], strict=True))
        exchanges = [sum(filter(None, each)) for each in phases]
        again = [error for error, number in zip(errors, numbers, strict=True) if number > 1]
        self.counts.update(
            attempts=len(rows),
            failed_attempts=len(rows) - errors.count(None),
            retries=len(again),
            retries_helped=again.count(None),
            wait_us=sum(waits),
            exchange_us=sum(exchanges),
        )
        for phase, took in zip((*PHASE_COLUMNS, EXCHANGE), (*durations, exchanges), strict=True):
            if known := [us for us in took if us is not None]:
                self.phases[phase].add_all(known)
        good = zip(exchanges, ids, errors, strict=True)
        times = [(us, attempt_id) for us, attempt_id, error in good if error is None]
        self.fastest = min(filter(None, (self.fastest, min(times, default=None))), default=None)
        for attempt_id, at, wait_us, each in zip(ids, began_at, waits, phases, strict=True):
            if each.count(None) < len(each):  # else it was never allowed to go
                self.sent_us.append(to_us(at) + wait_us)
                self.sent_ids.append(attempt_id)
        if any(retries_after):
            sent_at = map(_later, began_at, waits)
            for at, us, wait_us in zip(sent_at, exchanges, retries_after, strict=True):
                if wait_us is not None:
                    self.embargoes.append((_later(at, us), _later(_later(at, us), wait_us)))
        for row in rows:
            if row.error is not None:
                sent = (_later(row.began_at, row.wait_us or 0), row.id)
                self.failures[row.error, row.phase].append(sent)

    @property
    def ways(self) -> list[_How]:
        """List in which ways anything was lost."""
        return [*{**self.failures, **self.lost}]

    def violations(self, rate: Rate | None, others: Iterable[datetime]) -> list[int]:
        """List the attempts that were sent faster than *rate*, or before a time that was named.

        *others* are requests of other runs: what came too soon after them is ours to answer for.
        """
        broken = set(self._too_early(self._sent())) if self.embargoes else set()
        if rate is not None:
            window = timedelta(seconds=rate.period_seconds)
            sent = sorted([*self._sent(), *((moment, NOT_OURS) for moment in others)])
            pairs = zip(sent, sent[rate.requests :], strict=False)
            broken |= {of for (earlier, _), (moment, of) in pairs if moment - earlier < window}
        return sorted(broken - {NOT_OURS})

    def _sent(self) -> list[tuple[datetime, int]]:
        """List the attempts that were allowed to go in the order of time."""
        return sorted(zip(map(from_us, self.sent_us), self.sent_ids, strict=True))

    def _too_early(self, sent: Iterable[tuple[datetime, int]]) -> Iterator[int]:
        """List what was sent although an earlier answer had named a later moment."""
        coming = sorted(self.embargoes, reverse=True)
        until: datetime | None = None
        for moment, attempt_id in sent:
            while coming and coming[-1][0] < moment:
                named = coming.pop()[1]
                until = named if until is None else max(until, named)
            if until is not None and moment < until:
                yield attempt_id


def _later(moment: datetime, us: int) -> datetime:
    try:
        return moment + timedelta(microseconds=us)
    except OverflowError:  # an upstream may ask for a wait of 292,000 years
        return datetime.max.replace(tzinfo=moment.tzinfo)


def summarise_run(session: Session, *, run_id: int, rules: Mapping[str, Rules]) -> list[Tally]:
    """Add up what *run_id* got from each of its sources, write it down, and give it.

    Call it once for a run, when all its batches are decided. *rules* are those in force, by
    source; where they are not known, nobody can say whether they were kept.
    """
    connection = session.connection()
    started_at = connection.scalars(select(RUNS.c.started_at).where(RUNS.c.id == run_id)).one()
    run: dict[str, Any] = {"started_at": started_at, "run_id": run_id}
    books = _read_run(connection, run_id)
    tallies = [_tally(session, run, each, of, rules.get(each)) for each, of in books.items()]
    losses = [_loss(run, each, how, of) for each, of in books.items() for how in of.ways]
    execute_many(session, _ADD_TALLY, (as_row(TALLIES, tally) for tally in tallies))
    execute_many(session, _ADD_LOSS, (as_row(LOSSES, loss) for loss in losses))
    _open_again(connection, started_at)
    _add_timings(session, started_at, {source: of.phases for source, of in books.items()})
    return tallies


def _open_again(connection: Connection, started_at: datetime) -> None:
    """Take away the sums of the day and the month, if they are closed: a run is missing there."""
    day = period_begin(started_at, Step.DAY)
    connection.execute(delete(MONTHS).where(MONTHS.c.began_at == day.replace(day=1)))
    for table in (SHEETS, DAYS, DAY_LOSSES):
        if not connection.execute(delete(table).where(table.c.began_at == day)).rowcount:
            break  # without a sheet there are no sums


def _read_run(connection: Connection, run_id: int) -> dict[str, _SourceBooks]:
    """Read the attempts of a run once, and what became of its batches, by source."""
    books: defaultdict[str, _SourceBooks] = defaultdict(_SourceBooks)
    chosen = {"run": run_id}
    for rows in connection.execute(_ATTEMPTS, chosen).partitions():
        for source, some in groupby(rows, key=itemgetter(0)):
            books[source].add_attempts(list(some))
    for row in connection.execute(_BATCHES, chosen):
        of = books[row.source]
        of.is_sandbox, of.min, of.max = row.is_sandbox, row.min, row.max
        of.counts[row.verdict] += row.batches
        if row.verdict == Verdict.COLLECTED:
            of.counts["numbers"] += int(row.numbers)
            of.counts["sum"] += (int(row.upper) << _HALF) + int(row.lower)
    for source, error, phase, n in connection.execute(_LOST, chosen):
        books[source].lost[error, phase] = n
    return books


def _loss(run: Mapping[str, Any], source: str, how: _How, books: _SourceBooks) -> Loss:
    error, phase = how
    sent = books.failures.get(how, [])
    first_at, first_attempt = min(sent, default=(run["started_at"], None))
    last_at, last_attempt = max(sent, default=(run["started_at"], None))
    return Loss(
        **run,
        source=source,
        error=error,
        phase=phase,
        attempts=len(sent),
        batches=books.lost[how],
        first_at=first_at,
        last_at=last_at,
        first_attempt=first_attempt,
        last_attempt=last_attempt,
    )


def _tally(
    session: Session, run: Mapping[str, Any], source: str, books: _SourceBooks, rules: Rules | None
) -> Tally:
    rate = None if rules is None else rules.rate
    others = [] if rate is None else _others_sent(session, source, run["started_at"], rate)
    broken = None if rules is None else books.violations(rate, others)
    fastest_us, fastest_attempt = books.fastest or (None, None)
    counts: dict[str, Any] = {name: books.counts[name] for name in (*COUNTS, "sum")}
    return Tally(
        **run,
        **counts,
        source=source,
        is_sandbox=books.is_sandbox,
        min=books.min,
        max=books.max,
        fastest_us=fastest_us,
        fastest_attempt=fastest_attempt,
        first_sent_at=from_us(min(books.sent_us)) if books.sent_us else None,
        last_sent_at=from_us(max(books.sent_us)) if books.sent_us else None,
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
    reach = timedelta(days=1, seconds=rate.period_seconds)
    query = (
        select(TALLIES.c.first_sent_at, TALLIES.c.last_sent_at)
        .where(
            TALLIES.c.source == source,
            TALLIES.c.rule == _rule(rate),
            TALLIES.c.started_at.between(started_at - reach, started_at + reach),
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
        period = {"step": step, "began_at": period_begin(started_at, step)}
        query = select(TIMINGS.c.source, TIMINGS.c.phases).with_for_update().filter_by(**period)
        known = {source: [phases] for source, phases in session.connection().execute(query)}
        rows = (
            {**period, "source": source, "phases": merge_timings(known.get(source, ()), new)}
            for source, new in phases.items()
            if new
        )
        adding = insert_into(session, TIMINGS)
        key, change = list(TIMINGS.primary_key), {"phases": adding.excluded.phases}
        execute_many(session, adding.on_conflict_do_update(index_elements=key, set_=change), rows)


def merge_timings(
    stored: Iterable[Mapping[str, Any]], new: Mapping[str, Histogram] = NONE_KNOWN
) -> dict[str, Any]:
    """Add up durations by phase that were *stored*, and *new* ones; give what is stored."""
    whole: defaultdict[str, Histogram] = defaultdict(Histogram)
    for phases in stored:
        for phase, facts in phases.items():
            whole[phase].merge(Histogram.from_json(facts))
    for phase, histogram in new.items():
        whole[phase].merge(histogram)
    return {phase: histogram.to_json() for phase, histogram in whole.items()}
