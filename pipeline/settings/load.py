"""From a file, the environment and options to settings, with every complaint at once."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError, UsageError
from pipeline.settings.checks import BATCH_FORMS, check_name
from pipeline.settings.complaints import Complaints, Location, dotted, nearest, plain, printable
from pipeline.settings.contradictions import (
    find_in_notify,
    find_in_schedule,
    find_in_source,
    find_in_use,
)
from pipeline.settings.environment import (
    FILE_VARIABLE,
    Document,
    apply_variables,
    expand_home,
    tables_of_sources,
    xdg_folder,
)
from pipeline.settings.resolve import Resolver, read_bytes, reason
from pipeline.settings.tables import (
    KINDS,
    WORDS,
    CollectSettings,
    NotifySettings,
    SandboxSettings,
    ScheduleSettings,
    Settings,
    SourceSettings,
    StoreSettings,
    keys_of,
)

FILE = "config.toml"
MOST_BYTES = 2**20

_TABLES = ("collect", "store", "sandbox", "schedule", "notify", "sources")
_INLINE_SECRETS = frozenset({"api_key", "apikey", "key", "password", "secret", "token"})

_MISSING = {"kind": f"; give one of {', '.join(KINDS)}", "batches": f"; give {BATCH_FORMS}"}

_Model = TypeVar("_Model", bound=BaseModel)


def _shipped_file() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / FILE
    return installed if installed.exists() else package.parent / FILE


def _find_file(environ: Mapping[str, str]) -> Path:
    if given := environ.get(FILE_VARIABLE):
        return expand_home(given, environ)
    here, users = Path(FILE), xdg_folder(environ, "XDG_CONFIG_HOME", ".config") / FILE
    return next((file for file in (here, users) if _exists(file)), _shipped_file())


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that we may not look into
        return False


def _read_document(file: Path) -> Document:
    shown = printable(str(file))
    try:
        str(file.absolute()).encode()  # the store and the digest want text
        text = read_bytes(file, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 text (byte {error.start})") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"{shown}: has a name that is not UTF-8") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown}: cannot be read: {reason(error)}") from error
    if not text.strip():
        raise ConfigError(f"{shown}: is empty; begin with a copy of {_shipped_file()}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{shown}: is not valid TOML: {printable(str(error))}") from error
    except (RecursionError, ValueError) as error:  # a ValueError: int() has a limit
        raise ConfigError(f"{shown}: is nested too deeply or has an endless number") from error


def _check_table(
    model: type[_Model], table: object, location: Location, complaints: Complaints
) -> _Model | None:
    if not isinstance(table, dict):
        complaints.add(location, f"must be one table, [{dotted(location)}]")
        return None
    known = keys_of(model)
    for key in [key for key in table if key not in known]:
        complaints.add((*location, key), _about_unknown_key(key, known))
    try:
        return model.model_validate({key: table[key] for key in table if key in known})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            hint = _MISSING.get(str(detail["loc"][-1]), "") if detail["type"] == "missing" else ""
            complaints.add((*location, *detail["loc"]), plain(detail) + hint)
    return None


def _about_unknown_key(key: str, known: Collection[str]) -> str:
    if "api_key_env" in known and key in _INLINE_SECRETS:
        return "keep keys out of this file: name the variable (api_key_env) or file (api_key_file)"
    guess = nearest(key, known)
    return f"is not a known key{guess or '; known are ' + ', '.join(known)}"


def _check_source(name: str, table: object, complaints: Complaints) -> SourceSettings | None:
    location = ("sources", name)
    try:
        check_name(name)
    except ValueError as error:
        complaints.add(location, str(error))
    if isinstance(table, dict) and "word" in table:
        if table.keys() & {"min", "max"}:
            complaints.add((*location, "word"), "sets min and max; remove it, or remove them")
        word = table["word"]
        low, high = WORDS.get(word, (None, None)) if isinstance(word, str) else (None, None)
        table = {"min": low, "max": high, **table}
    source = _check_table(SourceSettings, table, location, complaints)
    if source is not None:
        for key, problem in find_in_source(source):
            complaints.add((*location, key), problem)
    return source


def _check_sources(document: Document, complaints: Complaints) -> dict[str, SourceSettings]:
    if not isinstance(document.get("sources", {}), dict):
        complaints.add(("sources",), "must hold tables, [sources.<name>]")
        return {}
    if not (tables := tables_of_sources(document)):
        complaints.add(("sources",), "there is none; add a table [sources.<name>]")
    checked = ((name, _check_source(name, table, complaints)) for name, table in tables.items())
    return {name: source for name, source in checked if source is not None}


def load_settings(
    path: Path | None, environ: Mapping[str, str], *, will_ask: bool = True
) -> Settings:
    """Read the settings: *path*, else the first of these that there is.

    ``$PIPELINE_CONFIG``, ``./config.toml``, ``$XDG_CONFIG_HOME/pipeline/config.toml``, the file
    that comes with the program. ``PIPELINE_<TABLE>_<KEY>`` in *environ* wins over the file. Unless
    this process *will_ask* upstreams, the keys and certificates for that may be missing.

    Raises:
        ConfigError: one line for everything that is wrong.
    """
    file = path or _find_file(environ)
    complaints = Complaints(printable(str(file)))
    document = _read_document(file)
    apply_variables(document, environ, complaints)
    for key in [key for key in document if key not in _TABLES]:
        complaints.add((key,), f"is not a known table{nearest(key, _TABLES)}")

    def table(model: type[_Model], name: str) -> _Model:
        # The defaults stand in for a table that is wrong, so that the search can go on.
        return _check_table(model, document.get(name, {}), (name,), complaints) or model()

    collect, sandbox = table(CollectSettings, "collect"), table(SandboxSettings, "sandbox")
    store, sources = table(StoreSettings, "store"), _check_sources(document, complaints)
    schedule, notify = table(ScheduleSettings, "schedule"), table(NotifySettings, "notify")
    enabled = {name: source for name, source in sources.items() if source.enabled}
    for location, problem in find_in_schedule(schedule, enabled):
        complaints.add(location, problem)
    for location, problem in find_in_notify(notify):
        complaints.add(location, problem)
    for location, problem in find_in_use(collect, enabled):
        complaints.add(location, problem)
    resolver = Resolver(file.absolute().parent, environ, complaints)
    settings = Settings(
        path=file.absolute(),
        collect=collect,
        store=resolver.resolve_store(store),
        sandbox=sandbox,
        schedule=schedule,
        notify=resolver.resolve_notify(notify, will_tell=will_ask),
        sources={
            name: resolver.resolve_source(name, s, is_asked=will_ask and s.enabled)
            for name, s in sources.items()
        },
    )
    complaints.raise_any()
    return settings


def with_overrides(
    settings: Settings,
    *,
    deadline_seconds: float | None = None,
    sources: Collection[str] = (),
) -> Settings:
    """Give this run another deadline, or ask only these *sources*; empty: all that are enabled.

    A deadline may be shorter here than an attempt: it was asked for, and cuts the attempt.

    Raises:
        UsageError: the deadline is none, or a source is unknown or not enabled; a line for each.
    """
    complaints = Complaints("command line")
    collect = settings.collect
    if deadline_seconds is not None:
        values = {**collect.model_dump(), "deadline_seconds": deadline_seconds}
        collect = _check_table(CollectSettings, values, (), complaints) or collect
    for name in dict.fromkeys(sources):
        if name not in settings.sources:
            known = ", ".join(settings.sources)
            complaints.lines.append(f"--source {name!a}: there is none; known are {known}")
        elif not settings.sources[name].enabled:
            problem = "is not enabled; set enabled = true in its table"
            complaints.lines.append(f"--source {name}: {problem}")
    if complaints.lines:
        raise UsageError("\n".join(complaints.lines))
    chosen = {
        name: source
        if name in sources or not sources
        else source.model_copy(update={"enabled": False})
        for name, source in settings.sources.items()
    }
    return replace(settings, collect=collect, sources=chosen)
