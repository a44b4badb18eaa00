"""What else is worth a word: changed contracts, odd answers, and manners of our own. Pure.

One function per rule; each says in its docstring when it speaks up and how loudly.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import attrgetter

from pipeline.audit.observations import Observation, usual_interval
from pipeline.audit.wording import counted, roughly, select_attempts
from pipeline.errors import ErrorName, Whose
from pipeline.models import Aspect, ContractSpan, Finding, FindingKind, Loss, Severity, Tally

ENOUGH = 20  # of anything before we say what is usual
TOO_FAST = 10  # times as fast as usual
SILENT = 3  # usual intervals without a word
MOST_KEYS = 6  # of an answer that are named

ASPECTS = {
    Aspect.CONTENT_TYPE: "the content type of answers",
    Aspect.KEYS: "the keys of answers",
    Aspect.REFUSAL: "how it refuses",
    Aspect.TLS_ISSUER: "the issuer of its certificate",
}

Change = tuple[ContractSpan, ContractSpan]  # before, after


def find_contract_changes(
    spans: Iterable[ContractSpan], *, since: datetime | None, until: datetime
) -> Iterator[Finding]:
    """Tell what answers look like now and did not before; the first value ever is no change.

    A value that comes and goes is one finding however often it does, and over as long as the first
    of them is back. It is a warning; a new issuer of certificates is not: the common authorities
    change their intermediates all the time. *spans* must be in the order of source, aspect and
    time.
    """
    for _, group in groupby(spans, key=attrgetter("source", "aspect")):
        flaps: list[Change] = []
        for change in pairwise(group):
            changed_at = change[1].first_at
            if (since is not None and changed_at < since) or changed_at >= until:
                continue
            if flaps and _values(change) != _values(flaps[-1]):
                yield _changed(flaps, until=changed_at)
                flaps = []
            flaps.append(change)
        if flaps:
            yield _changed(flaps, until=None)


def _values(change: Change) -> set[str]:
    return {span.value for span in change}


def _changed(changes: Sequence[Change], *, until: datetime | None) -> Finding:
    before, after = changes[0]
    newest = changes[-1][1]
    is_usual = after.aspect is Aspect.TLS_ISSUER
    return Finding(
        kind=FindingKind.CONTRACT_CHANGE,
        severity=Severity.INFO if is_usual else Severity.WARNING,
        sources=(after.source,),
        since=after.first_at,
        until=newest.first_at if newest.value == before.value else until,
        reason=_say_change(before, after, newest, len(changes)),
        whose=Whose.UPSTREAM,
        attempts=select_attempts(
            [before.first_attempt, *(new.first_attempt for _, new in changes)]
        ),
        figures={
            "aspect": after.aspect,
            "before": before.value,
            "after": newest.value,
            "changes": len(changes),
            "first_attempt": after.first_attempt,
        },
    )


def _say_change(before: ContractSpan, after: ContractSpan, newest: ContractSpan, times: int) -> str:
    changed = f"{ASPECTS[after.aspect]} changed"
    if times > 1:
        changed += f" {times:,} times"
    if after.aspect is not Aspect.KEYS:
        if times == 1:
            return f"{changed} from {before.value} to {after.value}"
        return f"{changed} between {before.value} and {after.value}; now {newest.value}"
    old, new = before.value.split(", "), after.value.split(", ")
    gone = [f"-{key}" for key in old if key not in new]
    come = [f"+{key}" for key in new if key not in old]
    differences = _few([*gone, *come], " ")
    return f"{changed}: {differences}; now {_few(newest.value.split(', '), ', ')}"


def _few(keys: Sequence[str], separator: str) -> str:
    told = separator.join(keys[:MOST_KEYS])
    return told if len(keys) <= MOST_KEYS else f"{told} and {len(keys) - MOST_KEYS:,} more"


def find_stale(observations: Iterable[Observation]) -> Iterator[Finding]:
    """Warn of sources of fresh numbers that served the same ones again.

    It goes on as long as the newest run that asked the source, of those in *observations*, which
    are in the order of time, got such an answer.
    """
    found: defaultdict[str, list[Loss]] = defaultdict(list)
    going_on: dict[str, bool] = {}
    for observation in observations:
        stale = [loss for loss in observation.losses if loss.error is ErrorName.STALE]
        found[observation.source] += stale
        if observation.tally.attempts:
            going_on[observation.source] = bool(stale)
    for source, of in found.items():
        if not of:
            continue
        attempts = sum(loss.attempts for loss in of)
        batches = sum(loss.batches for loss in of)
        answers = counted(attempts, "answer", "answers")
        yield Finding(
            kind=FindingKind.STALE,
            severity=Severity.WARNING,
            sources=(source,),
            since=min(loss.first_at for loss in of),
            until=None if going_on.get(source) else max(loss.last_at for loss in of),
            reason=f"{answers} held numbers that it had served before",
            whose=Whose.CONTRACT,
            batches=batches,
            attempts=select_attempts(
                i for loss in of for i in (loss.first_attempt, loss.last_attempt)
            ),
            figures={"answers": attempts, "runs": len(of)},
        )


def _by_source(tallies: Iterable[Tally]) -> dict[str, list[Tally]]:
    found: defaultdict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        found[tally.source].append(tally)
    return dict(found)


def find_conduct(tallies: Iterable[Tally]) -> Iterator[Finding]:
    """Apply the rules that look at the tallies of one source alone."""
    for of in _by_source(tallies).values():
        for rule in (find_too_fast, find_violations, find_useless_retries):
            finding = rule(of)
            if finding is not None:
                yield finding


def find_too_fast(tallies: Sequence[Tally]) -> Finding | None:
    """Warn if a source's fastest answer of a run took less than a tenth of what is usual for it.

    Usual is the median over the runs of the window; below 20 of them nothing is said. Numbers that
    come so fast were hardly made by who usually makes them: think of a cache, or a stranger.
    """
    known = [(us, tally) for tally in tallies if (us := tally.fastest_us) is not None]
    if len(known) < ENOUGH:
        return None
    usual_us = sorted(us for us, _ in known)[len(known) // 2]
    fast = [(us, tally) for us, tally in known if us * TOO_FAST < usual_us]
    if not fast:
        return None
    fastest_us = min(us for us, _ in fast)
    return Finding(
        kind=FindingKind.TOO_FAST,
        severity=Severity.WARNING,
        sources=(fast[0][1].source,),
        since=fast[0][1].started_at,
        until=fast[-1][1].started_at,
        reason=(
            f"{counted(len(fast), 'run', 'runs')} had an answer in less than a tenth of the usual"
            f" time: {fastest_us / 1000:.3g} ms against {usual_us / 1000:.3g} ms"
        ),
        whose=Whose.UPSTREAM,
        attempts=select_attempts(tally.fastest_attempt for _, tally in fast),
        figures={
            "runs": len(fast),
            "of_runs": len(known),
            "fastest_us": fastest_us,
            "usual_us": usual_us,
        },
    )


def find_violations(tallies: Sequence[Tally]) -> Finding | None:
    """Warn of requests of ours that went too soon: being a good guest is a promise.

    Where a rate was in force, a tally does not tell which of its requests broke that, and which
    went before a time that the upstream had named.
    """
    broken = [tally for tally in tallies if tally.violations]
    if not broken:
        return None
    n = sum(tally.violations or 0 for tally in broken)
    rules = sorted({tally.rule for tally in broken if tally.rule})
    too_soon = f" too soon after another (at most {' or '.join(rules)}), or" if rules else ""
    return Finding(
        kind=FindingKind.RULE_VIOLATION,
        severity=Severity.WARNING,
        sources=(broken[0].source,),
        since=broken[0].started_at,
        until=broken[-1].started_at,
        reason=(
            f"{counted(n, 'request', 'requests')} of ours went{too_soon} before a time that the"
            " upstream had named"
        ),
        whose=Whose.OURS,
        attempts=select_attempts(tally.violating_attempt for tally in broken),
        figures={"requests": n, "runs": len(broken), "rules": rules},
    )


def find_useless_retries(tallies: Sequence[Tally]) -> Finding | None:
    """Remark that 20 retries or more were made in the window and not one brought numbers."""
    retried = [tally for tally in tallies if tally.retries]
    retries = sum(tally.retries for tally in retried)
    if retries < ENOUGH or any(tally.retries_helped for tally in retried):
        return None
    return Finding(
        kind=FindingKind.USELESS_RETRIES,
        severity=Severity.INFO,
        sources=(retried[0].source,),
        since=retried[0].started_at,
        until=retried[-1].started_at,
        reason=f"none of {retries:,} retries helped; fewer (retries = 0) would spare both sides",
        whose=Whose.OURS,
        figures={"retries": retries, "runs": len(retried)},
    )


def find_silent(
    tallies: Iterable[Tally], enabled: Collection[str], *, until: datetime
) -> Iterator[Finding]:
    """Warn of enabled sources that no run has asked for since three usual intervals.

    Those that fell silent together are one finding. Of a source that less than 20 runs wanted
    nobody knows what is usual.
    """
    moments: dict[str, list[datetime]] = {name: [] for name in enabled}
    for tally in tallies:
        if tally.source in moments:
            moments[tally.source].append(tally.started_at)
    last_heard: defaultdict[datetime, list[str]] = defaultdict(list)
    intervals: dict[str, timedelta] = {}
    for name, of in moments.items():
        interval = usual_interval(of)
        if len(of) >= ENOUGH and interval and until - of[-1] > SILENT * interval:
            last_heard[of[-1]].append(name)
            intervals[name] = interval
    for last_at, names in last_heard.items():
        interval = max(intervals[name] for name in names)
        yield Finding(
            kind=FindingKind.SILENT,
            severity=Severity.WARNING,
            sources=tuple(sorted(names)),
            since=last_at,
            until=None,
            reason=f"no run wanted it since, and usually one does every {roughly(interval)}",
            whose=Whose.OURS,
            figures={"usual_interval_us": interval // timedelta(microseconds=1)},
        )
