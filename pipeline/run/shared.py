"""A run that machines share: cut into portions when it is ordered, and ended once.

A worker needs the configuration of the run: what a source's requests look like is not in the store.
What is to be asked is, so a portion can be carried out again by another worker: it asks for what
has no outcome yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NoReturn

from sqlmodel import Session

from pipeline.errors import ConfigError, ErrorName
from pipeline.models import RunStatus, RunSummary
from pipeline.pacing import Moment, next_moment
from pipeline.run.upstreams import Upstream, make_upstreams
from pipeline.settings import Settings
from pipeline.store import portions, slots, writes
from pipeline.store.db import Store
from pipeline.store.integrity.chain import lock_chain
from pipeline.store.permissions import find_pace
from pipeline.store.portions import Portion
from pipeline.store.queries import get_run
from pipeline.store.shared_clock import read_clock

PORTION_SECONDS = 30.0  # that a portion is worth at its source's rate
UNLIMITED_FETCHES = 500  # of a source without rate


def refuse_sandbox(kind: str) -> NoReturn:
    """Refuse a source that only the process which plays it can ask."""
    raise ConfigError(
        f"sandbox.{kind} is played by the process that asks it, so other machines cannot: start"
        " `pipeline sandbox`, and name its url"
    )


def make_ready(settings: Settings) -> dict[str, Upstream | ConfigError]:
    """Make the enabled sources ready, each by itself: one that is wrong is left to others."""
    ready: dict[str, Upstream | ConfigError] = {}
    for name, source in settings.enabled_sources.items():
        try:
            narrowed = replace(settings, sources={name: source})
            [ready[name]] = make_upstreams(narrowed, refuse_sandbox)
        except ConfigError as exc:
            ready[name] = exc
    return ready


def cut(run_id: int, upstreams: Sequence[Upstream]) -> Iterator[Portion]:
    """Cut the orders of a run into stretches of about so many seconds of their source's rate.

    The first stretches of all sources go before the second ones of any.
    """
    for upstream in upstreams:
        rate = upstream.rules.rate
        size = UNLIMITED_FETCHES
        if rate is not None:
            size = max(1, int(PORTION_SECONDS * rate.requests / rate.period_seconds))
        is_one = rate is not None or upstream.rules.is_exclusive
        fetches = replace(upstream.order, turns=()).fetches()
        rank = 0
        while stretch := list(islice(fetches, size)):
            yield Portion(
                run_id=run_id,
                source=upstream.order.source,
                first=stretch[0].batches[0].number,
                last=stretch[-1].batches[-1].number,
                lock=upstream.key if is_one else None,
                rank=rank,
            )
            rank += 1


def end_run(
    store: Store,
    upstreams: Mapping[str, Upstream],
    run_id: int,
    *,
    status: RunStatus | None = None,
) -> RunSummary:
    """End a run that machines share, unless another has: what has no outcome gets one.

    That is deferred if the rules kept it until the deadline, failed if they did not. *upstreams*
    are those that are known here, by their sources.
    """
    known = {} if status else upstreams
    with store.write() as session:
        lock_chain(session.connection())  # whoever is second waits here, and finds it ended
        run = get_run(session, run_id=run_id)
        if run.status is RunStatus.RUNNING:
            now = read_clock(session.connection())
            left = portions.find_undecided(session, run_id=run_id)
            writes.finish_run(
                session,
                run_id=run_id,
                ended_at=datetime.now(UTC),
                clock_us=max(0, int((now - run.started_at) / timedelta(microseconds=1))),
                status=status,
                rest=ErrorName.CANCELLED if status else ErrorName.DEADLINE,
                rules={source: upstream.rules for source, upstream in known.items()},
                obstacles={
                    source: moment
                    for source in left & known.keys()
                    if (moment := _obstacle(session, known[source], now))
                },
            )
            run = get_run(session, run_id=run_id)
            slots.settle_rest(session, run=run)
    return run


def _obstacle(session: Session, upstream: Upstream, now: datetime) -> Moment | None:
    """Tell until when the rules forbid to ask for more, if the source has any."""
    moment = next_moment(find_pace(session, upstream=upstream.key), upstream.rules, now=now, bits=1)
    if moment.why or upstream.rules.rate is None:
        return moment if moment.why else None
    return replace(moment, why=f"rate: {upstream.rules.rate}")
