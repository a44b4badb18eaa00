"""What the adapters' tests share: fetches, answers, and hostile ones made by Hypothesis."""

import json
import string

import httpx2 as httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.models import Batch, Fetch
from pipeline.sources.base import Answer, Source

SECRET = "0d6f3e2a-5c41-4b7e-9a80-canary000001"

FEW_EXAMPLES = settings(max_examples=60, deadline=None)


def fetch_of(n: int, low: int, high: int, *, number: int = 0) -> Fetch:
    """Make a fetch with one batch."""
    batch = Batch(number=0, source="sample", n=n, min=low, max=high)
    return Fetch(number=number, batches=(batch,))


def answer_of(
    body: object,
    *,
    status: int = 200,
    content_type: str | None = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Make an answer; a body that is neither bytes nor text is sent as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    declared = () if content_type is None else (("Content-Type", content_type),)
    return Answer(
        status=status,
        headers=httpx.Headers([*declared, *headers]),
        body=text.encode() if isinstance(text, str) else text,
    )


def refusal_of(source: Source, fetch: Fetch, answer: Answer) -> SourceError:
    """Read *answer*, which must fail, and give the error."""
    with pytest.raises(SourceError) as caught:
        source.parse_answer(fetch, answer)
    return caught.value


def hold_contract(
    source: Source, fetch: Fetch, answer: Answer, *, secret: str | None = None
) -> None:
    """Read *answer* and accept two ends: the numbers as asked, or a SourceError fit to show."""
    try:
        numbers = source.parse_answer(fetch, answer)
    except SourceError as exc:
        text = str(exc)
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 1200
        assert secret is None or secret not in text
    else:
        assert len(numbers) == fetch.n
        assert all(type(x) is int and fetch.min <= x <= fetch.max for x in numbers)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "error", "result", "random", "success", "type", "length"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_bodies = st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode)
_header_values = st.text(alphabet=string.printable[:-5], max_size=40) | st.sampled_from(
    ["120", SECRET, f"text/plain; charset={SECRET}"]
)


@st.composite
def hostile_answers(draw: st.DrawFn) -> Answer:
    """Draw an answer of any status, with any headers and any body."""
    names = ["Content-Type", "Retry-After", "Date", "X-Other"]
    headers = draw(st.lists(st.tuples(st.sampled_from(names), _header_values), max_size=4))
    declared = draw(st.sampled_from([None, "application/json", "text/plain", "text/html"]))
    return answer_of(
        draw(_bodies),
        status=draw(st.sampled_from([200, 200, 400, 429, 503]) | st.integers(0, 999)),
        content_type=declared,
        headers=tuple(headers),
    )


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """Draw *body* with one stretch of it cut out, doubled or replaced."""
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 8)) | st.just(len(body)))
    middle = draw(
        st.sampled_from([b"", body[start:end] * 2, b"0", b"-", b".5", b'"', b"[", b"\n", b"9" * 30])
        | st.binary(max_size=6)
    )
    return body[:start] + middle + body[end:]
