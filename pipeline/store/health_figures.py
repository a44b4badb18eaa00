"""What the tests of health said, for reports and audits.

A run counts where it started, as everywhere; a block of numbers in the run that filled it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log2

from sqlalchemy import ColumnElement, Table, func, select
from sqlmodel import Session

from pipeline.health.blocks import BLOCK_TESTS, block_size, min_entropy
from pipeline.health.continuous import HealthTest, limits_of
from pipeline.health.verdicts import ALPHA, chance_of, judge
from pipeline.models import Severity
from pipeline.store.health import HealthState, NumberRange, read_states
from pipeline.store.numbers import width_of
from pipeline.store.rows import AnyRow, record, records, stream
from pipeline.store.tables import HEALTH_ALARMS, HEALTH_BLOCKS, RUNS
from pipeline.store.window import Window, of_source, period_of, within

DAY = timedelta(days=1)
DAYS_A_YEAR = 365.25
TENS = 10
RANGE = NumberRange._fields


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRange:
    """Something that is known of the numbers of one source in one range."""

    source: str
    is_sandbox: bool
    min: int
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthAlarm(_OfRange):
    """The same number too often in one run, by the same test at the same cut-off.

    Attributes:
        started_at: when the run did.
        batch: the number of the batch in which it was first.
        position: its place among all numbers of the range then, from 1.
        alarms: how many stretches or windows there were in this run.
        value: the number that came most often, and how often: ``times``.
    """

    run_id: int
    started_at: datetime
    test: HealthTest
    severity: Severity
    batch: int
    position: int
    alarms: int
    value: int
    times: int
    cut_off: int

    @property
    def place(self) -> tuple[int, NumberRange, HealthTest]:
        """Tell what alarms of another severity have in common."""
        return self.run_id, NumberRange.of(self), self.test

    @property
    def batch_name(self) -> str:
        """Name the batch in which it was first."""
        return f"w{self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthBlock(_OfRange):
    """What the tests of one block of numbers gave: p-values; None where one does not fit.

    Attributes:
        block: its place among those of the range, from 0.
        run_id: the run that brought the last of its numbers, and when that started.
        n: how many numbers it has.
        most: how often the most common of them came.
    """

    block: int
    run_id: int
    started_at: datetime
    n: int
    most: int
    chi_square: float
    monobit: float | None
    frequency: float | None
    runs: float | None
    serial: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCounts:
    """The blocks of one range in the hour or day that began then.

    Attributes:
        odd: how many of them look odd to each test.
    """

    of: NumberRange
    began_at: datetime
    blocks: int
    odd: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTest(_OfRange):
    """What one test found in the blocks of one range.

    Attributes:
        blocks: that it was made of; ``odd`` are those whose p-value is below 0.01.
    """

    test: str
    blocks: int
    odd: int

    @property
    def expected(self) -> float:
        """Tell how many odd blocks a fair source has, in the long run."""
        return self.blocks * ALPHA

    @property
    def chance(self) -> float | None:
        """Tell how likely a fair source has so many odd blocks, or more; None without any block."""
        return chance_of(self.odd, self.blocks) if self.blocks else None

    @property
    def severity(self) -> Severity | None:
        """Tell how bad that is; None if chance explains it."""
        return judge(self.odd, self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeHealth(_OfRange):
    """What all tests found in the numbers of one source in one range.

    Attributes:
        numbers: how many were ever tested, in runs that started from ``first_at`` to ``last_at``.
        block_size: how many make a block; ``pending`` are those since the last full one.
        blocks: those of the window, as all that follows.
        most_share: of a block, on average, those that are its most common number.
        warnings: how often the same number came too often; ``criticals`` far too often.
        tests: what each test of blocks found.
    """

    numbers: int
    first_at: datetime
    last_at: datetime
    block_size: int
    pending: int
    blocks: int
    most_share: float | None
    warnings: int
    criticals: int
    tests: tuple[BlockTest, ...]

    @property
    def full_entropy(self) -> float:
        """Give the entropy of a number of a fair source, in bits."""
        return log2(self.max - self.min + 1)

    @property
    def min_entropy(self) -> float | None:
        """Give the least entropy of a number by the most common of a block, in bits."""
        return None if self.most_share is None else min_entropy(self.most_share)

    @property
    def min_entropy_bound(self) -> float | None:
        """Give what it is at least, with a confidence of 99 %."""
        return None if self.most_share is None else min_entropy(self.most_share, self.block_size)

    @property
    def false_alarm_years(self) -> float | None:
        """Tell in how many years chance gives one warning, if the numbers go on to come as fast."""
        limits = limits_of(self.min, self.max)
        if limits is None:
            return None
        numbers_a_day = self.numbers / max(1.0, (self.last_at - self.first_at) / DAY)
        return 1 / (limits.false_alarms * numbers_a_day * DAYS_A_YEAR)

    @property
    def verdict(self) -> str:
        """Say in words what was found; it never says that a source is fair."""
        severities = {each.severity for each in self.tests}
        if self.criticals or Severity.CRITICAL in severities:
            return "critical"
        if self.warnings or Severity.WARNING in severities:
            return "suspicious"
        if not self.full_entropy:
            return "nothing to test"
        if not self.blocks:
            return f"too few to tell ({self.pending:,} of {self.block_size:,})"
        return "nothing found"


def show_years(years: float | None) -> str:
    """Write about how many years for a person."""
    if years is None:
        return "never"
    return f"{float(f'{years:.2g}'):,.0f} years" if years >= TENS else f"{years:.2g} years"


_RANGE = [HEALTH_BLOCKS.c[name] for name in RANGE]
_BLOCKS = select(
    *_RANGE,
    func.count().label("blocks"),
    # Those that look odd to each test.
    *(func.count().filter(HEALTH_BLOCKS.c[n] < ALPHA).label(f"odd_{n}") for n in BLOCK_TESTS),
).group_by(*_RANGE)


def _chosen(
    table: Table, moment: ColumnElement[datetime], window: Window, source: str | None
) -> list[ColumnElement[bool]]:
    return within(moment, window) + of_source(table.c.source, source)


def range_health(
    session: Session, window: Window, *, source: str | None = None
) -> list[RangeHealth]:
    """Add up what the tests found, by source and range."""
    blocks = _block_totals(session, window, source)
    alarms: Counter[tuple[NumberRange, Severity]] = Counter()
    for alarm in health_alarms(session, window, source=source):
        alarms[NumberRange.of(alarm), alarm.severity] += alarm.alarms
    states = read_states(session.connection(), is_pruned=False)
    return [
        _health_of(state, blocks.get(of), alarms)
        for of, state in states.items()
        if source in (None, of.source)
    ]


def _health_of(
    state: HealthState, found: AnyRow | None, alarms: Counter[tuple[NumberRange, Severity]]
) -> RangeHealth:
    key = NumberRange.of(state)
    of = key._asdict()
    tests = [
        BlockTest(**of, test=name, blocks=blocks, odd=getattr(found, f"odd_{name}"))
        for name in BLOCK_TESTS
        if (blocks := getattr(found, name, 0))
    ]
    return RangeHealth(
        **of,
        numbers=state.numbers,
        first_at=state.first_at,
        last_at=state.last_at,
        block_size=block_size(state.min, state.max),
        pending=len(state.block) // width_of(state.min, state.max),
        blocks=0 if found is None else found.blocks,
        most_share=None if found is None else found.most / found.n,
        warnings=alarms[key, Severity.WARNING],
        criticals=alarms[key, Severity.CRITICAL],
        tests=tuple(tests),
    )


def _block_totals(
    session: Session, window: Window, source: str | None
) -> dict[NumberRange, AnyRow]:
    columns = HEALTH_BLOCKS.c
    query = _BLOCKS.add_columns(
        func.sum(columns.most).label("most"),
        func.sum(columns.n).label("n"),
        *(func.count(columns[name]).label(name) for name in BLOCK_TESTS),
    )
    query = query.where(*_chosen(HEALTH_BLOCKS, columns.started_at, window, source))
    return {NumberRange.of(row): row for row in session.connection().execute(query)}


def block_counts(
    session: Session, window: Window, *, source: str | None = None
) -> list[BlockCounts]:
    """Count the blocks by source and range, and by the hour or day in which they were filled."""
    moment = HEALTH_BLOCKS.c.started_at
    began_at = period_of(session, moment, window.step).label("began_at")
    query = _BLOCKS.add_columns(began_at).where(*_chosen(HEALTH_BLOCKS, moment, window, source))
    return [
        BlockCounts(
            of=NumberRange.of(row),
            began_at=row.began_at,
            blocks=row.blocks,
            odd={name: getattr(row, f"odd_{name}") for name in BLOCK_TESTS},
        )
        for row in session.connection().execute(query.group_by(began_at))
    ]


def health_alarms(
    session: Session, window: Window, *, source: str | None = None
) -> list[HealthAlarm]:
    """List in which runs the same number came too often, in the order of time."""
    query = select(HEALTH_ALARMS, RUNS.c.started_at).join(RUNS, RUNS.c.id == HEALTH_ALARMS.c.run_id)
    query = query.where(*_chosen(HEALTH_ALARMS, RUNS.c.started_at, window, source))
    query = query.order_by(RUNS.c.started_at, *HEALTH_ALARMS.primary_key)
    return records(session, HealthAlarm, query)


def health_blocks(
    session: Session, window: Window, *, source: str | None = None
) -> Iterator[HealthBlock]:
    """Walk over the blocks by source and range, in their order."""
    query = select(HEALTH_BLOCKS).order_by(*HEALTH_BLOCKS.primary_key)
    query = query.where(*_chosen(HEALTH_BLOCKS, HEALTH_BLOCKS.c.started_at, window, source))
    return (record(HealthBlock, row) for row in stream(session, query))
