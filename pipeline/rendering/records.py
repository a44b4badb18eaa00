"""From records and one line of field names to JSON; to a table: see ``tabulating.py``.

A line such as ``"run_id source began_at attempt_number=attempt.number"`` names the fields in their
order. A published name stands for the attribute of the same name; after ``=`` it may stand for
another, or for one of a part of the record.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.rendering.words import iso_time


class Field(NamedTuple):
    """One word of a line of field names: the published name, and the attribute that has it."""

    name: str
    path: str

    def read(self, record: object) -> Any:  # noqa: ANN401 - what a record holds
        """Give the value of a record; None if a part on the way there is None."""
        value: Any = record
        for name in self.path.split("."):
            value = None if value is None else getattr(value, name)
        return value


@lru_cache
def parse_fields(line: str) -> tuple[Field, ...]:
    """Read a line of field names."""
    pairs = (word.partition("=") for word in line.split())
    return tuple(Field(name, path or name) for name, _, path in pairs)


def inside(part: str, line: str) -> str:
    """Make a line of the fields of a record that is the *part* of another."""
    return " ".join(f"{field.name}={part}.{field.path}" for field in parse_fields(line))


def pick(record: object, line: str) -> dict[str, Any]:
    """Make of a record what JSON publishes of it."""
    return {field.name: field.read(record) for field in parse_fields(line)}


def picks(records: Iterable[object], line: str) -> Iterator[dict[str, Any]]:
    """Make of each record what JSON publishes of it, as they are walked over."""
    return (pick(record, line) for record in records)


def as_json(value: object) -> object:
    """Make of a value what JSON knows: give it to ``json`` as its ``default``.

    Records become objects, times and days ISO 8601 (times in UTC), bytes text.

    Raises:
        TypeError: *value* is none of these.
    """
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(f"no JSON for {type(value).__name__}")
