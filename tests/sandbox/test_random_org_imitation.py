"""Tests for pipeline/sandbox/random_org.py."""

import re
from datetime import timedelta

import pytest

from pipeline.sandbox.exchange import Response
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.random_org import MAX_BITS, RandomOrg, charged_bits
from tests.sandbox.support import NOON, make_request

GOOD = {
    "num": "3",
    "min": "1",
    "max": "6",
    "col": "1",
    "base": "10",
    "format": "plain",
    "rnd": "new",
}
# Costs 300 000 bits: ten thousand numbers of thirty bits each.
LARGE = GOOD | {"num": "10000", "min": "0", "max": str(2**29 + 2**28 - 1)}


def _integers(**changed: str) -> str:
    return "/integers/?" + "&".join(f"{name}={value}" for name, value in (GOOD | changed).items())


def _answer(**changed: str) -> Response:
    return RandomOrg(SandboxOptions()).answer(make_request(_integers(**changed)))


def _overdraw(upstream: RandomOrg) -> None:
    while upstream.answer(make_request(_integers(**LARGE))).status == 200:
        pass


def test_plain_rows_end_in_a_newline_each() -> None:
    """A client tells a cut body from a whole one by the last newline."""
    assert re.fullmatch(rb"([1-6]\n){3}", _answer().body)


def test_columns_are_separated_by_tabs() -> None:
    """The last row may be shorter."""
    assert re.fullmatch(rb"[1-6]\t[1-6]\n[1-6]\n", _answer(col="2").body)


def test_html_holds_the_rows_in_the_one_element_that_clients_look_for() -> None:
    """The page's other markup is nobody's contract."""
    answer = _answer(format="html")

    assert answer.headers == (("Content-Type", "text/html"),)
    assert re.search(rb'<pre class="data">\n([1-6]\n){3}</pre>', answer.body)


@pytest.mark.parametrize(("base", "shape"), [("2", rb"[01]+\n"), ("16", rb"[0-9a-f]+\n")])
def test_other_bases_are_written_in_their_digits(base: str, shape: bytes) -> None:
    """Only the spelling changes with the base."""
    assert re.fullmatch(shape, _answer(num="1", base=base).body)


def test_both_ends_of_the_range_come_up() -> None:
    """Unlike its neighbours, this API includes max."""
    rows = _answer(num="1000", min="-1", max="1").body.split()

    assert set(rows) == {b"-1", b"0", b"1"}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"max": "1000000001"},
            "The maximum value must be an integer in the [-1000000000,1000000000] interval",
        ),
        (
            {"min": "x"},
            "The minimum value must be an integer in the [-1000000000,1000000000] interval",
        ),
        ({"num": "10001"}, "The number of integers must be an integer in the [1,10000] interval"),
        ({"min": "6"}, "The maximum value must be greater than the minimum value"),
        ({"base": "7"}, "The base must be 2, 8, 10 or 16"),
        ({"rnd": "id.x"}, "Only rnd=new is imitated here"),
    ],
)
def test_a_bad_parameter_is_a_503_that_says_error(changed: dict[str, str], line: str) -> None:
    """Every generator answers its complaints so, and clients look at the first word."""
    answer = _answer(**changed)

    assert (answer.status, answer.body.decode()) == (503, f"Error: {line}\n")


def test_bits_are_charged_for_rejected_draws_too() -> None:
    """A client measured about 6.5 k bits for a thousand digits."""
    assert charged_bits(1000, 0, 9) == 6400
    assert charged_bits(3, 0, 1) == 3


def test_the_allowance_can_be_asked_for() -> None:
    """Guideline 4: check the quota, and stop when it is negative."""
    upstream = RandomOrg(SandboxOptions())
    before = upstream.answer(make_request("/quota/?format=plain")).body
    upstream.answer(make_request(_integers(num="1000", min="0", max="9")))

    after = upstream.answer(make_request("/quota/?format=plain")).body

    assert (before, after) == (b"1000000\n", b"993600\n")


def test_an_overdrawn_client_is_refused_with_the_recorded_words() -> None:
    """The last request may overdraw; the next is refused, two blanks and all."""
    upstream = RandomOrg(SandboxOptions())
    _overdraw(upstream)

    refused = upstream.answer(make_request(_integers()))

    assert refused.status == 503
    assert refused.body == (
        b"Error: You have used your quota of random bits for today."
        b"  See the quota page for details.\n"
    )
    assert refused.violations == ("quota",)
    assert int(upstream.answer(make_request("/quota/")).body) < 0


def test_midnight_tops_the_allowance_up() -> None:
    """200 000 bits a day, and never more than a million in all."""
    upstream = RandomOrg(SandboxOptions())
    upstream.answer(make_request(_integers(**LARGE)))

    def bits_after(days: int) -> int:
        later = NOON + timedelta(days=days)
        return int(upstream.answer(make_request("/quota/", utc=later)).body)

    assert [bits_after(days) - bits_after(0) for days in (1, 2)] == [200_000, 400_000]
    assert bits_after(9) == MAX_BITS


def test_a_second_request_in_flight_brings_a_ban_in_the_end() -> None:
    """Guideline 1, the only one that is mandatory; twice it is forgiven here."""
    upstream = RandomOrg(SandboxOptions())

    answers = [upstream.answer(make_request(_integers(), in_flight=1)) for _ in range(3)]
    later = upstream.answer(make_request(_integers()))

    assert [answer.status for answer in answers] == [200, 200, 403]
    assert answers[0].violations == ("in_flight",)
    assert later.violations == ("banned",)


def test_a_user_agent_without_an_address_is_noticed() -> None:
    """Guideline 5: the owner must be able to write to the client's owner."""
    answer = RandomOrg(SandboxOptions()).answer(make_request(_integers(), headers={}))

    assert (answer.status, answer.violations) == (200, ("user_agent",))


def test_without_rules_nothing_is_noticed() -> None:
    """A benchmark wants the wire format at full speed."""
    upstream = RandomOrg(SandboxOptions(rules=False))

    answers = [
        upstream.answer(make_request(_integers(**LARGE), headers={}, in_flight=1)) for _ in range(5)
    ]

    assert {(answer.status, answer.violations) for answer in answers} == {(200, ())}


def test_other_paths_are_not_found() -> None:
    """The siblings are not imitated, and must not answer with integers."""
    assert RandomOrg(SandboxOptions()).answer(make_request("/sequences/")).status == 404
