"""The report of health: whether the numbers of each source look as chance would have them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import Session

from pipeline.health.verdicts import ALPHA, judge
from pipeline.models import Severity
from pipeline.rendering.document import Document, Lane, Lanes, Part, SourceName, Table
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.report.question import Question, facts, head, write_document
from pipeline.report.trends import Buckets, make_buckets
from pipeline.store.health import NumberRange
from pipeline.store.health_figures import (
    BlockCounts,
    BlockTest,
    HealthAlarm,
    RangeHealth,
    block_counts,
    health_alarms,
    health_blocks,
    range_health,
    show_years,
)

RANGE = "source is_sandbox min max"
HEALTH = (
    f"{RANGE} numbers first_at last_at block_size pending blocks full_entropy min_entropy"
    " min_entropy_bound warnings criticals false_alarm_years verdict"
)
TABLE = f"{RANGE} verdict numbers blocks min_entropy_bound full_entropy warnings criticals"
TEST = f"{RANGE} test blocks odd expected chance severity"
ALARM = (
    f"{RANGE} test severity value times cut_off alarms started_at run_id batch=batch_name position"
)
BLOCK = f"{RANGE} block run_id started_at n most chi_square monobit frequency runs serial"
NOTHING_ODD = {"severity": "chance"}
MOST_ALARMS = 20
NO_BLOCK = "no block"  # was full in that time
WORDS = {None: "nothing found", Severity.WARNING: "suspicious", Severity.CRITICAL: "critical"}
ONCE = (
    f"Each block of numbers is tested once. About {ALPHA:.0%} of the blocks of a fair source look"
    " odd to a test: only more odd blocks than chance gives are suspicious."
)
NEVER = (
    "A test can fail a source, and never certify one: a generator that anybody can predict passes"
    " them all."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the tests found in the time of a question."""

    question: Question
    ranges: Sequence[RangeHealth]
    alarms: Sequence[HealthAlarm]
    blocks: Sequence[BlockCounts]


def find_health(session: Session, question: Question) -> Found:
    """Read what the tests found."""
    of, window = question.source, question.window
    return Found(
        question=question,
        ranges=range_health(session, window, source=of),
        alarms=health_alarms(session, window, source=of),
        blocks=block_counts(session, window, source=of),
    )


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write what the tests found."""
    found = find_health(session, question)
    tests = [test for each in found.ranges for test in each.tests]
    if question.shape is Shape.JSON:
        blocks = health_blocks(session, question.window, source=question.source)
        return json_lines(
            head("pipeline.health/1", question),
            ranges=picks(found.ranges, HEALTH),
            tests=picks(tests, TEST),
            alarms=picks(found.alarms, ALARM),
            blocks=picks(blocks, BLOCK),
        )
    parts: list[Part] = [table_of_health(found.ranges, is_wide=question.shape is Shape.CSV)]
    parts += lanes_of_health(found)
    if tests:
        parts.append(tabulate(BlockTest, tests, TEST, title="Tests of blocks", nothing=NOTHING_ODD))
    if found.alarms:
        parts.append(table_of_alarms(found.alarms))
    said = [*facts(session, question), ONCE, NEVER, *health_facts(found.ranges)]
    return write_document(Document(title="Health", facts=said, parts=parts), question)


def table_of_health(
    found: Sequence[RangeHealth], *, title: str = "", is_wide: bool = False
) -> Table:
    """Make a row of each source and range."""
    return tabulate(RangeHealth, found, HEALTH if is_wide else TABLE, title=title)


def table_of_alarms(alarms: Sequence[HealthAlarm]) -> Table:
    """Make a row of the worst in each run, the last of them."""
    worst = {alarm.place: alarm for alarm in sorted(alarms, key=_severity)}
    shown = [alarm for alarm in alarms if worst[alarm.place] is alarm]
    title = "The same number too often"
    if len(shown) > MOST_ALARMS:
        title += f" (the last {MOST_ALARMS} of {len(shown):,})"
    return tabulate(HealthAlarm, shown[-MOST_ALARMS:], ALARM, title=title)


def _severity(alarm: HealthAlarm) -> int:
    return list(Severity).index(alarm.severity)


def health_facts(found: Sequence[RangeHealth]) -> Iterator[str]:
    """Say how many false warnings are to be expected, or that nothing was tested."""
    if not found:
        yield "No numbers were tested: none came yet, or they are not kept (keep_numbers)."
    years = [each.false_alarm_years for each in found if each.false_alarm_years is not None]
    if years:
        together = 1 / sum(1 / each for each in years)
        yield (
            "The same number too often is a warning at odds of 1 in 2^30, critical at 1 in 2^60: at"
            f" the pace of all these numbers, one false warning in {show_years(together)}."
        )


# ---- The picture: what was found when ----


@dataclass(slots=True)
class _Stretch:
    """What was found in some time: blocks, those odd to each test, and the worst alarm."""

    blocks: int = 0
    odd: Counter[str] = field(default_factory=Counter)
    alarm: HealthAlarm | None = None

    def add(self, counts: BlockCounts) -> None:
        """Count the blocks of an hour or day."""
        self.blocks += counts.blocks
        self.odd.update(counts.odd)

    @property
    def word(self) -> str:
        """Say how bad it is."""
        if self.alarm is not None:
            return WORDS[self.alarm.severity]
        if not self.blocks:
            return NO_BLOCK
        return WORDS[judge(max(self.odd.values()), self.blocks)]

    @property
    def note(self) -> str:
        """Tell what there was."""
        said = [count_of(self.blocks, "block")] if self.blocks else []
        said += [f"{n} odd to {name}" for name, n in self.odd.items() if n]
        if self.alarm is not None:
            said.append(f"{self.alarm.value} came {self.alarm.times:,} times ({self.alarm.test})")
        return ", ".join(said)


def lanes_of_health(found: Found) -> Iterator[Lanes]:
    """Make a strip of each source and range, a cell for each hour or day."""
    moments = [counts.began_at for counts in found.blocks]
    moments += [alarm.started_at for alarm in found.alarms]
    buckets = make_buckets(moments, found.question.window)
    if buckets is None:
        return
    stretches = _stretches(found, buckets)
    lanes = [
        _lane(each, [stretches[NumberRange.of(each), moment] for moment in buckets.moments])
        for each in found.ranges
    ]
    title = "What the tests found when"
    yield Lanes(title=title, step=buckets.step, moments=buckets.moments, lanes=lanes)


def _stretches(
    found: Found, buckets: Buckets
) -> defaultdict[tuple[NumberRange, datetime], _Stretch]:
    stretches: defaultdict[tuple[NumberRange, datetime], _Stretch] = defaultdict(_Stretch)
    for counts in found.blocks:
        stretches[counts.of, buckets.begin_of(counts.began_at)].add(counts)
    for alarm in sorted(found.alarms, key=_severity):
        stretches[NumberRange.of(alarm), buckets.begin_of(alarm.started_at)].alarm = alarm
    return stretches


def _lane(of: RangeHealth, stretches: Sequence[_Stretch]) -> Lane:
    return Lane(
        name=f"{SourceName(of.source, of.is_sandbox)}, {of.min} to {of.max}",
        words=[stretch.word for stretch in stretches],
        notes=[stretch.note for stretch in stretches],
        state=of.verdict,
        sum=f"{count_of(of.numbers, 'number')}, {count_of(of.blocks, 'block')}",
    )
