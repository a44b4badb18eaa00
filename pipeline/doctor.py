"""``pipeline doctor``: what on this machine would keep a run from going well."""

import os
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from sqlite3 import sqlite_version
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.clock import find_doubt
from pipeline.errors import ConfigError, PipelineError
from pipeline.extras import DISTRIBUTION, how_to_install
from pipeline.files import database_file
from pipeline.lock import is_held, presence_at
from pipeline.rendering.output import json_lines, render_table, write
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import count_of, show_time
from pipeline.run.opening import spool_path
from pipeline.run.plan import find_impossible, plan_upstreams
from pipeline.schedule.booking import find_rhythms
from pipeline.schedule.ledger import find_schedules
from pipeline.scope import reading_if_there
from pipeline.settings import Settings, find_proxy, hide_password
from pipeline.settings.environment import find_state_folder
from pipeline.sources.http import make_ssl_context
from pipeline.store import spool, stamps
from pipeline.store.sqlite import journal_mode_for

CHECK = "topic is_ok says"

FLOOR = r"([\w.-]+)>=([\d.]+)"  # what we ask of a library, in the notes of our installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    topic: str
    is_ok: bool
    says: str


def _ok(topic: str, says: str) -> Check:
    return Check(topic=topic, is_ok=True, says=says)


def _mend(topic: str, says: str) -> Check:
    return Check(topic=topic, is_ok=False, says=says)


def diagnose(read: Callable[[], Settings]) -> Iterator[Check]:
    """Look at one thing after the other; *read* gives the settings, or says what is wrong."""
    try:
        settings = read()
    except ConfigError as exc:
        yield from (_mend("configuration", line) for line in str(exc).splitlines())
    else:
        yield from _look_at(settings)
    yield _time_zones()
    yield _certificates()
    yield from _libraries()


def _look_at(settings: Settings) -> Iterator[Check]:
    yield _configuration(settings)
    yield from _rules(settings)
    yield from _store(settings)
    if file := database_file(settings.store.url):
        yield from _rights(file)
        yield _locks(file)
    yield from _set_aside(settings)
    for look in (_proxy, _ca_file, _secret):
        checks = (look(settings, name) for name in settings.enabled_sources)
        yield from filter(None, checks)


def _configuration(settings: Settings) -> Check:
    if settings.searched:
        places = " or ".join(map(str, settings.searched))
        says = f"none at {places}: the built-in one asks the sandbox; `pipeline init` makes one"
        return _mend("configuration", says)
    return _ok("configuration", f"{settings.named}: asks {', '.join(settings.enabled_sources)}")


def _rules(settings: Settings) -> Iterator[Check]:
    """Hold a run, and the runs of a day, against the rules of the upstreams."""
    try:
        impossible = find_impossible(
            plan_upstreams(settings),
            deadline_seconds=settings.collect.deadline_seconds,
            rhythms=find_rhythms(find_schedules(settings)),
        )
    except ConfigError as exc:
        impossible = str(exc).splitlines()
    yield from (_mend("rules", line) for line in impossible)
    if not impossible:
        yield _ok("rules", "what is ordered fits the upstreams' rules")


def _store(settings: Settings) -> Iterator[Check]:
    """Open the store, and hold the clock against its history."""
    url, now = settings.store.url, datetime.now(UTC)
    name = database_file(url) or hide_password(url)
    try:
        with reading_if_there(settings.store) as session:
            if session is None:
                yield _ok("store", f"{name} is not there yet; the first run makes it")
                return
            runs, in_future = stamps.count_future(session, now=now)
            last = stamps.last_stamps(session)
    except PipelineError as exc:
        yield _mend("store", str(exc))
        return
    newest = f", the last at {show_time(last[-1].started_at)}" if last else ""
    yield _ok("store", f"{name}: {count_of(runs, 'run')}{newest}")
    if doubt := find_doubt(last, now, runs=runs, in_future=in_future):
        yield _mend("clock", f"{doubt}; set this machine's clock")
    else:
        yield _ok("clock", "fits the store's own history")


def _rights(file: Path) -> Iterator[Check]:
    """See that the database and its folder can be written."""
    if file.exists() and not file.is_file():
        return  # the store's own line has said what to do
    existing = next(each for each in (file, *file.parents) if each.exists())
    for each in dict.fromkeys((existing, existing if existing.is_dir() else existing.parent)):
        if not os.access(each, os.R_OK | os.W_OK):
            says = f"{each} cannot be written by this user; change its owner, or set store.url"
            yield _mend("rights", says)
            return
    yield _ok("rights", f"{existing} can be written")


def _locks(file: Path) -> Check:
    """Tell whether a run is going on."""
    presence = presence_at(file)
    held = is_held(presence)
    if held is None:
        says = f"{presence} cannot be locked; keep the store on a local disk (store.url)"
        return _mend("locks", says)
    return _ok("locks", "a run is going on" if held else "no run is going on")


def _set_aside(settings: Settings) -> Iterator[Check]:
    """Tell of what earlier runs could not store, and whether the next one can."""
    is_file = database_file(settings.store.url) is not None  # then they lie beside it
    folder = Path() if is_file else find_state_folder(os.environ)
    for path in spool.find_files(spool_path(settings.store, "", folder)):
        if problem := spool.find_problem(path):
            says = f"nothing of {path} is stored: {problem}; move it away to hear no more of it"
            yield _mend("set aside", says)
        else:
            yield _ok("set aside", f"the next run stores what is in {path}")


def _proxy(settings: Settings, name: str) -> Check | None:
    """Name the variable of the environment that would send requests through a proxy."""
    source = settings.sources[name]
    if (source.proxy or settings.collect.proxy) != "env" or not source.url:
        return None
    found = find_proxy(settings.proxy_variables, source.url)
    return _ok("proxy", f"{name} is asked {f'through {found[0]}' if found else 'directly'}")


def _ca_file(settings: Settings, name: str) -> Check | None:
    file = settings.sources[name].ca_file
    try:
        if file is not None:
            make_ssl_context(file)
    except ConfigError as exc:
        return _mend("certificates", f"sources.{name}.ca_file: {exc}")
    return None


def _secret(settings: Settings, name: str) -> Check | None:
    """See that nobody else can read a file with a key."""
    file = settings.sources[name].api_key_file
    if file is None or not Path(file).stat().st_mode & 0o077:
        return None
    return _mend("keys", f"sources.{name}.api_key_file: others can read {file}; chmod 600 it")


def _time_zones() -> Check:
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return _mend("time zones", f"this system has none; {how_to_install('tzdata')}")
    return _ok("time zones", "known")


def _certificates() -> Check:
    """Count whom the system trusts."""
    trusted = make_ssl_context(None).cert_store_stats()["x509_ca"]
    places = ssl.get_default_verify_paths()
    if trusted or any(place and Path(place).exists() for place in (places.cafile, places.capath)):
        return _ok("certificates", "the system's are there")
    says = "the system trusts nobody, so https fails; install its ca-certificates"
    return _mend("certificates", says)


def _libraries() -> Iterator[Check]:
    """Hold the libraries against the oldest versions that do; older ones have known faults."""
    for name, oldest in _floors():
        has = _version(name)
        if has is None or _numbers(has) < _numbers(oldest):
            command = how_to_install(f"'{name}>={oldest}'")
            says = f"{name} {has or 'is missing'}: it must be {oldest} or newer; {command}"
            yield _mend("libraries", says)
    python = ".".join(map(str, sys.version_info[:3]))
    journal = journal_mode_for(_numbers(sqlite_version))
    why = "" if journal == "WAL" else ", since WAL can damage a database before SQLite 3.51.3"
    says = f"Python {python}, SQLite {sqlite_version} (journal {journal}{why})"
    yield _ok("libraries", says)


def _floors() -> Iterator[tuple[str, str]]:
    """Read which versions our own installation asks for; nothing where it was not installed."""
    with suppress(PackageNotFoundError):
        for each in requires(DISTRIBUTION) or ():
            if found := re.fullmatch(FLOOR, each):
                yield found[1], found[2]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def show_diagnosis(read: Callable[[], Settings], shape: Format) -> bool:
    """Write what was found to stdout, and tell whether all of it is ok."""
    checks = list(diagnose(read))
    if shape is Format.JSON:
        listed = picks(checks, CHECK)
        write("\n".join(json_lines({"schema": "pipeline.doctor/1"}, checks=listed)))
    else:
        rows = (("ok" if each.is_ok else "mend", each.topic, each.says) for each in checks)
        write(render_table(("", "what", "found"), rows))
    return all(each.is_ok for each in checks)
