"""The options that several commands share."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Context, Option

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Format(StrEnum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


class Shape(StrEnum):
    """How an answer that has tables and charts is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"


def parse_moment(text: str) -> datetime:
    """Read ``7d`` (ago; also m, h, w), a date, or an ISO 8601 time; without a zone it is UTC."""
    ago = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise BadParameter(f"{text!a}: give 7d, 12h, 2026-11-22 or 2026-11-22T06:00Z") from exc


def parse_interval(text: str) -> timedelta:
    """Read a distance in time: ``30s``, ``10m``, ``2h``, ``1d``, ``1w``."""
    return _parse_time(text, examples="10m, 2h or 1d")


def parse_age(text: str) -> timedelta:
    """Read how old something may be, written in the same way."""
    return _parse_time(text, examples="90d or 12w")


def _parse_time(text: str, *, examples: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,5})([smhdw])", text)
    if found is None or int(found[1]) == 0:
        raise BadParameter(f"{text!a}: give {examples}")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def config_before(context: Context) -> Path | None:
    """Give the ``--config`` that stands before a subcommand: `pipeline audit -c FILE show 17`."""
    file: Path | None = context.parent.params.get("config") if context.parent else None
    return file


ConfigOption = Annotated[
    Path | None,
    Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration; else $PIPELINE_CONFIG, ./config.toml, the user's, the built-in.",
        show_default=False,
    ),
]
SourcesOption = Annotated[
    list[str] | None,
    Option("--source", "-s", metavar="NAME", help="Only this source; may be given repeatedly."),
]
FormatOption = Annotated[Format, Option("--format", "-f", help="For people or for programs.")]
ShapeOption = Annotated[
    Shape, Option("--format", "-f", help="For people, programs, sheets, tickets or browsers.")
]
SourceOption = Annotated[
    str | None, Option("--source", "-s", metavar="NAME", help="Only what concerns this source.")
]
SinceOption = Annotated[
    datetime | None,
    Option(
        parser=parse_moment,
        metavar="WHEN",
        help="Not before this: 7d (also m, h, w) ago, a date, or a time (UTC).",
    ),
]
UntilOption = Annotated[
    datetime | None,
    Option(parser=parse_moment, metavar="WHEN", help="Before this; written like --since."),
]
DeadlineOption = Annotated[
    float | None,
    Option(metavar="SECONDS", min=0.001, help="Stop asking after so long; wins over the file."),
]
