"""What became of the slots that the schedule promised."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.asking import show_window, window_json
from pipeline.cli.document import Column, Document, Kind, Strip, Table, render
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines
from pipeline.cli.report.question import Question
from pipeline.cli.words import count_of
from pipeline.models import Fate
from pipeline.store.slots import slot_days, slot_lines

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.models import SlotDay, SlotRecord

MOST_CELLS = 2_016  # in the strips: a week of slots at five minutes
RUNNING = "running"  # what has no fate yet


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the slots: counted by day, and the last of them one by one; as JSON all of them."""
    since, until = scope.window.since, scope.window.until
    days = slot_days(session, since, until)
    if question.shape is Shape.JSON:
        head = {"schema": "pipeline.slots/1", "window": window_json(scope.window)}
        slots = slot_lines(session, since, until)
        return json_lines(head, days=map(_day_json, days), slots=slots)
    last = list(slot_lines(session, since, until, limit=MOST_CELLS))
    document = Document(
        title="Slots",
        facts=[f"{show_window(scope.window)}.", _kept(days)],
        parts=[_table(days), *_strips(last)] if days or question.shape is Shape.CSV else [],
    )
    return render(document, question.shape)


def _day_json(day: "SlotDay") -> dict[str, object]:
    return asdict(day) | {"day": day.day.isoformat()}


def _kept(days: Sequence["SlotDay"]) -> str:
    counts = dict.fromkeys((*Fate, RUNNING), 0)
    if not days:
        return "No slot is on record."
    for day in days:
        for fate in counts:
            counts[fate] += getattr(day, fate)
    lost = [f"{n} {fate}" for fate, n in counts.items() if n and fate != Fate.RAN]
    kept = f"{counts[Fate.RAN]} of {count_of(sum(counts.values()), 'slot')} ran in time"
    return f"{', '.join([kept, *lost])}."


def _table(days: Iterable["SlotDay"]) -> Table:
    return Table(
        columns=(
            Column("schedule"),
            Column("day"),
            *(Column(fate, Kind.NUMBER) for fate in (*Fate, RUNNING)),
            Column("latest start", Kind.DURATION),
        ),
        rows=[
            (
                day.schedule,
                day.day.isoformat(),
                *(getattr(day, fate) for fate in (*Fate, RUNNING)),
                day.late_us,
            )
            for day in days
        ],
    )


def _strips(newest_first: Sequence["SlotRecord"]) -> Iterator[Strip]:
    """Make a strip of each schedule, the oldest slot at its begin."""
    cells: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for slot in reversed(newest_first):
        cells[slot.schedule].append((slot.due_at.astimezone(UTC), slot.fate or RUNNING))
    for schedule in sorted(cells):
        yield Strip(title=f"The last slots of {schedule}", cells=cells[schedule])
