"""What settings point at: files, made absolute, and keys, read from where they are kept."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pipeline.files import URL_QUERY, read_bytes
from pipeline.settings.checks import check_proxy_url, check_url
from pipeline.settings.complaints import Complaints, Location, shown
from pipeline.settings.environment import expand_home, xdg_folder
from pipeline.settings.tables import (
    CollectSettings,
    NotifySettings,
    SourceSettings,
    StoreSettings,
)

MOST_KEY_BYTES = 4096
MOST_CA_BYTES = 2**20
HIGHEST_PORT = 65535
DATABASE = "pipeline.db"

_KEY = rb"[\x21-\x7e]+"  # what every HTTP header carries unharmed
# What begins like a URL: a folder may be called `a:b`, too.
_SCHEME = (
    r"(?ai)(sqlite|file|postgres\w*|mysql|mariadb|oracle|mssql)(\+\w+)?:|[a-z][\w+]*:(//|[^/]*$)"
)
_SQLITE_FILE = r"(?a)(sqlite(?:\+\w+)?:///)(?!file:)(.+)"
_SERVER = r"(?a)[^:]+://(.*@)?(\[[\w:.%]+\]|[^\[\]:/?@]*)(:(?P<port>\d{1,5}))?([/?].*)?"
_SQLITE_MEMORY = r"(?a)(sqlite(\+\w+)?:/*)?(:memory:)?(\?[^/]*)?"


def reason(error: OSError | ValueError) -> str:
    """Say in the system's words why a file could not be read."""
    return getattr(error, "strerror", None) or str(error)


def _is_server(url: str) -> bool:
    found = re.fullmatch(_SERVER, url)
    return found is not None and 0 < int(found["port"] or 1) <= HIGHEST_PORT


def _check_key(key: bytes) -> str:
    key = key.rstrip(b"\r\n")
    if not key:
        raise ValueError("the key is empty")
    if len(key) > MOST_KEY_BYTES or not re.fullmatch(_KEY, key):
        raise ValueError("the key holds blanks, control or non-ASCII characters, or is too long")
    return key.decode("ascii")


@dataclass(frozen=True, slots=True)
class Resolver:
    """Follows what settings point at.

    Attributes:
        folder: where relative names of the file begin; those of variables begin here and now.
    """

    folder: Path
    environ: Mapping[str, str]
    complaints: Complaints

    def resolve_store(self, store: StoreSettings) -> StoreSettings:
        """Make the database's address a complete URL."""
        url = self._store_url(store.url)
        if not url.isprintable() and store.url:
            self.complaints.add(("store", "url"), "must not contain control characters")
        elif not url.isprintable():
            problem = f"{shown(url)} is no name that can be kept and shown; give another"
            self.complaints.add(("store", "url"), f"is not set, and by $HOME {problem}")
        return store.model_copy(update={"url": url})

    def resolve_source(
        self, name: str, source: SourceSettings, *, is_asked: bool
    ) -> SourceSettings:
        """Make files absolute; if *source* is asked, read its key and see that they are there."""
        update: dict[str, object] = {
            key: str(self._absolute(("sources", name, key), file))
            for key in ("api_key_file", "ca_file", "proof_key_file")
            if (file := getattr(source, key))
        }
        if source.attempt_seconds is not None:
            update["connect_seconds"] = min(source.connect_seconds, source.attempt_seconds)
        source = source.model_copy(update=update)
        if not is_asked:
            return source
        try:
            if source.ca_file:
                read_bytes(Path(source.ca_file), MOST_CA_BYTES)
        except (OSError, ValueError) as error:
            self.complaints.add(("sources", name, "ca_file"), f"cannot be read: {reason(error)}")
        key, proxy_url = self._find_key(name, source), self._find_proxy(("sources", name), source)
        return source.model_copy(update={"api_key": key, "proxy_url": proxy_url})

    def resolve_collect(self, collect: CollectSettings, *, will_ask: bool) -> CollectSettings:
        """If anybody *will_ask*, read the address of the proxy."""
        proxy_url = self._find_proxy(("collect",), collect) if will_ask else None
        return collect.model_copy(update={"proxy_url": proxy_url})

    def _find_proxy(
        self, table: Location, settings: CollectSettings | SourceSettings
    ) -> SecretStr | None:
        location = (*table, "proxy_env")
        return self._from_variable(location, settings.proxy_env, check_proxy_url)

    def resolve_notify(self, notify: NotifySettings, *, will_tell: bool) -> NotifySettings:
        """Make files absolute; if anybody *will_tell*, read where to ping."""
        update: dict[str, object] = {}
        for key in ("metrics_file", "html_file"):
            if file := getattr(notify, key):
                update[key] = str(self._absolute(("notify", key), file))
        for key in ("on_failure", "on_recovery"):
            command = getattr(notify, key)
            if command and "/" in command[0]:  # else it is looked for in $PATH
                update[key] = (str(self._absolute(("notify", key), command[0])), *command[1:])
        if will_tell and notify.ping_url_env:
            url = self._from_variable(("notify", "ping_url_env"), notify.ping_url_env, check_url)
            update["ping_url"] = url or SecretStr("")
        return notify.model_copy(update=update)

    def _absolute(self, location: Location, name: str) -> Path:
        file = expand_home(name, self.environ)
        if location not in self.complaints.variables:
            return self.folder / file
        try:
            return file.absolute()
        except OSError:
            self.complaints.add(location, "the current folder is gone; give the full name")
        return file

    def _store_url(self, url: str) -> str:
        location = ("store", "url")
        if not url:
            folder = xdg_folder(self.environ, "XDG_DATA_HOME", ".local/share")
            return f"sqlite:///{folder / DATABASE}"
        if re.fullmatch(_SQLITE_MEMORY, url):
            self.complaints.add(location, "would be forgotten after the run; name a file")
        elif found := re.fullmatch(_SQLITE_FILE, url):
            return f"{found[1]}{self._absolute(location, found[2])}"
        elif not re.match(_SCHEME, url) and not re.search(URL_QUERY, url):
            return f"sqlite:///{self._absolute(location, url)}"
        elif "://" not in url:
            self.complaints.add(location, "must be a file's name or a URL like sqlite:///name.db")
        elif not re.match("(?ai)(sqlite|postgresql)[+:]", url):
            scheme = url.partition(":")[0]
            problem = f"a store is an SQLite file or postgresql://…, not {scheme}"
            self.complaints.add(location, problem)
        elif re.match("(?i)sqlite[^:]*://[^/]", url):
            self.complaints.add(location, "must name a file, as in sqlite:///name.db")
        elif not _is_server(url) and not re.match("(?i)sqlite", url):
            self.complaints.add(location, "is no postgresql://user:password@host:port/database")
        return url

    def _find_key(self, name: str, source: SourceSettings) -> SecretStr | None:
        if source.api_key_env:
            return self._from_variable(("sources", name, "api_key_env"), source.api_key_env)
        try:
            if file := source.api_key_file:
                return SecretStr(_check_key(read_bytes(Path(file), MOST_KEY_BYTES)))
        except (OSError, ValueError) as error:
            location = ("sources", name, "api_key_file")
            self.complaints.add(location, f"the file cannot be used: {reason(error)}")
        return None

    def _from_variable(
        self, location: Location, variable: str, check: Callable[[str], object] = str
    ) -> SecretStr | None:
        """Read a secret from *variable*, if one is named, and *check* it."""
        if not variable:
            return None
        try:
            secret = _check_key(self.environ[variable].encode("utf-8", "surrogateescape"))
            check(secret)
            return SecretStr(secret)
        except KeyError:
            self.complaints.add(location, f"the environment variable {variable} is not set")
        except ValueError as error:
            self.complaints.add(location, f"the environment variable {variable}: {error}")
        return None
