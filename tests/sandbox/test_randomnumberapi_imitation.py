"""Tests for pipeline/sandbox/randomnumberapi.py."""

import json
import re

import pytest

from pipeline.sandbox.exchange import Response
from pipeline.sandbox.options import RandomNumberApiMode, SandboxOptions
from pipeline.sandbox.randomnumberapi import RandomNumberApi
from tests.sandbox.support import make_request

FLASK, GO2023, GO2026 = RandomNumberApiMode
PATH = "/api/v1.0/random"


def _answer(mode: RandomNumberApiMode, query: str, path: str = PATH) -> Response:
    upstream = RandomNumberApi(SandboxOptions(random_number_api_mode=mode))
    return upstream.answer(make_request(f"{path}?{query}"))


def _numbers(mode: RandomNumberApiMode, query: str) -> list[int]:
    numbers: list[int] = json.loads(_answer(mode, query).body)
    return numbers


@pytest.mark.parametrize(
    ("mode", "shape"),
    [(FLASK, rb"\[\d, \d\]"), (GO2023, rb"\[\d,\d\]\n"), (GO2026, rb"\[\d,\d\]\n")],
)
def test_the_array_is_bare_and_spaced_as_its_language_does(
    mode: RandomNumberApiMode, shape: bytes
) -> None:
    """Python puts a blank after the comma, Go a newline at the end."""
    assert re.fullmatch(shape, _answer(mode, "min=1&max=9&count=2").body)


@pytest.mark.parametrize(("mode", "highest"), [(FLASK, 3), (GO2023, 2), (GO2026, 2)])
def test_whether_max_comes_up_depends_on_the_generation(
    mode: RandomNumberApiMode, highest: int
) -> None:
    """The one difference that can silently spoil a sum."""
    assert set(_numbers(mode, "min=1&max=3&count=100")) == set(range(1, highest + 1))


@pytest.mark.parametrize(
    ("query", "count", "low", "high"),
    [
        ("", 1, 0, 99),
        ("min=5&max=6&count=101", 1, 5, 5),
        ("min=5&max=6&count=0", 1, 5, 5),
        ("min=5&max=6&count=-3", 1, 5, 5),
        ("min=-5&max=1&count=9", 9, 0, 0),
        ("min=50&max=50&count=9", 9, 50, 149),
        ("min=x&max=1&count=9", 9, 0, 0),
        ("min=1_0&max=1&count=9", 9, 0, 0),
        ("min=7&min=1&max=8&count=9", 9, 7, 7),
    ],
)
def test_go2023_replaces_in_silence_what_does_not_fit(
    query: str, count: int, low: int, high: int
) -> None:
    """Only the numbers themselves show that something else was served than was asked."""
    numbers = _numbers(GO2023, query)

    assert len(numbers) == count
    assert all(low <= number <= high for number in numbers)


@pytest.mark.parametrize(
    ("query", "count"), [("count=101", 100), ("count=0", 1), ("count=-1", 0), ("min=-9&max=-1", 1)]
)
def test_flask_clamps_the_count_and_allows_negatives(query: str, count: int) -> None:
    """The oldest generation was the most lenient."""
    assert len(_numbers(FLASK, query)) == count


def test_flask_fails_where_the_range_is_empty() -> None:
    """Its handler raised; the framework answered with a page."""
    answer = _answer(FLASK, "min=5&max=5")

    assert (answer.status, answer.headers) == (500, (("Content-Type", "text/html"),))


def test_flask_complains_about_what_is_no_integer() -> None:
    """The complaint is keyed by the parameter."""
    answer = _answer(FLASK, "min=x")

    assert answer.status == 400
    assert list(json.loads(answer.body)["message"]) == ["min"]


@pytest.mark.parametrize(
    "query",
    [
        "count=101",
        "count=0",
        "min=-1",
        "min=5&max=5",
        "min=x",
        "min=1&min=2",
    ],
)
def test_go2026_refuses_what_its_elder_replaced(query: str) -> None:
    """A client written for the elder finds out by the status."""
    answer = _answer(GO2026, query)

    assert answer.status == 400
    assert re.fullmatch(rb'\{"error":"[^"]+"\}\n', answer.body)


def test_go2026_knows_one_method_and_a_health_check() -> None:
    """The rewrite is a proper service."""
    upstream = RandomNumberApi(SandboxOptions(random_number_api_mode=GO2026))

    assert upstream.answer(make_request(PATH, method="POST")).status == 405
    assert upstream.answer(make_request("/healthz")).status == 204


@pytest.mark.parametrize(
    ("mode", "header"),
    [
        (FLASK, "Access-Control-Allow-Origin"),
        (GO2023, "X-Content-Type-Options"),
        (GO2026, "X-Request-ID"),
    ],
)
def test_headers_tell_the_generations_apart(mode: RandomNumberApiMode, header: str) -> None:
    """For a person who looks at evidence."""
    assert header in dict(_answer(mode, "").headers)


@pytest.mark.parametrize("path", [f"{PATH}/", "/api/v1.0/randomnumber"])
def test_aliases_and_a_trailing_slash_work(path: str) -> None:
    """As the operator's routes do."""
    assert _answer(GO2023, "", path).status == 200


def test_other_paths_are_not_found() -> None:
    """The siblings are not imitated, and must not answer with integers."""
    assert _answer(GO2023, "", "/api/v1.0/uuid").status == 404


def test_a_refusal_on_demand_is_the_rewrites() -> None:
    """The others never say no; this is what the rewrite says when its own upstream is down."""
    refused = RandomNumberApi(SandboxOptions()).refuse(make_request(PATH))

    assert (refused.status, refused.body) == (502, b'{"error":"Bad Gateway"}\n')
