"""One fetch: its attempts, the pauses between them, and the outcome of each of its batches.

A failure is a value here. Only cancellation and a broken store leave, and even then the attempt
that was cut short is on the books.
"""

import random
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from pipeline.errors import LACK, ErrorName, Phase, SourceError, find_lack
from pipeline.models import Attempt, Evidence, Fetch, Outcome, Proof, Verdict
from pipeline.pacing import Moment
from pipeline.run.breaker import Breaker
from pipeline.run.limiter import Route
from pipeline.run.observer import ExchangeObserver, check_age
from pipeline.sanitize import one_line, redact_text
from pipeline.sources.base import Answer, Hint, Proving, Recalling, Source
from pipeline.sources.hints import pause_of_our_own
from pipeline.sources.http import Client, Exchange, Limits
from pipeline.store.numbers import collected

MICROSECONDS = 1_000_000
UNCONNECTED = (
    ErrorName.DNS,
    ErrorName.CONNECT_REFUSED,
    ErrorName.CONNECT_TIMEOUT,
    ErrorName.UNREACHABLE,
)
ASKED_AGAIN = "sent over a new connection: the server had closed the open one"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """Timeouts, retries and redaction for one source.

    Attributes:
        retries: attempts after the first one, where the error's class allows it.
        backoff_seconds: the longest pause before the first retry; it doubles with each.
        secrets: what must never be written down.
        variable: what a request that is kept names in place of a secret.
        evidence_bytes: how much of an answer's body is kept.
        unused_proxy: a variable of the environment that names a proxy, which is not used.
    """

    limits: Limits
    retries: int
    backoff_seconds: float
    secrets: tuple[str, ...]
    variable: str
    evidence_bytes: int
    unused_proxy: str = ""


@dataclass(slots=True)
class FetchResult:
    """What is known of a fetch: complete, or as far as it came when the run was stopped."""

    fetch: Fetch
    attempts: list[Attempt] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class Fetcher:
    """Carries out the fetches of one source, one after the other, over one client."""

    def __init__(
        self,
        source: Source,
        client: Client,
        policy: RequestPolicy,
        route: Route,
        observer: ExchangeObserver,
    ) -> None:
        self._source = source
        self._proving = source if isinstance(source, Proving) else None
        self._recalling = source if isinstance(source, Recalling) else None
        self._client = client
        self._policy = policy
        self._observer = observer
        self._limiter = route.limiter
        self._budget = route.budget
        self._give_up_at = route.give_up_at

    async def carry_out(self, result: FetchResult) -> None:
        """Ask until the batches of ``result.fetch`` have their outcome, and write it there."""
        try:
            await self._ask_until_decided(result)
        except anyio.get_cancelled_exc_class():
            if result.attempts and not result.outcomes:  # stopped between two attempts
                result.outcomes = lost(result.fetch, result.attempts[-1], why=self._cut_short())
            raise

    async def _ask_until_decided(self, result: FetchResult) -> None:
        pause_seconds: float | None = 0.0
        while pause_seconds is not None and not result.outcomes:
            exchange = Exchange()  # its clock starts now: the pause is the attempt's wait
            began_at = datetime.now(UTC)
            if pause_seconds:
                await anyio.sleep(pause_seconds)
            async with self._limiter.breaker.turn() as is_admitted:
                if is_admitted:
                    pause_seconds = await self._ask(result, exchange, began_at)
                else:
                    result.outcomes = _left_alone(result, self._limiter.breaker)
        if not result.outcomes:
            result.outcomes = lost(result.fetch, result.attempts[-1])

    async def _ask(
        self, result: FetchResult, exchange: Exchange, began_at: datetime
    ) -> float | None:
        """Make one attempt when it is allowed; give the pause before the next, None for no more."""
        bits = self._source.cost_bits(result.fetch)
        async with self._limiter.permission(bits, self._give_up_at) as too_late:
            if too_late is not None:
                if not result.attempts:
                    result.outcomes = _deferred(result.fetch, too_late)
                return None
            if self._limiter.breaker.is_open:  # it opened while we waited
                result.outcomes = _left_alone(result, self._limiter.breaker)
                return None
            may_retry = await self._attempt(result, exchange, began_at)
            attempt = result.attempts[-1]
            await self._limiter.note(attempt)
        return self._pause(attempt, may_retry=may_retry)

    def _pause(self, attempt: Attempt, *, may_retry: bool) -> float | None:
        """Give the seconds to wait before the next attempt; None: there is to be none.

        Full jitter, so that two machines that failed together do not come back together. What the
        upstream asked for is on top of it: the limiter knows. A pause that would outlast the run is
        not begun.
        """
        if not may_retry or attempt.number > self._policy.retries or not self._budget.take():
            return None
        longest = self._policy.backoff_seconds * 2 ** (attempt.number - 1)
        pause_seconds = random.uniform(0, longest)  # noqa: S311 - no secret
        ends_too_late = anyio.current_time() + pause_seconds >= self._give_up_at
        return None if ends_too_late else pause_seconds

    async def _attempt(self, result: FetchResult, exchange: Exchange, began_at: datetime) -> bool:
        """Make one attempt and record it; tell whether another one could help.

        Cancelled, it leaves its record in *result* and goes.
        """
        fetch = result.fetch
        failure: SourceError | None = None
        hint: Hint | None = None
        proof: Proof | None = None
        try:
            request = self._source.build_request(fetch)
            exchange.request = self._observer.describe(request)
            try:
                answer = await self._client.fetch_answer(request, exchange)
            finally:
                hint = self._find_hint(exchange)
            exchange.clock.enter(Phase.CHECK)
            numbers = self._source.parse_answer(fetch, answer)
            if self._proving is not None:
                proof = self._proving.find_proof(answer)
                check_age(proof, began_at)
            outcomes = _collected(fetch, len(result.attempts) + 1, numbers)
            self._observer.check_fresh(outcomes)
        except SourceError as exc:
            failure = exc
        except anyio.get_cancelled_exc_class():
            result.attempts.append(self._record(result, exchange, began_at, self._cut_short()))
            result.outcomes = lost(fetch, result.attempts[-1])
            if hint is not None:
                await self._limiter.apply_hint(hint, fetch.source)
            raise
        except Exception as exc:  # noqa: BLE001 - a bug in one adapter must not cost the others' numbers
            failure = _bug(exc)
        attempt = self._record(result, exchange, began_at, failure)
        if failure is None and proof is not None:
            attempt = replace(attempt, proof=proof)
        result.attempts.append(attempt)
        if failure is None:
            result.outcomes = outcomes
        if hint is not None:
            await self._limiter.apply_hint(hint, fetch.source)
        if failure is None or (failure.error is ErrorName.RATE_LIMITED and hint and hint.is_ours):
            return False  # asked too often, and nobody knows until when: not again in this run
        is_recalled = self._recalling is not None and self._recalling.recall(fetch, failure.error)
        return failure.may_retry or is_recalled

    def _find_hint(self, exchange: Exchange) -> Hint | None:
        """Read when to ask again, also from an answer whose body did not come whole."""
        if exchange.status is None or exchange.headers is None:
            return None
        known = exchange.answer or Answer(
            status=exchange.status, headers=exchange.headers, body=bytes(exchange.body)
        )
        now = datetime.now(UTC)
        return self._source.find_hint(known, now) or pause_of_our_own(known, now)

    def _cut_short(self) -> SourceError:
        if anyio.current_time() >= self._give_up_at:
            return SourceError(ErrorName.DEADLINE, "the run's deadline came first")
        return SourceError(ErrorName.CANCELLED, "the run was stopped")

    def _record(
        self,
        result: FetchResult,
        exchange: Exchange,
        began_at: datetime,
        failure: SourceError | None,
    ) -> Attempt:
        exchange.clock.stop()
        timings = exchange.clock.timings()
        error = failure.error if failure else None
        self._observer.compare_clocks(exchange, began_at, timings)
        attempt = Attempt(
            fetch=result.fetch.number,
            number=len(result.attempts) + 1,
            source=result.fetch.source,
            began_at=began_at,
            timings=timings,
            is_reused=exchange.is_reused,
            status=exchange.status,
            body_bytes=None if exchange.status is None else len(exchange.body),
            detail=ASKED_AGAIN if exchange.asked_again else None,
            request=exchange.request,
            contract=self._observer.contract(exchange, error, self._proving),
            measures=() if failure else self._observer.measures(exchange),
            member=self._observer.member,
        )
        if failure is not None:
            return self._with_failure(attempt, exchange, failure)
        is_first = self._observer.is_first(attempt.contract)
        return replace(attempt, evidence=self._evidence(exchange)) if is_first else attempt

    def _with_failure(self, attempt: Attempt, exchange: Exchange, failure: SourceError) -> Attempt:
        detail = redact_text(failure.detail, self._policy.secrets)
        if self._policy.unused_proxy and failure.error in UNCONNECTED:
            detail += f"; {self._policy.unused_proxy} is set and not used: see proxy"
        return replace(
            attempt,
            error=failure.error,
            phase=exchange.clock.phase,
            detail=one_line(f"{detail}; {attempt.detail}" if attempt.detail else detail),
            retry_after_us=_microseconds(failure.retry_after),
            evidence=self._evidence(exchange),
        )

    def _evidence(self, exchange: Exchange) -> Evidence | None:
        return exchange.evidence(self._policy.secrets, self._policy.evidence_bytes)


def _microseconds(seconds: float | None) -> int | None:
    """Convert, up to what the store's 64 bits hold: some 292,000 years."""
    return None if seconds is None else int(min(seconds * MICROSECONDS, 2**63 - 1024))


def _bug(exc: Exception) -> SourceError:
    """Describe a bug by its kind and place: its message may hold what must not be kept."""
    if lack := find_lack(exc):
        return SourceError(ErrorName.INTERNAL, f"{LACK}: {lack}")
    place = traceback.extract_tb(exc.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return SourceError(ErrorName.INTERNAL, f"{type(exc).__name__} in {place.name}() of {where}")


def _collected(fetch: Fetch, attempt: int, numbers: tuple[int, ...]) -> list[Outcome]:
    """Cut *numbers* into the batches, each its own slice."""
    outcomes: list[Outcome] = []
    offset = 0
    for batch in fetch.batches:
        own = numbers[offset : offset + batch.n]
        outcomes.append(collected(batch, own, fetch=fetch.number, attempt=attempt, offset=offset))
        offset += batch.n
    return outcomes


def lost(fetch: Fetch, attempt: Attempt, why: SourceError | None = None) -> list[Outcome]:
    """Give all batches of *fetch* the failure of *attempt* as their outcome, or *why* instead."""
    error = attempt.error if why is None else why.error
    is_cancelled = error is ErrorName.CANCELLED
    return [
        Outcome(
            batch=batch,
            verdict=Verdict.CANCELLED if is_cancelled else Verdict.FAILED,
            fetch=fetch.number,
            attempt=attempt.number,
            error=error,
            detail=attempt.detail if why is None else why.detail,
        )
        for batch in fetch.batches
    ]


def _deferred(fetch: Fetch, moment: Moment) -> list[Outcome]:
    """Put all batches of *fetch* off: the rules forbid asking before the deadline."""
    return [
        Outcome(
            batch=batch,
            verdict=Verdict.DEFERRED,
            fetch=fetch.number,
            detail=one_line(moment.why),
            not_before=moment.at,
        )
        for batch in fetch.batches
    ]


def _left_alone(result: FetchResult, breaker: Breaker) -> list[Outcome]:
    """Give up on an upstream that failed too often in a row, for the reason it failed for."""
    if result.attempts:
        return lost(result.fetch, result.attempts[-1])
    return [
        Outcome(
            batch=batch,
            verdict=Verdict.FAILED,
            fetch=result.fetch.number,
            error=breaker.last_error,
            detail=f"not asked: {breaker.failures} attempts in a row had failed",
        )
        for batch in result.fetch.batches
    ]
