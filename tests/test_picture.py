"""The picture that the README opens with shows what the commands write today."""

import re
from html import unescape
from pathlib import Path

from tests.picture import COMMANDS, FILE, run_commands
from tests.processes import ROOT


def words_of(text: str) -> list[str]:
    """Split a text into words, without numbers, times, units and what is drawn."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return re.sub(r"[\d.,:;/-]+[\dZ]*( (ms|s|min|h|d)\b)?|[─…$()]+", " ", plain).split()


def test_the_picture_is_true(tmp_path: Path) -> None:
    """Each word is one that the commands write; `python -m tests.picture` draws it anew."""
    written = "".join(f"pipeline {command} {seen}" for command, seen in run_commands(tmp_path))

    shown = re.findall(r"<text[^>]*>(.*?)</text>", FILE.read_text("utf-8"))
    words = words_of(" ".join(unescape(line).replace("\xa0", " ") for line in shown))
    assert len(words) > 100
    assert set(words) - set(words_of(written)) == set()
    assert {command.split()[0] for command in COMMANDS} <= set(words)


def test_the_readme_shows_it_and_it_fetches_nothing() -> None:
    """It is looked at where only files of the repository are."""
    assert "docs/run.svg" in (ROOT / "README.md").read_text("utf-8")
    assert not re.search(r"url\(['\"]?http|href=|@import|<script", FILE.read_text("utf-8"))


def test_the_readme_can_be_read_in_one_go() -> None:
    """What is looked up lies in docs/, and every page there is reached from it."""
    readme = (ROOT / "README.md").read_text("utf-8")

    assert readme.count("\n") <= 300
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages == set(re.findall(r"\((docs/\w+\.md)\)", readme))
