"""The rule of contracts: what answers look like has changed. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from operator import attrgetter

from pipeline.audit.observations import select_attempts
from pipeline.errors import Whose
from pipeline.models import Aspect, ContractSpan, Finding, FindingKind, Severity
from pipeline.models.words import UNFIT

MOST_KEYS = 6  # of an answer that are named

ASPECTS = {
    Aspect.CONTENT_TYPE: "the content type of answers",
    Aspect.KEYS: "the keys of answers",
    Aspect.REFUSAL: "how it refuses",
    Aspect.TLS_ISSUER: "the issuer of its certificate",
    Aspect.SIGNING: "how it signs",
}

Change = tuple[ContractSpan, ContractSpan]  # before, after


def find_contract_changes(
    spans: Iterable[ContractSpan], *, since: datetime | None, until: datetime
) -> Iterator[Finding]:
    """Find changes in what answers look like; the first value ever seen is no change.

    Signatures of another length than the pinned key makes are one from the first, until they fit.

    All changes from one value until it is back are one finding, and so are more of the same kind
    after it. It is a warning as long as the value is not back, and a remark once it is; a new
    issuer of certificates is never more than that: the common authorities change their
    intermediates all the time. *spans* must be in the order of source, aspect and time.
    """
    for _, group in groupby(spans, key=attrgetter("source", "aspect")):
        changes: list[Change] = []
        values: set[str] = set()
        first, *later = group
        known = [first, first, *later] if _is_unfit(first) else [first, *later]
        for before, after in pairwise(known):
            if (since is not None and after.first_at < since) or after.first_at >= until:
                continue
            if changes and _is_back(changes) and after.value not in values:
                yield _changed(changes)
                changes, values = [], set()
            changes.append((before, after))
            values |= {before.value, after.value}
        if changes:
            yield _changed(changes)


def _is_unfit(span: ContractSpan) -> bool:
    return span.aspect is Aspect.SIGNING and UNFIT in span.value


def _was_unfit_at_first(changes: Sequence[Change]) -> bool:
    before, after = changes[0]
    return before is after


def _is_back(changes: Sequence[Change]) -> bool:
    newest = changes[-1][1]
    if _was_unfit_at_first(changes):
        return not _is_unfit(newest)
    return newest.value == changes[0][0].value


def _changed(changes: Sequence[Change]) -> Finding:
    before, after = changes[0]
    newest = changes[-1][1]
    is_over = _is_back(changes)
    return Finding(
        kind=FindingKind.CONTRACT_CHANGE,
        severity=(
            Severity.INFO if is_over or after.aspect is Aspect.TLS_ISSUER else Severity.WARNING
        ),
        sources=(after.source,),
        since=after.first_at,
        until=newest.first_at if is_over else None,
        reason=_say_change(changes),
        whose=Whose.UPSTREAM,
        attempts=select_attempts(
            [before.first_attempt, *(new.first_attempt for _, new in changes)]
        ),
        figures={
            "aspect": after.aspect,
            "before": None if _was_unfit_at_first(changes) else before.value,
            "after": newest.value,
            "changes": len(changes),
            "first_attempt": after.first_attempt,
        },
    )


def _say_change(changes: Sequence[Change]) -> str:
    before, after = changes[0]
    newest = changes[-1][1]
    if _was_unfit_at_first(changes):
        fits = "fits the pinned key by now" if _is_back(changes) else "does not fit the pinned key"
        return f"{ASPECTS[after.aspect]} {fits}: {newest.value}"
    changed = f"{ASPECTS[after.aspect]} changed"
    if len(changes) > 1:
        changed += f" {len(changes):,} times"
    if after.aspect is not Aspect.KEYS:
        if len(changes) > 1 and {new.value for _, new in changes} <= {before.value, after.value}:
            return f"{changed} between {before.value} and {after.value}; now {newest.value}"
        if _is_back(changes):
            return f"{changed} and is {newest.value} again"
        return f"{changed} from {before.value} to {newest.value}"
    other = after if _is_back(changes) else newest
    old, new = before.value.split(", "), other.value.split(", ")
    gone = [key for key in old if key not in new]
    come = [key for key in new if key not in old]
    told = [f"gone: {_few(gone)}" if gone else "", f"new: {_few(come)}" if come else ""]
    return "; ".join(filter(None, (changed, *told, f"now: {_few(newest.value.split(', '))}")))


def _few(keys: Sequence[str]) -> str:
    told = ", ".join(keys[:MOST_KEYS])
    return told if len(keys) <= MOST_KEYS else f"{told} and {len(keys) - MOST_KEYS:,} more"
