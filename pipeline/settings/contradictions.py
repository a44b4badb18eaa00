"""Values that are fine alone and wrong together."""

from collections.abc import Iterator, Mapping
from itertools import chain
from urllib.parse import urlsplit

from pipeline.settings.checks import is_loopback
from pipeline.settings.complaints import Location
from pipeline.settings.tables import CollectSettings, SourceSettings

SUM_LIMIT = 2**63  # a batch's sum must fit into SQLite's integer
KEYED = frozenset({"anu_aqn", "random_org_jsonrpc"})  # the upstreams that want a key

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
    if source.format and source.upstream != "random_org":
        yield "format", "only random_org knows formats; remove it"


def _about_key(source: SourceSettings) -> Iterator[Problem]:
    has_key = source.api_key_env or source.api_key_file
    if source.api_key_env and source.api_key_file:
        yield "api_key_file", "give this or api_key_env, not both"
    if has_key and source.upstream not in KEYED:
        yield (
            ("api_key_env" if source.api_key_env else "api_key_file"),
            (f"{source.upstream} takes no key; remove it"),
        )
    is_plain = source.url is not None and source.url.lower().startswith("http:")
    if (
        has_key
        and source.url
        and is_plain
        and not is_loopback(source.url)
        and not source.allow_http
    ):
        yield "url", "would send the key unencrypted; use https:// or set allow_http = true"


def _about_time(source: SourceSettings) -> Iterator[Problem]:
    if source.attempt_seconds is None:
        return
    for key in ("connect_seconds", "read_seconds"):
        seconds = getattr(source, key)
        # The default of connect_seconds is not the user's word: load.py lowers it instead.
        if key in source.model_fields_set and seconds and seconds > source.attempt_seconds:
            yield key, f"{seconds:g} is more than attempt_seconds, {source.attempt_seconds:g}"


def _about_use(source: SourceSettings, deadline_seconds: float) -> Iterator[Problem]:
    # The sandbox needs neither: its upstreams accept a key of its own.
    if source.kind in KEYED and not (source.api_key_env or source.api_key_file):
        yield "api_key_env", f"is missing; {source.kind} wants a key"
    if source.kind == "random_org" and not source.email:
        yield "email", "is missing; random.org wants to know whom to write to"
    deadline = f"collect.deadline_seconds, {deadline_seconds:g}"
    if (source.attempt_seconds or 0) > deadline_seconds:
        yield "attempt_seconds", f"{source.attempt_seconds:g} is more than {deadline}"
    if source.retries * source.backoff_seconds > deadline_seconds:
        yield "backoff_seconds", f"{source.retries} retries would wait for more than {deadline}"


def find_in_source(source: SourceSettings) -> Iterator[Problem]:
    """Find what contradicts itself within *source*, enabled or not."""
    return chain(
        _about_range(source), _about_address(source), _about_key(source), _about_time(source)
    )


def find_in_use(
    collect: CollectSettings, sources: Mapping[str, SourceSettings]
) -> Iterator[tuple[Location, str]]:
    """Find what keeps the enabled *sources* from being asked, each and together."""
    first: dict[str, str] = {}  # upstream's address → the source that has it
    for name, source in sources.items():
        for key, problem in _about_use(source, collect.deadline_seconds):
            yield ("sources", name, key), problem
        if source.is_sandbox or (source.url and is_loopback(source.url)):
            continue
        # Limits are kept per source: two of them would ask one upstream twice as often.
        address = urlsplit(source.url).netloc.lower() if source.url else source.upstream
        if first.setdefault(address, name) != name:
            yield (
                ("sources", name, "url"),
                f"asks the same upstream as sources.{first[address]}; disable one",
            )
