"""A store in which everything happens that can: what ``tests.answers`` asks about.

Every value is fixed, so that two stores made by the same code are the same.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.errors import ErrorName, Phase
from pipeline.models import (
    Aspect,
    Attempt,
    Batch,
    Evidence,
    Measure,
    Outcome,
    Request,
    RunStatus,
    SlotClaim,
    Timings,
    Verdict,
)
from pipeline.pacing import Embargo, Rate, Rules
from pipeline.store import heartbeats, permissions, slots
from pipeline.store.db import Store, open_store
from pipeline.store.numbers import collected
from pipeline.store.queries import get_run
from pipeline.store.tables import HEARTBEATS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.makers import begin

NOW = datetime(2026, 3, 8, 12, 30, tzinfo=UTC)  # when all questions are asked
FIRST = datetime(2026, 3, 1, 16, tzinfo=UTC)
EVERY = timedelta(hours=4)
LONG_AGO = datetime(2025, 12, 1, 0, 0, 0, 250_000, tzinfo=UTC)

CONFIG = """
[schedule]
cron = "0 */4 * * *"
[sources.dice]
kind = "randomnumberapi"
batches = [3, 4, 3]
merge = false
min = 1
max = 6
[sources.qrng]
kind = "anu_legacy"
batches = [3, 4, 3]
[sources.org]
kind = "random_org"
email = "me@example.org"
batches = [3]
min = 1
max = 6
schedule = { cron = "30 2 * * *" }
[sources.rpc]
kind = "random_org_jsonrpc"
api_key_env = "RPC_KEY"
merge = false
batches = [3, 4]
min = -1000000
max = 1000000
[sources.lapsed]
kind = "randomnumberapi"
batches = [3]
min = 1
max = 6
[sources.unasked]
enabled = false
kind = "anu_legacy"
batches = "2..29"
"""

# Run by run, four hours apart: "." brings all numbers; "-" is put off; an error loses them all;
# with "?" in front another attempt helps, with "!" another one does not.
WEEK = {
    "dice": ". . http_5xx . reset . . ?read_timeout . . . dns . . . . count range . . . . . . ."
    " . . . . ?connect_refused . . rate_limited - . . . . . . .",
    "qrng": ". . . . . . tls tls tls tls . . . . . . . . . . . . ?http_5xx . . . . . . dns . . ."
    " . . - http_5xx http_5xx http_5xx http_5xx http_5xx",
    "org": " ".join(f"!{error}" for error in ErrorName) + " stale . . . . . . . . . . stale",
    "rpc": ". . . . . quota_exhausted - - . . . not_json schema . . refused . . . . . . . . . ."
    " . . . . . . . . . . . . . unauthorized .",
    "lapsed": ". " * 22,
    "gone-by": ". !http_5xx . internal",
}
RANGES = {
    "dice": (1, 6),
    "qrng": (0, 255),
    "org": (1, 6),
    "rpc": (-1_000_000, 1_000_000),
    "lapsed": (1, 6),
    "gone-by": (-(2**62), 2**62),
}
RULES = {"qrng": Rules(rate=Rate(requests=1, period_seconds=60)), "org": Rules()}
FAILS_IN = {
    ErrorName.DNS: Phase.DNS,
    ErrorName.CONNECT_REFUSED: Phase.CONNECT,
    ErrorName.CONNECT_TIMEOUT: Phase.CONNECT,
    ErrorName.UNREACHABLE: Phase.CONNECT,
    ErrorName.TLS: Phase.TLS,
    ErrorName.WRITE_TIMEOUT: Phase.SEND,
    ErrorName.READ_TIMEOUT: Phase.FIRST_BYTE,
    ErrorName.RESET: Phase.FIRST_BYTE,
    ErrorName.PROTOCOL: Phase.FIRST_BYTE,
    ErrorName.INCOMPLETE: Phase.BODY,
    ErrorName.DECODE: Phase.BODY,
    ErrorName.TOO_LARGE: Phase.BODY,
    ErrorName.DEADLINE: Phase.WAIT,
}
DETAILS = (
    None,
    "503 Service Unavailable",
    "Überlastet, später wieder: 数 \U0001f3b2",
    "\x1b[31mred\x1b[0m\tand\r\nbell \x07, nul \x00, back \u202eward\ud800",
    "=cmd|'/c calc'!A1, \"quoted\"; <script>alert(1)</script> | `code` *bold* \\",
    "long " * 60,
)
PHASES_US = {
    Phase.WAIT: 5,
    Phase.DNS: 1_200,
    Phase.CONNECT: 18_000,
    Phase.TLS: 41_000,
    Phase.SEND: 90,
    Phase.FIRST_BYTE: 230_000,
    Phase.BODY: 640,
    Phase.CHECK: 35,
}
BODIES = (
    b'{"success": false, "message": "\xc3\x9cberlastet \\u001b[2J"}',
    b'{"type": "uint8", "length": 3, "data": [1, 2, 3], "success": true}',
    b"[6, 6, 6]",
    b"6\n5\n4\n",
    bytes(range(256)),
    b"<html><title>503</title>" + b"x" * 3000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one source was to bring in one run, and the word for what became of it."""

    source: str
    word: str
    batches: tuple[Batch, ...]
    turn: int  # of the run, to vary what is said
    began_at: datetime


def _timings(error: ErrorName | None, turn: int, *, is_reused: bool) -> Timings:
    last = Phase.CHECK if error is None else FAILS_IN.get(error, Phase.CHECK)
    reached = [phase for phase in Phase if list(Phase).index(phase) <= list(Phase).index(last)]
    spent: dict[str, int | None] = {
        f"{phase}_us": PHASES_US[phase] * (turn % 7 + 1) for phase in reached
    }
    if is_reused:
        spent |= dict.fromkeys(("dns_us", "connect_us", "tls_us"))
    if turn == 25:  # much faster than ever: from a cache?
        spent = dict.fromkeys(spent, 7)
    return Timings(**spent)


def _request(source: str, n: int) -> Request:
    low, high = RANGES[source]
    if source == "rpc":
        params = {"apiKey": "${RPC_KEY}", "n": n, "min": low, "max": high}
        body = json.dumps({"jsonrpc": "2.0", "method": "generateIntegers", "params": params})
        headers = (("Content-Type", "application/json"), ("X-\x1b[2J", "ü"))
        return Request(
            method="POST", url="https://api.random.org/v4", headers=headers, body=body.encode()
        )
    url = f"https://{source}.example.org/v1?n={n}&min={low}&max={high}&name=%C3%BC"
    return Request(method="GET", url=url, headers=(("Accept", "*/*"),), body=b"")


def _contract(source: str, turn: int) -> tuple[tuple[Aspect, str], ...]:
    is_changed = turn in (12, 13) or turn > 30
    return (
        (Aspect.CONTENT_TYPE, "text/html; charset=utf-8" if is_changed else "application/json"),
        (Aspect.KEYS, "data, success, type" if is_changed else "data, length, success, type"),
        *([(Aspect.TLS_ISSUER, f"CN=R{10 + is_changed}")] if source == "qrng" else []),
    )


def _measures(turn: int) -> tuple[Measure, ...]:
    chsh = 1.9 if turn == 5 else 2.5
    return Measure(name="chsh", value=chsh, at_least=2.0), Measure(name="min_entropy", value=0.9)


def _evidence(source: str, turn: int, error: ErrorName | None) -> Evidence:
    body = BODIES[(turn + len(source)) % len(BODIES)]
    kind = "application/json" if body[:1] in b"{[" else "text/plain"
    headers = (
        ("Content-Type", kind),
        ("Date", f"{NOW:%a, %d %b %Y} 12:00:00 GMT"),
        ("X-Request-Id", f"{source}-{turn:04}"),
        ("Set-Cookie", "[redacted]"),
    )
    status = 503 if error is ErrorName.HTTP_5XX else 200
    return Evidence(
        status=status, headers=headers, body=body, body_bytes=len(body) * (turn % 2 + 1)
    )


def _attempt(of: Wanted, fetch: tuple[Batch, ...], number: int, error: ErrorName | None) -> Attempt:
    turn = of.turn + number
    is_answered = error is None or FAILS_IN.get(error, Phase.CHECK) is Phase.CHECK
    return Attempt(
        fetch=fetch[0].number,
        number=number,
        source=of.source,
        began_at=of.began_at + timedelta(milliseconds=700 * number, microseconds=turn),
        timings=_timings(error, of.turn, is_reused=turn % 3 == 0),
        is_reused=turn % 3 == 0,
        status=(503 if error is ErrorName.HTTP_5XX else 200) if is_answered else None,
        body_bytes=40 + turn if is_answered else None,
        error=error,
        phase=FAILS_IN.get(error, Phase.CHECK) if error else None,
        detail=DETAILS[turn % len(DETAILS)] if error else None,
        retry_after_us=30_000_000 if error is ErrorName.RATE_LIMITED or turn == 23 else None,
        request=_request(of.source, sum(batch.n for batch in fetch)),
        contract=() if error else _contract(of.source, of.turn),
        evidence=_evidence(of.source, turn, error) if is_answered else None,
        measures=_measures(of.turn) if of.source == "lapsed" and not error else (),
    )


def _numbers(batch: Batch, turn: int) -> tuple[int, ...]:
    span = batch.max - batch.min + 1
    return tuple(
        batch.min + (turn * 7_919 + batch.number * 31 + k * 104_729 + turn**9 * k) % span
        for k in range(batch.n)
    )


def _collected(fetch: Sequence[Batch], turn: int, attempt: int) -> Iterator[Outcome]:
    offset = 0
    for batch in fetch:
        numbers = _numbers(batch, turn)
        yield collected(batch, numbers, fetch=fetch[0].number, attempt=attempt, offset=offset)
        offset += batch.n


def _lost(fetch: Sequence[Batch], verdict: Verdict, attempt: Attempt | None) -> Iterator[Outcome]:
    for batch in fetch:
        yield Outcome(
            batch=batch,
            verdict=verdict,
            fetch=fetch[0].number,
            attempt=None if attempt is None else attempt.number,
            error=ErrorName.RATE_LIMITED if attempt is None else attempt.error,
            detail="the rate is 1/60s" if attempt is None else attempt.detail,
            not_before=NOW + timedelta(hours=1) if verdict is Verdict.DEFERRED else None,
        )


def _carry_out(of: Wanted) -> Iterator[tuple[list[Attempt], list[Outcome]]]:
    """Give what came of each fetch; qrng asks for all batches in one."""
    fetches = [of.batches] if of.source == "qrng" else [(batch,) for batch in of.batches]
    for fetch in fetches:
        sign, name = ("", of.word) if of.word[:1] not in "?!" else (of.word[0], of.word[1:])
        if name == "-":
            yield [], list(_lost(fetch, Verdict.DEFERRED, None))
            continue
        error = ErrorName(name) if name != "." else None
        tries = [_attempt(of, fetch, 1, error)]
        if sign:
            tries.append(_attempt(of, fetch, 2, error if sign == "!" else None))
        if tries[-1].error is None:
            yield tries, list(_collected(fetch, of.turn, len(tries)))
        else:
            is_stopped = error is ErrorName.CANCELLED
            verdict = Verdict.CANCELLED if is_stopped else Verdict.FAILED
            yield tries, list(_lost(fetch, verdict, tries[-1]))


def _wanted(words: dict[str, str], turn: int, began_at: datetime) -> Iterator[Wanted]:
    number = 0
    for source, word in words.items():
        sizes = {"qrng": (3, 4, 3), "dice": (3, 4), "rpc": (3, 4), "gone-by": (2,)}
        batches = []
        for n in sizes.get(source, (3,)):
            low, high = RANGES[source]
            batches.append(Batch(number=number, source=source, n=n, min=low, max=high))
            number += 1
        yield Wanted(source=source, word=word, batches=tuple(batches), turn=turn, began_at=began_at)


def _record(
    store: Store,
    began_at: datetime,
    words: dict[str, str],
    *,
    turn: int,
    status: RunStatus | None = None,
    open_batches: int = 0,
    is_ended: bool = True,
) -> int:
    """Record one run; *open_batches* of the last source have no outcome when it ends."""
    wanted = list(_wanted(words, turn, began_at))
    results = [result for of in wanted for result in _carry_out(of)]
    attempts = [attempt for tries, _ in results for attempt in tries]
    outcomes = [outcome for _, decided in results for outcome in decided]
    with store.write() as session:
        run_id = begin(session, started_at=began_at, uid=f"{turn:032x}")
        order_batches(session, run_id=run_id, batches=[b for of in wanted for b in of.batches])
        save_results(
            session,
            run_id=run_id,
            attempts=attempts,
            outcomes=outcomes[: len(outcomes) - open_batches],
            keep_numbers=turn != 9,
        )
        if is_ended:
            clock_us = None if status is RunStatus.INTERRUPTED else 1_234_567 * (turn % 5 + 1)
            ended_at = began_at + timedelta(microseconds=clock_us or 0)
            finish_run(
                session,
                run_id=run_id,
                ended_at=ended_at,
                clock_us=clock_us,
                status=status,
                rules=RULES,
            )
    return run_id


def _words_of(turn: int) -> dict[str, str]:
    words = {source: line.split() for source, line in WEEK.items()}
    return {source: of[turn] for source, of in words.items() if turn < len(of)}


def _record_week(store: Store) -> list[int]:
    return [
        _record(store, FIRST + EVERY * turn, _words_of(turn), turn=turn)
        for turn in range(max(len(line.split()) for line in WEEK.values()))
    ]


def _book_slots(store: Store, runs: Iterable[int]) -> None:
    """Give each run its slot, a few of them late, two missed, and one whose run goes on."""
    with store.write() as session:
        for run_id in runs:
            run = get_run(session, run_id=run_id)
            due_at = run.started_at - timedelta(seconds=90 if run_id % 9 == 0 else 2)
            slot = SlotClaim(schedule="default", due_at=due_at, grace_us=60_000_000)
            slots.claim(session, slot=slot, host=run.host, now=run.started_at)
            slots.begin(session, slots=[slot], run=run)
            if run.status is not RunStatus.RUNNING:
                slots.settle(session, slots=[slot], run=run)
        missed = [NOW - timedelta(days=days, minutes=30) for days in (1, 2, 3)]
        slots.book_missed(session, schedule="default/org", due=missed, host="machine-1", now=NOW)


def _lay_embargoes(store: Store) -> None:
    places = {
        "qrng": "anu_legacy@qrng.anu.edu.au:443",
        "org": "random_org@www.random.org:443",
        "gone-by": "randomnumberapi@gone.example.org:443",
    }
    with store.write() as session:
        for hours, (source, place) in enumerate(places.items(), start=-1):
            until = NOW + timedelta(hours=hours, minutes=10)
            embargo = Embargo(until=until, why="Retry-After: 3600, \x1b[1mwait\x1b[0m")
            permissions.lay_embargo(
                session, upstream=place, source=source, embargo=embargo, said_at=FIRST
            )
        permissions.save_failures(session, upstream=places["qrng"], failures=5)
        permissions.take_moments(
            session,
            upstream="anu_legacy@qrng.anu.edu.au:443",
            rules=RULES["qrng"],
            clock=lambda: NOW,
            latest=NOW + timedelta(days=1),
            bits=80,
        )


def make_variety(path: Path) -> None:
    """Make a database at *path* with all of it."""
    with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True) as store:
        for turn in range(3):  # to be pruned
            words = {"dice": ".", "qrng": ("http_5xx", ".", "-")[turn]}
            _record(store, LONG_AGO + timedelta(days=turn), words, turn=100 + turn)
        runs = _record_week(store)
        last = NOW - timedelta(minutes=5)
        skipped = _record(store, last, {}, turn=200, status=RunStatus.SKIPPED)
        stopped = _record(
            store,
            last + timedelta(minutes=1),
            {"dice": ".", "rpc": "."},
            turn=201,
            status=RunStatus.INTERRUPTED,
            open_batches=2,
        )
        words = {"dice": "?reset", "qrng": "rate_limited", "rpc": ".", "org": "http_4xx"}
        full = _record(store, last + timedelta(minutes=2), words, turn=202)
        running = _record(
            store,
            last + timedelta(minutes=3),
            {"dice": ".", "rpc": "."},
            turn=203,
            open_batches=1,
            is_ended=False,
        )
        with store.write() as session:  # and is overdue
            heartbeats.begin(session, run_id=running, until=last + timedelta(minutes=4))
            heard = HEARTBEATS.update().values(seen_at=last + timedelta(minutes=3))
            session.connection().execute(heard)  # by the store's own clock it is when this is made
        _book_slots(store, [*runs, skipped, stopped, full, running])
        _lay_embargoes(store)


def make_empty(path: Path) -> None:
    """Make a database at *path* in which nothing has happened."""
    with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True):
        pass
