"""The overview: how the sources did of late, on one page; what matters most comes first."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlmodel import Session

from pipeline.audit.audit import find_wrongs
from pipeline.audit.findings import LISTED, tell_when
from pipeline.models import AttemptRecord, Finding, Severity
from pipeline.models.sums import state_of
from pipeline.rendering.document import (
    Chart,
    Column,
    Document,
    Kind,
    Lane,
    Lanes,
    Notice,
    Notices,
    Part,
    SourceName,
    Text,
    show_cell,
)
from pipeline.rendering.records import inside
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of, show_time
from pipeline.report import errors, health, numbers, runs, sources, timings
from pipeline.report.errors import SourceLoss
from pipeline.report.question import Question, facts, write_document
from pipeline.report.runs import RunLine
from pipeline.report.sources import SourceLine
from pipeline.report.timings import TimingLine, TimingPoint
from pipeline.report.trends import make_buckets
from pipeline.scope import A_WEEK, origin_of, show_window
from pipeline.settings import Settings
from pipeline.store import queries
from pipeline.store.durations import Percentiles
from pipeline.store.stamps import first_run_at
from pipeline.store.totals import LossTotals, SourceTotals
from pipeline.store.window import Window

REFRESH_SECONDS = 60  # of a page that stays open
NOT_ASKED = "not asked"
SHARE = Column("share", Kind.SHARE)
MOST_FINDINGS = 12  # the most urgent; an audit has them all
MOST_ATTEMPTS = 40  # that findings and errors name, looked up
DAY = timedelta(days=1)
MOST_DAYS = 400  # a cell each
_LISTED = inside("finding", LISTED.removesuffix(" attempt_ids=attempts"))
NUMBERED = f"finding=number {_LISTED} attempt_ids"
ATTEMPTS = "attempt_id=id run_id " + inside(
    "attempt", "source began_at error phase http_status=status detail"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    """A finding, and the number that it has on this page."""

    number: int
    finding: Finding

    @property
    def attempt_ids(self) -> tuple[int, ...]:
        """Name the first and the last attempt that show it."""
        ids = self.finding.attempts
        return tuple(dict.fromkeys((*ids[:1], *ids[-1:])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """All that the page tells of, read from the store.

    Attributes:
        findings: the most urgent first, ``left_out`` of them not among them.
        points: what each hour or day brought, by source; ``losses`` and ``exchanges`` alike.
    """

    question: Question
    findings: Sequence[_Numbered]
    left_out: int
    durations: Percentiles
    sources: Sequence[SourceLine]
    errors: Sequence[SourceLoss]
    runs: Sequence[RunLine]
    points: Sequence[SourceTotals]
    losses: Sequence[LossTotals]
    exchanges: Sequence[TimingPoint]
    health: health.Found
    attempts: Sequence[AttemptRecord]
    first_at: datetime | None


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the overview."""
    return write_document(make_overview(session, question), question)


def make_html_file(session: Session, settings: Settings) -> str:
    """Write the overview of the last week for a browser that looks again by itself."""
    now = datetime.now(UTC)
    window = Window(since=now - A_WEEK, until=now)
    question = Question(
        window=window,
        shape=Shape.HTML,
        origin=origin_of(settings.store, show_window(window), refresh_seconds=REFRESH_SECONDS),
        enabled=settings.enabled_sources,
    )
    return "\n".join(lines(session, question))


def make_overview(session: Session, question: Question) -> Document:
    """Put the page together: give it to ``render`` in any shape."""
    found = _read(session, question)
    return Document(
        title="Overview",
        verdict=_verdict(found),
        facts=[*facts(session, question), _totals(found.sources)],
        parts=[
            *_attention(found),
            *_days(found),
            *health.lanes_of_health(found.health),
            *_charts(found),
            *_tables(session, found),
        ],
    )


def _read(session: Session, question: Question) -> _Read:
    window, source = question.window, question.source
    durations = timings.find_timings(session, question)
    wrongs = find_wrongs(session, window, source=source, enabled=question.enabled)
    findings = [
        _Numbered(number=number, finding=finding)
        for number, finding in enumerate(wrongs[:MOST_FINDINGS], 1)
    ]
    lost = errors.find_errors(session, question)
    return _Read(
        question=question,
        findings=findings,
        left_out=len(wrongs) - len(findings),
        durations=durations,
        sources=sources.find_sources(session, question, durations.of, datetime.now(UTC)),
        errors=lost,
        runs=runs.find_runs(session, question),
        points=numbers.find_points(session, question),
        losses=errors.find_points(session, question),
        exchanges=list(timings.timing_points(session, question)),
        health=health.find_health(session, question),
        attempts=_look_up(session, findings, lost),
        first_at=first_run_at(session),
    )


def _look_up(
    session: Session, findings: Sequence[_Numbered], lost: Sequence[SourceLoss]
) -> list[AttemptRecord]:
    """Look up the attempts that findings and errors name; of pruned runs there are none."""
    named = [
        *(attempt for each in findings for attempt in each.attempt_ids),
        *(each.loss.last_attempt for each in lost if each.loss.last_attempt is not None),
    ]
    ids = islice(dict.fromkeys(named), MOST_ATTEMPTS)
    cases = (queries.find_attempt(session, attempt_id=i) for i in ids)
    records = (case.record for case in cases if case is not None)
    return sorted(records, key=lambda record: record.id, reverse=True)


# ---- What matters most ----


def _urgent(found: _Read) -> list[_Numbered]:
    """Choose what goes on and is no mere note."""
    return [
        each
        for each in found.findings
        if each.finding.until is None and each.finding.severity is not Severity.INFO
    ]


def _verdict(found: _Read) -> tuple[str, str]:
    """Say in one sentence how it is."""
    if not found.sources:
        return "note", "Nothing was ordered in this time."
    collected = sum(line.totals.collected for line in found.sources)
    ordered = sum(line.totals.ordered for line in found.sources)
    came = f"{collected:,} of {count_of(ordered, 'batch')} came"
    urgent = [each.finding for each in _urgent(found)]
    if not urgent:
        return "ok", f"Nothing needs attention now: {came}."
    word = min((finding.severity for finding in urgent), key=[*Severity][::-1].index)
    need = "1 thing needs" if len(urgent) == 1 else f"{len(urgent)} things need"
    return word, f"{need} attention, first of all {_name(urgent[0])}; {came}."


def _name(finding: Finding) -> str:
    return f"{', '.join(finding.sources)} ({finding.kind.replace('_', ' ')})"


def _attention(found: _Read) -> Iterator[Notices]:
    notices = [
        Notice(
            word=each.finding.severity,
            text=f"{_name(each.finding)}, {tell_when(each.finding)}",
            detail=each.finding.reason,
            target=f"finding-{each.number}",
            command="".join(f"pipeline audit show {n}" for n in each.finding.attempts[-1:]),
        )
        for each in _urgent(found)
    ]
    notices += [
        Notice(
            word="note",
            text=f"{line.totals.source} must not be asked before {show_time(line.embargo.until)}",
            detail=line.embargo.why,
            command=f"pipeline sources release {line.totals.source}",
        )
        for line in found.sources
        if line.embargo is not None
    ]
    if notices:
        yield Notices(title="Needs attention now", notices=notices)


def _totals(found: Sequence[SourceLine]) -> str:
    """Add up what came from all sources."""
    totals = [line.totals for line in found]
    n = sum(of.numbers for of in totals)
    attempts = sum(of.attempts for of in totals)
    failed = sum(of.failed_attempts for of in totals)
    return (
        f"{count_of(n, 'number')} collected; {failed:,} of {count_of(attempts, 'request')} failed."
    )


# ---- Pictures ----


def _begin(found: _Read) -> datetime | None:
    """Tell when the pictures begin: with the window, but not before the first run of all."""
    since = found.question.window.since
    return since and found.first_at and max(since, found.first_at)


def _days(found: _Read) -> Iterator[Lanes]:
    """Make a lane of each source, a cell a day, as status pages have it."""
    moments = [point.began_at for point in found.points if point.began_at]
    window = found.question.window
    days = make_buckets(moments, window, begin=_begin(found), least=DAY, most=MOST_DAYS)
    if days is None:
        return
    of: defaultdict[tuple[str, datetime], list[SourceTotals]] = defaultdict(list)
    for point in found.points:
        if point.began_at is not None:
            of[point.source, days.begin_of(point.began_at)].append(point)
    worst = {  # what is wrong now with a source, if anything is
        source: each.finding.severity
        for each in reversed(_urgent(found))
        for source in each.finding.sources
    }
    lanes = [
        _lane(line, [of[line.totals.source, moment] for moment in days.moments], worst)
        for line in found.sources
    ]
    yield Lanes(title="Batches of each source", step=days.step, moments=days.moments, lanes=lanes)


def _lane(
    line: SourceLine, days: Sequence[Sequence[SourceTotals]], worst: Mapping[str, str]
) -> Lane:
    name, totals = line.totals.source, line.totals
    share = show_cell(totals.share, SHARE)
    cells = [_cell(day) for day in days]
    return Lane(
        name=str(SourceName(name, line.is_sandbox)),
        words=[word for word, _ in cells],
        notes=[note for _, note in cells],
        state=worst.get(name, "ok" if totals.collected else NOT_ASKED),
        sum=f"{share} of {count_of(totals.ordered, 'batch')}",
    )


def _cell(day: Sequence[SourceTotals]) -> tuple[str, str]:
    """Say what became of the batches of a day, in a word and in figures."""
    ordered, collected = sum(each.ordered for each in day), sum(each.collected for each in day)
    if not ordered:
        return NOT_ASKED, ""
    word = state_of(collected, sum(each.lost for each in day))
    return word, f"{collected:,} of {count_of(ordered, 'batch')}"


def _charts(found: _Read) -> Iterator[Chart]:
    moments = (point.began_at for point in found.points if point.began_at)
    buckets = make_buckets(moments, found.question.window, begin=_begin(found))
    yield from numbers.chart_of_numbers(found.points, buckets)
    for rank in (0.5, 0.9):
        yield from timings.charts_of_rank(found.exchanges, buckets, rank)
    yield from errors.chart_of_failures(found.losses, buckets)
    yield from sources.chart_of_success(found.points, buckets)


# ---- Tables ----


def _tables(session: Session, found: _Read) -> Iterator[Part]:
    yield tabulate(SourceLine, found.sources, sources.PAGE, title="Sources")
    if found.health.ranges:
        yield health.table_of_health(found.health.ranges, title="Health of the numbers")
        yield Text(lines=[health.NEVER], is_ours=True)
    if found.findings:
        table = tabulate(_Numbered, found.findings, NUMBERED, title="Findings")
        yield replace(table, anchor="finding")
    if found.left_out:
        more = f"And {count_of(found.left_out, 'other finding')}; see `pipeline audit`."
        yield Text(lines=[more], is_ours=True)
    yield errors.table_of_errors(found.errors, title="Errors")
    if found.attempts:
        table = tabulate(AttemptRecord, found.attempts, ATTEMPTS, title="Attempts named above")
        yield replace(table, anchor="attempt")
    yield replace(runs.table_of_runs(found.runs, title="Last runs"), anchor="run")
    listed = timings.timing_lines(session, found.question, found.durations)
    yield tabulate(TimingLine, listed, timings.TABLE, title="Timings")
    yield Text(lines=[timings.how_known(found.durations, found.question.window.step)])
