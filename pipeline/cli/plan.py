"""``pipeline plan``: what a run would ask now, when it may, and whether the rules allow it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import (
    ConfigOption,
    DeadlineOption,
    Format,
    FormatOption,
    SourcesOption,
    parse_interval,
)
from pipeline.cli.render import json_lines, render_table, show_time, spooled
from pipeline.cli.words import count_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.forecast import PlannedFetch, QuotaLeft, Rhythm
    from pipeline.settings import Settings, StoreSettings

MOST_LINES = 100  # requests in a table; a program asks for JSON and gets all


def plan(
    config: ConfigOption = None,
    source: SourcesOption = None,
    deadline: DeadlineOption = None,
    every: Annotated[
        timedelta | None,
        Option(
            parser=parse_interval,
            metavar="INTERVAL",
            help="Check a whole day of runs at this distance too: 10m, 2h, 1d. Without it: of those"
            " that [schedule] promises.",
        ),
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what a run would ask now, and when it may; send nothing.

    \b
    pipeline plan                 each request, its earliest moment and why
    pipeline plan --every 10m     does a day of such runs fit the upstreams' rules?

    Exits with 78 if the rules can never be met.
    """
    with error_boundary():
        from pipeline import forecast
        from pipeline.settings import load_settings, with_overrides

        settings = with_overrides(
            load_settings(config, os.environ), deadline_seconds=deadline, sources=source or ()
        )
        upstreams = forecast.plan_upstreams(settings)
        with reading_if_there(settings.store) as session:
            paces = forecast.find_paces(session, upstreams)
        now = datetime.now(UTC)
        deadline_seconds = settings.collect.deadline_seconds
        fetches = forecast.plan_fetches(
            upstreams, paces, now=now, deadline=now + timedelta(seconds=deadline_seconds)
        )
        quotas = forecast.quotas_left(upstreams, paces, now=now)
        rhythms = _rhythms(settings, every)
        impossible = forecast.find_impossible(
            upstreams, deadline_seconds=deadline_seconds, rhythms=rhythms
        )
        with spooled() as answer:
            if format_ is Format.JSON:
                head = {"schema": "pipeline.plan/1", "at": now}
                lines = json_lines(head, fetches=fetches, quotas=quotas, impossible=impossible)
            else:
                lines = _text(fetches, quotas, now)
                if rhythms and not impossible:
                    names = ", ".join(dict.fromkeys(rhythm.name for rhythm in rhythms.values()))
                    lines = chain(lines, [f"A day of runs {names} fits the rules."])
            answer.writelines(f"{line}\n" for line in lines)
        if impossible:
            raise ConfigError(*impossible)


def _rhythms(settings: "Settings", every: timedelta | None) -> "dict[str, Rhythm]":
    from pipeline.forecast import Rhythm

    if every is not None:
        return dict.fromkeys(settings.enabled_sources, Rhythm.of(every))
    if not settings.has_slots:
        return {}
    from pipeline.schedule.booking import find_rhythms
    from pipeline.schedule.ledger import find_schedules

    return find_rhythms(find_schedules(settings))


@contextmanager
def reading_if_there(settings: "StoreSettings") -> Iterator["Session | None"]:
    """Open the store for questions, or give None where there is none yet."""
    from pipeline.cli.report import reading
    from pipeline.lock import database_file

    file = database_file(settings.url)
    if file is not None and not file.exists():
        yield None
        return
    with reading(settings) as session:
        yield session


def _text(
    fetches: "Iterator[PlannedFetch]", quotas: "list[QuotaLeft]", now: datetime
) -> Iterator[str]:
    shown = list(islice(fetches, MOST_LINES))
    yield render_table(
        ("source", "batches", "n", "may go", "why"),
        (
            (
                fetch.source,
                _names(fetch.batches),
                fetch.n,
                _moment(fetch, now),
                fetch.why or None,
            )
            for fetch in shown
        ),
    )
    more = deferred = 0
    for fetch in fetches:
        more += 1
        deferred += fetch.is_deferred
    deferred += sum(fetch.is_deferred for fetch in shown)
    yield ""
    if more:
        yield f"{more} more requests; --format json lists them all."
    requests = count_of(len(shown) + more, "request")
    yield f"{requests}, {deferred} of them put off to a later run."
    for quota in quotas:
        allowance = f"{quota.amount} {quota.unit} left this {quota.period}"
        yield f"{quota.source}: {quota.left} of {allowance}."


def _names(batches: tuple[str, ...]) -> str:
    return batches[0] if len(batches) == 1 else f"{batches[0]}..{batches[-1]}"


def _moment(fetch: "PlannedFetch", now: datetime) -> str:
    if fetch.is_deferred:
        return f"deferred: {show_time(fetch.at)}"
    seconds = (fetch.at - now).total_seconds()
    return "now" if seconds <= 0 else f"in {seconds:.1f} s"
