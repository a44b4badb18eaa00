"""The smaller rules: odd answers, silence, and whether we keep the limits. Pure.

One function per rule; its docstring says when it finds something, and of which severity.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pipeline.audit.courses import Course, sum_retried, sum_stale, usual_interval_us
from pipeline.audit.observations import select_attempts
from pipeline.errors import Whose
from pipeline.models import (
    Finding,
    FindingKind,
    Late,
    Overdue,
    Severity,
    Tally,
    WeakMeasure,
)
from pipeline.pacing import Embargo
from pipeline.rendering.records import pick
from pipeline.rendering.words import count_of, iso_time, show_duration, show_time
from pipeline.store.columns import MICROSECOND, from_us, to_us

ENOUGH = 20  # of anything, before we say what is usual
TOO_FAST = 10  # times as fast as usual
SILENT = 3  # usual intervals in which no run asked
CRON_US = 60_000_000  # cron starts nothing more often
SHUT = 10  # usual intervals, and an hour
LAST_WRITES = timedelta(seconds=30)  # a run may take to end when its deadline is over

# Looks up what runs got from a source whose fastest answer took less than so many microseconds.
FindFast = Callable[[str, int], Iterable[Tally]]


def find_stale(courses: Mapping[str, Course]) -> Iterator[Finding]:
    """Warn of sources of fresh numbers that served the same ones again.

    It goes on as long as the newest run that asked the source got such an answer.
    """
    for source, course in courses.items():
        if not course.stale:
            continue
        found = sum_stale(course.stale)
        answers = count_of(found.answers, "answer")
        yield Finding(
            kind=FindingKind.STALE,
            severity=Severity.WARNING,
            sources=(source,),
            since=from_us(found.first_us),
            until=None if course.is_stale else from_us(found.last_us),
            reason=f"{answers} held numbers that it had served before",
            whose=Whose.CONTRACT,
            batches=found.batches,
            attempts=tuple(found.attempts),
            figures=pick(found, "answers runs=losses"),
        )


def find_weak(measures: Iterable[WeakMeasure]) -> Iterator[Finding]:
    """Warn of sources whose answers hold a figure below what is wanted of it.

    It goes on as long as the newest answer that has the figure is below.
    """
    for weak in measures:
        is_going_on = weak.last_attempt == weak.newest_attempt
        yield Finding(
            kind=FindingKind.WEAK,
            severity=Severity.WARNING,
            sources=(weak.source,),
            since=weak.first_at,
            until=None if is_going_on else weak.last_at,
            reason=(
                f"{weak.name} was below {weak.at_least:g} in {weak.below:,} of"
                f" {count_of(weak.n, 'answer')}, down to {weak.lowest:g}"
            ),
            whose=Whose.UPSTREAM,
            attempts=select_attempts((weak.first_attempt, weak.last_attempt)),
            figures=pick(weak, "measure=name at_least lowest below answers=n"),
        )


def find_conduct(courses: Mapping[str, Course], find_fast: FindFast) -> Iterator[Finding]:
    """Apply the rules that look at the course of one source alone."""
    for source, course in courses.items():
        for finding in (
            find_too_fast(source, course, find_fast),
            find_violations(source, course),
            find_useless_retries(source, course),
        ):
            if finding is not None:
                yield finding


def find_too_fast(source: str, course: Course, find_fast: FindFast) -> Finding | None:
    """Warn if a source's fastest answer of a run took less than a tenth of what is usual for it.

    Usual is the median over the runs of the window; with fewer than 20 of them nothing is said.
    So fast an answer may come from a cache, or from somebody else than the source.
    """
    known = sorted(course.fastest)
    if len(known) < ENOUGH:
        return None
    usual_us, fastest_us = known[len(known) // 2], known[0]
    if fastest_us * TOO_FAST >= usual_us:
        return None
    fast = list(find_fast(source, -(-usual_us // TOO_FAST)))
    return Finding(
        kind=FindingKind.TOO_FAST,
        severity=Severity.WARNING,
        sources=(source,),
        since=fast[0].started_at,
        until=fast[-1].started_at,
        reason=(
            f"{count_of(len(fast), 'run')} had an answer in less than a tenth of the usual"
            f" time: {fastest_us / 1000:.3g} ms against {usual_us / 1000:.3g} ms"
        ),
        whose=Whose.UPSTREAM,
        attempts=select_attempts(tally.fastest_attempt for tally in fast),
        figures={
            "runs": len(fast),
            "of_runs": len(known),
            "fastest_us": fastest_us,
            "usual_us": usual_us,
        },
    )


def find_violations(source: str, course: Course) -> Finding | None:
    """Warn of requests that we sent too soon, against the rules of the upstream.

    Where a rate was in force, nobody can tell any more which of the requests broke the rate, and
    which went before a time that the upstream had named.
    """
    broken = course.broken
    if not broken:
        return None
    n = sum(each.requests for each in broken)
    rules = sorted({each.rule for each in broken if each.rule})
    too_soon = f" too soon after another (at most {' or '.join(rules)}), or" if rules else ""
    return Finding(
        kind=FindingKind.RULE_VIOLATION,
        severity=Severity.WARNING,
        sources=(source,),
        since=from_us(broken[0].started_us),
        until=from_us(broken[-1].started_us),
        reason=(
            f"{count_of(n, 'request')} of ours went{too_soon} before a time that the"
            " upstream had named"
        ),
        whose=Whose.OURS,
        attempts=select_attempts(each.attempt for each in broken),
        figures={"requests": n, "runs": len(broken), "rules": rules},
    )


def find_useless_retries(source: str, course: Course) -> Finding | None:
    """Report (info) that 20 retries or more were made in the window and none brought numbers."""
    if not course.retried:
        return None
    found = sum_retried(course.retried)
    if found.retries < ENOUGH or found.helped:
        return None
    return Finding(
        kind=FindingKind.USELESS_RETRIES,
        severity=Severity.INFO,
        sources=(source,),
        since=from_us(found.first_us),
        until=from_us(found.last_us),
        reason=(
            f"none of {found.retries:,} retries helped; fewer (retries = 0) would spare both sides"
        ),
        whose=Whose.OURS,
        figures=pick(found, "retries runs"),
    )


def find_impossible(
    newest: Mapping[str, int],
    limits: Mapping[int, Mapping[str, Any]],
    since: Mapping[int, datetime],
) -> Iterator[Finding]:
    """Warn of an order that the rules can never let through whole, however long one waits.

    *newest* is the run that last wanted each source, *limits* what was in force in it, and *since*
    when that began.
    """
    for run_id, of in limits.items():
        for misfit in of["impossible"]:
            sources = tuple(sorted(s for s in misfit["sources"] if newest.get(s) == run_id))
            if sources:
                yield Finding(
                    kind=FindingKind.IMPOSSIBLE,
                    severity=Severity.WARNING,
                    sources=sources,
                    since=since[run_id],
                    until=None,
                    reason=misfit["reason"],
                    whose=Whose.OURS,
                    figures={"run": run_id},
                )


def find_silent(
    courses: Mapping[str, Course], enabled: Collection[str], *, until: datetime
) -> Iterator[Finding]:
    """Warn of enabled sources that no run has asked for since three usual intervals.

    Those that fell silent together are one finding. If fewer than 20 runs wanted a source, its
    usual interval is not known, and nothing is said. Nor is it of runs that came faster than cron
    starts them: somebody tried the program by hand, or a schedule keeps account of its slots.
    """
    last_heard: defaultdict[int, list[str]] = defaultdict(list)
    intervals: dict[str, int] = {}
    for name in enabled:
        moments = courses[name].moments if name in courses else ()
        interval = usual_interval_us(moments)
        if len(moments) < ENOUGH or not interval or interval < CRON_US:
            continue
        if to_us(until) - moments[-1] > SILENT * interval:
            last_heard[moments[-1]].append(name)
            intervals[name] = interval
    for last_us, names in last_heard.items():
        usual_us = max(intervals[name] for name in names)
        yield Finding(
            kind=FindingKind.SILENT,
            severity=Severity.WARNING,
            sources=tuple(sorted(names)),
            since=from_us(last_us),
            until=None,
            reason=f"no run wanted it since, and usually one does every {show_duration(usual_us)}",
            whose=Whose.OURS,
            figures={"usual_interval_us": usual_us},
        )


def find_shut(source: str, embargo: Embargo, tallies: Sequence[Tally]) -> Finding | None:
    """Warn of a source that must not be asked for ten usual intervals, and an hour.

    *tallies* are those of its last runs, in the order of time. Where one of them has asked it
    since, the embargo is on an address or a key that it no longer has.
    """
    said_at = embargo.said_at or embargo.until
    if any(tally.attempts for tally in tallies if tally.started_at > said_at):
        return None
    usual_us = usual_interval_us([to_us(tally.started_at) for tally in tallies])
    interval = usual_us * MICROSECOND if usual_us else timedelta(days=1) / SHUT
    length = embargo.until - said_at
    if length <= max(SHUT * interval, timedelta(hours=1)):
        return None
    return Finding(
        kind=FindingKind.SHUT,
        severity=Severity.WARNING,
        sources=(source,),
        since=said_at,
        until=None,
        reason=(
            f"not to be asked before {show_time(embargo.until)}: {embargo.why};"
            f" `pipeline sources release {source}` lifts it"
        ),
        whose=Whose.POLICY,
        figures={
            "not_before": iso_time(embargo.until),
            "usual_interval_us": interval // MICROSECOND,
        },
    )


def find_overdue(runs: Iterable[Overdue], *, now: datetime) -> Iterator[Finding]:
    """Warn of runs that are called running and should have ended, or have fallen silent."""
    for run in runs:
        is_late = now - run.until > (timedelta(0) if run.is_alive is False else LAST_WRITES)
        if not is_late and run.silent_since is None:
            continue
        fate = {
            True: "and its process is still there",
            False: "and its process is gone: the next run will mark it interrupted",
            None: "and nobody here can tell whether its process is there",
        }[run.is_alive]
        lack = "has not ended by its deadline"
        if not is_late and run.silent_since is not None:
            lack = f"has given no sign of life since {show_time(run.silent_since)}"
        yield Finding(
            kind=FindingKind.OVERDUE,
            severity=Severity.WARNING,
            sources=run.sources,
            since=run.until if is_late or run.silent_since is None else run.silent_since,
            until=None,
            reason=f"run {run.run_id} of {run.host} {lack}, {fate}",
            whose=Whose.OURS,
            figures={"run_id": run.run_id, "started_at": iso_time(run.started_at)},
        )


def find_late(late: Iterable[Late]) -> Iterator[Finding]:
    """Tell of attempts that came when their run had ended; warn if they would have brought numbers.

    They are kept beside the run, and are no part of its sums.
    """
    for of in late:
        worker = of.host if of.pid is None else f"{of.host} pid {of.pid}"
        origin = "" if of.file is None else f", set aside in {of.file}"
        yield Finding(
            kind=FindingKind.LATE,
            severity=Severity.WARNING if of.collected else Severity.INFO,
            sources=(of.source,),
            since=of.first_at,
            until=of.last_at,
            reason=(
                f"{count_of(of.attempts, 'attempt')} of run {of.run_id} by {worker}{origin}, came"
                f" when the run had ended, with {count_of(of.collected, 'batch')}: kept beside it"
            ),
            whose=Whose.OURS,
            figures=pick(of, "run_id host pid attempts collected file"),
        )
