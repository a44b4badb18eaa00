"""What one other limit would have done to one case: certain, or between two bounds. Pure.

An attempt that is made all the same is taken to have gone as it went. What no attempt on record can
tell (how a longer wait or one more retry would have ended) is bounded: at best it brings the
numbers, at worst it costs all that the limits allow and brings nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Any, NamedTuple, Self, TypeAlias

from pipeline.errors import ERRORS, ErrorName, Whose
from pipeline.pacing import Rate
from pipeline.settings.checks import check_rate
from pipeline.simulate.cases import MICROSECOND, Asked, Case, Try, count_failures

SECOND = 1_000_000  # microseconds
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


class Span(NamedTuple):
    """A figure that lies between two values; it is certain if they are the same."""

    low: int
    high: int

    def plus(self, low: int, high: int) -> "Span":
        """Move both ends."""
        return Span(self.low + low, self.high + high)


@dataclass(slots=True)
class Effect:
    """What became of a case: batches that did not come, requests, refusals, time by the clock.

    Attributes:
        unknown: why figures are not certain, and for how many requests.
        guesses: batches that hang on what is not known, by how many more tries they would get.
    """

    missing: Span
    requests: Span
    refusals: Span
    clock_us: Span
    unknown: Counter[str] = field(default_factory=Counter)
    guesses: Counter[int] = field(default_factory=Counter)

    @classmethod
    def exactly(cls, missing: int, requests: int, refusals: int, clock_us: int) -> Self:
        """Give one of which all is certain."""
        pairs = (Span(each, each) for each in (missing, requests, refusals, clock_us))
        return cls(next(pairs), next(pairs), next(pairs), next(pairs))

    def add(self, other: "Effect") -> None:
        """Add another one up."""
        for name in MEASURES:
            setattr(self, name, getattr(self, name).plus(*getattr(other, name)))
        self.unknown.update(other.unknown)
        self.guesses.update(other.guesses)


MEASURES = ("missing", "requests", "refusals", "clock_us")
Change: TypeAlias = Callable[[Case, Any], Effect]


def as_it_was(case: Case) -> Effect:
    """Count what is on record."""
    return _count(case, {id(asked): asked.tries for asked in case.fetches})


def _count(case: Case, kept: Mapping[int, Sequence[Try]]) -> Effect:
    """Count what is left of a case if of each fetch only these tries are made."""
    missing = requests = refusals = 0
    last = case.run.started_at
    for asked in case.fetches:
        tries = kept[id(asked)]
        is_whole = asked.is_collected and len(tries) == len(asked.tries)
        missing += 0 if is_whole else len(asked.batches)
        requests += len(tries)
        refusals += sum(map(_is_refused, tries))
        last = max((last, *(each.ended_at for each in tries)))
    clock_us = (last - case.run.started_at) // MICROSECOND
    return Effect.exactly(missing, requests, refusals, clock_us)


def _is_refused(made: Try) -> bool:
    error = made.attempt.error
    return error is not None and ERRORS[error].whose is Whose.POLICY


def _retries_left(asked: Asked, retries: int) -> int:
    """Count the tries that a fetch could still get after its last one, if another could help."""
    last = asked.tries[-1].attempt if asked.tries else None
    if last is None or last.error is None or not ERRORS[last.error].may_retry:
        return 0
    return max(retries + 1 - last.number, 0)


def _longest_us(case: Case, attempt_seconds: float) -> int:
    """Bound what one more request costs: its pause, its place in the rate, and its answer."""
    pause = case.limits["backoff_seconds"] * 2 ** case.limits["retries"]
    return int((attempt_seconds + pause) * SECOND) + _interval(case.limits["rate"]) // MICROSECOND


def _interval(rate: str) -> timedelta:
    found = check_rate(rate)
    return found.interval if isinstance(found, Rate) else timedelta(0)


def _open(
    effect: Effect, case: Case, asked: Asked, why: str, *, tries: int, was: int, least: int = 0
) -> None:
    """Let the outcome of a fetch hang on up to so many more *tries*; it *was* missing or not."""
    size = len(asked.batches)
    effect.missing = effect.missing.plus(-was, size - was)
    effect.requests = effect.requests.plus(least, tries)
    effect.refusals = effect.refusals.plus(0, tries)
    us = tries * _longest_us(case, case.limits["attempt_seconds"])
    effect.clock_us = effect.clock_us.plus(0, us)
    effect.unknown[why] += 1
    effect.guesses[tries] += size


def _bound_by_deadline(effect: Effect, case: Case) -> Effect:
    """Let what takes longer at worst cost what the deadline then cuts off."""
    most = int(case.deadline_seconds * SECOND)
    late_us = effect.clock_us.high - most
    if late_us > 0 and effect.clock_us.high > effect.clock_us.low:
        latest = case.deadline - late_us * MICROSECOND
        cut = sum(
            len(asked.batches)
            for asked in case.fetches
            if asked.is_collected and asked.tries[-1].ended_at > latest
        )
        whole = sum(len(asked.batches) for asked in case.fetches)
        effect.missing = Span(effect.missing.low, min(effect.missing.high + cut, whole))
        effect.clock_us = Span(effect.clock_us.low, max(most, effect.clock_us.low))
    return effect


# ---- Retries ----


def with_retries(case: Case, retries: int) -> Effect:
    """Fewer retries are certain, but for what they leave to others; more are bounded."""
    now = case.limits["retries"]
    if retries == now:
        return as_it_was(case)
    kept = {id(asked): asked.tries[: retries + 1] for asked in case.fetches}
    effect = _count(case, kept)
    dropped = [each for asked in case.fetches for each in asked.tries[retries + 1 :]]
    if retries < now:
        saved = sum(each.took_us + each.wait_us for each in dropped)
        # What lies between two tries is no wait of either: never save more than is known for sure.
        low = max(as_it_was(case).clock_us.low - saved, 0)
        effect.clock_us = Span(min(low, effect.clock_us.high), effect.clock_us.high)
    opened, would_open = _opened(case, case.tries), _opened(case, _all(kept.values()))
    for asked in case.fetches:
        left = _retries_left(asked, retries)
        if asked.is_left_alone:
            if retries < now and would_open != opened:
                _open(effect, case, asked, BREAKER, tries=retries + 1, was=asked.missing)
        elif left and asked.missing and (retries > now or case.is_budget_spent):
            why = RETRY if retries > now and left <= retries - now else BUDGET
            _open(effect, case, asked, why, tries=left, was=asked.missing)
    return _bound_by_deadline(effect, case)


def _all(groups: Iterable[Sequence[Try]]) -> list[Try]:
    return [each for group in groups for each in group]


# ---- The time of an attempt ----


def with_attempt_seconds(case: Case, seconds: float) -> Effect:
    """Tell certainly which attempts a shorter time cuts; a longer one is bounded."""
    now = case.limits["attempt_seconds"]
    if seconds == now:
        return as_it_was(case)
    change = _cut_short if seconds < now else _let_go_on
    return _bound_by_deadline(change(case, seconds), case)


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
        last = cut[-1].attempt
        is_new = last.error is None or not ERRORS[last.error].may_retry
        left = case.limits["retries"] + 1 - last.number if is_new else 0
        if left:
            _open(effect, case, asked, CUT, tries=left, was=asked.missing)
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


def _let_go_on(case: Case, seconds: float) -> Effect:
    effect, now = as_it_was(case), case.limits["attempt_seconds"]
    for asked in case.fetches:
        cut = [each for each in asked.tries if was_cut(each, now)]
        if not cut:
            continue
        after = len(asked.tries) - cut[0].attempt.number
        effect.requests = effect.requests.plus(-after, 0)
        effect.refusals = effect.refusals.plus(
            -sum(map(_is_refused, asked.tries[-after:] if after else ())), 0
        )
        spare = case.limits["retries"] + 1 - len(asked.tries)
        _open(effect, case, asked, LONGER, tries=max(spare, 0), was=asked.missing)
        saved = sum(each.took_us + each.wait_us for each in asked.tries[len(asked.tries) - after :])
        longer = int((seconds - now) * SECOND) * (case.limits["retries"] + 1)
        effect.clock_us = Span(max(effect.clock_us.low - saved, 0), effect.clock_us.high + longer)
    return effect


def was_cut(made: Try, attempt_seconds: float) -> bool:
    """Tell whether an attempt was ended by its own limit."""
    error = made.attempt.error
    return error in TIMEOUTS and made.took_us >= ALMOST * attempt_seconds * SECOND


# ---- The breaker ----


def with_breaker(case: Case, limit: int) -> Effect:
    """An earlier breaker is certain; what a later one lets through is bounded."""
    now = case.limits["breaker"]
    if limit == now:
        return as_it_was(case)
    if limit == 0 or 0 < now < limit:
        effect = as_it_was(case)
        for asked in case.fetches:
            if asked.is_left_alone:
                tries = case.limits["retries"] + 1 - len(asked.tries)
                _open(effect, case, asked, BREAKER, tries=max(tries, 1), was=asked.missing)
        return _bound_by_deadline(effect, case)
    tries = case.tries
    if tries and 0 < limit <= case.failures and count_failures(0, tries[0]):
        return _count(case, {id(a): [t for t in a.tries if t is tries[0]] for a in case.fetches})
    opened = _opened(case, tries, limit=limit)
    return _count(
        case,
        {
            id(asked): [t for t in asked.tries if opened is None or t.sent_at <= opened]
            for asked in case.fetches
        },
    )


def _opened(
    case: Case, tries: Iterable[Try], failed: Iterable[int] = (), *, limit: int | None = None
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


def with_deadline(case: Case, seconds: float) -> Effect:
    """Tell certainly what a shorter deadline cuts off; a longer one is bounded."""
    if seconds == case.deadline_seconds:
        return as_it_was(case)
    until = case.run.started_at + timedelta(seconds=seconds)
    if seconds > case.deadline_seconds:
        effect = as_it_was(case)
        for asked in case.fetches:
            error, not_before = asked.batches[0].error, asked.batches[0].not_before
            may_go = not_before is not None and not_before <= until
            if asked.missing and (may_go or error is ErrorName.DEADLINE):
                tries = case.limits["retries"] + 1
                _open(effect, case, asked, DEADLINE, tries=tries, was=asked.missing)
        most = max(effect.clock_us.low, int(seconds * SECOND))
        effect.clock_us = Span(effect.clock_us.low, min(effect.clock_us.high, most))
        return effect
    kept = {id(a): [t for t in a.tries if t.ended_at <= until] for a in case.fetches}
    effect = _count(case, kept)
    is_paced = case.limits["rate"] != "none"
    slowest = max((each.took_us for each in case.tries), default=0) * MICROSECOND
    for asked in case.fetches:
        in_flight = sum(each.sent_at <= until < each.ended_at for each in asked.tries)
        effect.requests = effect.requests.plus(0, in_flight)
        refused = sum(_is_refused(t) for t in asked.tries if t.sent_at <= until < t.ended_at)
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


def with_rate(case: Case, rate: str) -> Effect:
    """Let the queue of the case go at another rate; whether the upstream minds is not known."""
    old, new = _interval(case.limits["rate"]), _interval(rate)
    if old == new:
        return as_it_was(case)
    quick, slow = (_replay(case, new, with_pauses=pauses) for pauses in (False, True))
    effect = quick
    for name in MEASURES:
        one, other = getattr(quick, name), getattr(slow, name)
        setattr(effect, name, Span(min(one.low, other.low), max(one.high, other.high)))
    refused = sum(len(a.batches) for a in case.fetches if a.tries and _is_refused(a.tries[-1]))
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
    begin = gate = min(a.tries[0].attempt.began_at for a in asked_first)
    free = [begin] * case.limits["in_flight"]
    heapify(free)
    kept: dict[int, list[Try]] = {id(asked): [] for asked in case.fetches}
    last = begin
    for asked in asked_first:
        at = free[0]
        for each in asked.tries:
            pause = each.wait_us if with_pauses and each.attempt.number > 1 else 0
            at = max(at + pause * MICROSECOND, gate)
            if at > case.deadline:
                break
            kept[id(asked)].append(each)
            gate, at = at + interval, at + each.took_us * MICROSECOND
            last = max(last, at)
        heapreplace(free, at)
    effect = _count(case, kept)
    us = (last - case.run.started_at) // MICROSECOND
    effect.clock_us = Span(us, us)
    held = [asked for asked in case.fetches if not asked.tries]
    room = case.deadline - gate
    fits = len(held) if not interval else max(int(room / interval), 0)
    for asked in held[:fits]:
        _open(effect, case, asked, DEADLINE, tries=case.limits["retries"] + 1, was=asked.missing)
    return effect


def with_merge(case: Case, is_merged: bool) -> Effect:
    """Count the requests for certain; how they would have ended is not known."""
    if is_merged == case.limits["merge"]:
        return as_it_was(case)
    sizes = [batch.n for asked in case.fetches for batch in asked.batches]
    n = _pack(sizes, case.limits["max_numbers"]) if is_merged else len(sizes)
    most = n * (case.limits["retries"] + 1)
    us = min(
        most * _longest_us(case, case.limits["attempt_seconds"]),
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
