"""What the answers of each source look like over time: a new span for each change.

Two steps, because a span names attempts, and those have no ids before they are stored: ``follow``
finds what the attempts change, ``save`` writes it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlmodel import Session

from pipeline.models import Aspect, Attempt, ContractSpan
from pipeline.store.rows import AnyRow, as_row, execute_many, records
from pipeline.store.tables import ATTEMPTS, CONTRACTS
from pipeline.store.window import of_source

_NEWEST = (
    select(CONTRACTS.c.id, CONTRACTS.c.value, CONTRACTS.c.last_at)
    .where(CONTRACTS.c.source == bindparam("of"), CONTRACTS.c.aspect == bindparam("what"))
    .order_by(CONTRACTS.c.id.desc())
    .limit(1)
)
# A server is asked for all at once: a thousand sources have some four aspects each.
_ALL_NEWEST = text(
    """
    SELECT wanted.source, wanted.aspect, newest.id, newest.value, newest.last_at
    FROM unnest(CAST(:sources AS text[]), CAST(:aspects AS text[])) AS wanted (source, aspect)
    CROSS JOIN LATERAL (
        SELECT id, value, last_at FROM contracts
        WHERE contracts.source = wanted.source AND contracts.aspect = wanted.aspect
        ORDER BY id DESC LIMIT 1
    ) AS newest
    """
).columns(
    CONTRACTS.c.source, CONTRACTS.c.aspect, CONTRACTS.c.id, CONTRACTS.c.value, CONTRACTS.c.last_at
)
_BEGIN = insert(CONTRACTS)
# Others may save later attempts first.
_GO_ON = update(CONTRACTS).where(
    CONTRACTS.c.id == bindparam("span"), CONTRACTS.c.last_at <= bindparam("at")
)
_CHANGES = 7_305_812_448  # the key of the lock of whoever begins a span on a server


@dataclass(slots=True, kw_only=True)
class Span:
    """One value of one aspect of one source, as attempts that are not stored yet show it.

    Attributes:
        row_id: of its row; None if it begins with these attempts.
        first: the first of them that shows it, ``last`` the last one.
    """

    source: str
    aspect: Aspect
    value: str
    row_id: int | None
    first: Attempt
    last: Attempt
    last_at: datetime


def follow(session: Session, attempts: Sequence[Attempt]) -> list[Span]:
    """Find the spans that *attempts*, in the order of their answers, begin or continue.

    On a server two machines may find at once that one begins: the second looks again.
    """
    spans = _follow(session, attempts)
    connection = session.connection()
    if connection.dialect.name == "postgresql" and any(span.row_id is None for span in spans):
        connection.execute(select(func.pg_advisory_xact_lock(_CHANGES)))
        return _follow(session, attempts)
    return spans


def _follow(session: Session, attempts: Sequence[Attempt]) -> list[Span]:
    spans: list[Span] = []
    rows = _find_newest(
        session, {(each.source, what) for each in attempts for what, _ in each.contract}
    )
    newest: dict[tuple[str, Aspect], Span] = {}
    for attempt in attempts:
        for aspect, value in attempt.contract:
            key = attempt.source, aspect
            span = newest.get(key)
            if span is None or span.value != value:
                row = None if span else rows.get(key)
                known = row if row is not None and row.value == value else None
                span = newest[key] = Span(
                    source=attempt.source,
                    aspect=aspect,
                    value=value,
                    row_id=None if known is None else known.id,
                    first=attempt,
                    last=attempt,
                    last_at=attempt.began_at if known is None else known.last_at,
                )
                spans.append(span)
            span.last = attempt
            span.last_at = max(span.last_at, attempt.began_at)
    return spans


def _find_newest(
    session: Session, keys: Collection[tuple[str, Aspect]]
) -> dict[tuple[str, Aspect], AnyRow]:
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        sources, aspects = [source for source, _ in keys], [aspect.value for _, aspect in keys]
        rows = connection.execute(_ALL_NEWEST, {"sources": sources, "aspects": aspects})
        return {(row.source, row.aspect): row for row in rows}
    found = {
        (of, what): connection.execute(_NEWEST, {"of": of, "what": what}).first()
        for of, what in keys
    }
    return {key: row for key, row in found.items() if row is not None}


def save(session: Session, spans: Sequence[Span], *, run_id: int) -> None:
    """Write *spans*; their attempts are stored by now, in the run *run_id*."""
    ends = [attempt for span in spans for attempt in (span.first, span.last)]
    query = select(ATTEMPTS.c.fetch, ATTEMPTS.c.number, ATTEMPTS.c.id).where(
        ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.fetch.in_({each.fetch for each in ends})
    )
    rows = session.connection().execute(query) if ends else ()
    ids: dict[tuple[int, int], int] = {(fetch, number): row_id for fetch, number, row_id in rows}

    def id_of(attempt: Attempt) -> int:
        return ids[attempt.fetch, attempt.number]

    begun, gone_on = [], []
    for span in spans:
        row = as_row(CONTRACTS, span) | {"last_attempt": id_of(span.last)}
        if span.row_id is None:
            first = {"first_at": span.first.began_at, "first_attempt": id_of(span.first)}
            begun.append(row | first)
        else:
            new = {name: row[name] for name in ("last_at", "last_attempt")}
            gone_on.append(new | {"span": span.row_id, "at": span.last_at})
    execute_many(session, _BEGIN, begun)
    # In the order that all have, so that none waits for who waits for it.
    execute_many(session, _GO_ON, sorted(gone_on, key=itemgetter("span")))


def contract_spans(
    session: Session, *, source: str | None, since: datetime | None
) -> list[ContractSpan]:
    """List what answers looked like from when to when, by source and aspect, oldest first.

    With *since* each list begins with the newest span of before: a source whose answers never look
    the same for long has a span for every few attempts.
    """
    kind = (CONTRACTS.c.source, CONTRACTS.c.aspect)
    query = select(CONTRACTS).where(*of_source(CONTRACTS.c.source, source))
    if since is not None:
        before = select(func.max(CONTRACTS.c.id)).where(CONTRACTS.c.first_at < since)
        newest_before = CONTRACTS.c.id.in_(before.group_by(*kind))
        query = query.where((CONTRACTS.c.first_at >= since) | newest_before)
    return records(session, ContractSpan, query.order_by(*kind, CONTRACTS.c.id))


def contracts_at(session: Session, source: str, attempt_id: int) -> tuple[ContractSpan, ...]:
    """Find what was agreed upon when an attempt was made; ids are given in the order of time."""
    is_then = (CONTRACTS.c.first_attempt <= attempt_id) & (CONTRACTS.c.last_attempt >= attempt_id)
    query = select(CONTRACTS).where(CONTRACTS.c.source == source, is_then)
    return tuple(records(session, ContractSpan, query.order_by(CONTRACTS.c.aspect, CONTRACTS.c.id)))
