"""What the environment says: home folders, and variables that win over the file."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.errors import ConfigError
from pipeline.settings.complaints import Complaints, Location, dotted, nearest, printable
from pipeline.settings.tables import (
    CollectSettings,
    NotifySettings,
    SandboxSettings,
    ScheduleSettings,
    SourceSettings,
    StoreSettings,
    keys_of,
)

PREFIX = "PIPELINE_"
FILE_VARIABLE = "PIPELINE_CONFIG"
ALIKE = 0.85  # all of our variables begin alike, so only a slip of the pen comes so near
TABLES: dict[str, type[BaseModel]] = {
    "collect": CollectSettings,
    "store": StoreSettings,
    "sandbox": SandboxSettings,
    "schedule": ScheduleSettings,
    "notify": NotifySettings,
}

Document = dict[str, Any]  # config.toml as tomllib reads it


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise ConfigError("HOME: is not set; set it, or name all files in full") from error


def expand_home(name: str, environ: Mapping[str, str]) -> Path:
    """Replace a leading ``~``, as crontabs and units leave it where a shell would not.

    Raises:
        ConfigError: neither ``$HOME`` nor the system knows the user's home folder.
    """
    is_below_home = name == "~" or name.startswith("~/")
    return _home(environ) / name[2:] if is_below_home else Path(name)


def xdg_folder(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Find our folder below ``$variable``, else below *default* in the home folder.

    Raises:
        ConfigError: the home folder is needed and not known.
    """
    base = Path(environ.get(variable, ""))
    # The XDG specification: a relative path in such a variable is to be ignored.
    return (base if base.is_absolute() else _home(environ) / default) / "pipeline"


def tables_of_sources(document: Document) -> dict[str, Any]:
    """Pick the ``[sources.<name>]`` tables; empty if there is none."""
    sources = document.get("sources")
    return sources if isinstance(sources, dict) else {}


def _locations(document: Document) -> Iterator[tuple[str, ...]]:
    for table, model in TABLES.items():
        yield from ((table, key) for key in keys_of(model))
    keys = [*keys_of(SourceSettings), "api_key"]  # the last is known so that it is refused well
    for name, source in tables_of_sources(document).items():
        if isinstance(source, dict):
            yield from (("sources", name, key) for key in keys)


def _variable(location: tuple[str, ...]) -> str:
    return PREFIX + "_".join(location).upper().replace("-", "_")


def _parse(text: str) -> object:
    """Read *text* as one TOML value, or take it as it is."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text  # a line break could bring more


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that Python carries along as lone surrogates
        return False
    return True


def _table_at(document: Document, location: Location) -> Document | None:
    """Find the table that *location* is in, making it if it is missing."""
    table: Any = document
    for part in location[:-1]:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None


def apply_variables(document: Document, environ: Mapping[str, str], complaints: Complaints) -> None:
    """Put the values of ``PIPELINE_<TABLE>_<KEY>`` variables into *document*.

    A name that is not known is a complaint, unless a secret is kept there.
    """
    given = sorted(name for name in environ if name.startswith(PREFIX) and name != FILE_VARIABLE)
    if not given:
        return
    known: dict[str, list[tuple[str, ...]]] = {}
    for location in _locations(document):
        known.setdefault(_variable(location), []).append(location)
    for name in given:
        if name in known:
            _apply(document, printable(name), environ[name], known[name], complaints)
    for name in given:
        if name not in known and name not in _key_variables(document):
            problem = f"is not a known setting{nearest(name, known, alike=ALIKE)}"
            complaints.lines.append(f"{printable(name)}: {problem}")


def _apply(
    document: Document,
    variable: str,
    value: str,
    locations: list[tuple[str, ...]],
    complaints: Complaints,
) -> None:
    location, *others = locations
    if others:
        problem = f"means {dotted(location)} and {dotted(others[0])}; rename one"
        complaints.lines.append(f"{variable}: {problem}")
    if not _is_text(value):
        complaints.lines.append(f"{variable}: is not valid UTF-8")
    elif (table := _table_at(document, location)) is not None:
        table[location[-1]] = _parse(value)
        complaints.variables[location] = variable


def _key_variables(document: Document) -> set[str]:
    sources = tables_of_sources(document).values()
    names = [source.get("api_key_env") for source in sources if isinstance(source, dict)]
    if isinstance(notify := document.get("notify"), dict):
        names.append(notify.get("ping_url_env"))
    return {name for name in names if isinstance(name, str)}
