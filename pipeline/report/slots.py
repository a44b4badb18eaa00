"""The report of slots: what became of the runs that the schedule promised."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.models import Fate, SlotDay, SlotRecord
from pipeline.rendering.document import Document, Part, Strip
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of, show_time
from pipeline.report.question import Question, write_document
from pipeline.scope import show_window, window_json
from pipeline.store.slots import gaps, slot_days, slot_lines

MOST_CELLS = 2_016  # in the strips: a week of slots at five minutes
RUNNING = "running"  # what has no fate yet
DAY = "schedule day ran late skipped missed interrupted running latest_start_us=late_us"


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the slots: counted by day, and the last of them one by one; as JSON all of them."""
    days = slot_days(session, question.window)
    if question.shape is Shape.JSON:
        head = {"schema": "pipeline.slots/1", "window": window_json(question.window)}
        listed = picks(days, DAY)
        return json_lines(head, days=listed, slots=slot_lines(session, question.window))
    parts: list[Part] = []
    if days or question.shape is Shape.CSV:
        last = list(slot_lines(session, question.window, limit=MOST_CELLS))
        parts = [tabulate(SlotDay, days, DAY), *_strips(last)]
    missed = map(_gap_fact, gaps(session, question.window))
    facts = [f"{show_window(question.window)}.", _kept(days), *missed]
    return write_document(Document(title="Slots", facts=facts, parts=parts), question)


def _kept(days: Sequence[SlotDay]) -> str:
    counts = dict.fromkeys((*Fate, RUNNING), 0)
    if not days:
        return "No slot is on record."
    for day in days:
        for fate in counts:
            counts[fate] += getattr(day, fate)
    lost = [f"{n} {fate}" for fate, n in counts.items() if n and fate != Fate.RAN]
    kept = f"{counts[Fate.RAN]} of {count_of(sum(counts.values()), 'slot')} ran in time"
    return f"{', '.join([kept, *lost])}."


def _gap_fact(gap: SlotRecord) -> str:
    to = f"{show_time(gap.due_at)} to {show_time(gap.last_due_at)}"
    return f"{gap.schedule} missed {gap.slots:,} slots in a row, from {to}."


def _strips(newest_first: Sequence[SlotRecord]) -> Iterator[Strip]:
    """Make a strip of each schedule, the oldest slot at its begin."""
    cells: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for slot in reversed(newest_first):
        cells[slot.schedule].append((slot.due_at.astimezone(UTC), slot.fate or RUNNING))
    for schedule in sorted(cells):
        yield Strip(title=f"The last slots of {schedule}", cells=cells[schedule])
