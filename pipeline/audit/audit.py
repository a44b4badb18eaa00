"""``pipeline audit``: read a stretch of time from the store, judge it, and write what was found."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.audit.availability import ACCOUNTING_RULE, Availability, measure_availability
from pipeline.audit.clocks import Clocks, find_clocks, find_doubtful, find_gaps, read_clocks
from pipeline.audit.contracts import find_contract_changes
from pipeline.audit.findings import (
    Findings,
    Found,
    explain_failures,
    list_findings,
    tabulate_failures,
    tabulate_findings,
    tell_availability,
)
from pipeline.audit.health import find_excess, find_odd_blocks
from pipeline.audit.incidents import find_incidents
from pipeline.audit.rules import (
    ENOUGH,
    find_conduct,
    find_impossible,
    find_late,
    find_overdue,
    find_shut,
    find_silent,
    find_stale,
    find_weak,
)
from pipeline.audit.sheets import Sheet
from pipeline.audit.stretches import concerning
from pipeline.models import Finding, Tally
from pipeline.rendering.document import Document, Part
from pipeline.rendering.output import json_lines, write
from pipeline.rendering.records import pick, picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from pipeline.rendering.vocabulary import AVAILABILITY, FINDING, LOSS
from pipeline.rendering.words import count_of
from pipeline.scope import (
    A_WEEK,
    check_source,
    make_window,
    origin_of,
    reading,
    show_window,
    window_json,
)
from pipeline.settings import Settings
from pipeline.store import (
    configurations,
    contracts,
    health_figures,
    heartbeats,
    history,
    late,
    measures,
    permissions,
    rollups,
)
from pipeline.store.totals import LossTotals
from pipeline.store.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What an audit found.

    Attributes:
        source: if the audit is about one alone.
        runs: that started in the window and wanted something.
        findings: those that go on first, the worst of them before the others; then the newest.
        availability: by source.
        failures: most frequent first.
    """

    window: Window
    source: str | None
    runs: int
    findings: Findings
    availability: list[Availability]
    failures: list[LossTotals]


def examine(
    session: Session, window: Window, *, source: str | None = None, enabled: Collection[str] = ()
) -> Examination:
    """Look for what is wrong in *window*, or for what concerns one *source* alone.

    *enabled* are the sources that runs are expected to ask.
    """
    seen = _so_far(window)
    sheet, findings = _judge(session, seen, source, enabled)
    runs = sheet.runs
    if source is not None:
        runs = sheet.courses[source].runs if source in sheet.courses else 0
    sandbox = history.played_by_sandbox(session, seen, source=source)
    until = seen.until or datetime.now(UTC)
    return Examination(
        window=window,
        source=source,
        runs=runs,
        findings=findings,
        availability=measure_availability(
            sheet.courses, sandbox, since=window.since, until=until, source=source
        ),
        failures=history.loss_totals(session, window, source=source),
    )


def find_wrongs(
    session: Session, window: Window, *, source: str | None = None, enabled: Collection[str] = ()
) -> Findings:
    """List what ``examine`` finds, for those who do not ask how long a source was up."""
    return _judge(session, _so_far(window), source, enabled)[1]


def _so_far(window: Window) -> Window:
    """Leave out the rest of today, which is still to come."""
    now = datetime.now(UTC)
    return Window(since=window.since, until=min(window.until or now, now))


def _judge(
    session: Session, window: Window, source: str | None, enabled: Collection[str]
) -> tuple[Sheet, Findings]:
    """Read what runs told, and list what is wrong with it.

    For one *source*, too, all are read: only together they show whether the cause is on our side.
    """
    now = datetime.now(UTC)
    since, until = window.since, window.until or now
    to_now = Window(since=since, until=until)
    clocks = read_clocks(session, to_now, now=now)
    clocks = replace(clocks, doubtful=find_doubtful(session, window))
    sheet = read_sheet(session, window, clocks)
    courses = sheet.courses
    own = {name: of for name, of in courses.items() if source in (None, name)}
    wanted = history.sources_of(session, run_ids=sorted(clocks.off))
    spans = contracts.contract_spans(session, source=source, since=since)
    newest = {name: courses[name].run_id for name in enabled if name in courses}

    def find_fast(source: str, below_us: int) -> Iterator[Tally]:
        fast = history.fast_tallies(session, window, source=source, below_us=below_us)
        return (tally for tally in fast if tally.run_id not in clocks.untimely)

    findings: list[Found] = [
        *find_incidents(concerning(sheet.stretches, source)),
        *find_contract_changes(spans, since=since, until=until),
        *find_stale(own),
        *find_weak(measures.find_weak(session, window, source=source)),
        *find_conduct(own, find_fast),
        *find_silent(courses, enabled, until=until),
        *find_closed(session, enabled, now=until),
        *find_overdue(heartbeats.find_overdue(session, now=until), now=until),
        *find_clocks(clocks, wanted, enabled),
        *find_gaps(session, enabled, to_now),
        *find_unhealthy(session, window),
        *find_misfits(session, newest, window),
        *find_late(late.find_late(session, window)),
    ]
    return sheet, Findings(each for each in findings if source in (None, *each.sources))


def find_closed(session: Session, sources: Collection[str], *, now: datetime) -> list[Finding]:
    """Find which of *sources* are not to be asked for much longer than they usually rest."""
    standing = permissions.standing_embargoes(session, now=now)
    found = [
        find_shut(
            name, embargo, history.newest_tallies(session, source=name, limit=ENOUGH, until=now)
        )
        for name, embargo in standing.items()
        if name in sources and embargo.said_at is not None and embargo.said_at <= now
    ]
    return [finding for finding in found if finding is not None]


def read_sheet(session: Session, window: Window, clocks: Clocks) -> Sheet:
    """Read what runs told: from the sheets of closed days, else from their tallies and losses."""
    off = history.days_of(session, run_ids=sorted(clocks.off))
    whole = Sheet()
    for part, facts in rollups.sheets(session, window, without=off):
        if facts is not None and part.since is not None:
            whole.add(Sheet.from_json(facts, part.since))
            continue
        if not clocks.has_timely_runs(session, part):
            continue
        tallies = history.tallies(session, part)
        timely = [tally for tally in tallies if tally.run_id not in clocks.untimely]
        whole.add(Sheet.of(timely, history.losses(session, part), clocks.off))
    return whole


def find_unhealthy(session: Session, window: Window) -> Iterator[Finding]:
    """Find the sources whose numbers chance hardly gives."""
    healths = health_figures.range_health(session, window)
    yield from find_excess(health_figures.health_alarms(session, window), healths)
    yield from find_odd_blocks(healths, since=window.since)


def find_misfits(session: Session, newest: Mapping[str, int], window: Window) -> Iterator[Finding]:
    """Find the sources whose last order was too much; *newest* are their last runs."""
    known = {
        run_id: configurations.find_limits(session, run_id=run_id) for run_id in {*newest.values()}
    }
    limits = {run_id: of for run_id, of in known.items() if of and of["impossible"]}
    since = {
        run_id: configurations.first_of_configuration(session, run_id=run_id, since=window.since)
        for run_id in limits
    }
    return find_impossible(newest, limits, {run_id: at for run_id, at in since.items() if at})


def audit(
    settings: Settings,
    *,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
    shape: Shape,
) -> bool:
    """Write what an audit finds to stdout, and tell whether any of it is alarming."""
    window = make_window(since, until, looks_back=A_WEEK)
    with reading(settings.store) as session:
        check_source(settings, session, source)
        found = examine(session, window, source=source, enabled=settings.enabled_sources)
    is_json = shape is Shape.JSON
    document = replace(
        _document(found, shape), origin=origin_of(settings.store, show_window(window))
    )
    for line in _json(found) if is_json else render(document, shape):
        write(line)
    return found.findings.are_alarming


def _json(found: Examination) -> Iterator[str]:
    head = {
        "schema": "pipeline.audit/1",
        "window": window_json(found.window),
        **pick(found, "source runs is_alarming=findings.are_alarming"),
        "accounting_rule": ACCOUNTING_RULE,
    }
    return json_lines(
        head,
        findings=picks(found.findings, FINDING),
        availability=picks(found.availability, AVAILABILITY),
        failures=picks(found.failures, LOSS),
    )


def _document(found: Examination, shape: Shape) -> Document:
    parts: list[Part] = []
    if found.findings and shape is Shape.TEXT:
        parts.append(list_findings(found.findings))
    elif found.findings or shape is Shape.CSV:  # a sheet has the same columns every day
        parts.append(tabulate_findings(found.findings))
    if found.availability:
        parts += tell_availability(found.availability)
    if found.failures:
        parts.append(tabulate_failures(LossTotals, found.failures, LOSS, title="Failures"))
        parts.append(explain_failures(loss.phase for loss in found.failures))
    return Document(title="Audit", facts=[_summary(found)], parts=parts)


def _summary(found: Examination) -> str:
    of = "" if found.source is None else f", {found.source} alone"
    nothing = "" if found.findings else ": nothing to complain about"
    looked = f"{show_window(found.window)}{of}, {count_of(found.runs, 'run')}{nothing}"
    return f"{looked}. --since and --until choose another time."
