"""What was sent and what came back, as far as it was kept: questions to the store about both."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.models import Batch, Evidence, Fetch, Request, StoredAnswer
from pipeline.store.tables import ATTEMPTS, BATCHES, EVIDENCE, REQUESTS

BATCHES_AT_ONCE = 50  # a fetch rarely serves more, and the batches of its run may be many

_OF_A_BATCH = ("number", "source", "n", "min", "max")

_Found = Mapping[Any, Any]


def find_request(session: Session, *, request_id: int) -> Request:
    """Look up a request that is known to be there."""
    query = select(REQUESTS).where(REQUESTS.c.id == request_id)
    return make_request(session.connection().execute(query).mappings().one())


def find_evidence(session: Session, *, digest: str) -> Evidence:
    """Look up an answer that is known to be there."""
    query = select(EVIDENCE).where(EVIDENCE.c.digest == digest)
    return make_evidence(session.connection().execute(query).mappings().one())


def make_request(found: _Found, *, prefix: str = "") -> Request:
    """Make the value of a row of requests, whose columns may be found under a *prefix*."""
    return Request(
        method=found[f"{prefix}method"],
        url=found[f"{prefix}url"],
        headers=_headers(found[f"{prefix}headers"]),
        body=found[f"{prefix}body"],
    )


def make_evidence(found: _Found, *, prefix: str = "") -> Evidence:
    """Make the value of a row of evidence, whose columns may be found under a *prefix*."""
    return Evidence(
        status=found[f"{prefix}status"],
        headers=_headers(found[f"{prefix}headers"]),
        body=found[f"{prefix}body"],
        body_bytes=found[f"{prefix}body_bytes"],
    )


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


def stored_answers(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    source: str | None = None,
) -> Iterator[StoredAnswer]:
    """Read the answers that an adapter had to judge, each once per source and error.

    What failed before that (a body that was cut off, say) is left out; so are attempts that began
    before *since* or not before *until*, and those of other sources. The order is that of the
    sources, and then of the newest attempt.
    """
    query = (
        select(
            ATTEMPTS.c.source,
            ATTEMPTS.c.error,
            ATTEMPTS.c.evidence,
            func.count().label("n"),
            func.max(ATTEMPTS.c.id).label("newest"),
        )
        .where(
            ATTEMPTS.c.evidence.is_not(None),
            or_(ATTEMPTS.c.error.is_(None), ATTEMPTS.c.phase == Phase.CHECK),
        )
        .group_by(ATTEMPTS.c.evidence, ATTEMPTS.c.source, ATTEMPTS.c.error)
        .order_by(ATTEMPTS.c.source, func.max(ATTEMPTS.c.id))
    )
    for row in session.connection().execute(_narrowed(query, since, until, source)):
        yield StoredAnswer(
            source=row.source,
            error=row.error and ErrorName(row.error),
            attempts=row.n,
            newest=row.newest,
            evidence=find_evidence(session, digest=row.evidence),
            fetch=_find_fetch(session, row.newest),
        )


def _narrowed(
    query: Select[*tuple[Any, ...]],
    since: datetime | None,
    until: datetime | None,
    source: str | None,
) -> Select[*tuple[Any, ...]]:
    if since is not None:
        query = query.where(ATTEMPTS.c.began_at >= since)
    if until is not None:
        query = query.where(ATTEMPTS.c.began_at < until)
    if source is not None:
        query = query.where(ATTEMPTS.c.source == source)
    return query


def _find_fetch(session: Session, attempt_id: int) -> Fetch | None:
    """Find the batches that an attempt was to serve; None if they are not there any more.

    They stand in a row, from the one that gave the fetch its number: no need to read all of a run.
    """
    connection = session.connection()
    key = select(ATTEMPTS.c.run_id, ATTEMPTS.c.fetch).where(ATTEMPTS.c.id == attempt_id)
    run_id, fetch = connection.execute(key).one()
    query = (
        select(*(BATCHES.c[name] for name in _OF_A_BATCH), BATCHES.c.fetch)
        .where(BATCHES.c.run_id == run_id, BATCHES.c.number >= fetch)
        .order_by(BATCHES.c.number)
    )
    with connection.execute(query, execution_options={"yield_per": BATCHES_AT_ONCE}) as rows:
        batches = tuple(
            Batch(**{name: getattr(row, name) for name in _OF_A_BATCH})
            for row in takewhile(lambda row: row.fetch == fetch, rows)
        )
    return Fetch(number=fetch, batches=batches) if batches else None
