"""Tests for pipeline/run/fetcher.py: one fetch to its end, whatever the upstream does."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from time import perf_counter
from typing import Any, Never
from urllib.parse import quote

import anyio
import pytest

from pipeline.errors import ErrorName, Phase, SourceError
from pipeline.models import Aspect, Attempt, Batch, Fetch, Outcome, Verdict
from pipeline.pacing import OUR_PAUSE, Embargo, Pace, Rate, Rules
from pipeline.run.breaker import Breaker, RetryBudget
from pipeline.run.fetcher import ASKED_AGAIN, Fetcher, FetchResult, RequestPolicy
from pipeline.run.limiter import Limiter, Route
from pipeline.run.observer import ExchangeObserver
from pipeline.sandbox.server import Sandbox
from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Answer, Hint, Source
from pipeline.sources.http import open_client
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.randomnumberapi import RandomNumberApi
from tests.sources.edge import (
    PATIENT,
    QUICK_IN_ALL,
    QUICK_TO_READ,
    SHORT_SECONDS,
    Visit,
    happens,
    raw_server,
    replying,
    response,
)

pytestmark = pytest.mark.anyio

SECRET = "0d6f3e2a-5c41-4b7e-9a80-canary000001"
POLICY = RequestPolicy(
    limits=PATIENT,
    retries=2,
    backoff_seconds=0.002,
    secrets=(SECRET,),
    variable="ANU_KEY",
    evidence_bytes=4096,
)
STUBBORN = replace(POLICY, retries=3)


def fetch_of(*sizes: int, number: int = 0) -> Fetch:
    """Make a fetch that serves one batch of each of *sizes*."""
    batches = (Batch(number=i, source="rna", n=n, min=0, max=99) for i, n in enumerate(sizes))
    return Fetch(number=number, batches=tuple(batches))


def api_url(sandbox: Sandbox, *faults: str) -> str:
    """Give the base of an upstream under *faults*."""
    return sandbox.url("randomnumberapi", *faults)


def api(sandbox: Sandbox, *faults: str) -> RandomNumberApi:
    """Make the adapter for an upstream under *faults*."""
    return RandomNumberApi(base_url=api_url(sandbox, *faults))


def route_to(
    seconds: float = 10,
    *,
    breaker: Breaker | None = None,
    budget: int = 1000,
    pace: Pace | None = None,
    rules: Rules | None = None,
) -> Route:
    """Make a route that is free for *seconds*, with a breaker that never opens."""
    limiter = Limiter(
        "rna",
        rules or Rules(),
        breaker or Breaker(0, 0),
        pace=pace or Pace(),
        store=None,
    )
    give_up_at = anyio.current_time() + seconds
    return Route(limiter=limiter, budget=RetryBudget(budget), give_up_at=give_up_at)


def make_observer() -> ExchangeObserver:
    """Make an observer of run 7, before which nothing was collected."""
    return ExchangeObserver(run_id=7, secrets=(SECRET,), variable="ANU_KEY")


@asynccontextmanager
async def fetching(
    source: Source,
    policy: RequestPolicy = POLICY,
    route: Route | None = None,
    observer: ExchangeObserver | None = None,
) -> AsyncIterator[Fetcher]:
    """Open a client and put a fetcher on it."""
    async with open_client(policy.limits) as client:
        yield Fetcher(source, client, policy, route or route_to(), observer or make_observer())


async def carry_out(
    source: Source,
    policy: RequestPolicy = POLICY,
    route: Route | None = None,
    fetch: Fetch | None = None,
    observer: ExchangeObserver | None = None,
) -> FetchResult:
    """Carry out one fetch of three numbers."""
    result = FetchResult(fetch or fetch_of(3))
    async with fetching(source, policy, route, observer) as fetcher:
        await fetcher.carry_out(result)
    return result


def lone(result: FetchResult) -> tuple[Attempt, Outcome]:
    """Give the only attempt and the only outcome."""
    (attempt,), (outcome,) = result.attempts, result.outcomes
    return attempt, outcome


def errors(result: FetchResult) -> list[str | None]:
    """Name what each attempt ended in, None for numbers."""
    return [attempt.error.value if attempt.error else None for attempt in result.attempts]


# Numbers.


async def test_an_answer_is_cut_into_the_batches_that_share_it(sandbox: Sandbox) -> None:
    """Each batch gets numbers of its own, and the books say which."""
    result = await carry_out(api(sandbox), fetch=fetch_of(2, 5, 3, number=4))

    assert [outcome.verdict for outcome in result.outcomes] == [Verdict.COLLECTED] * 3
    assert [outcome.offset for outcome in result.outcomes] == [0, 2, 7]
    assert [len(outcome.numbers or b"") for outcome in result.outcomes] == [2, 5, 3]
    assert {(outcome.fetch, outcome.attempt) for outcome in result.outcomes} == {(4, 1)}
    assert len(sandbox.journal.entries) == 1


async def test_the_books_of_a_good_attempt(sandbox: Sandbox) -> None:
    """Checking is timed as well."""
    before = datetime.now(UTC)

    attempt, _ = lone(await carry_out(api(sandbox)))

    assert before <= attempt.began_at <= datetime.now(UTC)
    assert (attempt.status, attempt.error, attempt.phase) == (200, None, None)
    assert attempt.body_bytes
    assert attempt.timings.check_us is not None
    assert not attempt.is_reused


async def test_one_fetcher_keeps_its_connection(sandbox: Sandbox) -> None:
    """It carries out fetch after fetch."""
    results = [FetchResult(fetch_of(3)) for _ in range(3)]
    async with fetching(api(sandbox)) as fetcher:
        for result in results:
            await fetcher.carry_out(result)

    assert [lone(result)[0].is_reused for result in results] == [False, True, True]


# Failures.


async def test_a_failure_is_a_value_with_its_evidence(sandbox: Sandbox) -> None:
    """Months later its owner wants to know why."""
    attempt, outcome = lone(await carry_out(api(sandbox, "not_found")))

    assert (attempt.error, attempt.phase) == (ErrorName.HTTP_4XX, Phase.CHECK)
    assert (attempt.status, attempt.detail) == (404, "status 404: the request was refused")
    assert attempt.evidence is not None
    assert attempt.evidence.body == b"Not Found\n"
    assert (outcome.verdict, outcome.error) == (Verdict.FAILED, ErrorName.HTTP_4XX)
    assert outcome.detail == attempt.detail
    assert outcome.numbers is None


async def test_a_failure_without_an_answer_has_no_evidence(sandbox: Sandbox) -> None:
    """Unknown is not zero."""
    policy = replace(POLICY, limits=QUICK_TO_READ, retries=0)

    attempt, _ = lone(await carry_out(api(sandbox, "stall"), policy))

    assert (attempt.error, attempt.phase) == (ErrorName.READ_TIMEOUT, Phase.FIRST_BYTE)
    assert (attempt.status, attempt.body_bytes, attempt.evidence) == (None, None, None)
    assert attempt.timings.body_us is None


async def test_all_batches_of_a_lost_fetch_are_lost(sandbox: Sandbox) -> None:
    """A part of an answer is no answer."""
    result = await carry_out(api(sandbox, "short"), fetch=fetch_of(2, 3))

    assert errors(result) == ["count"]
    assert [outcome.error for outcome in result.outcomes] == [ErrorName.COUNT] * 2


async def test_an_echoed_key_is_not_kept(sandbox: Sandbox) -> None:
    """A server that repeats the request repeats the key."""
    source = AnuAqn(base_url=sandbox.url("anu_aqn", "echo_secret"), api_key=SECRET)

    result = await carry_out(source)

    assert result.attempts[0].evidence is not None
    assert b"x-api-key: [REDACTED]" in result.attempts[0].evidence.body
    assert SECRET not in repr(result)


# What is kept of an exchange.


async def test_the_request_is_kept_as_it_was_sent(sandbox: Sandbox) -> None:
    """With it anybody can ask again, if they have a key of their own."""
    source = AnuAqn(base_url=sandbox.url("anu_aqn"), api_key=SECRET)

    attempt, _ = lone(await carry_out(source))

    assert attempt.request is not None
    assert attempt.request.method == "GET"
    assert attempt.request.url == f"{sandbox.url('anu_aqn')}/?length=6&type=uint16"
    assert ("Host", f"127.0.0.1:{sandbox.port}") in attempt.request.headers
    assert ("x-api-key", "${ANU_KEY}") in attempt.request.headers
    assert attempt.request.body == b""


async def test_a_key_in_the_body_is_kept_out_as_well(sandbox: Sandbox) -> None:
    """One of the upstreams wants it there."""
    source = RandomOrgJsonrpc(base_url=sandbox.url("random_org_jsonrpc"), api_key=SECRET)

    result = await carry_out(source)

    request = result.attempts[0].request
    assert request is not None
    assert json.loads(request.body)["params"]["apiKey"] == "${ANU_KEY}"
    assert SECRET not in repr(result)


async def test_the_request_is_known_even_if_nobody_took_it() -> None:
    """That is when one wants to try it by hand."""
    nobody = RandomNumberApi(base_url="http://127.0.0.1:1")

    attempt = (await carry_out(nobody)).attempts[0]

    assert attempt.error is ErrorName.CONNECT_REFUSED
    assert attempt.request is not None
    assert attempt.contract == ()


async def test_a_good_answer_shows_its_look(sandbox: Sandbox) -> None:
    """The books notice the day on which it changes, though nothing fails."""
    source = AnuLegacy(base_url=sandbox.url("anu_legacy", "extra_key", "charset"))

    attempt, _ = lone(await carry_out(source))

    assert attempt.contract == (
        (Aspect.CONTENT_TYPE, "application/json; charset=utf-8"),
        (Aspect.KEYS, "data, length, notice, success, type"),
    )


async def test_an_answer_that_broke_the_contract_shows_what_it_is_now(sandbox: Sandbox) -> None:
    """Its owner reads "data" before, "numbers" after."""
    source = AnuLegacy(base_url=sandbox.url("anu_legacy", "renamed_key"))

    attempt, _ = lone(await carry_out(source))

    assert attempt.error is ErrorName.SCHEMA
    assert (Aspect.KEYS, "length, numbers, success, type") in attempt.contract


async def test_a_refusal_shows_how_it_is_said(sandbox: Sandbox) -> None:
    """And nothing else: its text is no answer."""
    source = AnuLegacy(base_url=sandbox.url("anu_legacy", "refusal"))

    attempt = (await carry_out(source)).attempts[0]

    assert attempt.contract == ((Aspect.REFUSAL, "500 text/html"),)


async def test_the_first_good_answer_of_its_kind_is_kept(sandbox: Sandbox) -> None:
    """So that what is accepted today can be replayed when the adapter is another one."""
    observer = make_observer()

    first, second = [lone(await carry_out(api(sandbox), observer=observer))[0] for _ in range(2)]
    changed, _ = lone(await carry_out(api(sandbox, "charset"), observer=observer))

    assert first.evidence is not None
    assert (first.evidence.status, first.evidence.body_bytes) == (200, first.body_bytes)
    assert second.evidence is None
    assert changed.evidence is not None


# Old numbers.


async def test_old_numbers_are_a_failure_with_evidence(sandbox: Sandbox) -> None:
    """They are not asked for again in this run: a cache would say the same once more."""
    observer = make_observer()
    source = api(sandbox, "stale")
    first = await carry_out(source, fetch=fetch_of(16), observer=observer)

    again = await carry_out(source, fetch=fetch_of(16), observer=observer)

    attempt, outcome = lone(again)
    assert lone(first)[1].verdict is Verdict.COLLECTED
    assert (attempt.error, attempt.phase) == (ErrorName.STALE, Phase.CHECK)
    assert attempt.detail == "the same 10 numbers in a row came before, up to run 7 w0"
    assert attempt.evidence is not None
    assert (outcome.verdict, outcome.error) == (Verdict.FAILED, ErrorName.STALE)
    assert outcome.numbers is None


async def test_one_old_batch_costs_all_that_share_its_answer(sandbox: Sandbox) -> None:
    """Half of an answer from a cache is an answer from a cache."""
    observer = make_observer()
    source = api(sandbox, "stale")
    await carry_out(source, fetch=fetch_of(3, 16), observer=observer)

    result = await carry_out(source, fetch=fetch_of(3, 16), observer=observer)

    assert [outcome.error for outcome in result.outcomes] == [ErrorName.STALE] * 2


async def test_workers_of_one_source_see_each_others_numbers(sandbox: Sandbox) -> None:
    """A cache does not care which connection asks."""
    observer = make_observer()
    results = [FetchResult(fetch_of(16, number=number)) for number in range(4)]

    async with anyio.create_task_group() as tasks:
        for result in results:

            async def ask(result: FetchResult = result) -> None:
                async with fetching(api(sandbox, "stale"), observer=observer) as fetcher:
                    await fetcher.carry_out(result)

            tasks.start_soon(ask)

    ends = [lone(result)[1].verdict for result in results]
    assert sorted(ends) == [Verdict.COLLECTED, *[Verdict.FAILED] * 3]


class Complaining(RandomNumberApi):
    """Fails with a detail that holds what must not get into the books."""

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Quote the upstream without any care."""
        raise SourceError(
            ErrorName.REFUSED,
            f"no {SECRET}\x1b[2J\n{answer.status} {fetch.n} \ud800",
            retry_after=inf,
        )


async def test_a_detail_is_made_safe(sandbox: Sandbox) -> None:
    """Even a careless adapter leaks nothing, steers no terminal and breaks no database."""
    attempt, _ = lone(await carry_out(Complaining(base_url=api_url(sandbox))))

    assert attempt.detail == r"no [REDACTED]\x1b[2J\n200 3 \ud800"
    assert attempt.retry_after_us is not None
    assert attempt.retry_after_us < 2**63


# A bug of ours.


class Buggy(RandomNumberApi):
    """Falls over an answer, with a message that quotes it."""

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Look for what is not there."""
        return {SECRET: (answer.status, fetch.n)}["the answer"]


async def test_a_bug_costs_its_own_batches_and_no_others(sandbox: Sandbox) -> None:
    """One adapter's mistake must not lose what the others bring."""
    base_url = api_url(sandbox)
    broken, sound = FetchResult(fetch_of(3)), FetchResult(fetch_of(3))
    route = route_to()
    async with open_client(PATIENT) as client:
        await Fetcher(Buggy(base_url=base_url), client, POLICY, route, make_observer()).carry_out(
            broken
        )
        await Fetcher(api(sandbox), client, POLICY, route, make_observer()).carry_out(sound)

    attempt, outcome = lone(broken)
    assert (attempt.error, attempt.phase) == (ErrorName.INTERNAL, Phase.CHECK)
    assert attempt.detail is not None
    assert attempt.detail.startswith("KeyError in parse_answer() of test_fetcher.py, line ")
    assert attempt.evidence is not None
    assert outcome.verdict is Verdict.FAILED
    assert sound.outcomes[0].verdict is Verdict.COLLECTED


class Speechless(RandomNumberApi):
    """Cannot say what to send."""

    def build_request(self, fetch: Fetch) -> Never:
        """Divide by nothing."""
        raise ZeroDivisionError(SECRET, fetch)


async def test_a_bug_before_anything_is_sent_is_recorded_as_well(sandbox: Sandbox) -> None:
    """Nothing was reached, and the books say so."""
    source = Speechless(base_url=api_url(sandbox))

    attempt, _ = lone(await carry_out(source))

    assert (attempt.error, attempt.phase) == (ErrorName.INTERNAL, Phase.WAIT)
    assert attempt.timings.connect_us is None
    assert SECRET not in repr(attempt)


# Asking again.


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
async def test_a_passing_failure_is_asked_about_again(sandbox: Sandbox, status: int) -> None:
    """But no more often than was allowed."""
    result = await carry_out(api(sandbox, f"status={status}"))

    assert len(result.attempts) == len(sandbox.journal.entries) == 1 + POLICY.retries
    assert [attempt.number for attempt in result.attempts] == [1, 2, 3]
    assert result.outcomes[0].attempt == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("status=301", "redirect_refused"),
        ("redirect", "redirect_refused"),
        ("status=400", "http_4xx"),
        ("status=401", "unauthorized"),
        ("forbidden", "blocked"),
        ("not_found", "http_4xx"),
        ("status=410", "http_4xx"),
        ("status=204", "schema"),
        ("html", "content_type"),
        ("not_json", "not_json"),
        ("short", "count"),
        ("out_of_range", "range"),
        ("endless_body", "too_large"),
        ("gzip", "decode"),
    ],
)
async def test_what_stays_so_is_not_asked_about_again(
    sandbox: Sandbox, fault: str, error: str
) -> None:
    """A wrong key tried thrice is a lock-out; a broken contract does not heal in a second."""
    assert errors(await carry_out(api(sandbox, fault))) == [error]


async def test_an_answer_that_is_too_slow_is_not_asked_for_again(sandbox: Sandbox) -> None:
    """It took all the time that it was given; three times that would starve the run."""
    policy = replace(POLICY, limits=QUICK_IN_ALL)

    assert errors(await carry_out(api(sandbox, "slow_body=0.2"), policy)) == ["deadline"]


async def test_a_flapping_upstream_serves_in_the_end(sandbox: Sandbox) -> None:
    """Both attempts are on the books, and the batch is counted once."""
    result = await carry_out(api(sandbox, "fail_first=1"))

    assert errors(result) == ["http_5xx", None]
    assert [attempt.number for attempt in result.attempts] == [1, 2]
    assert [outcome.attempt for outcome in result.outcomes] == [2]
    assert result.outcomes[0].offset == 0


async def test_a_resolver_that_answers_now_and_then_is_asked_again(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that has just started knows no name for a moment (N03)."""
    real, silent = socket.getaddrinfo, [True, True]

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - C's signature
        if host == "localhost" and silent:
            silent.pop()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *rest, **named)

    by_name = RandomNumberApi(base_url=api_url(sandbox).replace("127.0.0.1", "localhost"))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        result = await carry_out(by_name)

    assert errors(result) == ["dns", "dns", None]
    assert [outcome.verdict for outcome in result.outcomes] == [Verdict.COLLECTED]


async def test_an_answer_that_was_lost_on_the_way_is_counted_once(sandbox: Sandbox) -> None:
    """The upstream has served it twice; we have it once."""
    result = await carry_out(api(sandbox, "fail_first=1", "reset"))

    assert errors(result) == ["reset", None]
    assert len(result.outcomes) == 1


async def test_a_server_that_hangs_up_now_and_then_is_survived(sandbox: Sandbox) -> None:
    """What belongs to the path may pass."""
    result = await carry_out(api(sandbox, "fail_first=2", "close"))

    assert errors(result) == ["incomplete", "incomplete", None]


async def test_the_pause_is_the_next_attempts_wait(sandbox: Sandbox) -> None:
    """Time adds up: it belongs to nobody else."""
    result = await carry_out(Hinting(base_url=api_url(sandbox, "fail_first=1")))

    assert (result.attempts[0].timings.wait_us or 0) < SHORT_SECONDS * 1_000_000
    assert (result.attempts[1].timings.wait_us or 0) >= SHORT_SECONDS * 1_000_000


async def test_pauses_are_spread_between_nothing_and_a_bound_that_doubles(
    sandbox: Sandbox,
) -> None:
    """Two machines that failed together must not come back together."""
    policy = replace(POLICY, retries=3, backoff_seconds=1.0)
    failed = (await carry_out(api(sandbox, "unavailable"), replace(POLICY, retries=0))).attempts[0]

    async with fetching(api(sandbox), policy) as fetcher:
        for number, longest in ((1, 1.0), (2, 2.0), (3, 4.0)):
            pauses = [
                fetcher._pause(replace(failed, number=number), may_retry=True) for _ in range(200)
            ]

            assert all(pause is not None and 0 <= pause <= longest for pause in pauses)
            assert min(p or 0 for p in pauses) < longest * 0.2
            assert max(p or 0 for p in pauses) > longest * 0.8
        assert fetcher._pause(replace(failed, number=4), may_retry=True) is None


async def test_a_pause_that_would_outlast_the_run_is_not_begun(sandbox: Sandbox) -> None:
    """Waiting in vain helps nobody."""
    patient = replace(POLICY, backoff_seconds=1e9)
    began = perf_counter()

    result = await carry_out(api(sandbox, "unavailable"), patient, route_to(60))

    assert perf_counter() - began < 60
    assert errors(result) == ["http_5xx"]


async def test_a_spent_budget_ends_the_retries(sandbox: Sandbox) -> None:
    """A run in which everything fails must not ask three times for each."""
    result = await carry_out(api(sandbox, "unavailable"), STUBBORN, route_to(budget=1))

    assert errors(result) == ["http_5xx"] * 2


# What the upstream asks for.


class Hinting(RandomNumberApi):
    """Reads a wait shorter than a header can say out of every failure."""

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Ask for a little patience after a 503."""
        assert now.tzinfo is UTC
        return Hint(wait_seconds=SHORT_SECONDS, why="busy") if answer.status == 503 else None


async def test_the_wait_that_was_asked_for_is_never_undercut(sandbox: Sandbox) -> None:
    """However short our own pause would be."""
    result = await carry_out(Hinting(base_url=api_url(sandbox, "fail_first=2")))
    seen = [entry.seconds for entry in sandbox.journal.entries]

    assert errors(result) == ["http_5xx", "http_5xx", None]
    assert min(seen[1] - seen[0], seen[2] - seen[1]) >= SHORT_SECONDS


async def test_a_wait_beyond_the_deadline_ends_the_fetch_at_once(sandbox: Sandbox) -> None:
    """And what was asked for is on the books, for the next run."""
    began = perf_counter()

    result = await carry_out(api(sandbox, "rate_limited=600"), STUBBORN, route_to(60))
    attempt, outcome = lone(result)

    assert perf_counter() - began < 60
    assert (outcome.verdict, outcome.error) == (Verdict.FAILED, ErrorName.RATE_LIMITED)
    assert attempt.retry_after_us == 600_000_000


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "1.5",
        "²",
        "٣٠",
        "9" * 400,
        "99999999999",
        "5, 10",
        "soon",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Sun, 31 Feb 2027 00:00:00 GMT",
    ],
)
async def test_an_absurd_wait_neither_ends_nor_stretches_the_run(
    sandbox: Sandbox, value: str
) -> None:
    """It is heard if it can be understood, and our own pause takes over if not."""
    began = perf_counter()

    result = await carry_out(api(sandbox, f"rate_limited={quote(value)}"), POLICY, route_to(1))

    assert perf_counter() - began < 4  # the shortest of them is 5 s
    assert set(errors(result)) == {"rate_limited"}
    assert all((attempt.retry_after_us or 0) >= 0 for attempt in result.attempts)


@pytest.mark.parametrize("head", [b"", b"Retry-After: soon\r\n", b"Retry-After: 0\r\n"])
async def test_who_asks_too_often_and_hears_no_end_does_not_ask_again(head: bytes) -> None:
    """Neither in this run nor soon after: that is how one gets banned."""
    way = route_to(600)
    refusal = b"HTTP/1.1 429 No\r\n" + head + b"Content-Length: 0\r\n\r\n"
    async with raw_server(replying(refusal)) as server:
        result = await carry_out(RandomNumberApi(base_url=server.url), STUBBORN, way)

    assert errors(result) == ["rate_limited"]
    async with way.limiter.permission(0, anyio.current_time()) as too_late:
        assert too_late is not None
        assert too_late.why == OUR_PAUSE
        assert 55 < (too_late.at - datetime.now(UTC)).total_seconds() <= 60


async def test_a_busy_server_is_asked_again_after_two_seconds(sandbox: Sandbox) -> None:
    """And after four, if that does not help."""
    result = await carry_out(api(sandbox, "unavailable"), replace(POLICY, retries=1))
    seen = [entry.seconds for entry in sandbox.journal.entries]

    assert errors(result) == ["http_5xx"] * 2
    assert seen[1] - seen[0] >= 2


async def test_an_upstream_that_may_not_be_asked_is_not_asked(sandbox: Sandbox) -> None:
    """Deferred is not failed: the rules forbid it now, and say until when."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    pace = Pace(embargo=Embargo(until=tomorrow, why="quota\x1b spent"))

    result = await carry_out(api(sandbox), POLICY, route_to(1, pace=pace), fetch_of(2, 3))

    assert result.attempts == []
    assert [outcome.verdict for outcome in result.outcomes] == [Verdict.DEFERRED] * 2
    assert {outcome.not_before for outcome in result.outcomes} == {tomorrow}
    assert {outcome.detail for outcome in result.outcomes} == {r"quota\x1b spent"}
    assert not sandbox.journal.entries


async def test_an_upstream_that_keeps_failing_is_left_alone(sandbox: Sandbox) -> None:
    """Its other batches are lost for the same reason, without being asked for."""
    route = route_to(breaker=Breaker(2, 0))
    source = api(sandbox, "unavailable")

    first = await carry_out(source, STUBBORN, route)
    second = await carry_out(source, STUBBORN, route)

    assert errors(first) == ["http_5xx"] * 2
    assert first.outcomes[0].attempt == 2
    assert second.attempts == []
    assert second.outcomes[0].error is ErrorName.HTTP_5XX
    assert second.outcomes[0].detail == "not asked: 2 attempts in a row had failed"
    assert len(sandbox.journal.entries) == 2


# Being stopped.


async def _stop_while_waiting(sandbox: Sandbox, route: Route, *, at: float = -inf) -> FetchResult:
    """Stop a fetch of two batches when it waits for its answer, and not before *at*."""
    result = FetchResult(fetch_of(2, 3))
    async with (
        fetching(api(sandbox, "stall"), POLICY, route) as fetcher,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(fetcher.carry_out, result)
        assert await happens(lambda: len(sandbox.journal.entries) == 1)
        await anyio.sleep_until(at)
        tasks.cancel_scope.cancel()
    return result


async def test_an_attempt_that_is_stopped_is_on_the_books(sandbox: Sandbox) -> None:
    """It was sent, so the upstream has counted it."""
    result = await _stop_while_waiting(sandbox, route_to())

    assert errors(result) == ["cancelled"]
    assert result.attempts[0].phase is Phase.FIRST_BYTE
    assert [outcome.verdict for outcome in result.outcomes] == [Verdict.CANCELLED] * 2


async def test_the_runs_deadline_is_told_from_being_stopped(sandbox: Sandbox) -> None:
    """One is a setting of ours, the other somebody's hand."""
    route = route_to(0.2)

    result = await _stop_while_waiting(sandbox, route, at=route.give_up_at)

    assert errors(result) == ["deadline"]
    assert [outcome.verdict for outcome in result.outcomes] == [Verdict.FAILED] * 2


async def test_what_came_before_a_stop_stays_known(sandbox: Sandbox) -> None:
    """Between two attempts there is none to record; the batch keeps the one before."""
    result = FetchResult(fetch_of(3))

    async with (
        fetching(api(sandbox, "rate_limited=3")) as fetcher,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(fetcher.carry_out, result)
        assert await happens(lambda: result.attempts != [])
        tasks.cancel_scope.cancel()

    assert errors(result) == ["rate_limited"]
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.attempt, outcome.error) == ("cancelled", 1, "cancelled")


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 400\r\n\r\n{",
        b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: 99999999\r\n\r\n",
    ],
    ids=["cut", "encoded", "too large"],
)
async def test_not_before_counts_even_if_the_rest_is_broken(rest: bytes) -> None:
    """The head had said it; asking again within the hour would break the upstream's rule."""
    head = b"HTTP/1.1 429 No\r\nRetry-After: 3600\r\n"
    route = route_to(5)
    async with raw_server(replying(head + rest, hold=False)) as server:
        result = await carry_out(RandomNumberApi(base_url=server.url), STUBBORN, route)

    assert len(result.attempts) == 1
    async with route.limiter.permission(0, route.give_up_at) as too_late:
        assert too_late is not None
        assert too_late.why == "Retry-After: 3600"


async def test_a_breaker_that_opens_stops_those_who_wait(sandbox: Sandbox) -> None:
    """They were let in before it opened; what they wait for is a moment, not their turn."""
    rules = Rules(rate=Rate(requests=20, period_seconds=1))
    route = route_to(breaker=Breaker(1, 0), rules=rules)
    results = [FetchResult(fetch_of(3)) for _ in range(6)]

    async with anyio.create_task_group() as tasks:
        for result in results:

            async def ask(result: FetchResult = result) -> None:
                async with fetching(api(sandbox, "unavailable"), POLICY, route) as fetcher:
                    await fetcher.carry_out(result)

            tasks.start_soon(ask)

    assert sum(len(result.attempts) for result in results) == 1
    assert {outcome.error for result in results for outcome in result.outcomes} == {"http_5xx"}


@pytest.mark.parametrize(("fault", "is_told"), [("connect_refused", True), ("status=404", False)])
async def test_a_proxy_that_is_not_used_is_told_of(
    sandbox: Sandbox, fault: str, *, is_told: bool
) -> None:
    """Where names and connections fail, it may be what is missing."""
    source = RandomNumberApi(base_url="http://127.0.0.1:1") if is_told else api(sandbox, fault)
    manners = replace(POLICY, retries=0, unused_proxy="HTTPS_PROXY")

    attempt, _ = lone(await carry_out(source, manners))

    assert ("; HTTPS_PROXY is set and not used" in (attempt.detail or "")) is is_told


async def test_a_connection_that_had_been_closed_is_no_failure() -> None:
    """It costs no retry, and the books say what was odd."""
    reply = response(b"[1, 2, 3]", b"Content-Type: application/json")

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(reply)
        await visit.read_head()
        visit.reset()

    results = [FetchResult(fetch_of(3, number=number)) for number in range(2)]
    manners, way = replace(POLICY, retries=0), route_to(breaker=Breaker(1, 0))
    async with raw_server(play) as server:
        source = RandomNumberApi(base_url=server.url.removesuffix("/numbers"))
        async with fetching(source, manners, way) as fetcher:
            for result in results:
                await fetcher.carry_out(result)

    assert [lone(result)[1].verdict for result in results] == [Verdict.COLLECTED] * 2
    assert [lone(result)[0].detail for result in results] == [None, ASKED_AGAIN]
    assert not way.limiter.breaker.is_open
    assert server.connections == 2


async def test_a_surplus_answer_never_becomes_a_batch() -> None:
    """From the socket to the books: each batch holds what was sent for it."""
    good, surplus = (
        response(b"[%b]" % body, b"Content-Type: application/json") for body in (b"1,2,3", b"6,6,6")
    )
    results = [FetchResult(fetch_of(3)) for _ in range(3)]

    async with (
        raw_server(replying(good + surplus)) as server,
        fetching(RandomNumberApi(base_url=server.url)) as fetcher,
    ):
        for result in results:
            await fetcher.carry_out(result)

    assert [lone(result)[1].numbers for result in results] == [b"\1\2\3"] * 3
