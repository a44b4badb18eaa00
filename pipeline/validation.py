"""Numbers against what was asked: pure, and the last word on every answer."""

from collections.abc import Sequence
from typing import cast

from pipeline.errors import ErrorName, SourceError

_SHORT = 10**80  # past it a number is described: Python refuses to print 4300 digits


def _show(number: int) -> str:
    return str(number) if abs(number) < _SHORT else f"an integer of {number.bit_length()} bits"


def check_numbers(values: Sequence[object], *, n: int, low: int, high: int) -> tuple[int, ...]:
    """Hold *values* to exactly *n* integers in [*low*, *high*], and give them back as a tuple.

    Raises:
        SourceError: ``schema`` where a value is no integer (a bool, a float and a string of
            digits are none), ``count`` where there are fewer or more, ``range`` where one lies
            outside.
    """
    # Whole passes in C (type, min, max) and no loop of ours: this runs for every batch.
    if not set(map(type, values)) <= {int}:
        position, kind = next((i, type(v)) for i, v in enumerate(values) if type(v) is not int)
        detail = f"value {position} is a {kind.__name__}, not an integer"
        raise SourceError(ErrorName.SCHEMA, detail)
    numbers = cast("tuple[int, ...]", tuple(values))
    if len(numbers) != n:
        raise SourceError(ErrorName.COUNT, f"{len(numbers)} numbers instead of {n}")
    if min(numbers, default=low) < low or max(numbers, default=high) > high:
        outside = next(number for number in numbers if not low <= number <= high)
        raise SourceError(ErrorName.RANGE, f"{_show(outside)} is outside [{low}, {high}]")
    return numbers
