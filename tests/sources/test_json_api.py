"""Tests for pipeline/sources/json_api.py and json_values.py: what an ``api`` table can say."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ErrorName
from pipeline.models import Fetch, Measure
from pipeline.settings.api import ApiSettings, MeasureRule
from pipeline.settings.presets import PRESETS
from pipeline.sources.base import Answer
from pipeline.sources.json_api import JsonApi
from pipeline.sources.json_values import read_measures
from pipeline.sources.registry import make_source
from tests.sources.samples import (
    FEW_EXAMPLES,
    SECRET,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
URL = "https://h.test/api?min={min}&max={max}&n={n}"
DICE = fetch_of(3, 1, 6)
KEYED = ("outshift", "quandela")


def api_of(url: str = URL, *, key: str | None = None, **table: Any) -> JsonApi:  # noqa: ANN401
    """Make the adapter of a table of which *table* tells what is unusual."""
    settings = ApiSettings.model_validate({"numbers": "/data", "most": 100, **table})
    return JsonApi(base_url=url, api=settings, api_key=key)


def test_the_address_is_told_what_is_wanted() -> None:
    """All of it is the user's: the program adds nothing."""
    assert str(api_of().build_request(DICE).url) == "https://h.test/api?min=1&max=6&n=3"


def test_a_server_that_excludes_max_is_told_one_more() -> None:
    """As randomnumberapi.com's is."""
    api = api_of("https://h.test/?a={min}&b={max+1}&n={n}")

    assert str(api.build_request(fetch_of(2, -3, 6)).url) == "https://h.test/?a=-3&b=7&n=2"


def test_the_key_stands_where_it_is_named() -> None:
    """In a header as it is, in an address encoded, in a body as JSON: nothing gets out of there."""
    key = 'a"b/c&d'
    api = api_of(
        "https://h.test/{key}/x",
        key=key,
        method="POST",
        headers={"authorization": "Bearer {key}"},
        body='{"key":"{key}","n":{n},"low":{min},"high":{max}}',
    )

    request = api.build_request(DICE)

    assert str(request.url) == "https://h.test/a%22b%2Fc%26d/x"
    assert request.headers["authorization"] == f"Bearer {key}"
    assert request.headers["content-type"] == "application/json"
    assert request.content == b'{"key":"a\\"b/c&d","n":3,"low":1,"high":6}'


def test_the_same_request_is_made_once() -> None:
    """A run asks the same thing thousands of times."""
    api = api_of()

    assert api.build_request(DICE) is api.build_request(fetch_of(3, 1, 6, number=7))


def test_headers_of_the_table_replace_ours() -> None:
    """`Content-Type` twice would be no header at all."""
    headers = {"content-type": "application/vnd.x+json", "Accept": "application/json"}
    request = api_of(method="POST", body='{"n":{n}}', headers=headers).build_request(DICE)

    assert request.headers.get_list("content-type") == ["application/vnd.x+json"]
    assert request.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    ("pointer", "document"),
    [
        ("", [4, 1, 6]),
        ("/data", {"data": [4, 1, 6]}),
        ("/result/random/data", {"result": {"random": {"data": [4, 1, 6]}}}),
        ("/0/values", [{"values": [4, 1, 6]}, {"values": [9]}]),
        ("/*/value", [{"value": 4}, {"value": 1}, {"value": 6}]),
        ("/jobs/*/ints", {"jobs": [{"ints": [4]}, {"ints": [1, 6]}]}),
        ("/a~1b/~0c", {"a/b": {"~c": [4, 1, 6]}}),
    ],
)
def test_a_pointer_leads_to_the_numbers(pointer: str, document: object) -> None:
    """RFC 6901, and `*` for one object each."""
    assert api_of(numbers=pointer).parse_answer(DICE, answer_of(document)) == (4, 1, 6)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"data": [4, 1]}, ErrorName.COUNT),
        ({"data": [4, 1, 6, 6]}, ErrorName.COUNT),
        ({"data": [4, 1, 7]}, ErrorName.RANGE),
        ({"data": [4, 1, "6"]}, ErrorName.SCHEMA),
        ({"data": [4, 1, True]}, ErrorName.SCHEMA),
        ({"data": [4, 1, 6.0]}, ErrorName.SCHEMA),
        ({"data": {"a": 4}}, ErrorName.SCHEMA),
        ({"numbers": [4, 1, 6]}, ErrorName.SCHEMA),
        ({"data": []}, ErrorName.COUNT),
        ([4, 1, 6], ErrorName.SCHEMA),
        (b"[4, 1, 6", ErrorName.NOT_JSON),
    ],
)
def test_anything_else_is_no_answer(document: object, error: ErrorName) -> None:
    """Exactly as many integers as were asked for, each within the range."""
    assert refusal_of(api_of(), DICE, answer_of(document)).error is error


def test_decimal_strings_are_read_if_nothing_else_is_in_them() -> None:
    """`int()` would take blanks, underscores and the digits of other scripts."""
    api = api_of(encoding="decimal")

    assert api.parse_answer(DICE, answer_of({"data": ["4", "1", "6"]})) == (4, 1, 6)
    for wrong in (" 4", "4_0", "\u0664", "4.0", 4, None, ""):
        answer = answer_of({"data": [wrong, "1", "6"]})
        assert refusal_of(api, DICE, answer).error is ErrorName.SCHEMA


class TestWords:
    """Values that are mapped here, without a bias."""

    @pytest.mark.parametrize("written", ["05ff", ["05", "ff"]])
    def test_bytes_in_hex_are_cut_into_words(self, written: object) -> None:
        """One text, or one for each."""
        api = api_of("https://h.test/?n={bytes}", encoding="hex", values="bytes")
        fetch = fetch_of(2, 0, 255)

        assert str(api.build_request(fetch).url) == "https://h.test/?n=2"
        assert api.parse_answer(fetch, answer_of({"data": written})) == (5, 255)

    def test_bytes_in_base64_are_cut_into_words_of_two(self) -> None:
        """The most significant byte first."""
        api = api_of("https://h.test/?n={bytes}", encoding="base64", values="bytes")
        fetch = fetch_of(2, 0, 65535)
        text = base64.b64encode(bytes([1, 2, 3, 4])).decode()

        assert str(api.build_request(fetch).url) == "https://h.test/?n=4"
        assert api.parse_answer(fetch, answer_of({"data": text})) == (0x0102, 0x0304)

    @pytest.mark.parametrize(
        ("high", "size"), [(1, 1), (5, 1), (255, 1), (128, 1), (2**15, 3), (2**32, 5)]
    )
    def test_a_word_is_as_long_as_costs_least(self, high: int, size: int) -> None:
        """Of 2**15 + 1 numbers two bytes would reject nearly every other one."""
        api = api_of("https://h.test/?n={bytes}&w={bits}", encoding="hex", values="bytes")

        assert api.build_request(fetch_of(1, 0, high)).url.params["w"] == str(8 * size)

    def test_rejected_words_are_made_up_for(self) -> None:
        """A die from bytes: 252 to 255 are thrown away, so more are asked for than wanted."""
        api = api_of("https://h.test/?n={n}", values="uint8")
        words = int(api.build_request(DICE).url.params["n"])
        data = [255, 252, 0, 7, 251, *[0] * (words - 5)]

        assert words > 5
        assert api.parse_answer(DICE, answer_of({"data": data})) == (1, 2, 6)

    def test_blocks_have_as_many_bits_as_the_range_takes(self) -> None:
        """Where bits are charged for."""
        url = "https://h.test/?b={bits}&n={n}"
        api = api_of(url, values="bits", encoding="decimal", most=1000)
        fetch = fetch_of(4, 1, 8)

        assert str(api.build_request(fetch).url) == "https://h.test/?b=3&n=4"
        assert api.parse_answer(fetch, answer_of({"data": ["0", "7", "3", "1"]})) == (1, 8, 4, 2)
        assert api.cost_bits(fetch) == 12

    def test_a_fixed_range_is_mapped(self) -> None:
        """Three coins from dice: an even number of faces needs no rejection."""
        api = api_of("https://h.test/dice?n={n}", values="1..6")
        coins = fetch_of(3, 0, 1)

        assert api.parse_answer(coins, answer_of({"data": [1, 2, 6]})) == (0, 1, 1)
        answer = answer_of({"data": [1, 2, 7]})
        assert refusal_of(api, coins, answer).error is ErrorName.RANGE

    @pytest.mark.parametrize(
        ("text", "error"),
        [("0", "schema"), ("zz", "schema"), ("05ff00", "count"), (5, "schema"), (None, "schema")],
    )
    def test_other_text_is_refused(self, text: object, error: str) -> None:
        """An odd digit, a wrong one, a byte too many, no text."""
        api = api_of("https://h.test/?n={bytes}", encoding="hex", values="bytes")

        assert refusal_of(api, fetch_of(2, 0, 255), answer_of({"data": text})).error == error

    def test_base64_is_read_strictly(self) -> None:
        """Python's reader would pass over what it does not know."""
        api = api_of("https://h.test/?n={bytes}", encoding="base64", values="bytes")

        for wrong in ("A*Q=", "AQ", "\u00e4Q=="):
            answer = answer_of({"data": wrong})
            assert refusal_of(api, fetch_of(1, 0, 255), answer).error is ErrorName.SCHEMA

    def test_a_range_beyond_the_values_is_a_matter_of_configuration(self) -> None:
        """It is known before anything is sent."""
        api = api_of("https://h.test/?n={n}", values="uint8")
        with pytest.raises(ConfigError, match="the range has 257 numbers, a value of this API 256"):
            api.max_numbers(0, 256)

        api = api_of("https://h.test/", values="uint8", most=1)
        with pytest.raises(ConfigError, match=r"brings no number in \[1, 6\] for sure"):
            api.max_numbers(1, 6)

        api = api_of(bounds="0..9")
        with pytest.raises(ConfigError, match=r"api.bounds, \[0, 9\], not \[0, 10\]"):
            api.max_numbers(0, 10)

    def test_a_request_brings_what_its_most_bytes_allow(self) -> None:
        """`most` counts what is asked for."""
        url = "https://h.test/?n={bytes}"
        api = api_of(url, encoding="hex", values="bytes", most=256)

        assert api.max_numbers(0, 255) == 256
        assert api.max_numbers(0, 65535) == 128
        assert api_of().max_numbers(1, 6) == 100


class TestRefusals:
    """What ``errors`` and ``allowances`` make of an answer."""

    @pytest.mark.parametrize(
        ("rule", "status", "document", "holds"),
        [
            ({"status": 401}, 401, {}, True),
            ({"status": [400, 401]}, 400, {}, True),
            ({"status": 401}, 400, {}, False),
            ({"field": "/error"}, 200, {"error": "no"}, True),
            ({"field": "/error"}, 200, {"error": None}, False),
            ({"field": "/error"}, 200, {"error": False}, False),
            ({"field": "/error"}, 200, {"data": [1]}, False),
            ({"field": "/error"}, 200, b"<html>", False),
            ({"field": "/ok", "equals": False}, 200, {"ok": False}, True),
            ({"field": "/ok", "equals": False}, 200, {"ok": 0}, False),
            ({"field": "/0/code", "equals": "5"}, 200, [{"code": "5"}], True),
            ({"field": "/0/code", "equals": 5}, 200, [{"code": "5"}], False),
            ({"field": "/a", "text": "LIMIT"}, 200, {"a": "your limit"}, True),
            ({"field": "/a", "text": ["x", "limit"]}, 200, {"a": {"b": "limit"}}, True),
            ({"text": "daily limit"}, 429, b"Daily Limit reached", True),
            ({"text": "daily limit"}, 429, b"slow down", False),
            ({"status": 401, "text": "credits"}, 403, b"credits", False),
        ],
    )
    def test_all_conditions_must_hold(
        self, rule: dict[str, object], status: int, document: object, *, holds: bool
    ) -> None:
        """Status, field and text."""
        api = api_of(errors=[{**rule, "error": "quota_exhausted"}])

        error = refusal_of(api, DICE, answer_of(document, status=status)).error

        assert (error is ErrorName.QUOTA_EXHAUSTED) == holds

    def test_the_first_that_fits_counts(self) -> None:
        """So that a general one can stand last."""
        rules = [
            {"status": 401, "text": "credits", "error": "quota_exhausted"},
            {"status": 401, "error": "unauthorized"},
        ]
        api = api_of(errors=rules, key=SECRET, headers={"x-key": "{key}"})

        answer = answer_of({"detail": "Not enough credits"}, status=401)

        assert refusal_of(api, DICE, answer).error is ErrorName.QUOTA_EXHAUSTED

    def test_the_upstreams_words_are_shown_without_the_key(self) -> None:
        """What it says is the best explanation; what it echoes is not for our books."""
        api = api_of(
            errors=[{"field": "/error", "error": "refused", "retry": True}],
            key=SECRET,
            headers={"x-key": "{key}"},
        )

        error = refusal_of(api, DICE, answer_of({"error": f"key {SECRET} is odd"}))

        assert error.detail == "status 200: 'key [REDACTED] is odd'"
        assert error.may_retry

    def test_without_rules_the_status_speaks(self) -> None:
        """As for every other source; without a key nothing is about one."""
        api = api_of()

        for status, error in [(429, "rate_limited"), (403, "blocked"), (503, "http_5xx")]:
            assert refusal_of(api, DICE, answer_of({}, status=status)).error == error

    @pytest.mark.parametrize(
        ("rule", "seconds"),
        [
            ({"wait_seconds": 90}, 90),
            ({"until": "day"}, 12 * 3600 + 300),
            ({"until": "month"}, (24 + 12) * 3600 + 300),
        ],
    )
    def test_a_refusal_says_how_long_to_wait(self, rule: dict[str, Any], seconds: float) -> None:
        """The longest wait counts, as everywhere."""
        api = api_of(errors=[{"status": 429, "error": "rate_limited", **rule}])

        hint = api.find_hint(answer_of({}, status=429), NOON)
        longer = api.find_hint(
            answer_of({}, status=429, headers=(("Retry-After", "9000000"),)), NOON
        )

        assert hint is not None
        assert (hint.wait_seconds, hint.is_ours) == (seconds, False)
        assert longer is not None
        assert longer.wait_seconds == 9_000_000

    def test_a_refusal_in_a_200_gets_a_pause_of_ours(self) -> None:
        """Nobody said when to come back, and at once would be too early."""
        api = api_of(errors=[{"field": "/error", "error": "rate_limited"}])

        hint = api.find_hint(answer_of({"error": "slow down"}), NOON)

        assert hint is not None
        assert (hint.wait_seconds, hint.is_ours) == (60, True)
        assert api.find_hint(answer_of({"data": [1, 2, 3]}), NOON) is None

    @pytest.mark.parametrize(
        ("left", "is_spent"), [(2, False), (0, True), (-5, True), ("0", True), ("x", False)]
    )
    def test_what_is_left_is_read_from_good_answers(self, left: object, *, is_spent: bool) -> None:
        """At nothing the source is left alone before it has to refuse."""
        api = api_of(
            allowances=[
                {"field": "/QUOTA", "until": "day"},
                {"header": "x-ratelimit-remaining", "wait_seconds": 3600},
            ]
        )

        by_field = api.find_hint(answer_of({"data": [1, 2, 3], "QUOTA": left}), NOON)
        headers = (("X-RateLimit-Remaining", str(left)),)
        by_header = api.find_hint(answer_of({"data": [1, 2, 3]}, headers=headers), NOON)

        assert (by_field is not None) == is_spent
        assert (by_header is not None) == is_spent
        assert by_header is None or by_header.wait_seconds == 3600


def test_figures_beside_the_numbers_are_read() -> None:
    """Of several draws the worst one counts; what is no number is none."""
    rules = [
        MeasureRule(name="chsh", field="/jobs/*/chsh", at_least=2.0),
        MeasureRule(name="nowhere", field="/x"),
        MeasureRule(name="odd", field="/odd"),
    ]
    document = {"jobs": [{"chsh": 2.7}, {"chsh": 1}, {"chsh": None}], "odd": "much"}

    assert read_measures(document, rules) == (Measure(name="chsh", value=1.0, at_least=2.0),)


def test_an_address_that_is_none_is_told_without_showing_it() -> None:
    """A key may stand in it."""
    with pytest.raises(ConfigError, match=r"^the base URL is no valid http or https URL$"):
        api_of("ftp://secret/{n}")


class TestPresets:
    """The known APIs, by the recorded forms of their answers."""

    @pytest.mark.parametrize(
        ("kind", "fetch", "asked", "body"),
        [
            ("lfd", fetch_of(3, 0, 255), "GET lfdr.de/qrng_api/qrng?length=3&format=HEX", b""),
            (
                "padova",
                fetch_of(3, 0, 255),
                "GET qrng-qtech.vs-ix.net/api/get_string_get?string_length=3",
                b"",
            ),
            ("csrng", fetch_of(1, 1, 6), "GET csrng.net/csrng/csrng.php?min=1&max=6", b""),
            (
                "outshift",
                fetch_of(3, 0, 65535),
                "POST api.qrng.outshift.com/api/v1/random_numbers",
                b'{"encoding":"raw","format":"all","bits_per_block":16,"number_of_blocks":3}',
            ),
            ("qrandom", DICE, "GET qrandom.io/api/random/ints?min=1&max=6&n=3", b""),
            (
                "quandela",
                fetch_of(3, 0, 65535),
                "GET api.cloud.quandela.com/qt/qrng/ints?count=3&type=uint16",
                b"",
            ),
        ],
    )
    def test_the_request_is_the_documented_one(
        self, kind: str, fetch: Fetch, asked: str, body: bytes
    ) -> None:
        """Byte for byte."""
        made = make_source(kind, api_key=SECRET).build_request(fetch)

        assert f"{made.method} {made.url}" == asked.replace(" ", " https://")
        assert made.content == body

    @pytest.mark.parametrize(
        ("kind", "fetch", "document", "numbers"),
        [
            ("lfd", fetch_of(4, 0, 255), {"qrn": "5fa30c00", "length": 4}, (95, 163, 12, 0)),
            ("lfd", fetch_of(2, 0, 65535), {"length": 4, "qrn": "5fa30c00"}, (24483, 3072)),
            ("padova", fetch_of(3, 0, 255), {"string": "AQL/"}, (1, 2, 255)),
            (
                "csrng",
                fetch_of(1, 1, 100),
                [{"status": "success", "min": 1, "max": 100, "random": 38}],
                (38,),
            ),
            (
                "outshift",
                fetch_of(2, 0, 65535),
                {"random_numbers": [{"decimal": "40213"}, {"decimal": "7", "binary": "111"}]},
                (40213, 7),
            ),
            (
                "qrandom",
                fetch_of(2, 1, 6),
                {"id": "x", "message": "m", "signature": "s", "numbers": [6, 1]},
                (6, 1),
            ),
            (
                "quandela",
                fetch_of(2, 0, 65535),
                {"jobs": [{"id": 1, "ints": [7, 65535], "chsh": 2.7, "min_entropy": 0.9}]},
                (7, 65535),
            ),
        ],
    )
    def test_recorded_answers_are_read(
        self,
        kind: str,
        fetch: Fetch,
        document: object,
        numbers: tuple[int, ...],
    ) -> None:
        """The forms that its clients saw."""
        source = make_source(kind, api_key=SECRET)

        assert source.parse_answer(fetch, answer_of(document)) == numbers

    @pytest.mark.parametrize(
        ("kind", "status", "document", "error", "wait"),
        [
            ("lfd", 200, {"error": "Failed to read device"}, "refused", 60),
            ("lfd", 400, {"error": "length param out of bounds"}, "refused", None),
            ("lfd", 200, {"length": 1}, "schema", None),
            ("padova", 200, {}, "schema", None),
            (
                "csrng",
                200,
                [{"status": "error", "code": "5", "reason": "Reached maximum queries in the"}],
                "rate_limited",
                1,
            ),
            ("csrng", 200, [{"status": "error", "code": "9", "reason": "?"}], "refused", None),
            ("outshift", 401, {"message": "?"}, "unauthorized", None),
            ("outshift", 429, {"message": "Exceeds your plan"}, "quota_exhausted", 43500),
            ("outshift", 429, {"message": "slow down"}, "rate_limited", None),
            ("qrandom", 429, b"", "rate_limited", None),
            ("qrandom", 503, b"", "http_5xx", None),
            (
                "quandela",
                401,
                {"detail": "Invalid or expired job token", "error": "Unauthorized"},
                "unauthorized",
                None,
            ),
            ("quandela", 401, {"detail": "Not enough credits"}, "quota_exhausted", 43500),
            ("quandela", 403, {"detail": "No permission to use algorithm"}, "unauthorized", None),
            ("quandela", 404, {"error": "Entropy Pool empty"}, "rate_limited", 60),
            ("quandela", 404, {"detail": "Not Found"}, "http_4xx", None),
            ("quandela", 200, {"jobs": [{"id": 1, "chsh": 2, "min_entropy": 1}]}, "schema", None),
        ],
    )
    def test_recorded_refusals_are_known(
        self, kind: str, status: int, document: object, error: str, wait: float | None
    ) -> None:
        """The status of some of them lies about the cause."""
        source = make_source(kind, api_key=SECRET)
        fetch = fetch_of(1, 0, 255)
        answer = answer_of(document, status=status)

        hint = source.find_hint(answer, NOON)

        assert refusal_of(source, fetch, answer).error == error
        assert (None if hint is None else hint.wait_seconds) == wait

    @pytest.mark.parametrize("kind", PRESETS)
    @given(answer=hostile_answers())
    @FEW_EXAMPLES
    def test_whatever_comes_an_adapter_raises_a_published_name(
        self, kind: str, answer: Answer
    ) -> None:
        """A table is no reason to trust an answer more."""
        source = make_source(kind, api_key=SECRET)

        secret = SECRET if kind in KEYED else None
        hold_contract(source, fetch_of(1, 0, 255), answer, secret=secret)
        source.find_hint(answer, NOON)

    @given(data=st.data())
    @FEW_EXAMPLES
    def test_a_damaged_answer_is_never_read_as_other_numbers(self, data: st.DataObject) -> None:
        """A cut in hex or base64 changes how many bytes there are."""
        source = make_source("lfd")
        body = data.draw(mutated(b'{"qrn":"5fa30c00","length":4}'))

        hold_contract(source, fetch_of(4, 0, 255), answer_of(body))
