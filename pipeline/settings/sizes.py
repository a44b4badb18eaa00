"""How many numbers each batch wants: as the file says, drawn for each run, or given at its start.

Pure but for the drawing; a ``ValueError`` carries the complaint.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from random import SystemRandom
from typing import Self

from pipeline.settings.complaints import shown

MOST_BATCHES = 1_000_000  # per source
LARGEST_BATCH = 1_000_000  # numbers
BATCH_FORMS = (
    'sizes [2, 3, 5], a range "2..29", {count = 10, size = 16}'
    ' or, drawn for each run, {count = 10, sizes = "1..10"}'
)

_NO_ORDER = "orders no batch; a line is such as `dice 2 3 5..8`"
_RANGE = r"([0-9]{1,7})\.\.([0-9]{1,7})"


class DrawnSizes(tuple[int, ...]):  # noqa: SLOT001 - a tuple takes no slots of others
    """So many sizes, each run's own: any from *low* to *high*, all as likely.

    Before they are drawn each reads as the largest that it can be, so that whatever is checked or
    foretold holds for every run.
    """

    low: int
    high: int

    def __new__(cls, count: int, low: int, high: int) -> Self:
        """Let each be the largest."""
        sizes = super().__new__(cls, (high,) * min(count, MOST_BATCHES + 1))
        sizes.low, sizes.high = low, high
        return sizes

    def draw(self) -> tuple[int, ...]:
        """Draw the sizes of one run, from the operating system's entropy."""
        random = SystemRandom()
        return tuple(random.randint(self.low, self.high) for _ in self)


class GivenSizes(tuple[int, ...]):
    """Sizes that were given when a run was started, and stand in no file."""

    __slots__ = ()


def draw_sizes(sizes: Sequence[int]) -> Sequence[int]:
    """Give the sizes of one run."""
    return sizes.draw() if isinstance(sizes, DrawnSizes) else sizes


def smallest_size(sizes: Sequence[int]) -> int:
    """Give the smallest size that a run can order."""
    return sizes.low if isinstance(sizes, DrawnSizes) else min(sizes)


def dump_sizes(sizes: Sequence[int]) -> list[int] | dict[str, int | str]:
    """Write *sizes* as the file does; what stands in no file is only named."""
    if isinstance(sizes, DrawnSizes):
        return {"count": len(sizes), "sizes": f"{sizes.low}..{sizes.high}"}
    return {"count": 0, "sizes": "given"} if isinstance(sizes, GivenSizes) else list(sizes)


def _parse_range(text: str) -> range | None:
    found = re.fullmatch(_RANGE, text)
    return range(int(found[1]), int(found[2]) + 1) if found else None


def check_batches(value: object) -> Sequence[int]:
    """Read the sizes of batches in one of their forms; cheap however many they are."""
    sizes: Sequence[int]
    match value:
        case {"count": int(count), "size": size, **rest} if not rest:
            sizes = (size,) * min(count, MOST_BATCHES + 1)  # one integer, many times
        case {"count": int(count), "sizes": str(text), **rest} if not rest and _parse_range(text):
            drawn = _parse_range(text) or range(0)
            sizes = DrawnSizes(count, drawn[0], drawn[-1])
        case str() if (written := _parse_range(value)) is not None:
            sizes = written
        case range() | DrawnSizes() | GivenSizes():
            sizes = value
        case list() | tuple():
            sizes = tuple(value)
        case _:
            raise ValueError(f"must be {BATCH_FORMS}, not {shown(value)}")
    if not sizes:
        raise ValueError(f"orders no batch; use {BATCH_FORMS}")
    if len(sizes) > MOST_BATCHES:
        raise ValueError(f"orders more than {MOST_BATCHES} batches")
    if set(map(type, sizes)) != {int}:  # isinstance would let true and false pass
        wrong = next(size for size in sizes if type(size) is not int)
        raise ValueError(f"a batch's size must be a whole number, not {shown(wrong)}")
    wrong = smallest_size(sizes) if smallest_size(sizes) < 1 else max(sizes)
    if not 1 <= wrong <= LARGEST_BATCH:
        raise ValueError(f"a batch must have 1 to {LARGEST_BATCH:,} numbers, not {shown(wrong)}")
    return sizes


def parse_orders(text: str, sources: Sequence[str]) -> Mapping[str, GivenSizes]:
    """Read what is ordered of which of *sources*: a line each, or as many as one likes.

    A line holds sizes and ranges, ``2 3 5..8``, behind the name of their source; where there is
    one source only, its name can be left out.
    """
    orders: dict[str, list[int]] = {}
    for nth, line in enumerate(text.splitlines(), 1):
        words = line.split()
        try:
            if words:
                of_source = orders.setdefault(_find_name(words, sources), [])
                of_source.extend(_check_line(list(_read_sizes(words)), len(of_source)))
        except ValueError as error:
            raise ValueError(f"line {nth}: {error}") from error
    if not orders:
        raise ValueError(_NO_ORDER)
    return {name: GivenSizes(sizes) for name, sizes in orders.items()}


def _find_name(words: list[str], sources: Sequence[str]) -> str:
    """Take the name of the source off the front of *words*."""
    if words[0] in sources:
        return words.pop(0)
    is_size = words[0].isdecimal() or _parse_range(words[0]) is not None
    if is_size and len(sources) == 1:
        return sources[0]
    problem = "" if is_size else f"{shown(words[0])} is none; "
    raise ValueError(f"{problem}begin with a source that is asked: {', '.join(sources)}")


def _check_line(sizes: list[int], before: int) -> list[int]:
    """Let the sizes of a line pass, behind so many of its source."""
    if not sizes:
        raise ValueError(_NO_ORDER)
    if before + len(sizes) > MOST_BATCHES:
        raise ValueError(f"orders more than {MOST_BATCHES} batches of its source")
    check_batches(sizes)
    return sizes


def _read_sizes(words: Sequence[str]) -> Iterator[int]:
    for word in words:
        span = _parse_range(f"{word}..{word}" if word.isascii() and word.isdecimal() else word)
        if span is None:
            raise ValueError(
                f"a size is a whole number, or a range such as 2..29; not {shown(word)}"
            )
        yield from span
