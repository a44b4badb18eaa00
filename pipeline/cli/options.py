"""The options that several commands share."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Context, Option

from pipeline.cli.configuration import read_settings_quietly
from pipeline.rendering.shapes import Format, Shape

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


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


def parse_rate(text: str) -> str:
    """Read a rate as the configuration has it: ``1/60s``, ``50/s``, ``none``."""
    from pipeline.settings.checks import check_rate

    try:
        check_rate(text)
    except ValueError as exc:
        raise BadParameter(str(exc)) from exc
    return text


def hand_down_config(context: Context, config: Path | None) -> None:
    """Let *config*, given before a subcommand, be that of all commands below: `-c FILE audit`."""
    if config is not None:
        context.default_map = _defaults(context.command, str(config))


def _defaults(command: Any, config: str) -> dict[str, Any]:  # noqa: ANN401 - Typer keeps the class to itself
    below = getattr(command, "commands", {})
    return {name: _defaults(each, config) for name, each in below.items()} | {"config": config}


def parse_config(name: str) -> Path:
    """Read the name of a file, or ``builtin``."""
    from pipeline.settings import config_file

    return config_file(name)


def complete_sources(context: Context, incomplete: str) -> list[str]:
    """List the names of configured sources that a shell may complete *incomplete* to."""
    settings = read_settings_quietly(context.params.get("config"))
    return [name for name in settings.sources if name.startswith(incomplete)] if settings else []


def complete_runs(context: Context, incomplete: str) -> list[str]:
    """List the numbers of the newest runs, and ``last``, in the same way."""
    from pipeline.report.question import newest_run_ids

    settings = read_settings_quietly(context.params.get("config"))
    known = ["last", *map(str, newest_run_ids(settings.store))] if settings else []
    return [name for name in known if name.startswith(incomplete)]


def _run_option(text: str) -> Any:  # noqa: ANN401 - as Typer's own
    return Option("--run", "-r", metavar="ID|last", help=text, autocompletion=complete_runs)


def _source_option(text: str) -> Any:  # noqa: ANN401 - as above
    return Option("--source", "-s", metavar="NAME", help=text, autocompletion=complete_sources)


RunOption = Annotated[str | None, _run_option("Only this run.")]
WholeRunOption = Annotated[str | None, _run_option("Only this run; alone: all its batches.")]
LastRunOption = Annotated[str, _run_option("Which run.")]
ConfigOption = Annotated[
    Path | None,
    Option(
        "--config",
        "-c",
        parser=parse_config,
        metavar="FILE|builtin",
        help="The configuration; else $PIPELINE_CONFIG, ./config.toml,"
        " ~/.config/pipeline/config.toml, then the built-in sandbox config (builtin).",
        show_default=False,
    ),
]
SourceOption = Annotated[str | None, _source_option("Only what concerns this source.")]
SourcesOption = Annotated[
    list[str] | None, _source_option("Only this source; may be given repeatedly.")
]
BatchesOption = Annotated[
    str | None,
    Option(
        "--batches",
        metavar="SIZES|-",
        help="Order these instead of what the file says: `2 3 5..8`, behind a source's name where"
        " several are asked; - reads such lines from standard input.",
    ),
]
FormatOption = Annotated[Format, Option("--format", "-f", help="For people or for programs.")]
ShapeOption = Annotated[
    Shape, Option("--format", "-f", help="For people, programs, sheets, tickets or browsers.")
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
    Option(
        metavar="SECONDS",
        min=0.001,
        help="Stop sending requests after this many seconds (overrides the file).",
    ),
]
ForceOption = Annotated[bool, Option("--force", help="Replace the file if it exists.")]
LogFormatOption = Annotated[
    Format, Option("--log-format", help="Lines on stderr for people, or as JSON objects.")
]
