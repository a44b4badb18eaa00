"""Documents as HTML, looked at by a real browser."""

import json
import re
import shutil
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.command import Command
from selenium.webdriver.support.wait import WebDriverWait

from pipeline.cli.document import Chart, Column, Document, Kind, Part, Series, Table, Text
from pipeline.cli.html import MOST_BARS, render_html
from pipeline.cli.page import render_page
from pipeline.errors import UsageError
from pipeline.sanitize import printable
from tests.cli.documents import (
    HOSTILE,
    NOON,
    at,
    make_bar,
    make_chart,
    make_document,
    make_empty_document,
    make_strip,
    make_table,
    make_waterfall,
)

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

HARMFUL = " ".join(HOSTILE)

PHONE: dict[str, object] = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
SCREEN: dict[str, object] = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}

PLOTS = "[...document.querySelectorAll('.plot')]"

PATIENCE = 10  # seconds that a busy machine may take to draw anew

Load = Callable[..., Chrome]


def write(*parts: Part) -> str:
    """Write the page of a document without facts."""
    return "\n".join(render_html(Document(title="Report", parts=parts)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start one Chromium for all tests: that takes longer than any of them."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def load(browser: Chrome, tmp_path: Path) -> Load:
    """Open a page from its file, by day."""

    def load_page(lines: Iterable[str], device: dict[str, object] = SCREEN) -> Chrome:
        page = tmp_path / "page.html"
        page.write_text("\n".join(lines), "utf-8")
        prefer(browser, "light")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
        browser.get("about:blank")
        logged(browser, "browser")
        logged(browser, "performance")
        browser.get(page.as_uri())
        return browser

    return load_page


def logged(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    """Take what the browser has noted since it was asked last: ``browser`` or ``performance``."""
    entries: list[dict[str, Any]] = browser.execute(Command.GET_LOG, {"type": kind})["value"]
    return entries


def prefer(browser: Chrome, scheme: str) -> None:
    """Let the reader's system be light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def asked_for(browser: Chrome) -> set[str]:
    """Give the kinds of address that the browser has asked for since the page was opened."""
    messages = (json.loads(entry["message"])["message"] for entry in logged(browser, "performance"))
    urls = (
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    )
    return {url.partition(":")[0] for url in urls}


def texts(browser: Chrome, selector: str) -> list[str]:
    """Read the text of all elements, hidden ones included."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def ask(browser: Chrome, expression: str) -> Any:  # noqa: ANN401 - whatever the script gives
    """Ask the page for the value of an expression."""
    return browser.execute_script(f"return {expression}")


def test_each_series_is_a_trace_and_nothing_complains(load: Load) -> None:
    """It opens from a mail, without a network, and its own policy does not get in its way."""
    browser = load(render_html(make_document()))

    assert ask(browser, f"{PLOTS}.map((plot) => plot.data.length)") == [1, 9]
    assert ask(browser, f"{PLOTS}.every((plot) => plot.querySelector('svg.main-svg'))")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace")) == 1
    assert len(browser.find_elements(By.CSS_SELECTOR, ".barlayer .trace")) == 9
    assert logged(browser, "browser") == []
    assert asked_for(browser) <= {"file", "data", "blob"}


def test_every_bar_of_many_series_is_filled(load: Load) -> None:
    """The inks come again after seven; what then is not painted looks as if it had not come."""
    browser = load(render_html(make_document()))

    fills = ask(
        browser,
        "[...document.querySelectorAll('.barlayer .trace .point path')]"
        ".map((bar) => bar.style.fill + bar.style.fillOpacity)",
    )

    assert len(set(fills)) == 9
    assert all(fill.startswith("rgb") for fill in fills)


def test_a_gap_is_not_bridged_and_a_lone_point_is_seen(load: Load) -> None:
    """A line over the time when we did not look would claim that we did."""
    browser = load([write(make_chart(1, None, 3, 4, None), make_chart(5))])

    assert ask(browser, f"{PLOTS}.map((plot) => plot.data[0].y)") == [[1, None, 3, 4, None], [5]]
    assert len(browser.find_elements(By.CSS_SELECTOR, ".points path.point")) == 4
    assert ask(browser, f"{PLOTS}[1].layout.xaxis.range.map((end) => end.slice(0, 13))") == [
        "2026-03-01T00",
        "2026-03-02T00",
    ]


def test_the_charts_follow_the_system_into_the_dark(load: Load) -> None:
    """Also while the page is open: evening comes."""
    colours = (
        "[getComputedStyle(document.body).backgroundColor,"
        f" {PLOTS}[0].layout.font.color, {PLOTS}[0].data[0].line.color]"
    )
    browser = load([write(make_chart(1, 2))])
    by_day = ask(browser, colours)

    prefer(browser, "dark")

    WebDriverWait(browser, PATIENCE).until(
        lambda chrome: not set(by_day) & set(ask(chrome, colours))
    )


def test_a_phone_scrolls_no_page_sideways(load: Load) -> None:
    """A wide table scrolls in its own box, a long word folds, a chart takes what room it has."""
    browser = load(render_html(make_document("a" * 200 + HARMFUL)), PHONE)

    assert ask(browser, "innerWidth") == 390
    assert ask(browser, "document.documentElement.scrollWidth") == 390
    assert ask(browser, f"{PLOTS}[0].querySelector('svg').clientWidth") < 390


def make_hostile_document() -> Document:
    """Make a document with each hostile text in each place, but for the title that has all."""
    moments, table = [NOON, at(1)], [Column(text) for text in HOSTILE]
    return Document(
        title=HARMFUL,
        facts=HOSTILE,
        parts=[
            Table(title=HARMFUL, columns=table, rows=[HOSTILE]),
            Chart(
                title=HARMFUL,
                kind=Kind.NUMBER,
                moments=moments,
                series=[Series(text, [1, 2]) for text in HOSTILE],
            ),
            make_waterfall(*(make_bar(text, 0, error=text) for text in HOSTILE)),
            make_strip(*HOSTILE),
            *(Text(title=text, lines=[text]) for text in HOSTILE),
            Text(lines=HOSTILE, is_verbatim=True),
        ],
    )


def test_hostile_text_appears_and_nothing_runs(load: Load) -> None:
    """Wherever it stands: title, cells, captions, legends, tooltips, attributes."""
    browser = load(render_html(make_hostile_document()))

    seen = [printable(text) for text in HOSTILE]
    assert ask(browser, "window.hacked") is None
    assert logged(browser, "browser") == []
    assert asked_for(browser) <= {"file", "data", "blob"}
    assert browser.find_elements(By.CSS_SELECTOR, "main a, main img, main script:not([type])") == []
    for place in (
        ".fact",
        "section:first-of-type td",
        ".waterfall tbody th",
        ".lost td:last-child",
    ):
        assert texts(browser, place) == seen
    assert texts(browser, "section:first-of-type th") == seen
    assert texts(browser, "h1") == [printable(HARMFUL)]
    assert texts(browser, "pre") == ["\n".join(seen)]
    assert ask(browser, f"{PLOTS}[0].ariaLabel") == printable(HARMFUL)
    titles = ask(browser, "[...document.querySelectorAll('.strip i')].map((cell) => cell.title)")
    assert [title.partition("Z ")[2] for title in titles] == seen


def test_the_name_of_a_series_is_no_markup(load: Load) -> None:
    """The library that draws reads a little HTML; an upstream's words must not be read so."""
    names = ["<b>bold</b>", '<a href="file:///x">x</a>', "&lt;i&gt;", "a<br>b", "$x$", "x" * 99]
    series = [Series(name, [1]) for name in names]

    browser = load([write(Chart(title="T", kind=Kind.NUMBER, moments=[NOON], series=series))])

    assert texts(browser, ".legendtext") == [*names[:-1], "x" * 39 + "…"]
    assert browser.find_elements(By.CSS_SELECTOR, ".plot a, .plot tspan[style]") == []


def test_should_escaping_ever_fail_the_policy_holds(load: Load) -> None:
    """Two locks: what slips into the page neither runs nor calls anybody."""
    slipped = (
        "<script>window.hacked = 1</script>",
        '<img src="https://127.0.0.1:9/x" onerror="window.hacked = 1">',
        '<svg onload="window.hacked = 1"></svg>',
        '<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe>',
        '<base href="https://127.0.0.1:9/">',
    )

    browser = load(render_page("Report", slipped, has_charts=False))

    assert ask(browser, "window.hacked") is None
    assert any("Content Security Policy" in line["message"] for line in logged(browser, "browser"))
    assert ask(browser, "document.baseURI").startswith("file:")


def test_a_press_on_a_head_sorts_by_its_values(load: Load) -> None:
    """By what the cells hold and not by what they read; what is not known stays last."""
    rows = [("b", 9), ("a10", None), ("a9", 1_000_000), (None, 80)]
    browser = load(
        [write(Table(columns=[Column("name"), Column("took", Kind.DURATION)], rows=rows))]
    )
    name, took = browser.find_elements(By.CSS_SELECTOR, "th button")

    def order() -> list[str]:
        return texts(browser, "tbody td:first-child")

    took.click()
    assert order() == ["b", "-", "a9", "a10"]
    took.click()
    assert order() == ["a9", "-", "b", "a10"]
    assert ask(browser, "[...document.querySelectorAll('th')].map((th) => th.ariaSort)") == [
        None,
        "descending",
    ]
    name.click()
    assert order() == ["a9", "a10", "b", "-"]


def test_the_phases_of_a_bar_lie_side_by_side_on_the_scale(load: Load) -> None:
    """And say what they are to whoever points at them."""
    browser = load([write(make_waterfall(make_bar("w0", 500, error="reset")))])

    rectangles = "[...document.querySelectorAll('.timeline rect')]"
    places = ask(browser, f"{rectangles}.map((r) => [r.getAttribute('x'), r.textContent])")
    assert places == [["50.000%", "wait 0.1 ms"], ["60.000%", "first_byte 0.3 ms"]]
    assert texts(browser, ".legend li") == ["wait", "first_byte"]
    assert texts(browser, ".waterfall tr.lost td:last-child") == ["reset"]


def test_a_bar_beyond_the_scale_stays_within_the_page() -> None:
    """A clock that was set back must not break the report."""
    page = write(make_waterfall(make_bar("w0", 5000), make_bar("w1", 0), clock_us=0))

    assert re.findall(r' x="([0-9.]+)%"', page) == ["99.850", "99.850", "0.000", "99.850"]


def test_of_many_bars_only_the_telling_ones_are_drawn() -> None:
    """A page of ten thousand bars nobody scrolls through; and the title says so."""
    page = write(make_waterfall(*(make_bar(f"w{i}", i) for i in range(MOST_BARS + 1))))

    assert page.count("<svg") == MOST_BARS
    assert f"({MOST_BARS} of {MOST_BARS + 1} attempts" in page


def test_words_of_one_colour_are_hatched() -> None:
    """A late slot and a skipped one are not the same."""
    page = write(make_strip("ran", "late", "skipped", "partial", "deferred", "why"))

    cells = re.findall(r'<i class="([^"]+)" title="[^"]+Z (\w+)"', page)
    assert cells == [
        ("green", "ran"),
        ("yellow", "late"),
        ("yellow hatched-1", "skipped"),
        ("yellow hatched-2", "partial"),
        ("yellow hatched-2", "deferred"),
        ("plain", "why"),
    ]


def test_a_page_can_be_heard() -> None:
    """Headings, captions and names for whatever is only drawn."""
    page = "\n".join(render_html(make_document()))

    assert '<html lang="en">' in page
    assert page.count("<caption>") == page.count("<table")
    assert page.count('<th scope="col"') == page.count("<th ") - page.count('<th scope="row"')
    assert page.count('role="img" aria-label="') == 3


def test_verdicts_have_colours_and_long_text_is_folded() -> None:
    """A column of details must not push all others off the page."""
    rows = [("ok",), ("failed: dns",), ("x" * 99,), ("failed: " + "x" * 99,)]
    page = write(Table(columns=[Column("outcome")], rows=rows))

    assert re.findall(r'<td class="([^"]*)"', page) == [
        "green tone",
        "red tone",
        "long",
        "red tone long",
    ]


@pytest.mark.parametrize(
    ("us", "drawn", "unit"),
    [
        (900, 0.9, " ms"),
        (2_500_000, 2.5, " s"),
        (120_000_000, 2, " min"),
        (9 * 3600 * 10**6, 9, " h"),
    ],
)
def test_durations_are_drawn_in_the_unit_of_the_largest(us: int, drawn: float, unit: str) -> None:
    """An axis of five-digit numbers cannot be read."""
    page = write(make_chart(us, 0, None, kind=Kind.DURATION))

    [points] = re.findall(r'<script type="application/json">(.*)</script>', page)
    chart = json.loads(points)
    assert (chart["series"][0]["values"], chart["unit"]) == ([drawn, 0, None], unit)


def test_a_page_without_charts_is_small() -> None:
    """It leaves at home what it does not need, as does a chart with nothing to draw."""
    assert len(write(make_table(), make_strip("ran"))) < 20_000
    assert len("\n".join(render_html(make_empty_document()))) < 20_000


def test_the_policy_names_the_scripts_and_nothing_else() -> None:
    """By their hashes: two scripts, no address, nothing that is evaluated."""
    page = write(make_chart(1))

    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert len(hashes) == 2
    assert f"script-src {allowed};" in policy
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_without_plotly_a_chart_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables need nothing."""
    monkeypatch.setitem(sys.modules, "plotly", None)

    assert write(make_table())
    with pytest.raises(UsageError, match=r"pip install 'pipeline\[html\]'"):
        write(make_chart(1))
