"""Opens portions of shared runs: what is left of them, and what it takes to ask for that."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from sqlmodel import Session

from pipeline.errors import ConfigError
from pipeline.lock import host_identity
from pipeline.run.limiter import Limiter
from pipeline.run.limiters import Limiters
from pipeline.run.limits import limits_of
from pipeline.run.observer import ExchangeObserver
from pipeline.run.order import Order
from pipeline.run.queue import make_observers
from pipeline.run.upstreams import Upstream
from pipeline.settings import Settings
from pipeline.store import portions
from pipeline.store.configurations import find_limits
from pipeline.store.db import Store
from pipeline.store.portions import Portion, Standing


@dataclass(frozen=True, slots=True)
class Opened:
    """A portion that is this worker's, with all that it takes to ask for what is left of it."""

    standing: Standing
    upstream: Upstream
    limiter: Limiter
    observer: ExchangeObserver


@dataclass(kw_only=True)
class Opener:
    """Opens portions, several at once, if the configuration here is that of their run."""

    settings: Settings
    store: Store
    state_folder: Path
    ready: Mapping[str, Upstream | ConfigError]
    limiters: Limiters = field(init=False)
    _limits: dict[int, dict[str, Any]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.limiters = Limiters(
            store=self.store, url=self.settings.store.url, state_folder=self.state_folder
        )

    def open(
        self, run_id: int, firsts: Collection[int], *, member: int | None
    ) -> Mapping[int, Opened | ConfigError]:
        """Open the portions of a run that begin with these batches, those that are not done.

        By their first batches; or why they are left to others. *member* is the worker that asks.
        """
        host, pid = host_identity(), os.getpid()
        found: dict[int, Opened | ConfigError] = {}
        ours: list[tuple[Standing, Upstream]] = []
        with self.store.write() as session:
            limits = self._limits_of(session, run_id)
            for standing in portions.begin(
                session, run_id=run_id, firsts=firsts, host=host, pid=pid
            ):
                portion = standing.portion
                try:
                    self._refuse_others(portion, limits)
                    ours.append((standing, self._upstream_of(standing)))
                except ConfigError as exc:  # that must not keep the others
                    found[portion.first] = exc
                    portions.refuse(session, portion, why=f"{host} pid {pid}: {exc}")
        upstreams = [upstream for _, upstream in ours]
        limiters = self.limiters.open(upstreams)
        with self.store.read() as session:
            observers = make_observers(session, self.settings, run_id, upstreams, member=member)
        for (standing, upstream), observer in zip(ours, observers, strict=True):
            limiter = limiters[upstream.key]
            found[standing.portion.first] = Opened(standing, upstream, limiter, observer)
        return found

    def _limits_of(self, session: Session, run_id: int) -> Mapping[str, Mapping[str, object]]:
        limits = self._limits.get(run_id)
        if limits is None:
            limits = (find_limits(session, run_id=run_id) or {}).get("sources", {})
            self._limits = {run_id: limits}  # of a thousand sources they are long
        return limits

    def _refuse_others(self, portion: Portion, limits: Mapping[str, Mapping[str, object]]) -> None:
        """Refuse a portion of a source that has other rules here than where it was ordered."""
        upstream = self._upstream(portion.source)
        ours = limits_of(upstream)
        theirs = limits.get(portion.source, {})
        other = [name for name, limit in theirs.items() if ours.get(name) != limit]
        if portion.lock not in (None, upstream.key):
            other.insert(0, "url")
        if other:
            raise ConfigError(
                f"source {portion.source} has another {', '.join(other)} in {self.settings.named};"
                " left to workers with the configuration of the run"
            )

    def _upstream(self, name: str) -> Upstream:
        upstream = self.ready.get(name)
        if upstream is None:
            raise ConfigError(
                f"no source {name} is enabled in {self.settings.named}; left to workers"
                " with the configuration of the run"
            )
        if isinstance(upstream, ConfigError):
            raise ConfigError(*upstream.complaints)
        return upstream

    def _upstream_of(self, standing: Standing) -> Upstream:
        portion, batches = standing.portion, standing.batches
        upstream = self._upstream(portion.source)
        order = Order(
            source=portion.source,
            sizes=[batch.n for batch in batches],
            min=batches[0].min,
            max=batches[0].max,
            first=portion.first,
            max_numbers=upstream.order.max_numbers,
            is_merged=upstream.order.is_merged,
            turns=[number - portion.first for number in sorted(standing.undecided)],
        )
        share = ceil(upstream.retry_budget * len(batches) / len(upstream.order.sizes))
        return replace(upstream, order=order, retry_budget=share)
