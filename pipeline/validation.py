"""Numbers against what was asked: pure, and the last word on every answer."""

from collections.abc import Sequence
from typing import cast

from pipeline.errors import ErrorName, SourceError

# What JSON calls the types that Python's reader makes of it.
JSON_NAMES: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number with a fraction",
    int: "a whole number",
    list: "an array",
    str: "a string",
    type(None): "null",
}

_SHORT = 10**80  # past it a number is described: Python refuses to print 4300 digits


def _show(number: int) -> str:
    return str(number) if abs(number) < _SHORT else f"an integer of {number.bit_length()} bits"


def json_name(value: object) -> str:
    """Say what *value* is, as JSON calls it, without showing it: it may be huge, or a key."""
    return JSON_NAMES.get(type(value), f"a {type(value).__name__}")


def check_count(numbers: Sequence[int], n: int) -> None:
    """Hold *numbers* to exactly *n*.

    Raises:
        SourceError: ``count``.
    """
    if len(numbers) != n:
        raise SourceError(ErrorName.COUNT, f"{len(numbers)} numbers instead of {n}")


def check_numbers(values: Sequence[object], *, n: int, low: int, high: int) -> tuple[int, ...]:
    """Hold *values* to exactly *n* integers in [*low*, *high*], and give them back as a tuple.

    Raises:
        SourceError: ``schema`` where a value is no integer (a bool, a float and a string of
            digits are none), ``count`` where there are fewer or more, ``range`` where one lies
            outside.
    """
    # Whole passes in C (type, min, max) and no loop of ours: this runs for every batch.
    if not set(map(type, values)) <= {int}:
        position, value = next((i, v) for i, v in enumerate(values, 1) if type(v) is not int)
        detail = f"number {position} of {len(values)} is {json_name(value)}, not an integer"
        raise SourceError(ErrorName.SCHEMA, detail)
    numbers = cast("tuple[int, ...]", tuple(values))
    check_count(numbers, n)
    if min(numbers, default=low) < low or max(numbers, default=high) > high:
        outside = next(number for number in numbers if not low <= number <= high)
        raise SourceError(ErrorName.RANGE, f"{_show(outside)} is outside [{low}, {high}]")
    return numbers
