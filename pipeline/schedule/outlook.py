"""What is to come: the answers of ``pipeline schedule show`` and ``pipeline plan``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice

from pipeline.clock import TOLERANCE
from pipeline.errors import ConfigError
from pipeline.models import SlotRecord
from pipeline.rendering.output import json_lines, prose, render_table, write
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import show_duration, show_time
from pipeline.run import forecast
from pipeline.run.plan import Rhythm
from pipeline.schedule.booking import find_possible_schedules, find_rhythms, require_schedules
from pipeline.schedule.cron import find_zone
from pipeline.schedule.ledger import Schedule, find_schedules
from pipeline.scope import reading_if_there
from pipeline.settings import Settings
from pipeline.store.slots import recent_slots


def show_plan(settings: Settings, every: timedelta | None, shape: Format) -> None:
    """Write what a run would ask now, and hold a day of runs against the rules as well.

    They are at the distance *every*, else those that the schedules promise.
    """
    if every is None:
        rhythms = find_rhythms(find_schedules(settings))
    else:
        rhythms = dict.fromkeys(settings.enabled_sources, Rhythm.of(every))
    forecast.show_plan(settings, rhythms, shape)


def show_slots(
    settings: Settings, number: int, shape: Format, *, say: Callable[[str], object]
) -> None:
    """Write the next slots, and what became of the last ones, so many of each schedule.

    If the rules never allow them, *say* is told why no run would be started.
    """
    schedules, now = require_schedules(settings), datetime.now(UTC)
    coming = {each.key: list(islice(each.cron.after(now), number)) for each in schedules}
    with reading_if_there(settings.store) as session:
        last = {
            each.key: []
            if session is None
            else recent_slots(session, schedule=each.key, limit=number, until=now + TOLERANCE)
            for each in schedules
        }
    if shape is Format.JSON:
        published = (
            asdict(each.cron)
            | {"schedule": each.key, "sources": each.sources}
            | {"next": coming[each.key], "last": last[each.key]}
            for each in schedules
        )
        head = {"schema": "pipeline.schedule/1", "asked_at": now}
        write("\n".join(json_lines(head, schedules=published)))
    else:
        write("\n".join(_text(schedules, coming, last)))
    try:
        find_possible_schedules(settings)
    except ConfigError as exc:
        say(str(exc))


def _text(
    schedules: Sequence[Schedule],
    coming: Mapping[str, Sequence[datetime]],
    last: Mapping[str, Sequence[SlotRecord]],
) -> Iterator[str]:
    for place, each in enumerate(schedules):
        zone = find_zone(each.cron.timezone)
        if place:
            yield ""
        yield from prose(
            f'{each.key}: "{each.cron.expression}", {each.cron.timezone};'
            f" collects {', '.join(each.sources)}.",
            "",
        )
        yield render_table(
            ("next", f"in {each.cron.timezone}"),
            (
                (show_time(due_at), f"{due_at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %Z}")
                for due_at in coming[each.key]
            ),
        )
        if last[each.key]:
            yield ""
            yield _table_of_slots(last[each.key])


def _fate(slot: SlotRecord) -> str:
    if slot.last_due_at is None:
        return slot.fate or "running"
    return f"{slot.fate}: {slot.slots:,} slots to {show_time(slot.last_due_at)}"


def _table_of_slots(slots: Sequence[SlotRecord]) -> str:
    return render_table(
        ("last", "fate", "run", "late", "host"),
        (
            (
                show_time(slot.due_at),
                _fate(slot),
                slot.run_id,
                show_duration(slot.late_us),
                slot.host,
            )
            for slot in slots
        ),
    )
