"""Answers on stdout, and JSON line by line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO, StringIO, TextIOWrapper

import pytest

from pipeline.models import Evidence
from pipeline.rendering.output import (
    MOST_IN_MEMORY,
    OutputError,
    flush,
    json_lines,
    render_table,
    spooled,
    write,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_table_has_its_numbers_to_the_right() -> None:
    """Sums are compared digit by digit, also below a sum that is missing."""
    table = render_table(("name", "sum"), [("a", 5), ("b", 1234), ("c", None)])

    assert [line[-4:] for line in table.splitlines()[2:]] == ["   5", "1234", "   -"]


def test_a_line_of_a_table_is_never_folded_where_nobody_looks() -> None:
    """A script reads line by line."""
    assert "x" * 5000 in render_table(("detail",), [("x" * 5000,)])


def test_foreign_text_in_a_table_is_shown_and_not_obeyed() -> None:
    """Neither by the terminal nor by the library that draws."""
    table = render_table(("detail",), [("\x1b]0;owned\x07\r\n[/x] [bold]\u202e",)])

    assert "\\x1b]0;owned\\x07\\r\\n[/x] [bold]\\u202e" in table
    assert table.count("\n") == 2


class _Terminal(StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_verdicts_have_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe a colour is noise."""
    row = [("failed: dns (no such host)",)]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in render_table(("verdict",), row)

    monkeypatch.setattr("sys.stdout", _Terminal())

    assert "\x1b[31mfailed: dns (no such host)" in render_table(("verdict",), row)


def test_a_stdout_that_takes_ascii_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of escapes cannot be read."""
    monkeypatch.setattr("sys.stdout", TextIOWrapper(BytesIO(), encoding="ascii"))

    assert render_table(("a", "b"), [(1, 2)]).isascii()


def test_json_is_one_object_and_its_lists_are_walked_over_as_it_is_written() -> None:
    """A long history takes no memory, and yet `jq` reads it."""
    walked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(3):
            walked.append(number)
            yield number

    lines = json_lines({"schema": "x/1", "at": NOON}, some=numbers(), none=[])
    first = [next(lines), next(lines), next(lines)]

    assert walked == [0]
    assert json.loads("\n".join([*first, *lines])) == {
        "schema": "x/1",
        "at": "2026-03-01T12:00:00.000000Z",
        "some": [0, 1, 2],
        "none": [],
    }


def test_json_knows_our_values_and_nothing_else() -> None:
    """What was forgotten must be noticed here and not by a reader."""
    evidence = Evidence(status=500, headers=(("A", "b"),), body=b"\xff\x1b", body_bytes=2)

    text = "\n".join(json_lines({"answer": evidence}))

    assert text.isascii()
    assert json.loads(text)["answer"]["body"] == "\\xff\x1b"
    with pytest.raises(TypeError, match="no JSON for set"):
        list(json_lines({"oops": {1}}))


def test_a_stdout_that_is_closed_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none then; a table is drawn all the same."""
    monkeypatch.setattr("sys.stdout", None)

    write(render_table(("a",), [(1,)]))
    with spooled() as answer:
        answer.write("nobody")
    flush()


def test_a_failed_write_is_told_from_every_other_error() -> None:
    """Only it means that the answer did not arrive."""
    with pytest.raises(OutputError, match="No space"), spooled():
        raise OSError(28, "No space left on device")


def test_an_answer_is_written_when_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that is longer than we keep in memory."""
    with spooled() as answer:
        answer.write("é\n")
        answer.write("x" * MOST_IN_MEMORY)
        assert capsys.readouterr().out == ""

    assert capsys.readouterr().out == "é\n" + "x" * MOST_IN_MEMORY


def test_half_an_answer_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads it would take it for whole."""
    with pytest.raises(ZeroDivisionError), spooled() as answer:
        answer.writelines(f"{1 // number}" for number in (1, 0))

    assert capsys.readouterr().out == ""
