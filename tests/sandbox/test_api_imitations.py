"""Tests for the imitations of the APIs that an ``api`` table describes."""

import base64
import json
import re
from datetime import timedelta
from typing import Any

import pytest

from pipeline.sandbox.exchange import Response
from pipeline.sandbox.imitations import KINDS
from pipeline.sandbox.json_apis import BITS_PER_DAY, Csrng, Lfd, Outshift, Padova, Qrandom, Quandela
from pipeline.sandbox.options import SandboxOptions
from tests.sandbox.support import NOON, make_request

SIGNED = (
    rb'\{"id":"[\w-]+","message":"[^"]+","signature":"[\w+/=]+","resultType":"randomIntArray",'
    rb'"timestamp":"2026-11-22T12:00:00.000Z","elapsedTime":0.001,"numbers":\[[1-6],[1-6]\]\}'
)
LFD = "/qrng_api/qrng"
CSRNG = "/csrng/csrng.php"
OUTSHIFT = "/api/v1/random_numbers"
INTS = "/qt/qrng/ints"


def answer_of(kind: str, target: str, **said: Any) -> Response:  # noqa: ANN401
    """Ask a fresh imitation once."""
    return KINDS[kind](SandboxOptions()).answer(make_request(target, **said))


@pytest.mark.parametrize(
    ("kind", "target", "shape"),
    [
        ("lfd", f"{LFD}?length=4&format=HEX", rb'\{"qrn":"[0-9a-f]{8}","length":4\}'),
        ("lfd", f"{LFD}?length=4", rb'\{"qrn":"[0-9a-f]{8}","length":4\}'),
        ("lfd", f"{LFD}?length=2&format=BINARY", rb'\{"qrn":"[01]{16}","length":2\}'),
        ("padova", "/api/get_string_get?string_length=4", rb'\{"string":"[\w+/]{6}=="\}'),
        (
            "csrng",
            f"{CSRNG}?min=1&max=6",
            rb'\[\{"status":"success","min":1,"max":6,"random":[1-6]\}\]',
        ),
        ("csrng", f"{CSRNG}?max=6", rb'\[\{"status":"success","min":0,"max":6,"random":[0-6]\}\]'),
        (
            "qrandom",
            "/api/random/ints?min=1&max=6&n=2",
            SIGNED,
        ),
        (
            "qrandom",
            "/api/random/int?min=1&max=6",
            rb'.*"resultType":"randomInt",.*"number":[1-6]\}',
        ),
        ("qrandom", "/api/random/dice?n=2", rb'.*"dice":\[[1-6],[1-6]\]\}'),
        (
            "quandela",
            f"{INTS}?count=2&type=uint8",
            rb'\{"jobs":\[\{"id":"[\w-]+","ints":\[\d+,\d+\],"chsh":2\.\d+,"min_entropy":0\.\d+\}\]\}',
        ),
    ],
)
def test_good_answers_are_as_recorded(kind: str, target: str, shape: bytes) -> None:
    """Key order included."""
    response = answer_of(kind, target, headers={"authorization": "Bearer good"})

    assert response.status == 200
    assert ("Content-Type", "application/json") in response.headers
    assert re.fullmatch(shape, response.body), response.body


def order(**said: object) -> bytes:
    """Write an order of Outshift's."""
    call = {"encoding": "raw", "format": "decimal", "bits_per_block": 16, "number_of_blocks": 2}
    return json.dumps({**call, **said}).encode()


class TestOutshift:
    """Blocks of bits, each an object of strings."""

    def ask(self, body: bytes, *, key: str = "good", outshift: Outshift | None = None) -> Response:
        """Post *body*."""
        request = make_request(OUTSHIFT, method="POST", headers={"x-id-api-key": key}, body=body)
        return (outshift or Outshift(SandboxOptions())).answer(request)

    @pytest.mark.parametrize(
        ("layout", "block"),
        [
            ("decimal", r'\{"decimal":"\d+"\}'),
            ("hexadecimal", r'\{"hexadecimal":"[0-9a-f]+"\}'),
            (
                "all",
                r'\{"decimal":"\d+","binary":"[01]+","octal":"[0-7]+","hexadecimal":"[0-9a-f]+"\}',
            ),
        ],
    )
    def test_blocks_are_written_as_asked(self, layout: str, block: str) -> None:
        """`all` is the one shape that was seen for sure."""
        body = self.ask(order(format=layout)).body.decode()

        assert re.fullmatch(rf'\{{"random_numbers":\[{block},{block}\]\}}', body)

    def test_base64_wraps_each_text(self) -> None:
        """And not the bytes."""
        blocks = json.loads(self.ask(order(encoding="base64")).body)["random_numbers"]

        assert all(base64.b64decode(block["decimal"]).isdigit() for block in blocks)

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            order(format="ternary"),
            order(encoding="rot13"),
            order(bits_per_block=0),
            order(bits_per_block=True),
            order(number_of_blocks=1001),
        ],
    )
    def test_a_wrong_order_is_refused(self, body: bytes) -> None:
        """With whatever status."""
        assert self.ask(body).status == 400

    def test_a_key_is_needed(self) -> None:
        """And the method is POST."""
        refused = self.ask(order(), key="wrong")

        assert (refused.status, refused.violations) == (401, ("key",))
        assert answer_of("outshift", OUTSHIFT).status == 405
        assert answer_of("outshift", "/").status == 404

    def test_bits_are_counted_per_key_and_day(self) -> None:
        """A refusal tells of the limit in the words that clients look for."""
        outshift = Outshift(SandboxOptions())
        whole = order(bits_per_block=100, number_of_blocks=BITS_PER_DAY // 100)

        first, second = (self.ask(whole, outshift=outshift) for _ in range(2))
        other = self.ask(whole, key="other", outshift=outshift)

        assert (first.status, second.status, other.status) == (200, 429, 200)
        assert b"daily limit" in second.body
        assert second.violations == ("quota",)
        tomorrow = make_request(
            OUTSHIFT,
            method="POST",
            headers={"x-id-api-key": "good"},
            body=whole,
            utc=NOON + timedelta(days=1),
        )
        assert outshift.answer(tomorrow).status == 200


def test_csrng_serves_once_a_second() -> None:
    """Its refusal comes with 200, in an array, its code is a string, its slashes are escaped."""
    csrng = Csrng(SandboxOptions())
    target = f"{CSRNG}?min=1&max=6"

    served = csrng.answer(make_request(target, seconds=10.0))
    early = csrng.answer(make_request(target, seconds=10.9))
    later = csrng.answer(make_request(target, seconds=11.0))

    assert (served.status, early.status, later.status) == (200, 200, 200)
    assert early.violations == ("rate",)
    assert early.body == (
        b'[{"status":"error","code":"5","reason":"Reached maximum queries in the last second.'
        b' To remove limitation, please get our PRO service at https:\\/\\/www.csrng.net"}]'
    )
    assert b'"random"' in later.body


@pytest.mark.parametrize(
    ("kind", "target", "status", "part"),
    [
        ("lfd", f"{LFD}?length=x", 200, b'{"error":"Failed to convert length param to string"}'),
        ("lfd", f"{LFD}?length=0", 200, b'{"error":"length param out of bounds"}'),
        ("lfd", f"{LFD}?length=1&format=HEXDUMP", 200, b'{"error":"length param out of bounds"}'),
        ("lfd", "/", 404, b"Not Found"),
        ("padova", f"/api/get_string_get?string_length={Padova.most + 1}", 400, b"error"),
        ("padova", "/", 404, b"Not Found"),
        ("csrng", f"{CSRNG}?min=1", 200, b'"status":"error"'),
        ("csrng", f"{CSRNG}?min=6&max=1", 200, b'"status":"error"'),
        ("csrng", "/", 404, b"Not Found"),
        ("qrandom", "/api/random/ints?min=1&max=6", 400, b"error"),
        ("qrandom", "/api/random/ints?min=1&max=1000000001&n=1", 503, b"Unavailable"),
        ("qrandom", "/", 404, b"Not Found"),
        (
            "quandela",
            f"{INTS}?count=1&type=uint12",
            400,
            b"Must be one of: uint8, uint16, uint32, ui",
        ),
        ("quandela", f"{INTS}?count=0&type=uint8", 400, b"count"),
        ("quandela", "/", 404, b"Not Found"),
    ],
)
def test_wrong_parameters_are_refused(kind: str, target: str, status: int, part: bytes) -> None:
    """In the words that are known, where any are."""
    response = answer_of(kind, target, headers={"authorization": "Bearer good"})

    assert response.status == status
    assert part in response.body


@pytest.mark.parametrize(
    ("token", "status", "detail"),
    [
        ("", 401, "Invalid or expired job token"),
        ("wrong", 401, "Invalid or expired job token"),
        ("broke", 401, "Not enough credits"),
        ("barred", 403, "No permission to use algorithm"),
    ],
)
def test_quandelas_401_has_two_meanings(token: str, status: int, detail: str) -> None:
    """The text tells them apart."""
    headers = {"authorization": f"Bearer {token}"}
    response = answer_of("quandela", f"{INTS}?count=1&type=uint8", headers=headers)

    assert (response.status, json.loads(response.body)["detail"]) == (status, detail)
    assert response.violations == ("key",)


@pytest.mark.parametrize("kind", [Lfd, Csrng])
def test_the_status_of_an_error_can_be_chosen(kind: type[Lfd] | type[Csrng]) -> None:
    """Nobody has recorded it."""
    upstream = kind(SandboxOptions(json_error_status=400))

    assert upstream.refuse(make_request("/")).status == 400


@pytest.mark.parametrize(
    ("upstream", "status", "part"),
    [
        (Lfd, 200, b"Failed to read device"),
        (Padova, 503, b"error"),
        (Csrng, 200, b"Reached maximum queries"),
        (Outshift, 429, b"daily limit"),
        (Qrandom, 429, b"Too Many"),
        (Quandela, 404, b"Entropy Pool empty"),
    ],
)
def test_each_refuses_in_its_own_words(upstream: type[Lfd], status: int, part: bytes) -> None:
    """For the fault `refusal`."""
    response = upstream(SandboxOptions()).refuse(make_request("/"))

    assert response.status == status
    assert part in response.body


@pytest.mark.parametrize(("length", "padding"), [(1, 2), (2, 1), (3, 0), (256, 2)])
def test_padovas_text_is_one_base64(length: int, padding: int) -> None:
    """It is drawn in threes, so that a fault can leave one out."""
    text = json.loads(answer_of("padova", f"/api/get_string_get?string_length={length}").body)

    assert len(base64.b64decode(text["string"], validate=True)) == length
    assert text["string"].count("=") == padding
