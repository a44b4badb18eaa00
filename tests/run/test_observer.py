"""Tests for pipeline/run/observer.py: requests and answers as they are kept, and old numbers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import httpx2 as httpx
import pytest

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Aspect, Batch, Fetch, Outcome, Timings
from pipeline.run.observer import MOST_KINDS, MOST_KNOWN, ExchangeObserver, check_age
from pipeline.sources.http import Exchange
from pipeline.store.freshness import Earlier
from pipeline.store.numbers import CHECK_BYTES, collected, digest_of, pack
from tests.sources.samples import answer_of
from tests.store.makers import PROOF

SECRET = "canary-0d6f/3e2a"
LOW, HIGH = 0, 255
TELLING = 8  # bytes: 64 bits


def observer(*endings: tuple[bytes, int, int], tail: bytes = b"") -> ExchangeObserver:
    """Make the observer of run 7, which knows how earlier batches ended."""
    earlier = Earlier(endings=endings, tail=tail)
    return ExchangeObserver(run_id=7, secrets=(SECRET,), variable="ANU_KEY", earlier=earlier)


def fetch_of(*sizes: int, first: int = 0) -> Fetch:
    """Make a fetch of bytes that serves one batch of each of *sizes*."""
    batches = (
        Batch(number=number, source="bytes", n=n, min=LOW, max=HIGH)
        for number, n in enumerate(sizes, first)
    )
    return Fetch(number=first, batches=tuple(batches))


def served(fetch: Fetch, numbers: Sequence[int]) -> list[Outcome]:
    """Cut *numbers* into the batches of *fetch*."""
    left = iter(numbers)
    return [
        collected(batch, tuple(islice(left, batch.n)), fetch=fetch.number, attempt=1, offset=0)
        for batch in fetch.batches
    ]


def digest(numbers: Sequence[int]) -> bytes:
    """Hash a batch as the store does."""
    return digest_of(pack(numbers, LOW, HIGH), len(numbers), LOW, HIGH)[:CHECK_BYTES]


# ---- What was sent ----


def test_a_request_is_described_as_it_is_sent() -> None:
    """With the headers of the connection, or it could not be repeated faithfully."""
    request = httpx.Request(
        "POST", "https://h.example:8443/a?n=5", headers={"X-Odd": "~"}, content=b"{}"
    )

    described = observer().describe(request)

    assert (described.method, described.url) == ("POST", "https://h.example:8443/a?n=5")
    assert described.headers == (
        ("Host", "h.example:8443"),
        ("X-Odd", "~"),
        ("Content-Length", "2"),
    )
    assert described.body == b"{}"


def test_a_secret_is_replaced_by_its_variable_wherever_it_stands() -> None:
    """In the address, in a header and in the body, however it is spelled there."""
    request = httpx.Request(
        "POST",
        f"https://h.example/{SECRET}",
        params={"key": SECRET},
        headers={"X-Api-Key": SECRET},
        content=b'{"apiKey":"%b"}' % SECRET.encode(),
    )

    described = observer().describe(request)

    assert described.url == "https://h.example/${ANU_KEY}?key=${ANU_KEY}"
    assert ("X-Api-Key", "${ANU_KEY}") in described.headers
    assert described.body == b'{"apiKey":"${ANU_KEY}"}'
    assert SECRET not in repr(described)


def test_the_same_request_is_described_once() -> None:
    """A run sends it a hundred thousand times."""
    request = httpx.Request("GET", "https://h.example/")
    seen = observer()

    assert seen.describe(request) is seen.describe(request)


# ---- What answers look like ----


def exchange_of(body: object, **more: object) -> Exchange:
    """Make an exchange that brought *body*, read as JSON."""
    answer = answer_of(body, **more)  # type: ignore[arg-type] # passed on as it is
    answer.documents.append(body)
    return Exchange(answer=answer, status=answer.status, headers=answer.headers)


def test_a_contract_is_what_the_answer_showed() -> None:
    """Beside the answer itself stands who vouched for the server."""
    exchange = exchange_of({"data": [1], "success": True})
    exchange.tls_issuer = "O=Example, CN=R3"

    assert observer().contract(exchange, None) == (
        (Aspect.CONTENT_TYPE, "application/json"),
        (Aspect.KEYS, "data, success"),
        (Aspect.TLS_ISSUER, "O=Example, CN=R3"),
    )


def test_without_an_answer_there_is_no_contract() -> None:
    """Unknown is not changed."""
    assert observer().contract(Exchange(), ErrorName.READ_TIMEOUT) == ()


def test_a_contract_is_fit_to_be_kept() -> None:
    """The upstream chooses its keys, and may put ours among them."""
    exchange = exchange_of({SECRET: 1, "\x1b[2J": 2, "x" * 400: 3, "\ud800": 4})

    ((_, _), (_, keys)) = observer().contract(exchange, None)

    assert SECRET not in keys
    assert keys.startswith(r"\x1b[2J, [REDACTED], x")
    assert len(keys) == 300


def test_each_kind_of_answer_is_first_once() -> None:
    """One of each is enough to be replayed."""
    seen = observer()
    kinds = [((Aspect.KEYS, key),) for key in "aba"]

    assert [seen.is_first(kind) for kind in kinds] == [True, True, False]


def test_an_upstream_that_never_looks_the_same_does_not_fill_the_disk() -> None:
    """Only so many kinds are kept in one run."""
    seen = observer()

    assert sum(seen.is_first(((Aspect.KEYS, str(nth)),)) for nth in range(100)) == MOST_KINDS


# ---- Old numbers ----


def test_the_same_numbers_twice_are_stale() -> None:
    """Counted again they would be no randomness at all; the first place is named."""
    seen = observer()
    seen.check_fresh(served(fetch_of(2, TELLING, first=3), (1, 2, *range(TELLING))))

    with pytest.raises(SourceError) as caught:
        seen.check_fresh(served(fetch_of(TELLING, first=9), tuple(range(TELLING))))

    assert caught.value.error is ErrorName.STALE
    assert caught.value.detail == "the same 8 numbers in a row came before, up to run 7 w4"
    assert not caught.value.may_retry


def test_numbers_of_an_earlier_run_are_stale() -> None:
    """A cache does not end with the run."""
    numbers = tuple(range(TELLING))

    with pytest.raises(
        SourceError, match="the same 8 numbers in a row came before, up to run 3 w12"
    ):
        observer((digest(numbers), 3, 12)).check_fresh(served(fetch_of(TELLING), numbers))


def test_one_answer_that_repeats_itself_is_stale() -> None:
    """Two batches that share a request must not share their numbers."""
    numbers = tuple(range(TELLING))

    with pytest.raises(
        SourceError, match="the same 8 numbers in a row came before, up to run 7 w0"
    ):
        observer().check_fresh(served(fetch_of(TELLING, TELLING), numbers + numbers))


def test_nothing_of_a_stale_answer_is_remembered() -> None:
    """What was not collected cannot make the next answer stale."""
    old, new = tuple(range(TELLING)), tuple(range(1, TELLING + 1))
    seen = observer((digest(old), 3, 0))

    with pytest.raises(SourceError):
        seen.check_fresh(served(fetch_of(TELLING, TELLING), new + old))

    seen.check_fresh(served(fetch_of(TELLING), new))


def test_few_small_numbers_may_come_again() -> None:
    """Chance alone brings them."""
    seen = observer((digest((1, 2, 3)), 3, 0))

    for _ in range(2):
        seen.check_fresh(served(fetch_of(3), (1, 2, 3)))


def test_other_order_other_numbers() -> None:
    """A sorted copy is no copy: who serves an old answer serves it as it was."""
    seen = observer()

    seen.check_fresh(served(fetch_of(TELLING), tuple(range(TELLING))))
    seen.check_fresh(served(fetch_of(TELLING), tuple(reversed(range(TELLING)))))


def test_numbers_are_old_wherever_they_stand() -> None:
    """Nobody must find a copy by the place where it was cut."""
    seen = observer((bytes(range(TELLING)), 3, 12))

    with pytest.raises(SourceError, match="up to run 3 w12"):
        seen.check_fresh(served(fetch_of(5, 9), (90, 91, 92, *range(TELLING), 93, 94, 95)))


def test_answers_are_looked_at_in_a_row() -> None:
    """Five bytes may come again, and so may the next five; not both, one after the other."""
    seen = observer()
    for piece in ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 1, 2, 3, 4)):
        seen.check_fresh(served(fetch_of(5), piece))

    with pytest.raises(SourceError):
        seen.check_fresh(served(fetch_of(5), (5, 6, 7, 8, 9)))
    seen.check_fresh(served(fetch_of(5), (70, 71, 72, 73, 74)))


def test_an_old_row_goes_on_after_a_stale_answer() -> None:
    """What was refused was served all the same, and what follows is judged with it."""
    pieces = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11, 12))
    seen = observer()
    for piece in pieces:
        seen.check_fresh(served(fetch_of(len(piece)), piece))
    seen.check_fresh(served(fetch_of(5), pieces[0]))

    for piece in pieces[1:]:
        with pytest.raises(SourceError):
            seen.check_fresh(served(fetch_of(len(piece)), piece))


def test_the_first_answer_goes_on_where_the_last_run_ended() -> None:
    """A run may ask for less than what can be judged."""
    seen = observer((bytes(range(TELLING)), 3, 12), tail=bytes(range(5)))

    with pytest.raises(SourceError, match="up to run 3 w12"):
        seen.check_fresh(served(fetch_of(3), (5, 6, 7)))


def test_the_oldest_are_forgotten() -> None:
    """A run of a million batches must not need a machine of its own."""
    first, second = tuple(range(TELLING)), tuple(range(1, TELLING + 1))
    filler = ((nth.to_bytes(32), 5, nth) for nth in range(MOST_KNOWN - 1))
    seen = observer((digest(first), 3, 0), *filler)

    seen.check_fresh(served(fetch_of(TELLING), second))
    seen.check_fresh(served(fetch_of(TELLING), first))

    with pytest.raises(SourceError):
        seen.check_fresh(served(fetch_of(TELLING), second))


# ---- Clocks ----

TIMINGS = Timings(wait_us=1_000_000, first_byte_us=3_000_000, body_us=60_000_000)


@pytest.mark.parametrize(
    ("headers", "offsets"),
    [
        ({"date": "Sun, 22 Nov 2026 12:00:04 GMT"}, [-500_000]),
        ({"date": "Sun, 22 Nov 2026 11:59:03 GMT"}, [60_500_000]),
        ({"date": "Sun, 22 Nov 2026 12:00:04 GMT", "age": "0"}, [-500_000]),
        ({"date": "Sun, 22 Nov 2026 11:00:00 GMT", "age": "3600"}, []),  # of a cache
        ({"date": "yesterday"}, []),
        ({}, []),
    ],
)
def test_our_clock_is_held_against_the_date_of_answers(
    headers: dict[str, str], offsets: list[int]
) -> None:
    """When its head came, four seconds after noon; a Date is half a second old on average."""
    seen = observer()
    exchange = Exchange(headers=httpx.Headers(headers), status=200)

    seen.compare_clocks(exchange, datetime(2026, 11, 22, 12, tzinfo=UTC), TIMINGS)

    assert list(seen.offsets) == offsets


def test_a_pulse_must_have_been_made_lately() -> None:
    """A relay that stands still serves an old one, and its signature verifies for ever."""
    check_age(PROOF, PROOF.made_at + timedelta(minutes=5))
    check_age(replace(PROOF, is_expanded=False), PROOF.made_at + timedelta(days=9))

    with pytest.raises(SourceError, match=r"made at 2026-03-01T12:00:00Z \(or the clock") as caught:
        check_age(PROOF, PROOF.made_at + timedelta(minutes=6))

    assert caught.value.error is ErrorName.STALE
