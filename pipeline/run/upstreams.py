"""The enabled sources, made ready to be asked: adapter, order, request policy and rules of each."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from ssl import SSLContext
from urllib.parse import urlsplit

from sqlmodel import Session

from pipeline.errors import ConfigError
from pipeline.models import Batch, Fetch
from pipeline.pacing import Rules
from pipeline.run.fetcher import RequestPolicy
from pipeline.run.order import Order
from pipeline.settings import Settings, SourceSettings
from pipeline.settings.checks import check_proxy_url
from pipeline.settings.environment import find_proxy
from pipeline.sources.base import Recalling, Source
from pipeline.sources.http import Leniency, Limits, make_ssl_context
from pipeline.sources.proxy import Proxy, parse_proxy
from pipeline.sources.registry import KINDS, NO_RULES, Kind, make_source
from pipeline.store.proofs import newest_serial
from pipeline.store.turns import find_turns

# What the sandbox takes for a key and an address: a demo must not need either.
DEMO_KEY = "00000000-0000-4000-8000-000000000000"
PORTS = {"http": 80, "https": 443}
DEMO_EMAIL = "demo@example.org"
UNNAMED_KEY = "API_KEY"  # names the key in requests that are kept, where no variable holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One source, ready to be asked.

    Attributes:
        key: names whom the rules count: the upstream's address, and the account if it has one.
        is_remembered: whether what is known of it outlives the run; not of a sandbox of our own.
        is_public: whether it is the service that all the world asks, and not one that was named.
        breaker: failures in a row after which it is left alone; 0: never.
        retry_budget: retries of all its fetches together.
    """

    order: Order
    source: Source
    policy: RequestPolicy
    in_flight: int
    key: str
    rules: Rules
    is_remembered: bool
    is_public: bool
    breaker: int
    retry_budget: int
    ssl_context: SSLContext | None
    proxy: Proxy | None
    leniency: Leniency


def _rules(settings: SourceSettings, kind: Kind) -> Rules:
    """Give the kind's rules where the file says nothing; a sandbox of our own has none to keep."""
    rules = NO_RULES if settings.is_sandbox else kind.rules
    is_one = (settings.in_flight or kind.in_flight) == 1
    rules = replace(rules, is_exclusive=is_one and not settings.is_sandbox)
    if settings.rate is not None:
        rules = replace(rules, rate=None if settings.rate == "none" else settings.rate)
    if settings.quotas is not None:
        rules = replace(rules, quotas=settings.quotas)
    return rules


def _key(settings: SourceSettings, url: str, secret: str | None) -> str:
    parts = urlsplit(url)
    port = parts.port or PORTS[parts.scheme]
    address = f"{settings.upstream}@{(parts.hostname or '').rstrip('.')}:{port}"
    account = hashlib.sha256((secret or "").encode()).hexdigest()[:8]
    return f"{address}#{account}" if secret else address


def _proxy(settings: SourceSettings, whole: Settings, url: str) -> tuple[Proxy | None, str]:
    """Choose through whom *url* is asked, and name a variable whose proxy is not used."""
    table = settings if settings.proxy or settings.proxy_url else whole.collect
    in_environment = find_proxy(whole.proxy_variables, url)
    if settings.is_sandbox or table.proxy == "none":
        return None, ""
    if table.proxy_url is not None:
        return parse_proxy(table.proxy_url.get_secret_value()), ""
    if not table.proxy:
        return None, in_environment[0] if in_environment else ""
    if table.proxy != "env":
        return parse_proxy(table.proxy), ""
    if in_environment is None:
        return None, ""
    variable, address = in_environment
    try:
        return parse_proxy(check_proxy_url(address)), ""
    except ValueError as error:
        raise ConfigError(f"the environment variable {variable}: {error}") from error


def _max_numbers(source: Source, rules: Rules, low: int, high: int) -> int:
    """Count the numbers that one request may bring: a quota in bits can be less than one request.

    Merged or not, what costs more than the whole quota would be put off for ever.
    """
    most = source.max_numbers(low, high)

    def cost_bits(n: int) -> int:
        batch = Batch(number=0, source="", n=n, min=low, max=high)
        return source.cost_bits(Fetch(number=0, batches=(batch,)))

    for quota in rules.quotas:
        if quota.unit == "bits":
            most = bisect_right(range(1, most + 1), quota.amount, key=cost_bits)
    return most


def _make_upstream(
    name: str, settings: SourceSettings, whole: Settings, *, first: int, url: str
) -> Upstream:
    kind = KINDS[settings.upstream]
    secret = None if settings.api_key is None else settings.api_key.get_secret_value()
    email = settings.email
    if settings.is_sandbox:
        secret, email = secret or DEMO_KEY, email or DEMO_EMAIL
    source = make_source(
        settings.upstream,
        url=url,
        api_key=secret,
        email=email,
        format=settings.format,
        api=settings.api,
        is_sandbox=settings.is_sandbox,
        proof_key_file=settings.proof_key_file,
    )
    low = kind.default_min if settings.min is None else settings.min
    high = kind.default_max if settings.max is None else settings.max
    rules = _rules(settings, kind)
    attempt_seconds = settings.attempt_seconds or kind.attempt_seconds
    proxy, unused_proxy = _proxy(settings, whole, url)
    secrets = (() if secret is None else (secret,)) + (proxy.secrets if proxy else ())
    return Upstream(
        order=Order(
            source=name,
            sizes=settings.batch_sizes,
            min=low,
            max=high,
            first=first,
            max_numbers=_max_numbers(source, rules, low, high),
            is_merged=kind.merge if settings.merge is None else settings.merge,
            is_sandbox=settings.is_sandbox,
        ),
        source=source,
        policy=RequestPolicy(
            limits=Limits(
                connect_seconds=settings.connect_seconds,
                read_seconds=settings.read_seconds or attempt_seconds,
                attempt_seconds=attempt_seconds,
                max_bytes=whole.collect.max_bytes,
            ),
            retries=settings.retries,
            backoff_seconds=settings.backoff_seconds,
            secrets=secrets,
            variable=settings.api_key_env or UNNAMED_KEY,
            evidence_bytes=whole.collect.evidence_bytes,
            unused_proxy=unused_proxy,
        ),
        in_flight=settings.in_flight or kind.in_flight,
        key=_key(settings, url, secret),
        rules=rules,
        is_remembered=not settings.is_sandbox,
        is_public=not settings.is_sandbox and settings.url is None,
        breaker=settings.breaker,
        retry_budget=settings.retry_budget,
        ssl_context=make_ssl_context(settings.ca_file) if url.startswith("https:") else None,
        proxy=proxy,
        leniency=Leniency(
            content_types=frozenset(settings.accept_content_type),
            takes_gzip=settings.accept_encoding == "gzip",
        ),
    )


def _conflicts(upstreams: Sequence[Upstream]) -> list[str]:
    """Find sources that ask the same upstream and do not agree on its rules."""
    first: dict[str, Upstream] = {}
    for upstream in upstreams:
        first.setdefault(upstream.key, upstream)
    return [
        f"sources.{upstream.order.source}: asks the same upstream as sources."
        f"{first[upstream.key].order.source}; give both the same in_flight, rate and quotas"
        for upstream in upstreams
        if upstream.rules != first[upstream.key].rules
    ]


def make_upstreams(settings: Settings, sandbox_url: Callable[[str], str]) -> list[Upstream]:
    """Make ready what the enabled sources need, their batches numbered in the order of the file.

    Raises:
        ConfigError: a source cannot serve what is ordered from it; one line for each.
    """
    upstreams: list[Upstream] = []
    complaints: list[str] = []
    first = 0
    for name, source in settings.enabled_sources.items():
        url = source.url or KINDS[source.upstream].default_url
        if source.is_sandbox:
            url = sandbox_url(source.upstream)
        try:
            upstreams.append(_make_upstream(name, source, settings, first=first, url=url))
        except ConfigError as exc:
            complaints += [f"sources.{name}: {complaint}" for complaint in exc.complaints]
        first += len(source.batch_sizes)
    complaints += _conflicts(upstreams)
    if complaints:
        raise ConfigError(*complaints)
    return upstreams


def put_in_turn(
    session: Session, upstreams: Sequence[Upstream], *, before: int | None = None
) -> list[Upstream]:
    """Let the sources and batches go first that earlier runs asked for the longest time ago.

    *before* is the run that is to ask: it counts only those that began before it.
    """
    found: list[tuple[int, Upstream]] = []
    for upstream in upstreams:
        order = upstream.order
        turns = find_turns(
            session,
            source=order.source,
            sizes=order.sizes,
            is_sandbox=order.is_sandbox,
            before=before,
        )
        ordered = replace(upstream, order=replace(order, turns=turns.positions))
        found.append((turns.newest_run, ordered))
    return [upstream for _, upstream in sorted(found, key=itemgetter(0))]


def remind(session: Session, upstream: Upstream) -> None:
    """Tell a source that keeps its answers which of them came last in earlier runs."""
    if not isinstance(upstream.source, Recalling):
        return
    serial = newest_serial(session, source=upstream.order.source)
    if serial is not None:
        upstream.source.remember(serial)
