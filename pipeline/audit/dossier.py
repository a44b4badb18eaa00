"""All that a provider should know of what passed between us, compiled from the store.

Nothing here says who or where we are: no host, path or process is read at all, secrets were
replaced when the requests were kept, and addresses of people are replaced here.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqlmodel import Session

from pipeline.audit.availability import Availability
from pipeline.audit.examination import examine
from pipeline.histogram import Histogram
from pipeline.models import AttemptRecord, Evidence, Finding, FindingKind, Request, Tally
from pipeline.store import history, queries
from pipeline.store.evidence import SentRequest, count_requests, sent_requests
from pipeline.store.history import SourceTotals, Window

MOST_REQUESTS = 10
MOST_ATTEMPTS = 50

# By which an operator finds one request among all of the day.
REQUEST_ID_HEADERS = frozenset(
    {
        "cf-ray",
        "request-id",
        "traceparent",
        "x-amz-cf-id",
        "x-amz-request-id",
        "x-amzn-requestid",
        "x-amzn-trace-id",
        "x-correlation-id",
        "x-request-id",
        "x-trace-id",
    }
)

# About our other sources, or about our own time.
NOT_FOR_PROVIDERS = frozenset({FindingKind.SILENT, FindingKind.USELESS_RETRIES})

ADDRESS = "[address]"
_ADDRESS = r"[A-Za-z0-9._%+-]{1,64}(?:@|%40)[A-Za-z0-9.-]{1,255}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleKept:
    """How one rule was kept.

    Attributes:
        rule: as ``1/60s``; None where there was none or nobody knows.
        violations: requests that broke it; None if nobody knows.
    """

    rule: str | None
    runs: int
    requests: int
    violations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """What passed between us and one source in a window.

    Attributes:
        totals: None if no run wanted anything from it.
        rules: by how much they were used.
        requests: the most frequent first, ten at most.
        other_requests: how many different ones there are besides, sent ``other_times``.
        findings: by time.
        attempts: the newest of those that show the findings, with what was kept of them.
        phases: how long each took, by name.
    """

    source: str
    window: Window
    totals: SourceTotals | None
    rules: list[RuleKept]
    requests: list[SentRequest]
    other_requests: int
    other_times: int
    availability: Availability | None
    findings: list[Finding]
    attempts: list[AttemptRecord]
    phases: Mapping[str, Histogram]


def request_ids(evidence: Evidence | None) -> list[str]:
    """Find what the upstream itself calls an exchange: ``cf-ray 8c1f``, in the order received."""
    headers = () if evidence is None else evidence.headers
    return [f"{name} {value}" for name, value in headers if name.lower() in REQUEST_ID_HEADERS]


def compile_dossier(session: Session, window: Window, *, source: str) -> Dossier:
    """Gather what concerns *source* in a window."""
    found = examine(session, window, source=source)
    findings = sorted(filter(_is_theirs, found.findings), key=lambda finding: finding.since)
    totals = history.source_totals(session, window, source=source)
    requests = sent_requests(
        session, since=window.since, until=window.until, source=source, most=MOST_REQUESTS
    )
    different, times = count_requests(
        session, since=window.since, until=window.until, source=source
    )
    return Dossier(
        source=source,
        window=window,
        totals=totals[0] if totals else None,
        rules=_rules_kept(history.tallies(session, window, source=source)),
        requests=[replace(sent, request=_anonymous(sent.request)) for sent in requests],
        other_requests=different - len(requests),
        other_times=times - sum(sent.n for sent in requests),
        availability=found.availability[0] if found.availability else None,
        findings=findings,
        attempts=_attempts_of(session, findings),
        phases=history.percentiles(session, window, source=source).of.get(source, {}),
    )


def _is_theirs(finding: Finding) -> bool:
    return finding.kind not in NOT_FOR_PROVIDERS and len(finding.sources) == 1


def _rules_kept(tallies: Iterable[Tally]) -> list[RuleKept]:
    by_rule: defaultdict[tuple[str | None, bool], list[Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.attempts:
            by_rule[tally.rule, tally.violations is not None].append(tally)
    kept = [
        RuleKept(
            rule=rule,
            runs=len(of),
            requests=sum(tally.attempts for tally in of),
            violations=sum(tally.violations or 0 for tally in of) if is_known else None,
        )
        for (rule, is_known), of in by_rule.items()
    ]
    return sorted(kept, key=lambda rule: -rule.requests)


def _attempts_of(session: Session, findings: Iterable[Finding]) -> list[AttemptRecord]:
    """Look up the attempts of *findings*: of the newest, should they be too many."""
    ids = sorted({attempt_id for finding in findings for attempt_id in finding.attempts})
    cases = (queries.find_attempt(session, attempt_id=i) for i in ids[-MOST_ATTEMPTS:])
    return [_anonymous_attempt(case.record) for case in cases if case is not None]


def _anonymous_attempt(record: AttemptRecord) -> AttemptRecord:
    attempt = record.attempt
    return replace(
        record,
        attempt=replace(
            attempt,
            detail=attempt.detail and _without_addresses(attempt.detail),
            request=attempt.request and _anonymous(attempt.request),
            evidence=attempt.evidence
            and replace(
                attempt.evidence,
                headers=_anonymous_headers(attempt.evidence.headers),
                body=_anonymous_bytes(attempt.evidence.body),
            ),
        ),
    )


def _anonymous(request: Request) -> Request:
    """Leave out whom the upstream may write to: random.org wants it in User-Agent."""
    return replace(
        request,
        url=_without_addresses(request.url),
        headers=_anonymous_headers(request.headers),
        body=_anonymous_bytes(request.body),
    )


def _anonymous_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _without_addresses(value)) for name, value in headers)


def _anonymous_bytes(body: bytes) -> bytes:
    return re.sub(_ADDRESS.encode(), ADDRESS.encode(), body)


def _without_addresses(text: str) -> str:
    return re.sub(_ADDRESS, ADDRESS, text)
