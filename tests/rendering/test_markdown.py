"""Documents as Markdown, read by a real parser."""

from collections.abc import Sequence

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.rendering.document import Column, Document, Kind, Part, Table, Text
from pipeline.rendering.markdown import MOST_BARS, escape, render_markdown
from pipeline.sanitize import printable
from tests.rendering.documents import (
    HOSTILE,
    make_bar,
    make_chart,
    make_document,
    make_strip,
    make_table,
    make_waterfall,
)

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def write(*parts: Part) -> str:
    """Write a document without facts."""
    return "\n".join(render_markdown(Document(title="Report", parts=parts)))


def parse(text: str) -> list[Token]:
    """Give all tokens, those within paragraphs and cells included."""
    tokens = PARSER.parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def kinds(tokens: Sequence[Token]) -> set[str]:
    """Name what there is in a text."""
    return {token.type for token in tokens}


def test_a_table_has_its_numbers_to_the_right() -> None:
    """And its cells as a person reads them."""
    assert write(make_table()).splitlines() == [
        "# Report",
        "",
        "## Sources",
        "",
        "| source | n | seen | p99 | success |",
        "| --- | ---: | --- | ---: | ---: |",
        f"| anu | {-(10**30)} | 2026-03-01 12:00:00Z | 1.03 s | 99.99% |",
        "| dice (sandbox) | 7 | 2026-03-01 12:01:00Z | 0.9 ms | 100.00% |",
        "| both (partly sandbox) | - | - | - | - |",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "failed: dns (no such host)",
        "first_byte",
        "8,204 of 8,640 batches, 95.0 %",
        "since 2026-03-01 12:00:00Z; see above.",
    ],
)
def test_plain_words_are_left_alone(text: str) -> None:
    """Markdown is read as it stands, too."""
    assert escape(text) == text
    assert kinds(parse(text)) <= {"paragraph_open", "inline", "text", "paragraph_close"}


@pytest.mark.parametrize("text", [*HOSTILE, "1. x", "- x", "_x_", "", "-", "`", "a`", "``b"])
def test_foreign_text_means_nothing_but_itself(text: str) -> None:
    """Neither HTML nor a link, a mention, a formula; and it comes back unchanged."""
    tokens = parse(escape(text))

    assert kinds(tokens) <= {
        "paragraph_open",
        "inline",
        "text",
        "code_inline",
        "paragraph_close",
    }
    assert "".join(token.content for token in tokens if token.type != "inline") == printable(text)


@pytest.mark.parametrize("text", [*HOSTILE, "|", "||", "\\", "\\\\|", "`|`", "-", ""])
def test_no_text_breaks_out_of_its_cell(text: str) -> None:
    """The columns of the row after it would shift."""
    columns = [Column(text), Column("end")]

    tokens = parse(write(Table(columns=columns, rows=[(text, "x"), ("y", text)])))

    assert [token.type for token in tokens].count("tr_open") == 3
    assert [token.type for token in tokens].count("td_open") == 4
    assert "x" in [token.content for token in tokens if token.type == "text"]
    assert "html_inline" not in kinds(tokens)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_is_ended_by_nothing_in_it(text: str) -> None:
    """The body of an answer may hold Markdown of its own."""
    tokens = parse("\n".join(render_markdown(make_document(text))))

    [block] = [token for token in tokens if token.type == "fence"]
    assert block.content == f"  two\n```\n{printable(text)}\n"
    assert kinds(tokens).isdisjoint({"html_block", "html_inline", "link_open", "image"})


def test_lines_of_prose_are_paragraphs() -> None:
    """Else they run into one another."""
    assert write(Text(lines=["One.", "Two."])).endswith("\n\nOne.\n\nTwo.")


def test_what_is_drawn_elsewhere_is_a_table_here() -> None:
    """A sparkline stands in code, where all characters are of one width."""
    text = write(
        make_chart(1, 2, kind=Kind.DURATION),
        make_strip("ran", "ran", "missed"),
        make_waterfall(*(make_bar(f"w{i}", i) for i in range(MOST_BARS + 1))),
    )

    assert "| one | `▅█` | 0.001 ms | 0.002 ms |" in text
    assert "| 2026-03-01 12:00:00Z | 2026-03-01 12:05:00Z | ran | 2 |" in text
    assert text.count("| 0.1 ms |") == MOST_BARS
