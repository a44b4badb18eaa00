"""Tests for pipeline/sources/random_org.py."""

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import __version__
from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.sources.base import Answer
from pipeline.sources.random_org import RandomOrg
from tests.sources.samples import (
    FEW_EXAMPLES,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

SOURCE = RandomOrg(base_url="https://www.random.org", email="me@h.test")
HTML_SOURCE = RandomOrg(base_url="https://www.random.org", email="me@h.test", format="html")
FETCH = fetch_of(3, 1, 1000)
QUOTA = (
    "Error: You have used your quota of random bits for today.  See the quota page for details.\n"
)
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/x.dtd">
<html><head><title>RANDOM.ORG \u2013 Integers</title></head>
<body><pre>no data</pre><p class="data">7</p>
<pre class="data">421\n77\n938\n</pre>
<pre class="data">1\n2\n3\n</pre></body></html>
"""


def _plain(text: str, status: int = 200) -> Answer:
    return answer_of(text, status=status, content_type="text/plain;charset=UTF-8")


def _page(text: str) -> Answer:
    return answer_of(text, content_type="text/html; charset=utf-8")


def test_the_request_is_the_documented_one() -> None:
    """`rnd=new` is the only value that is neither replayed nor repeatable."""
    assert str(SOURCE.build_request(FETCH).url) == (
        "https://www.random.org/integers/?num=3&min=1&max=1000&col=1&base=10&format=plain&rnd=new"
    )
    assert HTML_SOURCE.build_request(FETCH).url.params["format"] == "html"


def test_the_user_agent_carries_the_address() -> None:
    """Guideline 5: somebody has to be told before the address is banned."""
    headers = SOURCE.build_request(FETCH).headers

    assert headers.get_list("User-Agent") == [f"pipeline/{__version__} (me@h.test)"]


@pytest.mark.parametrize(("low", "high"), [(-(10**9), 10**9), (0, 1), (-1, 0)])
def test_the_limits_are_inclusive(low: int, high: int) -> None:
    """10,000 numbers a request, whatever the range: random.org maps them itself."""
    assert SOURCE.max_numbers(low, high) == 10_000


@pytest.mark.parametrize(
    ("low", "high"), [(-(10**9) - 1, 0), (0, 10**9 + 1), (5, 5), (6, 5), (-(2**63), 2**63)]
)
def test_a_range_that_is_not_served_is_a_matter_of_configuration(low: int, high: int) -> None:
    """A refused request counts against the guest as well."""
    with pytest.raises(ConfigError, match=r"random\.org serves min < max within"):
        SOURCE.max_numbers(low, high)


@pytest.mark.parametrize("text", ["421\n77\n938\n", "421\r\n77\r\n938\r\n", "421\t77\t938\n"])
def test_rows_are_read(text: str) -> None:
    """One column is asked for, more are read row by row."""
    assert SOURCE.parse_answer(FETCH, _plain(text)) == (421, 77, 938)


def test_the_type_may_be_missing() -> None:
    """The rows speak for themselves."""
    answer = answer_of("421\n77\n938\n", content_type=None)

    assert SOURCE.parse_answer(FETCH, answer) == (421, 77, 938)


@pytest.mark.parametrize("source", [SOURCE, HTML_SOURCE])
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("content_type", ["text/plain", "text/html", None])
def test_a_used_up_quota_counts_whatever_its_status(
    source: RandomOrg, status: int, content_type: str | None
) -> None:
    """Asking on with a negative quota is what gets an address banned."""
    answer = answer_of(QUOTA, status=status, content_type=content_type)

    error = refusal_of(source, FETCH, answer)

    assert error.error is ErrorName.QUOTA_EXHAUSTED
    assert not error.may_retry
    assert f"status {status}" in error.detail


@pytest.mark.parametrize(
    "line",
    [
        "Error: The maximum value must be an integer in the [-1000000000,1000000000] interval\n",
        "Error: The minimum value must be an integer in the [-1000000000,1000000000] interval\n",
        "Error: anything else",
        "Error:",
        "Error:\r\n<html>",
        "Error: \x1b]0;title\x07\n",
        "Error: d\u00e9j\u00e0 vu\u2028\n",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 503])
def test_any_other_error_line_is_a_refusal(line: str, status: int) -> None:
    """Only its first line is quoted, and nothing in it reaches the terminal raw."""
    error = refusal_of(SOURCE, FETCH, _plain(line, status))

    assert error.error is ErrorName.REFUSED
    assert error.detail.startswith(f"status {status}: 'Error:")
    assert error.detail.isprintable()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"\xef\xbb\xbf1\n2\n3\n", "a byte order mark (BOM) of UTF-8 stands before the numbers"),
        ("1\n2\n3\n".encode("utf-16-le"), "the body is UTF-16 or UTF-32, not UTF-8"),
        (
            gzip.compress(b"1\n2\n3\n", mtime=0),
            "the body is compressed (gzip), and no header says so",
        ),
        (b"<html>Log in</html>", "the body is a page (HTML or XML)"),
        (b"", "the body is empty"),
    ],
)
def test_what_is_no_text_of_numbers_is_named(body: bytes, detail: str) -> None:
    """As where JSON was wanted."""
    error = refusal_of(SOURCE, FETCH, answer_of(body, content_type="text/plain"))

    assert (error.error, error.detail) == (ErrorName.SCHEMA, detail)


def test_a_wait_is_passed_on() -> None:
    """503 is the status that Retry-After was made for."""
    answer = answer_of(QUOTA, status=503, headers=(("Retry-After", "600"),))

    assert refusal_of(SOURCE, FETCH, answer).retry_after == 600.0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_plain("", 503), ErrorName.HTTP_5XX),
        (_plain("421\n77\n938\n", 500), ErrorName.HTTP_5XX),
        (_plain("", 403), ErrorName.BLOCKED),
        (_plain("", 404), ErrorName.HTTP_4XX),
        (_plain("", 301), ErrorName.REDIRECT_REFUSED),
        (_plain("", 204), ErrorName.SCHEMA),
        (_page("421\n77\n938\n"), ErrorName.CONTENT_TYPE),
        (answer_of([421, 77, 938]), ErrorName.CONTENT_TYPE),
        (_plain(""), ErrorName.SCHEMA),
        (_plain("421\n77\n"), ErrorName.COUNT),
        (_plain("421\n77\n938\n5\n"), ErrorName.COUNT),
        (_plain("421\n77\n93"), ErrorName.INCOMPLETE),
        (_plain("421\n77\n0\n"), ErrorName.RANGE),
        (_plain("421\n77\n1001\n"), ErrorName.RANGE),
        (_plain(f"421\n77\n{10**4299}\n"), ErrorName.RANGE),
        (_plain("421\n77\n" + "1" * 5000 + "\n"), ErrorName.RANGE),
        (_plain("421\n77\n9,38\n"), ErrorName.SCHEMA),
        (_plain("421\n77\n\u0661\n"), ErrorName.SCHEMA),
        (_plain("\ufeff421\n77\n938\n"), ErrorName.SCHEMA),
        (answer_of("421\n77\n938\n".encode("utf-16"), content_type=None), ErrorName.SCHEMA),
        (answer_of(b"421\n77\n938\xff\n", content_type=None), ErrorName.SCHEMA),
    ],
)
def test_each_failure_has_its_name(answer: Answer, error: ErrorName) -> None:
    """A text is the easiest thing to read wrongly."""
    assert refusal_of(SOURCE, FETCH, answer).error is error


@pytest.mark.parametrize("content_type", ["text/html", "application/xhtml+xml", None])
def test_a_page_is_read_from_its_first_data(content_type: str | None) -> None:
    """Other text and other `pre` elements stand around it."""
    answer = answer_of(PAGE, content_type=content_type)

    assert HTML_SOURCE.parse_answer(FETCH, answer) == (421, 77, 938)


@pytest.mark.parametrize(
    "element",
    [
        "<pre class='data'>421\n77\n938\n</pre>",
        '<pre class="data">\n421\n77\n938</pre>',
        '<pre class="data">\r\n421\r\n77\r\n938\r\n</pre>',
        '<PRE ID="x" CLASS="mono data">421\n77\n938\n</PRE >',
        '<pre\nclass = "data big">421\t77\t938\n</pre>',
        "<pre class=data>421\n77\n938\n</pre>",
    ],
)
def test_the_exact_markup_is_not_known(element: str) -> None:
    """What HTML holds for the same, we do too."""
    assert HTML_SOURCE.parse_answer(FETCH, _page(element)) == (421, 77, 938)


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("", ErrorName.SCHEMA),
        ("421\n77\n938\n", ErrorName.SCHEMA),
        ("<pre>421\n77\n938\n</pre>", ErrorName.SCHEMA),
        ('<pre id="data">421\n77\n938\n</pre>', ErrorName.SCHEMA),
        ('<pre class="database">421\n77\n938\n</pre>', ErrorName.SCHEMA),
        ('<pre data-class="data">421\n77\n938\n</pre>', ErrorName.SCHEMA),
        ('<p class="data">421\n77\n938\n</p>', ErrorName.SCHEMA),
        ('<pre class="data">421\n77\n93', ErrorName.SCHEMA),
        ('<pre class="data">421\n77\n938\n</div>', ErrorName.SCHEMA),
        ('<pre class="data">421\n<b>77</b>\n938\n</pre>', ErrorName.SCHEMA),
        ('<pre class="data">421\n\n77\n938\n</pre>', ErrorName.SCHEMA),
        ('<pre class="data"></pre>', ErrorName.SCHEMA),
        ('<pre class="data">421\n77\n</pre>', ErrorName.COUNT),
        ('<pre class="data">421\n77\n1001\n</pre>', ErrorName.RANGE),
    ],
)
def test_a_page_without_whole_data_is_turned_down(page: str, error: ErrorName) -> None:
    """The end tag is what tells a whole page from a cut one."""
    assert refusal_of(HTML_SOURCE, FETCH, _page(page)).error is error


@pytest.mark.parametrize(
    "unit",
    ["<", "<a", '<a "', "<a x='", "<!--", "<![x", "<pre ", "<pre class=data>", '<pre class="data'],
)
def test_a_hopeless_page_is_turned_down_in_one_pass(unit: str) -> None:
    """The standard library's parser needs the square of the length for some of these."""
    answer = _page(unit * (1_000_000 // len(unit)))
    began = time.process_time()

    with pytest.raises(SourceError):
        HTML_SOURCE.parse_answer(FETCH, answer)

    assert time.process_time() - began < 4


@given(
    numbers=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=50),
    separator=st.sampled_from(["\n", "\r\n", "\t"]),
    is_html=st.booleans(),
)
@FEW_EXAMPLES
def test_good_rows_are_the_numbers(numbers: list[int], separator: str, *, is_html: bool) -> None:
    """In either format, whatever the columns."""
    fetch = fetch_of(len(numbers), -(10**9), 10**9)
    rows = separator.join(map(str, numbers)) + "\n"
    answer = _page(f'<pre class="data">{rows}</pre>') if is_html else _plain(rows)

    read = (HTML_SOURCE if is_html else SOURCE).parse_answer(fetch, answer)

    assert read == tuple(numbers)


@given(st.data())
@FEW_EXAMPLES
def test_a_damaged_answer_breaks_no_promise(data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, numbers are as asked or an error has a name."""
    text = data.draw(mutated(b"421\n77\n938\n"))
    page = data.draw(mutated(b'<pre class="data">421\n77\n938\n</pre>'))

    hold_contract(SOURCE, FETCH, answer_of(text, content_type="text/plain"))
    hold_contract(HTML_SOURCE, FETCH, answer_of(page, content_type="text/html"))


@given(st.integers(0, 10))
def test_a_cut_text_is_never_a_batch(kept: int) -> None:
    """`93` of `938` is in range, so only the line end and the count can tell."""
    refusal_of(SOURCE, FETCH, _plain("421\n77\n938\n"[:kept]))


@given(hostile_answers())
@FEW_EXAMPLES
def test_a_hostile_answer_breaks_no_promise(answer: Answer) -> None:
    """A traceback would stop the other sources too."""
    hold_contract(SOURCE, FETCH, answer)
    hold_contract(HTML_SOURCE, FETCH, answer)
