"""Hash every answer and request once more."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Column, Table, select

from pipeline.models import Evidence, Request
from pipeline.store.db import Store
from pipeline.store.evidence import digest_of_evidence, digest_of_request
from pipeline.store.integrity.checks import Problem
from pipeline.store.integrity.contents import as_stored
from pipeline.store.integrity.processes import Tell
from pipeline.store.integrity.pruning import is_unused
from pipeline.store.rows import AnyRow, record
from pipeline.store.tables import ATTEMPTS, EVIDENCE, REQUESTS, SEALS

EXCHANGES_AT_ONCE = 200


class _Kind(NamedTuple):
    """One of the two tables that attempts refer to, and what its rows stand for."""

    name: str
    table: Table
    reference: Column[Any]
    value: type[Evidence] | type[Request]
    digest: Callable[[Any], str]


_ANSWERS = _Kind("answer", EVIDENCE, ATTEMPTS.c.evidence, Evidence, digest_of_evidence)
_REQUESTS = _Kind("request", REQUESTS, ATTEMPTS.c.request, Request, digest_of_request)


def changed_exchanges(store: Store, _tell: Tell, *, after: int = 0) -> list[Problem]:
    """Hash every answer and request once more, and find those that belong to no attempt.

    With *after* only those that runs sealed behind this position refer to.
    """
    return [
        Problem(text=f"{kind.name} {row.digest}: {wrong}")
        for kind in (_ANSWERS, _REQUESTS)
        for unused in (_unused(store, kind, after),)
        for row in _rows_of(store, kind, after)
        if (wrong := _what_is_wrong(row, kind, unused))
    ]


def _unused(store: Store, kind: _Kind, after: int) -> set[str]:
    """Find, by their digests, those that belong to no attempt: by one walk over all attempts."""
    if after:  # those that are looked at are found by their attempts
        return set()
    query = select(kind.table.c.digest).where(is_unused(kind.reference))
    with store.read() as session:
        return set(session.connection().scalars(query))


def _what_is_wrong(row: AnyRow, kind: _Kind, unused: set[str]) -> str | None:
    if row.digest in unused:
        return "belongs to no attempt"
    return None if _has_digest(row, kind) else "was changed"


def _rows_of(store: Store, kind: _Kind, after: int) -> Iterator[AnyRow]:
    """Read a table by its digests, some rows in a transaction."""
    digest = kind.table.c.digest
    (key,) = kind.table.primary_key
    query = select(*map(as_stored, kind.table.c))
    if after:
        new_runs = select(SEALS.c.run_id).where(SEALS.c.position > after)
        query = query.where(key.in_(select(kind.reference).where(ATTEMPTS.c.run_id.in_(new_runs))))
    query = query.order_by(digest).limit(EXCHANGES_AT_ONCE)
    last = ""
    while True:
        with store.read() as session:
            rows = session.connection().execute(query.where(digest > last)).all()
        if not rows:
            return
        yield from rows
        last = rows[-1].digest


def _has_digest(row: AnyRow, kind: _Kind) -> bool:
    try:
        headers = tuple((name, value) for name, value in json.loads(row.headers))
        return bool(kind.digest(record(kind.value, row, headers=headers)) == row.digest)
    except (TypeError, ValueError, AttributeError):  # not even the types of the values are right
        return False
