"""What settings point at: files, made absolute, and keys, read from where they are kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pipeline.settings.complaints import Complaints, Location
from pipeline.settings.environment import home, xdg_folder
from pipeline.settings.tables import SourceSettings, StoreSettings

MOST_KEY_BYTES = 4096
MOST_CA_BYTES = 2**20
DATABASE = "pipeline.db"

_KEY = re.compile(rb"[\x21-\x7e]+")  # what every HTTP header carries unharmed
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_+]*:")
_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!file:)([^?]+)(.*)", re.ASCII)
_SQLITE_MEMORY = re.compile(r"(sqlite(\+\w+)?:/*)?(:memory:)?(\?.*)?", re.ASCII)


def reason(error: OSError | ValueError) -> str:
    """Say in the system's words why a file could not be read."""
    return getattr(error, "strerror", None) or str(error)


def read_bytes(file: Path, most: int) -> bytes:
    """Read *file*, which may be one without an end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than *most* bytes, or its name is none.
    """
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is longer than {most} bytes")
    return content


def _check_key(key: bytes) -> str:
    key = key.rstrip(b"\r\n")
    if not key:
        raise ValueError("the key is empty")
    if len(key) > MOST_KEY_BYTES or not _KEY.fullmatch(key):
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
        return store.model_copy(update={"url": self._store_url(store.url)})

    def resolve_source(self, name: str, source: SourceSettings) -> SourceSettings:
        """Make files absolute; if *source* is enabled, read its key and see that they are there."""
        update: dict[str, object] = {
            key: str(self._absolute(("sources", name, key), file))
            for key, file in (("api_key_file", source.api_key_file), ("ca_file", source.ca_file))
            if file
        }
        if source.attempt_seconds is not None:
            update["connect_seconds"] = min(source.connect_seconds, source.attempt_seconds)
        source = source.model_copy(update=update)
        if not source.enabled:
            return source
        try:
            if source.ca_file:
                read_bytes(Path(source.ca_file), MOST_CA_BYTES)
        except (OSError, ValueError) as error:
            self.complaints.add(("sources", name, "ca_file"), f"cannot be read: {reason(error)}")
        return source.model_copy(update={"api_key": self._find_key(name, source)})

    def _absolute(self, location: Location, name: str) -> Path:
        if name == "~" or name.startswith("~/"):
            return home(self.environ) / name[2:]
        return (Path.cwd() if location in self.complaints.variables else self.folder) / name

    def _store_url(self, url: str) -> str:
        location = ("store", "url")
        if not url:
            folder = xdg_folder(self.environ, "XDG_DATA_HOME", ".local/share")
            return f"sqlite:///{folder / DATABASE}"
        if not url.isprintable():
            self.complaints.add(location, "must not contain control characters")
        elif _SQLITE_MEMORY.fullmatch(url):
            self.complaints.add(location, "would be forgotten after the run; name a file")
        elif found := _SQLITE_FILE.fullmatch(url):
            return f"{found[1]}{self._absolute(location, found[2])}{found[3]}"
        elif not _SCHEME.match(url) and "?" not in url:
            return f"sqlite:///{self._absolute(location, url)}"
        elif "://" not in url:
            self.complaints.add(location, "must be a file's name or a URL like sqlite:///name.db")
        return url

    def _find_key(self, name: str, source: SourceSettings) -> SecretStr | None:
        if variable := source.api_key_env:
            return self._key_from_variable(("sources", name, "api_key_env"), variable)
        if file := source.api_key_file:
            return self._key_from_file(("sources", name, "api_key_file"), Path(file))
        return None

    def _key_from_variable(self, location: Location, variable: str) -> SecretStr | None:
        value = self.environ.get(variable, "").encode("utf-8", "surrogateescape")
        try:
            return SecretStr(_check_key(value))
        except ValueError as error:
            self.complaints.add(location, f"the environment variable {variable}: {error}")
        return None

    def _key_from_file(self, location: Location, file: Path) -> SecretStr | None:
        try:
            return SecretStr(_check_key(read_bytes(file, MOST_KEY_BYTES)))
        except (OSError, ValueError) as error:
            self.complaints.add(location, f"the file cannot be used: {reason(error)}")
        return None
