"""What starts the runs of one configuration: the command, the crontab lines, the systemd units."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from getpass import getuser
from pathlib import Path

from pipeline.models import Overlap
from pipeline.rendering.output import write
from pipeline.rendering.output_file import write_file
from pipeline.schedule.booking import find_possible_schedules
from pipeline.schedule.units import (
    WORKERS_DRAIN_SECONDS,
    UnitKind,
    crontab_lines,
    service_unit,
    timer_units,
    worker_unit,
)
from pipeline.settings import Settings, config_name


def run_command(settings: Settings, overlap: Overlap, log_format: str) -> list[str]:
    """Name this very program as the scheduler starts it for a slot: it tells each run in a line."""
    options = ["--slot", "always", "--overlap", overlap, "--quiet", "--verbose"]
    options += ["--log-format", log_format]
    return [sys.executable, "-m", "pipeline", "collect", "--config", _config(settings), *options]


def _command(settings: Settings, *words: str, options: Sequence[str]) -> list[str]:
    """Name this very program so that it is found without a PATH, and finds the same store."""
    installed = Path(sys.executable).with_name("pipeline")
    program = [str(installed)] if installed.exists() else [sys.executable, "-m", "pipeline"]
    return [*_folders(os.environ), *program, *words, "--config", _config(settings), *options]


def _folders(environ: Mapping[str, str]) -> list[str]:
    """Hand on where data lie, if a variable says it: neither cron nor systemd knows of that."""
    names = ("XDG_DATA_HOME", "XDG_STATE_HOME")
    said = [f"{name}={environ[name]}" for name in names if environ.get(name)]
    return ["/usr/bin/env", *said] if said else []


def _config(settings: Settings) -> str:
    return config_name(settings.path or Path())


def _tell_overrides(settings: Settings, say: Callable[[str], object]) -> None:
    """*say* which variables hold here, and neither for cron nor for systemd."""
    if settings.overrides:
        say(f"{', '.join(settings.overrides)} won over the file here, but will not there")


def _variables_wanted(settings: Settings) -> str:
    """List the variables that a run reads secrets from: neither cron nor systemd knows them."""
    keys = (source.api_key_env for source in settings.enabled_sources.values())
    return ", ".join(dict.fromkeys(filter(None, (*keys, settings.notify.ping_url_env))))


def put_crontab(settings: Settings, *, say: Callable[[str], object]) -> None:
    """Write crontab lines that start a run in each slot; *say* is told what cron does not know."""
    schedules = find_possible_schedules(settings)
    command = _command(settings, "collect", options=["--slot", "always"])
    lines = list(crontab_lines(schedules, command, local_zone=local_zone(Path("/etc"))))
    if wanted := _variables_wanted(settings):
        lines.insert(0, f"# cron does not know {wanted}: set it above, or use api_key_file")
    write("\n".join(lines))
    _tell_overrides(settings, say)


def put_units(
    settings: Settings,
    folder: Path | None,
    *,
    kind: UnitKind,
    force: bool,
    say: Callable[[str], object],
) -> None:
    """Write systemd units into *folder*, else to stdout: a timer, the scheduler or a worker.

    *say* is told what the service needs besides.
    """
    for name, text in _units(settings, kind).items():
        if folder is None:
            write(f"# {name}\n{text}")
        else:
            write_file(folder / name, [text.encode()], force=force)
            # Nothing secret is in it, and systemd complains about less.
            (folder / name).chmod(0o644)
    if wanted := _variables_wanted(settings):
        say(f"the service needs {wanted}: add EnvironmentFile= or Environment=")
    _tell_overrides(settings, say)


def _units(settings: Settings, kind: UnitKind) -> Mapping[str, str]:
    """Make the texts of the units, by the names of their files."""
    name = settings.schedule.name
    name, user = "pipeline" if name == "default" else f"pipeline-{name}", getuser()
    if kind == "worker":
        command = _command(settings, "worker", options=["--drain", f"{WORKERS_DRAIN_SECONDS:g}"])
        return worker_unit(command, name=f"{name}-worker", user=user)
    schedules = find_possible_schedules(settings)
    if kind == "timer":
        command = _command(settings, "collect", options=["--slot", "always"])
        return timer_units(schedules, command, name=name, user=user)
    seconds = settings.collect.deadline_seconds
    command = _command(settings, "schedule", "run", options=["--drain", f"{seconds:g}"])
    return service_unit(command, name=name, user=user, deadline_seconds=seconds)


def local_zone(etc: Path) -> str:
    """Name the time zone of this machine, by which its cron goes; UTC if nobody has set one."""
    link = os.path.realpath(etc / "localtime")
    if "/zoneinfo/" in link:
        return link.partition("/zoneinfo/")[2]
    try:
        return (etc / "timezone").read_text("ascii").strip() or "UTC"
    except (OSError, ValueError):
        return "UTC"
