"""Tests for pipeline/sources/aspects.py: the look of an answer in a few words."""

import pytest

from pipeline.errors import ErrorName
from pipeline.models import Aspect
from pipeline.sources.answers import read_json
from pipeline.sources.aspects import (
    MOST_PATHS,
    aspects_of,
    name_content_type,
    name_keys,
    name_signing,
)
from pipeline.sources.base import Answer, Proving
from pipeline.sources.drand import Drand
from tests.sources.samples import answer_of


def aspects(
    answer: Answer, error: ErrorName | None = None, proving: Proving | None = None
) -> dict[str, str]:
    """Tell what *answer* shows."""
    return {aspect.value: value for aspect, value in aspects_of(answer, error, proving)}


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ("application/json", "application/json"),
        ("Application/JSON ; Charset=UTF-8", "application/json; charset=utf-8"),
        ('text/html; version=2; charset="latin-1"', "text/html; charset=latin-1"),
        ("", ""),
    ],
)
def test_a_content_type_is_named_the_same_however_it_is_written(declared: str, named: str) -> None:
    """Another way to write it is no change."""
    assert name_content_type(declared) == named


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"success": True, "data": [1, 2]}, "data, success"),
        (
            {"result": {"random": {"data": [], "at": ""}}, "id": 1},
            "id, result.random.at, result.random.data",
        ),
        ({"empty": {}, "list": [{"hidden": 1}]}, "empty, list"),
        ({}, "none"),
        ([1, 2], "an array"),
        ("text", "a string"),
    ],
)
def test_keys_are_named_by_their_paths(document: object, named: str) -> None:
    """In one order; arrays are as long as the order, and hold numbers."""
    assert name_keys(document) == named


def test_what_is_deep_or_wide_is_cut() -> None:
    """An answer may hold a megabyte of keys."""
    deep: dict[str, object] = {}
    for _ in range(500):
        deep = {"a": deep}

    assert name_keys(deep) == ".".join("a" * 8)
    assert name_keys(dict.fromkeys(map(str, range(10_000)))).count(",") == MOST_PATHS - 1


@pytest.mark.parametrize("error", [None, ErrorName.SCHEMA, ErrorName.COUNT, ErrorName.STALE])
def test_an_answer_that_was_meant_to_be_good_shows_its_look(error: ErrorName | None) -> None:
    """It is the one that was refused for its look which tells what changed."""
    answer = answer_of({"numbers": [1]})
    read_json(answer)

    assert aspects(answer, error) == {"content_type": "application/json", "keys": "numbers"}


def test_what_nobody_read_as_json_has_no_keys() -> None:
    """Plain text and an HTML page have none."""
    page = answer_of("<p>", content_type="text/html")

    assert aspects(page, ErrorName.CONTENT_TYPE) == {"content_type": "text/html"}


def test_an_undeclared_type_is_not_guessed() -> None:
    """Only what the answer showed."""
    assert aspects(answer_of("1\n", content_type=None)) == {}


@pytest.mark.parametrize(
    "error", [ErrorName.HTTP_5XX, ErrorName.UNAUTHORIZED, ErrorName.REFUSED, ErrorName.INTERNAL]
)
def test_an_error_page_is_no_change_of_contract(error: ErrorName) -> None:
    """Nobody agreed upon how a server fails."""
    assert aspects(answer_of("<p>", content_type="text/html"), error) == {}


@pytest.mark.parametrize("error", [ErrorName.RATE_LIMITED, ErrorName.QUOTA_EXHAUSTED])
def test_a_refusal_has_a_look_of_its_own(error: ErrorName) -> None:
    """How an upstream says "not now" is what a client has to recognise."""
    plain = answer_of("limited", status=429, content_type="Text/Plain")
    bare = answer_of("limited", status=200, content_type=None)

    assert aspects(plain, error) == {Aspect.REFUSAL: "429 text/plain"}
    assert aspects(bare, error) == {Aspect.REFUSAL: "200 no content type"}


@pytest.mark.parametrize(
    ("fitting", "named"),
    [
        ((), "s, 512 bytes"),
        ((512,), "s, 512 bytes"),
        ((256, 512), "s, 512 bytes"),
        ((256,), "s, 512 bytes; the pinned key makes 256"),
    ],
)
def test_how_it_signs_is_held_against_the_keys(fitting: tuple[int, ...], named: str) -> None:
    """If there are any."""
    assert name_signing("s", 512, fitting) == named


DRAND = Drand(base_url="https://d.test", chain="quicknet")


@pytest.mark.parametrize("error", [None, ErrorName.SCHEMA, ErrorName.UNPROVEN])
def test_what_does_not_verify_shows_how_it_is_signed(error: ErrorName | None) -> None:
    """That may be the reason."""
    shown = aspects(answer_of({"signature": "ab" * 48}), error, DRAND)

    assert shown[Aspect.SIGNING] == "bls-unchained-g1-rfc9380, 48 bytes"


def test_what_is_not_signed_or_refused_shows_nothing_of_it() -> None:
    """Nor does a page that only came along with an error."""
    signed = answer_of({"signature": "ab" * 48})

    assert Aspect.SIGNING not in aspects(answer_of({"round": 1}), None, DRAND)
    assert Aspect.SIGNING not in aspects(answer_of("<p>"), None, DRAND)
    assert Aspect.SIGNING not in aspects(signed, ErrorName.RATE_LIMITED, DRAND)
    assert Aspect.SIGNING not in aspects(signed, None)
