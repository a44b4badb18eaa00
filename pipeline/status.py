"""``pipeline status``: is all well now? One screen for a person, an exit code for a program."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.audit.audit import find_wrongs
from pipeline.audit.findings import list_findings
from pipeline.clock import TOLERANCE
from pipeline.files import database_file
from pipeline.models import Fate, Finding, RunStatus, RunSummary, Severity, Tally
from pipeline.pacing import Embargo
from pipeline.rendering.document import Document, Part
from pipeline.rendering.output import json_lines, write_lines
from pipeline.rendering.records import pick, picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Format, Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import FINDING, RUN
from pipeline.rendering.words import count_of, show_time
from pipeline.report.question import as_it_stands
from pipeline.report.sources import embargo_facts
from pipeline.schedule.ledger import Schedule, find_schedules
from pipeline.scope import A_WEEK, reading_if_there
from pipeline.settings import Settings, hide_password
from pipeline.store import history, permissions, queries
from pipeline.store.slots import recent_slots
from pipeline.store.window import Window

SOURCE = (
    "source state last_good_at collected=newest.collected ordered=newest.ordered"
    " not_before=embargo.until why=embargo.why"
)
LISTED = "source state last_good_at collected=newest.came not_before=embargo.until"
SLOT = "schedule next_at last_due_at fate is_overdue"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """How one source does now; *newest* is what the newest run that wanted something got."""

    source: str
    newest: Tally | None
    last_good_at: datetime | None
    embargo: Embargo | None

    @property
    def state(self) -> str:
        """Say it in a word: ok, partial, failed, deferred, not asked yet."""
        return "not asked yet" if self.newest is None else self.newest.state

    @property
    def is_well(self) -> bool:
        """Tell whether nothing was lost in that run."""
        return self.newest is None or not self.newest.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """Where a schedule stands."""

    schedule: str
    next_at: datetime
    last_due_at: datetime | None
    fate: Fate | None
    is_overdue: bool

    @property
    def is_well(self) -> bool:
        """Tell whether its last slot was run, or is being run."""
        return not self.is_overdue and self.fate not in (Fate.INTERRUPTED, Fate.MISSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How everything does at one moment.

    Attributes:
        last_run: the newest one; None if there was none.
        findings: of the last week that go on and are a warning or worse.
    """

    asked_at: datetime
    store: str
    last_run: RunSummary | None
    sources: Sequence[SourceState] = ()
    slots: Sequence[SlotState] = ()
    findings: Sequence[Finding] = ()

    @property
    def complaints(self) -> list[str]:
        """Say what is not well, in a few words each; nothing if all is."""
        found: list[str] = []
        if self.last_run is None:
            found.append("no run yet")
        elif self.last_run.status in (RunStatus.INTERRUPTED, RunStatus.FAILED):
            found.append(f"run {self.last_run.id} {self.last_run.status}")
        elif self.last_run.is_alive is False:
            found.append(f"the process of run {self.last_run.id} is gone")
        if lost := [each.source for each in self.sources if not each.is_well]:
            found.append(f"batches lost in the last run of {', '.join(lost)}")
        found += [
            f"slots of {each.schedule} are not run"
            if each.is_overdue
            else f"the last slot of {each.schedule} was {each.fate}"
            for each in self.slots
            if not each.is_well
        ]
        if self.findings:
            found.append(f"{count_of(len(self.findings), 'finding')} of the audit")
        return found

    @property
    def is_healthy(self) -> bool:
        """Tell whether nothing is wrong now."""
        return not self.complaints


def find_status(settings: Settings) -> Status:
    """Look at the last run, the enabled sources, the slots, and what an audit of a week finds."""
    now, url = datetime.now(UTC), settings.store.url
    store = str(database_file(url) or hide_password(url))
    schedules = find_schedules(settings)
    with reading_if_there(settings.store) as session:
        if session is None:
            slots = find_slot_states(None, schedules, now=now)
            return Status(asked_at=now, store=store, last_run=None, slots=slots)
        enabled = settings.enabled_sources
        last = queries.find_run(session, run_id=None)
        window = Window(since=now - A_WEEK, until=now)
        wrongs = find_wrongs(session, window, enabled=enabled)
        return Status(
            asked_at=now,
            store=store,
            last_run=last and as_it_stands(session, last),
            sources=_source_states(session, list(enabled), window),
            slots=find_slot_states(session, schedules, now=now),
            findings=[
                each for each in wrongs if each.until is None and each.severity is not Severity.INFO
            ],
        )


def _source_states(session: Session, names: Sequence[str], window: Window) -> list[SourceState]:
    now = window.until or datetime.now(UTC)
    embargoes = permissions.standing_embargoes(session, now=now)
    totals = {each.source: each for each in history.source_totals(session, window)}
    found = []
    for name in names:
        newest = history.newest_tallies(session, source=name, limit=1, until=now)
        found.append(
            SourceState(
                source=name,
                newest=newest[0] if newest else None,
                last_good_at=totals[name].last_good_at if name in totals else None,
                embargo=embargoes.get(name),
            )
        )
    return found


def find_slot_states(
    session: Session | None, schedules: Sequence[Schedule], *, now: datetime
) -> list[SlotState]:
    """Look up where each schedule stands; without a store no slot was taken yet."""
    return [_slot_state(session, each, now=now) for each in schedules]


def _slot_state(session: Session | None, schedule: Schedule, *, now: datetime) -> SlotState:
    newest = last_due_at = None
    if session is not None:
        known = recent_slots(session, schedule=schedule.key, limit=1, until=now + TOLERANCE)
        newest = next(iter(known), None)
    if newest is not None:
        last_due_at = newest.last_due_at or newest.due_at
    due_at = schedule.due(now)
    started_by = due_at + schedule.jitter + schedule.grace
    return SlotState(
        schedule=schedule.key,
        next_at=next(schedule.cron.after(now)),
        last_due_at=last_due_at,
        fate=None if newest is None else newest.fate,
        is_overdue=last_due_at is not None and last_due_at < due_at and now > started_by,
    )


def show_status(settings: Settings, shape: Format) -> bool:
    """Write how everything does now to stdout, and tell whether all is well."""
    found = find_status(settings)
    lines = _json(found) if shape is Format.JSON else render(_document(found), Shape.TEXT)
    write_lines(lines)
    return found.is_healthy


def _json(found: Status) -> Iterator[str]:
    return json_lines(
        {
            "schema": "pipeline.status/1",
            **pick(found, "asked_at is_healthy complaints store"),
            "last_run": found.last_run and pick(found.last_run, RUN),
        },
        sources=picks(found.sources, SOURCE),
        schedules=picks(found.slots, SLOT),
        findings=picks(found.findings, FINDING),
    )


def _document(found: Status) -> Document:
    verdict = "All is well." if found.is_healthy else f"Not well: {'; '.join(found.complaints)}."
    parts: list[Part] = []
    if found.sources:
        parts.append(tabulate(SourceState, found.sources, LISTED, title="Sources"))
    if found.findings:
        parts.append(list_findings(found.findings))
    embargoes = embargo_facts((each.source, each.embargo) for each in found.sources)
    facts = [verdict, *_run_facts(found), *map(_slot_fact, found.slots), *embargoes]
    return Document(title="Status", facts=facts, parts=parts)


def _run_facts(found: Status) -> Iterator[str]:
    run = found.last_run
    if run is None:
        yield f"There is no run in {found.store}; `pipeline collect` makes one."
        return
    came = f"{run.collected} of {count_of(run.ordered, 'batch')}"
    status = run.status if run.is_alive is not False else "interrupted?"
    yield f"Last run: {run.id}, {show_time(run.started_at)}, {status}, {came}; {found.store}."


def _slot_fact(slot: SlotState) -> str:
    last = "no slot was taken yet"
    if slot.last_due_at is not None:
        last = f"the last one, {show_time(slot.last_due_at)}, {slot.fate or 'is running'}"
    late = "; nothing has started since: do cron, systemd or the scheduler run?"
    return (
        f"Next slot of {slot.schedule}: {show_time(slot.next_at)}; {last}"
        f"{late if slot.is_overdue else '.'}"
    )
