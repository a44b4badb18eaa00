"""Fit tables and prose into the width of a terminal. Pure.

Nothing is broken within a word. A table that is too wide breaks its heads; then its columns move
together; then columns leave its rows and stand below them as ``head value``: those that say nothing
in most rows (``-`` or 0), and if that is not enough, those at the right instead; a 0 is left out
there where the column says nothing in most rows. Long text in the
last column is folded where there is room for that, and stands below its row elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import median_low

from rich.cells import cell_len
from rich.text import Text

GAP = 2  # characters between two columns
NARROW_GAP = 1  # where the table fits with it
NARROWEST_TEXT = 30  # characters of folded text
INDENT = 4  # of what stands below its row
TIE = "\xa0"  # a space at which no line is broken
NOTHING = frozenset({"", "-", "0"})

Cells = Sequence[Text]


def fold(text: str, width: int) -> list[str]:
    """Break *text* between words, so that no line is wider unless it is one word.

    The lines after the first are indented as it is.
    """
    if cell_len(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines, line = [], ""
    for word in filter(None, text.split(" ")):
        longer = f"{line} {word}" if line else f"{indent}{word}"
        if line and cell_len(longer) > width:
            lines.append(line)
            longer = f"{indent}{word}"
        line = longer
    return [*lines, line]


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a table is set.

    Attributes:
        widths: of the columns that stand in the rows, by their places.
        below: the places of the others, and what is not told of each.
        text: the place of the last column, if it is text that may be folded.
        gap: characters between two columns.
    """

    heads: Sequence[str]
    widths: dict[int, int]
    below: Mapping[int, AbstractSet[str]]
    text: int | None
    width: int
    gap: int = GAP


def lay_out(
    heads: Sequence[str], rows: Sequence[Cells], width: int, *, ends_in_text: bool
) -> Layout:
    """Choose which columns stand in the rows of a table that is *width* wide at most."""
    places = range(len(heads))
    widest = [max((cell_len(row[i].plain) for row in rows), default=0) for i in places]
    whole = {i: max(widest[i], cell_len(heads[i])) for i in places}
    if _total(whole) <= width:
        return Layout(heads=heads, widths=whole, below={}, text=None, width=width)
    needed = {i: max(widest[i], _longest_word(heads[i])) for i in places}
    text = places[-1] if ends_in_text else None
    if text is not None:
        usual = median_low([cell_len(row[text].plain) for row in rows] or [0])
        needed[text] = max(min(usual, NARROWEST_TEXT), _longest_word(heads[text]))
    gap = NARROW_GAP if _total(needed, NARROW_GAP) <= width < _total(needed) else GAP
    moved = [] if gap == NARROW_GAP else _choose_below(rows, needed, width, text)
    below = {i: NOTHING if _is_silent(rows, i) else NOTHING - {"0"} for i in moved}
    kept = {i: room for i, room in needed.items() if i not in below}
    if text is not None:
        kept[text] += min(max(width - _total(kept, gap), 0), whole[text] - kept[text])
    return Layout(heads=heads, widths=kept, below=below, text=text, width=width, gap=gap)


def _choose_below(
    rows: Sequence[Cells], widths: dict[int, int], width: int, text: int | None
) -> list[int]:
    """Choose the columns that leave the rows, never the first nor the *text*."""
    movable = [i for i in widths if i not in (0, text)]
    silent = sorted(movable, key=lambda i: (_says(rows, i), -i))
    silent = [i for i in silent if _is_silent(rows, i)]
    for candidates in (silent, movable[::-1]):
        for n in range(len(candidates) + 1):
            if _total({i: w for i, w in widths.items() if i not in candidates[:n]}) <= width:
                return sorted(candidates[:n])
    return movable


def _says(rows: Sequence[Cells], place: int) -> int:
    """Count the rows in which a column says something."""
    return sum(row[place].plain not in NOTHING for row in rows)


def _is_silent(rows: Sequence[Cells], place: int) -> bool:
    """Tell whether a column says nothing in most rows."""
    return 2 * _says(rows, place) < len(rows)


def _total(widths: dict[int, int], gap: int = GAP) -> int:
    return sum(widths.values()) + gap * (len(widths) - 1)


def _line(cells: Sequence[Text], layout: Layout, to_the_right: AbstractSet[int]) -> Text:
    """Set cells beside each other, in the order of the columns that stand in the rows."""
    line = Text()
    for n, ((place, width), cell) in enumerate(zip(layout.widths.items(), cells, strict=True)):
        pad = " " * (width - cell_len(cell.plain))
        line.append(" " * layout.gap if n else "")
        line.append_text(Text.assemble(pad, cell) if place in to_the_right else cell)
        line.append("" if place in to_the_right else pad)
    line.rstrip()
    return line


def head_lines(layout: Layout, to_the_right: AbstractSet[int]) -> Iterator[Text]:
    """Set the heads, each broken to the width of its column, on the same last line."""
    folded = [fold(layout.heads[place], width) for place, width in layout.widths.items()]
    most = max(map(len, folded), default=0)
    for i in range(most):
        cells = [
            Text(each[i - most + len(each)] if i >= most - len(each) else "") for each in folded
        ]
        yield _line(cells, layout, to_the_right)


def _fit(text: str, room: int) -> tuple[list[str], str]:
    """Fold text into a column, or say what stands in its place while all of it stands below."""
    if cell_len(text) <= room:
        return [text], ""
    if room >= NARROWEST_TEXT and _longest_word(text) <= room:
        return fold(text, room), ""
    word = text.partition(":")[0]
    return [word if cell_len(word) <= room else ""], text


def row_lines(row: Cells, layout: Layout, to_the_right: AbstractSet[int]) -> Iterator[Text]:
    """Set a row: a line, more where text is folded, and what stands below it."""
    cells = [row[place] for place in layout.widths]
    lines, below = [""], ""
    if layout.text is not None:
        text, room = row[layout.text], layout.widths[layout.text]
        lines, below = _fit(text.plain, room)
        cells[-1] = Text(lines[0], text.style) if len(lines) > 1 or below else text
    yield _line(cells, layout, to_the_right)
    *others, _ = layout.widths.values()
    indent = sum(width + layout.gap for width in others)  # to the last column
    for more in lines[1:]:
        yield Text(" " * indent + more, cells[-1].style)
    said = [
        f"{layout.heads[place]} {row[place].plain}".replace(" ", TIE)
        for place, nothing in layout.below.items()
        if row[place].plain not in nothing
    ]
    for told, style in ((below, row[-1].style), (", ".join(said), "dim")):
        for line in fold(" " * INDENT + told, layout.width) if told else ():
            yield Text(line.replace(TIE, " "), style)
