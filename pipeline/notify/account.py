"""Read from the store what a notification says about a run; brings the audit along."""

from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter

from sqlmodel import Session

from pipeline.audit.audit import find_wrongs
from pipeline.models import Attempt, Finding, Loss, RunStatus, RunSummary, Tally
from pipeline.settings import NotifySettings
from pipeline.store import history, queries
from pipeline.store.window import Window

LOOKS_BACK = timedelta(days=7)  # for the findings that a command is told
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is on disk about a run and is told of it.

    Attributes:
        was_well: whether the run before it, if any, was.
        findings: about its sources, those that go on first.
    """

    tallies: list[Tally]
    losses: list[Loss]
    attempts: list[Attempt]
    was_well: bool
    findings: list[Finding]


def read_account(session: Session, notify: NotifySettings, run: RunSummary) -> Account:
    """Look up what those whom *notify* names are told of *run*."""
    same_start = Window(since=run.started_at, until=run.started_at + INSTANT)
    lately = Window(since=run.started_at - LOOKS_BACK)
    is_audited = bool(notify.on_failure or notify.on_recovery)
    sent = queries.exchanges_of_run(session, run_id=run.id) if notify.otel else ()
    tallies = history.tallies_of_run(session, run_id=run.id)
    sources = {tally.source for tally in tallies}
    found = find_wrongs(session, lately) if is_audited else []
    before = queries.run_before(session, run=run)
    return Account(
        tallies=tallies,
        losses=[loss for loss in history.losses(session, same_start) if loss.run_id == run.id],
        attempts=sorted((each.attempt for each in sent), key=attrgetter("fetch", "number")),
        was_well=before is None or before.status is RunStatus.OK,
        findings=[each for each in found if not sources.isdisjoint(each.sources)],
    )
