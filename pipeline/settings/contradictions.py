"""Values that are fine alone and wrong together."""

from collections.abc import Iterator, Mapping
from itertools import chain

from pipeline.settings.api import check_api_address, find_in_api
from pipeline.settings.base import Table
from pipeline.settings.checks import NO_QUERY, is_loopback
from pipeline.settings.complaints import Location
from pipeline.settings.presets import API_KINDS, JSON_API
from pipeline.settings.tables import (
    CollectSettings,
    NotifySettings,
    ScheduleSettings,
    SourceSettings,
)
from pipeline.settings.templates import KEY

SUM_LIMIT = 2**63  # a batch's sum must fit into SQLite's integer
KEYED = frozenset(
    {"anu_aqn", "random_org_jsonrpc", "random_org_signed"}
)  # the upstreams that want a key
# Those whose certificates the user pins.
PINNED = frozenset({"random_org_signed", "nist_beacon", "nqsn_beacon"})

Problem = tuple[str, str]  # key, what is wrong and what to do


def _about_range(source: SourceSettings) -> Iterator[Problem]:
    low, high = source.min, source.max
    if low is None or high is None:
        if low is not high:
            yield ("max" if high is None else "min"), "is missing; give min and max, or neither"
        return
    if low > high:
        yield "min", f"{low} is more than max, {high}; swap them"
    if max(source.batch_sizes) * max(abs(low), abs(high)) >= SUM_LIMIT:
        yield "batches", "a batch's sum could pass 2**63 - 1; use smaller batches or bounds"


def _about_address(source: SourceSettings) -> Iterator[Problem]:
    if source.is_sandbox and source.url:
        yield "url", f'the sandbox has its own; remove it or use kind = "{source.upstream}"'
    if source.is_sandbox and (source.proxy or source.proxy_env):
        yield "proxy" if source.proxy else "proxy_env", "the sandbox is on this machine; remove it"
    if source.proof_key_file and source.upstream not in PINNED:
        yield "proof_key_file", f"only {', '.join(sorted(PINNED))} take it; remove it"
    if source.format and source.upstream != "random_org":
        yield "format", "only random_org knows formats; remove it"
    if source.email and source.upstream != "random_org":
        yield "email", "only random_org is told it; remove it"


def _about_api(source: SourceSettings) -> Iterator[Problem]:
    if source.upstream == JSON_API:
        yield from _about_generic_api(source)
    elif "?" in (source.url or ""):
        yield "url", NO_QUERY
    if source.api and source.upstream not in API_KINDS:
        yield "api", f"only {', '.join(API_KINDS)} take it; remove it"


def _about_generic_api(source: SourceSettings) -> Iterator[Problem]:
    """Find what is missing of an API of which only the file knows anything."""
    if source.url is None:
        yield "url", "is missing; give the whole address, with {n}, {min} and {max} in it"
    else:
        try:
            check_api_address(source.url)
        except ValueError as error:
            yield "url", str(error)
    if source.min is None and source.max is None:
        yield "min", "is missing; give min and max, or word"
    if source.api is None:
        yield "api", "is missing; say in [sources.<name>.api] how it is asked and read"


def _takes_key(source: SourceSettings) -> bool:
    if source.api is not None:
        return KEY in source.api.placeholders(source.url or "")
    return source.upstream in KEYED


def _about_key(source: SourceSettings) -> Iterator[Problem]:
    given = [key for key in ("api_key_env", "api_key_file") if getattr(source, key)]
    yield from _not_both(source, "api_key_file", "api_key_env")
    if given and not _takes_key(source):
        hint = ", or write {key} where it belongs" if source.api else ""
        yield given[0], f"{source.upstream} takes no key; remove it{hint}"
    url = source.url or ""
    is_exposed = url.lower().startswith("http://") and not is_loopback(url)
    if given and not source.allow_http and is_exposed:
        yield "url", "would send the key unencrypted; use https:// or set allow_http = true"


def _not_both(table: Table, key: str, other: str) -> Iterator[Problem]:
    """Find that two keys are given of which one would do."""
    if getattr(table, key) and getattr(table, other):
        yield key, f"give this or {other}, not both"


def _about_time(source: SourceSettings) -> Iterator[Problem]:
    whole = source.attempt_seconds
    for key, seconds in _set_times(source):
        if whole is not None and seconds > whole:
            yield key, f"{seconds:g} is more than attempt_seconds, {whole:g}"


def _set_times(source: SourceSettings) -> list[tuple[str, float]]:
    # A default is not the user's word: where one is too long it gives way without a complaint.
    keys = source.model_fields_set & {"attempt_seconds", "connect_seconds", "read_seconds"}
    return [(key, getattr(source, key)) for key in sorted(keys)]


def _about_use(source: SourceSettings, deadline_seconds: float) -> Iterator[Problem]:
    # The sandbox needs neither: its upstreams accept a key of its own.
    is_keyed = not source.is_sandbox and _takes_key(source)
    if is_keyed and not (source.api_key_env or source.api_key_file):
        yield "api_key_env", f"is missing; {source.kind} wants a key"
    if source.kind == "random_org" and not source.email:
        yield "email", "is missing; random.org wants to know whom to write to"
    deadline = f"collect.deadline_seconds, {deadline_seconds:g}"
    for key, seconds in _set_times(source):
        if seconds > deadline_seconds:
            yield key, f"{seconds:g} is more than {deadline}"
    if source.retries * source.backoff_seconds > deadline_seconds:
        yield "backoff_seconds", f"{source.retries} retries would wait for more than {deadline}"


def find_in_source(source: SourceSettings) -> Iterator[tuple[Location, str]]:
    """Find what contradicts itself within *source*, enabled or not."""
    problems = chain(
        _about_range(source),
        _about_address(source),
        _about_api(source),
        _about_key(source),
        _not_both(source, "proxy_env", "proxy"),
        _about_time(source),
    )
    yield from (((key,), problem) for key, problem in problems)
    if source.api and source.upstream in API_KINDS:
        for location, problem in find_in_api(source.api, source.url or ""):
            yield ("api", *location), problem


def find_in_use(
    collect: CollectSettings, sources: Mapping[str, SourceSettings]
) -> Iterator[tuple[Location, str]]:
    """Find what keeps the enabled *sources* from being asked."""
    for key, problem in _not_both(collect, "proxy_env", "proxy"):
        yield ("collect", key), problem
    for name, source in sources.items():
        for key, problem in _about_use(source, collect.deadline_seconds):
            yield ("sources", name, key), problem


def find_in_notify(notify: NotifySettings) -> Iterator[tuple[Location, str]]:
    """Find what contradicts itself in whom to tell."""
    for key, problem in _not_both(notify, "ping_url_env", "ping_url"):
        yield ("notify", key), problem


def find_in_schedule(
    schedule: ScheduleSettings, sources: Mapping[str, SourceSettings]
) -> Iterator[tuple[Location, str]]:
    """Find what keeps the enabled *sources* from being collected in slots."""
    for key, problem in _not_both(schedule, "every", "cron"):
        yield ("schedule", key), problem
    own = {name: source.schedule for name, source in sources.items() if source.schedule}
    for name, of_source in own.items():
        for key, problem in _not_both(of_source, "every", "cron"):
            yield ("sources", name, "schedule", key), problem
        if not (of_source.cron or of_source.every):
            yield ("sources", name, "schedule"), "needs cron or every"
    others = ", ".join(name for name in sources if name not in own)
    if own and others and not (schedule.cron or schedule.every):
        yield ("schedule",), f"needs cron or every, or nothing says when to collect {others}"
