"""``pipeline schedule``: the slots, the scheduler in the foreground, lines for cron and systemd."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from pipeline.cli.boundary import complain, error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption
from pipeline.cli.render import json_lines, render_table, show_duration, show_time, write
from pipeline.errors import ConfigError
from pipeline.models import Overlap

if TYPE_CHECKING:
    from pipeline.models import SlotRecord
    from pipeline.schedule.ledger import Schedule
    from pipeline.schedule.units import Unit
    from pipeline.settings import Settings, StoreSettings

MOST_SLOTS = 1_000
DRAIN_SECONDS = 5.0  # containers are killed after 10

schedule_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show the slots, keep to them, or let cron or systemd do it.",
)


def _load(
    config: Path | None, *, will_ask: bool = False, must_fit: bool = True
) -> "tuple[Settings, tuple[Schedule, ...]]":
    """Read the schedules; they *must_fit* the upstreams' rules, unless they are only looked at."""
    from pipeline.schedule.booking import find_possible_schedules
    from pipeline.schedule.ledger import find_schedules
    from pipeline.settings import load_settings

    settings = load_settings(config, os.environ, will_ask=will_ask)
    schedules = find_possible_schedules(settings) if must_fit else find_schedules(settings)
    if not schedules:
        raise ConfigError("there is no schedule; give cron or every in a [schedule] table")
    return settings, schedules


@schedule_app.command()
def show(
    config: ConfigOption = None,
    number: Annotated[
        int,
        Option("--number", "-n", metavar="N", min=1, max=MOST_SLOTS, help="So many slots of each."),
    ] = 5,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show the next slots, and what became of the last ones.

    Also of a schedule that breaks the upstreams' rules; the reason is on stderr then.
    """
    with error_boundary():
        settings, schedules = _load(config, must_fit=False)
        now = datetime.now(UTC)
        coming = {each.key: list(islice(each.cron.after(now), number)) for each in schedules}
        last = _last_slots(settings.store, schedules, number)
        if format_ is Format.JSON:
            published = (
                asdict(each.cron)
                | {"schedule": each.key, "sources": each.sources}
                | {"next": coming[each.key], "last": last[each.key]}
                for each in schedules
            )
            head = {"schema": "pipeline.schedule/1", "at": now}
            write("\n".join(json_lines(head, schedules=published)))
        else:
            write("\n".join(_text(schedules, coming, last)))
        _warn_if_impossible(settings)


def _warn_if_impossible(settings: "Settings") -> None:
    """Say why no run would be started in these slots."""
    from pipeline.schedule.booking import find_possible_schedules

    try:
        find_possible_schedules(settings)
    except ConfigError as exc:
        complain(str(exc))


def _last_slots(
    store: "StoreSettings", schedules: "Sequence[Schedule]", number: int
) -> "dict[str, list[SlotRecord]]":
    from pipeline.cli.plan import reading_if_there
    from pipeline.store.slots import recent_slots

    with reading_if_there(store) as session:
        return {
            each.key: []
            if session is None
            else recent_slots(session, schedule=each.key, limit=number)
            for each in schedules
        }


def _text(
    schedules: "Sequence[Schedule]",
    coming: dict[str, list[datetime]],
    last: "dict[str, list[SlotRecord]]",
) -> Iterator[str]:
    from pipeline.schedule.cron import find_zone

    for each in schedules:
        zone = find_zone(each.cron.timezone)
        yield f'{each.key}: "{each.cron.expression}", {each.cron.timezone};'
        yield f"collects {', '.join(each.sources)}.\n"
        yield render_table(
            ("next", f"in {each.cron.timezone}"),
            (
                (show_time(due_at), f"{due_at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %Z}")
                for due_at in coming[each.key]
            ),
        )
        yield ""
        if last[each.key]:
            yield _table_of_slots(last[each.key])
            yield ""


def _table_of_slots(slots: "Sequence[SlotRecord]") -> str:
    return render_table(
        ("last", "fate", "run", "late", "host"),
        (
            (
                show_time(slot.due_at),
                slot.fate or "running",
                slot.run_id,
                show_duration(slot.late_us),
                slot.host,
            )
            for slot in slots
        ),
    )


@schedule_app.command()
def run(
    config: ConfigOption = None,
    overlap: Annotated[
        Overlap, Option(help="While the run of an earlier slot goes on: leave, wait, or join.")
    ] = Overlap.SKIP,
    drain: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="After SIGTERM: let a run go on so long before it is told to end, too.",
        ),
    ] = DRAIN_SECONDS,
) -> None:
    """Start a run in each slot, in the foreground, until SIGTERM.

    For containers and systemd. SIGHUP reads the configuration again; if it is wrong, the old one
    stays. SIGTERM and SIGINT end it with 0 as soon as the run that goes on has ended; a second one
    ends it at once.
    """
    with error_boundary():
        from functools import partial

        import anyio

        from pipeline.schedule.notify import Notifier
        from pipeline.schedule.runner import Runs, World, run_schedule

        settings, schedules = _load(config, will_ask=True)
        given = iter([schedules])  # read already, so that runs get the very same file

        runs = Runs(_run_command(settings, overlap), complain)
        world = World(
            now=lambda: datetime.now(UTC), sleep=anyio.sleep, start_run=runs.start, say=complain
        )
        anyio.run(
            partial(
                run_schedule,
                lambda: next(given, None) or _load(settings.path, will_ask=True)[1],
                world,
                Notifier(os.environ),
                stop_runs=runs.stop,
                drain_seconds=drain,
            )
        )


def _run_command(settings: "Settings", overlap: Overlap) -> list[str]:
    options = ["--config", str(settings.path), "--slot", "always", "--overlap", overlap, "--quiet"]
    return [sys.executable, "-m", "pipeline", "collect", *options]


def _command(*arguments: str) -> list[str]:
    """Name this very program so that it is found without a PATH."""
    installed = Path(sys.executable).with_name("pipeline")
    program = [str(installed)] if installed.exists() else [sys.executable, "-m", "pipeline"]
    return [*program, *arguments]


def _variables_wanted(settings: "Settings") -> list[str]:
    """List the variables that a run reads secrets from: neither cron nor systemd knows them."""
    keys = (source.api_key_env for source in settings.enabled_sources.values())
    return list(dict.fromkeys(filter(None, (*keys, settings.notify.ping_url_env))))


@schedule_app.command()
def cron(config: ConfigOption = None) -> None:
    """Print crontab lines that start a run in each slot.

    Add them with `crontab -e`.
    """
    with error_boundary():
        from pipeline.schedule.units import crontab_lines

        settings, schedules = _load(config)
        command = _command("collect", "--config", str(settings.path), "--slot", "always")
        lines = crontab_lines(schedules, command, local_zone=local_zone(Path("/etc")))
        if wanted := _variables_wanted(settings):
            write(f"# cron does not know {', '.join(wanted)}: set it above, or use api_key_file")
        write("\n".join(lines))


@schedule_app.command()
def systemd(
    config: ConfigOption = None,
    service: Annotated[
        bool,
        Option("--service", help="The scheduler as one service, instead of a timer."),
    ] = False,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FOLDER", help="Write the files there; else print them."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Print or write systemd units that start a run in each slot.

    A timer and its service, or the scheduler as a service of its own.

    \b
    pipeline schedule systemd -o /etc/systemd/system
    systemctl enable --now pipeline.timer
    """
    with error_boundary():
        settings, schedules = _load(config)
        units = _units(settings, schedules, is_service=service)
        for unit in units:
            if output is None:
                write(f"# {unit.name}\n{unit.text}")
            else:
                _save(output / unit.name, unit.text, force=force)
        if wanted := _variables_wanted(settings):
            complain(f"the service needs {', '.join(wanted)}: add EnvironmentFile= or Environment=")


def _units(
    settings: "Settings", schedules: "Sequence[Schedule]", *, is_service: bool
) -> "Sequence[Unit]":
    from getpass import getuser

    from pipeline.schedule.units import service_unit, timer_units

    name, user, config = _unit_name(settings), getuser(), str(settings.path)
    if not is_service:
        command = _command("collect", "--config", config, "--slot", "always")
        return timer_units(schedules, command, name=name, user=user)
    deadline_seconds = settings.collect.deadline_seconds
    command = _command("schedule", "run", "--config", config, "--drain", f"{deadline_seconds:g}")
    return [service_unit(command, name=name, user=user, deadline_seconds=deadline_seconds)]


def _unit_name(settings: "Settings") -> str:
    name = settings.schedule.name
    return "pipeline" if name == "default" else f"pipeline-{name}"


def _save(target: Path, text: str, *, force: bool) -> None:
    from pipeline.cli.files import write_file

    write_file(target, [text.encode()], force=force)
    target.chmod(0o644)  # nothing secret in it, and systemd complains about less


def local_zone(etc: Path) -> str:
    """Name the time zone of this machine, by which its cron goes; UTC if nobody has set one."""
    link = os.path.realpath(etc / "localtime")
    if "/zoneinfo/" in link:
        return link.partition("/zoneinfo/")[2]
    try:
        return (etc / "timezone").read_text("ascii").strip() or "UTC"
    except (OSError, ValueError):
        return "UTC"
