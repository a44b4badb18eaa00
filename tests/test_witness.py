"""Tests for pipeline/witness.py: requests and answers as they are kept, and old numbers."""

from collections.abc import Sequence

import httpx2 as httpx
import pytest

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Aspect, Batch, Fetch
from pipeline.sources.http import Exchange
from pipeline.store.numbers import digest_of, pack
from pipeline.witness import MOST_KINDS, MOST_KNOWN, Witness, is_telling
from tests.sources.samples import answer_of

SECRET = "canary-0d6f/3e2a"
LOW, HIGH = 0, 255
TELLING = 8  # bytes: 64 bits


def witness(*earlier: tuple[bytes, int, int]) -> Witness:
    """Make the witness of run 7."""
    return Witness(run_id=7, secrets=(SECRET,), variable="ANU_KEY", earlier=earlier)


def fetch_of(*sizes: int, first: int = 0) -> Fetch:
    """Make a fetch of bytes that serves one batch of each of *sizes*."""
    batches = (
        Batch(number=number, source="bytes", n=n, min=LOW, max=HIGH)
        for number, n in enumerate(sizes, first)
    )
    return Fetch(number=first, batches=tuple(batches))


def digest(numbers: Sequence[int]) -> bytes:
    """Hash a batch as the store does."""
    return digest_of(pack(numbers, LOW, HIGH), len(numbers), LOW, HIGH)


# ---- What was sent ----


def test_a_request_is_described_as_it_is_sent() -> None:
    """With the headers of the connection, or it could not be repeated faithfully."""
    request = httpx.Request(
        "POST", "https://h.example:8443/a?n=5", headers={"X-Odd": "~"}, content=b"{}"
    )

    described = witness().describe(request)

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

    described = witness().describe(request)

    assert described.url == "https://h.example/${ANU_KEY}?key=${ANU_KEY}"
    assert ("X-Api-Key", "${ANU_KEY}") in described.headers
    assert described.body == b'{"apiKey":"${ANU_KEY}"}'
    assert SECRET not in repr(described)


def test_the_same_request_is_described_once() -> None:
    """A run sends it a hundred thousand times."""
    request = httpx.Request("GET", "https://h.example/")
    seen = witness()

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

    assert witness().contract(exchange, None) == (
        (Aspect.CONTENT_TYPE, "application/json"),
        (Aspect.KEYS, "data, success"),
        (Aspect.TLS_ISSUER, "O=Example, CN=R3"),
    )


def test_without_an_answer_there_is_no_contract() -> None:
    """Unknown is not changed."""
    assert witness().contract(Exchange(), ErrorName.READ_TIMEOUT) == ()


def test_a_contract_is_fit_to_be_kept() -> None:
    """The upstream chooses its keys, and may put ours among them."""
    exchange = exchange_of({SECRET: 1, "\x1b[2J": 2, "x" * 400: 3, "\ud800": 4})

    ((_, _), (_, keys)) = witness().contract(exchange, None)

    assert SECRET not in keys
    assert keys.startswith(r"\x1b[2J, [REDACTED], x")
    assert len(keys) == 300


def test_each_kind_of_answer_is_first_once() -> None:
    """One of each is enough to be replayed."""
    seen = witness()
    kinds = [((Aspect.KEYS, key),) for key in "aba"]

    assert [seen.is_first(kind) for kind in kinds] == [True, True, False]


def test_an_upstream_that_never_looks_the_same_does_not_fill_the_disk() -> None:
    """Only so many kinds are kept in one run."""
    seen = witness()

    assert sum(seen.is_first(((Aspect.KEYS, str(nth)),)) for nth in range(100)) == MOST_KINDS


# ---- Old numbers ----


@pytest.mark.parametrize(
    ("n", "low", "high", "told"),
    [
        (8, 0, 255, True),
        (7, 0, 255, False),
        (64, 0, 1, True),
        (63, 0, 1, False),
        (1, -(2**53), 2**53, False),
        (2, -(2**53), 2**53, True),
        (1000, 5, 5, False),
    ],
)
def test_only_what_cannot_come_twice_tells(n: int, low: int, high: int, told: bool) -> None:
    """Three dice come again every few hundred times, and nobody is to blame."""
    assert is_telling(n, low, high) is told


def test_the_same_numbers_twice_are_stale() -> None:
    """Counted again they would be no randomness at all; the first place is named."""
    seen = witness()
    seen.check_fresh(fetch_of(2, TELLING, first=3), (1, 2, *range(TELLING)))

    with pytest.raises(SourceError) as caught:
        seen.check_fresh(fetch_of(TELLING, first=9), tuple(range(TELLING)))

    assert caught.value.error is ErrorName.STALE
    assert caught.value.detail == "the same 8 numbers as run 7 w4"
    assert not caught.value.may_retry


def test_numbers_of_an_earlier_run_are_stale() -> None:
    """A cache does not end with the run."""
    numbers = tuple(range(TELLING))

    with pytest.raises(SourceError, match="the same 8 numbers as run 3 w12"):
        witness((digest(numbers), 3, 12)).check_fresh(fetch_of(TELLING), numbers)


def test_one_answer_that_repeats_itself_is_stale() -> None:
    """Two batches that share a request must not share their numbers."""
    numbers = tuple(range(TELLING))

    with pytest.raises(SourceError, match="the same 8 numbers as run 7 w0"):
        witness().check_fresh(fetch_of(TELLING, TELLING), numbers + numbers)


def test_nothing_of_a_stale_answer_is_remembered() -> None:
    """What was not collected cannot make the next answer stale."""
    old, new = tuple(range(TELLING)), tuple(range(1, TELLING + 1))
    seen = witness((digest(old), 3, 0))

    with pytest.raises(SourceError):
        seen.check_fresh(fetch_of(TELLING, TELLING), new + old)

    seen.check_fresh(fetch_of(TELLING), new)


def test_few_small_numbers_may_come_again() -> None:
    """Chance alone brings them."""
    seen = witness((digest((1, 2, 3)), 3, 0))

    for _ in range(2):
        seen.check_fresh(fetch_of(3), (1, 2, 3))


def test_other_order_other_numbers() -> None:
    """A sorted copy is no copy: who serves an old answer serves it as it was."""
    seen = witness()

    seen.check_fresh(fetch_of(TELLING), tuple(range(TELLING)))
    seen.check_fresh(fetch_of(TELLING), tuple(reversed(range(TELLING))))


def test_the_oldest_are_forgotten() -> None:
    """A run of a million batches must not need a machine of its own."""
    first, second = tuple(range(TELLING)), tuple(range(1, TELLING + 1))
    filler = ((nth.to_bytes(32), 5, nth) for nth in range(MOST_KNOWN - 1))
    seen = witness((digest(first), 3, 0), *filler)

    seen.check_fresh(fetch_of(TELLING), second)
    seen.check_fresh(fetch_of(TELLING), first)

    with pytest.raises(SourceError):
        seen.check_fresh(fetch_of(TELLING), second)
