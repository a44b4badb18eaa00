"""What CONTRIBUTING says of the code is held against the code."""

import re

from tests.processes import ROOT

READING = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("<!-- reading order -->")[2]


def test_the_reading_order_says_how_long_it_is() -> None:
    """Who plans an afternoon by it should not need two; the files it names are there."""
    rows = re.findall(r"^\| (`pipeline/.*) \| ([0-9,]+) \|$", READING, re.MULTILINE)

    assert len(rows) > 5
    for files, said in rows:
        names = re.findall(r"`(pipeline/[^`]+)`", files)
        lines = sum(len((ROOT / name).read_text("utf-8").splitlines()) for name in names)
        assert abs(lines - int(said.replace(",", ""))) <= lines / 10, (names, lines)


def test_each_folder_has_its_line() -> None:
    """A reader looks for a folder by its name and is told what is in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    folders = [each for each in (ROOT / "pipeline").iterdir() if (each / "__init__.py").exists()]

    assert [each.name for each in folders if f"`pipeline/{each.name}/`" not in text] == []


def test_the_links_between_the_pages_lead_somewhere() -> None:
    """To a file that is there, and in it to a heading."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [
        (page, *found)
        for page in pages
        for found in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8"))
    ]

    assert len(links) > 5
    for page, name, anchor in links:
        target = page.parent / name if name else page
        assert target.exists(), (page.name, name)
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text("utf-8"))
            assert anchor in [each.lower().replace(" ", "-") for each in headings], anchor
