"""The report of workers: who is here, what each has in hand, and what waits for whom."""

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlmodel import Session

from pipeline.models import Member, PortionRecord
from pipeline.rendering.document import Document
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.report.question import Question, write_document
from pipeline.store.portions import find_members, find_open_portions

MEMBER = "member_id host pid version lanes portions since seen_at is_alive"
PORTION = (
    "run_id source first_batch_number=first last_batch_number=last undecided host pid began_at why"
)
MOST_REASONS = 5  # for which portions wait, in words
MOST_SHOWN = 50  # portions in a table; JSON has all of them


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the workers, and the portions of the runs that go on."""
    members, portions = find_members(session), find_open_portions(session)
    if question.shape is Shape.JSON:
        head = {"schema": "pipeline.workers/1"}
        return json_lines(head, workers=picks(members, MEMBER), portions=picks(portions, PORTION))
    parts = []
    if members or question.shape is Shape.CSV:
        parts.append(tabulate(Member, members, MEMBER))
    if portions and question.shape is not Shape.CSV:
        parts.append(tabulate(PortionRecord, portions[:MOST_SHOWN], PORTION))
    facts = [_who(members), *_what(portions)]
    return write_document(Document(title="Workers", facts=facts, parts=parts), question)


def _who(members: Sequence[Member]) -> str:
    alive = sum(member.is_alive for member in members)
    if not members:
        return "No worker is here."
    silent = len(members) - alive
    return f"{count_of(alive, 'worker')} here{f', {silent} silent' if silent else ''}."


def _what(portions: Sequence[PortionRecord]) -> Iterator[str]:
    if portions:
        waits = Counter(portion.why for portion in portions if portion.why)
        waiting = waits.total()
        begun = len(portions) - waiting
        runs = len({portion.run_id for portion in portions})
        yield (
            f"{count_of(len(portions), 'portion')} of {count_of(runs, 'run')} to do:"
            f" {begun} in hand, {waiting} waiting."
        )
        for why, n in waits.most_common(MOST_REASONS):
            yield f"{count_of(n, 'portion')} waiting for {why}."
