"""What one other limit would have done to one case. Pure.

An attempt that is made all the same is taken to have gone as it went.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from itertools import accumulate, chain
from typing import Any, TypeAlias

from pipeline.errors import ErrorName
from pipeline.models import Attempt
from pipeline.simulate.cases import MICROSECOND, Case, count_failures
from pipeline.simulate.effects import (
    SECOND,
    Effect,
    Span,
    as_it_was,
    bound_by_deadline,
    count_kept,
    interval_of,
    is_refused,
    leave_open,
    longest_us,
    retries_left,
)

TIMEOUTS = (ErrorName.CONNECT_TIMEOUT, ErrorName.READ_TIMEOUT, ErrorName.WRITE_TIMEOUT)
ALMOST = 0.98  # of its limit: an attempt that took so long was cut by it

CUT = "a retry after the shorter limit was not made"
LONGER = "how long an attempt would have taken that was cut off"
RETRY = "how one more retry would have ended"
BUDGET = "whether the retry budget would have allowed a retry"
BREAKER = "how requests would have ended that the breaker held back"
DEADLINE = "how requests would have ended that the deadline held back"
MERGED = "how requests would have ended that carry other batches"
REFUSED = "whether the upstream would have refused at that rate"

Change: TypeAlias = Callable[[Case, Any, Any], Effect]  # the limit as it was, and the other one


# ---- Retries ----


def with_retries(case: Case, now: int, retries: int) -> Effect:
    """Fewer retries are certain, but for what they leave to others; more are bounded."""
    kept = {id(asked): asked.tries[: retries + 1] for asked in case.fetches}
    effect = count_kept(case, kept)
    dropped = [each for asked in case.fetches for each in asked.tries[retries + 1 :]]
    if retries < now:
        saved = sum(each.took_us + each.wait_us for each in dropped)
        # What lies between two tries is no wait of either: never save more than is known for sure.
        low = max(as_it_was(case).clock_us.low - saved, 0)
        effect.clock_us = Span(min(low, effect.clock_us.high), effect.clock_us.high)
    opened, would_open = (
        _opened(case, case.tries),
        _opened(case, chain.from_iterable(kept.values())),
    )
    for asked in case.fetches:
        left = retries_left(asked, retries)
        if asked.is_left_alone:
            if retries < now and would_open != opened:
                leave_open(effect, case, asked, BREAKER, tries=retries + 1)
        elif left and asked.missing and (retries > now or case.is_budget_spent):
            why = RETRY if retries > now and left <= retries - now else BUDGET
            leave_open(effect, case, asked, why, tries=left)
    return bound_by_deadline(effect, case)


# ---- The time of an attempt ----


def with_attempt_seconds(case: Case, now: float, seconds: float) -> Effect:
    """Tell certainly which attempts a shorter time cuts; a longer one is bounded."""
    effect = _cut_short(case, seconds) if seconds < now else _let_go_on(case, now, seconds)
    return bound_by_deadline(effect, case)


def _cut_short(case: Case, seconds: float) -> Effect:
    effect, most_us = as_it_was(case), int(seconds * SECOND)
    saved = 0
    failed: set[int] = set()
    for asked in case.fetches:
        cut = [each for each in asked.tries if each.took_us > most_us]
        saved += sum(each.took_us - most_us for each in cut)
        failed.update(map(id, cut))
        if not cut or cut[-1] is not asked.tries[-1]:
            continue
        last = cut[-1]
        is_new = last.error is None or not last.error.may_retry
        left = case.limits["retries"] + 1 - last.number if is_new else 0
        if left:
            leave_open(effect, case, asked, CUT, tries=left)
        elif last.error is None:
            effect.missing = effect.missing.plus(len(asked.batches), len(asked.batches))
    effect.clock_us = Span(max(effect.clock_us.low - saved, 0), effect.clock_us.high)
    opened = _opened(case, case.tries, failed)
    if opened is not None and opened != _opened(case, case.tries):
        held = sum(
            len(asked.batches) - asked.missing
            for asked in case.fetches
            if asked.tries and asked.tries[0].sent_at > opened and id(asked.tries[-1]) not in failed
        )
        effect.missing = effect.missing.plus(0, held)
        effect.requests = Span(0, effect.requests.high)
        effect.unknown[BREAKER] += 1
    return effect


def _let_go_on(case: Case, now: float, seconds: float) -> Effect:
    effect = as_it_was(case)
    for asked in case.fetches:
        cut = [each for each in asked.tries if was_cut(each, now)]
        if not cut:
            continue
        after = len(asked.tries) - cut[0].number
        effect.requests = effect.requests.plus(-after, 0)
        effect.refusals = effect.refusals.plus(
            -sum(map(is_refused, asked.tries[-after:] if after else ())), 0
        )
        spare = case.limits["retries"] + 1 - len(asked.tries)
        leave_open(effect, case, asked, LONGER, tries=max(spare, 0))
        saved = sum(each.took_us + each.wait_us for each in asked.tries[len(asked.tries) - after :])
        longer = int((seconds - now) * SECOND) * (case.limits["retries"] + 1)
        effect.clock_us = Span(max(effect.clock_us.low - saved, 0), effect.clock_us.high + longer)
    return effect


def was_cut(made: Attempt, attempt_seconds: float) -> bool:
    """Tell whether an attempt was ended by its own limit."""
    error = made.error
    return error in TIMEOUTS and made.took_us >= ALMOST * attempt_seconds * SECOND


# ---- The breaker ----


def with_breaker(case: Case, now: int, limit: int) -> Effect:
    """An earlier breaker is certain; what a later one lets through is bounded."""
    if limit == 0 or 0 < now < limit:
        effect = as_it_was(case)
        for asked in case.fetches:
            if asked.is_left_alone:
                tries = case.limits["retries"] + 1 - len(asked.tries)
                leave_open(effect, case, asked, BREAKER, tries=max(tries, 1))
        return bound_by_deadline(effect, case)
    tries = case.tries
    if tries and 0 < limit <= case.failures and count_failures(0, tries[0]):
        return count_kept(
            case, {id(a): [t for t in a.tries if t is tries[0]] for a in case.fetches}
        )
    opened = _opened(case, tries, limit=limit)
    return count_kept(
        case,
        {
            id(asked): [t for t in asked.tries if opened is None or t.sent_at <= opened]
            for asked in case.fetches
        },
    )


def _opened(
    case: Case, tries: Iterable[Attempt], failed: Iterable[int] = (), *, limit: int | None = None
) -> datetime | None:
    """Tell when the breaker opens if these tries are made, and those of *failed* fail."""
    limit, lost = case.limits["breaker"] if limit is None else limit, set(failed)
    in_order = sorted(tries, key=lambda each: each.ended_at)
    if not limit or not in_order:
        return None
    # After failures in earlier runs a probe goes first; here it has shown that the upstream lives.
    before = case.failures if case.failures < limit else 0
    counts = accumulate(
        in_order,
        lambda count, each: count + 1 if id(each) in lost else count_failures(count, each),
        initial=before,
    )
    next(counts)
    return next((t.ended_at for t, n in zip(in_order, counts, strict=True) if n >= limit), None)


# ---- Deadline, rate, merging ----


def with_deadline(case: Case, now: float, seconds: float) -> Effect:
    """Tell certainly what a shorter deadline cuts off; a longer one is bounded."""
    until = case.run.started_at + timedelta(seconds=seconds)
    if seconds > now:
        effect = as_it_was(case)
        for asked in case.fetches:
            error, not_before = asked.batches[0].error, asked.batches[0].not_before
            may_go = not_before is not None and not_before <= until
            if asked.missing and (may_go or error is ErrorName.DEADLINE):
                tries = case.limits["retries"] + 1
                leave_open(effect, case, asked, DEADLINE, tries=tries)
        most = max(effect.clock_us.low, int(seconds * SECOND))
        effect.clock_us = Span(effect.clock_us.low, min(effect.clock_us.high, most))
        return effect
    kept = {id(a): [t for t in a.tries if t.ended_at <= until] for a in case.fetches}
    effect = count_kept(case, kept)
    is_paced = case.limits["rate"] != "none"
    slowest = max((each.took_us for each in case.tries), default=0) * MICROSECOND
    for asked in case.fetches:
        in_flight = sum(each.sent_at <= until < each.ended_at for each in asked.tries)
        effect.requests = effect.requests.plus(0, in_flight)
        refused = sum(is_refused(t) for t in asked.tries if t.sent_at <= until < t.ended_at)
        effect.refusals = effect.refusals.plus(0, refused)
        if in_flight:
            end = int(seconds * SECOND)
            effect.clock_us = Span(effect.clock_us.low, max(effect.clock_us.high, end))
        # It is not sent if an answer as slow as the slowest so far would come too late.
        waited = [t for t in kept[id(asked)] if is_paced and t.sent_at + slowest > until]
        if waited:
            size = len(asked.batches) if asked.is_collected else 0
            effect.missing = effect.missing.plus(
                0, size * (len(kept[id(asked)]) == len(asked.tries))
            )
            effect.requests = effect.requests.plus(-len(waited), 0)
            effect.unknown[DEADLINE] += 1
    return effect


def with_rate(case: Case, now: str, rate: str) -> Effect:
    """Let the queue of the case go at another rate; whether the upstream minds is not known."""
    old, new = interval_of(now), interval_of(rate)
    if old == new:
        return as_it_was(case)
    quick, slow = (_replay(case, new, with_pauses=pauses) for pauses in (False, True))
    effect = quick.or_else(slow)
    refused = sum(len(a.batches) for a in case.fetches if a.tries and is_refused(a.tries[-1]))
    if new < old:
        whole = sum(len(asked.batches) for asked in case.fetches)
        effect.missing = Span(max(effect.missing.low - refused, 0), whole)
        effect.refusals = Span(0, effect.requests.high)
        effect.unknown[REFUSED] += len(case.fetches)
    elif effect.refusals.high:
        effect.missing = effect.missing.plus(-min(refused, effect.missing.low), 0)
        effect.unknown[REFUSED] += effect.refusals.high
        effect.refusals = Span(0, effect.refusals.high)
    for asked in case.fetches:
        if not asked.tries:
            effect.unknown[DEADLINE] += 1
    return effect


def _replay(case: Case, interval: timedelta, *, with_pauses: bool) -> Effect:
    """Send the tries in their order as soon as a worker is free and the rate allows it."""
    asked_first = sorted((a for a in case.fetches if a.tries), key=lambda a: a.tries[0].sent_at)
    if not asked_first:
        return as_it_was(case)
    begin = gate = min(a.tries[0].began_at for a in asked_first)
    free = [begin] * case.limits["in_flight"]
    heapify(free)
    kept: dict[int, list[Attempt]] = {id(asked): [] for asked in case.fetches}
    last = begin
    for asked in asked_first:
        at = free[0]
        for each in asked.tries:
            pause = each.wait_us if with_pauses and each.number > 1 else 0
            at = max(at + pause * MICROSECOND, gate)
            if at > case.deadline:
                break
            kept[id(asked)].append(each)
            gate, at = at + interval, at + each.took_us * MICROSECOND
            last = max(last, at)
        heapreplace(free, at)
    effect = count_kept(case, kept)
    us = (last - case.run.started_at) // MICROSECOND
    effect.clock_us = Span(us, us)
    held = [asked for asked in case.fetches if not asked.tries]
    room = case.deadline - gate
    fits = len(held) if not interval else max(int(room / interval), 0)
    for asked in held[:fits]:
        leave_open(effect, case, asked, DEADLINE, tries=case.limits["retries"] + 1)
    return effect


def with_merge(case: Case, _now: bool, is_merged: bool) -> Effect:
    """Count the requests for certain; how they would have ended is not known."""
    sizes = [batch.n for asked in case.fetches for batch in asked.batches]
    n = _pack(sizes, case.limits["max_numbers"]) if is_merged else len(sizes)
    most = n * (case.limits["retries"] + 1)
    us = min(
        most * longest_us(case, case.limits["attempt_seconds"]),
        int(case.deadline_seconds * SECOND),
    )
    unknown = Counter({MERGED: n})
    return Effect(Span(0, len(sizes)), Span(n, most), Span(0, most), Span(0, us), unknown)


def _pack(sizes: Iterable[int], most: int) -> int:
    """Count the requests that carry batches of these sizes, in their order."""
    requests = room = 0
    for size in sizes:
        if size > room:
            requests, room = requests + 1, most
        room -= size
    return requests


CHANGES: Mapping[str, Change] = {
    "attempt_seconds": with_attempt_seconds,
    "retries": with_retries,
    "breaker": with_breaker,
    "rate": with_rate,
    "merge": with_merge,
    "deadline_seconds": with_deadline,
}


def with_limit(case: Case, name: str, value: Any) -> Effect:  # noqa: ANN401 - of any limit
    """Tell what another *value* of one limit would have done."""
    now = case.deadline_seconds if name == "deadline_seconds" else case.limits[name]
    return as_it_was(case) if value == now else CHANGES[name](case, now, value)
