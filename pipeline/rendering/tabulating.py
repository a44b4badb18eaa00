"""From records and one line of field names (see ``records.py``) to a table.

How a value is shown follows from its name and type.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pipeline.rendering.document import Cell, Column, Kind, SourceName, Table
from pipeline.rendering.records import Field, parse_fields

NO_WORDS: Mapping[str, str] = MappingProxyType({})


def tabulate(
    record: type,
    records: Iterable[object],
    line: str,
    *,
    title: str = "",
    nothing: Mapping[str, str] = NO_WORDS,
) -> Table:
    """Make a row of each of *records*, which are all of the class *record*.

    The records are walked over as the rows are. A tuple fills its cell with a list, and ``source
    is_sandbox`` share one. *nothing* are words for people where a field is None.
    """
    columns: list[Column] = []
    readers: list[Callable[[object], Cell]] = []
    for field in parse_fields(line):
        if field.name == "is_sandbox" and columns and columns[-1].name == "source":
            columns[-1], readers[-1] = Column("source", Kind.SOURCE), _source(readers[-1], field)
        else:
            kind = kind_of(field.name, type_of(record, field.path))
            columns.append(Column(field.name, kind, nothing=nothing.get(field.name, "-")))
            readers.append(_cell(field))
    rows = ([read(each) for read in readers] for each in records)
    return Table(title=title, columns=columns, rows=rows)


def _source(name: Callable[[object], Any], is_sandbox: Field) -> Callable[[object], Cell]:
    return lambda record: SourceName(name(record), is_sandbox.read(record))


def _cell(field: Field) -> Callable[[object], Cell]:
    def read(record: object) -> Cell:
        value = field.read(record)
        return ", ".join(map(str, value)) or None if isinstance(value, tuple) else value

    return read


def type_of(record: type, path: str) -> Any:  # noqa: ANN401 - any type hint
    """Give the type of an attribute, a property or one of a part: ``attempt.timings.wait_us``."""
    hint: Any = record
    is_optional = False  # also if a part on the way may be missing
    for name in path.split("."):
        is_optional |= NoneType in get_args(hint)
        owner = _bare(hint)[0]
        match getattr(owner, name, None):
            case property(fget=getter):
                hint = get_type_hints(getter)["return"]
            case _:
                hint = get_type_hints(owner)[name]
    return hint | None if is_optional else hint


def _bare(hint: Any) -> tuple[type, ...]:  # noqa: ANN401 - any type hint
    """List the classes that a value may be of, unless it is None."""
    if get_origin(hint) in (UnionType, Union):
        return tuple(each for part in get_args(hint) for each in _bare(part))
    return () if hint is type(None) else (get_origin(hint) or hint,)


def kind_of(name: str, hint: Any) -> Kind:  # noqa: ANN401 - any type hint
    """Tell how a field is shown, by its name and its type."""
    types = _bare(hint)
    if datetime in types:
        return Kind.MOMENT
    if name.endswith("_us"):
        return Kind.DURATION
    if name == "share" or name.endswith("_share"):
        return Kind.SHARE
    return Kind.NUMBER if set(types) <= {int, float} else Kind.TEXT
