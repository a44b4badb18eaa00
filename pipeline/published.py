"""Values as other programs read them: times as one kind of text, records as JSON. Pure."""

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime


def iso_time(moment: datetime) -> str:
    """Write an aware time in UTC as ``2026-01-31T23:59:59.000000Z``.

    All such texts have one length, so they sort like the times.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def as_json(value: object) -> object:
    """Make of a value what JSON knows: give it to ``json`` as its ``default``.

    Records become objects, times ISO 8601 in UTC, bytes text.

    Raises:
        TypeError: *value* is none of these.
    """
    if isinstance(value, datetime):
        return iso_time(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(f"no JSON for {type(value).__name__}")
