"""What may be asked now: the answers of ``pipeline plan`` and ``pipeline sources``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice

from pipeline.errors import ConfigError, UsageError
from pipeline.rendering.output import (
    json_lines,
    prose,
    render_table,
    write,
    write_lines,
    write_prose,
)
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import count_of, show_time
from pipeline.run.plan import (
    PlannedFetch,
    QuotaLeft,
    Rhythm,
    find_impossible,
    find_paces,
    obstacles,
    plan_fetches,
    plan_upstreams,
    quotas_left,
)
from pipeline.run.upstreams import put_in_turn
from pipeline.sanitize import printable
from pipeline.scope import reading_if_there
from pipeline.settings import Settings
from pipeline.store import permissions
from pipeline.store.db import open_store

FETCH = "source fetch batch_names=batches n planned_at=at why is_deferred"
MOST_LINES = 100  # requests in a table; a program asks for JSON and gets all


def show_plan(settings: Settings, rhythms: Mapping[str, Rhythm], shape: Format) -> None:
    """Write what a run would ask now, and when it may.

    Raises:
        ConfigError: a run, or the runs of a day in these *rhythms*, can never keep the rules.
    """
    upstreams, now = plan_upstreams(settings), datetime.now(UTC)
    with reading_if_there(settings.store) as session:
        paces = find_paces(session, upstreams, now=now)
        if session is not None:
            upstreams = put_in_turn(session, upstreams)
    deadline_seconds = settings.collect.deadline_seconds
    deadline = now + timedelta(seconds=deadline_seconds)
    fetches = plan_fetches(upstreams, paces, now=now, deadline=deadline)
    quotas = quotas_left(upstreams, paces, now=now)
    impossible = find_impossible(upstreams, deadline_seconds=deadline_seconds, rhythms=rhythms)
    if shape is Format.JSON:
        head = {"schema": "pipeline.plan/1", "asked_at": now}
        planned = picks(fetches, FETCH)
        lines = json_lines(head, fetches=planned, quotas=quotas, impossible=impossible)
    else:
        lines = _plan_text(fetches, quotas, now)
        if rhythms and not impossible:
            names = ", ".join(dict.fromkeys(rhythm.name for rhythm in rhythms.values()))
            lines = chain(lines, prose(f"A day of runs {names} fits the rules."))
    write_lines(lines)
    if impossible:
        raise ConfigError(*impossible)


def _plan_text(
    fetches: Iterator[PlannedFetch], quotas: Sequence[QuotaLeft], now: datetime
) -> Iterator[str]:
    shown = list(islice(fetches, MOST_LINES))
    yield render_table(
        ("source", "batches", "n", "may go", "why"),
        (
            (
                fetch.source,
                "..".join(dict.fromkeys((fetch.batches[0], fetch.batches[-1]))),
                fetch.n,
                _moment(fetch, now),
                fetch.why or None,
            )
            for fetch in shown
        ),
    )
    are_deferred = [fetch.is_deferred for fetch in chain(shown, fetches)]
    yield ""
    if more := len(are_deferred) - len(shown):
        yield f"{more} more requests; --format json lists them all."
    if are_deferred:
        requests, put_off = count_of(len(are_deferred), "request"), sum(are_deferred) or "none"
        yield from prose(f"{requests}, {put_off} of them put off to a later run.")
    else:
        yield "Nothing would be asked."
    for quota in quotas:
        allowance = f"{quota.amount} {quota.unit} left this {quota.period}"
        yield from prose(f"{quota.source}: {quota.left} of {allowance}.")


def _moment(fetch: PlannedFetch, now: datetime) -> str:
    if fetch.is_deferred:
        return f"deferred: {show_time(fetch.at)}"
    seconds = (fetch.at - now).total_seconds()
    return "now" if seconds <= 0 else f"in {seconds:.1f} s"


def show_sources(settings: Settings, shape: Format) -> None:
    """Write what is configured, and until when each source must not be asked."""
    upstreams, now = plan_upstreams(settings), datetime.now(UTC)
    with reading_if_there(settings.store) as session:
        paces = find_paces(session, upstreams, now=now)
    found = obstacles(upstreams, paces, now=now)
    until = {name: moment.at for name, moment in found.items() if moment.at > now}
    listed = [
        {
            "source": name,
            "kind": source.kind,
            "is_enabled": source.enabled,
            "batches": len(source.batch_sizes),
            "numbers": sum(source.batch_sizes),
            "not_before": until.get(name),
            "why": found[name].why if name in found else None,
        }
        for name, source in settings.sources.items()
    ]
    if shape is Format.JSON:
        write("\n".join(json_lines({"schema": "pipeline.sources/1"}, sources=listed)))
        return
    rows = (
        each
        | {
            "is_enabled": "yes" if each["is_enabled"] else "no",
            "not_before": show_time(until[name]) if name in until else None,
        }
        for name, each in zip(settings.sources, listed, strict=True)
    )
    columns = ("source", "kind", "asked", "batches", "numbers", "not before", "why")
    write(render_table(columns, (tuple(row.values()) for row in rows)))


def release(settings: Settings, name: str, *, say: Callable[[str], object]) -> None:
    """Lift the embargo on the source *name*, and say so.

    Raises:
        UsageError: it is no enabled source.
    """
    keys = {upstream.order.source: upstream.key for upstream in plan_upstreams(settings)}
    if name not in keys:
        raise UsageError(f"{name!a} is no enabled source; `pipeline sources` lists them")
    url, busy_seconds = settings.store.url, settings.store.busy_seconds
    with (
        open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
        store.write() as session,
    ):
        for note in store.notes:
            say(note)
        embargo = permissions.release(session, upstream=keys[name], now=datetime.now(UTC))
    if embargo is None:
        write_prose(
            f"{name} was under no embargo; its pace and its failures are forgotten,",
            "what is spent of its quotas is not.",
        )
    else:
        write_prose(
            f"{name} may be asked again; it was not to be before {show_time(embargo.until)}:",
            f"  {printable(embargo.why)}",
        )
