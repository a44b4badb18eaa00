"""Documents as HTML, looked at by a real browser."""

import re
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from importlib.resources import files

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from pipeline.errors import Phase
from pipeline.rendering.chart import INKS, MANY
from pipeline.rendering.document import (
    Chart,
    Column,
    Document,
    Kind,
    Mark,
    Part,
    Series,
    Table,
    Text,
)
from pipeline.rendering.html import MOST_BARS, render_html
from pipeline.rendering.page import render_page
from pipeline.rendering.palette import TONE_COLOURS
from pipeline.sanitize import printable
from tests.rendering.browsing import (
    PATIENCE,
    PHONE,
    SCREEN,
    Load,
    ask,
    asked_for,
    logged,
    prefer,
    texts,
)
from tests.rendering.documents import (
    HOSTILE,
    NOON,
    at,
    make_bar,
    make_chart,
    make_document,
    make_empty_document,
    make_lanes,
    make_notices,
    make_origin,
    make_strip,
    make_table,
    make_waterfall,
)

HARMFUL = " ".join(HOSTILE)

PATHS = "((paths) => document.querySelectorAll(paths).length)"
PAGE = "document.documentElement"
HOUR = timedelta(hours=1)


def write(*parts: Part) -> str:
    """Write the page of a document without facts."""
    return "\n".join(render_html(Document(title="Report", parts=parts)))


def test_each_series_is_drawn_and_nothing_complains(load: Load) -> None:
    """It opens from a mail, without a network, and its own policy does not get in its way."""
    browser = load(render_html(make_document()))

    assert ask(browser, f"{PATHS}('path.line')") == 1
    assert ask(browser, f"{PATHS}('path.bar')") == 9
    assert logged(browser, "browser") == []
    assert asked_for(browser) <= {"file", "data"}


def test_the_inks_that_come_again_look_different(load: Load) -> None:
    """They do after seven; two errors of one colour cannot be told apart."""
    browser = load(render_html(make_document()))

    drawn = ask(
        browser,
        "[...document.querySelectorAll('path.bar')]"
        ".map((bar) => getComputedStyle(bar).fill + getComputedStyle(bar).fillOpacity)",
    )

    assert len(set(drawn)) == 9


def test_a_gap_is_not_bridged_and_every_point_is_seen() -> None:
    """A line over the time when we did not look would claim that we did."""
    page = write(make_chart(1, None, 3, 4, None), make_chart(5))

    assert re.findall(r'<path class="line s0 d0" d="([^"]*)"', page) == ["M5 75M25 25L35 0", "M5 0"]
    assert re.findall(r'<path class="points s0 d0" d="([^"]*)"', page) == [
        "M5 75h0M25 25h0M35 0h0",
        "M5 0h0",
    ]


def test_of_many_points_those_that_no_line_leads_to_are_seen() -> None:
    """A point on each of a thousand would hide the line; one between two gaps is no line."""
    values = [1.0] * MANY + [None, 1.0, None]

    page = write(make_chart(*values))

    lone = 10 * (MANY + 1) + 5
    assert re.findall(r'<path class="points s0 d0" d="([^"]*)"', page) == [f"M{lone} 0h0"]


def test_bars_stand_on_each_other_and_the_smallest_is_seen() -> None:
    """One error of a thousand is what somebody looks for."""
    series = [Series("many", [999]), Series("one", [1]), Series("none", [0])]
    chart = Chart(title="T", kind=Kind.NUMBER, moments=[NOON], series=series, mark=Mark.BARS)

    first, second, third = re.findall(r'<path class="bar s[0-9] d0" d="([^"]*)"', write(chart))

    assert first == "M1 100v-99.9h8v99.9z"
    assert second == "M1 0.1v-0.8h8v0.8z"
    assert third == ""


def test_a_tenfold_scale_is_said_to_be_one() -> None:
    """Who takes it for the usual one reads it wrongly."""
    said = "each line is ten times the one below"

    assert said in write(make_chart(1_000, 1_000_000, kind=Kind.DURATION))
    assert said not in write(make_chart(500_000, 1_000_000, kind=Kind.DURATION))


def test_a_stretch_without_a_run_is_shaded() -> None:
    """It is no zero; and the legend says what the shade means."""
    chart = replace(make_chart(1, None, None, 2), step=timedelta(minutes=1))

    page = write(chart)

    assert '<path class="gap" d="M10 0h20v100h-20z"/>' in page
    assert "nothing was asked" in page
    assert "nothing was asked" not in write(replace(chart, step=None))


def test_what_is_pointed_at_is_told(load: Load) -> None:
    """The moment and each of its values, as they stand in the table below."""
    moments = [NOON, at(60)]
    series = [Series("dice", [3, 14]), Series("coin", [None, 2])]
    chart = Chart(title="T", kind=Kind.NUMBER, moments=moments, series=series, step=HOUR)
    browser = load([write(chart)])
    plot = browser.find_element(By.CSS_SELECTOR, ".plot svg")

    ActionChains(browser).move_to_element_with_offset(plot, 100, 0).perform()

    [tip] = texts(browser, ".tip")
    assert tip == "2026-03-01 13:00Zdice14coin2"


def test_a_press_on_a_command_copies_it(load: Load) -> None:
    """Who reads of an attempt wants to see it."""
    browser = load([write(Table(columns=[Column("last_attempt_id", Kind.NUMBER)], rows=[(17,)]))])

    browser.find_element(By.CSS_SELECTOR, ".command").click()

    found = WebDriverWait(browser, PATIENCE).until(lambda chrome: texts(chrome, ".tip"))
    assert found[0].partition(": ")[2] == "pipeline audit show 17"


def test_a_number_leads_to_its_row_on_the_page(load: Load) -> None:
    """Where there is one; elsewhere it is the command that shows more."""
    named = Table(
        columns=[Column("source"), Column("attempt_ids"), Column("run_id", Kind.NUMBER)],
        rows=[("dice", "17, 18", 4)],
    )
    listed = Table(
        anchor="attempt", columns=[Column("attempt_id"), Column("error")], rows=[(17, "dns")]
    )

    browser = load([write(named, listed)])

    browser.find_element(By.LINK_TEXT, "17").click()
    assert ask(browser, "document.querySelector(':target').cells[1].textContent") == "dns"
    assert ask(browser, "[...document.querySelectorAll('.command')].map((e) => e.title)") == [
        "pipeline audit show 18",
        "pipeline report --run 4",
        "pipeline audit show 17",
    ]


def test_what_is_told_in_words_is_a_command_too() -> None:
    """A verdict ends with it, and a bar is an attempt."""
    verdict = Table(columns=[Column("verdict")], rows=[("failed: dns; audit show 17",)])
    bar = replace(make_bar("w0 try 1", 0), attempt_id=18)

    page = write(verdict, make_waterfall(bar))

    commands = re.findall('<span class="command" title="([^"]+)">([^<]+)</span>', page)
    assert commands == [
        ("pipeline audit show 18", "w0 try 1"),
        ("pipeline audit show 17", "audit show 17"),
    ]


def test_it_can_be_read_where_no_script_runs(load: Load, browser: Chrome) -> None:
    """Many a mailer and many a cautious reader lets none run."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        load(render_html(make_document()))
        assert browser.find_element(By.CSS_SELECTOR, "path.line").size["height"] > 50
        browser.find_element(By.CSS_SELECTOR, "figure summary").click()
        assert "2026-03-01" in browser.find_element(By.CSS_SELECTOR, "figure .figures").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_follows_the_system_into_the_dark_but_not_onto_paper(load: Load) -> None:
    """Also while it is open: evening comes. Ink is dear."""
    colours = (
        "[getComputedStyle(document.querySelector('h1')).color,"
        " getComputedStyle(document.querySelector('.line')).stroke]"
    )
    browser = load([write(make_chart(1, 2))])
    by_day = ask(browser, colours)

    prefer(browser, "dark")
    by_night = ask(browser, colours)
    prefer(browser, "dark", media="print")
    on_paper = ask(browser, colours)
    prefer(browser, "light")

    assert not set(by_day) & set(by_night)
    assert on_paper == by_day


@pytest.mark.parametrize("width", [375, 1200, 1920])
def test_no_page_scrolls_sideways(load: Load, width: int) -> None:
    """A wide table scrolls in its own box, a long word folds, a chart takes what room it has."""
    long = "a" * 200 + HARMFUL
    browser = load(render_html(make_document(long)), SCREEN | {"width": width})

    assert ask(browser, "innerWidth") == width
    assert ask(browser, f"{PAGE}.scrollWidth - {PAGE}.clientWidth") == 0


def test_a_year_of_days_fits_a_phone(load: Load) -> None:
    """In several rows, each cell wide enough to be seen."""
    browser = load([write(make_lanes(days=365))], PHONE)

    cells = "[...document.querySelectorAll('.cells i')].map((cell) => cell.offsetWidth)"
    assert min(ask(browser, cells)) >= 4
    third = browser.find_elements(By.CSS_SELECTOR, ".cells i")[2]
    ActionChains(browser).move_to_element(third).perform()
    assert third.get_attribute("title") == "2026-03-03 ok: anu"
    assert ask(browser, "document.documentElement.scrollWidth") == 390


def make_hostile_document() -> Document:
    """Make a document with each hostile text in each place, but for the title that has all."""
    moments, table = [NOON, at(1)], [Column(text, title=text) for text in HOSTILE]
    return Document(
        title=HARMFUL,
        verdict=(HARMFUL, HARMFUL),
        facts=HOSTILE,
        origin=make_origin(HARMFUL),
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
            make_lanes(*HOSTILE, name=HARMFUL),
            make_notices(HARMFUL),
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
        ".sortable td",
        ".waterfall tbody th",
        ".lost td:last-child",
    ):
        assert texts(browser, place) == seen
    assert texts(browser, ".sortable th") == seen
    assert texts(browser, "h1") == [printable(HARMFUL)]
    assert texts(browser, "pre") == ["\n".join(seen)]
    assert ask(browser, "document.querySelector('.plot').ariaLabel") == printable(HARMFUL)
    assert texts(browser, ".chart .legend li") == seen
    assert texts(browser, ".verdict") == texts(browser, ".notices b") == [printable(HARMFUL)]
    assert texts(browser, "footer p")[0].count(printable(HARMFUL)) == 3
    titles = ask(browser, "[...document.querySelectorAll('.strip i')].map((cell) => cell.title)")
    assert [title.partition("Z ")[2] for title in titles] == seen


def test_should_escaping_ever_fail_the_policy_holds(load: Load) -> None:
    """Two locks: what slips into the page neither runs nor calls anybody."""
    slipped = (
        "<script>window.hacked = 1</script>",
        '<img src="https://127.0.0.1:9/x" onerror="window.hacked = 1">',
        '<svg onload="window.hacked = 1"></svg>',
        '<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe>',
        '<base href="https://127.0.0.1:9/">',
    )

    browser = load(render_page("Report", slipped))

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
    assert page.count('role="img" aria-label="') == 4


def test_verdicts_have_colours_and_long_text_is_folded() -> None:
    """A column of details must not push all others off the page."""
    rows = [("ok",), ("failed: dns",), ("x" * 99,), ("failed: " + "x" * 99,)]
    page = write(Table(columns=[Column("outcome")], rows=rows))

    assert re.findall(r'<td class="([^"]*)"', page) == [
        "green tone word",
        "red tone",
        "long",
        "red tone long",
    ]


def _themes() -> list[dict[str, str]]:
    """Read the colours by day and by night."""
    css = files("pipeline.rendering").joinpath("page.css").read_text("utf-8")
    day, night = (
        dict(re.findall(r"--([\w-]+): (#\w+);", part)) for part in css.split("@media")[:2]
    )
    return [day, day | night]


def _luminance(colour: str) -> float:
    """Follow https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(_luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


WRITTEN = ("ink", "faint", "link", *(f"{tone}-text" for tone in TONE_COLOURS if tone))
DRAWN = (
    *(f"series-{i}" for i in range(INKS)),
    *(phase.replace("_", "-") for phase in Phase),
    *(tone or "plain" for tone in TONE_COLOURS),
)


@pytest.mark.parametrize("theme", _themes(), ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["surface", "ground"])
def test_colours_have_the_contrast_of_wcag_aa(theme: dict[str, str], ground: str) -> None:
    """4.5 for text, 3 for what is drawn; and there is a colour for all that may be drawn."""
    assert [name for name in WRITTEN if _contrast(theme[name], theme[ground]) < 4.5] == []
    assert [name for name in DRAWN if _contrast(theme[name], theme[ground]) < 3] == []
    assert _contrast(theme["red-text"], theme["lost"]) >= 4.5


def test_a_page_is_small() -> None:
    """It can be mailed."""
    assert len(write(make_table(), make_strip("ran"))) < 20_000
    assert len("\n".join(render_html(make_empty_document()))) < 20_000


def test_the_policy_names_the_script_and_nothing_else() -> None:
    """By its hash: one script, no address, nothing that is evaluated."""
    page = write(make_chart(1))

    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert len(hashes) == 1
    assert f"script-src {allowed};" in policy
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
