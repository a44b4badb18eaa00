"""The pages of a store in which everything happens, looked at as a reader would."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session
from typer.testing import CliRunner

from pipeline.cli.commands import make_app
from pipeline.models import Batch
from pipeline.rendering.document import Chart, Document, Kind, Mark, Series
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from pipeline.report.overview import lines, make_overview
from pipeline.report.question import Question
from pipeline.store.db import open_store
from pipeline.store.window import Window
from tests.rendering.browsing import SCREEN, Load, ask, logged, prefer
from tests.rendering.documents import make_lanes, make_origin
from tests.store.makers import NOON, make_attempt, make_failed_attempt, record_run
from tests.store.variety import CONFIG, NOW, make_variety

DAY = timedelta(days=1)
WEEK = ("--since", "2026-03-01", "--until", "2026-03-09")
PAGES = (
    ("report", *WEEK),
    *(("report", what, *WEEK) for what in ("runs", "batches", "timings", "errors", "numbers")),
    *(("report", what, *WEEK) for what in ("sources", "slots")),
    *(("report", "--run", run) for run in ("47", "14")),
    ("report", "timings", "--run", "14"),
    ("audit", *WEEK),
    ("audit", "dossier", "org", *WEEK),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home with a week in which everything happened."""
    folder = tmp_path_factory.mktemp("home")
    make_variety(folder / "pipeline.db")
    (folder / "config.toml").write_text(f"{CONFIG}[store]\nurl = 'pipeline.db'\n")
    return folder


def write(home: Path, *words: str) -> str:
    """Ask a command for a page."""
    arguments = (*words, "-c", str(home / "config.toml"), "-f", "html")
    done = CliRunner().invoke(make_app(), arguments, env={"RPC_KEY": "x" * 36})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("words", PAGES, ids=[" ".join(words) for words in PAGES])
def test_no_table_scrolls_sideways_on_a_screen(home: Path, load: Load, words: tuple[str]) -> None:
    """At 1,200 pixels all columns are seen; and the page has no complaint."""
    browser = load([write(home, *words)], SCREEN)

    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = 1")
    too_wide = (
        "[...document.querySelectorAll('.scroll')]"
        ".filter((box) => box.scrollWidth > box.clientWidth)"
        ".map((box) => `${box.ariaLabel} ${box.scrollWidth} > ${box.clientWidth}`)"
    )
    assert ask(browser, too_wide) == []
    assert ask(browser, "document.documentElement.scrollWidth") <= 1200
    assert logged(browser, "browser") == []


def test_the_overview_fits_on_paper(home: Path, load: Load) -> None:
    """All columns, on a sheet of A4 that stands upright, light as paper is."""
    browser = load([write(home, "report", *WEEK)], SCREEN | {"width": 718})

    prefer(browser, "dark", media="print")
    width = ask(browser, "document.documentElement.scrollWidth")
    ground = ask(browser, "getComputedStyle(document.querySelector('section')).backgroundColor")
    prefer(browser, "light")

    assert width <= 718
    assert ground == "rgb(255, 255, 255)"


def test_a_page_says_where_it_comes_from(home: Path) -> None:
    """It was kept, or mailed, and nobody knows of which machine."""
    page = write(home, "report", "sources", *WEEK)

    title = re.findall("<title>(.*)</title>", page)[0]
    footer = re.findall("<footer><p>(.*)</p></footer>", page)[0]
    assert re.fullmatch(r"Sources · pipeline\.db on \S+", title)
    assert f"{home}/pipeline.db" in footer
    assert re.match(r"Written [0-9-]+ [0-9:]+Z by pipeline [0-9.]+ on ", footer)
    assert "From 2026-03-01 00:00:00Z to 2026-03-09 00:00:00Z" in footer


def test_a_dossier_does_not_say_where_it_comes_from(home: Path) -> None:
    """It is for strangers."""
    page = write(home, "audit", "dossier", "org", *WEEK)

    assert "<footer>" not in page
    assert str(home) not in page


def test_every_link_has_its_row(home: Path) -> None:
    """A link that leads nowhere is worse than none."""
    page = write(home, "report", *WEEK)

    links, names = re.findall('href="#([^"]+)"', page), re.findall(' id="([^"]+)"', page)
    assert links
    assert {*links} <= {*names}
    assert len(names) == len({*names})


# ---- Long histories ----


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Open a store, to write and to ask within one transaction."""
    url = f"sqlite:///{tmp_path / 'pipeline.db'}"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        yield session


SOURCES = ("anu", "dice", "lottery", "random-org", "rpc")


def record_days(session: Session, days: int) -> Question:
    """Record a run a day, in which something fails every fifth day; ask for all of them."""
    for day in range(days):
        started_at = NOON + day * DAY
        batches = [
            Batch(number=i, source=source, n=2, min=1, max=6) for i, source in enumerate(SOURCES)
        ]
        attempts = [make_attempt(i, 1, source, started_at) for i, source in enumerate(SOURCES)]
        if day % 5 == 0:
            attempts[0] = make_failed_attempt(0, 1, SOURCES[0], began_at=started_at)
            attempts.append(make_attempt(0, 2, SOURCES[0], started_at))
        record_run(session, batches, attempts=attempts, started_at=started_at)
    window = Window(since=NOON, until=NOON + days * DAY)
    return Question(window=window, shape=Shape.HTML, origin=make_origin("store"))


def test_a_page_of_a_month_can_be_mailed(session: Session) -> None:
    """300 kB at most, with every figure of every picture."""
    question = record_days(session, 30)

    page = "\n".join(lines(session, replace(question, shape=Shape.HTML)))

    assert len(page.encode()) < 300_000
    assert page.count("2026-03-05") > 1
    assert "<figure" in page


def test_the_pictures_of_a_year_can_be_mailed() -> None:
    """1 MB at most: 28 sources day by day, and five charts of them week by week."""
    [lane] = make_lanes(days=366).lanes
    told = replace(lane, notes=["288 of 288 batches"] * 366)
    lanes = replace(make_lanes(days=366), lanes=[told] * 28)
    moments = [NOON + 7 * week * DAY for week in range(53)]
    series = [Series(f"source {i}", [12_345.0 + i] * len(moments)) for i in range(28)]
    chart = Chart(title="T", kind=Kind.NUMBER, moments=moments, series=series, mark=Mark.BARS)

    page = "\n".join(render(Document(title="Year", parts=[lanes, *[chart] * 5]), Shape.HTML))

    assert len(page.encode()) < 900_000


def test_the_page_begins_with_what_matters(session: Session) -> None:
    """A sentence, then what to do, then each source day by day, then the course of things."""
    question = record_days(session, 5)

    document = make_overview(session, question)

    assert document.verdict == ("ok", "Nothing needs attention now: 25 of 25 batches came.")
    assert [part.title for part in document.parts][:3] == [
        "Batches of each source",
        "Numbers collected",
        "Exchanges, p50",
    ]
    page = "\n".join(render(document, Shape.HTML))
    assert re.findall('<i class="([a-z]+)" title="([^"]+)"', page)[0] == (
        "green",
        "2026-03-01 ok: 1 of 1 batch",
    )


def test_the_clock_of_variety_is_right() -> None:
    """Its week lies in the window that is asked for here."""
    assert WEEK[1] < f"{NOW:%Y-%m-%d}" < WEEK[3]
