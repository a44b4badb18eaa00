"""Findings, availability and failures as tables and text, for audits, dossiers and reports."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeAlias, overload

from pipeline.audit.availability import ACCOUNTING_RULE, Availability
from pipeline.audit.incidents import Incident
from pipeline.errors import Phase, Whose
from pipeline.models import Finding, Measure, Proof, Severity
from pipeline.rendering.document import Table, Text
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import show_time

NOT_ASKED = "not asked"  # in place of the phase in which batches were lost
MOST_LISTED = 30  # findings in a text; what goes on comes first, then the newest

LISTED = "severity kind sources reason since until whose batches attempt_ids=attempts"
TIME_UP = (
    "source is_sandbox available_share=share unknown_share up_us down_us observations"
    " outages recoveries mean_recovery_us longest_recovery_us"
)

WORST_FIRST = tuple(reversed(Severity))
Found: TypeAlias = Finding | Incident


class Findings(Sequence[Finding]):
    """What an audit found; what goes on comes first, the worst before the newest, then the newest.

    An incident becomes a finding when somebody looks at it: after a year of a source that fails
    every hour there are ten thousand, of which a page tells a dozen.
    """

    def __init__(self, found: Iterable[Found]) -> None:
        by_name = sorted(found, key=attrgetter("sources"))
        newest_first = sorted(by_name, key=lambda each: each.until or each.since, reverse=True)
        self._found = sorted(newest_first, key=_urgency)

    @property
    def are_alarming(self) -> bool:
        """Tell whether any is a warning or worse."""
        return any(each.severity is not Severity.INFO for each in self._found)

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> list[Finding]: ...
    def __getitem__(self, place: int | slice) -> Finding | list[Finding]:
        if isinstance(place, slice):
            return list(map(_make, self._found[place]))
        return _make(self._found[place])

    def __iter__(self) -> Iterator[Finding]:
        return map(_make, self._found)


def _urgency(found: Found) -> int:
    return WORST_FIRST.index(found.severity) if found.until is None else len(WORST_FIRST)


def _make(found: Found) -> Finding:
    return found.make_finding() if isinstance(found, Incident) else found


def tabulate_findings(findings: Sequence[Finding], title: str = "Findings") -> Table:
    """Make a row of each finding."""
    return tabulate(Finding, findings, LISTED, title=title)


def tell_availability(availability: Sequence[Availability]) -> tuple[Table, Text]:
    """Make a row of each source, and print the rule by which the time was counted."""
    table = tabulate(Availability, availability, TIME_UP, title="Availability")
    return table, Text(lines=[ACCOUNTING_RULE])


def tabulate_failures(
    record: type, found: Iterable[object], fields: str, *, title: str = ""
) -> Table:
    """Make a row of each source, error and phase."""
    return tabulate(record, found, fields, title=title, nothing={"phase": NOT_ASKED})


def explain_failures(phases: Iterable[Phase | None]) -> Text:
    """Say where the evidence is, and how batches can be lost without a request, if any were."""
    lines = ["`pipeline audit show NUMBER` prints the evidence of an attempt."]
    if None in phases:
        lines.append(
            f"{NOT_ASKED.capitalize()}: no request was made for these batches; the source was left"
            " alone because too many attempts in a row had failed so, or the run ended before their"
            " turn came."
        )
    return Text(lines=lines, is_ours=True)


def list_findings(findings: Sequence[Finding]) -> Text:
    """Tell each finding in a few lines: on a terminal a table of them would not fit."""
    lines = [line for finding in findings[:MOST_LISTED] for line in _tell(finding)]
    if len(findings) > MOST_LISTED:
        left_out = len(findings) - MOST_LISTED
        lines.append(f"and {left_out:,} more, less urgent or older; --format json gives all")
    return Text(title="Findings", lines=lines, is_verbatim=True)


def _tell(finding: Finding) -> Iterator[str]:
    kind, sources = finding.kind.replace("_", " "), ", ".join(finding.sources)
    yield f"{finding.severity}: {kind}, {sources}, {tell_when(finding)}"
    by_whom = f" (responsible: {responsible(finding.whose)})" if finding.whose else ""
    yield f"    {finding.reason}{by_whom}"
    if finding.attempts:
        first, last = finding.attempts[0], finding.attempts[-1]
        to_last = f" (the first), {last} (the last)" if last != first else ""
        yield f"    see: pipeline audit show {first}{to_last}"


def tell_when(finding: Finding) -> str:
    """Say from when to when it was."""
    if finding.until is None:
        return f"since {show_time(finding.since)}, still going on"
    if finding.until == finding.since:
        return show_time(finding.since)
    return f"{show_time(finding.since)} to {show_time(finding.until)}"


def tell_measures(measures: Iterable[Measure]) -> str:
    """Say what an answer tells of its numbers beside them."""
    wanted = (
        f"{each.name} {each.value:g}"
        + ("" if each.at_least is None else f" (wanted: at least {each.at_least:g})")
        for each in measures
    )
    return f"Its answer says of itself: {', '.join(wanted)}."


def tell_proof(proof: Proof) -> str:
    """Say what a source signed, and how far that was verified when it came."""
    drawn = ", from which each batch drew its own numbers" if proof.is_expanded else ""
    return f"Proof: {proof.scheme}, number {proof.serial}{drawn}; {proof.word}."


def responsible(whose: Whose) -> str:
    """Name the responsible party to a person."""
    return "us" if whose is Whose.OURS else whose
