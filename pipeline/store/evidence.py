"""Questions to the store about the requests that were sent and the answers that were kept."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import Select, bindparam, func, or_, select
from sqlmodel import Session

from pipeline.errors import Phase
from pipeline.models import Attempt, Batch, Evidence, Fetch, Request, StoredAnswer
from pipeline.store.columns import name_of
from pipeline.store.rows import as_row, columns_of, insert_into, record, records
from pipeline.store.tables import ATTEMPTS, BATCHES, EVIDENCE, REQUESTS, RUNS
from pipeline.store.window import EVERYTHING, Window, of_source, within

ANSWERS_AT_ONCE = 100  # in memory; each is a few kilobytes
BATCHES_AT_ONCE = 50  # a fetch rarely serves more, and the batches of its run may be many

_BATCHES_FROM = (
    select(*columns_of(BATCHES, Batch), BATCHES.c.fetch)
    .where(BATCHES.c.run_id == bindparam("in_run"), BATCHES.c.number >= bindparam("first"))
    .order_by(BATCHES.c.number)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """One request, and how often it was sent.

    Attributes:
        n: attempts that sent it, from the first to the last in UTC.
    """

    request: Request
    n: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequests:
    """The requests of a source that were sent most often, and how many there were in all.

    Attributes:
        different: how many requests there were, ``times`` how often any of them was sent.
    """

    listed: list[SentRequest]
    different: int
    times: int


def find_request(session: Session, *, request_id: int) -> Request:
    """Look up a request that is known to be there."""
    (found,) = records(session, Request, select(REQUESTS).where(REQUESTS.c.id == request_id))
    return found


def find_evidence(session: Session, *, digest: str) -> Evidence:
    """Look up an answer that is known to be there."""
    (found,) = records(session, Evidence, select(EVIDENCE).where(EVIDENCE.c.digest == digest))
    return found


def stored_answers(
    session: Session, window: Window = EVERYTHING, *, source: str | None = None
) -> Iterator[StoredAnswer]:
    """Read the answers that an adapter had to judge, each once per source and error.

    What failed before that (a body that was cut off, say) is left out; so is what belongs to runs
    that did not start in the window, and to other sources. The order is that of the sources, and
    then of the newest attempt.
    """
    groups = _groups(window, source).subquery()
    query = (
        select(groups, EVIDENCE, ATTEMPTS.c.run_id, ATTEMPTS.c.fetch)
        .join(EVIDENCE, EVIDENCE.c.digest == groups.c.evidence)
        .join(ATTEMPTS, ATTEMPTS.c.id == groups.c.newest)
        .order_by(name_of(groups.c.source), groups.c.newest)
    )
    options = {"yield_per": ANSWERS_AT_ONCE}
    for row in session.connection().execute(query, execution_options=options):
        fetch = _find_fetch(session, row.run_id, row.fetch)
        yield record(StoredAnswer, row, evidence=record(Evidence, row), fetch=fetch)


def _groups(window: Window, source: str | None) -> Select[*tuple[Any, ...]]:
    group = (ATTEMPTS.c.evidence, ATTEMPTS.c.source, ATTEMPTS.c.error)
    query = (
        select(*group, func.count().label("attempts"), func.max(ATTEMPTS.c.id).label("newest"))
        .where(
            ATTEMPTS.c.evidence.is_not(None),
            or_(ATTEMPTS.c.error.is_(None), ATTEMPTS.c.phase == Phase.CHECK),
            *of_source(ATTEMPTS.c.source, source),
        )
        .group_by(*group)
    )
    chosen = within(RUNS.c.started_at, window)
    runs = select(RUNS.c.id).where(*chosen)
    return query.where(ATTEMPTS.c.run_id.in_(runs)) if chosen else query


def _find_fetch(session: Session, run_id: int, fetch: int) -> Fetch | None:
    """Find the batches that a fetch was to serve; None if they are not there any more.

    They stand in a row, from the one that gave the fetch its number: no need to read all of a run.
    """
    wanted = {"in_run": run_id, "first": fetch}
    options = {"yield_per": BATCHES_AT_ONCE}
    with session.connection().execute(_BATCHES_FROM, wanted, execution_options=options) as rows:
        batches = tuple(
            record(Batch, row) for row in takewhile(lambda row: row.fetch == fetch, rows)
        )
    return Fetch(number=fetch, batches=batches, run=run_id) if batches else None


def sent_requests(session: Session, window: Window, *, source: str, most: int) -> SentRequests:
    """Count the different requests of a source, and list *most* of them, most frequent first.

    Those count that belong to runs which started in the window; if such a run was pruned, its
    requests are gone.
    """
    runs, n = select(RUNS.c.id).where(*within(RUNS.c.started_at, window)), func.count()
    query = (
        select(
            ATTEMPTS.c.request,
            n.label("n"),
            func.min(ATTEMPTS.c.began_at).label("first_at"),
            func.max(ATTEMPTS.c.began_at).label("last_at"),
            # Over all groups, whatever is left out: the attempts are read once.
            func.count().over().label("different"),
            func.sum(n).over().label("times"),
        )
        .where(ATTEMPTS.c.run_id.in_(runs), ATTEMPTS.c.source == source)
        .where(ATTEMPTS.c.request.is_not(None))
        .group_by(ATTEMPTS.c.request)
        .order_by(n.desc(), ATTEMPTS.c.request)
        .limit(most)
    )
    rows = session.connection().execute(query).all()
    listed = [
        record(SentRequest, row, request=find_request(session, request_id=row.request))
        for row in rows
    ]
    different, times = (int(rows[0].different), int(rows[0].times)) if rows else (0, 0)
    return SentRequests(listed=listed, different=different, times=times)


def save_requests(session: Session, attempts: Sequence[Attempt]) -> list[int | None]:
    """Store each different request once, and give their ids by attempt."""
    # By identity: mostly they are one and the same object, and to hash it takes as long as SQL.
    distinct = {id(request): request for attempt in attempts if (request := attempt.request)}
    digests = {key: digest_of_request(request) for key, request in distinct.items()}
    wanted = {digests[key]: request for key, request in distinct.items()}
    ids = _request_ids(session, wanted)
    new = [
        {"digest": digest, **as_row(REQUESTS, request)}
        for digest, request in wanted.items()
        if digest not in ids
    ]
    if new:
        adding = insert_into(session, REQUESTS).on_conflict_do_nothing(index_elements=["digest"])
        session.exec(adding, params=new)
        ids |= _request_ids(session, {row["digest"] for row in new})
    return [
        None if attempt.request is None else ids[digests[id(attempt.request)]]
        for attempt in attempts
    ]


def _request_ids(session: Session, digests: Collection[object]) -> dict[str, int]:
    if not digests:
        return {}
    query = select(REQUESTS.c.digest, REQUESTS.c.id).where(REQUESTS.c.digest.in_(digests))
    return dict(session.connection().execute(query).all())


def digest_of_request(request: Request) -> str:
    """Hash what was sent; no two requests in the store are the same."""
    head = json.dumps([request.method, request.url, request.headers]).encode()
    return hashlib.sha256(head + b"\n" + request.body).hexdigest()


def save_evidence(
    session: Session, attempts: Sequence[Attempt], shown: Sequence[Evidence | None]
) -> list[str | None]:
    """Store each different answer that is *shown* once, and give their digests by attempt."""
    digests = [None if evidence is None else digest_of_evidence(evidence) for evidence in shown]
    rows: dict[str, dict[str, object]] = {}
    for attempt, evidence, digest in zip(attempts, shown, digests, strict=True):
        if evidence and digest and digest not in rows:
            first = {"digest": digest, "first_seen_at": attempt.began_at}
            rows[digest] = first | as_row(EVIDENCE, evidence)
    if rows:
        adding = insert_into(session, EVIDENCE).on_conflict_do_nothing(index_elements=["digest"])
        session.exec(adding, params=list(rows.values()))
    return digests


def digest_of_evidence(evidence: Evidence) -> str:
    """Hash what an upstream answered; that is the key under which it is kept."""
    # Without the Date, or a server that says the same thing all night is kept once a second.
    headers = [(name, value) for name, value in evidence.headers if name.lower() != "date"]
    head = json.dumps([evidence.status, headers]).encode()
    return hashlib.sha256(head + b"\n" + evidence.body).hexdigest()
