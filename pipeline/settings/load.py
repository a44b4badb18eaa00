"""From a file, the environment and options to settings, with every complaint at once."""

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import ConfigError, UsageError
from pipeline.files import read_bytes
from pipeline.settings.checks import check_name
from pipeline.settings.complaints import (
    Complaints,
    Location,
    dotted,
    list_choices,
    nearest,
    plain,
    printable,
)
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
    proxy_variables,
    tables_of_sources,
    xdg_folder,
)
from pipeline.settings.presets import PRESETS
from pipeline.settings.resolve import Resolver, reason
from pipeline.settings.sizes import BATCH_FORMS, parse_orders
from pipeline.settings.tables import (
    KINDS,
    SANDBOX,
    WORDS,
    CollectSettings,
    NotifySettings,
    SandboxSettings,
    ScheduleSettings,
    Settings,
    SourceSettings,
    StoreSettings,
    keys_of,
    known_at,
)

FILE = "config.toml"
BUILTIN = "builtin"  # means the file that comes with the program; ./builtin is a file like any
MOST_BYTES = 2**20
MAY_BE_OURS = 0.8  # how much like a table of ours a key must look, from 0 to 1

_TABLES = ("collect", "store", "sandbox", "schedule", "notify", "sources")
_INLINE_SECRETS = frozenset({"api_key", "apikey", "key", "password", "secret", "token"})

_MISSING = {
    "kind": f"; give one of {list_choices(KINDS)}",
    "batches": f"; give {BATCH_FORMS}",
    "numbers": '; say where the numbers stand: "" (the whole answer), "/data", "/items/*/value"',
    "most": "; give the most that one request may ask for",
}

_Model = TypeVar("_Model", bound=BaseModel)


def _shipped_file() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / FILE
    return installed if installed.exists() else package.parent / FILE


def config_file(name: str) -> Path:
    """Find the file that a user means who wrote *name*."""
    return _shipped_file() if name == BUILTIN else Path(name)


def config_name(file: Path) -> str:
    """Write *file* in such a way that ``config_file`` finds it again."""
    return BUILTIN if file == _shipped_file() else str(file)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The file that was taken.

    Attributes:
        named: its full name, and why it was taken.
        searched: where none was found, so that only the built-in one was left.
    """

    file: Path
    named: str
    document: Document
    searched: tuple[Path, ...] = ()


def _choose(path: Path | None, environ: Mapping[str, str], say: Callable[[str], object]) -> _Choice:
    if path is not None:
        return _take(path, "--config")
    if given := environ.get(FILE_VARIABLE):
        file = config_file(given) if given == BUILTIN else expand_home(given, environ)
        return _take(file, f"${FILE_VARIABLE}")
    here = _in_full(Path(FILE))
    if _exists(here):
        choice = _take(here, "in the current folder")
        if not _is_foreign(choice.document):
            return choice
        say(f"{printable(str(here))}: is not for this program (none of its tables), passed over")
    users = xdg_folder(environ, "XDG_CONFIG_HOME", ".config") / FILE
    if _exists(users):
        return _take(users, "in your configuration folder")
    return replace(_take(_shipped_file(), "built-in"), searched=(here, users))


def _take(file: Path, why: str) -> _Choice:
    file = _in_full(file)
    named = f"{printable(str(file))} ({why})"
    return _Choice(file, named, _read_document(file, named))


def _in_full(file: Path) -> Path:
    try:
        return file.absolute()
    except OSError:  # the current folder is gone
        return file


def _is_foreign(document: Document) -> bool:
    """Tell whether a file is another program's: nothing in it even looks like a table of ours."""
    return bool(document) and not any(
        key in _TABLES or nearest(key, _TABLES, alike=MAY_BE_OURS) for key in document
    )


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that we may not look into
        return False


def _read_document(file: Path, shown: str) -> Document:
    try:
        str(file).encode()  # the store and the digest want text
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
            complaints.add((*location, *detail["loc"]), _about_detail(detail, model))
    return None


def _about_detail(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key = str(detail["loc"][-1])
    if detail["type"] == "extra_forbidden":
        return _about_unknown_key(key, known_at(model, detail["loc"][:-1]))
    return plain(detail) + (_MISSING.get(key, "") if detail["type"] == "missing" else "")


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
    source = _check_table(SourceSettings, _with_preset(table), location, complaints)
    if source is not None:
        for place, problem in find_in_source(source):
            complaints.add((*location, *place), problem)
    return source


def _with_preset(table: object) -> object:
    """Put what is known of a JSON API behind what the file says of it."""
    if not isinstance(table, dict) or not isinstance(kind := table.get("kind"), str):
        return table
    preset, given = PRESETS.get(kind.removeprefix(SANDBOX)), table.get("api", {})
    return {**table, "api": {**preset, **given}} if preset and isinstance(given, dict) else table


def _check_sources(document: Document, complaints: Complaints) -> dict[str, SourceSettings]:
    if not isinstance(document.get("sources", {}), dict):
        complaints.add(("sources",), "must hold tables, [sources.<name>]")
        return {}
    if not (tables := tables_of_sources(document)):
        complaints.add(("sources",), "there is none; add a table [sources.<name>]")
    checked = ((name, _check_source(name, table, complaints)) for name, table in tables.items())
    return {name: source for name, source in checked if source is not None}


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    will_ask: bool = True,
    say: Callable[[str], object] = lambda _: None,
) -> Settings:
    """Read the settings: *path*, else the first of these that there is.

    ``$PIPELINE_CONFIG``, ``./config.toml`` unless it is another program's (*say* is told so),
    ``$XDG_CONFIG_HOME/pipeline/config.toml``, the file that comes with the program.
    ``PIPELINE_<TABLE>_<KEY>`` in *environ* wins over the file. Unless this process *will_ask*
    upstreams, the keys and certificates for that may be missing.

    Raises:
        ConfigError: one line for everything that is wrong.
    """
    choice = _choose(path, environ, say)
    file, document = choice.file, choice.document
    complaints = Complaints(choice.named)
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
    resolver = Resolver(file.parent, environ, complaints)
    settings = Settings(
        path=file,
        named=choice.named,
        searched=choice.searched,
        collect=resolver.resolve_collect(collect, will_ask=will_ask),
        proxy_variables=proxy_variables(environ),
        overrides=tuple(sorted(complaints.variables.values())),
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
    batches: str | None = None,
) -> Settings:
    """Give this run another deadline, ask only these *sources*, or order these *batches*.

    No sources: all that are enabled. A deadline may be shorter here than an attempt: it was asked
    for, and cuts the attempt. *batches* are lines as ``sizes.parse_orders`` reads them; a source
    that none of them names is not asked.

    Raises:
        UsageError: the deadline is none, a source is unknown or not enabled, or the batches cannot
            be read; a line for each.
    """
    complaints = Complaints("command line", {("deadline_seconds",): "--deadline"})
    collect = settings.collect
    if deadline_seconds is not None:
        values = {**collect.model_dump(), "deadline_seconds": deadline_seconds}
        checked = _check_table(CollectSettings, values, (), complaints) or collect
        collect = checked.model_copy(update={"proxy_url": collect.proxy_url})
    for name in dict.fromkeys(sources):
        if name not in settings.sources:
            known = ", ".join(settings.sources)
            complaints.lines.append(f"--source {name!a}: there is none; known are {known}")
        elif not settings.sources[name].enabled:
            problem = "is not enabled; set enabled = true in its table"
            complaints.lines.append(f"--source {name}: {problem}")
    if complaints.lines:
        raise UsageError(*complaints.lines)
    chosen = {
        name: source
        if name in sources or not sources
        else source.model_copy(update={"enabled": False})
        for name, source in settings.sources.items()
    }
    settings = replace(settings, collect=collect, sources=chosen)
    return settings if batches is None else _with_batches(settings, batches)


def _with_batches(settings: Settings, text: str) -> Settings:
    try:
        orders = parse_orders(text, list(settings.enabled_sources))
    except ValueError as error:
        raise UsageError(f"--batches: {error}") from error
    sources = {
        name: source.model_copy(update={"batch_sizes": orders[name]})
        if name in orders
        else source.model_copy(update={"enabled": False})
        for name, source in settings.sources.items()
    }
    for name in orders:
        for place, problem in find_in_source(sources[name]):
            raise UsageError(f"--batches: {dotted(('sources', name, *place))}: {problem}")
    return replace(settings, sources=sources)
