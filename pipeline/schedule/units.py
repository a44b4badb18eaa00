"""The lines that make cron or systemd start the runs. Pure text: nothing here installs anything.

Each of them only has to come often enough: a start that finds no free slot leaves at once.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Literal

from cronsim import CronSim

from pipeline.errors import ConfigError
from pipeline.schedule.cron import Cron
from pipeline.schedule.ledger import Schedule

FIVE_FIELDS = 5
COMPARED = timedelta(days=400)  # both changes of the clock, and every month
MOST_COMPARED = 5_000  # slots: the rest of an expression with more of them is the same anyway
UnitKind = Literal["timer", "service", "worker"]
WORKERS_DRAIN_SECONDS = 60.0
STOP_SECONDS = 30  # that a drained service may take beyond its run's deadline

_PLAIN_FIELD = r"\*(/[0-9]+)?|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*"
_SAFE_WORD = r"[A-Za-z0-9_@+=:,./-]+"
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def _numbers(cron: CronSim, key: str, refused: str) -> list[int]:
    """List what a field matches, in order.

    Raises:
        ConfigError: it holds one of the days that only cronsim knows.
    """
    found = getattr(cron, key)
    if not all(isinstance(number, int) and number >= 0 for number in found):
        raise ConfigError(f"{refused} knows no L, W and #; use `pipeline schedule run`")
    return sorted(found)


# ---- cron ----


def crontab_lines(
    schedules: Sequence[Schedule], command: Sequence[str], *, local_zone: str
) -> Iterator[str]:
    """Write the crontab lines that run *command* in each slot, on a machine in *local_zone*.

    Raises:
        ConfigError: cron cannot keep one of the schedules, and why.
    """
    # cron ends a line at a bare %, even within quotes.
    line = shlex.join(command).replace("%", r"\%")
    if not line.isprintable():
        raise ConfigError("a crontab cannot hold a command with control characters in it")
    for schedule in schedules:
        _check_zone(schedule, local_zone)
        yield f"# {schedule.key}: {', '.join(schedule.sources)}"
        yield f"{_crontab_time(schedule)} {line}"


def _check_zone(schedule: Schedule, local_zone: str) -> None:
    """Make sure that cron, which goes by the machine's own zone, means the same moments."""
    here = Cron(expression=schedule.cron.expression, timezone=local_zone)
    if _coming(here) != _coming(schedule.cron):
        raise ConfigError(
            f"schedule {schedule.key} goes by the clock of {schedule.cron.timezone}, cron on this"
            f' machine by that of {local_zone}: set timezone = "{local_zone}", or use `pipeline'
            " schedule systemd` or `run`"
        )


def _coming(cron: Cron) -> list[datetime]:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    coming = takewhile(lambda due_at: due_at < now + COMPARED, cron.after(now))
    return list(islice(coming, MOST_COMPARED))


def _crontab_time(schedule: Schedule) -> str:
    fields = schedule.cron.expression.split()
    if len(fields) > FIVE_FIELDS:
        raise ConfigError(
            f"schedule {schedule.key} counts seconds, which cron does not; use `pipeline schedule"
            " systemd` or `run`"
        )
    parsed = schedule.cron.parsed
    keys = ("minutes", "hours", "days", "months", "weekdays")
    # Debian's cron reads a lone number with a step, and names in lists, in ways of its own.
    return " ".join(
        field
        if re.fullmatch(_PLAIN_FIELD, field)
        else ",".join(map(str, _numbers(parsed, key, f"schedule {schedule.key}: cron")))
        for field, key in zip(fields, keys, strict=True)
    )


# ---- systemd ----


TIMER = """\
[Unit]
Description=When pipeline collects

[Timer]
{lines}

[Install]
WantedBy=timers.target
"""
SERVICE = """\
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target

[Service]
{lines}
"""
# What stays; a wrong configuration does not become right by a restart.
LASTING = f"""\
{SERVICE}\
RestartPreventExitStatus=78

[Install]
WantedBy=multi-user.target
"""


def calendar_lines(schedule: Schedule) -> list[str]:
    """Write when slots are due in ``OnCalendar=``; two lines where either day will do.

    Raises:
        ConfigError: it has no words for one of the days.
    """
    cron = schedule.cron.parsed
    seconds, minutes, hours, days, months, weekdays = (
        _numbers(cron, key, f"schedule {schedule.key}: a timer")
        for key in ("seconds", "minutes", "hours", "days", "months", "weekdays")
    )
    time = ":".join(
        (_listed(hours, range(24)), _listed(minutes, range(60)), _listed(seconds, range(60)))
    )
    month, day = _listed(months, range(1, 13)), _listed(days, range(1, 32))
    names = sorted({number % 7 for number in weekdays})
    weekday = "" if len(names) == len(_DAYS) else ",".join(_DAYS[n] for n in names) + " "
    zone = schedule.cron.timezone
    if cron.day_and:
        return [f"{weekday}*-{month}-{day} {time} {zone}"]
    return [f"*-{month}-{day} {time} {zone}", f"{weekday}*-{month}-* {time} {zone}"]


def _listed(numbers: Sequence[int], every: range) -> str:
    return "*" if len(numbers) == len(every) else ",".join(f"{number:02}" for number in numbers)


def timer_units(
    schedules: Sequence[Schedule], command: Sequence[str], *, name: str, user: str
) -> dict[str, str]:
    """Write a timer that is due at every slot, and the service that it starts: one run.

    Raises:
        ConfigError: a timer cannot keep one of the schedules, and why.
    """
    due = dict.fromkeys(line for schedule in schedules for line in calendar_lines(schedule))
    jitter = max(schedule.jitter for schedule in schedules).total_seconds()
    catches_up = any(schedule.missed != "skip" for schedule in schedules)
    lines = [*(f"OnCalendar={line}" for line in due), "AccuracySec=1s"]
    if jitter:
        lines += [f"RandomizedDelaySec={jitter:g}s", "FixedRandomDelay=true"]
    # After the machine was off: start at once, so that missed slots are caught up on.
    lines.append(f"Persistent={'true' if catches_up else 'false'}")
    service = ["Type=oneshot", *_started_by(command, user)]
    return {
        f"{name}.timer": TIMER.format(lines="\n".join(lines)),
        f"{name}.service": SERVICE.format(what="One run of pipeline", lines="\n".join(service)),
    }


def service_unit(
    command: Sequence[str], *, name: str, user: str, deadline_seconds: float
) -> dict[str, str]:
    """Write a service that is the scheduler itself, ``pipeline schedule run``."""
    lines = [
        "Type=notify",
        *_started_by(command, user),
        "ExecReload=/bin/kill -HUP $MAINPID",
        *_stopped_in(deadline_seconds),
        "WatchdogSec=120s",
        "Restart=on-failure",
    ]
    text = LASTING.format(what="The scheduler of pipeline", lines="\n".join(lines))
    return {f"{name}.service": text}


def worker_unit(command: Sequence[str], *, name: str, user: str) -> dict[str, str]:
    """Write a service that is one worker, ``pipeline worker``."""
    lines = [*_started_by(command, user), *_stopped_in(WORKERS_DRAIN_SECONDS)]
    lines += ["Restart=always", "RestartSec=5s"]
    text = LASTING.format(what="A worker of pipeline", lines="\n".join(lines))
    return {f"{name}.service": text}


def _started_by(command: Sequence[str], user: str) -> tuple[str, str]:
    return f"User={user}", f"ExecStart={' '.join(map(_exec_word, command))}"


def _stopped_in(seconds: float) -> tuple[str, str]:
    return "KillMode=mixed", f"TimeoutStopSec={seconds + STOP_SECONDS:g}s"


def _exec_word(word: str) -> str:
    """Quote one word as ``systemd.service(5)`` reads it: percent and dollar signs are doubled."""
    if not word.isprintable():
        raise ConfigError("a unit file cannot hold a command with control characters in it")
    if not re.fullmatch(_SAFE_WORD, word):
        word = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return word.replace("%", "%%").replace("$", "$$")
