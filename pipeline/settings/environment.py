"""What the environment says: home folders, and variables that win over the file."""

import os
import pwd
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from pipeline.errors import ConfigError
from pipeline.settings.checks import is_loopback
from pipeline.settings.complaints import Complaints, Location, dotted, printable, shown
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
# How alike, from 0 to 1, a name is to one of ours that is a slip of the pen: a key in a table that
# is ours, and the whole of a name, since ours all begin alike.
KEY_ALIKE, NAME_ALIKE = 0.75, 0.88

# What Kubernetes sets for a service that is called pipeline or pipeline-something, and Docker for
# a linked container.
_OF_A_CLUSTER = re.compile(
    r"PIPELINE_(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|NAME|ENV_\w+)"
)
_LINKED = re.compile(r"/[\w.-]+/[\w.-]+")  # the value of Docker's PIPELINE_…_NAME
TABLES: dict[str, type[BaseModel]] = {
    "collect": CollectSettings,
    "store": StoreSettings,
    "sandbox": SandboxSettings,
    "schedule": ScheduleSettings,
    "notify": NotifySettings,
}

Document = dict[str, Any]  # config.toml as tomllib reads it


def _home(environ: Mapping[str, str]) -> Path:
    try:  # not Path.home(), to which an empty HOME is "/"
        home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError as error:
        raise ConfigError("HOME: is not set; set it, or name all files in full") from error
    if not home.startswith("/"):
        raise ConfigError(f"HOME: must be the full name of a folder, not {shown(home)}")
    return Path(home)


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


def find_state_folder(environ: Mapping[str, str]) -> Path:
    """Find the folder for what belongs to this machine alone, as locks do.

    Raises:
        ConfigError: the home folder is needed and not known.
    """
    return xdg_folder(environ, "XDG_STATE_HOME", ".local/state")


def proxy_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick what *environ* says about proxies, in the order in which it is asked.

    A CGI server puts a request's headers there, and one may be called ``Proxy``: HTTP_PROXY is not
    believed then.
    """
    names = [name for scheme in ("http", "https", "all", "no") for name in _spellings(scheme)]
    is_cgi = "REQUEST_METHOD" in environ
    return {
        name: environ[name]
        for name in names
        if environ.get(name) and not (is_cgi and name == "HTTP_PROXY")
    }


def find_proxy(variables: Mapping[str, str], url: str) -> tuple[str, str] | None:
    """Name the variable whose proxy is for *url*, and give its value; None if none is."""
    parts = urlsplit(url)
    names = [name for scheme in (parts.scheme.lower(), "all") for name in _spellings(scheme)]
    given = next((name for name in names if name in variables), None)
    except_for = next((variables[name] for name in _spellings("no") if name in variables), "")
    host, port = (parts.hostname or "").rstrip("."), parts.port
    if given is None or is_loopback(url):
        return None
    if any(_is_meant(entry.strip().lower(), host, port) for entry in except_for.split(",")):
        return None
    value = variables[given]
    return given, value if "://" in value else f"http://{value}"


def _spellings(scheme: str) -> tuple[str, str]:
    return f"{scheme}_proxy", f"{scheme}_proxy".upper()


def _is_meant(entry: str, host: str, port: int | None) -> bool:
    """Tell whether *entry* of NO_PROXY is about *host*: a name, its domain, a network, or all."""
    if entry == "*" or not entry:
        return bool(entry)
    with suppress(ValueError):
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    name, _, of_port = entry.partition(":")
    if of_port and of_port != str(port):
        return False
    name = name.removeprefix("*").lstrip(".")
    return host == name or host.endswith(f".{name}")


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

    A name that differs from one of ours by a slip of the pen is a complaint: what it was to set
    would silently not hold. Others are none of our business: clusters and build servers set many
    names of this kind by themselves.
    """
    given = sorted(name for name in environ if name.startswith(PREFIX) and name != FILE_VARIABLE)
    if not given:
        return
    known: dict[str, list[tuple[str, ...]]] = {}
    for location in _locations(document):
        known.setdefault(_variable(location), []).append(location)
    unknown = []
    for name in given:
        if name not in known:
            unknown.append(name)
        elif not (name.endswith("_NAME") and _LINKED.fullmatch(environ[name])):
            _apply(document, printable(name), environ[name], known[name], complaints)
    for name in unknown:
        if name not in _key_variables(document) and (meant := _meant(name, known)):
            problem = f"is not a known setting; did you mean {meant}?"
            complaints.lines.append(f"{printable(name)}: {problem}")


def _meant(name: str, known: Mapping[str, list[tuple[str, ...]]]) -> str | None:
    """Find the variable of ours that *name* is a misspelling of; None if it is somebody else's."""
    if _OF_A_CLUSTER.fullmatch(name):
        return None
    tables: dict[str, list[str]] = {}
    for variable, (location, *_) in known.items():
        table = _variable((*location[:-1], ""))
        tables.setdefault(table, []).append(variable.removeprefix(table))
    spelled = name.upper()
    for table, keys in tables.items():
        if spelled.startswith(table):
            key = spelled.removeprefix(table)
            begun = [each for each in keys if each.startswith(f"{key}_")]
            if found := get_close_matches(key, keys, n=1, cutoff=KEY_ALIKE) or begun:
                return table + found[0]
    words = [variable.removeprefix(PREFIX) for variable in (*known, FILE_VARIABLE)]
    found = get_close_matches(spelled.removeprefix(PREFIX), words, n=1, cutoff=NAME_ALIKE)
    return PREFIX + found[0] if found else None


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
    tables = [document.get("collect"), *sources]
    keys = ("api_key_env", "proxy_env")
    names = [table.get(key) for table in tables if isinstance(table, dict) for key in keys]
    if isinstance(notify := document.get("notify"), dict):
        names.append(notify.get("ping_url_env"))
    return {name for name in names if isinstance(name, str)}
