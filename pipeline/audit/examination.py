"""Everything that an audit says of a window, read from the store and judged."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.audit.availability import Availability, measure_availability
from pipeline.audit.incidents import find_incidents
from pipeline.audit.observations import observe
from pipeline.audit.rules import find_conduct, find_contract_changes, find_silent, find_stale
from pipeline.models import Finding, Severity
from pipeline.store import history
from pipeline.store.history import LossTotals, Window

WORST_FIRST = tuple(reversed(Severity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What an audit found.

    Attributes:
        runs: that started in the window and wanted something.
        findings: the worst first, then by time.
        availability: by source.
        failures: most frequent first.
    """

    window: Window
    runs: int
    findings: list[Finding]
    availability: list[Availability]
    failures: list[LossTotals]

    @property
    def is_alarming(self) -> bool:
        """Tell whether any finding is a warning or worse."""
        return any(finding.severity is not Severity.INFO for finding in self.findings)


def examine(
    session: Session, window: Window, *, source: str | None = None, enabled: Collection[str] = ()
) -> Examination:
    """Look for what is wrong in *window*, or for what concerns one *source* alone.

    *enabled* are the sources that runs are expected to ask.
    """
    now = datetime.now(UTC)
    until = min(window.until or now, now)  # nobody has looked at the rest of today yet
    # Of one source too we look at all: only together they tell our side of the path from theirs.
    tallies = list(history.tallies(session, window))
    losses = list(history.losses(session, window))
    observations = observe(tallies, losses)
    spans = history.contract_spans(session, source=source, since=window.since)
    findings = [
        *find_incidents(observations),
        *find_contract_changes(spans, since=window.since, until=until),
        *find_stale(observations),
        *find_conduct(tallies),
        *find_silent(tallies, enabled, until=until),
    ]
    availability = measure_availability(observations, since=window.since, until=until)
    return Examination(
        window=window,
        runs=len({tally.run_id for tally in tallies if source in (None, tally.source)}),
        findings=_ranked(finding for finding in findings if source in (None, *finding.sources)),
        availability=[of for of in availability if source in (None, of.source)],
        failures=history.loss_totals(session, window, source=source),
    )


def _ranked(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(
        findings,
        key=lambda finding: (WORST_FIRST.index(finding.severity), finding.since, finding.sources),
    )
