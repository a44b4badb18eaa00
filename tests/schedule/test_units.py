"""Lines for cron and systemd, held against the real systemd where there is one."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.schedule.units import (
    calendar_lines,
    crontab_lines,
    service_unit,
    timer_units,
)
from tests.schedule.scheduling import make_schedule

SYSTEMD = shutil.which("systemd-analyze")
COMMAND = ["/opt/p/bin/pipeline", "collect", "--config", "/etc/my 100%/config.toml"]
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd here")


def crontab_time(expression: str) -> str:
    """Write the time of the one line for *expression*."""
    _, line = crontab_lines([make_schedule(expression)], ["true"], local_zone="UTC")
    return line.removesuffix(" true")


# ---- cron ----


def test_a_crontab_line_is_complete_in_itself() -> None:
    """Cron has no PATH worth the name, no shell's start-up files, and a % of its own."""
    schedules = [
        make_schedule(),
        make_schedule("30 2 * * 1", key="default/coin", sources=("coin",)),
    ]

    lines = list(crontab_lines(schedules, COMMAND, local_zone="UTC"))

    command = r"/opt/p/bin/pipeline collect --config '/etc/my 100\%/config.toml'"
    assert lines == [
        "# default: dice",
        f"*/5 * * * * {command}",
        "# default/coin: coin",
        f"30 2 * * 1 {command}",
    ]


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("*/5 0-6,22 1,15 */2 1-5", "*/5 0-6,22 1,15 */2 1-5"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("0 10-20/5 * jan,mar mon-wed", "0 10,15,20 * 1,3 1,2,3"),
    ],
)
def test_what_cron_reads_in_another_way_is_written_out(expression: str, written: str) -> None:
    """Names in lists, and steps without a range, are not the same everywhere."""
    assert crontab_time(expression) == written


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("0 0 L * *", "cron knows no L, W and #"),
        ("0 0 * * MON#2", "cron knows no L, W and #"),
        ("*/30 * * * * *", "counts seconds, which cron does not"),
    ],
)
def test_what_cron_cannot_say_is_refused(expression: str, complaint: str) -> None:
    """With the command that can."""
    with pytest.raises(ConfigError, match=f"{complaint}.*pipeline schedule"):
        crontab_time(expression)


def test_a_line_break_does_not_get_into_a_crontab() -> None:
    """It would be a line of its own, run by cron."""
    with pytest.raises(ConfigError, match="control characters"):
        list(crontab_lines([make_schedule()], ["a\nb"], local_zone="UTC"))


def test_cron_goes_by_the_zone_of_the_machine() -> None:
    """Where that makes no difference nobody is bothered; where it does, a line would be wrong."""
    night = make_schedule("30 2 * * *", timezone="Europe/Berlin")
    even = make_schedule("*/5 * * * *", timezone="Europe/Berlin")

    assert list(crontab_lines([night], ["true"], local_zone="Europe/Berlin"))
    assert list(crontab_lines([even], ["true"], local_zone="UTC"))
    with pytest.raises(ConfigError, match=r'of Europe/Berlin, .* "UTC", or use `pipeline schedule'):
        list(crontab_lines([night], ["true"], local_zone="UTC"))


# ---- systemd ----


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        ("*/20 * * * *", ["*-*-* *:00,20,40:00 UTC"]),
        ("30 2 * * mon-fri", ["Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00 UTC"]),
        ("0 0 1 1 *", ["*-01-01 00:00:00 UTC"]),
        ("0 0 1 * 0,7", ["*-*-01 00:00:00 UTC", "Sun *-*-* 00:00:00 UTC"]),
        ("*/30 * * * * *", ["*-*-* *:*:00,30 UTC"]),
    ],
)
def test_an_expression_as_a_calendar(expression: str, lines: list[str]) -> None:
    """Where either of two days will do, it takes two lines."""
    assert calendar_lines(make_schedule(expression)) == lines


def test_what_a_timer_cannot_say_is_refused() -> None:
    """With the command that can."""
    with pytest.raises(
        ConfigError, match="a timer knows no L, W and #; use `pipeline schedule run"
    ):
        calendar_lines(make_schedule("0 0 LW * *"))


@needs_systemd
@pytest.mark.parametrize("expression", ["*/7 3-5 * * *", "30 2 * * mon-fri", "0 6 1-7 2,8 *"])
def test_systemd_reads_the_same_moments(expression: str) -> None:
    """The next five, by its own account."""
    schedule = make_schedule(expression, timezone="Europe/Berlin")
    (line,) = calendar_lines(schedule)
    assert SYSTEMD

    told = subprocess.run(
        [SYSTEMD, "calendar", "--iterations=5", "--base-time=2026-01-02 00:00:00 UTC", line],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
    ).stdout

    stamps = re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", told)
    assert [datetime.fromisoformat(f"{stamp}+00:00") for stamp in stamps] == list(
        islice(schedule.cron.after(datetime(2026, 1, 2, tzinfo=UTC)), 5)
    )


def test_a_timer_catches_up_if_the_schedule_does() -> None:
    """Else a machine that comes back starts nothing before the next slot."""
    texts = [
        timer_units(
            [make_schedule(missed=policy, jitter=timedelta(seconds=90))],
            COMMAND,
            name="pipeline",
            user="me",
        )["pipeline.timer"]
        for policy in ("skip", "once")
    ]

    assert "Persistent=false\n" in texts[0]
    assert "Persistent=true\n" in texts[1]
    assert "RandomizedDelaySec=90s\n" in texts[0]


def test_a_word_is_quoted_as_systemd_reads_it() -> None:
    """It has variables, specifiers and escapes of its own."""
    command = ["/bin/x", 'say "$HOME" 100% \\', "plain-word"]

    (text,) = service_unit(command, name="pipeline", user="me", deadline_seconds=300).values()

    assert r'ExecStart=/bin/x "say \"$$HOME\" 100%% \\" plain-word' in text.splitlines()
    assert "TimeoutStopSec=330s" in text
    with pytest.raises(ConfigError, match="control characters"):
        service_unit(["a\nb"], name="pipeline", user="me", deadline_seconds=1)


def verify(folder: Path, units: Mapping[str, str]) -> str:
    """Let systemd judge *units*, and give its complaints."""
    assert SYSTEMD
    for name, text in units.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [SYSTEMD, "verify", "--man=no", *(str(folder / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "pipeline" in line]
    return "\n".join(about_ours) + str(done.returncode or "")


@needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """With the timer, its service, and the scheduler as a service."""
    program = tmp_path / "the pipeline"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    schedules = [
        make_schedule(timezone="Europe/Berlin", jitter=timedelta(seconds=5)),
        make_schedule("0 0 1 * sun", key="default/coin"),
    ]
    command = [str(program), "collect", "--config", "/etc/100% $mine/config.toml"]

    timer = timer_units(schedules, command, name="pipeline", user="root")
    service = service_unit(command, name="pipeline-run", user="root", deadline_seconds=300.0)

    assert verify(tmp_path, timer | service) == ""
