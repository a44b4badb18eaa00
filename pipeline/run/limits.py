"""The limits in force in a run, as they are kept beside it, so that it can be judged later."""

from collections.abc import Sequence
from typing import Any

from pipeline.run.upstreams import Upstream
from pipeline.settings import Settings
from pipeline.settings.sizes import GivenSizes


def describe_limits(settings: Settings, upstreams: Sequence[Upstream]) -> dict[str, Any]:
    """Name all limits as the file does, and what of the order they can never let through."""
    from pipeline.run.plan import find_misfits  # noqa: PLC0415 - a configuration is new but once

    collect = settings.collect
    # What was given for one run says nothing of the configuration.
    fixed = [each for each in upstreams if not isinstance(each.order.sizes, GivenSizes)]
    misfits = find_misfits(fixed, deadline_seconds=collect.deadline_seconds)
    return {
        "deadline_seconds": collect.deadline_seconds,
        "retry_budget": collect.retry_budget,
        "max_bytes": collect.max_bytes,
        "sources": {upstream.order.source: limits_of(upstream) for upstream in upstreams},
        "impossible": [{"sources": sources, "reason": reason} for sources, reason in misfits],
    }


def limits_of(upstream: Upstream) -> dict[str, Any]:
    """Name those of one source."""
    rate, policy = upstream.rules.rate, upstream.policy
    return {
        "rate": "none" if rate is None else f"{rate.requests}/{rate.period_seconds:g}s",
        "quotas": [
            f"{quota.amount} {quota.unit}/{quota.period}" for quota in upstream.rules.quotas
        ],
        "in_flight": upstream.in_flight,
        "merge": upstream.order.is_merged,
        "max_numbers": upstream.order.max_numbers,
        "attempt_seconds": policy.limits.attempt_seconds,
        "connect_seconds": policy.limits.connect_seconds,
        "read_seconds": policy.limits.read_seconds,
        "retries": policy.retries,
        "backoff_seconds": policy.backoff_seconds,
        "retry_budget": upstream.retry_budget,
        "breaker": upstream.breaker,
    }
