"""Schedules as tests want them, and runs that cost no request."""

from datetime import datetime, timedelta
from pathlib import Path

from pipeline.models import RunStatus, RunSummary
from pipeline.schedule.cron import Cron
from pipeline.schedule.ledger import Schedule
from pipeline.settings import Missed, Settings, load_settings

SANDBOX = "[store]\nurl = 'pipeline.db'\n[sandbox]\nlatency_seconds = 0.0\n"
DICE = (
    "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2, 3]\n"
    "merge = false\nretries = 0\n"
)
COIN = "[sources.coin]\nkind = 'sandbox.anu_legacy'\nbatches = [4]\nretries = 0\n"


def make_schedule(
    expression: str = "*/5 * * * *",
    *,
    timezone: str = "UTC",
    key: str = "default",
    sources: tuple[str, ...] = ("dice",),
    missed: Missed = "skip",
    jitter: timedelta = timedelta(0),
    grace: timedelta = timedelta(minutes=1),
) -> Schedule:
    """Make a schedule of one source."""
    return Schedule(
        key=key,
        cron=Cron(expression=expression, timezone=timezone),
        sources=sources,
        jitter=jitter,
        grace=grace,
        missed=missed,
    )


def configure(folder: Path, schedule: str, *sources: str) -> Settings:
    """Read a configuration with the lines of ``[schedule]``, dice and more sources."""
    file = folder / "config.toml"
    file.write_text(f"{SANDBOX}[schedule]\n{schedule}\n{''.join(sources) or DICE}")
    return load_settings(file, {"HOME": str(folder)})


def ended_run(started_at: datetime, status: RunStatus = RunStatus.OK) -> RunSummary:
    """Give what decides about a slot: when its run began, and how it ended."""
    return RunSummary(
        id=1,
        uid="",
        host="",
        pid=1,
        version="",
        config_digest="",
        config_path="",
        is_sandbox=False,
        started_at=started_at,
        ended_at=started_at,
        status=status,
        clock_us=0,
        ordered=0,
        collected=0,
        failed=0,
        deferred=0,
        cancelled=0,
        numbers=0,
        attempts=0,
        waited_us=0,
    )
